// Every term on Eigen::AutoDiffScalar, with a fixed and a dynamic number of derivatives.
#include <vector>

#include <doctest/doctest.h>

#include <grpo/adapt/scalar/eigen.hpp>

#include <support/scalar_check.hpp>

namespace {

template <class Vector>
struct active {
    static constexpr int slopes = scalar_check::inputs;
    using type = Eigen::AutoDiffScalar<Vector>;
    static type variable(double v, int k) { return k < 0 ? type(v) : type(v, slopes, k); }
    static double value(const type& y) { return y.value(); }
    static std::vector<double> derivatives(const type& y) {
        const auto& d = y.derivatives();
        return {d.data(), d.data() + d.size()};
    }
};
using fixed = active<Eigen::Matrix<double, scalar_check::inputs, 1>>;
using dynamic = active<Eigen::VectorXd>;

TEST_CASE("every term on Eigen::AutoDiffScalar of fixed size has the value and slopes of grpo's dual") {
    scalar_check::every_term<fixed>();
}

TEST_CASE("every term on Eigen::AutoDiffScalar of dynamic size has the value and slopes of grpo's dual") {
    scalar_check::every_term<dynamic>();
}

// Inputs that are plain numbers have an empty derivative vector, which must count as zeros.
struct only_logp : dynamic {
    static type variable(double v, int k) { return dynamic::variable(v, k == 0 ? 0 : -1); }
};

TEST_CASE("inputs without derivatives count as constants") {
    all_terms::for_each([](const char* name, const auto& term) {
        INFO(std::string(name));
        for (const scalar_check::point& p : scalar_check::points()) {
            using S = dynamic::type;
            using D = grpo::dual<double, 1>;
            const auto theirs = scalar_check::evaluate<S>(term, p, [](double v, int k) { return only_logp::variable(v, k); });
            const auto ours = scalar_check::evaluate<D>(term, p, [](double v, int k) { return k == 0 ? D::variable(v, 0) : D(v); });
            const S& y = theirs.y[0];
            CHECK(scalar_check::close(y.value(), ours.y[0].v));
            const double slope = y.derivatives().size() == 0 ? 0.0 : y.derivatives()[0];
            CHECK(scalar_check::close(slope, ours.y[0].d[0]));
        }
    });
}

}  // namespace
