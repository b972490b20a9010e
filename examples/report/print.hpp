// The report as text.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <string>

#include <fmt/format.h>

#include "analysis.hpp"
#include "rollouts.hpp"

namespace report {

class page {
public:
    static std::string of(const std::string& file, const rollouts& data, const analysis& a,
                          const grpo::recipe::card& recipe, std::int64_t shown_groups) {
        page p;
        p.overview(file, data, a);
        p.groups(data, a);
        p.evaluation(data, a);
        p.outcome(data, a, recipe, shown_groups);
        p.process(data, a);
        return fmt::to_string(p.text_);
    }

private:
    template <class... Values>
    void add(fmt::format_string<Values...> form, Values&&... values) {
        fmt::format_to(std::back_inserter(text_), form, std::forward<Values>(values)...);
    }

    static double percent(std::int64_t part, std::int64_t whole) {
        return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0;
    }

    void overview(const std::string& file, const rollouts& data, const analysis& a) {
        add("{}: {}\n\n", file, data.format);
        add("  prompts              {:>9}\n", data.group_count());
        add("  responses            {:>9}\n", data.response_count());
        add("    without a reward   {:>9}\n", a.unscored_responses);
        add("    with an answer     {:>9}\n", data.answered);
        add("  tokens               {:>9}\n", data.tokens.back());
        add("  steps                {:>9}\n", data.step_end.size());
        const std::int64_t annotations = data.right + data.wrong + data.unreadable;
        if (annotations > 0) {
            add("  annotations          {:>9}\n", annotations);
            add("    right              {:>9}  {:.2f} % of those that can be read\n", data.right,
                percent(data.right, data.right + data.wrong));
            add("    wrong              {:>9}\n", data.wrong);
            add("    unreadable         {:>9}\n", data.unreadable);
        }
    }

    void groups(const rollouts& data, const analysis& a) {
        add("\nGroup sizes\n\n  responses   groups\n");
        for (const auto& [size, count] : a.sizes) add("  {:>9}  {:>7}\n", size, count);
        add("\nDegenerate groups: {} of {} ({:.1f} %); equal rewards, so no gradient from advantages\n\n", a.degenerate,
            data.group_count(), percent(a.degenerate, data.group_count()));
        add("  all correct          {:>9}\n", a.all_correct);
        add("  none correct         {:>9}\n", a.none_correct);
        add("  without any reward   {:>9}\n", a.without_scores);
    }

    void evaluation(const rollouts& data, const analysis& a) {
        add("\nEvaluation, the mean over groups with at least k scored responses\n\n        k    pass@k     maj@k   "
            "groups\n");
        for (const evaluation_row& r : a.evaluation) {
            add("  {:>7}  {:>8.4f}  {:>8}  {:>7}\n", r.k, r.pass,
                data.answered > 0 ? fmt::format("{:.4f}", r.maj) : "-", r.groups);
        }
        if (data.answered == 0) add("  (no maj@k: the file names no answers)\n");
    }

    // Four decimals, or six digits where those would be too many; without the sign of a rounded 0.
    static std::string number(double x) {
        if (std::abs(x) < 0.00005) x = 0.0;
        return std::abs(x) < 1e5 ? fmt::format("{:.4f}", x) : fmt::format("{:.5g}", x);
    }
    void line(const char* what, const summary& s) {
        add("  {:<16}{:>9}  {:>10} {:>10} {:>10} {:>10}  {:>9}\n", what, s.count, number(s.mean), number(s.std),
            number(s.least), number(s.greatest), s.zero);
    }
    void heading() {
        add("  {:<16}{:>9}  {:>10} {:>10} {:>10} {:>10}  {:>9}\n", "", "count", "mean", "std", "least", "greatest",
            "zeros");
    }

    void outcome(const rollouts& data, const analysis& a, const grpo::recipe::card& recipe, std::int64_t shown) {
        add("\nOutcome supervision, recipe {}: {} ({})\n\n", recipe.name, recipe.summary, recipe.source);
        if (recipe.advantage.kl.beta != 0)
            add("  (without the KL in its rewards: the file has no log-probabilities)\n\n");
        heading();
        line("per response", summary::of(a.outcome_scored));
        if (shown > 0) add("\n");
        for (std::int64_t g = 0; g < std::min(shown, data.group_count()); ++g) {
            add("  {:<12}", data.prompt[static_cast<std::size_t>(g)]);
            for (auto i = data.groups[static_cast<std::size_t>(g)]; i < data.groups[static_cast<std::size_t>(g) + 1];
                 ++i) {
                const auto at = static_cast<std::size_t>(i);
                add("  {}:{:+.4f}", data.valid[at] != 0 ? fmt::format("{:g}", data.reward[at]) : "-", a.outcome[at]);
            }
            add("\n");
        }
        if (shown > 0)
            add("  (reward:advantage of the first {} prompts; --groups changes how many)\n",
                std::min(shown, data.group_count()));
    }

    void process(const rollouts& data, const analysis& a) {
        add("\nProcess supervision: all step rewards of a group normalised together, a token gets the sum over the "
            "steps that\n"
            "end at it or later, arXiv 2402.03300 section 4.1.3\n\n");
        if (data.step_end.empty()) return add("  (the file has no steps)\n");
        heading();
        line("step rewards", summary::of(data.step_reward));
        line("normalised", summary::of(a.step_normalised));
        line("per token", summary::of(a.process));
    }

    fmt::memory_buffer text_;
};

}  // namespace report
