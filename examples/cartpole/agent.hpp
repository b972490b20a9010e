// CleanRL's agent for classic control: a policy and a critic that share nothing, each two tanh layers of 64.
#pragma once

#include <torch/library.h>

#include <torch/torch.h>

#include <cmath>
#include <cstdint>
#include <mutex>

#include "cartpole/dynamics.hpp"

namespace control {

inline torch::nn::Linear orthogonal_layer(std::int64_t inputs, std::int64_t outputs, double gain) {
    torch::nn::Linear layer(inputs, outputs);
    torch::nn::init::orthogonal_(layer->weight, gain);
    torch::nn::init::constant_(layer->bias, 0.0);
    return layer;
}

struct perceptron_impl : torch::nn::Module {
    static constexpr std::int64_t width = 64;
    torch::nn::Linear first, second, last;

    perceptron_impl(std::int64_t inputs, std::int64_t outputs, double last_gain)
        : first(register_module("first", orthogonal_layer(inputs, width, std::sqrt(2.0)))),
          second(register_module("second", orthogonal_layer(width, width, std::sqrt(2.0)))),
          last(register_module("last", orthogonal_layer(width, outputs, last_gain))) {}

    at::Tensor forward(const at::Tensor& x) {
        return last->forward(at::tanh(second->forward(at::tanh(first->forward(x)))));
    }
};
using perceptron = torch::nn::ModuleHolder<perceptron_impl>;

struct agent_impl : torch::nn::Module {
    perceptron actor, critic;  // [n, observations] -> logits [n, actions]; -> values [n, 1]

    explicit agent_impl(const task& t)
        : actor(register_module("actor", perceptron(t.observations, t.actions, 0.01))),
          critic(register_module("critic", perceptron(t.observations, 1, 1.0))) {}
};
using agent = torch::nn::ModuleHolder<agent_impl>;

// Initial weights come from LibTorch's one generator, so agents of several threads are made one at a time.
inline agent make_agent(const task& t, std::uint64_t seed) {
    static std::mutex one_at_a_time;
    const std::lock_guard lock(one_at_a_time);
    torch::manual_seed(seed);
    return agent(t);
}

}  // namespace control
