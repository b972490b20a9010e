// The advantage half of a method as data: which estimator with which options, and the calls that carry it out.
//
//   grpo::recipe::advantage_rule rule = grpo::recipe::advantages("rloo");
//   rule.by_sequence(groups, reward, advantage);                   // one number per response
//   rule.by_token(groups, tokens, inputs, outputs);                // one per token: every estimator but gdpo
#pragma once

#include <cstdint>

#include <grpo/advantage.hpp>
#include <grpo/detail/check.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/shape.hpp>
#include <grpo/shaping/rewards.hpp>
#include <grpo/term/kl.hpp>

namespace grpo::inline v0 {
namespace recipe {

enum class estimator {
    none,       // likelihoods and preferences have no advantage
    group,      // group_normalised with `group`: GRPO, Dr.GRPO, RLOO, ...
    opo,        // r - length-weighted mean
    gpg,        // (r - mean) · responses / responses that earned something
    pass_at_k,  // the best response's lead
    raw,        // r
    gdpo,       // several rewards: call grpo::gdpo with `group` and `whitening`
    returns,    // discounted token rewards: REINFORCE++
    remax,      // returns less the greedy answer's reward
    gae,        // with a critic
    vapo,       // gae with a λ for the policy, by length, and one for the critic
    otb,        // returns less the optimal token baseline
};

// A KL penalty in the reward: every active token loses beta · estimate of KL(π_old ‖ π_ref). beta = 0: no reference is
// read.
struct kl_rule {
    double beta = 0.0;
    kl_estimator estimate = kl_estimator::k1;
    safety_bound input{.bound = math::unbounded};
    safety_bound output{.bound = math::unbounded};
};

// What by_token reads. Leave empty what the estimator does not need; a missing array is an error that names it.
template <class T>
struct token_inputs {
    view<const T> reward{};                   // one per response
    view<const T> logp_old{};                 // per position: where the reward holds a KL, and otb
    view<const T> logp_ref{};                 // per position: where the reward holds a KL
    view<const T> value{};                    // per position: gae, vapo
    view<const T> greedy_reward{};            // one per response: remax
    view<const T> sum_probability_squared{};  // per position: otb
};

// What it writes: `advantage`; the critic's target for gae and vapo, else what was whitened or the baseline taken from;
// the others are the caller's memory for what lies in between.
template <class T>
struct token_outputs {
    view<T> advantage{};
    view<T> returns{};       // per position: returns, remax, gae, vapo, otb
    view<T> per_sequence{};  // one per response: group, opo, gpg, pass_at_k, raw
    view<T> reward_token{};  // per position: all but those five, and these too where the reward holds a KL
    view<T> baseline{};      // per position: otb
};

struct advantage_rule {
    estimator kind = estimator::group;
    group_options group{};                     // singleton also for opo and gpg; ddof and eps also for pass_at_k
    double reward_bound = math::unbounded;     // rewards are first cut to ± this
    double advantage_bound = math::unbounded;  // advantages per response are cut to ± this
    kl_rule kl{};                              // by_token alone; after a normalisation by group, before any whitening
    bool whitened = false;                     // over the batch's tokens, last of all
    whiten_options whitening{};
    double gamma = 1.0;
    double lambda = 1.0;
    double lambda_value = 1.0;  // vapo: the critic's
    double alpha = 0.0;         // vapo: above 0, λ of the policy by length

    // Whether outcome rewards alone give one number per response.
    bool gives_sequences() const { return kind >= estimator::group && kind <= estimator::raw; }

    // One advantage per response, without the KL and the whitening that need tokens. `tokens`: a shape over tokens with
    // a row per response, for opo's lengths. Rewards are cut in `advantage`, which may be the reward's own memory unless
    // the scale is group_scale::leave_one_out.
    template <class Executor, shape Groups, shape Tokens, class Reward, class Advantage>
    void by_sequence(const Executor& exec, const Groups& groups, const Tokens& tokens, const Reward& reward,
                     Advantage&& advantage) const {
        if (kind != estimator::opo) return by_sequence(exec, groups, reward, advantage);
        const view out(advantage);
        with_bounds(exec, groups, reward, out, [&](const auto& r) { grpo::opo(exec, groups, tokens, r, out, group.singleton); });
    }
    template <class Executor, shape Groups, class Reward, class Advantage>
    requires(!shape<Executor>) void by_sequence(const Executor& exec, const Groups& groups, const Reward& reward,
                                                Advantage&& advantage) const {
        if (!gives_sequences() || kind == estimator::opo) {
            detail::require(
                detail::complain("recipe::advantage_rule::by_sequence", "kind",
                                 "is %lld, which rewards and groups alone do not give: opo (%lld) also wants the "
                                 "shape of the tokens, gdpo (%lld) is grpo::gdpo, the others are by_token",
                                 number(kind), number(estimator::opo), number(estimator::gdpo)));
        }
        const view out(advantage);
        with_bounds(exec, groups, reward, out, [&](const auto& r) { estimate_into(exec, groups, r, out); });
    }
    template <shape Groups, shape Tokens, class Reward, class Advantage>
    void by_sequence(const Groups& groups, const Tokens& tokens, const Reward& reward, Advantage&& advantage) const {
        by_sequence(serial{}, groups, tokens, reward, advantage);
    }
    template <shape Groups, class Reward, class Advantage>
    void by_sequence(const Groups& groups, const Reward& reward, Advantage&& advantage) const {
        by_sequence(serial{}, groups, reward, advantage);
    }

    // One advantage per token; 0 where not active. Responses' rewards lie on their last active token.
    template <class Executor, shape Groups, shape Tokens, class T>
    void by_token(const Executor& exec, const Groups& groups, const Tokens& tokens, const token_inputs<T>& in,
                  const token_outputs<T>& out) const {
        if (kind == estimator::none || kind == estimator::gdpo) {
            detail::require(
                detail::complain("recipe::advantage_rule::by_token", "kind",
                                 "is %lld: likelihoods and preferences (%lld) have no advantage, and several "
                                 "rewards (%lld) are for grpo::gdpo",
                                 number(kind), number(estimator::none), number(estimator::gdpo)));
        }
        if constexpr (!detail::on_host<Executor>) {
            detail::require(detail::check_shape(exec, "recipe::advantage_rule::by_token", tokens));
        }
        detail::require(check_arrays("recipe::advantage_rule::by_token", tokens, in, out));
        if (gives_sequences()) {
            by_sequence(exec, groups, tokens, in.reward, out.per_sequence);
            spread(exec, tokens, in, out);
        } else {
            place_outcome(exec, tokens, in.reward, out.reward_token);
            if (kl.beta != 0) subtract_kl(exec, tokens, in, out.reward_token);
            accumulate(exec, groups, tokens, in, out);
        }
        if (whitened) whiten(exec, tokens, out.advantage, out.advantage, whitening);
    }
    template <shape Groups, shape Tokens, class T>
    void by_token(const Groups& groups, const Tokens& tokens, const token_inputs<T>& in,
                  const token_outputs<T>& out) const {
        by_token(serial{}, groups, tokens, in, out);
    }

private:
    static long long number(estimator e) { return static_cast<long long>(e); }

    // Sizes and null pointers of everything that by_token is about to touch.
    template <class Tokens, class T>
    problem check_arrays(const char* function, const Tokens& tokens, const token_inputs<T>& in,
                         const token_outputs<T>& out) const {
        if (const problem p = tokens.validate(function)) return p;
        const bool own = gives_sequences();
        const bool penalised = kl.beta != 0;
        const bool critic = kind == estimator::gae || kind == estimator::vapo;
        const bool otb = kind == estimator::otb;
        problem first;
        const auto check = [&](bool used, const char* name, const auto& array, bool of_sequences) {
            if (first || !used) return;
            first = detail::wants(function, name, array, of_sequences ? tokens.rows() : tokens.extent(),
                                  of_sequences ? "sequences" : "positions");
        };
        check(true, "reward", in.reward, true);
        check(penalised || otb, "logp_old", in.logp_old, false);
        check(penalised, "logp_ref", in.logp_ref, false);
        check(critic, "value", in.value, false);
        check(kind == estimator::remax, "greedy_reward", in.greedy_reward, true);
        check(otb, "sum_probability_squared", in.sum_probability_squared, false);
        check(true, "advantage", out.advantage, false);
        check(!own, "returns", out.returns, false);
        check(own, "per_sequence", out.per_sequence, true);
        check(!own || penalised, "reward_token", out.reward_token, false);
        check(otb, "baseline", out.baseline, false);
        return first;
    }

    // The estimate between the two cuts.
    template <class Executor, class Groups, class Reward, class Out, class Estimate>
    void with_bounds(const Executor& exec, const Groups& groups, const Reward& reward, const view<Out>& out, const Estimate& estimate) const {
        const view r(reward);
        if (reward_bound >= math::unbounded) {
            estimate(r);
        } else {
            constexpr const char* function = "recipe::advantage_rule::by_sequence";
            detail::require(detail::below(function, "reward_bound", reward_bound, 0.0));
            detail::require(detail::check_groups_of(exec, function, groups, r, out, group.singleton));
            detail::require(
                group.scale != group_scale::leave_one_out
                    ? problem{}
                    : detail::complain(function, "reward_bound",
                                       "is %g, but group_scale::leave_one_out reads rewards while it writes: "
                                       "cut them beforehand with shape_rewards",
                                       reward_bound));
            shape_rewards(exec, r, reward_clip{.low = -reward_bound, .high = reward_bound}, out);
            estimate(out);
        }
        if (advantage_bound < math::unbounded) clip_advantage(exec, groups, out, -advantage_bound, advantage_bound);
    }

    template <class Executor, class Groups, class Reward, class Out>
    void estimate_into(const Executor& exec, const Groups& groups, const Reward& r, const Out& out) const {
        switch (kind) {
            case estimator::gpg:
                return grpo::gpg_advantage(exec, groups, r, out, {.singleton = group.singleton});
            case estimator::pass_at_k:
                return grpo::pass_at_k_advantage(exec, groups, r, out,
                                                 {.ddof = group.ddof, .eps = group.eps, .singleton = group.singleton});
            case estimator::raw:
                return grpo::raw_reward(exec, groups, r, out);
            default:
                return grpo::group_normalised(exec, groups, r, out, group);
        }
    }

    // The response's advantage to its tokens; with a KL, less what the tokens from here to the end lose.
    template <class Executor, class Tokens, class T>
    void spread(const Executor& exec, const Tokens& tokens, const token_inputs<T>& in,
                const token_outputs<T>& out) const {
        if (kl.beta == 0) return spread_to_tokens(exec, tokens, out.per_sequence, out.advantage);
        place_outcome(exec, tokens, out.per_sequence, out.reward_token);
        subtract_kl(exec, tokens, in, out.reward_token);
        discounted_returns(exec, tokens, 1.0, out.reward_token, out.advantage);
    }

    template <kl_estimator Estimate, class Executor, class Tokens, class T>
    void subtract(const Executor& exec, const Tokens& tokens, const token_inputs<T>& in, const view<T>& reward) const {
        kl_in_reward(exec, tokens, kl_penalty<Estimate>{.bound = kl.input, .output = kl.output}, kl.beta, reward,
                     in.logp_old, in.logp_ref, reward);
    }
    template <class Executor, class Tokens, class T>
    void subtract_kl(const Executor& exec, const Tokens& tokens, const token_inputs<T>& in,
                     const view<T>& reward) const {
        switch (kl.estimate) {
            case kl_estimator::k1:
                return subtract<kl_estimator::k1>(exec, tokens, in, reward);
            case kl_estimator::k2:
                return subtract<kl_estimator::k2>(exec, tokens, in, reward);
            case kl_estimator::k3:
                return subtract<kl_estimator::k3>(exec, tokens, in, reward);
            case kl_estimator::abs:
                return subtract<kl_estimator::abs>(exec, tokens, in, reward);
        }
    }

    template <class Executor, class Groups, class Tokens, class T>
    void accumulate(const Executor& exec, const Groups& groups, const Tokens& tokens, const token_inputs<T>& in,
                    const token_outputs<T>& out) const {
        const view<const T> reward = out.reward_token;
        const gae_inputs<T> critic{.reward = reward, .value = in.value};
        switch (kind) {
            case estimator::remax:
                return grpo::remax(exec, tokens, reward, in.greedy_reward, out.advantage, out.returns);
            case estimator::gae:
                return grpo::gae(exec, tokens, critic, {.gamma = gamma, .lambda = lambda}, out.advantage, out.returns);
            case estimator::vapo:
                return grpo::vapo(
                    exec, tokens, critic,
                    {.gamma = gamma, .lambda_policy = lambda, .lambda_value = lambda_value, .alpha = alpha},
                    out.advantage, out.returns);
            case estimator::otb:
                return grpo::optimal_token_baseline(
                    exec, groups, tokens,
                    otb_inputs<T>{.reward = reward,
                                  .logp_old = in.logp_old,
                                  .sum_probability_squared = in.sum_probability_squared},
                    out.advantage, out.returns, out.baseline);
            default:
                discounted_returns(exec, tokens, gamma, reward, out.returns);
                return discounted_returns(exec, tokens, gamma, reward, out.advantage);
        }
    }
};

}  // namespace recipe
}  // namespace grpo::inline v0
