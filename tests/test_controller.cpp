// Controllers against the cases of tests/vectors/kl.json and value_entropy.json that are about them.
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <grpo/controller.hpp>
#include <grpo/grpo.hpp>

#include <support/vectors.hpp>

namespace {
const double nan_d = std::numeric_limits<double>::quiet_NaN();
const double inf_d = std::numeric_limits<double>::infinity();
}  // namespace

TEST_CASE("vectors: K11 the adaptive KL coefficient") {
    std::size_t seen = 0;
    for (const vectors::test_case& c : vectors::load("kl")) {
        if (c.method() != "adaptive_kl") continue;
        INFO(c.id());
        ++seen;
        grpo::adaptive_kl k{.beta = c.number("beta"), .target = c.number("target"), .horizon = c.number("horizon"),
                            .limit = c.number("limit")};
        std::vector<double> beta;
        for (const double kl : c.input<double>("kl")) {
            k.update(kl, c.number("samples"));
            beta.push_back(k.coefficient());
        }
        CHECK(vectors::difference(beta, c.expected<double>("beta"), c.tolerance<double>()) == "");
        CHECK_FALSE(k.validate("test"));
    }
    CHECK(seen == 3);
}

TEST_CASE("vectors: E02 the adaptive entropy coefficient") {
    std::size_t seen = 0;
    for (const vectors::test_case& c : vectors::load("value_entropy")) {
        if (c.method() != "adaptive_entropy") continue;
        INFO(c.id());
        ++seen;
        grpo::adaptive_entropy e{.coef = c.number("coef"), .target = c.number("target"), .step = c.number("step"),
                                 .least = c.number("coef_min"), .most = c.number("coef_max")};
        std::vector<double> coef, applied;
        for (const double h : c.input<double>("entropy")) {
            applied.push_back(e.coefficient());
            e.update(h);
            coef.push_back(e.coef);
        }
        CHECK(vectors::difference(coef, c.expected<double>("coef"), c.tolerance<double>()) == "");
        CHECK(vectors::difference(applied, c.expected<double>("applied"), c.tolerance<double>()) == "");
    }
    CHECK(seen == 3);
}

TEST_CASE("K11 at the target nothing moves, the error is cut, and the fixed coefficient stays") {
    grpo::adaptive_kl k{.beta = 0.5, .target = 0.1, .horizon = 1000};
    k.update(0.1, 500);
    CHECK(k.coefficient() == 0.5);
    k.update(1e9, 500);
    CHECK(k.coefficient() == doctest::Approx(0.5 * 1.1).epsilon(1e-15));
    k.update(-1e9, 500);
    CHECK(k.coefficient() == doctest::Approx(0.5 * 1.1 * 0.9).epsilon(1e-15));
    k.update(0.0, 1e6);  // more samples than horizon / limit: 0, never negative
    CHECK(k.coefficient() == 0.0);
    grpo::fixed_kl f{0.25};
    f.update(1e9, 500);
    CHECK(f.coefficient() == 0.25);
}

TEST_CASE("R1.16 a non-finite observation changes nothing and is counted") {
    grpo::adaptive_kl k{.beta = 0.5};
    grpo::adaptive_entropy e{.coef = 0.25};
    e.update(0.1);
    const double before = e.coef;
    for (const double bad : {nan_d, inf_d, -inf_d}) {
        k.update(bad, 10);
        e.update(bad);
    }
    CHECK(k.beta == 0.5);
    CHECK(k.ignored == 3);
    CHECK(e.coef == before);
    CHECK(e.acting);
    CHECK(e.ignored == 3);
}

TEST_CASE("controllers name what is out of range") {
    CHECK_FALSE(grpo::adaptive_kl{}.validate("test"));
    CHECK_FALSE(grpo::adaptive_entropy{}.validate("test"));
    CHECK_FALSE(grpo::fixed_kl{}.validate("test"));
    CHECK(std::string(grpo::adaptive_kl{.target = 0.0}.validate("test").text) ==
          "grpo::test: adaptive_kl.target is 0, but must be above 0");
    CHECK(grpo::adaptive_kl{.horizon = -1.0}.validate("test"));
    CHECK(grpo::adaptive_kl{.beta = -1.0}.validate("test"));
    CHECK(grpo::adaptive_kl{.limit = -1.0}.validate("test"));
    CHECK(grpo::adaptive_entropy{.step = -1.0}.validate("test"));
    CHECK(grpo::adaptive_entropy{.least = 2.0}.validate("test"));
    CHECK(grpo::fixed_kl{-1.0}.validate("test"));
}
