// lanes<N>: a block of N threads that walks one row at a time, with the positions, the tree and the block scan of a CUDA
// block and std::barrier for __syncthreads(). The algorithm of a device, testable without one and under ThreadSanitizer.
#pragma once

#include <barrier>
#include <cstddef>
#include <cstdint>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>

#include <grpo/exec/cuda/ahead.cuh>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/shape.hpp>

namespace lanes_detail {

// What a block has in shared memory.
template <int N>
struct block {
    static constexpr std::size_t slot = 4096;
    std::barrier<> barrier{N};
    alignas(64) std::byte memory[N * slot];

    void synchronise() { barrier.arrive_and_wait(); }

    template <class T>
    T& at(int lane) {
        static_assert(sizeof(T) <= slot && std::is_trivially_destructible_v<T>);
        return *std::launder(reinterpret_cast<T*>(memory + static_cast<std::size_t>(lane) * slot));
    }
    template <class T>
    void put(int lane, const T& x) {
        new (memory + static_cast<std::size_t>(lane) * slot) T(x);
    }
};

}  // namespace lanes_detail

// A team of N lanes (a power of two). Lane k takes the positions k, k + N, ... of a row; scans run in blocks of N from
// the end, lane 0 at the latest position. Width: neighbouring floats that a lane computes on, as a device's does.
template <int N, int Width = 1>
class lanes_team {
public:
    static_assert((N & (N - 1)) == 0);
    static constexpr int worker = 0;

    template <class T>
    using vector = std::conditional_t<Width == 1 || !std::is_same_v<T, float>, T, grpo::float_pack<Width>>;

    lanes_team(lanes_detail::block<N>& shared, int lane) : shared_(shared), lane_(lane) {}

    bool leader() const { return lane_ == 0; }
    std::int64_t lane() const { return lane_; }
    std::int64_t size() const { return N; }

    template <class Monoid, class V, class F>
    auto fold(std::int64_t begin, std::int64_t end, F&& f) const {
        typename Monoid::template state<double> mine;
        each<V>(begin, end, [&](const grpo::cursor<V>& at) { f(mine, at); });
        return tree<Monoid>(mine);
    }
    template <class Monoid, class V, class Active, class Skipped, class F>
    auto fold(std::int64_t begin, std::int64_t end, Active&& active, Skipped&& skipped, F&& f) const {
        using grpo::detail::any;
        typename Monoid::template state<double> mine;
        each<V>(begin, end, [&](const grpo::cursor<V>& at) {
            const grpo::mask_t<V> counts = active(at);
            if (any(counts)) f(mine, at, counts);
            else skipped(at);
        });
        return tree<Monoid>(mine);
    }

    template <class Monoid, class State>
    State combine(const State& mine) const {
        return tree<Monoid>(mine);
    }

    template <class V, class F>
    void each(std::int64_t begin, std::int64_t end, F&& f) const {
        const grpo::detail::dealt_packs<V> packs(begin, end);
        for (std::int64_t i = packs.start + lane_ * packs.width; i < end; i += N * packs.width) f(packs.at(i));
    }

    template <class V, class F, class G>
    void scan(std::int64_t begin, std::int64_t end, F&& f, G&& g) const {
        V carry{};
        for (std::int64_t last = end - 1; last >= begin; last -= N) {
            const std::int64_t i = last - lane_;
            grpo::affine<V> m;
            if (i >= begin) m = f(grpo::cursor<V>{i});
            carry = step(i, begin, m, carry, g);
        }
    }
    template <class V, class X, class F, class G>
    void scan(std::int64_t begin, std::int64_t end, X&& x, F&& f, G&& g) const {
        V carry{};
        V latest{};
        for (std::int64_t last = end - 1; last >= begin; last -= N) {
            const std::int64_t i = last - lane_;
            grpo::kept_value<V> here{V{}, false};
            if (i >= begin) here = x(grpo::cursor<V>{i});
            const grpo::kept_value<V> nearest = inclusive(here, [](const auto& mine, const auto& later) {
                return mine.kept ? mine : later;
            });
            // One lane's own value is the next one of the lane before it in time.
            shared_.put(lane_, nearest);
            shared_.synchronise();
            const grpo::kept_value<V> before = lane_ > 0 ? shared_.template at<grpo::kept_value<V>>(lane_ - 1)
                                                         : grpo::kept_value<V>{V{}, false};
            const grpo::kept_value<V> all = shared_.template at<grpo::kept_value<V>>(N - 1);
            shared_.synchronise();
            grpo::affine<V> m;
            if (i >= begin) m = f(grpo::cursor<V>{i}, before.kept ? before.value : latest);
            if (all.kept) latest = all.value;
            carry = step(i, begin, m, carry, g);
        }
    }

    // Rows of logits as a device walks them: in turn, pack by pack.
    template <class V, class T, class Upcoming>
    auto ahead(const T*, const Upcoming&) const {
        return grpo::detail::rows_in_turn<V, lanes_team>{*this};
    }
    template <class Monoid, class V, class F>
    typename Monoid::total walked(const grpo::detail::span& row, F&& f) const {
        typename Monoid::template state<V> mine;
        f.begin(mine);
        packs<V>(row, [&](const auto& at) {
            const std::remove_cvref_t<decltype(at)> one[1] = {at};
            f(mine, one, grpo::detail::nothing_earlier{});
        });
        Monoid::flush(mine);
        return mine;
    }
    template <class Monoid, class V, class F, class G>
    auto stream(const grpo::detail::span& row, F&& f, const grpo::detail::span& other, G&& g) const {
        packs<V>(other, g);
        return tree<Monoid>(walked<Monoid, V>(row, f));
    }
    template <class V, class F>
    void sweep(const grpo::detail::span& row, F&& f) const {
        packs<V>(row, f);
    }
    template <class Monoid, class State, class F>
    auto conclude(const State& mine, F&& f) const {
        return f(tree<Monoid>(mine));
    }

private:
    template <class V, class F>
    void packs(const grpo::detail::span& row, F&& f) const {
        constexpr std::int64_t width = grpo::cursor<V>::lanes;
        const std::int64_t first = row.begin + row.head;
        const std::int64_t whole = (row.end - first) / width;
        const std::int64_t rest = first + whole * width;
        for (std::int64_t k = lane_; k < whole; k += N) f(grpo::whole_cursor<V>{first + k * width});
        if constexpr (width > 1) {
            if (row.head > 0 && lane_ == 0) f(grpo::cursor<V>{row.begin, static_cast<int>(row.head)});
            if (rest < row.end && lane_ == N - 1) f(grpo::cursor<V>{rest, static_cast<int>(row.end - rest)});
        }
    }

    template <class Monoid, class State>
    State tree(const State& mine) const {
        shared_.put(lane_, mine);
        shared_.synchronise();
        for (int half = N / 2; half > 0; half /= 2) {
            if (lane_ < half) Monoid::merge(shared_.template at<State>(lane_), shared_.template at<State>(lane_ + half));
            shared_.synchronise();
        }
        const State total = shared_.template at<State>(0);
        shared_.synchronise();
        return total;
    }

    // Every lane's x joined with those of the lanes below it (later in time), in log2 N steps.
    template <class X, class Join>
    X inclusive(X x, Join&& join) const {
        for (int step = 1; step < N; step *= 2) {
            shared_.put(lane_, x);
            shared_.synchronise();
            if (lane_ >= step) x = join(x, shared_.template at<X>(lane_ - step));
            shared_.synchronise();
        }
        return x;
    }

    template <class V, class G>
    V step(std::int64_t i, std::int64_t begin, const grpo::affine<V>& m, const V& carry, G& g) const {
        const grpo::affine<V> composed = inclusive(m, [](const grpo::affine<V>& earlier, const grpo::affine<V>& later) {
            return grpo::affine<V>::compose(earlier, later);
        });
        const V x = composed(carry);
        if (i >= begin) g(grpo::cursor<V>{i}, x);
        shared_.put(lane_, x);
        shared_.synchronise();
        const V next = shared_.template at<V>(N - 1);
        shared_.synchronise();
        return next;
    }

    lanes_detail::block<N>& shared_;
    int lane_;
};

template <int N, int Width = 1>
struct lanes {
    using team = lanes_team<N, Width>;

    static constexpr int size() { return 1; }

    template <class Body>
    void teams(std::int64_t rows, const Body& body) const {
        in_block<team>([&](team& walker) {
            for (std::int64_t row = 0; row < rows; ++row) body(walker, row);
        });
    }
    template <class Total, class Body, class Add>
    void fold(std::int64_t rows, Total& total, const Body& body, Add&& add) const {
        in_block<team>([&](team& walker) {
            for (std::int64_t row = 0; row < rows; ++row) {
                const auto result = body(walker, row);
                if (walker.leader()) add(total, result);
            }
        });
    }

protected:
    template <class Walker, class F>
    static void in_block(F&& f) {
        lanes_detail::block<N> shared;
        std::vector<std::thread> threads;
        for (int lane = 0; lane < N; ++lane) {
            threads.emplace_back([&, lane] {
                Walker walker(shared, lane);
                f(walker);
            });
        }
        for (std::thread& t : threads) t.join();
    }
};
