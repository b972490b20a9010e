// A run from start to end: imitation, evaluation, reinforcement learning, evaluation; and the files it leaves.
#pragma once

#include "../support/error.hpp"
#include "settings.hpp"

namespace calculator {

// A wish that cannot be met as it was put; the program then ends with 2.
struct usage_error : support::bad_input {
    using bad_input::bad_input;
};

// Runs, and prints what came of it. The exit code: 0, or 130 where a Ctrl-C ended it.
//
// Files in settings::out: config.json, sft.csv, metrics.csv, timing.csv, checkpoint.bin, results.json, curves.svg.
// usage_error where there is a run already and neither `resume` nor `force` is set; bad_input and file_error for what
// cannot be read or written.
int run(const settings& s);

}  // namespace calculator
