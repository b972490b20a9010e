// KL terms: reference vectors (tests/vectors/kl.json), the expected gradients by enumeration, precision, null reference.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/loss_cases.hpp>

namespace {

using grpo::kl_estimator;
using grpo::kl_gradient;
using grpo::kl_penalty;
using vectors::layout;
using vectors::outcome;
using vectors::policy_inputs;
using vectors::test_case;

template <kl_estimator Value, class Run>
bool with_gradient(const test_case& c, Run&& run) {
    const std::string g = c.text("gradient");
    const bool sequence = c.text("level") == "sequence";
    if (g == "own") run(kl_penalty<Value, kl_gradient::own>{});
    else if (g == "k2") run(kl_penalty<Value, kl_gradient::k2>{});
    else if (g == "score") run(kl_penalty<Value, kl_gradient::score>{});
    else if (g == "importance" && sequence) run(kl_penalty<Value, kl_gradient::sequence_importance>{});
    else if (g == "importance") run(kl_penalty<Value, kl_gradient::importance>{});
    else return false;
    return true;
}

template <class Run>
bool kl_term(const test_case& c, Run&& run) {
    const std::string v = c.text("value");
    const auto bounded = [&](auto term) {
        term.bound.bound = vectors::bound_of(c.number("input_bound"));
        term.output.bound = vectors::bound_of(c.number("output_bound"));
        run(term);
    };
    if (v == "k1") return with_gradient<kl_estimator::k1>(c, bounded);
    if (v == "k2") return with_gradient<kl_estimator::k2>(c, bounded);
    if (v == "k3") return with_gradient<kl_estimator::k3>(c, bounded);
    if (v == "abs") return with_gradient<kl_estimator::abs>(c, bounded);
    return false;
}

// Cases of kl.json that are no token loss: the reward side, the controller and the KL over the vocabulary have tests of
// their own.
bool elsewhere(const std::string& method) {
    return method == "kl_in_reward" || method == "kl_in_sequence_reward" || method == "adaptive_kl" || method == "full_kl";
}

template <class T>
void check_token_kl(const test_case& c, const layout& l, const policy_inputs<T>& in) {
    if (!c.expects("token_kl")) return;
    const std::vector<double> expected = c.expected<double>("token_kl");
    std::vector<double> got(expected.size(), 0.0);
    kl_term(c, [&](const auto& term) {
        if constexpr (std::remove_cvref_t<decltype(term)>::statistics == 0) {
            for (std::size_t t = 0; t < got.size(); ++t) {
                if (l.mask()[t] == 0) continue;
                grpo::token<T> x;
                x.logp = in.logp[t];
                x.logp_old = in.logp_old[t];
                x.logp_ref = in.logp_ref[t];
                got[t] = static_cast<double>(term(x));
            }
            CHECK(vectors::difference(got, expected, c.tolerance<T>()) == "");
        }
    });
}

// The pairs that the vectors join with a policy term (each pair is a type of its own).
template <class Run>
bool joined_kl_term(const test_case& c, Run&& run) {
    const std::string pair = c.text("value") + " " + c.text("gradient");
    if (pair == "k1 own") run(kl_penalty<kl_estimator::k1, kl_gradient::own>{});
    else if (pair == "k2 own") run(kl_penalty<kl_estimator::k2, kl_gradient::own>{});
    else if (pair == "k3 own") run(grpo::kl{});
    else if (pair == "k1 importance") run(kl_penalty<kl_estimator::k1, kl_gradient::importance>{});
    else if (pair == "k2 importance") run(kl_penalty<kl_estimator::k2, kl_gradient::importance>{});
    else if (pair == "k3 importance") run(kl_penalty<kl_estimator::k3, kl_gradient::importance>{});
    else return false;
    return c.text("level") == "token" && std::isinf(c.number("input_bound")) && std::isinf(c.number("output_bound"));
}

template <class T>
void check(const test_case& c) {
    INFO(c.id());
    if (elsewhere(c.method())) return;
    const layout l(c);
    const policy_inputs<T> in(c, l);
    const auto compare = [&](const auto& term) {
        const outcome got = vectors::evaluate(term, l, in);
        CHECK_MESSAGE(vectors::close(got.value, c.value(), c.tolerance<T>()), got.value, " expected ", c.value());
        CHECK(vectors::difference(got.gradient, c.expected<double>("gradient/logp"), c.tolerance<T>()) == "");
    };
    bool known = false;
    if (c.method() == "kl") {
        known = kl_term(c, compare);
        check_token_kl(c, l, in);
    }
    if (c.method() == "clip_plus_kl") {
        const grpo::clipped clip{c.number("low"), c.number("high"), vectors::safety_bound_of(c)};
        known = joined_kl_term(c, [&](auto kl) {
            kl.bound.bound = grpo::math::unbounded;
            compare(clip + c.number("beta") * kl);
        });
    }
    CHECK_MESSAGE(known, "unknown method ", c.method());
}

TEST_CASE("R1.23 KL value and gradient are separate choices (double)") {
    for (const test_case& c : vectors::load("kl")) check<double>(c);
}

TEST_CASE("R1.23 KL value and gradient are separate choices (float)") {
    for (const test_case& c : vectors::load("kl")) check<float>(c);
}

// ---- R1.24: a categorical policy over four actions, all of them enumerated ----

struct categorical {
    std::vector<double> logp{std::log(0.1), std::log(0.2), std::log(0.3), std::log(0.4)};
    std::vector<double> ref{std::log(0.35), std::log(0.15), std::log(0.3), std::log(0.2)};
    std::vector<std::int64_t> cu{0, 4};

    double p(std::size_t a) const { return std::exp(logp[a]); }
    double q(std::size_t a) const { return std::exp(ref[a]); }

    // E_a~π [slope(a) ∇_θ log π(a)] for softmax parameters θ: ∂ log π(a) / ∂θ_j = [a = j] - π(j).
    std::vector<double> expectation(const std::vector<double>& slope) const {
        std::vector<double> g(4, 0.0);
        for (std::size_t a = 0; a < 4; ++a) {
            for (std::size_t j = 0; j < 4; ++j) g[j] += p(a) * slope[a] * ((a == j ? 1.0 : 0.0) - p(j));
        }
        return g;
    }
    // Differences of KL(softmax θ ‖ q), or of KL(q ‖ softmax θ).
    std::vector<double> gradient_of_kl(bool reverse) const {
        std::vector<double> g(4);
        const double h = 1e-6;
        for (std::size_t j = 0; j < 4; ++j) {
            g[j] = (kl_at(j, h, reverse) - kl_at(j, -h, reverse)) / (2 * h);
        }
        return g;
    }
    double kl_at(std::size_t j, double h, bool reverse) const {
        std::vector<double> z = logp;
        z[j] += h;
        double sum = 0;
        for (const double x : z) sum += std::exp(x);
        double kl = 0;
        for (std::size_t a = 0; a < 4; ++a) {
            const double l = z[a] - std::log(sum);
            kl += reverse ? q(a) * (ref[a] - l) : std::exp(l) * (l - ref[a]);
        }
        return kl;
    }
    template <class Term>
    std::vector<double> expected_gradient(const Term& term) const {
        std::vector<double> slope(4);
        const grpo::objective loss{term, grpo::aggregation::token_sum()};
        const auto shape = grpo::ragged(cu);
        const grpo::batch b(shape, grpo::logp(logp), grpo::logp_old(logp), grpo::logp_ref(ref));
        (void)grpo::evaluate(grpo::serial{}, loss, b, 1.0, grpo::d_logp(slope));
        return expectation(slope);
    }
};

template <kl_estimator V, kl_gradient G>
std::vector<double> expected_gradient() {
    return categorical{}.expected_gradient(kl_penalty<V, G>{});
}

TEST_CASE("R1.24 expected gradients of the KL losses, by enumeration") {
    const categorical world;
    const std::vector<double> forward = world.gradient_of_kl(false);
    const std::vector<double> reverse = world.gradient_of_kl(true);
    const double e = 1e-8;
    REQUIRE(vectors::difference(forward, reverse, 1e-2) != "");
    CHECK(vectors::difference(expected_gradient<kl_estimator::k1, kl_gradient::own>(), std::vector<double>(4, 0.0), e) == "");
    CHECK(vectors::difference(expected_gradient<kl_estimator::k2, kl_gradient::own>(), forward, e) == "");
    CHECK(vectors::difference(expected_gradient<kl_estimator::k3, kl_gradient::own>(), reverse, e) == "");
    CHECK(vectors::difference(expected_gradient<kl_estimator::k1, kl_gradient::k2>(), forward, e) == "");
    CHECK(vectors::difference(expected_gradient<kl_estimator::k3, kl_gradient::k2>(), forward, e) == "");
    CHECK(vectors::difference(expected_gradient<kl_estimator::abs, kl_gradient::k2>(), forward, e) == "");
    CHECK(vectors::difference(expected_gradient<kl_estimator::k1, kl_gradient::score>(), forward, e) == "");
    CHECK(vectors::difference(expected_gradient<kl_estimator::k3, kl_gradient::score>(), forward, e) == "");
    CHECK(vectors::difference(expected_gradient<kl_estimator::k1, kl_gradient::importance>(), forward, e) == "");
    CHECK(vectors::difference(expected_gradient<kl_estimator::k3, kl_gradient::importance>(), forward, e) == "");
}

TEST_CASE("R1.24 k1 in the reward gives the gradient of KL(policy, reference)") {
    const categorical world;
    std::vector<double> advantage(4), slope(4);
    for (std::size_t a = 0; a < 4; ++a) advantage[a] = -(world.logp[a] - world.ref[a]);
    const grpo::objective loss{grpo::on_policy{}, grpo::aggregation::token_sum()};
    const auto shape = grpo::ragged(world.cu);
    const grpo::batch b(shape, grpo::logp(world.logp), grpo::advantage(advantage));
    (void)grpo::evaluate(grpo::serial{}, loss, b, 1.0, grpo::d_logp(slope));
    CHECK(vectors::difference(world.expectation(slope), world.gradient_of_kl(false), 1e-8) == "");
}

// ---- R1.21 ----

// Σ_{n>=2} x^n / n!, the series of e^x - 1 - x.
long double exact_remainder(long double x) {
    long double term = x;
    long double sum = 0;
    for (int n = 2; n < 80; ++n) {
        term *= x / n;
        sum += term;
    }
    return sum;
}

template <class T>
double worst_error() {
    double worst = 0;
    for (int k = 0; k <= 2000; ++k) {
        for (const double sign : {-1.0, 1.0}) {
            const T x = static_cast<T>(sign * std::pow(10.0, -8 + 9.0 * k / 2000));
            const T got = grpo::math::exp_remainder(x);
            CHECK(got >= T(0));
            const double expected = static_cast<double>(exact_remainder(x));
            worst = std::max(worst, std::abs(static_cast<double>(got) - expected) / expected);
        }
    }
    return worst;
}

TEST_CASE("R1.21 k3 keeps its relative precision near 0 and is never negative") {
    CHECK(worst_error<float>() < 1e-6);
    CHECK(worst_error<double>() < 1e-14);
    grpo::token<float> t;
    t.logp = -1.0f;
    t.logp_ref = -1.0f + 0.0009765625f;
    CHECK(grpo::kl{}(t) == doctest::Approx(4.7699e-7).epsilon(1e-4));
    t.logp_ref = t.logp;
    CHECK(grpo::kl{}(t) == 0.0f);
}

TEST_CASE("R1.21 the derivative of k3 is -expm1(-r), and keeps its precision") {
    for (const float r : {-3.0f, -0.5f, -0.0009765625f, 0.0f, 1.1920929e-7f, 0.25f, 8.0f}) {
        grpo::token<grpo::dual<float, 1>> t;
        t.logp = grpo::dual<float, 1>::variable(r, 0);
        const double expected = -std::expm1(-static_cast<double>(r));
        CHECK(std::abs(static_cast<double>(grpo::kl{}(t).d[0]) - expected) <= 2e-7 * std::abs(expected));
    }
}

// ---- R1.22, R1.25 ----

struct small_batch {
    std::vector<std::int64_t> cu{0, 2, 5};
    std::vector<float> logp{-1.0f, -0.5f, -2.0f, -0.25f, -1.5f};
    std::vector<float> old{-1.25f, -0.5f, -1.0f, -0.5f, -1.5f};
    std::vector<float> ref{-0.5f, -1.0f, -2.5f, -0.25f, -1.0f};
    std::vector<float> advantage{0.75f, -1.25f};

    template <class Term>
    grpo::loss_result run(const Term& term, const float* reference, std::vector<float>& gradient) const {
        gradient.assign(5, 7.0f);
        const grpo::objective loss{term, grpo::aggregation::token_mean()};
        const auto shape = grpo::ragged(cu);
        const grpo::batch b(shape, grpo::logp(logp), grpo::logp_old(old),
                            grpo::logp_ref(grpo::view<const float>(reference, 5)),
                            grpo::advantage(grpo::by_sequence(advantage)));
        return grpo::evaluate(grpo::serial{}, loss.diagnosed(), b, 5.0, grpo::d_logp(gradient));
    }
};

TEST_CASE("R1.22 beta 0 does not read the reference: it may be null") {
    const small_batch s;
    std::vector<float> with, without;
    const auto a = s.run(grpo::clipped{} + 0.0 * grpo::kl{}, nullptr, with);
    const auto b = s.run(grpo::clipped{}, s.ref.data(), without);
    CHECK(a.sum == b.sum);
    CHECK(std::memcmp(with.data(), without.data(), with.size() * sizeof(float)) == 0);
    CHECK_THROWS_AS(s.run(grpo::clipped{} + 0.04 * grpo::kl{}, nullptr, with), grpo::error);
}

TEST_CASE("R1.22 beta 0 cannot be affected by a non-finite reference") {
    small_batch s;
    std::vector<float> with, without;
    const auto b = s.run(grpo::clipped{}, s.ref.data(), without);
    s.ref.assign(5, std::numeric_limits<float>::quiet_NaN());
    const auto a = s.run(grpo::clipped{} + 0.0 * grpo::kl{}, s.ref.data(), with);
    CHECK(a.sum == b.sum);
    CHECK(a.nonfinite == 0);
    CHECK(std::memcmp(with.data(), without.data(), with.size() * sizeof(float)) == 0);
}

TEST_CASE("R1.25 the logged KL does not depend on which KL is optimised") {
    const small_batch s;
    std::vector<float> g;
    double k1 = 0, k3 = 0;
    for (std::size_t t = 0; t < 5; ++t) {
        const double r = static_cast<double>(s.logp[t]) - static_cast<double>(s.ref[t]);
        k1 += r;
        k3 += std::exp(-r) - 1 + r;
    }
    const auto check = [&](const auto& term) {
        const auto r = s.run(grpo::clipped{} + 0.1 * term, s.ref.data(), g);
        CHECK(r.metrics.kl_ref_k1 == doctest::Approx(k1).epsilon(1e-6));
        CHECK(r.metrics.kl_ref_k3 == doctest::Approx(k3).epsilon(1e-6));
    };
    check(grpo::kl{});
    check(kl_penalty<kl_estimator::k2, kl_gradient::own>{});
    check(kl_penalty<kl_estimator::k1, kl_gradient::score>{});
    check(kl_penalty<kl_estimator::k3, kl_gradient::importance>{});
}

TEST_CASE("R1.20 a reference 100 above or below the policy stays finite and is counted") {
    for (const float gap : {100.0f, -100.0f}) {
        small_batch s;
        s.ref[2] = s.logp[2] + gap;
        std::vector<float> g;
        const auto r = s.run(grpo::clipped{} + 0.04 * grpo::kl{}, s.ref.data(), g);
        CHECK(std::isfinite(r.sum));
        for (const float x : g) CHECK(std::isfinite(x));
        CHECK(r.metrics.clamped == 1.0);
    }
}

TEST_CASE("R1.19 each clamp of the KL has the gradient rule it states") {
    using S = grpo::dual<double, 1>;
    grpo::token<S> t;
    t.logp = S::variable(-1.0, 0);
    t.logp_ref = 2.0;
    grpo::kl k;
    k.bound.bound = 2.0;
    CHECK(k(t).v == doctest::Approx(std::exp(2.0) - 3.0));
    CHECK(k(t).d[0] == 0.0);
    k.bound.gradient = grpo::outside::straight_through;
    CHECK(k(t).d[0] == doctest::Approx(1 - std::exp(2.0)));
    k.bound.bound = 20.0;
    k.output.bound = 4.0;
    CHECK(k(t).v == 4.0);
    CHECK(k(t).d[0] == 0.0);
    k.output.gradient = grpo::outside::straight_through;
    CHECK(k(t).v == 4.0);
    CHECK(k(t).d[0] == doctest::Approx(1 - std::exp(3.0)));
}

}  // namespace
