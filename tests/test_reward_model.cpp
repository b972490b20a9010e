// Losses that train reward models, against the reference vectors: pairs of scores (RM) and steps (PRM).
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>
#include <grpo/preference.hpp>

#include <support/sentence.hpp>

#include "support/vectors.hpp"

namespace {

using vectors::test_case;

template <class T, class Term>
void check_pairs(const test_case& c, const Term& term) {
    const auto w = c.input<T>("chosen");
    const auto l = c.input<T>("rejected");
    const auto m = c.has("margin") ? c.input<T>("margin") : std::vector<T>();
    const std::int64_t n = static_cast<std::int64_t>(w.size());
    std::vector<T> dw(w.size());
    std::vector<T> dl(w.size());
    const auto got = grpo::evaluate(
        grpo::serial{}, grpo::objective{term, grpo::aggregation::token_mean()},
        grpo::batch(grpo::padded(1, n), grpo::chosen(w), grpo::rejected(l), grpo::margin(m)), static_cast<double>(n),
        grpo::d_chosen(dw), grpo::d_rejected(dl));
    CHECK(vectors::close(got.loss(), c.value(), c.tolerance<T>()));
    CHECK(vectors::difference(dw, c.expected<double>("gradient/chosen"), c.tolerance<T>()) == "");
    CHECK(vectors::difference(dl, c.expected<double>("gradient/rejected"), c.tolerance<T>()) == "");
}

template <class T>
void check_steps(const test_case& c) {
    const auto logits = c.input<T>("logits");
    const auto label = c.input<std::int64_t>("label");
    const auto cu = c.input<std::int64_t>("cu_seqlens");
    std::vector<std::uint8_t> mask(label.size(), 7);
    const grpo::step_labels which{.ignore = static_cast<std::int64_t>(c.number("ignore_label")),
                                  .last_only = c.flag("last_step_only")};
    const auto steps = static_cast<double>(grpo::mark_steps(grpo::ragged(cu), label, which, mask));
    const auto shape = grpo::ragged(cu).where(mask);
    std::vector<T> d(logits.size(), T(9));
    grpo::loss_result got;
    if (c.method() == "prm") {
        got = grpo::step_loss(shape, logits, label, steps, d);
    } else {
        const grpo::objective loss{grpo::step_cross_entropy{}, grpo::aggregation::token_mean()};
        got = grpo::evaluate(grpo::serial{}, loss, grpo::batch(shape, grpo::logit(logits), grpo::label(label)), steps,
                             grpo::d_logit(d));
    }
    CHECK(got.count.tokens == static_cast<std::int64_t>(steps));
    CHECK(vectors::close(got.loss(steps), c.value(), c.tolerance<T>()));
    CHECK(vectors::difference(d, c.expected<double>("gradient/logits"), c.tolerance<T>()) == "");
}

template <class T>
void run_all() {
    for (const test_case& c : vectors::load("reward_model")) {
        INFO(c.id());
        if (c.method() == "pairwise") {
            const double coef = c.number("centre_coef");
            if (c.has("margin")) {
                check_pairs<T>(c, grpo::bradley_terry_margin{} + coef * grpo::centring{});
            } else {
                check_pairs<T>(c, grpo::bradley_terry{} + coef * grpo::centring{});
            }
        } else if (c.method() == "log_exp") {
            check_pairs<T>(c, grpo::bradley_terry{});
        } else if (c.method() == "prm" || c.method() == "prm_single") {
            check_steps<T>(c);
        } else {
            FAIL_CHECK("no test for method " << c.method());
        }
    }
}

}  // namespace

TEST_CASE("RM and PRM value and gradient in double") { run_all<double>(); }
TEST_CASE("RM and PRM value and gradient in float") { run_all<float>(); }

TEST_CASE("scores 1e3 apart give finite losses with the right limit") {
    const std::vector<float> w{1000.0f, -1000.0f};
    const std::vector<float> l{-1000.0f, 1000.0f};
    std::vector<float> d(2);
    const auto got = grpo::evaluate(grpo::serial{}, grpo::objective{grpo::bradley_terry{}, grpo::aggregation::token_sum()},
                                    grpo::batch(grpo::padded(1, 2), grpo::chosen(w), grpo::rejected(l)), 1.0,
                                    grpo::d_chosen(d));
    CHECK(got.sum == doctest::Approx(2000));
    CHECK(d == std::vector<float>{0, -1});
}

TEST_CASE("step loss: unlabelled positions may hold anything (R1.12), and NaN at a step is counted (R1.16)") {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> logits{nan, nan, 1, 2, nan, 0, 1000, -1000};
    const std::vector<int> label{-100, 1, 0, 1};
    const std::vector<int> cu{0, 4};
    std::vector<std::uint8_t> mask(4);
    CHECK(grpo::mark_steps(grpo::ragged(cu), label, {}, mask) == 3);
    mask[2] = 0;
    std::vector<float> d(8, nan);
    const auto shape = grpo::ragged(cu).where(mask);
    const auto got = grpo::step_loss(shape, logits, label, 2.0, d);
    CHECK(got.loss(2.0) == doctest::Approx((std::log1p(std::exp(-1.0)) + 2000) / 2));
    CHECK(d[0] == 0);
    CHECK(d[1] == 0);
    CHECK(d[5] == 0);
    CHECK(d[6] == 0.5f);
    CHECK(d[7] == -0.5f);
    mask[2] = 1;
    const auto bad = grpo::step_loss(shape, logits, label, 3.0, d);
    CHECK(bad.nonfinite == 1);
    CHECK(bad.first_nonfinite == 2);
    // The value alone, without a gradient.
    CHECK(grpo::step_loss(shape, logits, label, 3.0, grpo::view<float>()).count.tokens == 3);
}

TEST_CASE("reward-model losses refuse sizes that do not fit") {
    const std::vector<int> cu{0, 2};
    const std::vector<int> label{1, 0};
    const std::vector<float> logits(3);
    std::vector<float> d(4, 5.0f);
    CHECK(errors::sentence([&] { (void)grpo::step_loss(grpo::ragged(cu), logits, label, 2.0, d); }).find("logits has 3 entries") !=
          std::string::npos);
    CHECK(d[0] == 5.0f);
    std::vector<std::uint8_t> mask(1);
    CHECK(errors::sentence([&] { (void)grpo::mark_steps(grpo::ragged(cu), label, {}, mask); }).find("mask has 1 entries") !=
          std::string::npos);
}
