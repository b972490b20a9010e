// The door: everything of grpo that needs only the standard library and a CPU.
// SIMD packs, threads and adapters for other libraries are headers of their own under grpo/exec and grpo/adapt.
#pragma once

#include <grpo/advantage.hpp>
#include <grpo/controller.hpp>
#include <grpo/correction.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/fold.hpp>
#include <grpo/head.hpp>
#include <grpo/metric.hpp>
#include <grpo/objective.hpp>
#include <grpo/paradigm.hpp>
#include <grpo/preference.hpp>
#include <grpo/recipe.hpp>
#include <grpo/scalar.hpp>
#include <grpo/selection.hpp>
#include <grpo/shape.hpp>
#include <grpo/shaping.hpp>
#include <grpo/storage.hpp>
#include <grpo/term.hpp>
