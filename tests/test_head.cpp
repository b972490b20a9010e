// Logits to log-probability, entropy and full KL, and the way back.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <grpo/grpo.hpp>

#include <support/sentence.hpp>

#include "support/vectors.hpp"

namespace {

const float minus_inf = -std::numeric_limits<float>::infinity();

template <class T>
grpo::view<T> all(std::vector<T>& v) {
    return {v.data(), static_cast<std::int64_t>(v.size())};
}
template <class T>
grpo::view<const T> read(const std::vector<T>& v) {
    return {v.data(), static_cast<std::int64_t>(v.size())};
}

// log softmax in long double.
template <class T>
double exact_logp(const T* z, std::size_t vocabulary, std::size_t target, double temperature) {
    long double top = -std::numeric_limits<long double>::infinity();
    for (std::size_t v = 0; v < vocabulary; ++v) top = std::fmax(top, static_cast<long double>(static_cast<double>(z[v])));
    long double sum = 0;
    for (std::size_t v = 0; v < vocabulary; ++v) {
        sum += std::exp((static_cast<long double>(static_cast<double>(z[v])) - top) / static_cast<long double>(temperature));
    }
    const long double shifted = (static_cast<long double>(static_cast<double>(z[target])) - top) / static_cast<long double>(temperature);
    return static_cast<double>(shifted - std::log(sum));
}

template <class T>
std::vector<T> random_logits(std::size_t n, unsigned seed) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal(0.0f, 4.0f);
    std::vector<T> z;
    for (std::size_t i = 0; i < n; ++i) z.push_back(T(normal(rng)));
    return z;
}

template <class T>
void check_entropy_vectors() {
    std::size_t seen = 0;
    for (const auto& c : vectors::load("value_entropy")) {
        if (c.method() != "entropy_from_logits") continue;
        ++seen;
        INFO(c.id());
        const auto z = c.input<T>("logits");
        const auto vocabulary = static_cast<std::int64_t>(c.integer("vocabulary"));
        const std::int64_t rows = static_cast<std::int64_t>(z.size()) / vocabulary;
        const grpo::head_options options{c.number("temperature")};
        const std::vector<std::int32_t> target(static_cast<std::size_t>(rows), 0);
        std::vector<T> entropy(static_cast<std::size_t>(rows));
        grpo::token_logp(grpo::serial{}, grpo::logits(z, rows, vocabulary), target, options, grpo::view<T>{}, all(entropy));
        const auto expected = c.expected<double>("entropy");
        for (std::size_t i = 0; i < entropy.size(); ++i) {
            CHECK(vectors::close(static_cast<double>(entropy[i]), expected[i], c.tolerance<T>()));
        }
        const std::vector<T> ones(entropy.size(), T(1));
        std::vector<T> gradient(z.size(), T(9));
        grpo::d_logits(grpo::serial{}, grpo::logits(z, rows, vocabulary), target, options, grpo::view<const T>{}, read(ones),
                       all(gradient));
        const auto slopes = c.expected<double>("gradient/logits");
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            CHECK(vectors::close(static_cast<double>(gradient[i]), slopes[i], c.tolerance<T>()));
        }
    }
    CHECK(seen >= 5);
}

template <class T>
void check_full_kl_vectors() {
    std::size_t seen = 0;
    for (const auto& c : vectors::load("kl")) {
        if (c.method() != "full_kl") continue;
        ++seen;
        INFO(c.id());
        const auto z = c.input<T>("logits");
        const auto ref = c.input<T>("logits_ref");
        const auto n = static_cast<std::int64_t>(z.size());
        std::vector<T> kl(1, T(9));
        std::vector<T> gradient(z.size(), T(9));
        grpo::full_kl(grpo::serial{}, grpo::logits(z, 1, n), grpo::logits(ref, 1, n), {}, all(kl), grpo::view<const T>{},
                      all(gradient));
        CHECK(vectors::close(static_cast<double>(kl[0]), c.value(), c.tolerance<T>()));
        const auto slopes = c.expected<double>("gradient/logits");
        for (std::size_t i = 0; i < gradient.size(); ++i) {
            CHECK(vectors::close(static_cast<double>(gradient[i]), slopes[i], c.tolerance<T>()));
        }
    }
    CHECK(seen >= 3);
}

template <class T>
void check_storage(double tolerance) {
    const std::size_t vocabulary = 5000;
    const auto z = random_logits<T>(2 * vocabulary, 11);
    const std::vector<std::int64_t> target{17, 4999};
    for (const double temperature : {1.0, 0.7}) {
        std::vector<double> logp(2);
        grpo::token_logp(grpo::serial{}, grpo::logits(z, 2, 5000), target, {temperature}, all(logp));
        for (std::size_t row = 0; row < 2; ++row) {
            const double exact =
                exact_logp(z.data() + row * vocabulary, vocabulary, static_cast<std::size_t>(target[row]), temperature);
            CHECK(std::abs(static_cast<double>(logp[row]) - exact) <= tolerance * std::abs(exact));
        }
    }
}

}  // namespace

TEST_CASE("E01 R1.38 vectors: entropy from logits and its gradient, also with filtered logits") {
    check_entropy_vectors<double>();
    check_entropy_vectors<float>();
}

TEST_CASE("K05 vectors: the full KL and its gradient") {
    check_full_kl_vectors<double>();
    check_full_kl_vectors<float>();
}

TEST_CASE("R1.32 log-probabilities of 16-bit logits are computed in at least float, with the temperature inside") {
    check_storage<double>(1e-14);
    check_storage<float>(2e-7);
    check_storage<grpo::bfloat16>(2e-7);  // of the stored values: the storage rounds, the sum does not
    check_storage<grpo::float16>(2e-7);
}

TEST_CASE("R1.32 a log-probability is never above 0") {
    const std::vector<float> z{80.0f, -80.0f, -90.0f, 3.0f, 3.0f, minus_inf};
    std::vector<float> logp(2);
    grpo::token_logp(grpo::serial{}, grpo::logits(z, 2, 3), std::vector<int>{0, 1}, {0.1}, all(logp));
    CHECK(logp[0] == 0.0f);
    CHECK(logp[1] == doctest::Approx(-std::log(2.0)));
}

TEST_CASE("R1.38 rows that start with, or are nothing but, -inf") {
    const std::vector<float> z{minus_inf, 1.0f, 1.0f, minus_inf, minus_inf, minus_inf};
    std::vector<float> logp(2, 9.0f), entropy(2, 9.0f), gradient(6, 9.0f);
    const std::vector<int> target{1, 0};
    grpo::token_logp(grpo::serial{}, grpo::logits(z, 2, 3), target, {}, all(logp), all(entropy));
    CHECK(logp[0] == doctest::Approx(-std::log(2.0)));
    CHECK(entropy[0] == doctest::Approx(std::log(2.0)));
    CHECK(logp[1] == minus_inf);
    CHECK(entropy[1] == 0.0f);
    const std::vector<float> one{1.0f, 1.0f};
    grpo::d_logits(grpo::serial{}, grpo::logits(z, 2, 3), target, {}, read(one), read(one), all(gradient));
    for (const float g : gradient) CHECK(std::isfinite(g));
    CHECK(gradient[0] == 0.0f);
    CHECK(gradient[1] == doctest::Approx(0.5));
    CHECK(gradient[2] == doctest::Approx(-0.5));
    CHECK((gradient[3] == 0.0f && gradient[4] == 0.0f && gradient[5] == 0.0f));
}

TEST_CASE("the gradient of the log-probability against central differences, in place as well") {
    const std::int64_t vocabulary = 23;
    auto z = random_logits<double>(2 * 23, 3);
    const std::vector<std::int64_t> target{5, 22};
    const std::vector<double> g{0.75, -1.5}, h{-0.25, 0.5};
    const grpo::head_options options{1.3};
    const auto objective = [&](const std::vector<double>& at) {
        std::vector<double> logp(2), entropy(2);
        grpo::token_logp(grpo::serial{}, grpo::logits(at, 2, vocabulary), target, options, all(logp), all(entropy));
        return g[0] * logp[0] + g[1] * logp[1] + h[0] * entropy[0] + h[1] * entropy[1];
    };
    std::vector<double> gradient(z.size());
    grpo::d_logits(grpo::serial{}, grpo::logits(z, 2, vocabulary), target, options, read(g), read(h), all(gradient));
    for (std::size_t i = 0; i < z.size(); ++i) {
        auto up = z, down = z;
        up[i] += 1e-5;
        down[i] -= 1e-5;
        CHECK(gradient[i] == doctest::Approx((objective(up) - objective(down)) / 2e-5).epsilon(1e-6));
    }
    auto in_place = z;
    grpo::d_logits(grpo::serial{}, grpo::logits(in_place, 2, vocabulary), target, options, read(g), read(h), all(in_place));
    CHECK(in_place == gradient);
}

TEST_CASE("a stride leaves what lies between the rows alone") {
    const std::vector<float> z{1.0f, 2.0f, 99.0f, 3.0f, 1.0f};
    std::vector<float> logp(2), gradient(5, 7.0f);
    const std::vector<int> target{0, 1};
    grpo::token_logp(grpo::serial{}, grpo::logits(z, 2, 2, 3), target, {}, all(logp));
    CHECK(logp[0] == doctest::Approx(-std::log1p(std::exp(1.0))));
    CHECK(logp[1] == doctest::Approx(-std::log1p(std::exp(2.0))));
    grpo::d_logits(grpo::serial{}, grpo::logits(z, 2, 2, 3), target, {}, read(logp), grpo::view<const float>{}, all(gradient));
    CHECK(gradient[2] == 7.0f);
}

TEST_CASE("a user's mistakes are sentences") {
    const std::vector<float> z(6);
    std::vector<float> logp(2, 9.0f);
    const auto message = [](auto&& call) { return errors::sentence(call, "no error"); };
    CHECK(message([&] { grpo::token_logp(grpo::serial{}, grpo::logits(z, 2, 3), std::vector<int>{0, 3}, {}, all(logp)); }) ==
          "grpo::token_logp: targets has 3 at token 1, but the vocabulary has 3 entries");
    CHECK(message([&] { grpo::token_logp(grpo::serial{}, grpo::logits(z, 2, 4), std::vector<int>{0, 1}, {}, all(logp)); }) ==
          "grpo::token_logp: logits has 6 entries, but the batch has 8 positions");
    CHECK(message([&] {
              grpo::token_logp(grpo::serial{}, grpo::logits(z, 2, 3), std::vector<int>{0, 1}, {0.0}, all(logp));
          }) == "grpo::token_logp: temperature is 0, but must be above 0");
    CHECK(logp[0] == 9.0f);
}

TEST_CASE("16-bit storage rounds to the nearest and back") {
    CHECK(static_cast<float>(grpo::bfloat16(1.0f)) == 1.0f);
    CHECK(grpo::bfloat16(1.00390625f).bits == 0x3f80);  // a tie goes to the even fraction
    CHECK(grpo::bfloat16(1.01171875f).bits == 0x3f82);
    CHECK(std::isnan(static_cast<float>(grpo::bfloat16(std::numeric_limits<float>::quiet_NaN()))));
    CHECK(static_cast<float>(grpo::float16(65504.0f)) == 65504.0f);
    CHECK(grpo::float16(65520.0f).bits == 0x7c00);
    CHECK(static_cast<float>(grpo::float16(-0.333251953125f)) == -0.333251953125f);
    CHECK(static_cast<float>(grpo::float16(5.9604644775390625e-8f)) == 5.9604644775390625e-8f);  // the least subnormal
    CHECK(static_cast<float>(grpo::float16(minus_inf)) == minus_inf);
    for (unsigned bits = 0; bits < 0x7c00; ++bits) {  // every finite half survives the way to float and back
        grpo::float16 h;
        h.bits = static_cast<std::uint16_t>(bits);
        if (grpo::float16(static_cast<float>(h)).bits != bits) FAIL_CHECK("half ", bits);
    }
}
