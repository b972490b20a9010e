// The language model: a small decoder-only transformer over characters, with a head for the critic.
#pragma once

// torch/library.h comes first: clang with libstdc++ refuses LibTorch 1.13's other headers as C++20 without it.
#include <torch/library.h>

#include <torch/nn.h>
#include <torch/types.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "settings.hpp"
#include "task.hpp"

namespace calculator {

// One block: attention and a two-layer perceptron, each on a normalised copy of what it adds to.
class block : public torch::nn::Module {
public:
    explicit block(const model_options& o)
        : heads(o.heads),
          attention_norm(
              register_module("attention_norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({o.width})))),
          qkv(register_module("qkv", torch::nn::Linear(o.width, 3 * o.width))),
          joined(register_module("joined", torch::nn::Linear(o.width, o.width))),
          hidden_norm(register_module("hidden_norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({o.width})))),
          wide(register_module("wide", torch::nn::Linear(o.width, 4 * o.width))),
          narrow(register_module("narrow", torch::nn::Linear(4 * o.width, o.width))),
          distance(register_parameter("distance", torch::zeros({o.heads, o.context}))) {
        const torch::NoGradGuard off;
        const double smaller = 1.0 / std::sqrt(2.0 * static_cast<double>(o.layers));
        joined->weight.mul_(smaller);
        narrow->weight.mul_(smaller);
    }

    at::Tensor perceptron(const at::Tensor& x) {
        return narrow->forward(torch::relu(wide->forward(hidden_norm->forward(x))).square());
    }

    // x [rows, length, width]; steps [length, length]: how far back the key lies; future: -inf where it lies ahead.
    at::Tensor forward(const at::Tensor& x, const at::Tensor& steps, const at::Tensor& future) {
        const auto rows = x.size(0);
        const auto length = x.size(1);
        const auto width = x.size(2);
        const at::Tensor all = qkv->forward(attention_norm->forward(x))
                                   .view({rows, length, 3, heads, width / heads})
                                   .permute({2, 0, 3, 1, 4});
        const at::Tensor bias = distance.index_select(1, steps).view({1, heads, length, length}) + future;
        const double scale = 1.0 / std::sqrt(static_cast<double>(width / heads));
        const at::Tensor scores = torch::matmul(all[0] * scale, all[1].transpose(-2, -1)) + bias;
        const at::Tensor mixed =
            torch::matmul(scores.softmax(-1), all[2]).transpose(1, 2).reshape({rows, length, width});
        const at::Tensor y = x + joined->forward(mixed);
        return y + perceptron(y);
    }

    std::int64_t heads;
    torch::nn::LayerNorm attention_norm;
    torch::nn::Linear qkv;
    torch::nn::Linear joined;
    torch::nn::LayerNorm hidden_norm;
    torch::nn::Linear wide;
    torch::nn::Linear narrow;
    at::Tensor distance;  // [heads, context]: added to the score of a key so far back
};

// Keys are found by content and by how far back they lie; a position is also a learned vector.
class transformer : public torch::nn::Module {
public:
    explicit transformer(const model_options& o)
        : options(o),
          tokens(register_module("tokens", torch::nn::Embedding(vocabulary::size, o.width))),
          positions(register_module("positions", torch::nn::Embedding(o.context, o.width))),
          norm(register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({o.width})))),
          head(register_module("head", torch::nn::Linear(o.width, vocabulary::size))),
          critic(register_module("critic", torch::nn::Linear(o.width, 1))) {
        const torch::NoGradGuard off;
        tokens->weight.mul_(0.5);
        positions->weight.mul_(0.1);
        critic->weight.zero_();
        critic->bias.zero_();
        for (std::int64_t k = 0; k < o.layers; ++k) {
            blocks.push_back(std::make_shared<block>(o));
            register_module("block" + std::to_string(k), blocks.back());
        }
    }

    // ids [rows, length] to normalised states [rows, length, width].
    at::Tensor states(const at::Tensor& ids) {
        const auto length = ids.size(1);
        const at::Tensor place = torch::arange(length);
        const at::Tensor back = place.unsqueeze(1) - place.unsqueeze(0);
        const at::Tensor future = torch::zeros({length, length}).masked_fill_(back.lt(0), -INFINITY);
        const at::Tensor steps = back.clamp_min(0).view({-1});
        at::Tensor x = tokens->forward(ids) + positions->forward(place);
        for (const auto& b : blocks) x = b->forward(x, steps, future);
        return norm->forward(x);
    }

    model_options options;
    torch::nn::Embedding tokens;
    torch::nn::Embedding positions;
    torch::nn::LayerNorm norm;
    torch::nn::Linear head;
    torch::nn::Linear critic;
    std::vector<std::shared_ptr<block>> blocks;
};

// Copies every weight.
inline void copy_weights(const transformer& from, transformer& to) {
    const torch::NoGradGuard off;
    const auto source = from.parameters();
    const auto target = to.parameters();
    for (std::size_t i = 0; i < source.size(); ++i) target[i].copy_(source[i]);
}

}  // namespace calculator
