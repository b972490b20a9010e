// Masks and non-finite tokens for every kind of term, built with -ffast-math among other flags: the compiler may then
// assume that no NaN exists, and x != x is false.
#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/exec/simd.hpp>
#include <grpo/objective.hpp>

#include <support/random_batch.hpp>

namespace {

using random_batch::arrays;
using random_batch::outcome;

// One term of each kind: clip, KL, entropy, critic, coupled sequence, factors.
template <class F>
void kinds(F&& f) {
    f(grpo::clipped{} + 0.04 * grpo::kl{} + 0.01 * grpo::entropy_bonus{});
    f(grpo::value_loss{});
    f(grpo::gspo{.low = 0.1, .high = 0.1} * grpo::kl{});
    f(grpo::off_policy_mask{.delta = 0.1} * grpo::selected{} * grpo::rollout_weighted{} * grpo::cispo{});
}

const std::vector<int> lengths{5, 0, 17, 1, 33};

template <class T, class Exec>
void poison(const Exec& exec) {
    const arrays<T> a = random_batch::make<T>(lengths, 21, 0.5);
    kinds([&](const auto& term) {
        const auto over = grpo::aggregation::sequence_mean();
        const outcome<T> clean = random_batch::diagnose(exec, term, a, a.shape(), over);
        for (const T p : random_batch::poisons<T>()) {
            const arrays<T> b = random_batch::poisoned(a, p);
            const outcome<T> got = random_batch::diagnose(exec, term, b, b.shape(), over);
            CHECK(std::string(random_batch::leak(clean, got, a)) == "");
        }
    });
}

TEST_CASE_TEMPLATE("R1.12 R1.44 masked positions may hold anything under these compiler flags", T, float, double) {
    poison<T>(grpo::serial{});
    poison<T>(grpo::simd{});
}

template <class T, class Exec>
void count(const Exec& exec) {
    for (const T bad : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity(),
                        -std::numeric_limits<T>::infinity()}) {
        for (const std::size_t at : {std::size_t{5}, std::size_t{21}, std::size_t{22}, std::size_t{55}}) {
            arrays<T> a = random_batch::make<T>(lengths, 22, 1.0);
            a.logp[at] = bad;
            const auto check = [&](const auto& term) {
                const auto run = [&](grpo::nonfinite policy) {
                    return random_batch::evaluate(exec, term, a, a.shape(), grpo::aggregation::token_mean(), policy);
                };
                CHECK(run(grpo::nonfinite::report).result.nonfinite == 1);
                CHECK(run(grpo::nonfinite::report).result.first_nonfinite == static_cast<std::int64_t>(at));
                CHECK(run(grpo::nonfinite::propagate).result.nonfinite == 0);
                const outcome<T> skip = run(grpo::nonfinite::skip);
                CHECK(skip.result.nonfinite == 1);
                CHECK(!grpo::detail::is_nonfinite(skip.result.sum));
                for (const T g : skip.d_logp) CHECK(!grpo::detail::is_nonfinite(g));
                CHECK(skip.d_logp[at] == T(0));
            };
            check(grpo::clipped{});
            check(grpo::gspo{});
        }
    }
}

TEST_CASE_TEMPLATE("R1.16 R1.44 a non-finite token is counted and can be skipped under these compiler flags", T, float, double) {
    count<T>(grpo::serial{});
    count<T>(grpo::simd{});
}

TEST_CASE("R1.44 detection by bit pattern") {
    using grpo::detail::is_nonfinite;
    for (const double x : random_batch::poisons<double>()) {
        std::uint64_t bits;
        std::memcpy(&bits, &x, sizeof bits);
        CHECK(is_nonfinite(x) == ((bits >> 52 & 0x7ff) == 0x7ff));
    }
    CHECK(is_nonfinite(std::numeric_limits<float>::quiet_NaN()));
    CHECK(is_nonfinite(-std::numeric_limits<float>::infinity()));
    CHECK(!is_nonfinite(std::numeric_limits<float>::max()));
    CHECK(!is_nonfinite(std::numeric_limits<double>::max()));
    CHECK(!is_nonfinite(0.0f));
}

TEST_CASE("R1.18 a denominator of 0 and a row of nothing under these compiler flags") {
    const arrays<float> a = random_batch::make<float>(lengths, 23, 0.0);
    const outcome<float> r = random_batch::diagnose(grpo::serial{}, grpo::clipped{}, a, a.shape());
    CHECK(r.loss() == 0.0);
    CHECK(r.result.loss() == 0.0);
    for (const float g : r.d_logp) CHECK(g == 0.0f);
}

}  // namespace
