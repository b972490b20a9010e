// Responses as tensors: rows for the model, and one entry per response token for everything that is computed of them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "model.hpp"
#include "outlook.hpp"
#include "sample.hpp"

namespace calculator {

using sequence = std::vector<token>;

inline packed pack(std::span<const sequence> prompts, std::span<const sequence> responses) {
    std::size_t width = 0;
    std::size_t tokens = 0;
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        width = std::max(width, prompts[i].size() + responses[i].size() - 1);
        tokens += responses[i].size();
    }
    const auto rows = static_cast<std::int64_t>(prompts.size());
    packed p;
    p.ids = torch::full({rows, static_cast<std::int64_t>(width)}, vocabulary::pad, torch::kLong);
    p.places = torch::empty({static_cast<std::int64_t>(tokens)}, torch::kLong);
    p.targets = torch::empty({static_cast<std::int64_t>(tokens)}, torch::kLong);
    p.offsets = torch::zeros({rows + 1}, torch::kLong);
    std::int64_t* place = p.places.data_ptr<std::int64_t>();
    std::int64_t* target = p.targets.data_ptr<std::int64_t>();
    for (std::size_t i = 0; i < prompts.size(); ++i) {
        std::int64_t* const row = p.ids.data_ptr<std::int64_t>() + i * width;
        std::copy(prompts[i].begin(), prompts[i].end(), row);
        std::copy(responses[i].begin(), responses[i].end() - 1, row + prompts[i].size());
        for (std::size_t t = 0; t < responses[i].size(); ++t) {
            *place++ = static_cast<std::int64_t>(i * width + prompts[i].size() - 1 + t);
            *target++ = responses[i][t];
        }
        p.offsets.data_ptr<std::int64_t>()[i + 1] = target - p.targets.data_ptr<std::int64_t>();
    }
    return p;
}

// All responses in pieces of so many rows.
inline std::vector<packed> pack_all(std::span<const sequence> prompts, std::span<const sequence> responses,
                                    std::size_t rows) {
    std::vector<packed> pieces;
    std::int64_t tokens = 0;
    for (std::size_t first = 0; first < prompts.size(); first += rows) {
        const std::size_t count = std::min(rows, prompts.size() - first);
        pieces.push_back(pack(prompts.subspan(first, count), responses.subspan(first, count)));
        pieces.back().first_token = tokens;
        pieces.back().number = pieces.size() - 1;
        pieces.back().first_row = static_cast<std::int64_t>(first);
        tokens += pieces.back().tokens();
    }
    return pieces;
}

inline outlook look(transformer& model, const packed& p, double temperature) {
    const at::Tensor states = model.states(p.ids).view({-1, model.options.width}).index_select(0, p.places);
    outlook o;
    o.logits = model.head->forward(states);
    const auto chosen = grpo::libtorch::token_logp(o.logits, p.targets, {.temperature = temperature}, true);
    o.logp = chosen.logp;
    o.entropy = chosen.entropy;
    o.values = model.critic->forward(states).squeeze(-1);
    return o;
}

}  // namespace calculator
