// Every term's gradient against central differences of the whole loss, in double, away from kinks. Where a paper stops the
// gradient, the derivative is instead compared with what the frozen expression implies.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/vectors.hpp>

namespace {

using grpo::kl_estimator;
using grpo::kl_gradient;
using grpo::kl_penalty;

// Three sequences (5, 1 and 6 tokens) with a hole; ratios on every side of the usual clips, none within 1e-3 of a bound.
struct world {
    std::vector<std::int64_t> cu{0, 5, 6, 12};
    std::vector<std::uint8_t> mask{1, 1, 0, 1, 1, 1, 1, 1, 1, 0, 1, 1};
    std::vector<double> logp, old, ref, rollout, advantage, weight, keep, label, entropy, value, value_old, target;

    world() {
        const std::vector<double> step{-0.9, 0.07, 0.4, -0.13, 1.3, -0.31, 0.19, 0.83, -0.47, 0.5, -1.7, 0.11};
        const std::vector<double> gap{0.3, -0.6, 0.9, 0.013, -1.4, 0.7, -0.22, 1.1, -0.05, 0.4, 0.61, -0.8};
        for (std::size_t t = 0; t < step.size(); ++t) {
            const double x = static_cast<double>(t);
            logp.push_back(-0.35 - 0.17 * std::fmod(5 * x, 12));
            old.push_back(logp[t] - step[t]);
            ref.push_back(logp[t] - gap[t]);
            rollout.push_back(old[t] + 0.4 * gap[11 - t]);
            advantage.push_back(1.1 * std::sin(1 + 2.3 * x));
            weight.push_back(0.4 + 0.13 * x);
            keep.push_back(t % 3 == 0 ? 0.0 : 1.0);
            label.push_back(t % 2 == 0 ? 1.0 : 0.0);
            entropy.push_back(0.2 + 0.1 * x);
            value.push_back(std::cos(1.7 * x));
            value_old.push_back(value[t] + 0.5 * gap[t]);
            target.push_back(2 * std::sin(0.9 * x));
        }
    }

    template <class Term, class... Outputs>
    double loss(const Term& term, grpo::aggregation over, const Outputs&... outputs) const {
        const auto shape = grpo::ragged(cu).where(mask);
        const double n = over.denominator(grpo::count(shape));
        const grpo::batch b(shape, grpo::logp(logp), grpo::logp_old(old), grpo::logp_ref(ref),
                            grpo::logp_rollout(rollout), grpo::advantage(advantage), grpo::weight(weight),
                            grpo::keep(keep), grpo::label(label), grpo::entropy(entropy), grpo::values(value),
                            grpo::values_old(value_old), grpo::returns(target));
        return grpo::evaluate(grpo::serial{}, grpo::objective{term, over}, b, n, outputs...).loss(n);
    }

    std::vector<double> zeros() const { return std::vector<double>(mask.size(), 0.0); }

    template <class Term>
    std::vector<double> gradient(const Term& term, grpo::aggregation over) const {
        std::vector<double> g = zeros();
        (void)loss(term, over, grpo::d_logp(g));
        return g;
    }

    // Central differences with respect to the array that `input` points to.
    template <class Term>
    std::vector<double> differences(const Term& term, grpo::aggregation over, std::vector<double> world::* input) const {
        std::vector<double> g = zeros();
        const double h = 1e-6;
        for (std::size_t t = 0; t < g.size(); ++t) {
            world up = *this, down = *this;
            (up.*input)[t] += h;
            (down.*input)[t] -= h;
            g[t] = (up.loss(term, over) - down.loss(term, over)) / (2 * h);
        }
        return g;
    }
};

const grpo::aggregation means[] = {grpo::aggregation::sequence_mean(), grpo::aggregation::token_sum()};

template <class Term>
void check(const std::string& name, const Term& term) {
    const world w;
    CAPTURE(name);
    for (const grpo::aggregation& over : means) {
        CHECK(vectors::difference(w.gradient(term, over), w.differences(term, over, &world::logp), 1e-8) == "");
    }
    double size = 0;
    for (const double x : w.gradient(term, means[0])) size += std::abs(x);
    CHECK(size > 0.01);
}

TEST_CASE("policy terms without a stop-gradient equal finite differences") {
    check("clipped", grpo::clipped{});
    check("clipped, no bound", grpo::clipped{0.2, 0.28, {grpo::math::unbounded}});
    check("clipped, bounded", grpo::clipped{.low = 0.9, .high = 5.0, .bound = {0.75}});
    check("dual_clip", grpo::dual_clip{.c = 1.5});
    check("two_sided_clip", grpo::two_sided_clip{.delta = 1.5});
    check("decoupled_clip", grpo::decoupled_clip{});
    check("kl_cov", grpo::kl_cov{.coef = 0.7});
    check("sapo", grpo::sapo{});
    check("dro", grpo::dro{.beta = 0.3});
    check("reinforce", grpo::reinforce{});
    check("gpg", grpo::gpg{});
}

TEST_CASE("R1.35 sequence terms equal finite differences: the gradient goes through the mean, over active tokens alone") {
    check("gspo", grpo::gspo{.low = 0.2, .high = 0.2});
    check("gspo, wide", grpo::gspo{.low = 0.9, .high = 9.0});
    check("luspo", grpo::luspo{.low = 0.5, .high = 0.5});
    check("gmpo", grpo::gmpo{});
    check("gmpo, narrow", grpo::gmpo{.low = 0.1, .high = 0.15});
}

TEST_CASE("KL terms without a stop-gradient equal finite differences") {
    check("k1", kl_penalty<kl_estimator::k1, kl_gradient::own>{});
    check("k2", kl_penalty<kl_estimator::k2, kl_gradient::own>{});
    check("k3", grpo::kl{});
    check("abs", kl_penalty<kl_estimator::abs, kl_gradient::own>{});
    check("k1 importance", kl_penalty<kl_estimator::k1, kl_gradient::importance>{});
    check("k2 importance", kl_penalty<kl_estimator::k2, kl_gradient::importance>{});
    check("k3 importance", kl_penalty<kl_estimator::k3, kl_gradient::importance>{});
    check("k3 sequence", kl_penalty<kl_estimator::k3, kl_gradient::sequence_importance>{});
    check("k1 sequence", kl_penalty<kl_estimator::k1, kl_gradient::sequence_importance>{});
    check("abs sequence", kl_penalty<kl_estimator::abs, kl_gradient::sequence_importance>{});
    check("k3 clamped", grpo::kl{.bound = {0.65}, .output = {0.1}});
}

TEST_CASE("supervised terms equal finite differences") {
    check("nll", grpo::nll{});
    check("rft", grpo::rft{});
    check("positive_nll", grpo::positive_nll{.coef = 0.3});
    check("entropy_estimate", grpo::entropy_estimate{});
}

TEST_CASE("compositions equal finite differences, statistics of several terms included") {
    using sequence_kl = kl_penalty<kl_estimator::k3, kl_gradient::sequence_importance>;
    check("sum", grpo::clipped{} + 0.04 * grpo::kl{});
    check("two statistics", grpo::gspo{.low = 0.3, .high = 0.3} + 0.1 * sequence_kl{});
    check("three statistics", grpo::gmpo{} + 0.1 * sequence_kl{} + -grpo::nll{});
    check("a sequence ratio times a KL", grpo::gspo{.low = 0.9, .high = 9.0} * grpo::kl{});
    check("weighted", grpo::rollout_weighted{} * grpo::clipped{} + 0.1 * grpo::kl{});
    check("selected", grpo::selected{} * grpo::clipped{});
    check("masked", grpo::off_policy_mask{.delta = 0.2} * grpo::clipped{});
    check("masked sequences", grpo::off_policy_mask_by<grpo::input::logp_rollout>{.delta = 0.2} *
                                  grpo::gspo{.low = 0.3, .high = 0.3});
    check("three factors",
          grpo::off_policy_mask{.delta = 0.2} * grpo::selected{} * grpo::rollout_weighted{} * grpo::gmpo{});
}

TEST_CASE("R1.43 value and entropy terms equal finite differences") {
    const world w;
    for (const grpo::aggregation& over : means) {
        std::vector<double> g = w.zeros();
        const auto values = [&](const auto& term) {
            (void)w.loss(term, over, grpo::d_values(g));
            CHECK(vectors::difference(g, w.differences(term, over, &world::value), 1e-8) == "");
        };
        values(grpo::value_loss{});
        values(grpo::value_loss{.clip = 0.1, .factor = 1.0});
        values(grpo::value_loss{.clip = grpo::math::unbounded});
        values(grpo::huber_value_loss{.delta = 0.9});
        values(grpo::huber_value_loss{.delta = 0.5, .clip = 0.1});
        (void)w.loss(0.01 * grpo::entropy_bonus{}, over, grpo::d_entropy(g));
        CHECK(vectors::difference(g, w.differences(0.01 * grpo::entropy_bonus{}, over, &world::entropy), 1e-8) == "");
    }
}

// Terms c · logp with a frozen c: the derivative times logp is the token's loss.
template <class Term>
void check_frozen_coefficient(const std::string& name, const Term& term) {
    const world w;
    CAPTURE(name);
    const std::vector<double> g = w.gradient(term, grpo::aggregation::token_sum());
    double sum = 0;
    for (std::size_t t = 0; t < g.size(); ++t) sum += g[t] * w.logp[t];
    CHECK(vectors::close(sum, w.loss(term, grpo::aggregation::token_sum()), 1e-13));
    CHECK(vectors::difference(g, w.differences(term, grpo::aggregation::token_sum(), &world::logp), 1e-8) != "");
}

TEST_CASE("terms that weigh logp by a frozen coefficient have that coefficient as their derivative") {
    check_frozen_coefficient("cispo", grpo::cispo{});
    check_frozen_coefficient("cispo_upper", grpo::cispo_upper{.cap = 1.5});
    check_frozen_coefficient("vespo", grpo::vespo{});
    check_frozen_coefficient("dppo_tv", grpo::dppo_tv{});
    check_frozen_coefficient("dppo_kl", grpo::dppo_kl{});
    check_frozen_coefficient("dft", grpo::dft{});
}

TEST_CASE("straight-through terms have the derivative of what they stand for") {
    const world w;
    const auto over = grpo::aggregation::token_sum();
    const auto own = [&](const auto& term) { return w.differences(term, over, &world::logp); };
    // The k2 gradient is that of k2's value.
    const std::vector<double> k2 = own(kl_penalty<kl_estimator::k2, kl_gradient::own>{});
    CHECK(vectors::difference(w.gradient(kl_penalty<kl_estimator::k1, kl_gradient::k2>{}, over), k2, 1e-8) == "");
    CHECK(vectors::difference(w.gradient(kl_penalty<kl_estimator::k3, kl_gradient::k2>{}, over), k2, 1e-8) == "");
    // `score` is `importance` on-policy: the value is not multiplied, but its derivative is added.
    world on_policy = w;
    on_policy.old = w.logp;
    using importance = kl_penalty<kl_estimator::k1, kl_gradient::importance>;
    std::vector<double> expected = w.zeros();
    for (std::size_t t = 0; t < expected.size(); ++t) {
        world up = on_policy, down = on_policy;
        up.logp[t] += 1e-6;
        down.logp[t] -= 1e-6;
        expected[t] = (up.loss(importance{}, over) - down.loss(importance{}, over)) / 2e-6;
    }
    CHECK(vectors::difference(w.gradient(kl_penalty<kl_estimator::k1, kl_gradient::score>{}, over), expected, 1e-8) == "");
    // on_policy is the clip at a ratio of 1.
    CHECK(vectors::difference(w.gradient(grpo::on_policy{}, over), on_policy.gradient(grpo::clipped{}, over), 0.0) == "");
}

TEST_CASE("GSPO-token equals GSPO in value and gradient where a sequence has one advantage") {
    world w;
    for (std::size_t t = 0; t < w.advantage.size(); ++t) w.advantage[t] = t < 5 ? 0.7 : t < 6 ? -1.2 : -0.4;
    const auto over = grpo::aggregation::sequence_mean();
    const grpo::gspo gspo{.low = 0.3, .high = 0.3};
    const grpo::gspo_token token{.low = 0.3, .high = 0.3};
    CHECK(vectors::close(w.loss(token, over), w.loss(gspo, over), 1e-14));
    CHECK(vectors::difference(w.gradient(token, over), w.gradient(gspo, over), 1e-14) == "");
}

}  // namespace
