// Every term on SIMD packs against the serial executor, for rows of every length from 1 to 33.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/exec/simd.hpp>
#include <grpo/objective.hpp>

#include <support/all_terms.hpp>
#include <support/random_batch.hpp>

namespace {

using random_batch::arrays;
using random_batch::outcome;

std::vector<int> every_length() {
    std::vector<int> lengths;
    for (int n = 0; n <= 33; ++n) lengths.push_back(n);
    return lengths;
}

bool close(double a, double b) { return std::abs(a - b) <= 2e-6 * std::max(1.0, std::abs(b)); }

// A sum of n float values of order 1, each rounded in its own way: half a place of float for each.
bool close_sum(double a, double b, std::int64_t n) {
    return std::abs(a - b) <= 2e-6 * std::max(1.0, std::abs(b)) + 6e-8 * static_cast<double>(n);
}

std::string difference(const std::vector<float>& got, const std::vector<float>& expected) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
        if (!close(static_cast<double>(got[i]), static_cast<double>(expected[i]))) {
            return "[" + std::to_string(i) + "] " + std::to_string(got[i]) + " != " + std::to_string(expected[i]);
        }
    }
    return "";
}

TEST_CASE("every term on packs has serial's loss and gradients, whatever the length") {
    for (const double active : {1.0, 0.6}) {
        const arrays<float> a = random_batch::make<float>(every_length(), 11, active);
        const auto over = grpo::aggregation::token_sum();
        all_terms::for_each([&](const char* name, const auto& term) {
            INFO(std::string(name));
            const outcome<float> serial = random_batch::evaluate(grpo::serial{}, term, a, a.shape(), over);
            const outcome<float> simd = random_batch::evaluate(grpo::simd{}, term, a, a.shape(), over);
            CHECK(close_sum(simd.loss(), serial.loss(), serial.result.count.tokens));
            CHECK(simd.result.count.tokens == serial.result.count.tokens);
            CHECK(difference(simd.d_logp, serial.d_logp) == "");
            CHECK(difference(simd.d_entropy, serial.d_entropy) == "");
            CHECK(difference(simd.d_values, serial.d_values) == "");
        });
    }
}

TEST_CASE("R1.12 masked positions may hold anything: every term on packs") {
    const arrays<float> a = random_batch::make<float>({0, 1, 5, 16, 33}, 12, 0.5);
    all_terms::for_each([&](const char* name, const auto& term) {
        INFO(std::string(name));
        const outcome<float> clean = random_batch::evaluate(grpo::simd{}, term, a, a.shape());
        for (const float poison : random_batch::poisons<float>()) {
            const arrays<float> b = random_batch::poisoned(a, poison);
            const outcome<float> got = random_batch::evaluate(grpo::simd{}, term, b, b.shape());
            CHECK(std::string(random_batch::leak(clean, got, a)) == "");
        }
    });
}

}  // namespace
