// Logits on SIMD packs agree with the serial executor, for every remainder of a pack.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <grpo/exec/simd.hpp>
#include <grpo/grpo.hpp>

namespace {

struct outputs {
    std::vector<float> logp, entropy, kl, gradient, kl_gradient;
};

template <class Exec>
outputs run(const Exec& exec, const std::vector<float>& z, const std::vector<float>& ref, std::int64_t vocabulary) {
    const std::vector<std::int32_t> target{0, static_cast<std::int32_t>(vocabulary - 1), static_cast<std::int32_t>(vocabulary / 2)};
    outputs o{std::vector<float>(3), std::vector<float>(3), std::vector<float>(3), std::vector<float>(z.size()), std::vector<float>(z.size())};
    const auto in = grpo::logits(z, 3, vocabulary);
    const std::vector<float> g{1.0f, -2.0f, 0.5f};
    grpo::token_logp(exec, in, target, {0.8}, grpo::view(o.logp), grpo::view(o.entropy));
    grpo::d_logits(exec, in, target, {0.8}, grpo::view<const float>(g), grpo::view<const float>(g), grpo::view(o.gradient));
    grpo::full_kl(exec, in, grpo::logits(ref, 3, vocabulary), {0.8}, grpo::view(o.kl), grpo::view<const float>(g), grpo::view(o.kl_gradient));
    return o;
}

// Two results in float: each may be off by the 2e-6 that tests/support/softmax_cases.hpp allows one of them.
void compare(const std::vector<float>& a, const std::vector<float>& b) {
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i) CHECK(std::abs(a[i] - b[i]) <= 4e-6f * std::fmax(1.0f, std::abs(b[i])));
}

}  // namespace

TEST_CASE("logp, entropy, full KL and their gradients: simd against serial") {
    std::mt19937 rng(5);
    std::normal_distribution<float> normal(0.0f, 3.0f);
    for (const std::int64_t vocabulary : {1, 2, 7, 8, 15, 16, 17, 31, 33, 100, 5000}) {
        std::vector<float> z, ref;
        for (std::int64_t i = 0; i < 3 * vocabulary; ++i) {
            z.push_back(i % 5 == 3 ? -std::numeric_limits<float>::infinity() : normal(rng));
            ref.push_back(normal(rng));
        }
        z[0] = 1.0f;  // the first target has a probability
        INFO(vocabulary);
        const outputs a = run(grpo::simd{}, z, ref, vocabulary);
        const outputs b = run(grpo::serial{}, z, ref, vocabulary);
        for (std::size_t row = 0; row < 3; ++row) {
            if (std::isinf(b.logp[row])) CHECK(a.logp[row] == b.logp[row]);
            else CHECK(a.logp[row] == doctest::Approx(b.logp[row]).epsilon(1e-6));
        }
        compare(a.entropy, b.entropy);
        compare(a.kl, b.kl);
        compare(a.gradient, b.gradient);
        compare(a.kl_gradient, b.kl_gradient);
    }
}
