// Rows lie side by side in memory and end anywhere in a pack: a row's last pack holds only its own tokens. Exact
// numbers, so that one token too many or too few shows. Quick to compile.
#include <cstdint>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/advantage/returns.hpp>
#include <grpo/exec/simd.hpp>
#include <grpo/objective.hpp>

namespace {

// Rows of 0, 1, ..., 40 tokens.
std::vector<std::int64_t> rows() {
    std::vector<std::int64_t> cu{0};
    for (std::int64_t n = 0; n <= 40; ++n) cu.push_back(cu.back() + n);
    return cu;
}

TEST_CASE("SIMD: the loss and gradient of a row see the tokens of that row alone") {
    const std::vector<std::int64_t> cu = rows();
    const std::size_t n = static_cast<std::size_t>(cu.back());
    for (std::size_t row = 1; row + 1 < cu.size(); ++row) {
        // This row holds -1, every other one -100.
        const std::int64_t begin = cu[row], end = cu[row + 1];
        std::vector<float> logp(n + 64, -100.0f), gradient(n + 64, 7.0f);
        for (std::int64_t i = begin; i < end; ++i) logp[static_cast<std::size_t>(i)] = -1.0f;
        const std::int64_t length = end - begin;
        const grpo::batch b(grpo::padded(1, length), grpo::logp(grpo::view<const float>(logp.data() + begin, length)));
        const grpo::objective loss{grpo::nll{}, grpo::aggregation::token_sum()};
        const auto r = grpo::evaluate(grpo::simd{}, loss, b, 1.0,
                                      grpo::d_logp(grpo::view<float>(gradient.data() + begin, length)));
        CHECK(r.sum == static_cast<double>(length));
        bool right = true;
        for (std::int64_t i = 0; i < static_cast<std::int64_t>(n); ++i) {
            right = right && gradient[static_cast<std::size_t>(i)] == (begin <= i && i < end ? -1.0f : 7.0f);
        }
        CHECK(right);
    }
}

TEST_CASE("SIMD: a backward sum starts at the row's own end") {
    const std::vector<std::int64_t> cu = rows();
    const std::vector<float> reward(static_cast<std::size_t>(cu.back()), 1.0f);
    std::vector<float> sum(reward.size());
    grpo::discounted_returns(grpo::simd{}, grpo::ragged(cu), 1.0, reward, sum);
    for (std::size_t row = 0; row + 1 < cu.size(); ++row) {
        for (std::int64_t i = cu[row]; i < cu[row + 1]; ++i) {
            CHECK(sum[static_cast<std::size_t>(i)] == static_cast<float>(cu[row + 1] - i));
        }
    }
}

}  // namespace
