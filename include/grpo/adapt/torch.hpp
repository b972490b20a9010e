// grpo on LibTorch tensors: any objective as one autograd node, from log-probabilities or from logits; advantages, GAE,
// whitening. Component `torch` (grpo::torch); Debian's LibTorch 1.13 and torch 2.x.
//
//   const grpo::objective loss{grpo::clipped{} + 0.04 * grpo::kl{}, grpo::aggregation::token_mean()};
//   auto r = grpo::libtorch::evaluate(loss, {.logp = logp, .logp_old = old, .logp_ref = ref, .advantage = a, .mask = m});
//   r.value.backward();
//
// Tensors live on the CPU, or on one CUDA device with the executor of adapt/torch/cuda.hpp. A mistake is a grpo::error
// naming the tensor, before anything is computed.
#pragma once

#include <grpo/adapt/torch/advantages.hpp>
#include <grpo/adapt/torch/head.hpp>
#include <grpo/adapt/torch/head_loss.hpp>
#include <grpo/adapt/torch/hidden_loss.hpp>
#include <grpo/adapt/torch/loss.hpp>
