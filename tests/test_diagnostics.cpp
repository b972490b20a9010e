// The metrics of objective::diagnosed() against tests/vectors/diagnostics.json (the fits of that file: test_metric.cpp).
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <grpo/grpo.hpp>

#include <support/loss_cases.hpp>
#include <support/random_batch.hpp>
#include <support/vectors.hpp>

namespace {

using random_batch::numbers;

using mask_t = std::vector<std::uint8_t>;
using offsets_t = std::vector<std::int64_t>;
using vectors::test_case;

const float nan_f = std::numeric_limits<float>::quiet_NaN();
const float inf_f = std::numeric_limits<float>::infinity();

template <class T>
struct policy_case {
    offsets_t cu;
    mask_t mask;
    std::vector<T> logp, old, advantage;

    explicit policy_case(const test_case& c)
        : cu(c.input<std::int64_t>("cu_seqlens")), mask(c.input<std::uint8_t>("mask")), logp(c.input<T>("logp")),
          old(c.input<T>("logp_old")), advantage(c.input<T>(c.has("advantage") ? "advantage" : "advantage_token")) {}

    template <class Term>
    grpo::diagnostics measure(const Term& term) const {
        const auto shape = grpo::ragged(cu).where(mask);
        const auto loss = grpo::objective{term, grpo::aggregation::token_sum()}.diagnosed();
        if (advantage.size() == cu.size() - 1) {
            return grpo::evaluate(grpo::serial{}, loss,
                                  grpo::batch(shape, grpo::logp(logp), grpo::logp_old(old),
                                              grpo::advantage(grpo::by_sequence(advantage))),
                                  1.0)
                .metrics;
        }
        return grpo::evaluate(grpo::serial{}, loss,
                              grpo::batch(shape, grpo::logp(logp), grpo::logp_old(old), grpo::advantage(advantage)), 1.0)
            .metrics;
    }
};

struct named {
    const char* name;
    double got;
};

template <class T, std::size_t N>
std::size_t compare(const test_case& c, const named (&table)[N]) {
    std::size_t seen = 0;
    for (const named& row : table) {
        if (!c.expects(row.name)) continue;
        ++seen;
        INFO(row.name);
        CHECK(vectors::close(row.got, c.expected_number(row.name), c.tolerance<T>()));
    }
    return seen;
}

template <class T>
void check_policy(const test_case& c) {
    const policy_case<T> x(c);
    const double low = c.number("low");
    const double high = c.number("high");
    const grpo::safety_bound bound{c.number("log_ratio_bound")};
    const bool by_token = c.text("level") == "token";
    const grpo::diagnostics m = by_token ? x.measure(grpo::clipped{.low = low, .high = high, .bound = bound})
                                         : x.measure(grpo::gspo{.low = low, .high = high, .bound = bound});
    const auto dual = x.measure(grpo::dual_clip{.low = low, .high = high, .c = c.number("c"), .bound = bound});
    const named counts[] = {{"tokens", m.tokens},
                            {"clip_low", m.clipped_low},
                            {"clip_high", m.clipped_high},
                            {"clip", m.clipped_low + m.clipped_high},
                            {"log_ratio_clamped", m.clamped},
                            {"k1_sum", -m.log_ratio},
                            {"k2_sum", m.half_square},
                            {"k3_sum", m.approx_kl},
                            {"absolute_log_ratio_max", m.largest_abs_log_ratio()}};
    std::size_t seen = compare<T>(c, counts);
    if (by_token) {
        const named more[] = {{"dual_clip", dual.clipped_high - m.clipped_high}};
        seen += compare<T>(c, more);
    }
    // The diagnostics' ratio is the token's own, bounded at ±20 whatever the term's bound.
    if (by_token && m.clamped == 0) {
        const double ess = m.ratio_square > 0 ? m.ratio * m.ratio / m.ratio_square : 0.0;
        const named ratios[] = {{"ratio_sum", m.ratio},
                                {"ratio_square_sum", m.ratio_square},
                                {"ratio_min", std::exp(m.smallest_log_ratio)},
                                {"ratio_max", std::exp(m.largest_log_ratio)},
                                {"ratio_mean", m.tokens > 0 ? m.ratio / m.tokens : 0.0},
                                {"ess", ess},
                                {"ess_fraction", m.tokens > 0 ? ess / m.tokens : 0.0}};
        seen += compare<T>(c, ratios);
        CHECK(seen == c.data().at("expected").size());
    }
}

// A batch with every observable input.
struct observed {
    std::vector<float> logp{-1.0f, -9.0f, -0.5f, -2.0f, -1.5f, -9.0f, -0.25f};
    std::vector<float> old{-1.25f, -9.0f, -0.375f, -1.0f, -1.75f, -9.0f, -1.0f};
    std::vector<float> ref{-1.5f, -9.0f, -0.25f, -2.5f, -1.75f, -9.0f, -0.5f};
    std::vector<float> rollout{-1.0f, -9.0f, -0.5f, -1.25f, -1.5f, -9.0f, -1.125f};
    std::vector<float> entropy{0.5f, -9.0f, 1.0f, 0.25f, 1.0f, -9.0f, 2.0f};
    std::vector<float> advantage{1.0f, -0.5f};
    mask_t mask{1, 0, 1, 1, 1, 0, 1};
    offsets_t cu{0, 3, 7};

    template <class Shape>
    auto over(const Shape& shape) const {
        return grpo::batch(shape, grpo::logp(logp), grpo::logp_old(old), grpo::logp_ref(ref), grpo::logp_rollout(rollout),
                           grpo::entropy(entropy), grpo::advantage(grpo::by_sequence(advantage)));
    }
    auto batch() const { return over(grpo::ragged(cu).where(mask)); }
};

const auto diagnosed = [](grpo::aggregation over) {
    return grpo::objective{grpo::clipped{}, over}.diagnosed();
};

}  // namespace

TEST_CASE("vectors: policy diagnostics") {
    for (const test_case& c : vectors::load("diagnostics")) {
        INFO(c.id());
        if (c.method() == "policy_diagnostics") {
            check_policy<double>(c);
            check_policy<float>(c);
        } else if (c.method() != "explained_variance" && c.method() != "probability_correlation") {
            FAIL("no test for the method " << c.method());
        }
    }
}

TEST_CASE("R1.29 metrics are reduced like the loss: each sum carries the row coefficients of the aggregation") {
    const observed x;
    const auto b = x.batch();
    const double n[] = {2, 3};  // active tokens of the two rows
    grpo::diagnostics row[2];
    for (std::size_t s = 0; s < 2; ++s) {
        mask_t only = x.mask;
        for (std::size_t t = 0; t < 7; ++t) {
            if ((t < 3) != (s == 0)) only[t] = 0;
        }
        const auto one = x.over(grpo::ragged(x.cu).where(only));
        row[s] = grpo::evaluate(grpo::serial{}, diagnosed(grpo::aggregation::token_sum()), one, 1.0).metrics;
    }
    const auto a = numbers(row[0]);
    const auto c = numbers(row[1]);
    const auto check = [&](grpo::aggregation over, double first, double second) {
        const auto got = numbers(grpo::evaluate(grpo::serial{}, diagnosed(over), b, 1.0).metrics);
        for (std::size_t k = 0; k < 16; ++k) {
            CHECK(got[k] == doctest::Approx(first * a[k] + second * c[k]).epsilon(1e-14));
        }
        CHECK(got[19] == 5.0);
    };
    check(grpo::aggregation::token_sum(), 1.0, 1.0);
    check(grpo::aggregation::sequence_mean(), 1.0 / n[0], 1.0 / n[1]);
    check(grpo::aggregation::length_power(0.5), 1.0 / std::sqrt(n[0]), 1.0 / std::sqrt(n[1]));
    // A loss that is a metric: REINFORCE with advantage -1 is logp, so its metric and the loss agree in every reduction.
    const std::vector<float> minus(2, -1.0f);
    const std::vector<float> zero(7, 0.0f);
    for (const auto& over : {grpo::aggregation::token_mean(), grpo::aggregation::sequence_mean()}) {
        const auto r = grpo::evaluate(grpo::serial{}, grpo::objective{grpo::reinforce{}, over}.diagnosed(),
                                      grpo::batch(b.layout, grpo::logp(x.logp), grpo::logp_old(zero),
                                                  grpo::advantage(grpo::by_sequence(minus))),
                                      1.0);
        CHECK(r.metrics.log_ratio == r.sum);
    }
}

TEST_CASE("R1.29 metrics of micro-batches add up to those of the whole batch, bit for bit") {
    const observed x;
    const auto loss = diagnosed(grpo::aggregation::sequence_mean());
    const auto whole = grpo::evaluate(grpo::serial{}, loss, x.batch(), 2.0);
    grpo::loss_result parts;
    for (std::size_t s = 0; s < 2; ++s) {
        const std::size_t begin = static_cast<std::size_t>(x.cu[s]);
        const std::size_t end = static_cast<std::size_t>(x.cu[s + 1]);
        const auto cut = [&](const auto& v) {
            return std::vector(v.begin() + static_cast<std::ptrdiff_t>(begin), v.begin() + static_cast<std::ptrdiff_t>(end));
        };
        const observed part{cut(x.logp), cut(x.old), cut(x.ref), cut(x.rollout), cut(x.entropy),
                            {x.advantage[s]}, cut(x.mask), {0, static_cast<std::int64_t>(end - begin)}};
        grpo::accumulate(parts, grpo::serial{}, loss, part.batch(), 2.0);
    }
    CHECK(numbers(parts.metrics) == numbers(whole.metrics));
    CHECK(parts.sum == whole.sum);
}

TEST_CASE("R1.31 a first step whose code paths disagree shows in max |log ratio|") {
    observed x;
    x.old = x.logp;
    const auto loss = diagnosed(grpo::aggregation::token_mean());
    auto m = grpo::evaluate(grpo::serial{}, loss, x.batch(), 5.0).metrics;
    CHECK(m.largest_abs_log_ratio() == 0.0);
    CHECK(m.ratio == 5.0);
    CHECK(m.approx_kl == 0.0);
    x.old[3] = std::nextafter(x.logp[3], 0.0f);  // one unit in the last place
    m = grpo::evaluate(grpo::serial{}, loss, x.batch(), 5.0).metrics;
    CHECK(m.largest_abs_log_ratio() == static_cast<double>(x.old[3]) - static_cast<double>(x.logp[3]));
    CHECK(m.largest_abs_log_ratio() > 0.0);
    // Off by one: the metrics of a sequence compared with its neighbour's tokens.
    x.old = {-9.0f, -1.0f, -9.0f, -0.5f, -2.0f, -1.5f, -9.0f};
    m = grpo::evaluate(grpo::serial{}, loss, x.batch(), 5.0).metrics;
    CHECK(m.largest_abs_log_ratio() == 8.75);
}

TEST_CASE("R1.25 the logged KL to the reference is there without a KL term, and agrees with one") {
    const observed x;
    const auto m = grpo::evaluate(grpo::serial{}, diagnosed(grpo::aggregation::token_sum()), x.batch(), 1.0).metrics;
    const auto kl = grpo::evaluate(grpo::serial{}, grpo::objective{grpo::kl{}, grpo::aggregation::token_sum()}, x.batch(), 1.0);
    CHECK(m.kl_ref_k3 == doctest::Approx(kl.sum).epsilon(1e-6));
    CHECK(m.kl_ref_k1 == doctest::Approx(0.5 - 0.25 + 0.5 + 0.25 + 0.25).epsilon(1e-14));
    CHECK(m.entropy == 4.75);
}

TEST_CASE("R1.12 masked positions may hold anything") {
    const observed clean;
    const auto loss = diagnosed(grpo::aggregation::sequence_mean());
    const auto expected = numbers(grpo::evaluate(grpo::serial{}, loss, clean.batch(), 2.0).metrics);
    for (const float garbage : {nan_f, inf_f, -inf_f, 1e30f}) {
        observed dirty;
        for (auto* v : {&dirty.logp, &dirty.old, &dirty.ref, &dirty.rollout, &dirty.entropy}) (*v)[1] = (*v)[5] = garbage;
        CHECK(numbers(grpo::evaluate(grpo::serial{}, loss, dirty.batch(), 2.0).metrics) == expected);
    }
}

TEST_CASE("R1.13 masked columns to the left and right change no bit") {
    const observed x;
    const auto loss = diagnosed(grpo::aggregation::sequence_mean());
    observed wide;
    for (auto* v : {&wide.logp, &wide.old, &wide.ref, &wide.rollout, &wide.entropy}) {
        std::vector<float> out(18, nan_f);
        for (std::size_t t = 0; t < 3; ++t) out[t + 3] = (*v)[t];
        for (std::size_t t = 3; t < 7; ++t) out[t + 7] = (*v)[t];
        *v = out;
    }
    wide.mask = {0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0};
    const auto got = grpo::evaluate(grpo::serial{}, loss, wide.over(grpo::padded(2, 9).where(wide.mask)), 2.0);
    CHECK(numbers(got.metrics) == numbers(grpo::evaluate(grpo::serial{}, loss, x.batch(), 2.0).metrics));
}

TEST_CASE("R1.18 nothing active: every metric is 0") {
    observed x;
    x.mask.assign(7, 0);
    const auto m = grpo::evaluate(grpo::serial{}, diagnosed(grpo::aggregation::token_mean()), x.batch(), 0.0).metrics;
    CHECK(numbers(m) == std::vector<double>(20, 0.0));
    CHECK(m.effective_sample_size() == 0.0);
    CHECK(m.largest_abs_log_ratio() == 0.0);
}
