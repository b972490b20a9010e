// One or two numbers per formula, each written out as its paper has it, for a policy, KL, critic or preference term
// evaluated alone on a dual number: no engine, no batch, no vectors. Quick to compile, so that it is also what most
// seeded wrong formulas of mutations.json are shown to. d is logp - logp_old, A the advantage.
#include <cmath>

#include <doctest/doctest.h>

#include <grpo/preference.hpp>
#include <grpo/term.hpp>

namespace {

using S = grpo::dual<double, 2>;

const double e14 = std::exp(0.25);
const double e12 = std::exp(0.5);
const double e54 = std::exp(1.25);

double sigmoid(double x) {
    return 1 / (1 + std::exp(-x));
}

void expect(const char* what, double got, double expected) {
    const double allowed = 1e-12 * (std::abs(expected) > 1 ? std::abs(expected) : 1);
    CHECK_MESSAGE(std::abs(got - expected) <= allowed, what, ": ", got, ", but it should be ", expected);
}

// logp = -1 with derivative 1; logp_old = -1 - d.
grpo::token<S> token(double d, double advantage) {
    grpo::token<S> t;
    t.logp = S::variable(-1, 0);
    t.logp_old = -1 - d;
    t.advantage = advantage;
    return t;
}

// The loss and its derivative in logp.
template <class Term>
void check(const char* what, const Term& term, const grpo::token<S>& t, double value, double slope) {
    const S f = term(t);
    expect(what, f.v, value);
    expect(what, f.d[0], slope);
}

// The same in a sequence of two active tokens whose statistics are `sums`, each with derivative 1 in the second place.
template <class Term>
void check_row(const char* what, const Term& term, grpo::token<S> t, double sum, double value, double slope,
               double slope_of_sum) {
    const S sums[] = {S::variable(sum, 1), S(2 * t.advantage)};
    t.sums = sums;
    t.length = 2;
    const S f = term(t);
    expect(what, f.v, value);
    expect(what, f.d[0], slope);
    expect(what, f.d[1], slope_of_sum);
}

TEST_CASE("clip: the loss is the larger of the plain and the clipped, and a bound that acts stops the gradient") {
    const grpo::clipped clip{.low = 0.25, .high = 0.5};
    check("clip, inside", clip, token(0.25, 2), -2 * e14, -2 * e14);
    check("clip, A > 0 above", clip, token(0.5, 2), -3, 0);
    check("clip, A < 0 above", clip, token(0.5, -2), 2 * e12, 2 * e12);
    check("clip, A < 0 below", clip, token(-0.5, -2), 1.5, 0);
    check("clip, A > 0 below", clip, token(-0.5, 2), -2 / e12, -2 / e12);
    check("clip, |d| beyond 20", clip, token(100, -2), 2 * std::exp(20.0), 0);
    const grpo::dual_clip dual{.low = 0.25, .high = 0.5, .c = 3};
    check("dual clip, A < 0 beyond c", dual, token(1.25, -2), 6, 0);
    check("dual clip, A < 0 below c", dual, token(0.5, -2), 2 * e12, 2 * e12);
    check("dual clip, A > 0 inside", dual, token(0.25, 2), -2 * e14, -2 * e14);
    check("dual clip, A > 0 beyond c", grpo::dual_clip{.low = 0.25, .high = 4, .c = 3}, token(1.25, 2), -2 * e54,
          -2 * e54);
    const grpo::two_sided_clip delta{.low = 0.25, .high = 0.5, .delta = 3};
    check("two-sided clip, A < 0 beyond delta", delta, token(1.25, -2), 6, 0);
    check("two-sided clip, A > 0", delta, token(1.25, 2), -3, 0);
    grpo::token<S> t = token(0.25, 2);
    t.logp_rollout = t.logp_old - 0.5;
    check("decoupled clip", grpo::decoupled_clip{.low = 0.25, .high = 0.5}, t, -2 * e12 * e14, -2 * e12 * e14);
    t.keep = 1;
    check("KL-Cov, kept", grpo::kl_cov{}, t, -2 * e14 + 0.25, -2 * e14 + 1);
}

TEST_CASE("weighted log-probabilities: the weight is a constant") {
    check("REINFORCE", grpo::reinforce{}, token(0.25, 2), 2, -2);
    check("on-policy", grpo::on_policy{}, token(0.25, 2), -2, -2);
    const grpo::cispo cispo{.low = 0.25, .high = 0.5};
    check("CISPO, inside", cispo, token(0.25, 2), 2 * e14, -2 * e14);
    check("CISPO, clipped", cispo, token(0.5, 2), 3, -3);
    check("CISPO with a cap of 5", grpo::cispo_upper{}, token(2, 2), 10, -10);
    check("DRO", grpo::dro{.beta = 0.5}, token(0.25, 2), 2 + 0.25 * 0.0625, -2 + 0.5 * 0.25);
    // p - p_old: e^-1 - e^-1.5 = 0.14, e^-1 - e^-0.5 = -0.24.
    check("DPPO-TV, A > 0 rising within", grpo::dppo_tv{}, token(0.5, 2), 2 * e12, -2 * e12);
    check("DPPO-TV, A > 0 rising beyond", grpo::dppo_tv{.high = 0.125}, token(0.5, 2), 0, 0);
    check("DPPO-TV, A < 0 falling beyond", grpo::dppo_tv{}, token(-0.5, -2), 0, 0);
    check("DPPO-TV, A < 0 at rest", grpo::dppo_tv{}, token(0, -2), -2, 2);
    check("DPPO-TV, A < 0 rising", grpo::dppo_tv{}, token(0.5, -2), -2 * e12, 2 * e12);
    // Bernoulli KL of e^-1.5 against e^-1: 0.22313 · -0.5 + 0.77687 log(0.77687 / 0.63212) = 0.0486.
    check("DPPO-KL, within", grpo::dppo_kl{.high = 0.05}, token(0.5, 2), 2 * e12, -2 * e12);
    check("DPPO-KL, beyond", grpo::dppo_kl{.high = 0.045}, token(0.5, 2), 0, 0);
}

TEST_CASE("SAPO: each sign of the advantage has its temperature") {
    const grpo::sapo sapo{.tau_positive = 1, .tau_negative = 2};
    const double up = sigmoid(e14 - 1);
    const double down = sigmoid(2 * (e14 - 1));
    check("SAPO, A > 0", sapo, token(0.25, 2), -8 * up, -8 * up * (1 - up) * e14);
    check("SAPO, A < 0", sapo, token(0.25, -2), 4 * down, 8 * down * (1 - down) * e14);
}

TEST_CASE("sequence ratios: of the mean log-ratio, and where the gradient goes") {
    // The sum of d over two tokens is 1/2.
    check_row("GSPO", grpo::gspo{.low = 0.25, .high = 0.5}, token(0.25, 2), 0.5, -2 * e14, 0, -e14);
    check_row("GSPO, clipped", grpo::gspo{.low = 0.25, .high = 0.125}, token(0.25, 2), 0.5, -2.25, 0, 0);
    check_row("GSPO-token", grpo::gspo_token{.low = 0.25, .high = 0.5}, token(0.25, 2), 0.5, -2 * e14, -2 * e14, 0);
    check_row("GMPO", grpo::gmpo{}, token(0.25, 2), 0.5, -2 * e14, 0, -e14);
    S g[2];
    grpo::gmpo{}.write_statistics(token(0.5, 2), g);
    expect("GMPO's clip is a width of the log-ratio", g[0].v, 0.4);
    expect("GMPO's clip stops the gradient", g[0].d[0], 0);
    grpo::gmpo{}.write_statistics(token(-0.5, 2), g);
    expect("GMPO clips one side", g[0].v, -0.5);
    const double up = std::exp(2 * 0.5 - 3 * (e12 - 1));
    const double down = std::exp(3 * 0.5 - 2 * (e12 - 1));
    check_row("VESPO, A > 0", grpo::vespo{}, token(0.25, 2), 0.5, 2 * up, -2 * up, 0);
    check_row("VESPO, A < 0", grpo::vespo{}, token(0.25, -2), 0.5, -2 * down, 2 * down, 0);
    expect("the off-policy mask looks at logp_old - logp", grpo::off_policy_mask{1}.statistic(token(0.25, -2)).v,
           -0.25);
    check_row("off-policy mask, beyond", grpo::off_policy_mask{0.125}, token(0.25, -2), 0.5, 0, 0, 0);
    check_row("off-policy mask, within", grpo::off_policy_mask{0.5}, token(0.25, -2), 0.5, 1, 0, 0);
    check_row("off-policy mask, A >= 0", grpo::off_policy_mask{0.125}, token(0.25, 2), 0.5, 1, 0, 0);
}

TEST_CASE("R1.15 a factor of 0 selects: e^800 behind it is not multiplied") {
    grpo::token<S> t = token(800, -2);
    t.weight = 0;
    const grpo::clipped open{.bound = {grpo::math::unbounded}};
    check("weight 0", grpo::rollout_weighted{} * open, t, 0, 0);
    t = token(0.25, 2);
    t.weight = 0.5;
    check("weight 1/2", grpo::rollout_weighted{} * open, t, -2 * 0.5 * 1.2, 0);
}

TEST_CASE("critic, entropy and likelihoods") {
    grpo::token<S> t = token(0.25, 0);
    t.value = S::variable(1, 0);
    t.value_old = 0.5;
    t.returns = 1.5;  // errors: -1/2, and -3/4 clipped
    check("value loss, clipped", grpo::value_loss{.clip = 0.25}, t, 0.5 * 0.5625, 0);
    t.returns = 0.5;  // 1/2, and 1/4 clipped
    check("value loss, plain", grpo::value_loss{.clip = 0.25}, t, 0.125, 0.5);
    t.returns = 4;  // -3
    check("Huber's value loss", grpo::huber_value_loss{.delta = 1, .clip = 9}, t, 2.5, -1);
    t.entropy = S::variable(0.75, 0);
    check("entropy bonus", grpo::entropy_bonus{}, t, -0.75, -1);
    check("SFT", grpo::nll{}, t, 1, -1);
    check("DFT", grpo::dft{}, t, std::exp(-1.0), -std::exp(-1.0));
    check("RFT, wrong", grpo::rft{}, t, 0, 0);
    t.label = 1;
    check("RFT, correct", grpo::rft{}, t, 1, -1);
}

TEST_CASE("KL: value and gradient of r = logp - logp_ref = 1/2") {
    using value = grpo::kl_estimator;
    using slope = grpo::kl_gradient;
    grpo::token<S> t = token(0.25, 0);
    t.logp_ref = -1.5;
    const double k3 = 1 / e12 - 1 + 0.5;
    const double own = 1 - 1 / e12;
    check("k1", grpo::kl_penalty<value::k1>{}, t, 0.5, 1);
    check("k2", grpo::kl_penalty<value::k2>{}, t, 0.125, 0.5);
    check("k3", grpo::kl{}, t, k3, own);
    check("k3 with k2's gradient", grpo::kl_penalty<value::k3, slope::k2>{}, t, k3, 0.5);
    check("k1 with the score term", grpo::kl_penalty<value::k1, slope::score>{}, t, 0.5, 1.5);
    check("k3, importance-weighted", grpo::kl_penalty<value::k3, slope::importance>{}, t, k3 * e14, (own + k3) * e14);
    t.logp_ref = -0.5;
    check("|r|", grpo::kl_penalty<value::abs>{}, t, 0.5, -1);
    t.logp_ref = 99;
    check("k3, r below -20", grpo::kl{}, t, std::exp(20.0) - 21, 0);
}

// ---- preferences: log π(y_w) = -2, log π(y_l) = -3, log-ratios c = 1 and r = -1/2 ----

grpo::pair<S> pair() {
    grpo::pair<S> p;
    p.chosen = S::variable(-2, 0);
    p.rejected = S::variable(-3, 1);
    p.ref_chosen = -3;
    p.ref_rejected = -2.5;
    p.chosen_length = 4;
    p.rejected_length = 2;
    return p;
}

template <class Term>
void check_pair(const char* what, const Term& term, double value, double chosen, double rejected) {
    const S f = term(pair());
    expect(what, f.v, value);
    expect(what, f.d[0], chosen);
    expect(what, f.d[1], rejected);
}

TEST_CASE("preference pairs") {
    const double s = sigmoid(0.75);  // beta Δ = 0.5 · 1.5
    check_pair("DPO", grpo::dpo{0.5}, -std::log(s), -0.5 * (1 - s), 0.5 * (1 - s));
    check_pair("cDPO", grpo::cdpo{0.5, 0.25}, -0.75 * std::log(s) - 0.25 * std::log(1 - s), -0.5 * (0.75 - s),
               0.5 * (0.75 - s));
    check_pair("IPO", grpo::ipo{0.5}, 0.25, 1, -1);
    check_pair("hinge", grpo::hinge{0.5}, 0.25, -0.5, 0.5);
    check_pair("BCO on pairs", grpo::bco_pair{0.5}, -std::log(sigmoid(0.5)) - std::log(sigmoid(0.25)),
               -0.5 * sigmoid(-0.5), 0.5 * sigmoid(-0.25));
    check_pair("APO-zero", grpo::apo_zero{0.5}, 1 - sigmoid(0.5) + sigmoid(-0.25), -0.5 * sigmoid(0.5) * sigmoid(-0.5),
               0.5 * sigmoid(-0.25) * sigmoid(0.25));
    const double m = sigmoid(2 * (-0.5 + 1.5) - 0.5);  // per token: -2/4 and -3/2
    check_pair("SimPO", grpo::simpo{.beta = 2, .gamma = 0.5}, -std::log(m), -2 * (1 - m) / 4, 2 * (1 - m) / 2);
    const double p = std::exp(-2.0), q = std::exp(-3.0);  // odds p / (1 - p); d log odds / d log p = 1 / (1 - p)
    const double o = sigmoid(std::log(p / (1 - p)) - std::log(q / (1 - q)));
    check_pair("ORPO's odds ratio", grpo::odds_ratio{}, -std::log(o), -(1 - o) / (1 - p), (1 - o) / (1 - q));
}

TEST_CASE("single samples with a label") {
    grpo::token<S> t = token(0, 0);
    t.logp_ref = -1.5;
    const double s = sigmoid(0.5 * (0.5 - 0.25));
    const grpo::kto kto{.beta = 0.5, .desirable_weight = 2, .undesirable_weight = 4, .kl = 0.25};
    const grpo::bco bco{.beta = 0.5, .delta = 0.125};
    t.label = 1;
    check("KTO, desirable", kto, t, 2 * (1 - s), -2 * 0.5 * s * (1 - s));
    check("BCO, desirable", bco, t, -std::log(s), -0.5 * (1 - s));
    t.label = 0;
    check("KTO, undesirable", kto, t, 4 * s, 4 * 0.5 * s * (1 - s));
    check("BCO, undesirable", bco, t, -std::log(1 - s), 0.5 * s);
    t.advantage = 0.625;
    check("Nash-MD", grpo::nash_md{0.5}, t, (0.5 * 0.5 - 0.125) * -1, 0.125);
}

}  // namespace
