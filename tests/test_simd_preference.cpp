// Preference losses and their helpers on SIMD packs against the serial executor: same text, same numbers up to rounding.
#include <cmath>
#include <cstdint>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/exec/simd.hpp>
#include <grpo/grpo.hpp>

#include <support/all_pair_terms.hpp>

namespace {

template <class T>
bool near(const std::vector<T>& a, const std::vector<T>& b, double tolerance) {
    for (std::size_t i = 0; i < a.size(); ++i) {
        if (!(std::abs(a[i] - b[i]) <= tolerance * std::fmax(1.0, std::abs(static_cast<double>(a[i]))))) return false;
    }
    return a.size() == b.size();
}

TEST_CASE("every pair term gives on packs what it gives on single pairs") {
    const std::size_t n = 37;
    const all_pair_terms::pairs<float> data(n);
    all_pair_terms::for_each([&](const char* name, const auto& term) {
        INFO(name);
        const grpo::objective loss{term, grpo::aggregation::token_mean()};
        std::vector<float> w(n), l(n), simd_w(n, 9.0f), simd_l(n, 9.0f);
        const auto a = grpo::evaluate(grpo::serial{}, loss, data.batch(), 37.0, grpo::d_chosen(w), grpo::d_rejected(l));
        const auto b =
            grpo::evaluate(grpo::simd{}, loss, data.batch(), 37.0, grpo::d_chosen(simd_w), grpo::d_rejected(simd_l));
        CHECK(std::abs(a.sum - b.sum) <= 1e-5 * std::fmax(1.0, std::abs(a.sum)));
        CHECK(near(w, simd_w, 1e-6));
        CHECK(near(l, simd_l, 1e-6));
    });
}

TEST_CASE("sums of responses, slopes of tokens and steps on packs") {
    const std::vector<int> cu{0, 20, 20, 53};
    std::vector<float> logp(53), logits(106);
    std::vector<std::uint8_t> mask(53);
    std::vector<int> label(53);
    for (std::size_t i = 0; i < logp.size(); ++i) {
        logp[i] = -0.1f * static_cast<float>(i % 11);
        mask[i] = i % 3 != 0;
        label[i] = static_cast<int>(i % 2);
        logits[2 * i] = logp[i];
        logits[2 * i + 1] = 0.5f;
    }
    const auto shape = grpo::ragged(cu).where(mask);
    std::vector<float> a(3), b(3);
    grpo::sequence_logp(shape, logp, a, grpo::pooling::mean);
    grpo::sequence_logp(grpo::simd{}, shape, logp, b, grpo::pooling::mean);
    CHECK(near(a, b, 1e-6));
    std::vector<float> d(53, 9.0f), e(53, 9.0f);
    grpo::spread(shape, a, d);
    grpo::spread(grpo::simd{}, shape, a, e);
    CHECK(d == e);
    std::vector<float> f(106), g(106, 9.0f);
    CHECK(grpo::step_loss(shape, logits, label, 30.0, f).sum ==
          doctest::Approx(grpo::step_loss(grpo::simd{}, shape, logits, label, 30.0, g).sum).epsilon(1e-6));
    CHECK(near(f, g, 1e-6));
}

}  // namespace
