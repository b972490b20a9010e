// Evaluations for other programs.
#pragma once

#include <span>
#include <string>

#include <nlohmann/json.hpp>

#include "evaluate.hpp"

namespace calculator {

// {"problems": n, "before": {"greedy accuracy": {"mean", "low", "high"}, "pass@4": ...}, "after": ..., "difference":
// ...}: shares from 0 to 1 with their 95 % intervals.
inline nlohmann::ordered_json comparison_json(const evaluation& before, const evaluation& after) {
    nlohmann::ordered_json all{{"problems", before.greedy.size()}};
    const auto put = [&](const char* part, const std::string& name, double mean, const support::interval& i) {
        all[part][name] = {{"mean", mean}, {"low", i.low}, {"high", i.high}};
    };
    for (const compared& c : comparison(before, after)) {
        put("before", c.name, support::summary(c.before).mean, interval_of(c.before, c.binary));
        put("after", c.name, support::summary(c.after).mean, interval_of(c.after, c.binary));
        const auto d = support::paired_difference(c.before, c.after);
        put("difference", c.name, d.mean, d.within);
    }
    all["before"]["response length"] = {{"mean", support::summary(before.lengths).mean}};
    all["after"]["response length"] = {{"mean", support::summary(after.lengths).mean}};
    return all;
}

}  // namespace calculator
