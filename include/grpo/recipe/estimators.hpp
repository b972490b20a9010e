// Methods that differ from GRPO in the advantage, and likelihood and preference losses, which have none.
#pragma once

#include <grpo/preference/paired.hpp>
#include <grpo/recipe/method.hpp>

namespace grpo::inline v0 {
namespace recipe {

// Dr.GRPO, arXiv 2503.20783: r - mean, and a constant instead of each output's length. `longest` is the greatest length
// an output may have: 3000 in the authors' code (TRL's default is 512). No KL.
inline auto dr_grpo(double longest = 3000) {
    return make({"dr_grpo",
                 "arXiv 2503.20783",
                 "no division by the deviation nor by the length",
                 {.group = {.scale = group_scale::none}}},
                clipped{}, aggregation::constant_length(longest));
}

// LitePPO, arXiv 2508.08221: the group's mean, the batch's deviation, token mean, no KL.
inline auto lite_ppo() {
    return make({"lite_ppo",
                 "arXiv 2508.08221",
                 "deviation of the batch, token mean",
                 {.group = {.scale = group_scale::batch}}},
                clipped{}, aggregation::token_mean());
}

// pass@k training, arXiv 2503.19595: only the best output scores, by its lead over the second, divided by the
// deviation.
inline auto pass_at_k() {
    return make(
        {"pass_at_k", "arXiv 2503.19595", "only the best output scores, by its lead", {.kind = estimator::pass_at_k}},
        clipped{}, aggregation::token_mean());
}

// GDPO, arXiv 2601.05242: several rewards, each normalised within its groups on its own; their sum once more over the
// batch. Both eps 1e-4 (TRL's). grpo::gdpo(groups, inputs, scratch, out, {r.advantage.group, r.advantage.whitening}).
inline auto gdpo() {
    return make({"gdpo",
                 "arXiv 2601.05242",
                 "every reward normalised on its own",
                 {.kind = estimator::gdpo,
                  .group = {.eps = 1e-4},
                  .whitening = {.ddof = 1, .eps = 1e-4, .placement = eps_placement::outside}}},
                clipped{}, aggregation::token_mean());
}

// GPG, arXiv 2504.02546, eq. 5: r - mean, scaled up by the share of outputs that earned something; no ratio, no KL. A
// lone output keeps its reward, as in verl.
inline auto gpg() {
    return make({"gpg",
                 "arXiv 2504.02546, eq. 5",
                 "no ratio; rescaled by the share of outputs that earned something",
                 {.kind = estimator::gpg, .group = {.singleton = singleton_rule::raw_reward}}},
                grpo::gpg{}, aggregation::token_mean());
}

// RLOO, arXiv 2402.14740: r - mean of the others; the whole output is one action, no clip. The paper takes
// 0.03 log π/π_ref of the output (appendix C) off the reward beforehand, so that baselines contain it.
inline auto rloo() {
    return make({"rloo",
                 "arXiv 2402.14740",
                 "baseline of the others, the output as one action, no clip",
                 {.group = {.baseline = group_baseline::leave_one_out, .scale = group_scale::none}}},
                grpo::reinforce{}, aggregation::sequence_sum());
}

// OPO, arXiv 2505.23585: the baseline is weighed by length; exactly on-policy: one update per batch, ratio 1, no KL. A
// lone output keeps its reward, as in verl.
inline auto opo() {
    return make({"opo",
                 "arXiv 2505.23585",
                 "length-weighted baseline, one update per batch",
                 {.kind = estimator::opo, .group = {.singleton = singleton_rule::raw_reward}}},
                on_policy{}, aggregation::token_mean());
}

// REINFORCE with the reward itself (Williams, 1992): no baseline, no clip. NeMo RL's raw reward.
inline auto reinforce() {
    return make({"reinforce", "Williams, 1992", "the reward itself, no baseline", {.kind = estimator::raw}},
                grpo::reinforce{}, aggregation::sequence_sum());
}

// ReMax, arXiv 2310.10505: the baseline is the reward of the greedy answer to the same prompt.
inline auto remax() {
    return make({"remax", "arXiv 2310.10505", "baseline is the greedy answer's reward", {.kind = estimator::remax}},
                grpo::reinforce{}, aggregation::sequence_sum());
}

// REINFORCE++, arXiv 2501.03262: returns of token rewards that contain the KL (k1), whitened over the batch; PPO's
// clip. The coefficient 0.01, the output clamp ±10 and the whitening (ddof 0, deviation at least 1e-4) are those of
// OpenRLHF, the authors' code.
inline auto reinforce_plus_plus(double beta = 0.01) {
    return make({"reinforce_plus_plus",
                 "arXiv 2501.03262",
                 "returns with KL in the reward, whitened over the batch",
                 {.kind = estimator::returns,
                  .kl = {.beta = beta, .output = {.bound = 10.0}},
                  .whitened = true,
                  .whitening = {.ddof = 0, .eps = 1e-4, .placement = eps_placement::floor}}},
                clipped{}, aggregation::token_mean());
}

// REINFORCE++ with a baseline, arXiv 2501.03262: r - mean of the group instead of r. Otherwise the same.
inline auto reinforce_plus_plus_baseline(double beta = 0.01) {
    return make({"reinforce_plus_plus_baseline",
                 "arXiv 2501.03262",
                 "REINFORCE++ less the group's mean",
                 {.group = {.scale = group_scale::none, .singleton = singleton_rule::raw_reward},
                  .kl = {.beta = beta, .output = {.bound = 10.0}},
                  .whitened = true,
                  .whitening = {.ddof = 0, .eps = 1e-4, .placement = eps_placement::floor}}},
                clipped{}, aggregation::token_mean());
}

// PPO for language models, arXiv 1707.06347, eq. 7 and 11: clip 0.2, GAE with λ 0.95, whitened; γ 1 and the KL in the
// reward with beta 0.02 are InstructGPT's (arXiv 2203.02155, appendix C.4). The critic's loss is value_loss{} on
// out.returns.
inline auto ppo(double beta = 0.02) {
    return make({"ppo",
                 "arXiv 1707.06347, eq. 7",
                 "a critic, GAE, KL in the reward",
                 {.kind = estimator::gae, .kl = {.beta = beta}, .whitened = true, .gamma = 1.0, .lambda = 0.95}},
                clipped{.low = 0.2, .high = 0.2}, aggregation::token_mean());
}

// VAPO, arXiv 2504.05118: λ of the policy 1 - 1/(0.05 n) by length, of the critic 1; clip 0.2 / 0.28, token mean, no
// KL. With it goes 0.1 times the likelihood of correct outputs, averaged over their tokens: an objective of its own,
// {positive_nll{}, aggregation::token_mean()}, whose denominator counts those tokens.
inline auto vapo() {
    return make({"vapo",
                 "arXiv 2504.05118",
                 "PPO with λ by length, clip-higher, token mean",
                 {.kind = estimator::vapo, .gamma = 1.0, .lambda = 0.95, .lambda_value = 1.0, .alpha = 0.05}},
                clipped{.low = 0.2, .high = 0.28}, aggregation::token_mean());
}

// The optimal token baseline, arXiv 2602.07078: the baseline of each token that gives the gradient the least variance.
inline auto otb() {
    return make({"otb", "arXiv 2602.07078", "the token baseline of least variance", {.kind = estimator::otb}},
                grpo::reinforce{}, aggregation::sequence_sum());
}

// SFT, arXiv 2402.03300, appendix A.1.1: every token of given outputs, averaged by output. (Frameworks: token_mean().)
inline auto sft() {
    return make({"sft", "arXiv 2402.03300, A.1.1", "gradient coefficient 1", {.kind = estimator::none}}, nll{},
                aggregation::sequence_mean());
}

// Rejection fine-tuning, A.1.2: the same on correct outputs alone, sampled from the SFT model; online, A.1.3: sampled
// from the policy. Outputs that are not correct still count in the mean, as in the paper.
inline auto rft() {
    return make(
        {"rft", "arXiv 2402.03300, A.1.2", "gradient coefficient 1 on correct outputs", {.kind = estimator::none}},
        grpo::rft{}, aggregation::sequence_mean());
}
inline auto online_rft() {
    return make({"online_rft", "arXiv 2402.03300, A.1.3", "RFT on outputs of the policy", {.kind = estimator::none}},
                grpo::online_rft{}, aggregation::sequence_mean());
}

// DFT, arXiv 2508.05629, eq. 9: SFT with each token weighed by its probability. Token mean as in TRL.
inline auto dft() {
    return make({"dft", "arXiv 2508.05629, eq. 9", "SFT weighed by the token's probability", {.kind = estimator::none}},
                grpo::dft{}, aggregation::token_mean());
}

// DPO, arXiv 2305.18290, eq. 7, beta 0.1 (appendix B). A loss of pairs: its batch has chosen, rejected, ref_chosen and
// ref_rejected, and the mean runs over pairs.
inline auto dpo(double beta = 0.1) {
    return make({"dpo", "arXiv 2305.18290, eq. 7", "pairs instead of rewards", {.kind = estimator::none}},
                grpo::dpo{.beta = beta}, aggregation::token_mean());
}

}  // namespace recipe
}  // namespace grpo::inline v0
