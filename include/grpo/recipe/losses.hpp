// Methods that differ from GRPO in the loss. Unless said otherwise: advantages are group-normalised, no KL, no
// correction.
//
// Where a paper publishes no number, the comment says whose it is. All ratios have the library's safety bound of ±20 on
// their logarithm, which no paper has.
#pragma once

#include <grpo/recipe/method.hpp>

namespace grpo::inline v0 {
namespace recipe {

// DeepSeekMath, arXiv 2402.03300, eq. 3 and 4: clipped surrogate less beta · k3, mean over each output, then over
// outputs. beta 0.04 is the paper's (§4.2). It states neither clip, ddof nor eps: 0.2 is PPO's, the others
// group_normalised's.
inline auto grpo(double beta = 0.04) {
    return make({"grpo", "arXiv 2402.03300, eq. 3", "group-normalised rewards, k3 in the loss, mean of means"},
                clipped{} + beta * kl{}, aggregation::sequence_mean());
}

// DeepSeek-R1, arXiv 2501.12948 (version 2): GRPO with clip 10 (its lower bound is below 0 and never acts) and beta
// 0.001.
inline auto deepseek_r1(double beta = 0.001) {
    return make({"deepseek_r1", "arXiv 2501.12948 v2", "GRPO with clip 10 and beta 0.001"},
                clipped{.low = 10, .high = 10} + beta * kl{}, aggregation::sequence_mean());
}

// DeepSeek-V3.2, arXiv 2512.02556: k3 times the importance ratio, whose gradient is that of KL(π_θ ‖ π_ref), and a mask
// on negative outputs that have drifted by more than delta, on the policy part alone. The report publishes neither
// delta (0.1 is this library's) nor beta (0.001 is DeepSeek-R1's).
inline auto deepseek_v3_2(double delta = 0.1, double beta = 0.001) {
    return make(
        {"deepseek_v3_2", "arXiv 2512.02556", "importance-weighted k3, off-policy sequence mask"},
        off_policy_mask{.delta = delta} * clipped{} + beta * kl_penalty<kl_estimator::k3, kl_gradient::importance>{},
        aggregation::sequence_mean());
}

// DAPO, arXiv 2503.14476, eq. 8 and 10: clip 0.2 / 0.28 (§4.1), every token weighs the same, no KL. With it go
// group_filter::nonzero_std (eq. 11, dynamic sampling) and overlong{} (eq. 13), both before the advantages.
inline auto dapo() {
    return make({"dapo", "arXiv 2503.14476, eq. 8", "clip-higher 0.28, token mean, no KL"},
                clipped{.low = 0.2, .high = 0.28}, aggregation::token_mean());
}

// The dual clip, arXiv 1912.09729, eq. 5: where A < 0 the loss is at most -c A, c = 3 (the paper's and verl's).
inline auto dual_clip() {
    return make({"dual_clip", "arXiv 1912.09729, eq. 5", "the loss of negative advantages is bounded by c = 3"},
                grpo::dual_clip{.low = 0.2, .high = 0.2, .c = 3.0}, aggregation::token_mean());
}

// INTELLECT-2's two-sided clip, arXiv 2505.07291: the ratio is at most delta where A < 0. delta 4 is this library's.
inline auto two_sided_clip() {
    return make({"two_sided_clip", "arXiv 2505.07291", "the unclipped ratio is bounded by delta = 4"},
                grpo::two_sided_clip{.low = 0.2, .high = 0.2, .delta = 4.0}, aggregation::token_mean());
}

// GSPO, arXiv 2507.18071, eq. 5 and 7: one ratio per output, the geometric mean; clip 3e-4 / 4e-4 (§5.1), no KL.
inline auto gspo() {
    return make({"gspo", "arXiv 2507.18071, eq. 5", "one ratio per output, clip 3e-4 / 4e-4"},
                grpo::gspo{.low = 3e-4, .high = 4e-4}, aggregation::sequence_mean());
}

// GSPO-token, arXiv 2507.18071, eq. 13: GSPO's ratio with the gradient of each token's own log-probability, so that
// advantages may differ by token.
inline auto gspo_token() {
    return make({"gspo_token", "arXiv 2507.18071, eq. 13", "GSPO for advantages per token"},
                grpo::gspo_token{.low = 3e-4, .high = 4e-4}, aggregation::sequence_mean());
}

// LUSPO, arXiv 2602.05261: GSPO with each output weighed by its length. The clip is GSPO's.
inline auto luspo() {
    return make({"luspo", "arXiv 2602.05261", "GSPO weighed by length"}, grpo::luspo{.low = 3e-4, .high = 4e-4},
                aggregation::sequence_sum());
}

// GMPO, arXiv 2507.20673, eq. 4: geometric instead of arithmetic mean of the ratios, each clipped to [e^-0.4, e^0.4].
inline auto gmpo() {
    return make({"gmpo", "arXiv 2507.20673, eq. 4", "geometric mean of ratios clipped in log space by 0.4"},
                grpo::gmpo{.low = 0.4, .high = 0.4}, aggregation::sequence_mean());
}

// CISPO in the two-sided convention of verl, NeMo RL and slime: the constant weight clip(ρ, 1 ± 0.2) on A logp, so that
// no token loses its gradient (arXiv 2506.13585, eq. 4). 0.2 is theirs.
inline auto cispo() {
    return make({"cispo", "arXiv 2506.13585, eq. 4", "the weight is clipped to 1 ± 0.2, not the gradient"},
                grpo::cispo{.low = 0.2, .high = 0.2}, aggregation::token_mean());
}

// CISPO as TRL and ScaleRL have it: the weight is min(ρ, 5), the bound a ratio (arXiv 2510.13786). ScaleRL divides by
// the deviation of the batch and averages by prompt: set `over` to aggregation::rollout_mean with each prompt's tokens
// for that.
inline auto cispo_upper() {
    return make({"cispo_upper",
                 "arXiv 2510.13786",
                 "the weight is bounded from above alone, by 5; deviation of the batch",
                 {.group = {.scale = group_scale::batch}}},
                grpo::cispo_upper{.cap = 5.0}, aggregation::token_mean());
}

// MiniMax-M1, arXiv 2506.13585, §3.1: CISPO with the lower bound switched off (low 1 puts it at 0), token mean, no KL.
// The upper width is not published; 0.2 is verl's and NeMo RL's.
inline auto minimax_m1() {
    return make({"minimax_m1", "arXiv 2506.13585, eq. 4", "CISPO without a lower bound"},
                grpo::cispo{.low = 1.0, .high = 0.2}, aggregation::token_mean());
}

// SAPO, arXiv 2511.20347, eq. 5 and 6: a sigmoid gate instead of a clip, τ 1.0 for A > 0 and 1.05 otherwise (the
// paper's).
inline auto sapo() {
    return make({"sapo", "arXiv 2511.20347, eq. 5", "a soft gate, sharper for negative advantages"},
                grpo::sapo{.tau_positive = 1.0, .tau_negative = 1.05}, aggregation::sequence_mean());
}

// VESPO, arXiv 2602.10693: the weight w^k e^(λ (1 - w)) of the whole output's ratio; (k, λ) = (2, 3) for A >= 0 and (3,
// 2) for A < 0, the paper's. Token mean as in TRL.
inline auto vespo() {
    return make({"vespo", "arXiv 2602.10693", "a smooth weight of the output's ratio"},
                grpo::vespo{.k_positive = 2, .lambda_positive = 3, .k_negative = 3, .lambda_negative = 2},
                aggregation::token_mean());
}

// DPPO, arXiv 2602.04879: tokens are dropped by how far their probability moved, not by its ratio. Thresholds 0.2 and
// the weight's cap 3 are verl's.
inline auto dppo_tv() {
    return make({"dppo_tv", "arXiv 2602.04879", "trust region in total variation"},
                grpo::dppo_tv{.low = 0.2, .high = 0.2, .cap = 3.0}, aggregation::token_mean());
}
inline auto dppo_kl() {
    return make({"dppo_kl", "arXiv 2602.04879", "trust region in the KL of \"this token or another\""},
                grpo::dppo_kl{.low = 0.2, .high = 0.2, .cap = 3.0}, aggregation::token_mean());
}

// Clip-Cov, arXiv 2505.22617, eq. 11: of the tokens with covariance in (1, 5), a share of 2e-4 of all loses its
// gradient; those of the largest, where the paper draws at random. select_clip_cov(batch, clipped{}, r.selection.band,
// keep).
inline auto clip_cov() {
    return make({"clip_cov",
                 "arXiv 2505.22617, eq. 11",
                 "no gradient for tokens of high covariance",
                 {},
                 {.kind = selector::clip_cov, .band = {.fraction = 2e-4, .low = 1.0, .high = 5.0}}},
                selected{} * clipped{}, aggregation::token_mean());
}

// KL-Cov, arXiv 2505.22617, eq. 12: no clip; |logp - logp_old| on the tokens of largest covariance, a share of 2e-4
// (verl's). Coefficient 1, the paper's. select_kl_cov(batch, r.selection.band.fraction, keep).
inline auto kl_cov() {
    return make({"kl_cov",
                 "arXiv 2505.22617, eq. 12",
                 "no clip; a penalty on tokens of high covariance",
                 {},
                 {.kind = selector::kl_cov, .band = {.fraction = 2e-4}}},
                grpo::kl_cov{.coef = 1.0}, aggregation::token_mean());
}

// High-entropy minority tokens, arXiv 2506.01939: DAPO on the fifth of the tokens with the highest entropy (§5.2).
// select_top_entropy(batch, r.selection.share, keep); the denominator still counts all.
inline auto high_entropy() {
    return make({"high_entropy",
                 "arXiv 2506.01939, §5.2",
                 "DAPO on the fifth of the tokens with the highest entropy",
                 {},
                 {.kind = selector::top_entropy, .share = 0.2}},
                selected{} * clipped{.low = 0.2, .high = 0.28}, aggregation::token_mean());
}

// M2PO, arXiv 2510.01161: stale tokens are dropped until the mean squared log-ratio to the rollout policy is below 0.04
// (the paper's). select_m2po(batch, r.selection.threshold, keep).
inline auto m2po() {
    return make({"m2po",
                 "arXiv 2510.01161",
                 "drops stale tokens by the second moment of their log-ratio",
                 {},
                 {.kind = selector::m2po, .threshold = 0.04}},
                selected{} * clipped{}, aggregation::token_mean());
}

// IcePop, arXiv 2510.18855: token weights π_old / π_rollout inside [0.5, 5] (OpenRLHF's bounds), 0 outside. Make them
// with r.correction.
inline auto icepop() {
    return make({"icepop",
                 "arXiv 2510.18855",
                 "tokens on which trainer and sampler disagree are dropped",
                 {},
                 {},
                 correction_use::always,
                 correction::icepop(0.5, 5.0)},
                rollout_weighted{} * clipped{}, aggregation::token_mean());
}

// AReaL's decoupled PPO, arXiv 2505.24298 (and 2110.00641, eq. 5): the clip is about a recent proximal policy
// (logp_old), the samples are older (logp_rollout); clip 0.2, neither critic nor KL: rewards as they are, whitened over
// the batch.
inline auto decoupled_ppo() {
    return make({"decoupled_ppo",
                 "arXiv 2505.24298",
                 "the clip is about a proximal policy, not the sampler",
                 {.kind = estimator::raw,
                  .whitened = true,
                  .whitening = {.ddof = 1, .eps = 1e-5, .placement = eps_placement::outside}}},
                decoupled_clip{.low = 0.2, .high = 0.2}, aggregation::token_mean());
}

// DRO, arXiv 2405.19107: a squared log-ratio instead of a clip, for data of any policy. Neither the paper's formula nor
// verl has a default for beta; 1 is this library's. The paper learns the baseline V; here the group's mean stands in
// for it.
inline auto dro(double beta = 1.0) {
    return make(
        {"dro", "arXiv 2405.19107", "a squared log-ratio instead of a clip", {.group = {.scale = group_scale::none}}},
        grpo::dro{.beta = beta}, aggregation::token_mean());
}

}  // namespace recipe
}  // namespace grpo::inline v0
