// Every pair term on ceres::Jet and Eigen::AutoDiffScalar against grpo's own dual.
#include <algorithm>
#include <cmath>
#include <cstddef>

#include <doctest/doctest.h>

#include <grpo/adapt/scalar/ceres.hpp>
#include <grpo/adapt/scalar/eigen.hpp>

#include <support/all_pair_terms.hpp>

namespace {

using ours = grpo::dual<double, 3>;

bool close(double a, double b) { return std::abs(a - b) <= 1e-12 * std::max({1.0, std::abs(a), std::abs(b)}); }

template <class S, class Variable, class Value, class Slope>
void check_all(Variable variable, Value value, Slope slope) {
    const all_pair_terms::pairs<double> data(17);
    all_pair_terms::for_each([&](const char* name, const auto& term) {
        INFO(name);
        for (std::size_t i = 0; i < data.chosen.size(); ++i) {
            const ours a = term(data.at<ours>(i, [](double v, int k) { return ours::variable(v, k); }));
            const S b = term(data.at<S>(i, variable));
            CHECK(close(a.v, value(b)));
            for (int k = 0; k < 3; ++k) CHECK(close(a.d[k], slope(b, k)));
        }
    });
}

TEST_CASE("every pair term on ceres::Jet has the value and slopes of grpo's dual") {
    using S = ceres::Jet<double, 3>;
    check_all<S>([](double v, int k) { return S(v, k); }, [](const S& x) { return x.a; },
                 [](const S& x, int k) { return x.v[k]; });
}

TEST_CASE("every pair term on Eigen::AutoDiffScalar has the value and slopes of grpo's dual") {
    using S = Eigen::AutoDiffScalar<Eigen::Vector3d>;
    check_all<S>([](double v, int k) { return S(v, 3, k); }, [](const S& x) { return x.value(); },
                 [](const S& x, int k) { return x.derivatives()[k]; });
}

}  // namespace
