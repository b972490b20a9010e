// What a model can do on held-out problems, before and after training.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <grpo/metric.hpp>
#include <grpo/shape.hpp>

#include "../support/error.hpp"
#include "../support/statistics.hpp"
#include "../support/table.hpp"
#include "check.hpp"
#include "task.hpp"

namespace calculator {

// `samples` responses to each problem, problem after problem: tokens up to and with the end token where there is one.
// With `greedy` there is one response, of the likeliest token each time.
using sampler = std::function<std::vector<std::vector<token>>(std::span<const problem>, int samples, bool greedy)>;

struct evaluation_options {
    int samples = 16;  // for pass@k and maj@k
    std::vector<std::int64_t> ks{1, 4, 16};
    std::size_t batch = 64;                                               // problems that the sampler gets at a time
    std::function<void(std::int64_t done, std::int64_t total)> progress;  // in problems
};

// Numbers of each problem, in the problems' order.
struct evaluation {
    std::vector<double> greedy;                        // 1 where the greedy answer is right
    std::vector<double> steps;                         // share of the greedy response's steps that are right
    std::vector<double> lengths;                       // tokens of the greedy response
    std::vector<double> ended;                         // 1 where the greedy response ended
    std::map<std::int64_t, std::vector<double>> pass;  // k: pass@k
    std::map<std::int64_t, std::vector<double>> maj;   // k: maj@k
};

namespace detail {

class evaluator {
public:
    evaluator(const evaluation_options& options, const sampler& sample) : options_(options), sample_(sample) {
        for (const std::int64_t k : options.ks) {
            if (k < 1 || k > options.samples)
                throw support::bad_input(
                    fmt::format("evaluate: k is {}, but there are {} samples of each problem", k, options.samples));
        }
    }

    evaluation of(std::span<const problem> problems) {
        for (std::size_t first = 0; first < problems.size(); first += options_.batch) {
            const auto part = problems.subspan(first, std::min(options_.batch, problems.size() - first));
            greedily(part);
            if (options_.samples > 0) sampled(part);
            if (options_.progress) {
                options_.progress(static_cast<std::int64_t>(first + part.size()),
                                  static_cast<std::int64_t>(problems.size()));
            }
        }
        return out_;
    }

private:
    std::vector<std::vector<token>> drawn(std::span<const problem> part, int samples, bool greedy) const {
        auto responses = sample_(part, samples, greedy);
        if (responses.size() != part.size() * static_cast<std::size_t>(samples))
            throw std::logic_error(
                fmt::format("evaluate: {} responses came from the sampler for {} problems and {} samples",
                            responses.size(), part.size(), samples));
        return responses;
    }

    void greedily(std::span<const problem> part) {
        const auto responses = drawn(part, 1, true);
        for (std::size_t i = 0; i < part.size(); ++i) {
            const checked c = check(part[i], responses[i]);
            out_.greedy.push_back(c.answer ? 1 : 0);
            out_.steps.push_back(c.step_accuracy());
            out_.lengths.push_back(static_cast<double>(responses[i].size()));
            out_.ended.push_back(c.ended ? 1 : 0);
        }
    }

    // Equal answers vote together; a response without an answer is a vote of its own.
    void sampled(std::span<const problem> part) {
        const auto responses = drawn(part, options_.samples, false);
        std::vector<std::uint8_t> correct;
        std::vector<std::int64_t> answers;
        std::map<std::string, std::int64_t> numbers;
        for (std::size_t i = 0; i < responses.size(); ++i) {
            const checked c = check(part[i / static_cast<std::size_t>(options_.samples)], responses[i]);
            const std::string name = c.answer_text.empty() ? fmt::format("none {}", i) : c.answer_text;
            correct.push_back(c.answer ? 1 : 0);
            answers.push_back(numbers.emplace(name, static_cast<std::int64_t>(numbers.size())).first->second);
        }
        const auto groups = grpo::padded(static_cast<std::int64_t>(part.size()), options_.samples);
        std::vector<double> each(part.size());
        for (const std::int64_t k : options_.ks) {
            grpo::pass_at_k(groups, correct, k, each);
            out_.pass[k].insert(out_.pass[k].end(), each.begin(), each.end());
            std::vector<grpo::majority_cell> cells(static_cast<std::size_t>(grpo::majority_workspace(groups, k)));
            grpo::maj_at_k(groups, answers, correct, k, grpo::majority_tie::first, cells, each);
            out_.maj[k].insert(out_.maj[k].end(), each.begin(), each.end());
        }
    }

    const evaluation_options& options_;
    const sampler& sample_;
    evaluation out_;
};

}  // namespace detail

// Greedy accuracy, pass@k and maj@k of each problem, exact over all k of its samples.
inline evaluation evaluate(std::span<const problem> problems, const sampler& sample,
                           const evaluation_options& options = {}) {
    return detail::evaluator(options, sample).of(problems);
}

// One line of a comparison: what is compared, its numbers of each problem, and whether they are 0 or 1.
struct compared {
    std::string name;
    const std::vector<double>& before;
    const std::vector<double>& after;
    bool binary = false;
};

// The lines of two evaluations on the same problems.
inline std::vector<compared> comparison(const evaluation& before, const evaluation& after) {
    std::vector<compared> lines{{"greedy accuracy", before.greedy, after.greedy, true}};
    for (const auto& [k, each] : before.pass)
        if (after.pass.contains(k)) lines.push_back({fmt::format("pass@{}", k), each, after.pass.at(k), false});
    for (const auto& [k, each] : before.maj)
        if (k > 1 && after.maj.contains(k)) lines.push_back({fmt::format("maj@{}", k), each, after.maj.at(k), false});
    lines.push_back({"steps right", before.steps, after.steps, false});
    return lines;
}

// 95 %: Wilson's for shares of problems, else a bootstrap over problems.
inline support::interval interval_of(std::span<const double> x, bool binary) {
    if (!binary) return support::bootstrap(x);
    const auto right = std::count(x.begin(), x.end(), 1.0);
    return support::wilson(right, static_cast<std::int64_t>(x.size()));
}

// The table of a run: percentages before and after, and the difference paired by problem, each with its 95 % interval.
inline std::string comparison_table(const evaluation& before, const evaluation& after, const std::string& before_name,
                                    const std::string& after_name) {
    support::table t({fmt::format("{} problems", before.greedy.size()), before_name, "95 %", after_name, "95 %",
                      "difference", "95 %"});
    const auto percent = [](double x) { return fmt::format("{:.1f}", 100 * x); };
    const auto range = [](const support::interval& i) {
        return fmt::format("{:.1f} to {:.1f}", 100 * i.low, 100 * i.high);
    };
    for (const compared& c : comparison(before, after)) {
        const auto d = support::paired_difference(c.before, c.after);
        t.add({c.name, percent(support::summary(c.before).mean), range(interval_of(c.before, c.binary)),
               percent(support::summary(c.after).mean), range(interval_of(c.after, c.binary)),
               fmt::format("{:+.1f}", 100 * d.mean),
               fmt::format("{:+.1f} to {:+.1f}", 100 * d.within.low, 100 * d.within.high)});
    }
    t.add({"response length", fmt::format("{:.1f}", support::summary(before.lengths).mean), "",
           fmt::format("{:.1f}", support::summary(after.lengths).mean), "", "", ""});
    return t.text();
}

}  // namespace calculator
