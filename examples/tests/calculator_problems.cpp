// Prints generated problems and what the check says about corrupted responses, for calculator_problems.py to judge.
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "calculator/check.hpp"
#include "calculator/generate.hpp"

namespace {

using namespace calculator;

// One or two characters exchanged, left out or put in.
std::string corrupted(const std::string& text, choices& random) {
    std::string changed = text;
    for (auto edits = random.integer(0, 2); edits > 0; --edits) {
        const auto at = static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(changed.size())));
        const char c = vocabulary::characters[static_cast<std::size_t>(random.integer(0, vocabulary::end - 1))];
        const auto kind = random.integer(0, 2);
        if (kind == 0) changed.insert(at, 1, c);
        if (kind == 1 && at < changed.size()) changed[at] = c;
        if (kind == 2 && at < changed.size()) changed.erase(at, 1);
    }
    return changed;
}

}  // namespace

int main() {
    difficulty d;
    d.lengths = {0.2, 0.4, 0.3, 0.1};
    d.parentheses = 0.5;
    const generated source(d);
    choices random(11);
    for (const problem& p : source.train(3, 0, 3000)) {
        nlohmann::json line{{"prompt", p.prompt}, {"response", p.response}, {"responses", nlohmann::json::array()}};
        for (int i = 0; i < 6; ++i) {
            const std::string text = corrupted(p.response, random);
            const bool ended = random.integer(0, 9) > 0;
            const checked c = check(p, vocabulary::encode(text, ended));
            nlohmann::json steps = nlohmann::json::array();
            for (const checked_step& s : c.steps) steps.push_back({s.end, s.right});
            line["responses"].push_back({{"text", text},
                                         {"ended", ended},
                                         {"answer", c.answer},
                                         {"well_formed", c.well_formed},
                                         {"answer_text", c.answer_text},
                                         {"steps", steps}});
        }
        fmt::print("{}\n", line.dump());
    }
    return std::fflush(stdout) == 0 ? 0 : 1;
}
