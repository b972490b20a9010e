// Value losses, entropy and likelihood terms against the reference vectors, in double and float.
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/loss_cases.hpp>

namespace {

using vectors::layout;
using vectors::outcome;
using vectors::policy_inputs;
using vectors::test_case;

template <class T>
void compare(const test_case& c, const outcome& got, const char* gradient) {
    CHECK_MESSAGE(vectors::close(got.value, c.value(), c.tolerance<T>()), got.value, " expected ", c.value());
    CHECK(vectors::difference(got.gradient, c.expected<double>(gradient), c.tolerance<T>()) == "");
}

template <class T, class Term>
void check_value(const test_case& c, const Term& term) {
    const layout l(c);
    const std::vector<T> v = c.input<T>("value"), old = c.input<T>("value_old"), target = c.input<T>("return");
    std::vector<T> g(l.tokens(), T(7));
    const grpo::objective loss{term, grpo::aggregation::token_sum()};
    const grpo::objective aggregated{term, l.over()};
    const auto shape = l.shape();
    const grpo::batch b(shape, grpo::values(v), grpo::values_old(old), grpo::returns(target));
    outcome got;
    got.value = grpo::evaluate(grpo::serial{}, aggregated, b, l.denominator(), grpo::d_values(g)).loss(l.denominator());
    got.gradient.assign(g.begin(), g.end());
    compare<T>(c, got, "gradient/value");
    const grpo::loss_result counted = grpo::evaluate(grpo::serial{}, loss.diagnosed(), b, 1.0);
    CHECK(counted.metrics.clamped == c.expected_number("clipped"));
    CHECK(static_cast<double>(counted.count.tokens) == c.expected_number("tokens"));
}

template <class T>
void check_entropy_bonus(const test_case& c) {
    const layout l(c);
    const std::vector<T> h = c.input<T>("entropy");
    std::vector<T> g(l.tokens(), T(7));
    const grpo::objective loss{c.number("coef") * grpo::entropy_bonus{}, l.over()};
    const auto shape = l.shape();
    const grpo::batch b(shape, grpo::entropy(h));
    outcome got;
    got.value = grpo::evaluate(grpo::serial{}, loss, b, l.denominator(), grpo::d_entropy(g)).loss(l.denominator());
    got.gradient.assign(g.begin(), g.end());
    compare<T>(c, got, "gradient/entropy");
}

template <class T>
void check_entropy_estimate(const test_case& c) {
    const std::vector<std::int64_t> cu = c.input<std::int64_t>("cu_seqlens");
    const std::vector<std::uint8_t> mask = c.input<std::uint8_t>("mask");
    const std::vector<T> logp = c.input<T>("logp"), rollout = c.input<T>("logp_rollout");
    const grpo::objective loss{grpo::entropy_estimate{}, grpo::aggregation::token_mean()};
    const auto shape = grpo::ragged(cu).where(mask);
    const grpo::batch b(shape, grpo::logp(logp), grpo::logp_rollout(rollout));
    const grpo::loss_result r = grpo::evaluate(grpo::serial{}, loss, b, 1.0);
    CHECK(vectors::close(r.sum, c.expected_number("estimate_sum"), c.tolerance<T>()));
    CHECK(vectors::close(r.loss(), c.expected_number("estimate"), c.tolerance<T>()));
    CHECK(static_cast<double>(r.count.tokens) == c.expected_number("tokens"));
}

template <class T>
void check(const test_case& c) {
    INFO(c.id());
    const std::string m = c.method();
    const auto p = [&](const char* name) { return vectors::bound_of(c.number(name)); };
    if (m == "value_clip") check_value<T>(c, grpo::value_loss{.clip = p("clip_range"), .factor = p("factor")});
    else if (m == "value_huber") {
        check_value<T>(c, grpo::huber_value_loss{p("delta"), p("clip_range"), p("factor")});
    } else if (m == "entropy_bonus") check_entropy_bonus<T>(c);
    else if (m == "entropy_estimate") check_entropy_estimate<T>(c);
    // Entropy from logits and the controller of its coefficient are not token losses.
    else CHECK_MESSAGE((m == "entropy_from_logits" || m == "adaptive_entropy"), "unknown method ", m);
}

TEST_CASE("R1.43 value losses, entropy bonus and entropy estimate equal the reference (double)") {
    for (const test_case& c : vectors::load("value_entropy")) check<double>(c);
}

TEST_CASE("R1.43 value losses, entropy bonus and entropy estimate equal the reference (float)") {
    for (const test_case& c : vectors::load("value_entropy")) check<float>(c);
}

// "denominator_over": the mean runs over all outputs, or over the correct ones alone, which the caller then counts.
double correct_rows_or_tokens(const test_case& c, const layout& l) {
    const std::vector<int> correct = c.input<int>("correct");
    double n = 0;
    for (std::size_t s = 0; s < correct.size(); ++s) {
        if (correct[s] == 0) continue;
        const double tokens = static_cast<double>(l.shape().count_active(static_cast<std::int64_t>(s)));
        const bool row_counts = tokens > 0 || (c.has_parameter("count_empty") && c.flag("count_empty"));
        n += c.text("aggregation") == "token_mean" ? tokens : row_counts ? 1.0 : 0.0;
    }
    return n;
}

template <class T>
void check_supervised(const test_case& c) {
    INFO(c.id());
    const layout l(c);
    const policy_inputs<T> in(c, l);
    double denominator = l.denominator();
    if (c.has_parameter("denominator_over") && c.text("denominator_over") == "correct") {
        denominator = correct_rows_or_tokens(c, l);
    }
    const auto run = [&](const auto& term) {
        std::vector<T> g(l.tokens(), T(7));
        const grpo::objective loss{term, l.over()};
        const auto b = in.batch(l);
        outcome got;
        got.value = grpo::evaluate(grpo::serial{}, loss, b, denominator, grpo::d_logp(g)).loss(denominator);
        got.gradient.assign(g.begin(), g.end());
        compare<T>(c, got, "gradient/logp");
    };
    const std::string m = c.method();
    if (m == "sft") run(grpo::nll{});
    else if (m == "dft") run(grpo::dft{});
    else if (m == "rft") run(grpo::rft{});
    else if (m == "online_rft") run(grpo::online_rft{});
    else CHECK_MESSAGE(false, "unknown method ", m);
}

TEST_CASE("supervised losses equal the reference (double)") {
    for (const test_case& c : vectors::load("supervised")) check_supervised<double>(c);
}

TEST_CASE("supervised losses equal the reference (float)") {
    for (const test_case& c : vectors::load("supervised")) check_supervised<float>(c);
}

TEST_CASE("R1.15 an incorrect output's log-probability may be -inf") {
    grpo::token<double> t;
    t.logp = -std::numeric_limits<double>::infinity();
    t.label = 0.0;
    CHECK(grpo::rft{}(t) == 0.0);
    CHECK(grpo::positive_nll{}(t) == 0.0);
}

TEST_CASE("R1.43 the value loss has slope 0 where the clipped error is the greater, and a tie takes the plain one") {
    using S = grpo::dual<double, 1>;
    const auto slope = [](double v, double old, double target, double clip) {
        grpo::token<S> t;
        t.value = S::variable(v, 0);
        t.value_old = old;
        t.returns = target;
        return grpo::value_loss{.clip = clip}(t).d[0];
    };
    CHECK(slope(2.0, 1.0, 3.0, 0.25) == 0.0);    // (v - R)² = 1 < (1.25 - 3)²
    CHECK(slope(2.0, 1.0, 0.0, 0.25) == 2.0);    // (v - R)² = 4 > 1.25²
    CHECK(slope(1.25, 1.0, 3.0, 0.25) == -1.75); // on the bound: a tie
    CHECK(slope(2.0, 1.0, 3.0, grpo::math::unbounded) == -1.0);
}

}  // namespace
