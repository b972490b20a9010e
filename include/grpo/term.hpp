// Terms: the loss of one token, always minimised. `a + b`, `c * a` and `mask * a` compose them.
#pragma once

#include <grpo/term/compose.hpp>
#include <grpo/term/entropy.hpp>
#include <grpo/term/factor.hpp>
#include <grpo/term/kl.hpp>
#include <grpo/term/policy.hpp>
#include <grpo/term/ratio.hpp>
#include <grpo/term/sequence.hpp>
#include <grpo/term/supervised.hpp>
#include <grpo/term/token.hpp>
#include <grpo/term/value.hpp>
#include <grpo/term/weighted.hpp>
