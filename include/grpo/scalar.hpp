// Scalars: what a formula is evaluated on.
//
// A formula is written once, on a type S. Evaluated on float or double it gives the value; on dual<float, N> the value
// and N slopes in the same pass; on a SIMD pack, many values at once; on a foreign automatic-differentiation type,
// whatever that type computes. `scalar_traits` is the one thing a new scalar specialises (see adapt/scalar/).
//
// House rules for formulas: name the type (`const S r = ...`, never auto), no `if` or `?:` on a scalar (use
// math::select, min, max, clamp), only math:: functions, mixed arithmetic only between S and constant_t<S>.
#pragma once

#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>

namespace grpo::inline v0 {

// Specialise for a scalar type S:
//   constant                 the type of non-differentiable numbers that mix with S (float for dual<float, N>)
//   mask                     what a comparison of two S gives (bool, or a SIMD mask)
//   element                  one lane's plain floating-point type
//   constant value(S)        the value without derivatives
//   S chain(v, slope, x)     an S with value v and derivative slope · dx; slope and v are constants
//   S select(mask, a, b)     optional: mask ? a : b where a mask is not a bool
//   exp, expm1, clamp, exp_remainder         optional: better than what math:: composes
template <class S>
struct scalar_traits;

template <std::floating_point T>
struct scalar_traits<T> {
    using constant = T;
    using mask = bool;
    using element = T;
    static constexpr int lanes = 1;
    GRPO_HD static T value(T x) { return x; }
    GRPO_HD static T chain(T v, T, T) { return v; }
    GRPO_HD static T select(bool mask, T a, T b) { return mask ? a : b; }
};

template <class S>
using constant_t = typename scalar_traits<S>::constant;
template <class S>
using mask_t = typename scalar_traits<S>::mask;
template <class S>
using element_t = typename scalar_traits<S>::element;

template <class S>
concept scalar = requires(const S& x) {
    typename constant_t<S>;
    typename mask_t<S>;
    { scalar_traits<S>::value(x) } -> std::convertible_to<constant_t<S>>;
};

// A value and its derivatives with respect to N inputs, propagated forwards. T is float, double or a SIMD pack.
template <class T, int N>
struct dual {
    T v{};
    T d[N] = {};

    dual() = default;
    GRPO_HD explicit dual(const T& value) : v(value) {}
    // Copied field by field: a trivially copyable pair of floats travels in one register, and clang then shuffles its
    // halves in and out around every operation.
    GRPO_HD dual(const dual& other) : v(other.v) {
        for (int k = 0; k < N; ++k) d[k] = other.d[k];
    }
    GRPO_HD dual& operator=(const dual& other) {
        v = other.v;
        for (int k = 0; k < N; ++k) d[k] = other.d[k];
        return *this;
    }

    // The input number `slot`: derivative 1 there, 0 elsewhere.
    GRPO_HD static dual variable(const T& value, int slot) {
        dual x(value);
        x.d[slot] = T(1);
        return x;
    }

    GRPO_HD friend dual operator-(dual a) {
        a.v = -a.v;
        for (int k = 0; k < N; ++k) a.d[k] = -a.d[k];
        return a;
    }
    GRPO_HD friend dual operator+(dual a, const dual& b) {
        a.v = a.v + b.v;
        for (int k = 0; k < N; ++k) a.d[k] = a.d[k] + b.d[k];
        return a;
    }
    GRPO_HD friend dual operator-(dual a, const dual& b) {
        a.v = a.v - b.v;
        for (int k = 0; k < N; ++k) a.d[k] = a.d[k] - b.d[k];
        return a;
    }
    GRPO_HD friend dual operator*(const dual& a, const dual& b) {
        dual r(a.v * b.v);
        for (int k = 0; k < N; ++k) r.d[k] = a.d[k] * b.v + a.v * b.d[k];
        return r;
    }
    GRPO_HD friend dual operator/(const dual& a, const dual& b) {
        dual r(a.v / b.v);
        for (int k = 0; k < N; ++k) r.d[k] = (a.d[k] - r.v * b.d[k]) / b.v;
        return r;
    }
    GRPO_HD friend dual operator+(dual a, const T& c) { a.v = a.v + c; return a; }
    GRPO_HD friend dual operator+(const T& c, dual a) { a.v = c + a.v; return a; }
    GRPO_HD friend dual operator-(dual a, const T& c) { a.v = a.v - c; return a; }
    GRPO_HD friend dual operator-(const T& c, const dual& a) { return c + (-a); }
    GRPO_HD friend dual operator*(dual a, const T& c) {
        a.v = a.v * c;
        for (int k = 0; k < N; ++k) a.d[k] = a.d[k] * c;
        return a;
    }
    GRPO_HD friend dual operator*(const T& c, const dual& a) { return a * c; }
    GRPO_HD friend dual operator/(const dual& a, const T& c) { return a * (T(1) / c); }
    GRPO_HD friend dual operator/(const T& c, const dual& a) {
        const T r = c / a.v;
        return scalar_traits<dual>::chain(r, -r / a.v, a);
    }

    GRPO_HD friend auto operator<(const dual& a, const dual& b) { return a.v < b.v; }
    GRPO_HD friend auto operator<(const dual& a, const T& b) { return a.v < b; }
    GRPO_HD friend auto operator<(const T& a, const dual& b) { return a < b.v; }
    GRPO_HD friend auto operator<=(const dual& a, const dual& b) { return a.v <= b.v; }
    GRPO_HD friend auto operator<=(const dual& a, const T& b) { return a.v <= b; }
    GRPO_HD friend auto operator<=(const T& a, const dual& b) { return a <= b.v; }
};

template <class T, int N>
struct scalar_traits<dual<T, N>> {
    using constant = T;
    using mask = mask_t<T>;
    using element = element_t<T>;
    static constexpr int lanes = scalar_traits<T>::lanes;
    GRPO_HD static T value(const dual<T, N>& x) { return x.v; }
    GRPO_HD static dual<T, N> chain(const T& v, const T& slope, const dual<T, N>& x) {
        dual<T, N> r(v);
        for (int k = 0; k < N; ++k) r.d[k] = slope * x.d[k];
        return r;
    }
    GRPO_HD static dual<T, N> select(const mask& m, const dual<T, N>& a, const dual<T, N>& b) {
        if constexpr (std::same_as<mask, bool>) {
            return m ? a : b;  // one branch, not a blend per component
        } else {
            dual<T, N> r(scalar_traits<T>::select(m, a.v, b.v));
            for (int k = 0; k < N; ++k) r.d[k] = scalar_traits<T>::select(m, a.d[k], b.d[k]);
            return r;
        }
    }
    // Derivative 1 on the closed interval, 0 outside.
    GRPO_HD static dual<T, N> clamp(const dual<T, N>& x, const T& low, const T& high)
        requires requires { scalar_traits<T>::clamp(x.v, low, high); }
    {
        dual<T, N> r(scalar_traits<T>::clamp(x.v, low, high));
        const mask inside = x.v == r.v;
        for (int k = 0; k < N; ++k) r.d[k] = scalar_traits<T>::select(inside, x.d[k], T(0));
        return r;
    }
};

// The value without derivatives, as a constant.
template <class S>
GRPO_HD constant_t<S> value(const S& x) {
    return scalar_traits<S>::value(x);
}

// sg(x), the stop-gradient: same value, no derivatives.
template <class S>
GRPO_HD S detach(const S& x) {
    return S(scalar_traits<S>::value(x));
}

// A hyper-parameter as a constant that mixes with S.
template <class S>
GRPO_HD constant_t<S> constant(double x) {
    return constant_t<S>(static_cast<element_t<S>>(x));
}

namespace detail {
// A scalar whose derivatives we propagate ourselves: every function then needs only its value and slope.
template <class S>
concept differentiable = !std::same_as<S, constant_t<S>>;
}  // namespace detail

namespace detail {

template <class S>
GRPO_HD S fma(const S& a, const S& b, const S& c) {
    if constexpr (requires { scalar_traits<S>::fma(a, b, c); }) {
        return scalar_traits<S>::fma(a, b, c);
    } else {
        return a * b + c;
    }
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
    if constexpr (requires { scalar_traits<S>::clamp(x, low, high); }) return scalar_traits<S>::clamp(x, low, high);
    return math::select<S>(x < low, S(low), math::select<S>(high < x, S(high), x));
}

template <class S>
GRPO_HD S square(const S& x) {
    return S(x * x);
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
