// Every term on autodiff's forward scalars.
#include <vector>

#include <doctest/doctest.h>

#include <grpo/adapt/scalar/autodiff.hpp>

#include <support/scalar_check.hpp>

namespace {

struct forward_dual {
    static constexpr int slopes = 1;
    using type = autodiff::dual;
    static type variable(double v, int k) {
        type x(v);
        x.grad = k < 0 ? 0.0 : 1.0;
        return x;
    }
    static double value(const type& y) { return y.val; }
    static std::vector<double> derivatives(const type& y) { return {y.grad}; }
};

struct forward_real {
    static constexpr int slopes = 1;
    using type = autodiff::real;
    static type variable(double v, int k) {
        type x(v);
        x[1] = k < 0 ? 0.0 : 1.0;
        return x;
    }
    static double value(const type& y) { return y[0]; }
    static std::vector<double> derivatives(const type& y) { return {y[1]}; }
};

TEST_CASE("every term on autodiff::dual has the value and slopes of grpo's dual") {
    scalar_check::every_term<forward_dual>();
}

TEST_CASE("every term on autodiff::real has the value and slopes of grpo's dual") {
    scalar_check::every_term<forward_real>();
}

TEST_CASE("higher orders are no scalars: second derivatives are refused, not zero") {
    static_assert(!grpo::scalar<autodiff::dual2nd>);
    static_assert(!grpo::scalar<autodiff::real2nd>);
}

}  // namespace
