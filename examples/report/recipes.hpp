// A recipe's advantages from outcome rewards alone, one number per response.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <grpo/grpo.hpp>
#include <grpo/recipe.hpp>

#include "rollouts.hpp"

namespace report {

// What an advantage is computed from: the responses that have a reward, and their tokens.
struct scored {
    grpo::masked<grpo::ragged<const std::int64_t>, const std::uint8_t> groups;  // over responses
    grpo::masked<grpo::ragged<const std::int64_t>, const std::uint8_t> tokens;  // of each response
    const std::vector<double>& reward;
};

inline std::string known_recipes() {
    std::string all;
    for (const char* name : grpo::recipe::names()) all += (all.empty() ? "" : ", ") + std::string(name);
    return all;
}

// Where a recipe whitens over tokens or discounts, the mean over the response's tokens. A KL in the reward is left out,
// because a file of rollouts has no log-probabilities. grpo::error for a recipe that needs more, such as a critic.
inline std::vector<double> advantages_per_response(grpo::recipe::advantage_rule rule, const scored& from) {
    rule.kl.beta = 0;
    const auto responses = static_cast<std::size_t>(from.groups.extent());
    const auto tokens = static_cast<std::size_t>(from.tokens.extent());
    std::vector<double> per_response(responses), per_token(tokens), returns(tokens), placed(tokens), baseline(tokens);
    const grpo::recipe::token_outputs<double> out{per_token, returns, per_response, placed, baseline};
    rule.by_token(from.groups, from.tokens, grpo::recipe::token_inputs<double>{.reward = from.reward}, out);
    if (rule.gives_sequences() && !rule.whitened) return per_response;
    for (std::int64_t i = 0; i < from.tokens.rows(); ++i) {
        double sum = 0;
        for (std::int64_t t = from.tokens.begin(i); t < from.tokens.end(i); ++t)
            sum += per_token[static_cast<std::size_t>(t)];
        const std::int64_t n = from.tokens.end(i) - from.tokens.begin(i);
        per_response[static_cast<std::size_t>(i)] = n > 0 ? sum / static_cast<double>(n) : 0.0;
    }
    return per_response;
}

}  // namespace report
