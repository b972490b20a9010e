// GRPO as eight frameworks compute it by default, so that a loss here equals the number your present one prints
// (R1.46). Commits: TRL f2cd5771, verl 1dda039b, OpenRLHF 3c3be623, NeMo RL 7ea279ab, slime 624b824a, AReaL 4aef98d8,
// tunix c7d8950f, torchtune bd2a0fc7.
//
// All normalise by group with ddof 1 and clip at 0.2 unless said otherwise; "bounded" is the log-ratio, by ±20, where
// its gradient stops. Where a framework gives NaN (the deviation of a lone output, the mean of nothing) or refuses, 0
// stands here. beta is the coefficient of the framework's KL; at 0 no reference is read.
#pragma once

#include <grpo/recipe/method.hpp>

namespace grpo::inline v0 {
namespace recipe {

// TRL: eps 1e-4; not bounded; k3 in the loss, off. Mean over the tokens of the whole generation batch ("dapo"): pass
// their number over all ranks as the denominator. Where vLLM samples, outputs whose weight exceeds 3 are dropped:
// weighted(), with the weights that `correction` makes.
inline auto trl(double beta = 0.0) {
    return make({"trl",
                 "TRL f2cd5771",
                 "eps 1e-4, global token mean, KL off",
                 {.group = {.eps = 1e-4}},
                 {},
                 correction_use::on_request,
                 correction::sequence_mask(3.0)},
                clipped{.bound = {.bound = math::unbounded}} + beta * kl{.bound = {.bound = math::unbounded}},
                aggregation::token_mean());
}

// verl: eps 1e-6, a lone output keeps its reward; dual clip 3, bounded; k3 clamped to ±20 going in and ±10 coming out,
// off (its coefficient is 0.001 once on); token mean.
inline auto verl(double beta = 0.0) {
    return make({"verl",
                 "verl 1dda039b",
                 "dual clip 3, a lone output keeps its reward, token mean, KL off",
                 {.group = {.eps = 1e-6, .singleton = singleton_rule::raw_reward}}},
                grpo::dual_clip{.c = 3.0} + beta * kl{.bound = {.bound = 20.0}, .output = {.bound = 10.0}},
                aggregation::token_mean());
}

// OpenRLHF: eps 1e-9, advantages cut to ±10, then the KL in the reward, 0.01 · k1 clamped to ±10; bounded; token mean.
inline auto openrlhf(double beta = 0.01) {
    return make({"openrlhf",
                 "OpenRLHF 3c3be623",
                 "eps 1e-9, k1 in the reward, advantages within ±10, token mean",
                 {.group = {.eps = 1e-9}, .advantage_bound = 10.0, .kl = {.beta = beta, .output = {.bound = 10.0}}}},
                clipped{}, aggregation::token_mean());
}

// NeMo RL: mean and deviation of the others, undivided where that deviation is 0, eps 1e-6; not bounded; 0.01 · k3 in
// the loss with the score-function gradient, clamped to ±20 going in and ±10 coming out; token mean over count + 1e-8.
inline auto nemo_rl(double beta = 0.01) {
    return make({"nemo_rl",
                 "NeMo RL 7ea279ab",
                 "leave-one-out mean and deviation, k3 with its score gradient, token mean",
                 {.group = {.eps = 1e-6,
                            .placement = eps_placement::where_positive,
                            .baseline = group_baseline::leave_one_out,
                            .scale = group_scale::leave_one_out}}},
                clipped{.bound = {.bound = math::unbounded}} +
                    beta * kl_penalty<kl_estimator::k3, kl_gradient::score>{.bound = {.bound = 20.0},
                                                                            .output = {.bound = 10.0}},
                aggregation::token_mean().plus_eps(1e-8));
}

// slime: eps 1e-6; not bounded; KL in the loss, off (k1 and not clamped once on, whose gradient is constant); mean of
// the outputs' means, empty ones counted.
inline auto slime(double beta = 0.0) {
    return make(
        {"slime", "slime 624b824a", "mean of means with empty outputs counted, KL off", {.group = {.eps = 1e-6}}},
        clipped{.bound = {.bound = math::unbounded}} +
            beta * kl_penalty<kl_estimator::k1>{.bound = {.bound = math::unbounded}},
        aggregation::sequence_mean(true));
}

// AReaL: rewards cut to ±20, eps 1e-5; not bounded; KL in the reward, 0.1 · k1 clamped to ±10; token mean.
inline auto areal(double beta = 0.1) {
    return make({"areal",
                 "AReaL 4aef98d8",
                 "rewards within ±20, eps 1e-5, k1 in the reward, token mean",
                 {.group = {.eps = 1e-5}, .reward_bound = 20.0, .kl = {.beta = beta, .output = {.bound = 10.0}}}},
                clipped{.bound = {.bound = math::unbounded}}, aggregation::token_mean());
}

// tunix: eps 1e-6; bounded; 0.04 · k1 in the loss, whose gradient is the constant 0.04; mean of means, empty outputs
// left out.
inline auto tunix(double beta = 0.04) {
    return make({"tunix", "tunix c7d8950f", "k1 in the loss, mean of means", {.group = {.eps = 1e-6}}},
                clipped{} + beta * kl_penalty<kl_estimator::k1>{.bound = {.bound = math::unbounded}},
                aggregation::sequence_mean());
}

// torchtune: eps 1e-4; one update per batch, so the ratio is 1 and its clip of 0.1 cannot act; 0.1 · k3 in the loss,
// not clamped; mean of means, empty outputs counted.
inline auto torchtune(double beta = 0.1) {
    return make({"torchtune",
                 "torchtune bd2a0fc7",
                 "ratio 1, k3 in the loss, mean of means with empty outputs counted",
                 {.group = {.eps = 1e-4}}},
                on_policy{} + beta * kl{.bound = {.bound = math::unbounded}}, aggregation::sequence_mean(true));
}

}  // namespace recipe
}  // namespace grpo::inline v0
