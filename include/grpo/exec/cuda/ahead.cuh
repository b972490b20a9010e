// Rows of logits that a team walks one after the other, those that follow under way meanwhile.
//
//   auto rows = team.template ahead<V>(data, upcoming);   // upcoming.next(span): the next row that will be read, in turn
//   rows.template pass<Monoid>(row, f)                    // reads a row once, as stream() does: what this lane found
//   rows.template measure<Monoid>(row, f)                 // the same, and the row is kept
//   rows.sweep(row, each)                                 // the second pass over the row that is kept
//   rows.visit(row, each)                                 // a row once, as sweep() does
//
// Passes that write say so by two verbs, each.but_chosen(at) for every position and each.fix() at the end, which writes one
// position again; rows.writes(row, i) is whether this lane does that.
//
// Each lane copies the packs that it will compute on itself into shared memory of its own, in a ring: no lane waits for
// another, and a lane writes over a pack in place only after its own copy has arrived.
#pragma once

#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/exec/cuda/pack.cuh>
#include <grpo/exec/cuda/pack_exponent.cuh>
#include <grpo/exec/cuda/plan.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>

namespace grpo::inline v0::detail {

// Packs are dealt out in turn; what comes before the whole ones goes to the first lane, what comes after to the last.
template <class V>
GRPO_HD std::int32_t lane_of(const span& row, std::int64_t i, std::int32_t lanes) {
    constexpr std::int64_t width = cursor<V>::lanes;
    const std::int64_t first = row.begin + row.head;
    if (i < first) return 0;
    const std::int64_t pack = (i - first) / width;
    return pack < (row.end - first) / width ? static_cast<std::int32_t>(pack) & (lanes - 1) : lanes - 1;
}

struct nothing_earlier {
    template <class F>
    GRPO_HD void each(F&&) const {}
};

#if defined(__CUDACC__)

extern __shared__ sixteen_bytes ring_memory[];

__device__ inline void copy_ahead([[maybe_unused]] std::uint32_t to, [[maybe_unused]] const void* from) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from));
#endif
}
__device__ inline void close_step() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;");
#endif
}
// Until all but the latest steps have arrived.
template <int Latest>
__device__ inline void wait_for_step() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(Latest));
#endif
}

// A pack whose data is in the ring, at its place in a row; everything else at that place is in global memory.
template <class V, class T>
struct held_cursor : whole_cursor<V> {
    std::uint32_t place;   // of its first 16 bytes, in shared memory
    std::uint32_t apart;   // from these to the next

    __device__ V load(const T*) const {
        constexpr int words = static_cast<int>(8 * sizeof(T) / 16);
        sixteen_bytes bytes[words];
        for (int w = 0; w < words; ++w) {
            std::uint32_t* const to = bytes[w].word;
            asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                         : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                         : "r"(place + static_cast<std::uint32_t>(w) * apart));
        }
        return scalar_traits<V>::load(reinterpret_cast<const T*>(bytes), 8);
    }
    __device__ void prefetch(const T*) const {}
    template <class U>
    __device__ void store(U* p, const V& x) const {
        scalar_traits<V>::store_whole(p + this->i, x);
    }
};

template <class V, class T, class Team, class Upcoming>
class rows_ahead {
public:
    __device__ rows_ahead(const Team& team, const T* data, const Upcoming& upcoming)
        : team_(team), data_(data), upcoming_(upcoming), lane_(static_cast<std::int32_t>(team.lane())),
          size_(static_cast<std::int32_t>(team.size())), log_step_(0),
          apart_(16 * static_cast<std::uint32_t>(blockDim.x)),
          place_(static_cast<std::uint32_t>(__cvta_generic_to_shared(ring_memory)) +
                 16 * static_cast<std::uint32_t>(threadIdx.x)) {
        while ((1 << log_step_) < K * size_) ++log_step_;
        for (int k = 0; k < steps; ++k) {
            issue(at_);
            at_ = after(at_);
        }
    }

    template <class Monoid, class F>
    __device__ auto pass(const span& row, F&& f) {
        return walk<Monoid, false>(row, f);
    }
    template <class Monoid, class F>
    __device__ auto measure(const span& row, F&& f) {
        return walk<Monoid, true>(row, f);
    }
    // Whether this lane will write position i of a row.
    __device__ bool writes(const span& row, std::int64_t i) const { return lane_of<V>(row, i, size_) == lane_; }
    template <class F>
    __device__ void sweep(const span& row, const F& each) {
        visit<true>(row, each);
    }
    template <bool Arrived = false, class F>
    __device__ void visit(const span& row, const F& each) {
        const F body = each;
        const share here(*this, row);
        walk_steps(here, [&](const auto& at) {
            if constexpr (!Arrived) wait_for_step<steps - 1>();
            for (const auto& one : at) body.but_chosen(one);
            issue(at_);
            at_ = after(at_);
        }, at_);
        team_.template ends<V>(row, here.first + std::int64_t{here.packs} * width, body);
        body.fix();
    }

private:
    using held = held_cursor<V, T>;
    static constexpr int width = 8;
    static constexpr int K = 2;
    static constexpr std::uint32_t words = static_cast<std::uint32_t>(width * sizeof(T) / 16);
    static constexpr int steps = ring_steps<T>;

    // The whole packs of a row. Steps are the same for all lanes; all but the last are whole.
    struct share {
        std::int64_t first = 0;
        std::int32_t packs = 0;
        std::int32_t steps = 0;

        __device__ share() {}
        __device__ share(const rows_ahead& self, const span& row)
            : first(row.begin + row.head), packs(static_cast<std::int32_t>((row.end - first) / width)),
              steps((packs + K * self.size_ - 1) >> self.log_step_) {}
    };
    template <int N>
    struct some {
        held at[N > 0 ? N : 1];
        __device__ const held* begin() const { return at; }
        __device__ const held* end() const { return at + N; }
    };

    __device__ static int after(int step) { return step + 1 == steps ? 0 : step + 1; }
    __device__ std::uint32_t place(int step) const { return place_ + static_cast<std::uint32_t>(step) * (K * words * apart_); }

    // f(cursors) for this lane's packs of a step, and for no cursors where it has none: all lanes come as often.
    template <class F>
    __device__ void walk_steps(const share& here, F&& f, const int& step_in_ring) const {
        std::int32_t pack = lane_;
        for (std::int32_t step = 0; step < here.steps; ++step, pack += K * size_) {
            const std::uint32_t at = place(step_in_ring);
            const std::int64_t i = here.first + std::int64_t{pack} * width;
            const held one{{i}, at, apart_};
            const held other{{i + std::int64_t{size_} * width}, at + words * apart_, apart_};
            if (pack + size_ < here.packs) f(some<2>{{one, other}});
            else if (pack < here.packs) f(some<1>{{one}});
            else f(some<0>{});
        }
    }

    // The next step of the rows to come, into a place of the ring whose data has been used.
    __device__ void issue(int step) {
        if (left_ == 0 && more_) begin_row();
        if (left_ > 0) {
            if (pack_ < packs_) copy(place(step), source_);
            if (pack_ + size_ < packs_) copy(place(step) + words * apart_, source_ + std::int64_t{size_} * width);
            pack_ += K * size_;
            source_ += std::int64_t{K} * size_ * width;
            --left_;
        }
        close_step();
    }
    __device__ void begin_row() {
        span row;
        more_ = upcoming_.next(row);
        if (!more_) return;
        const share coming(*this, row);
        left_ = coming.steps;
        packs_ = coming.packs;
        pack_ = lane_;
        source_ = data_ + coming.first + std::int64_t{lane_} * width;
    }
    __device__ void copy(std::uint32_t to, const T* from) const {
        for (std::uint32_t w = 0; w < words; ++w) copy_ahead(to + w * apart_, reinterpret_cast<const sixteen_bytes*>(from) + w);
    }

    // A step's copies are older than the steps of the ring less one, also where a row is kept and none are added.
    template <class Monoid, bool Kept, class F>
    __device__ auto walk(const span& row, F&& f) {
        typename Monoid::template state<V> mine;
        f.begin(mine);
        const nothing_earlier none{};
        const share here(*this, row);
        int at = at_;
        walk_steps(here, [&]<int N>(const some<N>& cursors) {
            wait_for_step<steps - 1>();
            if constexpr (N > 0) f(mine, cursors.at, none);
            if constexpr (Kept) close_step();
            else issue(at);
            at = after(at);
        }, at);
        if constexpr (!Kept) at_ = at;
        team_.template ends<V>(row, here.first + std::int64_t{here.packs} * width, [&](const cursor<V>& part) {
            const cursor<V> one[1] = {part};
            f(mine, one, none);
        });
        Monoid::flush(mine);
        return static_cast<const typename Monoid::total&>(mine);
    }

    const Team& team_;
    const T* data_;
    Upcoming upcoming_;
    std::int32_t lane_;
    std::int32_t size_;  // of the team, a power of 2
    int log_step_;       // of the packs in a step
    std::uint32_t apart_;
    std::uint32_t place_;  // of this lane's first 16 bytes in the ring
    // Of the row that is being copied:
    std::int32_t left_ = 0;  // steps
    std::int32_t packs_ = 0;
    std::int32_t pack_ = 0;
    const T* source_ = nullptr;
    bool more_ = true;
    int at_ = 0;  // the current row's first step in the ring
};

#endif

// The same without a ring: the second pass finds the row in a cache, or not.
template <class V, class Team>
struct rows_in_turn {
    const Team& team;

    template <class Monoid, class F>
    GRPO_HD auto pass(const span& row, F&& f) const {
        return measure<Monoid>(row, f);
    }
    template <class Monoid, class F>
    GRPO_HD auto measure(const span& row, F&& f) const {
        return team.template walked<Monoid, V>(row, f);
    }
    GRPO_HD bool writes(const span& row, std::int64_t i) const {
        return lane_of<V>(row, i, static_cast<std::int32_t>(team.size())) == team.lane();
    }
    template <class F>
    GRPO_HD void sweep(const span& row, const F& each) const {
        team.template sweep<V>(row, each);
    }
    template <class F>
    GRPO_HD void visit(const span& row, const F& each) const {
        sweep(row, each);
    }
};

}  // namespace grpo::inline v0::detail
