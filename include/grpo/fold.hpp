// Monoids: what a row is folded with. Each has
//   state<A>              a plain struct; value-initialised it is the identity, and every identity is finite
//   add(state, x...)      one more element
//   merge(a, b)           associative, a's elements before b's
//   reduce(state<pack>)   the lanes of a SIMD state merged in lane order, as state<double>
// A is the accumulator type: double for scalars, the pack itself for SIMD packs (flushed to double in blocks).
// Laws (identity, associativity, add = merge of one) are tested in tests/test_fold.cpp.
#pragma once

#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>

namespace grpo::inline v0 {

// The type sums of V are kept in: double for float and double, a pack for a pack.
template <class V>
struct accumulator {
    using type = double;
};
template <class V>
    requires(scalar_traits<V>::lanes > 1)
struct accumulator<V> {
    using type = V;
};
template <class V>
using accumulator_t = typename accumulator<V>::type;

namespace detail {
inline constexpr std::int64_t no_index = 0x7fffffffffffffff;

GRPO_HD double lane_sum(double x) { return x; }
GRPO_HD double lane_max(double x) { return x; }
template <class V>
    requires(scalar_traits<V>::lanes > 1)
GRPO_HD double lane_sum(const V& x) {
    return static_cast<double>(scalar_traits<V>::sum(x));
}
template <class V>
    requires(scalar_traits<V>::lanes > 1)
GRPO_HD double lane_max(const V& x) {
    return static_cast<double>(scalar_traits<V>::maximum(x));
}

// total += mask ? x : 0, lane by lane.
template <class V, class A>
GRPO_HD void add_where(A& total, const mask_t<V>& mask, const V& x) {
    if constexpr (requires { scalar_traits<V>::add_where(total, mask, x); }) {
        scalar_traits<V>::add_where(total, mask, x);
    } else {
        total = total + A(math::select<V>(mask, x, V(constant<V>(0))));
    }
}
// total += the lanes that are set.
template <class V, class A>
GRPO_HD void add_count(A& total, const mask_t<V>& mask) {
    add_where(total, mask, V(constant<V>(1)));
}
// The greater of a number and the lanes of x; lane by lane if the number is a pack itself.
template <class V, class A>
GRPO_HD void raise(A& top, const V& x) {
    if constexpr (requires { A(x); }) top = math::max(top, A(x));
    else top = math::max(top, A(lane_max(x)));
}
}  // namespace detail

// A number below every one we meet, and finite (an identity of max that survives -ffast-math).
inline constexpr double lowest = -1e30;

// K sums, E maxima and the least of some indices, all in one pass.
template <int K, int E = 0>
struct tally {
    template <class A>
    struct state {
        A sum[K > 0 ? K : 1] = {};
        A maximum[E > 0 ? E : 1];
        std::int64_t first = detail::no_index;

        GRPO_HD state() {
            for (A& m : maximum) m = A(constant<A>(lowest));
        }
    };

    template <class A>
    GRPO_HD static void merge(state<A>& a, const state<A>& b) {
        for (int k = 0; k < K; ++k) a.sum[k] = a.sum[k] + b.sum[k];
        for (int e = 0; e < E; ++e) a.maximum[e] = math::max(a.maximum[e], b.maximum[e]);
        if (b.first < a.first) a.first = b.first;
    }

    template <class A>
    GRPO_HD static state<double> reduce(const state<A>& s) {
        state<double> r;
        for (int k = 0; k < K; ++k) r.sum[k] = detail::lane_sum(s.sum[k]);
        for (int e = 0; e < E; ++e) r.maximum[e] = detail::lane_max(s.maximum[e]);
        r.first = s.first;
        return r;
    }
};

// Count, mean and centred second moment (Welford; merged as Chan, Golub and LeVeque, 1983). Bit-equal elements give
// exactly their value as the mean and exactly 0 as the second moment (R1.1).
struct moments {
    template <class A>
    struct state {
        A n{};
        A mean{};
        A m2{};  // sum of squared deviations from the mean
    };

    template <class A>
    GRPO_HD static void add(state<A>& s, const A& x) {
        s.n = s.n + constant<A>(1);
        const A delta = x - s.mean;
        s.mean = s.mean + delta / s.n;
        s.m2 = s.m2 + delta * (x - s.mean);
    }

    template <class A>
    GRPO_HD static void merge(state<A>& a, const state<A>& b) {
        const A n = a.n + b.n;
        const A zero(constant<A>(0));
        const A share = math::select<A>(zero < b.n, A(b.n / math::max(n, A(constant<A>(1)))), zero);
        // An empty a takes b's fields: no square of b's mean, which may overflow, times 0.
        const A delta = math::select<A>(zero < a.n, A(b.mean - a.mean), zero);
        a.m2 = a.m2 + b.m2 + delta * delta * a.n * share;
        a.mean = math::select<A>(zero < a.n, A(a.mean + delta * share), b.mean);
        a.n = n;
    }

    // Variance with divisor n - ddof; 0 where that is not positive.
    GRPO_HD static double variance(const state<double>& s, int ddof) {
        const double divisor = s.n - static_cast<double>(ddof);
        return divisor > 0 ? s.m2 / divisor : 0.0;
    }
};

// log Σ e^x, kept as a running maximum and a sum relative to it. The empty state is (0 elements, log-sum -inf) but its
// fields are finite, so merging never computes inf - inf; x = -inf adds nothing, first or not.
struct log_sum_exp {
    template <class A>
    struct state {
        A maximum = A(constant<A>(lowest));
        A sum{};  // Σ e^(x - maximum)
    };

    template <class A>
    GRPO_HD static void add(state<A>& s, const A& x) {
        const A top = math::max(s.maximum, x);
        s.sum = s.sum * math::exp(A(s.maximum - top)) + math::exp(A(x - top));
        s.maximum = top;
    }

    template <class A>
    GRPO_HD static void merge(state<A>& a, const state<A>& b) {
        const A top = math::max(a.maximum, b.maximum);
        a.sum = a.sum * math::exp(A(a.maximum - top)) + b.sum * math::exp(A(b.maximum - top));
        a.maximum = top;
    }

    template <class A>
    GRPO_HD static A result(const state<A>& s) {
        return s.maximum + math::log(s.sum);
    }
};

// Least and greatest element, with the empty state (0 elements).
struct extrema {
    template <class A>
    struct state {
        A n{};
        A least{};
        A greatest{};
    };

    template <class A>
    GRPO_HD static void add(state<A>& s, const A& x) {
        merge(s, state<A>{constant<A>(1), x, x});
    }

    template <class A>
    GRPO_HD static void merge(state<A>& a, const state<A>& b) {
        const A zero(constant<A>(0));
        const mask_t<A> none = a.n <= zero;
        const mask_t<A> nothing = b.n <= zero;
        const A least = math::select<A>(none, b.least, math::min(a.least, b.least));
        const A greatest = math::select<A>(none, b.greatest, math::max(a.greatest, b.greatest));
        a.least = math::select<A>(nothing, a.least, least);
        a.greatest = math::select<A>(nothing, a.greatest, greatest);
        a.n = a.n + b.n;
    }
};

// x -> offset + scale·x, the elements of a backward scan (discounted returns, GAE, suffix sums). Composition is
// associative; the identity is {1, 0}. compose(a, b) applies b first: a is the earlier position in time.
template <class V>
struct affine {
    V scale = V(constant<V>(1));
    V offset{};

    GRPO_HD V operator()(const V& x) const { return offset + scale * x; }

    GRPO_HD static affine compose(const affine& a, const affine& b) {
        return {V(a.scale * b.scale), V(a.offset + a.scale * b.offset)};
    }
};

}  // namespace grpo::inline v0
