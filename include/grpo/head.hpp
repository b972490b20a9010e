// From logits to what the losses need, and back.
//
//   head/logits.hpp      rows of logits, and the options: temperature, scale, softcap, bias, padded vocabulary
//   head/token_logp.hpp  log-probabilities, entropy, full KL, and their gradients     token_logp, d_logits, full_kl
//   head/loss.hpp        any objective from logits to their gradient, fused           evaluate_logits
//   head/linear.hpp      any objective from hidden states to theirs and the weight's  evaluate_hidden
//   head/gemm.hpp        who multiplies                                               plain_gemm, and grpo/adapt/gemm
//   head/shard.hpp       a vocabulary in slices                                       token_logp_of_slices
// How, for whoever reads on: head/exponent.hpp, head/softmax.hpp (one row, forth and back), head/fused.hpp.
//
//   const auto r = grpo::evaluate_logits(exec, loss, grpo::logits(z, rows, vocabulary), targets, {.temperature = 0.7},
//                                        batch, denominator, grpo::view(gradient), grpo::view(workspace));
//
// Sums of a row are in double (serial) or in blocks of packs, never below float, whatever the storage. A call reads a row
// of logits once, and writes its gradient once.
#pragma once

#include <grpo/head/fused.hpp>
#include <grpo/head/gemm.hpp>
#include <grpo/head/linear.hpp>
#include <grpo/head/logits.hpp>
#include <grpo/head/loss.hpp>
#include <grpo/head/shard.hpp>
#include <grpo/head/softmax.hpp>
#include <grpo/head/token_logp.hpp>
