// Rollouts in memory: flat arrays and offsets, which is what grpo's shapes look at.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../support/error.hpp"

namespace report {

using support::bad_input;

struct rollouts {
    std::string format;
    std::vector<std::string> prompt;      // one per group
    std::vector<std::int64_t> groups{0};  // offsets: responses of each prompt
    std::vector<double> reward;           // one per response
    std::vector<std::uint8_t> valid;      // 0: the response could not be scored
    std::vector<std::int64_t> answer;     // equal numbers for equal answers within a group; see has_answers
    std::vector<std::int64_t> tokens{0};  // offsets: tokens of each response
    std::vector<std::int64_t> steps{0};   // offsets: steps of each response
    std::vector<std::int64_t> step_end;   // index of the step's last token within its response
    std::vector<double> step_reward;
    std::int64_t answered = 0;                          // responses that name an answer
    std::int64_t right = 0, wrong = 0, unreadable = 0;  // annotations checked

    std::int64_t group_count() const { return static_cast<std::int64_t>(prompt.size()); }
    std::int64_t response_count() const { return static_cast<std::int64_t>(reward.size()); }
};

}  // namespace report
