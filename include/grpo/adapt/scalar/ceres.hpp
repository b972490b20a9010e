// ceres::Jet as a scalar: a term inside a cost function. Jet<T, N> of a plain T; a Jet of Jets (second derivatives) is
// refused at compile time, because functions with an own slope carry the first derivative alone.
#pragma once

#include <concepts>

#include <ceres/jet.h>

#include <grpo/scalar.hpp>

namespace grpo::inline v0 {

template <std::floating_point T, int N>
struct scalar_traits<ceres::Jet<T, N>> {
    using jet = ceres::Jet<T, N>;
    using constant = T;
    using mask = bool;
    using element = T;
    static constexpr int lanes = 1;

    static T value(const jet& x) { return x.a; }
    static jet chain(T v, T slope, const jet& x) {
        jet r(v);
        r.v = slope * x.v;
        return r;
    }
};

}  // namespace grpo::inline v0
