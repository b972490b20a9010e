// A loss over arrays that another library owns must be the loss over the same numbers in plain memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/sentence.hpp>

namespace adapted {

inline constexpr int rows = 3, width = 5;

// Value (row, column) of the array number `salt`.
inline float number(int row, int column, int salt) {
    return -0.125f * static_cast<float>((row * 7 + column * 3 + salt * 5) % 11) - 0.25f;
}

struct expectation {
    double loss;
    std::vector<float> gradient;  // rows · width, without gaps
};

inline const std::vector<float>& advantages() {
    static const std::vector<float> a{1.0f, -0.5f, 0.25f};
    return a;
}

template <class Shape, class Logp, class Old, class Out>
double evaluate(const Shape& shape, const Logp& logp, const Old& old, Out&& out) {
    const grpo::objective loss{grpo::clipped{.low = 0.2, .high = 0.28}, grpo::aggregation::token_mean()};
    const double n = loss.over.denominator(grpo::count(shape));
    const grpo::batch b(shape, grpo::logp(logp), grpo::logp_old(old), grpo::advantage(grpo::by_sequence(advantages())));
    return grpo::evaluate(grpo::serial{}, loss, b, n, grpo::d_logp(out)).loss(n);
}

inline expectation plain() {
    std::vector<float> logp, old, gradient(static_cast<std::size_t>(rows * width));
    for (int i = 0; i < rows; ++i) {
        for (int k = 0; k < width; ++k) {
            logp.push_back(number(i, k, 0));
            old.push_back(number(i, k, 1));
        }
    }
    const double loss = evaluate(grpo::padded(rows, width), logp, old, gradient);
    return {loss, gradient};
}

using errors::contains;
using errors::sentence;

}  // namespace adapted
