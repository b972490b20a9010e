// The matrix products of onednn_gemm: bfloat16 and float, as far as oneDNN has them on this processor.
#include <cmath>
#include <cstdint>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/adapt/gemm/onednn.hpp>

#include <support/products.hpp>

namespace {

using grpo::bfloat16;

// Whether this processor has products of bfloat16; where it has none, the sentence must say so.
bool has_bfloat16() {
    const bfloat16 x(2.0f);
    float c = 7;
    const grpo::operand one{&x, 1};
    const std::string said = adapted::sentence([&] { grpo::onednn_gemm{}.multiply(1, 1, 1, one, one, 0, &c, 1); });
    CHECK((said.empty() || adapted::contains(said, "grpo::onednn_gemm: a is bfloat16, of which oneDNN")));
    CHECK(c == (said.empty() ? 4.0f : 7.0f));
    if (!said.empty()) MESSAGE("not tested: " << said);
    return said.empty();
}

TEST_CASE("float products of oneDNN equal long double loops in every size and direction") {
    products::check_all<float, float, float>(grpo::onednn_gemm{}, {0.0, 1.0});
    products::check_rounding<float, float, float>(grpo::onednn_gemm{});
}

TEST_CASE("bfloat16 products of oneDNN equal long double loops in every size and direction") {
    if (!has_bfloat16()) return;
    products::check_all<bfloat16, bfloat16, float>(grpo::onednn_gemm{}, {0.0, 1.0});
    products::check_rounding<bfloat16, bfloat16, float>(grpo::onednn_gemm{});
}

TEST_CASE("products written in bfloat16 are those of float, rounded once") {
    if (!has_bfloat16()) return;
    constexpr std::int64_t m = 9, n = 33, k = 70, stride = 40;
    std::vector<bfloat16> a, b;
    for (int i = 0; i < m * k; ++i) a.push_back(bfloat16(static_cast<float>(i * 37 % 101 - 50) / 8));
    for (int i = 0; i < n * k; ++i) b.push_back(bfloat16(static_cast<float>(i * 53 % 97 - 48) / 8));
    std::vector<float> wide(m * stride, 7.0f);
    std::vector<bfloat16> narrow(m * stride, bfloat16(7.0f));
    const grpo::operand left{a.data(), k}, right{b.data(), k, true};
    const grpo::onednn_gemm gemm;
    static_assert(grpo::multiplies<grpo::onednn_gemm, bfloat16, bfloat16, bfloat16>);
    gemm.multiply(m, n, k, left, right, 0, wide.data(), stride);
    gemm.multiply(m, n, k, left, right, 0, narrow.data(), stride);
    int rounded = 0;
    for (std::size_t i = 0; i < wide.size(); ++i) {
        CHECK(narrow[i].bits == bfloat16(wide[i]).bits);
        rounded += static_cast<float>(narrow[i]) != wide[i] ? 1 : 0;
    }
    CHECK(rounded > 100);
    gemm.multiply(m, n, k, left, right, 1, narrow.data(), stride);
    CHECK(std::abs(static_cast<float>(narrow[0]) - 2 * wide[0]) <= std::abs(wide[0]) / 64);
    gemm.multiply(1, 2, 0, left, right, 0, narrow.data(), stride);
    CHECK((narrow[0].bits == 0 && narrow[1].bits == 0));
}

TEST_CASE("one object of onednn_gemm on two threads, and a copy of it afterwards") {
    const grpo::onednn_gemm policy;
    products::check_two_threads<float, float, float>(policy);
    const grpo::onednn_gemm copy = policy;
    CHECK(products::wrong_entries<float>(copy, products::eighths<float, float>(20, 64, 64), false, true, 0) == 0);
    if (has_bfloat16()) products::check_two_threads<bfloat16, bfloat16, float>(policy);
}

TEST_CASE("what onednn_gemm refuses") {
    CHECK_FALSE(grpo::multiplies<grpo::onednn_gemm, double, double, double>);
    CHECK_FALSE(grpo::multiplies<grpo::onednn_gemm, bfloat16, float, float>);
    products::check_refusals<float>(grpo::onednn_gemm{}, "onednn_gemm");
    const float x = 1;
    float c = 7;
    const grpo::operand one{&x, 1};
    CHECK(adapted::sentence([&] { grpo::onednn_gemm{}.multiply(1, 1, 1, one, one, 0.5f, &c, 1); }) ==
          "grpo::onednn_gemm: beta is 0.5, but must be 0 or 1");
    CHECK(c == 7);
}

}  // namespace
