// Every term on autodiff's reverse scalar.
#include <vector>

#include <doctest/doctest.h>

#include <grpo/adapt/scalar/autodiff_var.hpp>

#include <support/scalar_check.hpp>

namespace {

// All inputs of the evaluation in progress; the derivatives are asked of the finished tree.
struct reverse {
    static constexpr int slopes = scalar_check::inputs;
    using type = autodiff::var;
    static std::vector<type>& inputs() {
        static std::vector<type> all(slopes);
        return all;
    }
    static type variable(double v, int k) {
        type x(v);
        if (k < 0) return x;
        type& place = inputs()[static_cast<std::size_t>(k)];
        place = x;
        return place;
    }
    static double value(const type& y) { return y.expr->val; }
    static std::vector<double> derivatives(const type& y) {
        std::vector<type>& x = inputs();
        const auto d = autodiff::derivatives(y, autodiff::wrt(x[0], x[1], x[2], x[3], x[4], x[5]));
        return {d.begin(), d.end()};
    }
};

TEST_CASE("every term on autodiff::var has the value and slopes of grpo's dual") {
    scalar_check::every_term<reverse>();
}

TEST_CASE("second derivatives of a node with an own slope are an error, not zero") {
    autodiff::var x(0.25);
    const autodiff::var y = grpo::math::exp(x);
    CHECK_THROWS_AS(autodiff::derivativesx(y, autodiff::wrt(x)), grpo::error);
}

}  // namespace
