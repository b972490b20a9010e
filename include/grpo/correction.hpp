// Rollout correction: the tokens of a batch were sampled by an inference engine whose probabilities differ from the
// trainer's. With log w = logp_old - logp_rollout,
//
//   correction_weights(exec, batch(shape, logp_old(o), logp_rollout(r)), correction::tis(2.0), w)   weights for the loss
//   reject(exec, batch, rejection::k3(rejection_level::sequence_mean, 0.01), keep)                  a mask for the loss
//   measure_mismatch(exec, batch)                                                                   metrics, as sums
//
// A NaN logp_rollout means that the sampler did not report it: it counts as log w = 0 here, and is counted (R1.17). Every
// other non-finite log-probability of an active token is counted with the index of the first (R1.16).
//
// Bypass mode needs no function: give the rollout's log-probabilities to the loss as logp_old. Its ratio is then
// π_θ / π_rollout, clipped as usual, and no weight is applied; rejection against a recomputed logp_old still can be.
#pragma once

#include <grpo/correction/mismatch.hpp>
#include <grpo/correction/rejection.hpp>
#include <grpo/correction/weights.hpp>
