// Token rewards and returns against tests/vectors/advantage.json and shaping.json, and requirements R1.12, R1.13,
// R1.37.
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <grpo/advantage.hpp>
#include <grpo/term/kl.hpp>

#include "support/advantage_cases.hpp"

namespace {

using namespace advantage_cases;
using std::size_t;

// The library's estimator as a term, chosen by the case.
template <class T, class Shape>
void shaped(const vectors::test_case& c, const Shape& tokens, const std::vector<T>& reward, const std::vector<T>& old,
            const std::vector<T>& ref, double beta, std::vector<T>& out) {
    const auto with = [&](auto estimator) {
        if (c.text("output_bound") != "inf") estimator.output.bound = c.number("output_bound");
        grpo::kl_in_reward(tokens, estimator, beta, reward, old, ref, out);
    };
    const std::string kind = c.text("kl");
    if (kind == "k1") return with(grpo::kl_penalty<grpo::kl_estimator::k1>{});
    if (kind == "k2") return with(grpo::kl_penalty<grpo::kl_estimator::k2>{});
    if (kind == "k3") return with(grpo::kl_penalty<grpo::kl_estimator::k3>{});
    if (kind == "abs") return with(grpo::kl_penalty<grpo::kl_estimator::abs>{});
    vectors::stop("unknown estimator " + kind);
}

// All functions of returns.hpp on one batch, as one list of arrays, for properties that hold for each of them.
template <class T, class Shape>
std::vector<std::vector<T>> everything(const Shape& tokens, const std::vector<T>& reward, const std::vector<T>& old,
                                       const std::vector<T>& ref, const std::vector<T>& by_sequence) {
    const size_t n = reward.size();
    std::vector<std::vector<T>> out(10, std::vector<T>(n, T(77)));
    std::vector<T> centred(by_sequence.size());
    grpo::discounted_returns(tokens, 0.75, reward, out[0]);
    grpo::reinforce_plus_plus(tokens, reward, out[1], out[2], {.gamma = 0.75});
    grpo::remax(tokens, reward, by_sequence, out[3], out[4]);
    grpo::reinforce_plus_plus_baseline(grpo::padded(1, tokens.rows()), tokens, by_sequence, centred, out[5]);
    grpo::spread_to_tokens(tokens, by_sequence, out[6]);
    grpo::place_outcome(tokens, by_sequence, out[7]);
    grpo::kl_in_reward(tokens, grpo::kl{}, 0.5, reward, old, ref, out[8]);
    grpo::discounted_returns(tokens, 1.0, out[7], out[9]);
    return out;
}

}  // namespace

TEST_CASE("vectors: discounted returns and turn returns") {
    CHECK(for_each("advantage", "discounted_return", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> reward = c.input<T>("reward_token");
              std::vector<T> g(reward.size(), T(77));
              with_tokens(c,
                          [&](const auto& tokens) { grpo::discounted_returns(tokens, c.number("gamma"), reward, g); });
              CHECK(wrong(c, "return_token", g) == "");
          }) == 5);
    CHECK(for_each("advantage", "turn_returns", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> reward = c.input<T>("reward");
              const offsets turns = c.input<std::int64_t>("turn_offsets");
              std::vector<T> g(reward.size(), T(77));
              grpo::discounted_returns(grpo::ragged(turns), c.number("discount"), reward, g);
              CHECK(wrong(c, "return", g) == "");
          }) == 4);
}

TEST_CASE("vectors: REINFORCE++ and its baseline form") {
    CHECK(for_each("advantage", "reinforce_plus_plus", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> reward = c.input<T>("reward_token");
              std::vector<T> a(reward.size(), T(77)), g(a);
              with_tokens(c, [&](const auto& tokens) {
                  grpo::reinforce_plus_plus(tokens, reward, a, g,
                                            {c.number("gamma"), whiten_options(c.data().at("parameters"))});
              });
              CHECK(wrong(c, "advantage_token", a) == "");
              CHECK(wrong(c, "return_token", g) == "");
          }) == 8);
    CHECK(for_each("advantage", "reinforce_plus_plus_baseline", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> reward = c.input<T>("reward");
              const offsets groups = c.input<std::int64_t>("group_offsets");
              with_tokens(c, [&](const auto& tokens) {
                  std::vector<T> centred(reward.size()), a(static_cast<size_t>(tokens.extent()), T(77));
                  grpo::reinforce_plus_plus_baseline(
                      grpo::ragged(groups), tokens, reward, centred, a,
                      {singleton(c.text("singleton")), whiten_options(c.data().at("parameters"))});
                  CHECK(wrong(c, "advantage_token", a) == "");
              });
          }) == 8);
}

TEST_CASE("vectors: ReMax") {
    CHECK(for_each("advantage", "remax", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> reward = c.input<T>("reward_token"), baseline = c.input<T>("baseline");
              std::vector<T> a(reward.size(), T(77)), g(a);
              with_tokens(c, [&](const auto& tokens) { grpo::remax(tokens, reward, baseline, a, g); });
              CHECK(wrong(c, "advantage_token", a) == "");
              CHECK(wrong(c, "return_token", g) == "");
          }) == 2);
}

TEST_CASE("vectors: KL in the reward and the outcome's place") {
    CHECK(for_each("shaping", "kl_in_reward", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> reward = c.input<T>("reward_token");
              const std::vector<T> old = c.input<T>("logp_old"), ref = c.input<T>("logp_ref");
              std::vector<T> out(reward.size(), T(77));
              with_tokens(c, [&](const auto& tokens) { shaped(c, tokens, reward, old, ref, c.number("beta"), out); });
              CHECK(wrong(c, "reward_token", out) == "");
          }) == 17);
    CHECK(for_each("shaping", "place_outcome", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> reward = c.input<T>("reward");
              with_tokens(c, [&](const auto& tokens) {
                  std::vector<T> out(static_cast<size_t>(tokens.extent()), T(77));
                  grpo::place_outcome(tokens, reward, out);
                  CHECK(wrong(c, "reward_token", out) == "");
              });
          }) == 2);
}

TEST_CASE_TEMPLATE("R1.12 R1.14 masked tokens may hold anything and get +0.0", T, float, double) {
    numbers draw(12);
    const offsets cu = {0, 6, 6, 7, 15, 18};
    flags mask(18);
    for (auto& m : mask) m = draw.next() % 3 != 0;
    for (size_t i = 15; i < 18; ++i) mask[i] = 0;  // a row without any active token
    const std::vector<T> reward = draw.many<T>(18, -1, 1), old = draw.many<T>(18, -3, 0), ref = draw.many<T>(18, -3, 0);
    const std::vector<T> by_sequence = draw.many<T>(5, -1, 1);
    std::vector<std::vector<T>> base;
    for (const T poison : poisons<T>()) {
        std::vector<T> r(reward), o(old), f(ref);
        for (size_t i = 0; i < r.size(); ++i) {
            if (!mask[i]) r[i] = o[i] = f[i] = poison;
        }
        const auto got = everything(grpo::ragged(cu).where(mask), r, o, f, by_sequence);
        if (base.empty()) base = got;
        for (size_t k = 0; k < got.size(); ++k) {
            CHECK(same_bits(got[k], base[k]));
            for (size_t i = 0; i < r.size(); ++i) REQUIRE((mask[i] || plus_zero(got[k][i])));
        }
    }
}

TEST_CASE_TEMPLATE("R1.13 R1.37 holes and padding equal the compacted batch, bit by bit", T, float, double) {
    numbers draw(37);
    const size_t rows = 4, wide = 11;
    for (int round = 0; round < 20; ++round) {
        flags mask(rows * wide);
        for (auto& m : mask) m = draw.next() % 2;
        const std::vector<T> reward = draw.many<T>(mask.size(), -1, 1), old = draw.many<T>(mask.size(), -3, 0);
        const std::vector<T> ref = draw.many<T>(mask.size(), -3, 0), by_sequence = draw.many<T>(rows, -1, 1);
        std::vector<size_t> live;
        offsets packed = {0};
        for (size_t row = 0; row < rows; ++row) {
            for (size_t i = row * wide; i < (row + 1) * wide; ++i) {
                if (mask[i]) live.push_back(i);
            }
            packed.push_back(static_cast<std::int64_t>(live.size()));
        }
        const auto compact = [&](const std::vector<T>& x) {
            std::vector<T> y;
            for (const size_t i : live) y.push_back(x[i]);
            return y;
        };
        const auto holed = everything(grpo::padded(4, 11).where(mask), reward, old, ref, by_sequence);
        const auto dense = everything(grpo::ragged(packed), compact(reward), compact(old), compact(ref), by_sequence);
        for (size_t k = 0; k < holed.size(); ++k) REQUIRE(same_bits(compact(holed[k]), dense[k]));
    }
}

TEST_CASE("R1.14 the outcome on the last active token is not lost when gamma is 0") {
    const offsets cu = {0, 4};
    const flags mask = {1, 1, 0, 0};
    const std::vector<double> reward = {2.5};
    std::vector<double> token(4), g(4);
    grpo::place_outcome(grpo::ragged(cu).where(mask), reward, token);
    CHECK(token == std::vector<double>{0, 2.5, 0, 0});
    grpo::discounted_returns(grpo::ragged(cu).where(mask), 0.0, token, g);
    CHECK(g == std::vector<double>{0, 2.5, 0, 0});
    grpo::discounted_returns(grpo::ragged(cu).where(mask), 0.5, token, g);
    CHECK(g == std::vector<double>{1.25, 2.5, 0, 0});
}

TEST_CASE_TEMPLATE("R1.42 returns of [T, B] equal those of [B, T]; in place is fine", T, float, double) {
    numbers draw(42);
    const size_t rows = 3, steps = 7;
    const std::vector<T> x = draw.many<T>(rows * steps, -1, 1);
    std::vector<T> y(x.size()), by_row(x.size()), by_time(x.size());
    for (size_t i = 0; i < x.size(); ++i) y[i % steps * rows + i / steps] = x[i];
    grpo::discounted_returns(grpo::padded(3, 7), 0.9, x, by_row);
    grpo::discounted_returns(grpo::time_major(7, 3), 0.9, y, by_time);
    for (size_t i = 0; i < x.size(); ++i) CHECK(by_time[i % steps * rows + i / steps] == by_row[i]);
    std::vector<T> z(x);
    grpo::discounted_returns(grpo::padded(3, 7), 0.9, z, z);
    CHECK(same_bits(z, by_row));
}

TEST_CASE("R1.37 sizes that do not match are errors") {
    const std::vector<double> x = {1, 2, 3, 4}, two = {1, 2}, three = {1, 2, 3};
    std::vector<double> out(4), few(3), centred(2);
    const grpo::padded rows(2, 2);
    CHECK_THROWS_AS(grpo::discounted_returns(rows, 1.0, three, out), grpo::error);
    CHECK_THROWS_AS(grpo::discounted_returns(rows, 1.0, x, few), grpo::error);
    CHECK_THROWS_AS(grpo::discounted_returns(rows, -1.0, x, out), grpo::error);
    CHECK_THROWS_AS(grpo::remax(rows, x, three, out, out), grpo::error);
    CHECK_THROWS_AS(grpo::place_outcome(rows, three, out), grpo::error);
    CHECK_THROWS_AS(grpo::spread_to_tokens(rows, two, few), grpo::error);
    CHECK_THROWS_AS(grpo::kl_in_reward(rows, grpo::kl{}, 0.1, x, x, three, out), grpo::error);
    CHECK_THROWS_AS(grpo::kl_in_reward(rows, grpo::kl{}, -0.1, x, x, x, out), grpo::error);
    CHECK_THROWS_AS(grpo::reinforce_plus_plus(rows, x, few, out), grpo::error);
    CHECK_THROWS_AS(grpo::reinforce_plus_plus_baseline(grpo::padded(1, 3), rows, three, few, out), grpo::error);
    grpo::reinforce_plus_plus_baseline(grpo::padded(1, 2), rows, two, centred, out);
    CHECK(centred == std::vector<double>{-0.5, 0.5});
}

TEST_CASE("R1.34 every option of the returns changes some output") {
    const std::vector<double> x = {1, 2, -1, 4};
    const grpo::padded rows(2, 2);
    const auto run = [&](const grpo::reinforce_plus_plus_options& o) {
        std::vector<double> a(4), g(4);
        grpo::reinforce_plus_plus(rows, x, a, g, o);
        return a;
    };
    const std::vector<double> base = run({});
    CHECK_FALSE(same_bits(run({.gamma = 0.5}), base));
    CHECK_FALSE(same_bits(run({.whitening = {.ddof = 0}}), base));
    const std::vector<double> one = {1, 2};
    std::vector<double> centred(2), zero(4), raw(4);
    const grpo::padded lone(2, 1);
    grpo::reinforce_plus_plus_baseline(lone, rows, one, centred, raw);
    grpo::reinforce_plus_plus_baseline(lone, rows, one, centred, zero, {.singleton = grpo::singleton_rule::zero});
    CHECK_FALSE(same_bits(raw, zero));
}
