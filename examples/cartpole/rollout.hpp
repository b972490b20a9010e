// Playing the policy for num_steps in every environment, and what PPO learns from: log-probabilities, values,
// advantages, returns. Time runs along the first axis, [steps, environments], as in CleanRL.
#pragma once

#include <grpo/adapt/torch.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "cartpole/agent.hpp"
#include "cartpole/environments.hpp"
#include "cartpole/settings.hpp"
#include "support/random.hpp"

namespace control {

class rollout {
public:
    at::Tensor observation;       // [steps + 1, environments, observations]; the next rollout begins with the last
    at::Tensor last_observation;  // [steps, environments, observations]: ends of episodes, where there is one
    at::Tensor action;            // [steps, environments], int64
    at::Tensor logits;            // [steps, environments, actions] of the policy that played
    at::Tensor reward;            // [steps, environments]
    at::Tensor terminated, truncated;
    at::Tensor logp, value, advantage, returns;  // by estimate()

    rollout(const settings& s, environments& playing) : steps_(s.num_steps), playing_(playing) {
        const task& t = playing.about();
        const std::int64_t n = playing.size();
        observation = at::zeros({steps_ + 1, n, t.observations});
        last_observation = at::zeros({steps_, n, t.observations});
        action = at::zeros({steps_, n}, at::kLong);
        logits = at::zeros({steps_, n, t.actions});
        reward = at::zeros({steps_, n});
        terminated = at::zeros({steps_, n}, at::kByte);
        truncated = at::zeros({steps_, n}, at::kByte);
        seen_ = observation.unbind(0);
        playing_.reset(seen_.back().data_ptr<float>());
    }

    // Plays on from where the last rollout ended; episodes that ended on the way are appended.
    void play(agent& policy, support::choices& random, std::vector<episode>& ended) {
        const at::NoGradGuard no_grad;
        const std::int64_t n = playing_.size();
        const std::int64_t width = observation.size(2);
        const std::int64_t choices = logits.size(2);
        seen_.front().copy_(seen_.back());
        for (std::int64_t t = 0; t < steps_; ++t) {
            const at::Tensor now = policy->actor->forward(seen_[static_cast<std::size_t>(t)]);
            float* const kept = logits.data_ptr<float>() + t * n * choices;
            std::copy_n(now.data_ptr<float>(), n * choices, kept);
            std::int64_t* const chosen = action.data_ptr<std::int64_t>() + t * n;
            for (std::int64_t i = 0; i < n; ++i) chosen[i] = sampled(kept + i * choices, choices, random);
            playing_.step(chosen,
                          {observation.data_ptr<float>() + (t + 1) * n * width,
                           last_observation.data_ptr<float>() + t * n * width, reward.data_ptr<float>() + t * n,
                           terminated.data_ptr<std::uint8_t>() + t * n, truncated.data_ptr<std::uint8_t>() + t * n},
                          ended);
        }
    }

    // Fills logp, value, advantage and returns. CleanRL lets no value follow an episode that the step limit cut; with
    // bootstrap_truncated the critic's value of its last observation does.
    void estimate(agent& policy, const settings& s) {
        const at::NoGradGuard no_grad;
        const std::int64_t n = playing_.size();
        const at::Tensor values = policy->critic->forward(observation.flatten(0, 1)).view({steps_ + 1, n});
        value = values.narrow(0, 0, steps_);
        logp = grpo::libtorch::token_logp(logits.flatten(0, 1), action.flatten()).logp.view({steps_, n});

        const at::Tensor over = s.bootstrap_truncated ? terminated : terminated.bitwise_or(truncated);
        at::Tensor cut = s.bootstrap_truncated ? truncated.clone() : at::zeros_like(truncated);
        at::Tensor bootstrap = values_after_a_cut(policy, cut);
        // The rollout's end cuts the episodes that still run: the value of what is seen next follows.
        bootstrap[-1] = at::where(cut[-1].ne(0), bootstrap[-1], values[steps_]);
        cut[-1].fill_(1);
        const auto rows = [](const at::Tensor& x) { return x.transpose(0, 1); };
        const auto estimated = grpo::libtorch::gae({.reward = rows(reward),
                                                    .value = rows(value),
                                                    .terminated = rows(over),
                                                    .truncated = rows(cut),
                                                    .bootstrap = rows(bootstrap)},
                                                   {.gamma = s.gamma, .lambda = s.gae_lambda});
        advantage = rows(estimated.advantage).contiguous();
        returns = rows(estimated.returns).contiguous();
    }

private:
    // A sample of softmax(logits): the argmax of logits plus independent Gumbel variables (Gumbel, 1954).
    static std::int64_t sampled(const float* logit, std::int64_t choices, support::choices& random) {
        std::int64_t best = 0;
        double greatest = 0;
        for (std::int64_t k = 0; k < choices; ++k) {
            const double gumbel = -std::log(-std::log(random.unit() + 0x1p-54));  // never the logarithm of 0
            const double x = static_cast<double>(logit[k]) + gumbel;
            if (k == 0 || x > greatest) {
                greatest = x;
                best = k;
            }
        }
        return best;
    }

    // [steps, environments]; 0 where nothing was cut.
    at::Tensor values_after_a_cut(agent& policy, const at::Tensor& cut) const {
        at::Tensor out = at::zeros(cut.numel());
        const at::Tensor where = cut.flatten().nonzero().flatten();
        if (where.numel() > 0) {
            const at::Tensor last = last_observation.flatten(0, 1).index_select(0, where);
            out.index_copy_(0, where, policy->critic->forward(last).flatten());
        }
        return out.view(cut.sizes());
    }

    std::int64_t steps_;
    environments& playing_;
    std::vector<at::Tensor> seen_;
};

}  // namespace control
