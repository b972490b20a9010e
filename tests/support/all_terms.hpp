// Every term of term.hpp with typical parameters, for tests that hold for all of them. A new term is one line here.
#pragma once

#include <grpo/term.hpp>

namespace all_terms {

template <class F>
void policy(F&& f) {
    f("clipped", grpo::clipped{.low = 0.2, .high = 0.28});
    f("clipped, straight through", grpo::clipped{.bound = {.bound = 0.3, .gradient = grpo::outside::straight_through}});
    f("dual_clip", grpo::dual_clip{.c = 1.5});
    f("two_sided_clip", grpo::two_sided_clip{.delta = 1.5});
    f("decoupled_clip", grpo::decoupled_clip{});
    f("kl_cov", grpo::kl_cov{.coef = 0.5});
    f("reinforce", grpo::reinforce{});
    f("on_policy", grpo::on_policy{});
    f("cispo", grpo::cispo{});
    f("cispo_upper", grpo::cispo_upper{.cap = 1.2});
    f("sapo", grpo::sapo{});
    f("dro", grpo::dro{.beta = 0.5});
    f("dppo_tv", grpo::dppo_tv{.low = 0.1, .high = 0.1, .cap = 1.3});
    f("dppo_kl", grpo::dppo_kl{.low = 0.01, .high = 0.01, .cap = 1.3});
}

template <class F>
void sequence(F&& f) {
    f("gspo", grpo::gspo{.low = 0.1, .high = 0.1});
    f("gspo_token", grpo::gspo_token{.low = 0.1, .high = 0.1});
    f("gmpo", grpo::gmpo{});
    f("vespo", grpo::vespo{});
}

template <class F>
void kl(F&& f) {
    using enum grpo::kl_estimator;
    using g = grpo::kl_gradient;
    f("kl", grpo::kl{});
    f("kl, bounded", grpo::kl{.bound = {.bound = 0.3}, .output = {.bound = 0.04}});
    f("kl k1", grpo::kl_penalty<k1>{});
    f("kl k2", grpo::kl_penalty<k2>{});
    f("kl abs", grpo::kl_penalty<abs>{});
    f("kl k3, k2", grpo::kl_penalty<k3, g::k2>{});
    f("kl k1, score", grpo::kl_penalty<k1, g::score>{.bound = {.bound = 0.3}});
    f("kl k3, importance", grpo::kl_penalty<k3, g::importance>{});
    f("kl k3, sequence importance", grpo::kl_penalty<k3, g::sequence_importance>{});
}

template <class F>
void others(F&& f) {
    f("entropy_bonus", grpo::entropy_bonus{});
    f("entropy_estimate", grpo::entropy_estimate{});
    f("nll", grpo::nll{});
    f("dft", grpo::dft{});
    f("rft", grpo::rft{});
    f("positive_nll", grpo::positive_nll{});
    f("value_loss", grpo::value_loss{.clip = 0.2});
    f("huber_value_loss", grpo::huber_value_loss{.delta = 0.3, .clip = 0.2});
    f("rollout_weighted", grpo::rollout_weighted{});
    f("selected", grpo::selected{});
    f("off_policy_mask", grpo::off_policy_mask{.delta = 0.1});
}

template <class F>
void composed(F&& f) {
    f("clipped + kl - entropy", grpo::clipped{} + 0.04 * grpo::kl{} + 0.01 * grpo::entropy_bonus{});
    f("factors", grpo::off_policy_mask{.delta = 0.1} * grpo::selected{} * grpo::rollout_weighted{} * grpo::clipped{});
    f("gspo * kl", grpo::gspo{.low = 0.1, .high = 0.1} * grpo::kl{});
    f("gspo + gmpo", grpo::gspo{.low = 0.1, .high = 0.1} + -grpo::gmpo{});
    f("policy and critic", grpo::clipped{} + 0.5 * grpo::value_loss{});
}

// f(name, term) for every one.
template <class F>
void for_each(F&& f) {
    policy(f);
    sequence(f);
    kl(f);
    others(f);
    composed(f);
}

}  // namespace all_terms
