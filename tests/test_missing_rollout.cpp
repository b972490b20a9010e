// R1.17: a rollout log-probability that the sampler did not report is NaN by contract, has weight 1 and is counted.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <grpo/grpo.hpp>

namespace {

const float missing = std::numeric_limits<float>::quiet_NaN();

struct tokens {
    std::vector<float> logp{-1.0f, -0.5f, -2.0f, -1.5f};
    std::vector<float> logp_old{-1.25f, -0.5f, -1.75f, -1.5f};
    std::vector<float> logp_rollout;
    std::vector<float> advantage{1.0f, -1.0f, 0.5f, 2.0f};
    std::vector<std::uint8_t> mask{1, 1, 1, 0};
    std::vector<float> gradient = std::vector<float>(4, 9.0f);

    template <class Term>
    grpo::loss_result run(const Term& term) {
        const grpo::objective loss{term, grpo::aggregation::token_mean()};
        const auto shape = grpo::padded(2, 2).where(mask);
        const auto batch = grpo::batch(shape, grpo::logp(logp), grpo::logp_old(logp_old),
                                       grpo::logp_rollout(logp_rollout), grpo::advantage(grpo::by_token(advantage)));
        return grpo::evaluate(grpo::serial{}, loss.diagnosed(), batch, 3.0, grpo::d_logp(gradient));
    }
};

}  // namespace

TEST_CASE("R1.17 a missing rollout log-probability has weight 1 and is counted, also in the diagnostics") {
    tokens with_gap{.logp_rollout = {-1.25f, missing, -1.5f, missing}};
    tokens neutral{.logp_rollout = {-1.25f, -0.5f, -1.5f, -1.0f}};  // the old log-probability where it was missing
    const grpo::loss_result a = with_gap.run(grpo::decoupled_clip{});
    const grpo::loss_result b = neutral.run(grpo::decoupled_clip{});
    CHECK(a.missing_rollout == 1);  // the second NaN is behind the mask
    CHECK(b.missing_rollout == 0);
    CHECK(a.nonfinite == 0);
    CHECK(a.sum == b.sum);
    CHECK(with_gap.gradient == neutral.gradient);
    CHECK(a.metrics.rollout_weight == b.metrics.rollout_weight);
    CHECK(a.metrics.rollout_kl == b.metrics.rollout_kl);
    CHECK(std::isfinite(a.metrics.rollout_square));
}

TEST_CASE("R1.17 an infinite rollout log-probability is not missing: it is a non-finite token") {
    tokens t{.logp_rollout = {-1.25f, -std::numeric_limits<float>::infinity(), -1.5f, -1.0f}};
    const grpo::loss_result r = t.run(grpo::decoupled_clip{});
    CHECK(r.missing_rollout == 0);
    CHECK(r.nonfinite == 1);
    CHECK(r.first_nonfinite == 1);
}

TEST_CASE("R1.16 a missing old log-probability has no such contract") {
    tokens t{.logp_rollout = {-1.25f, -0.5f, -1.5f, -1.0f}};
    t.logp_old[0] = missing;
    CHECK(t.run(grpo::decoupled_clip{}).nonfinite == 1);
}
