// The serial executor on SIMD packs (xsimd): every body runs with vector<T> = a pack of T, as wide as the including file
// is compiled for.
//
// Level: the same bits from run to run; per-token results agree with serial to the last places of exp; sums are kept in
// packs and flushed to double every 256 packs, so they depend on where a row begins relative to its masked entries, and those
// over a row of logits on its address within a cache line.
#pragma once

#include <cstdint>

#include <grpo/adapt/scalar/xsimd.hpp>
#include <grpo/adapt/scalar/xsimd_exponent.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/shape.hpp>

namespace grpo::inline v0 {

namespace detail {

// A monoid's state of packs, merged lane by lane in lane order. Its state is a struct of equal A's.
template <class Monoid, class V>
GRPO_HD typename Monoid::template state<double> reduce_lanes(const typename Monoid::template state<V>& s) {
    if constexpr (requires { Monoid::reduce(s); }) {
        return Monoid::reduce(s);
    } else {
        using total = typename Monoid::template state<double>;
        constexpr std::size_t fields = sizeof(total) / sizeof(double);
        constexpr std::size_t lanes = static_cast<std::size_t>(scalar_traits<V>::lanes);
        element_t<V> raw[fields * lanes];
        static_assert(sizeof raw == sizeof s);
        __builtin_memcpy(raw, &s, sizeof raw);
        total all;
        for (std::size_t k = 0; k < lanes; ++k) {
            double lane[fields];
            for (std::size_t f = 0; f < fields; ++f) lane[f] = static_cast<double>(raw[f * lanes + k]);
            total one;
            __builtin_memcpy(&one, lane, sizeof lane);
            Monoid::merge(all, one);
        }
        return all;
    }
}

// What lane k of a backward scan has composed once it also holds the lanes up to k + Shift.
template <int Shift, class V>
GRPO_HD void compose_later(affine<V>& m) {
    if constexpr (Shift < scalar_traits<V>::lanes) {
        const mask_t<V> inside = scalar_traits<V>::first(scalar_traits<V>::lanes - Shift);
        const affine<V> later{math::select<V>(inside, shift_lanes<Shift>(m.scale), V(constant<V>(1))),
                              math::select<V>(inside, shift_lanes<Shift>(m.offset), V(constant<V>(0)))};
        m = affine<V>::compose(m, later);
        compose_later<2 * Shift>(m);
    }
}

// The same where every scale is one number, and `power` that number to the power of Shift.
template <int Shift, class V>
GRPO_HD void add_later(V& offset, const V& power) {
    if constexpr (Shift < scalar_traits<V>::lanes) {
        const mask_t<V> inside = scalar_traits<V>::first(scalar_traits<V>::lanes - Shift);
        const V later = math::select<V>(inside, shift_lanes<Shift>(offset), V(constant<V>(0)));
        offset = detail::fma(power, later, offset);
        add_later<2 * Shift>(offset, V(power * power));
    }
}

// How long each of K segments of a row is: an odd number of packs, so that they do not all fall into one set of the cache
// where the row's length is a power of 2. What they leave is less than two packs each.
template <class V>
GRPO_HD std::int64_t segment_of(std::int64_t entries, int segments) {
    constexpr std::int64_t lanes = scalar_traits<V>::lanes;
    const std::int64_t packs = entries / (segments * lanes);
    return (packs - (packs > 0 && packs % 2 == 0 ? 1 : 0)) * lanes;
}

// Positions visited by a stream: the head, K segments after it, and a rest: see earlier_positions.
template <class V, int K>
struct earlier_in_segments {
    std::int64_t begin;  // of the segments
    std::int64_t head;
    std::int64_t segment;
    std::int64_t i;     // within every segment
    std::int64_t rest;  // visited beyond the segments

    template <class F>
    GRPO_HD void each(F&& f) const {
        constexpr std::int64_t lanes = scalar_traits<V>::lanes;
        if (head > 0) f(cursor<V>{begin - head, static_cast<int>(head)});
        for (int k = 0; k < K; ++k) {
            for (std::int64_t j = 0; j < i; j += lanes) f(cursor<V>{begin + k * segment + j});
        }
        for (std::int64_t j = 0; j < rest; j += lanes) f(cursor<V>{begin + K * segment + j});
    }
};

template <class V>
GRPO_HD element_t<V> lane(const V& x, int k) {
    return x.get(static_cast<std::size_t>(k));
}

}  // namespace detail

struct simd_team {
    int worker = 0;

    template <class T>
    using vector = xsimd::batch<T>;

    static constexpr bool leader() { return true; }

    template <class Monoid, class V, class F>
    GRPO_HD auto fold(std::int64_t begin, std::int64_t end, F&& f) const {
        constexpr std::int64_t lanes = scalar_traits<V>::lanes;
        constexpr std::int64_t block = 256 * lanes;
        typename Monoid::template state<double> total;
        for (std::int64_t start = begin; start < end; start += block) {
            const std::int64_t stop = end - start < block ? end : start + block;
            typename Monoid::template state<V> state;
            std::int64_t i = start;
            for (; i + lanes <= stop; i += lanes) f(state, cursor<V>{i});
            if (i < stop) f(state, cursor<V>{i, static_cast<int>(stop - i)});
            Monoid::merge(total, detail::reduce_lanes<Monoid, V>(state));
        }
        return total;
    }

    template <class Monoid, class V, class Active, class Skipped, class F>
    GRPO_HD auto fold(std::int64_t begin, std::int64_t end, Active&& active, Skipped&& skipped, F&& f) const {
        constexpr std::int64_t lanes = scalar_traits<V>::lanes;
        constexpr std::int64_t block = 256 * lanes;
        typename Monoid::template state<double> total;
        for (std::int64_t start = begin; start < end; start += block) {
            const std::int64_t stop = end - start < block ? end : start + block;
            typename Monoid::template state<V> state;
            std::int64_t i = start;
            const auto full = [&] { return i + lanes <= stop; };
            while (full()) {
                // A loop over neighbouring active packs of its own: what does not change in it is computed before it.
                mask_t<V> mask = active(cursor<V>{i});
                if (any(mask)) {
                    do {
                        f(state, cursor<V>{i}, mask);
                        i += lanes;
                        if (!full()) break;
                        mask = active(cursor<V>{i});
                    } while (any(mask));
                } else {
                    skipped(cursor<V>{i});
                    i += lanes;
                }
            }
            if (i < stop) {
                const cursor<V> rest{i, static_cast<int>(stop - i)};
                const mask_t<V> mask = active(rest);
                if (any(mask)) f(state, rest, mask);
                else skipped(rest);
            }
            Monoid::merge(total, detail::reduce_lanes<Monoid, V>(state));
        }
        return total;
    }

    template <class Monoid, class State>
    GRPO_HD static State combine(const State& state) {
        return state;
    }

    // F::segments parts of the row at once: their page walks and the processor's own prefetches overlap.
    template <class Monoid, class V, class F, class G>
    GRPO_HD auto stream(const detail::span& row, F&& f, const detail::span& other_row, G&& g) const {
        constexpr int K = std::remove_cvref_t<F>::segments;
        constexpr std::int64_t lanes = scalar_traits<V>::lanes;
        constexpr std::int64_t block = 32 * lanes;
        using earlier = detail::earlier_in_segments<V, K>;
        typename Monoid::template state<V> state;
        const auto beside = g;  // a copy that no store can alias
        std::int64_t other = after_head<V>(other_row, beside);
        if (row.head > 0) {
            const cursor<V> at[1] = {{row.begin, static_cast<int>(row.head)}};
            f(state, at, earlier{row.begin, 0, 0, 0, 0});
        }
        const std::int64_t begin = row.begin + row.head;
        const std::int64_t segment = detail::segment_of<V>(row.end - begin, K);
        for (std::int64_t start = 0; start < segment; start += block) {
            const std::int64_t stop = segment - start < block ? segment : start + block;
            for (std::int64_t i = start; i < stop; i += lanes) {
                whole_cursor<V> at[K];
                for (int k = 0; k < K; ++k) at[k] = {begin + k * segment + i};
                f(state, at, earlier{begin, row.head, segment, i, 0});
                if (other + K * lanes > other_row.end) continue;
                detail::repeat<K>(
                    [&](int k) __attribute__((always_inline)) { beside(whole_cursor<V>{other + k * lanes}); });
                other += K * lanes;
            }
            Monoid::flush(state);
        }
        for (std::int64_t i = begin + K * segment; i < row.end; i += lanes) {
            const cursor<V> at[1] = {{i, static_cast<int>(row.end - i < lanes ? row.end - i : lanes)}};
            f(state, at, earlier{begin, row.head, segment, segment, i - begin - K * segment});
        }
        Monoid::flush(state);
        each<V>(other, other_row.end, g);
        return state;
    }

    template <class V, class F>
    GRPO_HD void sweep(const detail::span& row, F&& f) const {
        constexpr int K = std::remove_cvref_t<F>::segments;
        constexpr std::int64_t lanes = scalar_traits<V>::lanes;
        const auto body = f;  // a copy that no store can alias
        const std::int64_t begin = after_head<V>(row, body);
        const std::int64_t segment = detail::segment_of<V>(row.end - begin, K);
        for (std::int64_t i = begin; i < begin + segment; i += lanes) {
            detail::repeat<K>([&](int k) __attribute__((always_inline)) { body(whole_cursor<V>{i + k * segment}); });
        }
        each<V>(begin + K * segment, row.end, f);
    }

    template <class V, class F>
    GRPO_HD void each(std::int64_t begin, std::int64_t end, F&& f) const {
        constexpr std::int64_t lanes = scalar_traits<V>::lanes;
        std::int64_t i = begin;
        for (; i + lanes <= end; i += lanes) f(cursor<V>{i});
        if (i < end) f(cursor<V>{i, static_cast<int>(end - i)});
    }

    // Log-step composition within a pack, one multiply-add between packs.
    template <class V, class F, class G>
    GRPO_HD void scan(std::int64_t begin, std::int64_t end, F&& f, G&& g) const {
        V carry(constant<V>(0));
        backwards<V>(begin, end, [&](cursor<V> at) __attribute__((always_inline)) { step(at, f(at), carry, g); });
    }

    // See serial_team::scan: f also receives the nearest kept value at a later position.
    template <class V, class X, class F, class G>
    GRPO_HD void scan(std::int64_t begin, std::int64_t end, X&& x, F&& f, G&& g) const {
        V carry(constant<V>(0));
        V latest(constant<V>(0));
        backwards<V>(begin, end, [&](cursor<V> at) __attribute__((always_inline)) {
            const kept_value<V> here = x(at);
            const V next = following(at, here, latest);
            step(at, f(at, next), carry, g);
        });
    }

    // One scale: its powers are known before the row, so that only the offsets move from lane to lane.
    template <class V, class X, class F, class G>
    GRPO_HD void scan_uniform(std::int64_t begin, std::int64_t end, const V& scale, X&& x, F&& f, G&& g) const {
        affine<V> whole{scale, V(constant<V>(0))};
        detail::compose_later<1>(whole);  // lane k: scale to the power of the lanes from k on
        V carry(constant<V>(0));
        V latest(constant<V>(0));
        backwards<V>(begin, end, [&](cursor<V> at) __attribute__((always_inline)) {
            const kept_value<V> here = x(at);
            const V next = following(at, here, latest);
            V offset = f(at, next);
            if (at.count < scalar_traits<V>::lanes) return step(at, affine<V>{scale, offset}, carry, g);
            detail::add_later<1>(offset, scale);
            const V y = offset + whole.scale * carry;
            g(at, y);
            carry = detail::broadcast_first(y);
        });
    }

private:
    // Does the head of a span; where the rest begins.
    template <class V, class F>
    GRPO_HD static std::int64_t after_head(const detail::span& row, const F& f) {
        if (row.head > 0) f(cursor<V>{row.begin, static_cast<int>(row.head)});
        return row.begin + row.head;
    }

    template <class V, class F>
    GRPO_HD static void backwards(std::int64_t begin, std::int64_t end, F&& f) {
        constexpr std::int64_t lanes = scalar_traits<V>::lanes;
        std::int64_t i = end;
        for (; i - lanes >= begin; i -= lanes) f(cursor<V>{i - lanes});
        if (begin < i) f(cursor<V>{begin, static_cast<int>(i - begin)});
    }

    template <class V, class G>
    GRPO_HD static void step(cursor<V> at, affine<V> m, V& carry, G& g) {
        if (at.count < scalar_traits<V>::lanes) {
            m.scale = math::select<V>(at.existing(), m.scale, V(constant<V>(1)));
            m.offset = math::select<V>(at.existing(), m.offset, V(constant<V>(0)));
        }
        detail::compose_later<1>(m);
        const V x = m(carry);
        g(at, x);
        carry = detail::broadcast_first(x);
    }

    // Lane k gets the value of the first kept lane after it, or `latest`; then latest becomes the first kept lane's.
    template <class V>
    GRPO_HD static V following(cursor<V> at, const kept_value<V>& here, V& latest) {
        constexpr int lanes = scalar_traits<V>::lanes;
        if (all(here.kept) && at.count == lanes) {
            const V next = math::select<V>(scalar_traits<V>::first(lanes - 1), detail::shift_lanes<1>(here.value), latest);
            latest = detail::broadcast_first(here.value);
            return next;
        }
        alignas(64) element_t<V> values[lanes];
        alignas(64) element_t<V> next[lanes];
        bool keep[lanes];
        here.value.store_aligned(values);
        here.kept.store_unaligned(keep);
        element_t<V> following_value = detail::lane(latest, 0);
        for (int k = lanes; k-- > 0;) {
            next[k] = following_value;
            if (keep[k] && k < at.count) following_value = values[k];
        }
        latest = V(following_value);
        return V::load_aligned(next);
    }
};

struct simd : detail::row_by_row<simd_team> {};

}  // namespace grpo::inline v0
