// Every term on ceres::Jet.
#include <vector>

#include <doctest/doctest.h>

#include <grpo/adapt/scalar/ceres.hpp>

#include <support/scalar_check.hpp>

namespace {

struct jet {
    static constexpr int slopes = scalar_check::inputs;
    using type = ceres::Jet<double, slopes>;
    static type variable(double v, int k) { return k < 0 ? type(v) : type(v, k); }
    static double value(const type& y) { return y.a; }
    static std::vector<double> derivatives(const type& y) { return {y.v.data(), y.v.data() + slopes}; }
};

TEST_CASE("every term on ceres::Jet has the value and slopes of grpo's dual") {
    scalar_check::every_term<jet>();
}

TEST_CASE("a Jet of Jets is no scalar: second derivatives are refused, not zero") {
    static_assert(grpo::scalar<ceres::Jet<float, 2>>);
    static_assert(!grpo::scalar<ceres::Jet<ceres::Jet<double, 1>, 1>>);
}

}  // namespace
