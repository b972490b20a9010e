// Verifiable rewards: is the answer right, and is each step?
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "task.hpp"

namespace calculator {

struct checked_step {
    std::int64_t end = 0;      // index of its last token within the response: "=", the end token, or the last one
    bool well_formed = false;  // an expression as the task writes it
    bool right = false;        // of the prompt's value, with fewer operations than anything before it
};

struct checked {
    bool ended = false;               // there is an end token
    bool well_formed = false;         // ended, and each step is well formed and shorter than before, down to a number
    bool answer = false;              // ended, and the last step is the prompt's value
    std::string answer_text;          // the last step where it is a number and the response ended; else empty
    std::vector<checked_step> steps;  // at least one

    double step_accuracy() const {
        const auto right = std::count_if(steps.begin(), steps.end(), [](const checked_step& s) { return s.right; });
        return static_cast<double>(right) / static_cast<double>(steps.size());
    }
};

namespace detail {

class checker {
public:
    explicit checker(const problem& asked) : asked_(asked), fewest_(asked.operations) {}

    checked of(std::span<const token> response) {
        const auto stop = std::find(response.begin(), response.end(), vocabulary::end);
        out_.ended = stop != response.end();
        auto length = static_cast<std::size_t>(stop - response.begin());
        while (!out_.ended && length > 0 && response[length - 1] == vocabulary::pad) --length;
        const std::string text = vocabulary::decode(response.first(length));
        out_.well_formed = out_.ended;
        const auto more = [&](std::size_t first) {
            return first < text.size() || (first == text.size() && (out_.ended || out_.steps.empty()));
        };
        for (std::size_t first = 0; more(first);) {
            const std::size_t close = std::min(text.find('=', first), text.size());
            step(std::string_view(text).substr(first, close - first), close, text.size());
            first = close + 1;
        }
        out_.well_formed = out_.well_formed && !out_.answer_text.empty();
        return out_;
    }

private:
    void step(std::string_view text, std::size_t close, std::size_t length) {
        const bool last = close == length;
        const std::size_t beyond = last && !out_.ended && close > 0 ? 1 : 0;
        checked_step s{static_cast<std::int64_t>(close - beyond), false, false};
        const auto e = parse(text);
        const auto shown = e ? calculator::text(*e) : std::nullopt;
        s.well_formed = shown && *shown == text;
        const int count = s.well_formed ? operations(*e) : fewest_;
        const bool shorter = count < fewest_;
        s.right = shorter && value(*e) == asked_.value;
        out_.well_formed = out_.well_formed && shorter;
        if (last && out_.ended && s.well_formed && e->is_number()) {
            out_.answer_text = text;
            out_.answer = e->number == asked_.value;
        }
        fewest_ = std::min(fewest_, count);
        out_.steps.push_back(s);
    }

    const problem& asked_;
    int fewest_;
    checked out_;
};

}  // namespace detail

// What is right about a response: its tokens up to the end token, or all of them. Any tokens may come; "=" before
// the end token opens one more, empty step.
inline checked check(const problem& asked, std::span<const token> response) {
    return detail::checker(asked).of(response);
}

}  // namespace calculator
