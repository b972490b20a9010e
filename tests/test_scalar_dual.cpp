// grpo's dual against central differences, and every term on scalars that offer no more than scalar_traits promises.
#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include <support/archetype.hpp>
#include <support/scalar_check.hpp>

namespace {

template <class S>
struct single_slope {
    static constexpr int slopes = 1;
    using type = S;
    static type variable(double v, int k) { return type(v, k < 0 ? 0.0 : 1.0); }
    static double value(const type& y) { return y.v; }
    static std::vector<double> derivatives(const type& y) { return {y.d}; }
};

// One slope instead of five: slots must not influence each other.
struct narrow_dual {
    static constexpr int slopes = 2;
    using type = grpo::dual<double, 2>;
    static type variable(double v, int k) { return k < 0 ? type(v) : type::variable(v, k); }
    static double value(const type& y) { return y.v; }
    static std::vector<double> derivatives(const type& y) { return {y.d[0], y.d[1]}; }
};

TEST_CASE("every term compiles for the least scalar, and has the value and slope of grpo's dual") {
    scalar_check::every_term<single_slope<archetype::scalar>>();
}

TEST_CASE("every term works where comparisons give something that only converts to bool") {
    scalar_check::every_term<single_slope<lazy::scalar>>();
}

TEST_CASE("slopes do not depend on how many there are") {
    scalar_check::every_term<narrow_dual>();
}

TEST_CASE("plain double gives the value of the dual") {
    all_terms::for_each([](const char* name, const auto& term) {
        INFO(std::string(name));
        for (const scalar_check::point& p : scalar_check::points()) {
            using D = grpo::dual<double, 1>;
            const auto plain = scalar_check::evaluate<double>(term, p, [](double v, int) { return v; });
            const auto dual = scalar_check::evaluate<D>(term, p, [](double v, int) { return D(v); });
            for (int o = 0; o < plain.count; ++o) CHECK(plain.y[o] == dual.y[o].v);
        }
    });
}

// f(x), f(c op x) and so on, each as a function of one variable.
template <class S>
std::vector<S> elementary(const S& x) {
    using C = grpo::constant_t<S>;
    namespace m = grpo::math;
    const C c = grpo::constant<S>(0.75);
    return {m::exp(x), m::expm1(x), m::log(x), m::log1p(x), m::sqrt(x), m::sigmoid(x), m::sigmoid(S(-x)), m::log_sigmoid(x),
            m::log_sigmoid(S(-x)), m::log1mexp(S(-x)), m::abs(S(-x)), m::square(x), m::clamp(x, c, C(10.0)),
            m::clamp(x, C(-10.0), c), m::min(x, S(c)), m::max(x, S(c)), S(c / x), S(x / c), S(c - x), S(x - c),
            S(x / (x + c)), S(-x * x), m::exp_remainder(x), m::exp_remainder(S(-x))};
}

TEST_CASE("the functions a term may use have the derivative that central differences give") {
    using D = grpo::dual<double, 1>;
    const double h = 1e-6;
    for (const double x : {0.01, 0.3, 0.69, 0.7, 1.3, 3.0}) {
        const std::vector<D> y = elementary(D::variable(x, 0));
        const std::vector<double> right = elementary(x + h);
        const std::vector<double> left = elementary(x - h);
        for (std::size_t i = 0; i < y.size(); ++i) {
            INFO("function " << i << " at " << x);
            const double difference = (right[i] - left[i]) / (2 * h);
            CHECK(std::abs(y[i].d[0] - difference) <= 1e-8 * std::max(1.0, std::abs(difference)));
        }
    }
}

TEST_CASE("stable functions keep their digits") {
    namespace m = grpo::math;
    CHECK(m::log1mexp(-1e-10) == doctest::Approx(std::log(1e-10)).epsilon(1e-9));
    CHECK(m::log1mexp(-50.0) == doctest::Approx(-std::exp(-50.0)).epsilon(1e-12));
    CHECK(m::log_sigmoid(-800.0) == -800.0);
    CHECK(m::log_sigmoid(800.0) == 0.0);
    CHECK(m::sigmoid(-800.0) == 0.0);
    CHECK(m::sigmoid(800.0) == 1.0);
    CHECK(m::abs(grpo::dual<double, 1>::variable(0.0, 0)).d[0] == 0.0);
    // The closed interval passes its derivative.
    CHECK(m::clamp(grpo::dual<double, 1>::variable(1.0, 0), 0.0, 1.0).d[0] == 1.0);
    CHECK(m::clamp(grpo::dual<double, 1>::variable(0.0, 0), 0.0, 1.0).d[0] == 1.0);
    CHECK(m::clamp(grpo::dual<double, 1>::variable(1.5, 0), 0.0, 1.0).d[0] == 0.0);
}

}  // namespace
