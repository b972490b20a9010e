// Advantages: how rewards become the numbers that a policy loss weighs its tokens with. All are constants of the loss.
//
//   group.hpp         group-normalised (GRPO) with every convention of the field as an option
//   labels.hpp        groups by label: offsets and order
//   relatives.hpp     Dr.GRPO, RLOO, GPG, OPO, pass@k, raw, clipping
//   resampling.hpp    PF-PPO's weights
//   gdpo.hpp          several rewards, each normalised on its own
//   supervision.hpp   outcome and process supervision, per token
//   returns.hpp       outcome placement, KL in the reward, returns, REINFORCE++, ReMax
//   gae.hpp           generalised advantage estimation, VAPO
//   whiten.hpp        whitening over the batch
//   otb.hpp           the optimal token baseline, single- and multi-turn
//   distillation.hpp  teacher advantages, A*-PO
#pragma once

#include <grpo/advantage/distillation.hpp>
#include <grpo/advantage/gae.hpp>
#include <grpo/advantage/gdpo.hpp>
#include <grpo/advantage/group.hpp>
#include <grpo/advantage/labels.hpp>
#include <grpo/advantage/otb.hpp>
#include <grpo/advantage/relatives.hpp>
#include <grpo/advantage/resampling.hpp>
#include <grpo/advantage/returns.hpp>
#include <grpo/advantage/supervision.hpp>
#include <grpo/advantage/whiten.hpp>
