// Preference and reward-model losses: DPO and its relatives, through the same engine as the policy losses.
//
//   pair             one pair of responses, its inputs, and the wrappers per_token, judged and by_pair_weight
//   paired           losses against a reference policy (dpo, ipo, hinge, exo, nca, ..., f-divergences, aot)
//   reference_free   simpo, alpha_po, odds ratio, likelihood terms; cpo, orpo, tpo, online_dpo, xpo as sums of terms
//   unpaired         kto, bco (a sample with a label), nash_md
//   sequence         token log-probs to sums per response and slopes back to tokens; LD-DPO's and WPO's weights
//   match            AOT's sorting
//   reward_model     pairwise losses on scores, step-labelled cross-entropy
#pragma once

#include <grpo/preference/match.hpp>
#include <grpo/preference/pair.hpp>
#include <grpo/preference/paired.hpp>
#include <grpo/preference/reference_free.hpp>
#include <grpo/preference/reward_model.hpp>
#include <grpo/preference/sequence.hpp>
#include <grpo/preference/unpaired.hpp>
