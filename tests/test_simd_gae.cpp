// Backward scans on SIMD packs agree with the serial ones for rows of every length: GAE with one γλ for all tokens (whose
// powers are known beforehand), with a mask, with ends of episodes, and with a λ per token.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include <grpo/exec/simd.hpp>
#include <grpo/grpo.hpp>

namespace {

struct episode {
    std::vector<std::int64_t> cu{0};
    std::vector<float> reward, value, bootstrap, lambda;
    std::vector<std::uint8_t> mask, terminated, truncated;

    episode() {
        std::mt19937 rng(17);
        std::normal_distribution<float> normal(0.0f, 1.0f);
        for (std::int64_t length = 0; length <= 50; ++length) cu.push_back(cu.back() + length);
        for (std::int64_t i = 0; i < cu.back(); ++i) {
            reward.push_back(normal(rng));
            value.push_back(normal(rng));
            bootstrap.push_back(normal(rng));
            lambda.push_back(0.5f + 0.01f * static_cast<float>(rng() % 50));
            mask.push_back(rng() % 4 != 0);
            terminated.push_back(rng() % 9 == 0);
            truncated.push_back(rng() % 9 == 0);
        }
    }
};

template <class Shape>
void compare(const Shape& shape, const grpo::gae_inputs<float>& in, std::size_t n) {
    std::vector<float> a(n, 7.0f), b(n, 7.0f), ra(n, 7.0f), rb(n, 7.0f);
    grpo::gae(grpo::serial{}, shape, in, {.gamma = 0.98, .lambda = 0.9}, a, ra);
    grpo::gae(grpo::simd{}, shape, in, {.gamma = 0.98, .lambda = 0.9}, b, rb);
    for (std::size_t i = 0; i < n; ++i) {
        CHECK(std::abs(a[i] - b[i]) <= 3e-6f * std::fmax(1.0f, std::abs(a[i])));
        CHECK(std::abs(ra[i] - rb[i]) <= 3e-6f * std::fmax(1.0f, std::abs(ra[i])));
    }
}

}  // namespace

TEST_CASE("GAE on packs is GAE") {
    const episode e;
    const std::size_t n = e.reward.size();
    const auto shape = grpo::ragged(e.cu);
    const grpo::gae_inputs<float> plain{.reward = e.reward, .value = e.value};
    compare(shape, plain, n);
    compare(shape.where(e.mask), plain, n);
    compare(grpo::padded(25, static_cast<std::int64_t>(n) / 25), plain, n);  // 1275 tokens: 25 rows of 51
    compare(shape, {.reward = e.reward, .value = e.value, .terminated = e.terminated}, n);
    compare(shape,
            {.reward = e.reward, .value = e.value, .terminated = e.terminated, .truncated = e.truncated, .bootstrap = e.bootstrap},
            n);
    compare(shape.where(e.mask), {.reward = e.reward, .value = e.value, .lambda_token = e.lambda}, n);
}

TEST_CASE("GAE on packs writes nothing between rows") {
    const episode e;
    std::vector<float> a(200, -77.0f), r(200, -77.0f);
    const std::vector<float> x(a.size(), 0.5f);
    grpo::gae(grpo::simd{}, grpo::padded(4, 35, 55), grpo::gae_inputs<float>{.reward = x, .value = x}, {}, a, r);
    for (std::size_t i = 0; i < a.size(); ++i) CHECK((a[i] == -77.0f) == (i % 55 >= 35));
}
