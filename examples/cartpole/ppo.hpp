// PPO as CleanRL trains it: play, estimate advantages, then epochs of shuffled minibatches on one objective,
// clipped + vf_coef · value_loss + ent_coef · entropy_bonus, with a bound of the gradient's norm and Adam.
#pragma once

#include <grpo/adapt/torch.hpp>

#include <torch/torch.h>

#include <cstdint>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "cartpole/agent.hpp"
#include "cartpole/environments.hpp"
#include "cartpole/rollout.hpp"
#include "cartpole/settings.hpp"
#include "support/random.hpp"

namespace control {

// Seconds that the processor has spent on this thread.
inline double core_time() {
    timespec t{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

// What an update reports: means over its minibatches.
struct update_report {
    double learning_rate = 0;
    double loss = 0;                // the whole objective
    double entropy = 0;             // of the policy, in nats
    double approx_kl = 0;           // ρ - 1 - log ρ
    double clip_fraction = 0;       // transitions whose gradient the clip takes away
    double explained_variance = 0;  // 1 - var(returns - values) / var(returns) of the rollout
};

class ppo {
public:
    ppo(const std::string& task_name, const settings& s, std::uint64_t seed)
        : settings_(s),
          playing_(make_environments(task_name, s.num_envs, seed)),
          agent_(make_agent(playing_->about(), seed)),
          actions_(support::mixed({seed, std::uint64_t{1} << 32})),
          shuffles_(support::mixed({seed, std::uint64_t{2} << 32})),
          rollout_(s, *playing_),
          optimizer_(agent_->parameters(), torch::optim::AdamOptions(s.learning_rate).eps(1e-5)) {}

    // One rollout and its epochs.
    update_report update() {
        const double begin = core_time();
        rollout_.play(agent_, actions_, ended_);
        play_seconds_ += core_time() - begin;
        rollout_.estimate(agent_, settings_);
        set_learning_rate();
        update_report r = learn();
        r.learning_rate = learning_rate();
        r.explained_variance = explained_variance();
        ++updates_;
        return r;
    }

    bool finished() const { return updates_ >= settings_.updates(); }
    std::int64_t updates() const { return updates_; }
    std::int64_t steps() const { return updates_ * settings_.batch_size(); }
    const std::vector<episode>& episodes() const { return ended_; }
    double play_seconds() const { return play_seconds_; }
    agent& policy() { return agent_; }
    rollout& played() { return rollout_; }

private:
    struct batch {
        at::Tensor observation, action, logp, value, advantage, returns;
    };

    static auto objective(const settings& s) {
        const grpo::clipped policy{.low = s.clip_coef, .high = s.clip_coef};
        const grpo::value_loss critic{.clip = s.clip_vloss ? s.clip_coef : grpo::math::unbounded, .factor = 0.5};
        return grpo::objective{policy + s.vf_coef * critic + s.ent_coef * grpo::entropy_bonus{},
                               grpo::aggregation::token_mean()}
            .diagnosed();
    }

    torch::optim::AdamOptions& adam() {
        return static_cast<torch::optim::AdamOptions&>(optimizer_.param_groups()[0].options());
    }
    double learning_rate() { return adam().lr(); }
    // Linearly to 0 over the updates of the run; the last one still has a rate.
    void set_learning_rate() {
        const double left = 1.0 - static_cast<double>(updates_) / static_cast<double>(settings_.updates());
        adam().lr(settings_.anneal_lr ? left * settings_.learning_rate : settings_.learning_rate);
    }

    // The rollout in a new order.
    batch shuffled() {
        const std::vector<std::int64_t> order = shuffles_.order(settings_.batch_size());
        const at::Tensor index = torch::tensor(order);
        const auto pick = [&](const at::Tensor& x) { return x.flatten().index_select(0, index); };
        const at::Tensor seen = rollout_.observation.narrow(0, 0, settings_.num_steps).flatten(0, 1);
        return {seen.index_select(0, index), pick(rollout_.action),    pick(rollout_.logp),
                pick(rollout_.value),        pick(rollout_.advantage), pick(rollout_.returns)};
    }

    update_report learn() {
        update_report sum;
        double minibatches = 0;
        for (std::int64_t epoch = 0; epoch < settings_.update_epochs; ++epoch) {
            const batch b = shuffled();
            double last_kl = 0;
            for (std::int64_t k = 0; k < settings_.num_minibatches; ++k) {
                last_kl = minimise(b, k * settings_.minibatch_size(), sum);
                minibatches += 1;
            }
            if (settings_.target_kl && last_kl > *settings_.target_kl) break;
        }
        return {0,
                sum.loss / minibatches,
                sum.entropy / minibatches,
                sum.approx_kl / minibatches,
                sum.clip_fraction / minibatches,
                0};
    }

    // One step of the optimizer on the minibatch that begins at `first`. Its approximate KL.
    double minimise(const batch& b, std::int64_t first, update_report& sum) {
        const std::int64_t n = settings_.minibatch_size();
        const auto part = [&](const at::Tensor& x) { return x.narrow(0, first, n).unsqueeze(0); };
        const at::Tensor seen = b.observation.narrow(0, first, n);
        grpo::libtorch::token_tensors x;
        x.values = agent_->critic->forward(seen).view({1, n});
        x.logp_old = part(b.logp);
        x.values_old = part(b.value);
        x.returns = part(b.returns);
        x.advantage = settings_.norm_adv ? normalised(part(b.advantage)) : part(b.advantage);
        const at::Tensor logits = agent_->actor->forward(seen).unsqueeze(0);
        const grpo::libtorch::loss loss =
            grpo::libtorch::evaluate_logits(objective(settings_), logits, part(b.action), {}, x);
        optimizer_.zero_grad();
        loss.value.backward();
        torch::nn::utils::clip_grad_norm_(agent_->parameters(), settings_.max_grad_norm);
        optimizer_.step();
        return add(sum, loss.sums);
    }

    // (A - mean) / (deviation + 1e-8) over the minibatch, divisor n - 1.
    static at::Tensor normalised(const at::Tensor& advantage) {
        return grpo::libtorch::whiten(advantage, {},
                                      {.ddof = 1, .eps = 1e-8, .placement = grpo::eps_placement::outside});
    }

    static double add(update_report& sum, const grpo::loss_result& r) {
        const double kl = r.metrics.approx_kl / r.weight;
        sum.loss += r.loss();
        sum.entropy += r.metrics.entropy / r.weight;
        sum.approx_kl += kl;
        sum.clip_fraction += (r.metrics.clipped_low + r.metrics.clipped_high) / r.weight;
        return kl;
    }

    double explained_variance() const {
        const auto n = rollout_.value.numel();
        const at::Tensor value = rollout_.value.contiguous();
        const auto entries = [&](const at::Tensor& t) { return grpo::view<const float>{t.data_ptr<float>(), n}; };
        const grpo::batch b(grpo::padded(1, n), grpo::values(entries(value)), grpo::returns(entries(rollout_.returns)));
        return grpo::measure_value_fit(grpo::serial{}, b).explained_variance();
    }

    settings settings_;
    std::unique_ptr<environments> playing_;
    agent agent_;
    support::choices actions_;
    support::choices shuffles_;
    rollout rollout_;
    torch::optim::Adam optimizer_;
    std::vector<episode> ended_;
    std::int64_t updates_ = 0;
    double play_seconds_ = 0;
};

}  // namespace control
