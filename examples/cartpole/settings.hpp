// The hyper-parameters of PPO, under CleanRL's names and with its defaults (cleanrl/ppo.py).
#pragma once

#include <cstdint>
#include <optional>

#include <fmt/format.h>

#include "support/error.hpp"

namespace control {

struct settings {
    std::int64_t total_timesteps = 500000;
    double learning_rate = 2.5e-4;
    std::int64_t num_envs = 4;
    std::int64_t num_steps = 128;
    bool anneal_lr = true;
    double gamma = 0.99;
    double gae_lambda = 0.95;
    std::int64_t num_minibatches = 4;
    std::int64_t update_epochs = 4;
    bool norm_adv = true;
    double clip_coef = 0.2;
    bool clip_vloss = true;
    double ent_coef = 0.01;
    double vf_coef = 0.5;
    double max_grad_norm = 0.5;
    std::optional<double> target_kl;
    bool bootstrap_truncated = false;  // not CleanRL's: the critic's value follows an episode that the step limit cut

    std::int64_t batch_size() const { return num_envs * num_steps; }
    std::int64_t minibatch_size() const { return batch_size() / num_minibatches; }
    // As in CleanRL, what is left of the steps after the last whole rollout is not played.
    std::int64_t updates() const { return total_timesteps / batch_size(); }

    // What each option allows by itself, but not together with the others.
    void validate() const {
        if (batch_size() % num_minibatches != 0) {
            throw support::bad_input(
                fmt::format("--num-minibatches is {}, but must divide --num-envs times --num-steps, {} transitions",
                            num_minibatches, batch_size()));
        }
        if (updates() < 1) {
            throw support::bad_input(fmt::format("--steps is {}, but one update plays --num-envs times --num-steps, {}",
                                                 total_timesteps, batch_size()));
        }
    }
};

}  // namespace control
