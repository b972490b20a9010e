// The KL inside the reward (K09): tests/vectors/kl.json, per token and per sequence, every estimator and clamp.
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

#include <grpo/grpo.hpp>

#include "support/vectors.hpp"

namespace {

// Token rewards of the case's outcome and penalty under one estimator.
template <class T, grpo::kl_estimator Value>
std::vector<T> penalised(const vectors::test_case& c, const std::vector<T>& outcome) {
    const auto cu = c.input<std::int64_t>("cu_seqlens");
    const auto mask = c.input<std::uint8_t>("mask");
    const auto shape = grpo::ragged(cu).where(mask);
    const grpo::kl_penalty<Value> estimator{.bound = {c.number("input_bound")}, .output = {c.number("output_bound")}};
    std::vector<T> token(mask.size()), out(mask.size(), T(9));
    grpo::place_outcome(shape, outcome, token);
    grpo::kl_in_reward(shape, estimator, c.number("beta"), token, c.input<T>("logp_old"), c.input<T>("logp_ref"), out);
    return out;
}

template <class T>
std::vector<T> rewards(const vectors::test_case& c, const std::vector<T>& outcome) {
    const std::string value = c.text("value");
    if (value == "k1") return penalised<T, grpo::kl_estimator::k1>(c, outcome);
    if (value == "k2") return penalised<T, grpo::kl_estimator::k2>(c, outcome);
    if (value == "k3") return penalised<T, grpo::kl_estimator::k3>(c, outcome);
    REQUIRE(value == "abs");
    return penalised<T, grpo::kl_estimator::abs>(c, outcome);
}

template <class T>
void check() {
    int by_token = 0;
    int by_sequence = 0;
    for (const auto& c : vectors::load("kl")) {
        INFO(c.id());
        if (c.method() == "kl_in_reward") {
            ++by_token;
            const auto got = rewards(c, c.input<T>("reward"));
            CHECK(vectors::difference(got, c.expected<double>("token_reward"), c.tolerance<T>()) == "");
        } else if (c.method() == "kl_in_sequence_reward") {
            ++by_sequence;
            auto total = c.input<T>("reward");
            const auto token = rewards(c, std::vector<T>(total.size(), T(0)));
            const auto cu = c.input<std::int64_t>("cu_seqlens");
            for (std::size_t s = 0; s < total.size(); ++s) {
                for (std::int64_t i = cu[s]; i < cu[s + 1]; ++i) total[s] += token[static_cast<std::size_t>(i)];
            }
            CHECK(vectors::difference(total, c.expected<double>("reward"), c.tolerance<T>()) == "");
        }
    }
    CHECK(by_token >= 16);
    CHECK(by_sequence >= 16);
}

}  // namespace

TEST_CASE("K09 vectors: token rewards less beta times the KL") {
    check<double>();
    check<float>();
}
