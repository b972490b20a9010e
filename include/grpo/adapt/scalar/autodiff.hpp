// autodiff::real and autodiff::dual (first order) as scalars. Reverse mode (autodiff::var) has a header of its own,
// autodiff_var.hpp: the two halves of autodiff cannot share a translation unit.
//
// Higher orders are refused at compile time, because functions with an own slope carry the first derivative alone.
#pragma once

#include <concepts>

#include <autodiff/forward/dual.hpp>
#include <autodiff/forward/real.hpp>

#include <grpo/scalar.hpp>

namespace grpo::inline v0 {

template <std::floating_point T>
struct scalar_traits<autodiff::detail::Dual<T, T>> {
    using number = autodiff::detail::Dual<T, T>;
    using constant = T;
    using mask = bool;
    using element = T;
    static constexpr int lanes = 1;

    static T value(const number& x) { return x.val; }
    static number chain(T v, T slope, const number& x) {
        number r(v);
        r.grad = slope * x.grad;
        return r;
    }
};

template <std::floating_point T>
struct scalar_traits<autodiff::detail::Real<1, T>> {
    using number = autodiff::detail::Real<1, T>;
    using constant = T;
    using mask = bool;
    using element = T;
    static constexpr int lanes = 1;

    static T value(const number& x) { return x[0]; }
    static number chain(T v, T slope, const number& x) {
        number r(v);
        r[1] = slope * x[1];
        return r;
    }
};

}  // namespace grpo::inline v0
