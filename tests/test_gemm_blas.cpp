// The matrix products of blas_gemm, by whatever BLAS is installed.
#include <doctest/doctest.h>

#include <grpo/adapt/gemm/blas.hpp>

#include <support/products.hpp>

namespace {

TEST_CASE("blas_gemm equals long double loops in every size, direction and beta") {
    CHECK_FALSE(grpo::multiplies<grpo::blas_gemm, grpo::bfloat16, grpo::bfloat16, float>);
    CHECK_FALSE(grpo::multiplies<grpo::blas_gemm, float, float, double>);
    products::check_all<float, float, float>(grpo::blas_gemm{}, {0.0, 1.0, -0.5});
    products::check_all<double, double, double>(grpo::blas_gemm{}, {0.0, 1.0});
    products::check_rounding<float, float, float>(grpo::blas_gemm{});
    products::check_two_threads<double, double, double>(grpo::blas_gemm{});
    products::check_refusals<float>(grpo::blas_gemm{}, "blas_gemm");
}

TEST_CASE("blas_gemm refuses what the BLAS's integer does not hold") {
    if (sizeof(grpo::detail::blas_integer) > 4) return;
    const float x = 1;
    float c = 7;
    const grpo::operand one{&x, 1};
    CHECK(adapted::sentence([&] {
              grpo::blas_gemm{}.multiply(1, 1, 1, grpo::operand{&x, 2147483648}, one, 0, &c, 1);
          }) == "grpo::blas_gemm: the stride of a is 2147483648, but this BLAS takes at most 2147483647");
    CHECK(adapted::sentence([&] { grpo::blas_gemm{}.multiply(2147483648, 1, 1, one, one, 0, &c, 1); }) ==
          "grpo::blas_gemm: m is 2147483648, but this BLAS takes at most 2147483647");
    CHECK(c == 7);
}

}  // namespace
