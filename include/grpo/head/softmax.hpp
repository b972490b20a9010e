// One row of logits: its softmax in one read, and its gradient in one more. Everything of the head is made of these two.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/head/exponent.hpp>
#include <grpo/head/logits.hpp>
#include <grpo/scalar.hpp>

namespace grpo::inline v0::detail {

// The row of the reference beside a row: `apart` positions away.
template <class V, class Row>
struct reference_row {
    Row row;
    std::int64_t apart;
    double lse;
    softmax_exponent<V> e;

    GRPO_HD reference_row() : row{}, apart(0), lse(0), e(1.0) {}
    GRPO_HD reference_row(const Row& r, std::int64_t from_row, double log_sum_exp)
        : row(r), apart(from_row), lse(log_sum_exp), e(r.reading.factor) {
        e.expect(lse);
    }
    // log π_ref of the positions beside `at`.
    template <class Cursor>
    GRPO_HD V log_probability(const Cursor& at) const {
        const auto there = at.at(at.i + apart);
        there.prefetch(row.data);
        return detail::fma(e.relative(row(there)), V(constant<V>(e.unit)), V(constant<V>(e.log_reference() - lse)));
    }
    GRPO_HD double log_probability_at(std::int64_t i) const {
        return row.template at<V>(i + apart) * e.factor() - lse;
    }
};
struct no_reference {};

// What is summed besides Σ p, where p = e^(z - reference).
enum class softmax_wants : unsigned { log_sum = 0, entropy = 1, squares = 2, divergence = 4 };
GRPO_HD constexpr bool has(softmax_wants set, softmax_wants one) {
    return (static_cast<unsigned>(set) & static_cast<unsigned>(one)) != 0;
}
GRPO_HD constexpr softmax_wants operator|(softmax_wants a, softmax_wants b) {
    return static_cast<softmax_wants>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
GRPO_HD constexpr softmax_wants wanted(bool entropy, bool divergence) {
    return (entropy ? softmax_wants::entropy : softmax_wants::log_sum) |
           (divergence ? softmax_wants::divergence : softmax_wants::log_sum);
}

// What Σ p u is counted in.
template <bool Kept>
struct unit_of {
    double unit = 1;
    GRPO_HD void count_in(double x) { unit = x; }
};
template <>
struct unit_of<false> {
    GRPO_HD void count_in(double) {}
};

// Sums over a part of a row, relative to the reference that the part's exponent ended with: those that are wanted.
// u = z - log_reference, in units; difference = u - log π_ref.
template <softmax_wants Wants>
struct softmax_sums {
    static constexpr bool with_u = has(Wants, softmax_wants::entropy);
    static constexpr bool with_squares = has(Wants, softmax_wants::squares);
    static constexpr bool with_difference = has(Wants, softmax_wants::divergence);
    static constexpr int p = 0;
    static constexpr int p_u = 1;
    static constexpr int p_squared = p_u + (with_u ? 1 : 0);
    static constexpr int p_difference = p_squared + (with_squares ? 1 : 0);
    static constexpr int sums = p_difference + (with_difference ? 1 : 0);

    // What lanes and teams hand to each other.
    struct total : unit_of<with_u> {
        double sum[sums] = {};
        double log_reference = lowest;

        // To another reference, whose p are `factor` times as large.
        GRPO_HD void rescale(double factor, double new_reference) {
            const double shift = factor > 0 ? log_reference - new_reference : 0.0;
            log_reference = new_reference;
            if constexpr (with_u) sum[p_u] = factor * (sum[p_u] + shift / this->unit * sum[p]);
            if constexpr (with_difference) sum[p_difference] = factor * (sum[p_difference] + shift * sum[p]);
            sum[p] *= factor;
            if constexpr (with_squares) sum[p_squared] *= factor * factor;
        }
    };
    template <class V>
    struct state : total {
        accumulator_t<V> lane[sums] = {};
    };

    template <class V>
    GRPO_HD static void flush(state<V>& s) {
        for (int k = 0; k < sums; ++k) {
            s.sum[k] += lane_sum(s.lane[k]);
            s.lane[k] = accumulator_t<V>(constant<accumulator_t<V>>(0));
        }
    }
    GRPO_HD static void merge(total& a, const total& other) {
        if (a.log_reference == other.log_reference) return add(a, other);
        if (other.sum[p] == 0) return;  // nothing there yet, whatever its reference
        if (a.sum[p] == 0) {
            a = other;
            return;
        }
        total b = other;
        const double top = a.log_reference < b.log_reference ? b.log_reference : a.log_reference;
        a.rescale(::exp(a.log_reference - top), top);
        b.rescale(::exp(b.log_reference - top), top);
        add(a, b);
    }

private:
    GRPO_HD static void add(total& a, const total& b) {
        for (int k = 0; k < sums; ++k) a.sum[k] += b.sum[k];
    }
};

// Whether a Σ p of floats may have overflown, or what goes with it: 2^100, or NaN.
GRPO_HD bool overflown(double sum) { return !(sum < 1.2676506002282294e30); }

// The softmax of a row: log Σ e^z, H = lse - Σ π z, Σ π², Σ π log(π / π_ref). `empty` where no logit is above -inf.
struct softmax_row {
    double lse = lowest;
    double entropy = 0;
    double sum_squares = 0;
    double sum = 0;  // Σ p: 1 / sum times a p below this reference is π
    double log_reference = 0;
    double divergence = 0;       // KL(π ‖ π_ref)
    bool empty = true;

    // From a softmax_sums::total. V: what it was summed up in.
    template <class Sums, class V = double>
    GRPO_HD static softmax_row of(const typename Sums::total& s) {
        softmax_row row;
        row.sum = s.sum[Sums::p];
        if (row.sum <= 0) return row;  // not where it is NaN
        row.empty = false;
        row.log_reference = s.log_reference;
        const double log_sum = softmax_exponent<V>::log(row.sum);
        row.lse = s.log_reference + log_sum;
        if constexpr (Sums::with_u) {
            const double h = log_sum - s.unit * (s.sum[Sums::p_u] / row.sum);
            row.entropy = h < 0 ? 0.0 : h;
        }
        if constexpr (Sums::with_squares) row.sum_squares = s.sum[Sums::p_squared] / (row.sum * row.sum);
        if constexpr (Sums::with_difference) {
            const double kl = s.sum[Sums::p_difference] / row.sum - log_sum;
            row.divergence = kl < 0 ? 0.0 : kl;
        }
        return row;
    }

    // log π of an entry with this z; never above 0.
    GRPO_HD double log_probability(double z) const {
        const double x = empty ? -HUGE_VAL : z - lse;
        return x > 0 ? 0.0 : x;
    }
};

// One entry of a row, the same in every lane before any of them writes.
template <class V, class Team, class Row>
GRPO_HD double known_to_all(Team& team, const Row& row, std::int64_t i) {
    tally<1>::state<double> s;
    if (team.leader()) s.sum[0] = row.template at<V>(i);
    return team.template combine<tally<1>>(s).sum[0];
}

// What becomes of the p of a row besides being summed up: nothing, or they are stored, so that the gradient needs no second
// exponential. keep(at, p), and times(earlier, factor) when the reference moved; segments: how many parts of a row at once.
struct keep_nothing {
    static constexpr int segments = 8;

    template <class Cursor, class V>
    GRPO_HD void keep(const Cursor&, const V&) const {}
    template <class Earlier>
    GRPO_HD void times(const Earlier&, double) const {}
};
template <class V, class Out>
struct keep_at {
    static constexpr int segments = 8;
    Out* place;  // entry i belongs to position i + shift
    std::int64_t shift;

    template <class Cursor>
    GRPO_HD void keep(const Cursor& at, const V& p) const {
        at.at(at.i - shift).store(place, p);
    }
    template <class Earlier>
    GRPO_HD void times(const Earlier& earlier, double factor) const {
        const V by(constant<V>(factor));
        earlier.each([&](cursor<V> at) {
            const cursor<V> there = at.at(at.i - shift);
            there.store(place, V(there.load(place) * by));
        });
    }
};
// The same, and what lay in each place goes to the gradient of the row before: one row of memory serves all rows in turn.
template <class V, class Out, class Gradient>
struct keep_in_turn : keep_at<V, Out> {
    static constexpr int segments = 4;  // each is three streams
    Gradient before;     // of the row whose p lie in the places
    std::int64_t back;       // from a position to the same column of that row

    template <class Cursor>
    GRPO_HD void keep(const Cursor& at, const V& p) const {
        before.put(at.at(at.i - back), at.at(at.i - this->shift).load(this->place));
        keep_at<V, Out>::keep(at, p);
    }
};

// One step over some positions of a row; see stream(). Raises: whether the reference follows what outgrows it; without, sums
// may overflow, and whoever finds that they did (see overflown()) walks the row again.
template <softmax_wants Wants, class V, class Row, class Ref, class Kept, bool Raises = true>
struct softmax_step {
    using sums = softmax_sums<Wants>;
    // What is rarer than plain logits compiles to less.
    static constexpr int segments =
        Row::reading_type::plain && std::is_same_v<Ref, no_reference> ? Kept::segments : 1;
    static constexpr bool clamps =
        !softmax_exponent<V>::takes_infinities || has(Wants, softmax_wants::entropy) || has(Wants, softmax_wants::divergence);
    const Row& row;
    const Ref& ref;
    Kept kept;
    softmax_exponent<V>& e;

    // For teams whose exponent begins with a reference.
    template <class State>
    GRPO_HD void begin(State& state) const {
        state.count_in(e.unit);
        state.log_reference = e.log_reference();
    }

    template <class State, class Cursor, int K, class Earlier>
    GRPO_HD void operator()(State& state, const Cursor (&at)[K], const Earlier& earlier) const {
        // Copies that no store can alias: constants then stay in registers.
        const Row entries = row;
        const Kept store = kept;
        V x[K];
        repeat<K>([&](int k) __attribute__((always_inline)) {
            at[k].prefetch(entries.data);
            x[k] = entries(at[k]);
        });
        if constexpr (Raises) make_room(state, at, x, entries, earlier);
        const softmax_exponent<V> power = e;
        V term[K];
        repeat<K>([&](int k) __attribute__((always_inline)) {
            if constexpr (clamps) x[k] = power.clamped(x[k]);
            term[k] = power(x[k]);
            store.keep(at[k], term[k]);
        });
        if constexpr (has(Wants, softmax_wants::entropy)) {
            add<K>(state.lane[sums::p_u],
                   [&](int k) __attribute__((always_inline)) { return V(term[k] * power.relative(x[k])); });
        }
        if constexpr (has(Wants, softmax_wants::squares)) {
            add<K>(state.lane[sums::p_squared],
                   [&](int k) __attribute__((always_inline)) { return V(term[k] * term[k]); });
        }
        if constexpr (has(Wants, softmax_wants::divergence)) {
            const V zero(constant<V>(0));
            add<K>(state.lane[sums::p_difference], [&](int k) __attribute__((always_inline)) {
                const V difference = power.relative(x[k]) * V(constant<V>(power.unit)) - ref.log_probability(at[k]);
                return math::select<V>(zero < term[k], V(term[k] * difference), zero);
            });
        }
        add<K>(state.lane[sums::p], [&](int k) __attribute__((always_inline)) { return term[k]; });
    }

private:
    // total += x(0) + ... + x(K - 1), as a tree: its additions do not wait for each other.
    template <int K, int First = 0, class X>
    GRPO_HD static V tree(const X& x) {
        if constexpr (K == 1) return x(First);
        else return tree<K / 2, First>(x) + tree<K - K / 2, First + K / 2>(x);
    }
    template <int K, class A, class X>
    GRPO_HD static void add(A& total, const X& x) {
        total = total + A(tree<K>(x));
    }
    template <class State, class Cursor, int K, class Earlier>
    GRPO_HD __attribute__((always_inline)) void make_room(State& state, const Cursor (&at)[K], V (&x)[K], const Row& entries,
                                                          const Earlier& earlier) const {
        V top = x[0];
        repeat<K>([&](int k) __attribute__((always_inline)) { top = softmax_exponent<V>::greater(top, x[k]); });
        if (any(e.limit() < top)) [[unlikely]] {
            raise(state, top, earlier);
            // Read again rather than kept across the call.
            repeat<K>([&](int k) __attribute__((always_inline)) { x[k] = entries(at[k]); });
        }
    }
    template <class State, class Earlier>
    [[gnu::cold]] GRPO_HD_WHOLE void raise(State& state, const V& top, const Earlier& earlier) const {
        const double factor = e.raise(lane_max(top));
        sums::flush(state);
        state.count_in(e.unit);
        state.rescale(factor, e.log_reference());
        kept.times(earlier, factor);
    }
};

}  // namespace grpo::inline v0::detail
