// Responses and what a model says of them, as tensors with one entry per response token.
#pragma once

#include <cstddef>
#include <cstdint>

#include <grpo/adapt/torch.hpp>

#include <torch/types.h>

namespace calculator {

// Some consecutive responses as the model reads them. Only the states that predict a response's token are looked at.
struct packed {
    at::Tensor ids;      // [rows, width]: prompt and response but for its last token, padded
    at::Tensor places;   // [tokens]: where in rows · width the states lie that predict them
    at::Tensor targets;  // [tokens]
    at::Tensor offsets;  // [rows + 1], from 0
    std::int64_t first_token = 0;
    std::int64_t first_row = 0;
    std::size_t number = 0;

    std::int64_t rows() const { return ids.size(0); }
    std::int64_t tokens() const { return targets.size(0); }
    // This piece's part of a tensor over the tokens of all.
    at::Tensor of(const at::Tensor& all) const {
        return all.defined() ? all.narrow(0, first_token, tokens()) : at::Tensor();
    }
};

// What the model says of the responses' tokens.
struct outlook {
    at::Tensor logits;  // [tokens, vocabulary]
    at::Tensor logp;
    at::Tensor entropy;
    at::Tensor values;  // the critic's
};

}  // namespace calculator
