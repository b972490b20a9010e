// From logits to what the losses need, and back.
//
//   head/logits.hpp      rows of logits, and the options: temperature, scale, softcap, bias, padded vocabulary
//   head/token_logp.hpp  log-probabilities, entropy, full KL, and their gradients        token_logp, d_logits, full_kl
//
//   grpo::token_logp(exec, logits, targets, {.temperature = 0.7}, logp, entropy);
//   ... the loss, with d_logp and d_entropy ...
//   grpo::d_logits(exec, logits, targets, {.temperature = 0.7}, d_logp, d_entropy, gradient);
//
// Sums of a row are in double (serial) or in blocks of packs, never below float, whatever the storage.
#pragma once

#include <grpo/head/fused.hpp>
#include <grpo/head/gemm.hpp>
#include <grpo/head/linear.hpp>
#include <grpo/head/logits.hpp>
#include <grpo/head/loss.hpp>
#include <grpo/head/softmax.hpp>
#include <grpo/head/token_logp.hpp>
