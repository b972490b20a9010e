// The team of a device: lanes of a warp, a warp, a block, or a cluster of blocks that walk one row together.
//
// Positions are dealt out in turn; what lanes found is merged in a fixed tree: shuffles within a warp, then shared memory
// within a block, then the shared memory of each block of a cluster. The same bits from run to run.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>
#include <grpo/exec/cuda/ahead.cuh>
#include <grpo/exec/cuda/exchange.cuh>
#include <grpo/exec/cuda/pack.cuh>
#include <grpo/exec/cuda/plan.hpp>
#include <grpo/exec/cuda/scan.cuh>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>

#if defined(__CUDACC__)

namespace grpo::inline v0 {
// Width: neighbouring floats that a lane computes on. Clusters: teams of several blocks. Ahead: with a ring; see ahead.cuh.
template <int Width, bool Clusters = false, bool Ahead = false>
class device_team {
public:
    static constexpr int most_blocks = Clusters ? detail::most_blocks : 1;
    // What is folded over rows of logits is small.
    using exchange = std::conditional_t<
        (Width == detail::logit_pack), detail::exchange<64, detail::long_row_threads / 32, most_blocks, detail::long_row_threads / 32>,
        detail::exchange<256, detail::row_threads / 32, most_blocks, 1>>;

    template <class T>
    using vector = std::conditional_t<Width == 1 || !std::is_same_v<T, float>, T, float_pack<Width>>;

    __device__ device_team(exchange& shared, const detail::team_shape& shape, int block)
        : shared_(shared), lanes_(shape.lanes), blocks_{shape.blocks}, block_(block),
          lane_(static_cast<int>(threadIdx.x) & (shape.lanes - 1)) {
        const int width = lanes_ < 32 ? lanes_ : 32;
        const int first = static_cast<int>(threadIdx.x) & 31 & ~(width - 1);
        mask_ = width == 32 ? 0xffffffffu : ((1u << width) - 1u) << first;
        if (blocks_ > 1 && threadIdx.x < 2) detail::prepare_arrivals(&shared_.arrived[threadIdx.x]);
    }

    __device__ bool leader() const { return lane_ == 0 && block_ == 0; }
    // The lane among all lanes of the team, and how many there are.
    __device__ std::int64_t lane() const { return static_cast<std::int64_t>(block_) * lanes_ + lane_; }
    __device__ std::int64_t size() const { return static_cast<std::int64_t>(blocks_) * lanes_; }

    template <class Monoid, class V, class F>
    __device__ auto fold(std::int64_t begin, std::int64_t end, F&& f) const {
        typename Monoid::template state<double> mine;
        each<V>(begin, end, [&](const cursor<V>& at) { f(mine, at); });
        return combine<Monoid>(mine);
    }
    template <class Monoid, class V, class Active, class Skipped, class F>
    __device__ auto fold(std::int64_t begin, std::int64_t end, Active&& active, Skipped&& skipped, F&& f) const {
        using detail::any;
        typename Monoid::template state<double> mine;
        const detail::dealt_packs<V> packs(begin, end);
        // What counts of the next one is known before the present one has been dealt with.
        const auto look = [&](std::int64_t i) { return i < end ? active(packs.at(i)) : mask_t<V>{}; };
        const std::int64_t step = size() * packs.width;
        std::int64_t i = packs.start + lane() * packs.width;
        for (mask_t<V> counts = look(i), next; i < end; i += step, counts = next) {
            next = look(i + step);
            if (any(counts)) f(mine, packs.at(i), counts);
            else skipped(packs.at(i));
        }
        return combine<Monoid>(mine);
    }
    template <class V, class F>
    __device__ void each(std::int64_t begin, std::int64_t end, F&& f) const {
        const detail::dealt_packs<V> packs(begin, end);
        for (std::int64_t i = packs.start + lane() * packs.width; i < end; i += size() * packs.width) f(packs.at(i));
    }

    template <class M>
    __device__ std::int64_t count_nonzero(const M* mask, std::int64_t begin, std::int64_t end) const {
        typename tally<1>::template state<double> mine;
        std::int64_t rest = begin;
        if constexpr (sizeof(M) == 1) {
            // Eight bytes at once: the top bit of a byte of `set` is whether that byte is other than 0.
            constexpr std::uint64_t low = 0x7f7f7f7f7f7f7f7f;
            const auto over = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(mask + begin) % 8);
            const std::int64_t first = begin + (8 - over) % 8;
            const std::int64_t words = first < end ? (end - first) / 8 : 0;
            for (std::int64_t w = lane(); w < words; w += size()) {
                const std::uint64_t x = *reinterpret_cast<const std::uint64_t*>(mask + first + 8 * w);
                const std::uint64_t set = ((x & low) + low) | x;
                mine.sum[0] += static_cast<double>(__popcll(set & ~low));
            }
            for (std::int64_t i = begin + lane(); i < first && i < end; i += size()) mine.sum[0] += mask[i] != M(0) ? 1.0 : 0.0;
            rest = words > 0 ? first + 8 * words : first < end ? first : end;
        }
        for (std::int64_t i = rest + lane(); i < end; i += size()) mine.sum[0] += mask[i] != M(0) ? 1.0 : 0.0;
        return static_cast<std::int64_t>(combine<tally<1>>(mine).sum[0]);
    }

    template <class Monoid, class State>
    __device__ State combine(State mine) const {
        static_assert(sizeof(State) <= exchange::slot);
        if (lanes_ * blocks_ == 1) return mine;
        mine = tree<Monoid>(mine);
        if (lanes_ <= 32 && blocks_ == 1) return mine;
        if (lanes_ > 32) mine = detail::merged<Monoid>(detail::whole_warp, lanes_ / 32, from_warps(mine));
        return blocks_ == 1 ? mine : of_cluster<Monoid>(mine);
    }

    // f of what all lanes found, for all of them: computed by one warp of each block.
    template <class Monoid, class State, class F>
    __device__ auto conclude(State mine, F&& f) const {
        using Result = decltype(f(mine));
        static_assert(Width == detail::logit_pack);
        static_assert(sizeof(State) <= exchange::slot && sizeof(Result) <= exchange::slot);
        mine = tree<Monoid>(mine);
        if (lanes_ <= 32 && blocks_ == 1) return f(mine);
        const int half = turn_;
        turn_ ^= 1;
        const int warp = static_cast<int>(threadIdx.x) / 32;
        const int first = warp & ~(lanes_ / 32 - 1);
        if (lanes_ > 32) {
            tell_warps(half, mine);
            meet();
        }
        unsigned char* const place = shared_.result[half][first];
        if (warp == first) {
            if (lanes_ > 32) mine = detail::merged<Monoid>(detail::whole_warp, lanes_ / 32, told_by_warps<State>(half));
            if (blocks_ > 1) {
                send(mine);
                mine = of_blocks<Monoid, State>();
            }
            const Result result = f(mine);
            if ((threadIdx.x & 31) == 0) __builtin_memcpy(place, &result, sizeof(Result));
        } else {
            ++sent_;
        }
        meet();
        Result result;
        __builtin_memcpy(&result, place, sizeof(Result));
        return result;
    }

    // A row far longer than a cache: whole packs in turn, two in flight; what comes before them and after goes to two lanes.
    template <class Monoid, class V, class F, class G>
    __device__ auto stream(const detail::span& row, F&& f, const detail::span& other, G&& g) const {
        sweep<V>(other, g);
        return combine<Monoid>(walked<Monoid, V>(row, f));
    }
    // What this lane finds of it.
    template <class Monoid, class V, class F>
    __device__ typename Monoid::total walked(const detail::span& row, F&& f) const {
        constexpr std::int64_t width = cursor<V>::lanes;
        constexpr int K = 2;
        typename Monoid::template state<V> mine;
        f.begin(mine);
        const detail::nothing_earlier none{};
        const std::int64_t first = row.begin + row.head;
        const std::int64_t packs = (row.end - first) / width;
        const std::int64_t step = size();
        std::int64_t j = lane();
        for (; j + (K - 1) * step < packs; j += K * step) {
            whole_cursor<V> at[K];
            for (int k = 0; k < K; ++k) at[k] = {first + (j + k * step) * width};
            f(mine, at, none);
        }
        for (; j < packs; j += step) {
            const whole_cursor<V> at[1] = {{first + j * width}};
            f(mine, at, none);
        }
        ends<V>(row, first + packs * width, [&](const cursor<V>& part) {
            const cursor<V> at[1] = {part};
            f(mine, at, none);
        });
        Monoid::flush(mine);
        return mine;
    }
    template <class V, class F>
    __device__ void sweep(const detail::span& row, F&& f) const {
        constexpr std::int64_t width = cursor<V>::lanes;
        const std::int64_t first = row.begin + row.head;
        const std::int64_t packs = (row.end - first) / width;
        const auto body = f;
        for (std::int64_t j = lane(); j < packs; j += size()) body(whole_cursor<V>{first + j * width});
        ends<V>(row, first + packs * width, body);
    }

    // The parts of a row before and after its whole packs.
    template <class V, class F>
    __device__ void ends(const detail::span& row, std::int64_t rest, F&& f) const {
        if constexpr (cursor<V>::lanes > 1) {
            if (row.head > 0 && lane() == 0) f(cursor<V>{row.begin, static_cast<int>(row.head)});
            if (rest < row.end && lane() == size() - 1) f(cursor<V>{rest, static_cast<int>(row.end - rest)});
        }
    }

    // Rows of logits in turn: upcoming.next(span) is the next one that will be read.
    template <class V, class T, class Upcoming>
    __device__ auto ahead([[maybe_unused]] const T* data, [[maybe_unused]] const Upcoming& upcoming) const {
        if constexpr (Ahead && cursor<V>::lanes == 8) {
            return detail::rows_ahead<V, T, device_team, Upcoming>(*this, data, upcoming);
        } else {
            return detail::rows_in_turn<V, device_team>{*this};
        }
    }

    // From the end, four positions a lane at a time, lane 0 at the latest.
    template <class V, class F, class G>
    __device__ void scan(std::int64_t begin, std::int64_t end, F&& f, G&& g) const {
        element_t<V> carry{};
        for (std::int64_t i = detail::last_neighbours(end); i + in_turn > begin; i -= in_turn * lanes_) {
            const detail::neighbours<V> here(begin, end, i - in_turn * lane_);
            affine<element_t<V>> m[in_turn];
            here.ask(f, [&](int k, const affine<element_t<V>>& told) { m[k] = told; });
            step(here, m, carry, g);
        }
    }
    template <class V, class X, class F, class G>
    __device__ void scan(std::int64_t begin, std::int64_t end, X&& x, F&& f, G&& g) const {
        using E = element_t<V>;
        E carry{};
        E kept{};
        for (std::int64_t i = detail::last_neighbours(end); i + in_turn > begin; i -= in_turn * lanes_) {
            const detail::neighbours<V> here(begin, end, i - in_turn * lane_);
            seen<E> own[in_turn];
            here.ask(x, [&](int k, const kept_value<E>& told) { own[k] = {told.value, told.kept ? 1 : 0}; });
            seen<E> mine{E{}, 0};
            here.backwards([&](int k) { mine = own[k].kept != 0 ? own[k] : mine; });
            seen<E> before, all;
            exclusive(mine, [](const seen<E>& earlier, const seen<E>& later) { return earlier.kept != 0 ? earlier : later; },
                      seen<E>{E{}, 0}, before, all);
            E following = before.kept != 0 ? before.value : kept;
            E next[in_turn];
            here.backwards([&](int k) {
                next[k] = following;
                following = own[k].kept != 0 ? own[k].value : following;
            });
            if (all.kept != 0) kept = all.value;
            affine<E> m[in_turn];
            here.ask(f, [&](int k, const affine<E>& told) { m[k] = told; }, next);
            step(here, m, carry, g);
        }
    }

    template <class V, class X, class F, class G>
    __device__ void scan_uniform(std::int64_t begin, std::int64_t end, const V& scale, X&& x, F&& f, G&& g) const {
        const auto walk = [&](const auto& over) {
            over.walk(begin, end, x, f, g, [this](double out) { return from_warps(out); });
        };
        if (lanes_ >= 32) walk(detail::uniform_scan<V, true>(lanes_, lane_, mask_, scale));
        else walk(detail::uniform_scan<V, false>(lanes_, lane_, mask_, scale));
    }

private:
    static constexpr int in_turn = detail::token_pack;
    template <class V>
    struct seen {
        V value;
        std::conditional_t<sizeof(V) == 8, std::int64_t, std::int32_t> kept;
    };
    // Of the team's lanes within a warp. Rows of logits have whole warps.
    template <class Monoid, class State>
    __device__ State tree(const State& mine) const {
        if (Width == detail::logit_pack || lanes_ >= 32) return detail::merged<Monoid>(detail::whole_warp, 32, mine);
        return detail::merged<Monoid>(mask_, lanes_, mine);
    }
    // What the team's warps have each, in all their lanes: lane k is told that of warp k modulo their number.
    template <class X>
    __device__ X from_warps(const X& x) const {
        const int half = turn_;
        turn_ ^= 1;
        tell_warps(half, x);
        meet();
        return told_by_warps<X>(half);
    }
    template <class X>
    __device__ void tell_warps(int half, const X& x) const {
        if ((threadIdx.x & 31) == 0) __builtin_memcpy(shared_.warp[half][threadIdx.x / 32], &x, sizeof(X));
    }
    template <class X>
    __device__ X told_by_warps(int half) const {
        X x;
        const unsigned count = static_cast<unsigned>(lanes_) / 32, warp = threadIdx.x / 32;
        __builtin_memcpy(&x, shared_.warp[half][(warp & ~(count - 1)) + (threadIdx.x & (count - 1))], sizeof(X));
        return x;
    }
    // A block's state to all blocks of the cluster, by a warp; and all of theirs, once they have arrived. The next but one
    // is sent to the same place: by blocks that have had the next, which whoever is sent to sends after it has read this one.
    template <class State>
    __device__ void send(const State& mine) const {
        constexpr int words = static_cast<int>(sizeof(State) / 4);
        std::uint32_t bits[words];
        __builtin_memcpy(bits, &mine, sizeof(State));
        const int half = sent_ & 1;
        std::uint64_t* const barrier = &shared_.arrived[half];
        if (lane_ == 0) detail::expect_bytes(barrier, static_cast<std::uint32_t>(blocks_ * sizeof(State)));
        if (lane_ < blocks_) {
            for (int k = 0; k < words; ++k) detail::send_word(shared_.block[half][block_] + 4 * k, barrier, lane_, bits[k]);
        }
    }
    template <class Monoid, class State>
    __device__ State of_cluster(const State& mine) const {
        if (threadIdx.x < 32) send(mine);
        return of_blocks<Monoid, State>();
    }
    template <class Monoid, class State>
    __device__ State of_blocks() const {
        const int half = sent_ & 1;
        detail::wait_for_bytes(&shared_.arrived[half], static_cast<std::uint32_t>(sent_ >> 1 & 1));
        ++sent_;
        State all;
        __builtin_memcpy(&all, shared_.block[half][0], sizeof(State));
        for (int b = 1; b < blocks_; ++b) {
            State other;
            __builtin_memcpy(&other, shared_.block[half][b], sizeof(State));
            Monoid::merge(all, other);
        }
        return all;
    }
    // Teams of more than a warp have a block of their own, or share one and keep step with a barrier of theirs.
    __device__ void meet() const {
        const int team = static_cast<int>(threadIdx.x) >> (31 - __clz(lanes_));
        asm volatile("bar.sync %0, %1;" ::"r"(team + 1), "r"(lanes_) : "memory");
    }

    // Joined with the lanes later in time: those before this one in `before`, all of them in `all`.
    template <class X, class Join>
    __device__ void exclusive(X mine, Join&& join, const X& none, X& before, X& all) const {
        if (lanes_ < 32) return detail::scan_lanes(mask_, lanes_, lane_, mine, join, none, before, all);
        const int at = lane_ & 31;
        detail::scan_lanes(detail::whole_warp, 32, at, mine, join, none, before, all);
        if (lanes_ == 32) return;
        // The totals of the warps, scanned by every warp.
        const int count = lanes_ / 32, warp = static_cast<int>(threadIdx.x) / 32 & (count - 1);
        X earlier;
        detail::scan_lanes(detail::whole_warp, count, at & (count - 1), from_warps(all), join, none, earlier, all);
        earlier = detail::moved(earlier, [&](std::uint32_t w) { return __shfl_sync(detail::whole_warp, w, warp, count); });
        if (warp > 0) before = at == 0 ? earlier : join(before, earlier);
    }

    template <class V, class E, class G>
    __device__ void step(const detail::neighbours<V>& here, const affine<E> (&m)[in_turn], E& carry, G& g) const {
        affine<E> mine, later, all;
        here.backwards([&](int k) { mine = affine<E>::compose(m[k], mine); });
        exclusive(mine, [](const affine<E>& a, const affine<E>& b) { return affine<E>::compose(a, b); }, affine<E>{}, later, all);
        E sum = later(carry);
        E sums[in_turn];
        here.backwards([&](int k) { sums[k] = sum = m[k](sum); });
        here.tell(g, sums);
        carry = all(carry);
    }

    exchange& shared_;
    int lanes_;
    struct one_block {
        __device__ one_block(int) {}
        __device__ constexpr operator int() const { return 1; }
    };
    std::conditional_t<Clusters, int, one_block> blocks_;
    int block_;
    int lane_;
    std::uint32_t mask_;
    mutable int turn_ = 0;
    mutable int sent_ = 0;
};

}  // namespace grpo::inline v0

#endif
