// What happens before an update: problems are answered, answers are checked, and all of it becomes tensors.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include <grpo/selection/groups.hpp>
#include <grpo/shaping/rewards.hpp>

#include "check.hpp"
#include "method.hpp"
#include "settings.hpp"

namespace calculator {

struct group {
    problem asked;
    std::vector<response> responses;
    std::vector<checked> verdicts;

    std::size_t longest() const {
        std::size_t n = 0;
        for (const response& r : responses) n = std::max(n, r.tokens.size());
        return asked.prompt.size() + n;
    }
};

// What is told about a step's responses.
struct tally {
    std::int64_t responses = 0;
    std::int64_t tokens = 0;
    double right = 0;
    double steps_right = 0;
    double well_formed = 0;
    double ended = 0;
    double reward = 0;
    std::int64_t groups = 0;
    std::int64_t useful_groups = 0;

    double share(double sum) const { return responses > 0 ? sum / static_cast<double>(responses) : NAN; }
};

namespace detail {

inline at::Tensor floats(const std::vector<float>& x) {
    return torch::tensor(x, torch::kFloat);
}

// Which groups have responses of different reward.
inline std::vector<std::uint8_t> useful(const std::vector<group>& groups, std::int64_t size) {
    std::vector<float> reward;
    for (const group& g : groups)
        for (const checked& c : g.verdicts) reward.push_back(c.answer ? 1.0f : 0.0f);
    std::vector<std::uint8_t> keep(groups.size());
    grpo::select_groups(grpo::padded(static_cast<std::int64_t>(groups.size()), size), reward,
                        grpo::group_filter::nonzero_std(), keep);
    return keep;
}

}  // namespace detail

// The responses of a step as tensors; rows in the order of the groups.
class assembly {
public:
    assembly(const settings& s, std::int64_t longest_response) : settings_(s), longest_(longest_response) {}

    experience of(const std::vector<group>& groups, bool sampled) const {
        experience e;
        e.group_size = static_cast<std::int64_t>(groups.front().responses.size());
        texts(groups, e);
        rewards(groups, e);
        steps(groups, e);
        if (sampled) {
            std::vector<float> logp;
            for (const group& g : groups)
                for (const response& r : g.responses) logp.insert(logp.end(), r.logp.begin(), r.logp.end());
            e.logp_rollout = detail::floats(logp);
        }
        return e;
    }

private:
    void texts(const std::vector<group>& groups, experience& e) const {
        constexpr std::int64_t rows_of_a_piece = 128;
        std::vector<sequence> prompts;
        std::vector<sequence> responses;
        std::vector<std::int64_t> offsets{0};
        for (const group& g : groups) {
            for (const response& r : g.responses) {
                prompts.push_back(vocabulary::encode(g.asked.prompt));
                responses.push_back(r.tokens);
                offsets.push_back(offsets.back() + static_cast<std::int64_t>(r.tokens.size()));
            }
        }
        const std::int64_t whole_groups = std::max<std::int64_t>(1, rows_of_a_piece / e.group_size);
        e.pieces = pack_all(prompts, responses, static_cast<std::size_t>(whole_groups * e.group_size));
        e.offsets = torch::tensor(offsets, torch::kLong);
    }

    void rewards(const std::vector<group>& groups, experience& e) const {
        std::vector<float> label;
        std::vector<float> length;
        std::vector<float> components;
        for (const group& g : groups) {
            for (std::size_t i = 0; i < g.responses.size(); ++i) {
                label.push_back(g.verdicts[i].answer ? 1.0f : 0.0f);
                length.push_back(static_cast<float>(g.responses[i].tokens.size()));
            }
        }
        components = label;
        for (const group& g : groups)
            for (const checked& c : g.verdicts) components.push_back(static_cast<float>(c.step_accuracy()));
        for (const group& g : groups)
            for (const checked& c : g.verdicts) components.push_back(c.well_formed ? 1.0f : 0.0f);
        e.label = detail::floats(label);
        e.components = detail::floats(components).view({3, -1});
        e.label_of_token = e.label.repeat_interleave(e.offsets.diff());
        e.reward = e.label;
        if (settings_.overlong > 0) e.reward = e.label + penalty(length);
    }

    at::Tensor penalty(const std::vector<float>& length) const {
        const at::Tensor out = torch::empty({static_cast<std::int64_t>(length.size())});
        grpo::overlong_penalty(
            length, {.max_length = static_cast<double>(longest_), .buffer = static_cast<double>(settings_.overlong)},
            grpo::view<float>(out.data_ptr<float>(), out.numel()));
        return out;
    }

    void steps(const std::vector<group>& groups, experience& e) const {
        std::vector<std::int64_t> offsets{0};
        std::vector<std::int64_t> end;
        std::vector<float> reward;
        for (const group& g : groups) {
            for (const checked& c : g.verdicts) {
                for (const checked_step& s : c.steps) {
                    end.push_back(s.end);
                    reward.push_back(s.right ? 1.0f : 0.0f);
                }
                offsets.push_back(static_cast<std::int64_t>(end.size()));
            }
        }
        e.step_offsets = torch::tensor(offsets, torch::kLong);
        e.step_end = torch::tensor(end, torch::kLong);
        e.step_reward = detail::floats(reward);
    }

    const settings& settings_;
    std::int64_t longest_;
};

// Of each group one pair for each response of the rarer kind: the first right with the first wrong, and so on.
inline std::vector<std::pair<std::int64_t, std::int64_t>> pairs_of(const std::vector<group>& groups) {
    std::vector<std::pair<std::int64_t, std::int64_t>> pairs;
    std::int64_t row = 0;
    for (const group& g : groups) {
        std::vector<std::int64_t> right;
        std::vector<std::int64_t> wrong;
        for (const checked& c : g.verdicts) (c.answer ? right : wrong).push_back(row++);
        for (std::size_t i = 0; i < std::min(right.size(), wrong.size()); ++i) pairs.emplace_back(right[i], wrong[i]);
    }
    return pairs;
}

inline tally tally_of(const std::vector<group>& groups) {
    tally t;
    for (const group& g : groups) {
        for (std::size_t i = 0; i < g.responses.size(); ++i) {
            const checked& c = g.verdicts[i];
            ++t.responses;
            t.tokens += static_cast<std::int64_t>(g.responses[i].tokens.size());
            t.right += c.answer ? 1 : 0;
            t.steps_right += c.step_accuracy();
            t.well_formed += c.well_formed ? 1 : 0;
            t.ended += c.ended ? 1 : 0;
        }
    }
    t.groups = static_cast<std::int64_t>(groups.size());
    for (const std::uint8_t k : detail::useful(groups, static_cast<std::int64_t>(groups.front().responses.size())))
        t.useful_groups += k;
    return t;
}

}  // namespace calculator
