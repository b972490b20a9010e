// The matrix products of plain_gemm, and of eigen_gemm where Eigen is installed.
#include <doctest/doctest.h>

#include <grpo/head/gemm.hpp>
#if __has_include(<Eigen/Core>)
#include <grpo/adapt/gemm/eigen.hpp>
#endif

#include <support/products.hpp>

namespace {

using grpo::bfloat16;
using grpo::float16;
using products::check_all;
using products::check_refusals;
using products::check_rounding;
using products::check_two_threads;

const std::vector<double> all_betas{0.0, 1.0, -0.5};

TEST_CASE("plain_gemm equals long double loops in every size, direction and beta") {
    check_all<float, float, float>(grpo::plain_gemm{}, all_betas);
    check_all<double, double, double>(grpo::plain_gemm{}, {0.0, 1.0});
}

TEST_CASE("plain_gemm takes 16-bit operands and mixtures") {
    check_all<bfloat16, bfloat16, float>(grpo::plain_gemm{}, {0.0});
    check_all<float16, float, float>(grpo::plain_gemm{}, {1.0});
    check_all<float, bfloat16, double>(grpo::plain_gemm{}, {0.0});
    check_all<double, float16, float>(grpo::plain_gemm{}, {0.0});
}

TEST_CASE("plain_gemm sums in the precision of c") {
    check_rounding<float, float, float>(grpo::plain_gemm{});
    check_rounding<double, double, double>(grpo::plain_gemm{});
    check_rounding<bfloat16, float16, float>(grpo::plain_gemm{});
    check_rounding<bfloat16, float, double>(grpo::plain_gemm{});
}

TEST_CASE("plain_gemm on two threads, and what it refuses") {
    check_two_threads<float, bfloat16, float>(grpo::plain_gemm{});
    check_refusals<float>(grpo::plain_gemm{}, "plain_gemm");
    check_refusals<bfloat16>(grpo::plain_gemm{}, "plain_gemm");
}

TEST_CASE("plain_gemm gives a row the same bits whatever the other rows are") {
    products::numbers draw{11};
    const products::example<float, float> x(20, 70, 300, [&] { return draw.between_minus_one_and_one(); });
    const products::matrix<float> a(x.a, 20, 300, false, 0), b(x.b, 300, 70, true, 0);
    std::vector<float> all(20 * 70), one(70);
    grpo::plain_gemm{}.multiply(20, 70, 300, a.operand(), b.operand(), 0, all.data(), 70);
    for (std::int64_t i = 0; i < 20; ++i) {
        const grpo::operand row{a.memory.data() + i * 300, 300};
        grpo::plain_gemm{}.multiply(1, 70, 300, row, b.operand(), 0, one.data(), 70);
        CHECK(one == std::vector<float>(all.begin() + i * 70, all.begin() + (i + 1) * 70));
    }
}

TEST_CASE("a policy says what it multiplies") {
    CHECK(grpo::multiplies<grpo::plain_gemm, float16, double, float>);
    CHECK_FALSE(grpo::multiplies<grpo::plain_gemm, int, float, float>);
    CHECK_FALSE(grpo::multiplies<grpo::plain_gemm, float, float, bfloat16>);
}

#if __has_include(<Eigen/Core>)
TEST_CASE("eigen_gemm") {
    CHECK_FALSE(grpo::multiplies<grpo::eigen_gemm, bfloat16, bfloat16, float>);
    CHECK_FALSE(grpo::multiplies<grpo::eigen_gemm, float, float, double>);
    check_all<float, float, float>(grpo::eigen_gemm{}, all_betas);
    check_all<double, double, double>(grpo::eigen_gemm{}, {0.0, 1.0});
    check_rounding<float, float, float>(grpo::eigen_gemm{});
    check_two_threads<double, double, double>(grpo::eigen_gemm{});
    check_refusals<float>(grpo::eigen_gemm{}, "eigen_gemm");
}
#endif

}  // namespace
