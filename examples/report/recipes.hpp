// The advantage half of the published recipes, one number per response, by name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <grpo/grpo.hpp>

#include "rollouts.hpp"

namespace report {

struct scored {
    grpo::masked<grpo::ragged<const std::int64_t>, const std::uint8_t> groups;  // over responses, those with a reward
    grpo::ragged<const std::int64_t> tokens;                                    // of each response
    const std::vector<double>& reward;
};

struct advantage_recipe {
    const char* name;
    const char* formula;
    void (*compute)(const scored&, std::vector<double>&);
};

inline const std::vector<advantage_recipe>& advantage_recipes() {
    using out = std::vector<double>;
    static const std::vector<advantage_recipe> all{
        {"grpo", "(r - mean) / (std + 1e-6), arXiv 2402.03300",
         [](const scored& s, out& a) { grpo::group_normalised(s.groups, s.reward, a); }},
        {"dr_grpo", "r - mean, arXiv 2503.20783",
         [](const scored& s, out& a) { grpo::dr_grpo(s.groups, s.reward, a); }},
        {"lite_ppo", "(r - mean) / (std of the batch + 1e-6), arXiv 2508.08221",
         [](const scored& s, out& a) {
             grpo::group_normalised(s.groups, s.reward, a, {.scale = grpo::group_scale::batch});
         }},
        {"rloo", "r - mean of the others, arXiv 2402.14740",
         [](const scored& s, out& a) { grpo::rloo(s.groups, s.reward, a); }},
        {"opo", "r - length-weighted mean, arXiv 2505.23585",
         [](const scored& s, out& a) { grpo::opo(s.groups, s.tokens, s.reward, a); }},
        {"gpg", "(r - mean) * responses / responses that earned something, arXiv 2504.02546",
         [](const scored& s, out& a) { grpo::gpg_advantage(s.groups, s.reward, a); }},
        {"pass_at_k", "(best - second best) / (std + 1e-6) for the best alone, arXiv 2503.19595",
         [](const scored& s, out& a) { grpo::pass_at_k_advantage(s.groups, s.reward, a); }},
        {"raw", "r", [](const scored& s, out& a) { grpo::raw_reward(s.groups, s.reward, a); }},
    };
    return all;
}

// grpo::error naming the known ones if there is none of that name.
inline const advantage_recipe& find_advantage_recipe(const std::string& name) {
    std::string known;
    for (const advantage_recipe& r : advantage_recipes()) {
        if (name == r.name) return r;
        known += (known.empty() ? "" : ", ") + std::string(r.name);
    }
    throw grpo::error(
        grpo::detail::complain("recipe", "name", "is \"%s\", but must be one of %s", name.c_str(), known.c_str()));
}

}  // namespace report
