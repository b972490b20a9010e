// Terms: the loss of one token, always minimised. `a + b`, `c * a` and `mask * a` compose them.
#pragma once

#include <grpo/term/compose.hpp>
#include <grpo/term/kl.hpp>
#include <grpo/term/policy.hpp>
#include <grpo/term/ratio.hpp>
#include <grpo/term/token.hpp>
