// The functions a formula may use, on every scalar. See scalar.hpp.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>
#include <grpo/scalar/dual.hpp>

namespace grpo::inline v0 {

namespace detail {

template <class S>
GRPO_HD S fma(const S& a, const S& b, const S& c) {
    if constexpr (requires { scalar_traits<S>::fma(a, b, c); }) {
        return scalar_traits<S>::fma(a, b, c);
    } else {
        return a * b + c;
    }
}

// Non-finite by bit pattern: survives -ffast-math, where x != x folds to false (R1.44).
GRPO_HD bool is_nonfinite(float x) {
    return (detail::bit_cast<std::uint32_t>(x) & 0x7f800000u) == 0x7f800000u;
}
GRPO_HD bool is_nonfinite(double x) {
    return (detail::bit_cast<std::uint64_t>(x) & 0x7ff0000000000000u) == 0x7ff0000000000000u;
}

// x - n log 2 for a whole n, whose product with the first part is exact.
template <class S>
GRPO_HD S exp_rest(const S& x, const S& n) {
    return fma(n, constant<S>(2.12194440e-4), fma(n, constant<S>(-0.693359375), x));
}

// 1/2 + x/6 (1 + x/4 (1 + ... (1 + x/N))), unrolled: the divisions are constants.
template <int N, class S>
GRPO_HD S nested(const S& x, S tail) {
    if constexpr (N > 2) {
        return nested<N - 1>(x, S(1) + x * tail * (S(1) / S(N)));
    } else {
        return S(0.5) * tail;
    }
}

// (e^x - 1 - x) / x^2 for |x| <= log(2) / 2. In float the minimax polynomial of degree 4 for the relative error of
// e^x - 1 (1.4e-8, below half a place); in double the Taylor series to x^16.
template <class S>
GRPO_HD S exp_tail_over_square(const S& x) {
    if constexpr (sizeof(element_t<S>) <= 4) {
        S p = fma(constant<S>(1.38825143e-3), x, constant<S>(8.36654752e-3));
        p = fma(p, x, constant<S>(4.16672006e-2));
        p = fma(p, x, constant<S>(0.166665435));
        return fma(p, x, constant<S>(0.49999997));
    } else {
        return nested<16>(x, S(1));
    }
}

}  // namespace detail

// The functions a formula may use. Ties: min and max return their first argument; clamp passes derivative 1 on the
// closed interval. For a differentiable S each is evaluated on the constant type and chained, so value and slope are
// exactly those of the plain functions, and foreign scalars need no expm1 or log1p of their own.
namespace math {

// mask ? a : b, lane by lane; derivatives follow the branch taken.
template <class S>
GRPO_HD S select(const mask_t<S>& mask, const std::type_identity_t<S>& a, const S& b) {
    if constexpr (requires { scalar_traits<S>::select(mask, a, b); }) {
        return scalar_traits<S>::select(mask, a, b);
    } else {
        return mask ? S(a) : S(b);
    }
}

// |x|, with derivative 0 at 0.
template <class S>
GRPO_HD S abs(const S& x) {
    if constexpr (detail::differentiable<S>) {
        using C = constant_t<S>;
        const C v = value(x);
        const C zero(constant<S>(0));
        const C sign = math::select<C>(v < zero, constant<S>(-1), math::select<C>(zero < v, constant<S>(1), zero));
        return scalar_traits<S>::chain(math::abs(v), sign, x);
    } else {
        using std::abs;
        return abs(x);
    }
}

template <class S>
GRPO_HD S exp(const S& x) {
    if constexpr (detail::differentiable<S>) {
        const constant_t<S> e = math::exp(value(x));
        return scalar_traits<S>::chain(e, e, x);
    } else if constexpr (requires { scalar_traits<S>::exp(x); }) {
        return scalar_traits<S>::exp(x);
    } else {
        using std::exp;
        return exp(x);
    }
}

// e^x for |x| <= 80, where nothing overflows and no argument needs a guard.
template <class S>
GRPO_HD S exp_inside(const S& x) {
    if constexpr (detail::differentiable<S>) {
        const constant_t<S> e = math::exp_inside(value(x));
        return scalar_traits<S>::chain(e, e, x);
    } else if constexpr (requires { scalar_traits<S>::exp_inside(x); }) {
        return scalar_traits<S>::exp_inside(x);
    } else {
        return math::exp(x);
    }
}

template <class S>
GRPO_HD S expm1(const S& x) {
    if constexpr (detail::differentiable<S>) {
        const constant_t<S> e = math::expm1(value(x));
        return scalar_traits<S>::chain(e, e + constant<S>(1), x);
    } else if constexpr (requires { scalar_traits<S>::expm1(x); }) {
        return scalar_traits<S>::expm1(x);
    } else {
        using std::expm1;
        return expm1(x);
    }
}

// e^x - 1 - x and e^x - 1 together, for a plain S. Near 0 the remainder is a polynomial, because e^x - 1 - x loses 1 / |x|
// of its precision there: relative error in float below 1e-6 (R1.21).
template <class S>
struct exp_parts {
    S remainder;
    S expm1;

    GRPO_HD exp_parts(const S& r, const S& e) : remainder(r), expm1(e) {}
    GRPO_HD exp_parts(const exp_parts& other) : remainder(other.remainder), expm1(other.expm1) {}  // see dual
    GRPO_HD exp_parts& operator=(const exp_parts& other) {
        remainder = other.remainder;
        expm1 = other.expm1;
        return *this;
    }
};
template <class S>
GRPO_HD exp_parts<S> exp_split(const S& x) {
    if constexpr (requires { scalar_traits<S>::exp_split(x); }) {
        return scalar_traits<S>::exp_split(x);
    } else {
        if (math::abs(x) <= S(0.34657359)) {
            const S r = detail::exp_tail_over_square(x) * (x * x);
            return {r, r + x};
        }
        const S em = math::expm1(x);
        return {em - x, em};
    }
}

// e^x - 1 - x, never negative; derivative e^x - 1.
template <class S>
GRPO_HD S exp_remainder(const S& x) {
    const exp_parts<constant_t<S>> parts = math::exp_split(value(x));
    return scalar_traits<S>::chain(parts.remainder, parts.expm1, x);
}

// exp_split for |x| <= 80.
template <class S>
GRPO_HD exp_parts<S> exp_split_inside(const S& x) {
    if constexpr (requires { scalar_traits<S>::exp_split_inside(x); }) {
        return scalar_traits<S>::exp_split_inside(x);
    } else {
        return math::exp_split(x);
    }
}

template <class S>
GRPO_HD S log(const S& x) {
    if constexpr (detail::differentiable<S>) {
        return scalar_traits<S>::chain(math::log(value(x)), constant<S>(1) / value(x), x);
    } else {
        using std::log;
        return log(x);
    }
}

template <class S>
GRPO_HD S log1p(const S& x) {
    if constexpr (detail::differentiable<S>) {
        return scalar_traits<S>::chain(math::log1p(value(x)), constant<S>(1) / (constant<S>(1) + value(x)), x);
    } else {
        using std::log1p;
        return log1p(x);
    }
}

template <class S>
GRPO_HD S sqrt(const S& x) {
    if constexpr (detail::differentiable<S>) {
        const constant_t<S> r = math::sqrt(value(x));
        return scalar_traits<S>::chain(r, constant<S>(0.5) / r, x);
    } else {
        using std::sqrt;
        return sqrt(x);
    }
}

template <class S>
GRPO_HD S min(const S& a, const S& b) {
    return math::select<S>(b < a, b, a);
}

template <class S>
GRPO_HD S max(const S& a, const S& b) {
    return math::select<S>(a < b, b, a);
}

template <class S>
GRPO_HD S clamp(const S& x, const constant_t<S>& low, const constant_t<S>& high) {
    if constexpr (requires { scalar_traits<S>::clamp(x, low, high); }) {
        return scalar_traits<S>::clamp(x, low, high);
    } else if constexpr (std::same_as<mask_t<S>, bool>) {
        if (!(x < low) && !(high < x)) [[likely]] return x;
    }
    return math::select<S>(x < low, S(low), math::select<S>(high < x, S(high), x));
}

template <class S>
GRPO_HD S square(const S& x) {
    return S(x * x);
}

// (e^2x - 1) / (e^2x + 1); 1 in double beyond |x| = 22, where it is cut off.
template <class S>
GRPO_HD S tanh(const S& x) {
    if constexpr (detail::differentiable<S>) {
        const constant_t<S> t = math::tanh(value(x));
        return scalar_traits<S>::chain(t, constant<S>(1) - t * t, x);
    } else {
        const S bounded = math::clamp(x, constant<S>(-22), constant<S>(22));
        const S e = math::expm1(S(bounded + bounded));
        return S(e / (e + constant<S>(2)));
    }
}

// 1 / (1 + e^-x), without overflow.
template <class S>
GRPO_HD S sigmoid(const S& x) {
    if constexpr (detail::differentiable<S>) {
        const constant_t<S> v = value(x);
        const constant_t<S> s = math::sigmoid(v);
        return scalar_traits<S>::chain(s, s * math::sigmoid(constant_t<S>(-v)), x);
    } else {
        const S e = math::exp(S(-math::abs(x)));
        const S one = constant<S>(1);
        return math::select<S>(x < S(constant<S>(0)), S(e / (one + e)), S(one / (one + e)));
    }
}

// log sigmoid(x) = min(x, 0) - log(1 + e^-|x|); derivative sigmoid(-x).
template <class S>
GRPO_HD S log_sigmoid(const S& x) {
    if constexpr (detail::differentiable<S>) {
        const constant_t<S> v = value(x);
        return scalar_traits<S>::chain(math::log_sigmoid(v), math::sigmoid(constant_t<S>(-v)), x);
    } else {
        const S zero(constant<S>(0));
        return math::min(x, zero) - math::log1p(math::exp(S(-math::abs(x))));
    }
}

// log(1 - e^x) for x < 0, without cancellation on either side of -log 2 (Maechler, "Accurately computing log(1-exp(-|a|))").
template <class S>
GRPO_HD S log1mexp(const S& x) {
    if constexpr (detail::differentiable<S>) {
        const constant_t<S> v = value(x);
        const constant_t<S> slope = constant<S>(-1) / math::expm1(constant_t<S>(-v));
        return scalar_traits<S>::chain(math::log1mexp(v), slope, x);
    } else {
        const S split = constant<S>(-0.6931471805599453);
        return math::select<S>(split < x, math::log(S(-math::expm1(x))), math::log1p(S(-math::exp(x))));
    }
}

}  // namespace math

}  // namespace grpo::inline v0
