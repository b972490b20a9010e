// A few hand-worked numbers for every room that is not a term: aggregation, engine, logits, advantages, corrections,
// selection, metrics, shaping, controllers. Short batches of powers of two, so that most results are exact. Quick to
// compile, so that it is also what seeded wrong formulas of mutations.json are shown to.
#include <cmath>
#include <cstdint>
#include <limits>

#include <doctest/doctest.h>

#include <grpo/advantage.hpp>
#include <grpo/controller.hpp>
#include <grpo/correction.hpp>
#include <grpo/head.hpp>
#include <grpo/metric.hpp>
#include <grpo/objective.hpp>
#include <grpo/selection.hpp>
#include <grpo/shaping.hpp>

namespace {

using grpo::aggregation;

void expect(const char* what, double got, double expected) {
    const double allowed = 1e-12 * (std::abs(expected) > 1 ? std::abs(expected) : 1);
    CHECK_MESSAGE(std::abs(got - expected) <= allowed, what, ": ", got, ", but it should be ", expected);
}

template <int N>
void expect(const char* what, const double (&got)[N], const double (&expected)[N]) {
    for (int i = 0; i < N; ++i) expect(what, got[i], expected[i]);
}

template <class T, int N>
grpo::view<T> all(T (&x)[N]) {
    return {x, N};
}

TEST_CASE("aggregation: coefficient and weight of a row, and the denominator") {
    const grpo::totals t{.sequences = 4, .nonempty = 3, .tokens = 7};
    expect("token mean", aggregation::token_mean().denominator(t), 7);
    expect("mean of means", aggregation::sequence_mean().denominator(t), 3);
    expect("mean of means, empty rows counted", aggregation::sequence_mean(true).denominator(t), 4);
    expect("constant length", aggregation::constant_length(10).denominator(t), 40);
    expect("a sum over 6.5", aggregation::sum_over(6.5).denominator(t), 6.5);
    expect("eps", aggregation::token_mean().plus_eps(0.5).denominator(t), 7.5);
    expect("token mean's coefficient", aggregation::token_mean().coefficient(0, 4), 1);
    expect("mean of means' coefficient", aggregation::sequence_mean().coefficient(0, 4), 0.25);
    expect("n^(alpha - 1)", aggregation::length_power(0.5).coefficient(0, 4), 0.5);
    expect("an empty row's weight", aggregation::sequence_mean().weight(0, 0), 0);
    expect("an empty row's weight, counted", aggregation::sequence_mean(true).weight(0, 0), 1);
    expect("constant length's weight", aggregation::constant_length(10).weight(0, 4), 10);
    expect("token mean's weight", aggregation::token_mean().weight(0, 4), 4);
}

// Rows of 2, 0 and 3 positions, one of them masked; log-ratios 1/4, -3/4 | | 1/2, masked, 1.
struct rollouts {
    std::int64_t cu[4] = {0, 2, 2, 5};
    std::uint8_t mask[5] = {1, 1, 1, 0, 1};
    double logp[5] = {-1, -2, -1.5, std::numeric_limits<double>::quiet_NaN(), -1};
    double old[5] = {-1.25, -1.25, -2, -1, -2};
    double advantage[3] = {2, 9, -1};
    double gradient[5] = {7, 7, 7, 7, 7};

    template <class Loss>
    grpo::loss_result run(const Loss& loss, double denominator) {
        const auto shape = grpo::ragged(all(cu)).where(all(mask));
        const grpo::batch b(shape, grpo::logp(all(logp)), grpo::logp_old(all(old)),
                            grpo::advantage(grpo::by_sequence(all(advantage))));
        return grpo::evaluate(grpo::serial{}, loss, b, denominator, grpo::d_logp(all(gradient)));
    }
};

TEST_CASE("engine: GSPO's loss, exact gradient and metrics in the mean of means") {
    rollouts x;
    const grpo::objective loss{grpo::gspo{.low = 0.5, .high = 2}, aggregation::sequence_mean()};
    const grpo::loss_result r = x.run(loss.diagnosed(), 4);
    const double first = 2 * std::exp(-0.25);
    const double second = -std::exp(0.75);
    expect("sum", r.sum, -first - second);
    expect("loss", r.loss(4), (-first - second) / 4);
    expect("own weight", r.weight, 2);
    expect("gradient", x.gradient, {-first / 8, -first / 8, -second / 8, 0, -second / 8});
    CHECK_FALSE(std::signbit(x.gradient[3]));
    expect("the mean log-ratios", r.metrics.log_ratio, -0.25 + 0.75);
    expect("the largest log-ratio", r.metrics.largest_log_ratio, 1);
    CHECK(r.nonfinite == 0);
    CHECK(r.count.nonempty == 2);
}

TEST_CASE("engine: a non-finite active token is counted, the first is named, and skipping it selects") {
    rollouts x;
    x.logp[2] = x.logp[4] = std::numeric_limits<double>::quiet_NaN();
    const grpo::objective loss{grpo::clipped{.low = 0.5, .high = 2}, aggregation::token_mean(), grpo::nonfinite::skip};
    const grpo::loss_result r = x.run(loss, 1);
    CHECK(r.nonfinite == 2);
    CHECK(r.first_nonfinite == 2);
    expect("sum", r.sum, -2 * std::exp(0.25) - 2 * std::exp(-0.75));
    expect("gradient", x.gradient, {-2 * std::exp(0.25), -2 * std::exp(-0.75), 0, 0, 0});
}

TEST_CASE("logits of 1/4 and 3/4 at temperature 2, and the way back") {
    const double logits[] = {0, 2 * std::log(3.0)}, other[] = {0, 0}, one[] = {1}, zero[] = {0};
    const std::int64_t target[] = {1};
    double logp[1], entropy[1], kl[1], slope[2];
    const auto in = grpo::logits(all(logits), 1, 2);
    const double low = std::log(0.25), high = std::log(0.75), h = -0.25 * low - 0.75 * high;
    grpo::token_logp(grpo::serial{}, in, all(target), {.temperature = 2}, all(logp), all(entropy));
    expect("log-probability", logp, {high});
    expect("entropy", entropy, {h});
    grpo::d_logits(grpo::serial{}, in, all(target), {.temperature = 2}, all(one), all(zero), all(slope));
    expect("onehot - p", slope, {-0.125, 0.125});
    grpo::d_logits(grpo::serial{}, in, all(target), {.temperature = 2}, all(zero), all(one), all(slope));
    expect("-p (log p + H)", slope, {-0.125 * (low + h), -0.375 * (high + h)});
    grpo::full_kl(grpo::serial{}, in, grpo::logits(all(other), 1, 2), {.temperature = 2}, all(kl));
    expect("KL to the uniform distribution", kl, {std::log(2.0) - h});
}

TEST_CASE("group advantages: ddof, eps and its place, the others' mean, a lone sample") {
    const double reward[] = {1, 3, 8};
    const std::int64_t groups[] = {0, 2, 3};
    double a[3];
    const auto normalised = [&](const grpo::group_options& o) {
        grpo::group_normalised(grpo::ragged(all(groups)), all(reward), all(a), o);
    };
    normalised({.ddof = 1, .eps = 0.25});
    expect("sample deviation + eps", a, {-1 / (std::sqrt(2.0) + 0.25), 1 / (std::sqrt(2.0) + 0.25), 0});
    normalised({.ddof = 0, .eps = 0.25});
    expect("population deviation + eps", a, {-0.8, 0.8, 0});
    normalised({.ddof = 1, .eps = 0.25, .placement = grpo::eps_placement::inside});
    expect("eps under the root", a, {-1 / 1.5, 1 / 1.5, 0});
    normalised({.eps = 0, .singleton = grpo::singleton_rule::raw_reward});
    expect("a lone sample keeps its reward", a, {-1 / std::sqrt(2.0), 1 / std::sqrt(2.0), 8});
    grpo::rloo(grpo::ragged(all(groups)), all(reward), all(a));
    expect("RLOO", a, {-2, 2, 0});
    const double four[] = {0, 0, 0, 4};
    double b[4];
    grpo::rloo(grpo::padded(1, 4), all(four), all(b));
    expect("RLOO of four", b, {-4.0 / 3, -4.0 / 3, -4.0 / 3, 4});
    grpo::dr_grpo(grpo::padded(1, 4), all(four), all(b));
    expect("Dr.GRPO", b, {-1, -1, -1, 3});
    const std::int64_t tokens[] = {0, 1, 4, 6};
    grpo::opo(grpo::ragged(all(groups)), grpo::ragged(all(tokens)), all(reward), all(a));
    expect("OPO's mean by length, (1 + 3 · 3) / 4", a, {-1.5, 0.5, 8});
}

TEST_CASE("process supervision: a token gets the steps that end at it or later") {
    const std::int64_t offsets[] = {0, 2, 3};
    const std::int64_t end[] = {0, 2, 1};
    const double reward[] = {1, 3, 2};  // normalised: -1, 1, 0
    const std::int64_t tokens[] = {0, 3, 5};
    double normalised[3], a[5];
    const grpo::reasoning_steps<double> steps{all(offsets), all(end), all(reward)};
    grpo::process_supervision(grpo::padded(1, 2), grpo::ragged(all(tokens)), steps, all(normalised), all(a),
                              {.eps = 0});
    expect("normalised", normalised, {-1, 1, 0});
    expect("advantages", a, {0, 1, 1, 0, 0});
}

TEST_CASE("GAE of three steps, gamma 1/2 and lambda 1/4; terminated and truncated cut it in their own ways") {
    const double reward[] = {1, 2, 3}, value[] = {0.5, 0.25, 1}, bootstrap[] = {0, 4, 0};
    const std::uint8_t second[] = {0, 1, 0};
    double a[3], r[3];
    grpo::gae_inputs<double> in{.reward = all(reward), .value = all(value)};
    const auto run = [&] { grpo::gae(grpo::padded(1, 3), in, {.gamma = 0.5, .lambda = 0.25}, all(a), all(r)); };
    run();
    expect("advantages", a, {0.9375, 2.5, 2});
    expect("returns", r, {1.4375, 2.75, 3});
    in.terminated = all(second);
    run();
    expect("terminated", a, {0.84375, 1.75, 2});
    in.terminated = {};
    in.truncated = all(second);
    in.bootstrap = all(bootstrap);
    run();
    expect("truncated", a, {1.09375, 3.75, 2});
}

TEST_CASE("whitening of 1, 3, 5: variance 4 by the sample, 8/3 by the population") {
    const double x[] = {1, 3, 5};
    double out[3];
    grpo::whiten(grpo::padded(1, 3), all(x), all(out), {.ddof = 1, .eps = 5});
    expect("sample", out, {-2.0 / 3, 0, 2.0 / 3});
    grpo::whiten(grpo::padded(1, 3), all(x), all(out), {.ddof = 0, .eps = 0, .center = false});
    expect("population, mean added back", out, {3 - std::sqrt(1.5), 3, 3 + std::sqrt(1.5)});
}

// Two sequences of two tokens with weights 4, 1 and 1/4, 1/2.
struct mismatch {
    double old[4] = {0, 0, 0, 0};
    double rollout[4] = {-std::log(4.0), 0, std::log(4.0), std::log(2.0)};
    double w[4];
    std::uint8_t keep[4];

    auto batch() { return grpo::batch(grpo::padded(2, 2), grpo::logp_old(all(old)), grpo::logp_rollout(all(rollout))); }
    auto weigh(const grpo::correction& rule) { return grpo::correction_weights(batch(), rule, all(w)); }
    bool kept(const grpo::rejection& rule, int a, int b, int c, int d) {
        grpo::reject(batch(), rule, all(keep));
        return keep[0] == a && keep[1] == b && keep[2] == c && keep[3] == d;
    }
};

TEST_CASE("rollout weights: truncated, dropped, per token, product and geometric mean") {
    mismatch x;
    const auto r = x.weigh(grpo::correction::tis(2));
    expect("capped", x.w, {2, 1, 0.25, 0.5});
    expect("effective sample size", r.effective_sample_size(), 3.75 * 3.75 / 5.3125);
    expect("outside the band", r.outside_fraction(), 0.25);
    x.weigh(grpo::correction::band(0.5, 2));
    expect("clipped", x.w, {2, 1, 0.5, 0.5});
    x.weigh(grpo::correction::icepop(0.375, 2));
    expect("IcePop", x.w, {0, 1, 0, 0.5});
    x.weigh(grpo::correction::tis(100, grpo::correction_level::sequence));
    expect("product", x.w, {4, 4, 0.125, 0.125});
    x.weigh(grpo::correction::tis(100, grpo::correction_level::geometric));
    expect("geometric mean", x.w, {2, 2, std::sqrt(0.125), std::sqrt(0.125)});
}

TEST_CASE("rejection: the sign of k1, and the veto of one token over its sequence") {
    mismatch x;
    // -log w = -1.39, 0, 1.39, 0.69 within log 1/2 and log 5.
    CHECK(x.kept(grpo::rejection::k1(grpo::rejection_level::token, 0.5, 5), 0, 1, 1, 1));
    CHECK(x.kept(grpo::rejection::log_weight(grpo::rejection_level::token, -1, 2), 1, 1, 0, 1));
    CHECK(x.kept(grpo::rejection::k3(grpo::rejection_level::token, 1), 0, 1, 1, 1));  // 1.61, 0, 0.64, 0.19
    CHECK(x.kept(grpo::rejection::veto(0.3), 1, 1, 0, 0));
    CHECK(x.kept(grpo::rejection::veto(0.2), 1, 1, 1, 1));
}

TEST_CASE("selection: the upper half by entropy keeps what lies on the threshold; groups without a signal go") {
    const double entropy[] = {1, 2, 3, 4, 5};
    double keep[5];
    grpo::select_top_entropy(grpo::batch(grpo::padded(1, 5), grpo::entropy(all(entropy))), 0.5, all(keep));
    expect("kept", keep, {0, 0, 1, 1, 1});
    const double reward[] = {1, 1, 0, 1};
    double stays[2];
    grpo::select_groups(grpo::padded(2, 2), all(reward), grpo::group_filter::nonzero_std(), all(stays));
    expect("groups", stays, {0, 1});
}

TEST_CASE("pass@k and maj@k") {
    expect("pass@2 of 2 in 5", grpo::pass_at_k(5, 2, 2), 0.7);
    expect("pass@1 is the mean", grpo::pass_at_k(8, 3, 1), 0.375);
    expect("pass@n", grpo::pass_at_k(5, 1, 5), 1);
    const int answer[] = {4, 6, 4};
    const int correct[] = {0, 1, 0};
    grpo::majority_cell work[9];
    double out[1];
    // Of the pairs {4, 6}, {4, 4}, {6, 4} two are ties.
    grpo::maj_at_k(grpo::padded(1, 3), all(answer), all(correct), 2, grpo::majority_tie::split, all(work), all(out));
    expect("maj@2, ties split", out[0], 1.0 / 3);
    grpo::maj_at_k(grpo::padded(1, 3), all(answer), all(correct), 2, grpo::majority_tie::first, all(work), all(out));
    expect("maj@2, the first wins a tie", out[0], 1.0 / 3);
}

TEST_CASE("shaping and controllers") {
    const grpo::overlong soft{.max_length = 100, .buffer = 20};
    expect("up to the buffer", soft(80), 0);
    expect("half way", soft(90), -0.5);
    expect("capped", soft(110), -1);
    expect("not capped", grpo::overlong{.max_length = 100, .buffer = 20, .cap = false}(110), -1.5);
    grpo::adaptive_kl beta{.beta = 1, .target = 0.5, .horizon = 8};
    beta.update(0.55, 4);
    expect("the KL coefficient rises with the KL", beta.coefficient(), 1 + 0.1 * 4 / 8);
    beta.update(5, 4);
    expect("the error is cut at 0.2", beta.coefficient(), 1.05 * 1.1);
    grpo::adaptive_entropy bonus{.coef = 0.5, .target = 1, .step = 0.125};
    bonus.update(2);
    expect("entropy above the target", bonus.coefficient(), 0);
    bonus.update(0.5);
    expect("entropy below the target", bonus.coefficient(), 0.5);
}

}  // namespace
