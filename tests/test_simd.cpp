// The SIMD executor against the serial one, and its own functions against double. Built for the compiler's default
// instruction set and, as a variant, for AVX2.
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/exec/simd.hpp>
#include <grpo/objective.hpp>

#include <support/random_batch.hpp>

namespace {

using random_batch::arrays;
using random_batch::outcome;

bool close(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance * std::max(1.0, std::abs(b)); }

const auto composed = grpo::clipped{} + 0.04 * grpo::kl{} + 0.01 * grpo::entropy_bonus{};
const auto coupled = grpo::gspo{.low = 0.1, .high = 0.1} * grpo::kl{};

TEST_CASE_TEMPLATE("R1.12 masked positions may hold anything, also beside active ones in a pack", T, float, double) {
    std::vector<int> lengths;
    for (int n = 0; n <= 33; ++n) lengths.push_back(n);
    const auto check = [&](const auto& term) {
        for (const double active : {0.3, 0.9}) {
            const arrays<T> a = random_batch::make<T>(lengths, 1, active);
            for (const auto& over : {grpo::aggregation::token_mean(), grpo::aggregation::sequence_mean()}) {
                const outcome<T> clean = random_batch::diagnose(grpo::simd{}, term, a, a.shape(), over);
                for (const T poison : random_batch::poisons<T>()) {
                    const arrays<T> b = random_batch::poisoned(a, poison);
                    const outcome<T> got = random_batch::diagnose(grpo::simd{}, term, b, b.shape(), over);
                    CHECK(std::string(random_batch::leak(clean, got, a)) == "");
                }
            }
        }
    };
    check(composed);
    check(coupled);
}

TEST_CASE_TEMPLATE("R1.41 a gradient over an input is that of other memory, also with metrics", T, float, double) {
    std::vector<int> rows;
    for (int n = 0; n <= 33; ++n) rows.push_back(n);
    const arrays<T> a = random_batch::make<T>(rows, 8);
    CHECK(random_batch::overwritten(grpo::simd{}, grpo::objective{composed, grpo::aggregation::token_mean()}.diagnosed(), a) == "");
}

TEST_CASE("masks with runs, single tokens and none at all") {
    for (const int period : {1, 2, 3, 7, 16, 17, 64}) {
        arrays<float> a = random_batch::make<float>({100, 37, 64}, 2, 1.0);
        for (std::size_t t = 0; t < a.mask.size(); ++t) {
            a.mask[t] = (static_cast<int>(t) / period) % 2 == 0 ? static_cast<std::uint8_t>(1 + t % 255) : 0;
        }
        const outcome<float> serial = random_batch::diagnose(grpo::serial{}, composed, a, a.shape());
        const outcome<float> simd = random_batch::diagnose(grpo::simd{}, composed, a, a.shape());
        CHECK(simd.result.count.tokens == serial.result.count.tokens);
        CHECK(close(simd.loss(), serial.loss(), 1e-6));
        CHECK(close(simd.result.metrics.ratio_square, serial.result.metrics.ratio_square, 1e-6));
        CHECK(simd.result.metrics.clipped_high == serial.result.metrics.clipped_high);
        CHECK(simd.result.metrics.largest_log_ratio == serial.result.metrics.largest_log_ratio);
        for (std::size_t t = 0; t < a.mask.size(); ++t) {
            CHECK(close(static_cast<double>(simd.d_logp[t]), static_cast<double>(serial.d_logp[t]), 1e-6));
            if (a.mask[t] == 0) CHECK(!std::signbit(simd.d_logp[t]));
        }
    }
}

TEST_CASE_TEMPLATE("R1.16 every place of a non-finite token in a pack is found, counted and skipped", T, float, double) {
    const arrays<T> clean = random_batch::make<T>({40}, 3, 1.0);
    for (std::size_t at = 0; at < 40; ++at) {
        arrays<T> a = clean;
        a.logp[at] = at % 2 == 0 ? std::numeric_limits<T>::quiet_NaN() : -std::numeric_limits<T>::infinity();
        if (at + 3 < 40) a.logp_old[at + 3] = std::numeric_limits<T>::infinity();
        const std::int64_t expected = at + 3 < 40 ? 2 : 1;
        const auto check = [&](const auto& term) {
            const auto over = grpo::aggregation::token_mean();
            const outcome<T> skip = random_batch::evaluate(grpo::simd{}, term, a, a.shape(), over, grpo::nonfinite::skip);
            const outcome<T> serial = random_batch::evaluate(grpo::serial{}, term, a, a.shape(), over, grpo::nonfinite::skip);
            CHECK(skip.result.nonfinite == expected);
            CHECK(skip.result.first_nonfinite == static_cast<std::int64_t>(at));
            CHECK(close(skip.loss(), serial.loss(), 1e-5));
            CHECK(skip.d_logp[at] == T(0));
            CHECK(!std::signbit(skip.d_logp[at]));
            const outcome<T> report = random_batch::evaluate(grpo::simd{}, term, a, a.shape(), over);
            CHECK(report.result.nonfinite == expected);
            CHECK(report.result.first_nonfinite == static_cast<std::int64_t>(at));
            const outcome<T> propagate = random_batch::evaluate(grpo::simd{}, term, a, a.shape(), over, grpo::nonfinite::propagate);
            CHECK(propagate.result.nonfinite == 0);
            CHECK(propagate.result.first_nonfinite == -1);
        };
        check(grpo::clipped{});
        check(grpo::gspo{});
    }
}

TEST_CASE("R1.16 a non-finite entry behind the mask is not counted") {
    arrays<float> a = random_batch::make<float>({33}, 4, 1.0);
    a.mask[7] = a.mask[32] = 0;
    a.logp[7] = a.logp[32] = NAN;
    const outcome<float> r = random_batch::evaluate(grpo::simd{}, composed, a, a.shape());
    CHECK(r.result.nonfinite == 0);
    CHECK(std::isfinite(r.result.sum));
}

TEST_CASE("a row of many packs is summed in double") {
    // 2^16 losses of 1 and one of 2^-10: a float accumulator of 4 to 16 lanes would still hold it, one of the whole row
    // in float would not; the sum over 300 blocks must not drift.
    const std::size_t n = 1 << 18;
    arrays<float> a = random_batch::make<float>({1}, 5, 1.0);
    a.each([&](std::vector<float>& x) { x.assign(n, 0.0f); });
    a.logp.assign(n, -0.1f);
    a.mask.assign(n, 1);
    a.cu = {0, static_cast<std::int64_t>(n)};
    const outcome<float> r = random_batch::evaluate(grpo::simd{}, grpo::nll{}, a, a.shape());
    CHECK(close(r.loss(), static_cast<double>(0.1f), 1e-6));
}

using pack = xsimd::batch<float>;
constexpr int lanes = grpo::scalar_traits<pack>::lanes;

// The error of `got` in units of the last place of float at `exact`.
double places(float got, double exact) {
    int exponent = 0;
    std::frexp(exact, &exponent);
    const double unit = std::ldexp(1.0, std::max(exponent - 24, -149));
    return std::abs(static_cast<double>(got) - exact) / unit;
}

template <class F, class Exact>
double worst(F&& f, Exact&& exact, float low, float high) {
    double worst_error = 0;
    const int steps = 200000;
    for (int i = 0; i < steps; i += lanes) {
        alignas(64) float x[lanes], y[lanes];
        for (int k = 0; k < lanes; ++k) x[k] = low + (high - low) * static_cast<float>(i + k) / steps;
        f(pack::load_aligned(x)).store_aligned(y);
        for (int k = 0; k < lanes; ++k) worst_error = std::max(worst_error, places(y[k], exact(static_cast<double>(x[k]))));
    }
    return worst_error;
}

TEST_CASE("exp and expm1 of a pack are within two places of float") {
    const auto exp = [](const pack& x) { return grpo::math::exp(x); };
    const auto expm1 = [](const pack& x) { return grpo::math::expm1(x); };
    const auto exact_exp = [](double x) { return std::exp(x); };
    const auto exact_expm1 = [](double x) { return std::expm1(x); };
    CHECK(worst(exp, exact_exp, -104, 88) <= 2);
    CHECK(worst(exp, exact_exp, -1, 1) <= 2);
    CHECK(worst(expm1, exact_expm1, -104, 88) <= 2);
    CHECK(worst(expm1, exact_expm1, -1, 1) <= 2);
    CHECK(worst(expm1, exact_expm1, -1e-3f, 1e-3f) <= 2);
}

TEST_CASE("exp and expm1 of a pack at the ends of the line") {
    const auto first = [](const pack& x) { return x.get(0); };
    const float inf = INFINITY;
    CHECK(first(grpo::math::exp(pack(0.0f))) == 1.0f);
    CHECK(first(grpo::math::expm1(pack(0.0f))) == 0.0f);
    CHECK(first(grpo::math::exp(pack(inf))) == inf);
    CHECK(first(grpo::math::exp(pack(-inf))) == 0.0f);
    CHECK(first(grpo::math::exp(pack(1e30f))) == inf);
    CHECK(first(grpo::math::exp(pack(-1e30f))) == 0.0f);
    CHECK(first(grpo::math::exp(pack(89.0f))) == inf);
    CHECK(first(grpo::math::expm1(pack(inf))) == inf);
    CHECK(first(grpo::math::expm1(pack(-inf))) == -1.0f);
    CHECK(std::isnan(first(grpo::math::exp(pack(NAN)))));
    CHECK(std::isnan(first(grpo::math::expm1(pack(NAN)))));
    CHECK(std::isfinite(first(grpo::math::exp(pack(88.7f)))));
    CHECK(places(first(grpo::math::expm1(pack(88.5f))), std::expm1(88.5)) <= 2);
    CHECK(first(grpo::math::expm1(pack(89.5f))) == inf);
    CHECK(first(grpo::math::exp_split(pack(inf)).expm1) == inf);
}

}  // namespace
