// What blocks of a cluster tell each other, in PTX; from sm_90 on.
#pragma once

#include <cstdint>

#include <grpo/detail/config.hpp>

#if defined(__CUDACC__)

namespace grpo::inline v0::detail {

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
