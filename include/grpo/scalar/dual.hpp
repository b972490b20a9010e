// The parts of a scalar: its traits, and our own forward-mode dual number. See scalar.hpp.
#pragma once

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
//   exp, exp_inside, expm1, exp_split, exp_split_inside, clamp   optional: better than what math:: composes
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
#if defined(__CUDA_ARCH__)
        constexpr bool branches = false;  // it would choose an address, and put both into memory
#else
        constexpr bool branches = std::same_as<mask, bool>;  // one branch, not a blend per component
#endif
        if constexpr (branches) {
            return m ? a : b;
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

}  // namespace grpo::inline v0
