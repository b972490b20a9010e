// What lanes, warps and blocks of a cluster tell each other through. Clusters are of sm_90 and later.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>

#if defined(__CUDACC__)

namespace grpo::inline v0::detail {

// What a block's lanes exchange states through, twice over: whoever writes one half knows that the other has been read.
template <int Slot, int Warps, int Blocks, int Results>  // bytes of a state at most, and of how many
struct alignas(128) exchange {  // so that what lies behind it begins with a line of banks
    static constexpr int slot = Slot;
    unsigned char warp[2][Warps][slot];
    unsigned char block[2][Blocks][slot];
    unsigned char result[2][Results][slot];
    std::uint64_t arrived[2];  // what blocks of a cluster wait on for each other's states
};

// A plain value moved between the lanes of a warp, word by word.
template <class T, class Move>
__device__ inline T moved(const T& x, Move&& move) {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) % 4 == 0);
    constexpr int words = static_cast<int>(sizeof(T) / 4);
    std::uint32_t bits[words];
    __builtin_memcpy(bits, &x, sizeof(T));
    for (int k = 0; k < words; ++k) bits[k] = move(bits[k]);
    T y;
    __builtin_memcpy(&y, bits, sizeof(T));
    return y;
}

// A mask that the compiler knows: it spares whole warps the search for who is there.
inline constexpr std::uint32_t whole_warp = 0xffffffffu;

// What `width` lanes of a warp have each, merged in a tree; the same in all of them.
template <class Monoid, class State>
__device__ inline State merged(std::uint32_t mask, int width, State mine) {
    for (int half = width / 2; half > 0; half /= 2) {
        const State other = moved(mine, [&](std::uint32_t w) { return __shfl_down_sync(mask, w, half, width); });
        Monoid::merge(mine, other);
    }
    return moved(mine, [&](std::uint32_t w) { return __shfl_sync(mask, w, 0, width); });
}

__device__ inline void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
    asm volatile("barrier.cluster.arrive.release.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}
// Blocks of a cluster send each other states and count the bytes that have arrived: a wait of a few warps that, unlike a
// barrier of the cluster, leaves the first-level cache of global memory as it is.
__device__ inline std::uint32_t shared_address(const void* p) { return static_cast<std::uint32_t>(__cvta_generic_to_shared(p)); }
__device__ inline void prepare_arrivals([[maybe_unused]] std::uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.init.shared.b64 [%0], 1;" ::"r"(shared_address(barrier)));
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}
__device__ inline void expect_bytes([[maybe_unused]] std::uint64_t* barrier, [[maybe_unused]] std::uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
    asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
#endif
}
// One word to the same place of another block's shared memory.
__device__ inline void send_word([[maybe_unused]] void* here, [[maybe_unused]] std::uint64_t* barrier, [[maybe_unused]] int block,
                                 [[maybe_unused]] std::uint32_t word) {
#if __CUDA_ARCH__ >= 900
    std::uint32_t there, counted;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(here)), "r"(block));
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(counted) : "r"(shared_address(barrier)), "r"(block));
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];" ::"r"(there), "r"(word),
                 "r"(counted)
                 : "memory");
#endif
}
__device__ inline void wait_for_bytes([[maybe_unused]] std::uint64_t* barrier, [[maybe_unused]] std::uint32_t parity) {
#if __CUDA_ARCH__ >= 900
    std::uint32_t done = 0;
    while (done == 0) {
        asm volatile("{\n\t.reg .pred p;\n\tmbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n\tselp.u32 %0, 1, 0, p;\n\t}"
                     : "=r"(done)
                     : "r"(shared_address(barrier)), "r"(parity)
                     : "memory");
    }
#endif
}

}  // namespace grpo::inline v0::detail

#endif
