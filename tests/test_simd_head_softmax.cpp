// A row's softmax and its gradient against long double, on packs.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include <doctest/doctest.h>

#include <grpo/exec/simd.hpp>

#include <support/softmax_cases.hpp>

namespace {

const grpo::simd exec;

TEST_CASE_TEMPLATE("R1.32 R1.38 log-probability, entropy and gradients of any shape are those of long double", T, float,
                   double, grpo::bfloat16, grpo::float16) {
    softmax_cases::check_shapes<T>(exec);
}

TEST_CASE("R1.32 a vocabulary of 151936") {
    softmax_cases::check_large<float>(exec);
    softmax_cases::check_large<grpo::bfloat16>(exec);
}

TEST_CASE_TEMPLATE("R1.32 R1.38 rows that grow, fall, stay, start with -inf or lie about -1e4", T, float, double) {
    softmax_cases::check_orders<T>(exec);
}

TEST_CASE_TEMPLATE("R1.32 R1.38 one entry far above all others", T, float, double) { softmax_cases::check_huge<T>(exec); }

TEST_CASE_TEMPLATE("R1.38 logits filtered by any large negative number", T, float, double) {
    softmax_cases::check_filtered<T>(exec);
}

TEST_CASE_TEMPLATE("R1.16 R1.38 rows without a policy: -inf alone, +inf, NaN", T, float, double, grpo::bfloat16) {
    softmax_cases::check_without_policy<T>(exec);
}

TEST_CASE_TEMPLATE("R1.32 scale, softcap and bias in their order", T, float, double) { softmax_cases::check_options<T>(exec); }

TEST_CASE_TEMPLATE("R1.12 padding and masked rows are not read; what is computed of them is +0.0", T, float, double,
                   grpo::bfloat16) {
    softmax_cases::check_padding_and_mask<T>(exec);
}

#if defined(__AVX512F__)

using pack = xsimd::batch<float>;
using exponent = grpo::detail::softmax_exponent<pack>;

// The greatest relative error of e^(factor x) / reference, over every lane of a fine sweep of [from, to].
double error_of(const exponent& e, double from, double to) {
    double worst = 0;
    const int steps = 400000;
    alignas(64) float x[16], y[16];
    for (int i = 0; i < steps; i += 16) {
        for (int k = 0; k < 16; ++k) x[k] = static_cast<float>(from + (to - from) * (i + k) / steps);
        e(e.clamped(pack::load_aligned(x))).store_aligned(y);
        for (int k = 0; k < 16; ++k) {
            const long double z = static_cast<long double>(x[k]) * static_cast<long double>(e.factor());
            const long double exact = std::exp(z - static_cast<long double>(e.log_reference()));
            worst = std::max(worst, std::abs(static_cast<double>(static_cast<long double>(y[k]) / exact - 1)));
        }
    }
    return worst;
}

TEST_CASE("the exponential of a row: its relative error, over all that lies above the least normal number") {
    for (const double factor : {1.0, 0.3, 1.7, 1 / 0.3}) {
        for (const double top : {0.0, 1.0, -50.0, 88.0, 500.0}) {
            exponent e(factor);
            (void)e.raise(top / factor);
            INFO("factor ", factor, " top ", top);
            CHECK(std::abs(e.factor() / factor - 1) < 0x1p-24);
            // Its argument is at most the limit; what lies 2^126 below the reference is subnormal.
            const double limit = static_cast<double>(e.limit().get(0));
            CHECK(error_of(e, (e.log_reference() - 87.0) / factor, limit) < 2e-7);
        }
    }
}

TEST_CASE("the exponential of a row far below its reference is 0, and NaN stays NaN") {
    exponent e(1.0);
    (void)e.raise(3.0);
    for (const float x : {-100.0f, -1e4f, -1e30f, -3e38f, -std::numeric_limits<float>::infinity()}) {
        CHECK(e(e.clamped(pack(x))).get(0) == 0.0f);
        CHECK(std::isfinite(e.relative(e.clamped(pack(x))).get(0)));
    }
    CHECK(std::isnan(e(e.clamped(pack(std::numeric_limits<float>::quiet_NaN()))).get(0)));
}

TEST_CASE("raising the reference multiplies what was summed by a power of 2 and leaves room for what raised it") {
    exponent e(1.0);
    CHECK(e.limit().get(0) < -1.8e5f);  // any number of use raises
    CHECK(e.raise(1.0) == 0.0);
    double reference = e.log_reference();
    for (const double top : {20.0, 21.0, 300.0, 1e4, 9e4}) {
        const bool outgrown = static_cast<double>(e.limit().get(0)) < top;
        if (!outgrown) continue;
        const float before = e(e.clamped(pack(5.0f))).get(0);
        const double factor = e.raise(top);
        int power = 0;
        if (factor > 0) CHECK(std::frexp(factor, &power) == 0.5);
        CHECK(factor == doctest::Approx(std::exp(reference - e.log_reference())).epsilon(1e-9));
        CHECK(static_cast<double>(e.limit().get(0)) >= top);
        const float after = e(e.clamped(pack(5.0f))).get(0);
        if (after > 1e-37f) CHECK(static_cast<double>(after) == static_cast<double>(before) * factor);
        reference = e.log_reference();
    }
    (void)e.raise(2e5);
    CHECK(std::isnan(e(e.clamped(pack(2e5f))).get(0)));
}

#endif

}  // namespace
