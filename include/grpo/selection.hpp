// Selections: which tokens, sequences and groups a loss applies to. All write masks that the caller stores.
//
//   select_clip_cov, select_kl_cov, select_top_entropy, select_m2po    tokens, from all tokens of the batch
//   reject(exec, batch, rejection::logp_error(threshold), keep)        sequences, by rollout mismatch (correction.hpp)
//   off_policy_mask                                                    sequences, a factor of the loss (term/factor.hpp)
//   select_groups, select_samples, expand_rows                         groups, from raw rewards
//
// A mask given as grpo::keep(mask) to the factor selected{} leaves denominators as they were; a shape.where(mask) shrinks them.
#pragma once

#include <grpo/correction/rejection.hpp>
#include <grpo/selection/groups.hpp>
#include <grpo/selection/tokens.hpp>
