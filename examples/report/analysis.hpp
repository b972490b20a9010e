// What the report says, computed with grpo from rollouts in memory.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>

#include <grpo/grpo.hpp>

#include "recipes.hpp"
#include "rollouts.hpp"

namespace report {

struct summary {
    std::int64_t count = 0, zero = 0;
    double mean = 0, std = 0, least = 0, greatest = 0;

    static summary of(const std::vector<double>& values) {
        summary s;
        grpo::moments::state<double> m;
        for (const double v : values) {
            grpo::moments::add(m, v);
            s.least = s.count == 0 ? v : std::min(s.least, v);
            s.greatest = s.count == 0 ? v : std::max(s.greatest, v);
            s.zero += v == 0.0 ? 1 : 0;
            ++s.count;
        }
        s.mean = m.mean;
        s.std = std::sqrt(grpo::moments::variance(m, 0));
        return s;
    }
};

struct evaluation_row {
    std::int64_t k = 0;
    std::int64_t groups = 0;  // with at least k scored responses
    double pass = 0, maj = 0;
};

struct analysis {
    std::map<std::int64_t, std::int64_t> sizes;  // group size: how many
    std::vector<grpo::group_report> groups;
    std::int64_t unscored_responses = 0;
    std::int64_t degenerate = 0, all_correct = 0, none_correct = 0, without_scores = 0;
    std::vector<evaluation_row> evaluation;
    std::vector<double> outcome;          // one advantage per response
    std::vector<double> outcome_scored;   // those of scored responses
    std::vector<double> process;          // one advantage per token; empty if there are no steps
    std::vector<double> step_normalised;  // one per step
};

class analyst {
public:
    // wanted: the k of pass@k and maj@k; powers of two up to the largest group if empty.
    static analysis study(const rollouts& data, const grpo::recipe::card& recipe, double threshold,
                          const std::vector<std::int64_t>& wanted) {
        analyst a(data, threshold);
        a.look_at_groups();
        a.evaluate(wanted);
        a.supervise(recipe);
        return a.out_;
    }

private:
    analyst(const rollouts& data, double threshold)
        : data_(data),
          scored_tokens_(static_cast<std::size_t>(data.tokens.back())),
          scored_{grpo::ragged(data.groups).where(data.valid), grpo::ragged(data.tokens).where(scored_tokens_),
                  data.reward} {
        grpo::expand_rows(grpo::ragged(data.tokens), data.valid, scored_tokens_);
        for (const double r : data.reward) correct_.push_back(r >= threshold ? 1 : 0);
    }

    bool correct(std::int64_t i) const { return correct_[static_cast<std::size_t>(i)] != 0; }
    bool valid(std::int64_t i) const { return data_.valid[static_cast<std::size_t>(i)] != 0; }

    void look_at_groups() {
        for (std::int64_t g = 0; g < data_.group_count(); ++g) {
            const auto& groups = scored_.groups;
            std::int64_t n = 0;
            std::int64_t right = 0;
            for (std::int64_t i = groups.begin(g); i < groups.end(g); ++i) {
                n += valid(i) ? 1 : 0;
                right += valid(i) && correct(i) ? 1 : 0;
                out_.unscored_responses += valid(i) ? 0 : 1;
            }
            ++out_.sizes[groups.end(g) - groups.begin(g)];
            out_.without_scores += n == 0 ? 1 : 0;
            out_.all_correct += n > 0 && right == n ? 1 : 0;
            out_.none_correct += n > 0 && right == 0 ? 1 : 0;
        }
    }

    void evaluate(std::vector<std::int64_t> ks) {
        std::int64_t largest = 0;
        for (std::int64_t g = 0; g < data_.group_count(); ++g)
            largest = std::max(largest, scored_.groups.count_active(g));
        if (ks.empty()) {
            for (std::int64_t k = 1; k <= largest; k *= 2) ks.push_back(k);
        }
        for (const std::int64_t k : ks) {
            if (k > largest) {
                throw bad_input(fmt::format("k is {}, but the largest group has {} scored responses", k, largest));
            }
            out_.evaluation.push_back(evaluated(k));
        }
    }

    // The mean over the groups that have k scored responses.
    evaluation_row evaluated(std::int64_t k) const {
        std::vector<double> per_group(data_.prompt.size());
        std::vector<grpo::majority_cell> cells(static_cast<std::size_t>(grpo::majority_workspace(scored_.groups, k)));
        const auto pass = grpo::pass_at_k(scored_.groups, correct_, k, per_group);
        const auto maj =
            grpo::maj_at_k(scored_.groups, data_.answer, correct_, k, grpo::majority_tie::first, cells, per_group);
        return {k, pass.groups, pass.mean(), maj.mean()};
    }

    void supervise(const grpo::recipe::card& recipe) {
        out_.outcome = advantages_per_response(recipe.advantage, scored_);
        for (std::int64_t i = 0; i < data_.response_count(); ++i) {
            if (valid(i)) out_.outcome_scored.push_back(out_.outcome[static_cast<std::size_t>(i)]);
        }
        std::vector<double> ignored(data_.reward.size());
        out_.groups.resize(data_.prompt.size());
        grpo::group_normalised(scored_.groups, data_.reward, ignored, {}, out_.groups);
        for (const grpo::group_report& g : out_.groups) out_.degenerate += g.degenerate ? 1 : 0;
        if (data_.step_end.empty()) return;
        const grpo::reasoning_steps<double, std::int64_t> steps{data_.steps, data_.step_end, data_.step_reward};
        out_.step_normalised.resize(data_.step_end.size());
        out_.process.resize(static_cast<std::size_t>(data_.tokens.back()));
        grpo::process_supervision(grpo::ragged(data_.groups), grpo::ragged(data_.tokens), steps, out_.step_normalised,
                                  out_.process);
    }

    const rollouts& data_;
    std::vector<std::uint8_t> scored_tokens_;
    scored scored_;
    std::vector<std::uint8_t> correct_;
    analysis out_;
};

}  // namespace report
