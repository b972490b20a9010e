// Outcome and process supervision (arXiv 2402.03300, §4.1.2 and §4.1.3) against tests/vectors/advantage.json.
#include <cmath>
#include <cstdint>
#include <vector>

#include <doctest/doctest.h>
#include <grpo/advantage.hpp>

#include "support/advantage_cases.hpp"

namespace {

using namespace advantage_cases;
using std::size_t;

template <class T>
struct steps {
    offsets cu;
    offsets end;
    std::vector<T> reward;

    grpo::reasoning_steps<T> view() const { return {.offsets = cu, .end = end, .reward = reward}; }
};

template <class T, class Groups, class Shape>
std::vector<T> by_process(const Groups& groups, const Shape& tokens, const steps<T>& s,
                          const grpo::process_options& o = {}) {
    std::vector<T> normalised(s.reward.size(), T(77)), a(static_cast<size_t>(tokens.extent()), T(77));
    grpo::process_supervision(groups, tokens, s.view(), normalised, a, o);
    return a;
}

}  // namespace

TEST_CASE("vectors: outcome supervision") {
    CHECK(for_each("advantage", "outcome_supervision", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> reward = c.input<T>("reward");
              const offsets groups = c.input<std::int64_t>("group_offsets");
              with_tokens(c, [&](const auto& tokens) {
                  std::vector<T> per_sequence(reward.size()), a(static_cast<size_t>(tokens.extent()), T(77));
                  grpo::outcome_supervision(grpo::ragged(groups), tokens, reward, per_sequence, a,
                                            group_options(c.data().at("parameters")));
                  CHECK(wrong(c, "advantage_token", a) == "");
              });
          }) == 4);
}

TEST_CASE("vectors: process supervision") {
    CHECK(for_each("advantage", "process_supervision", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const offsets groups = c.input<std::int64_t>("group_offsets");
              const steps<T> s{c.input<std::int64_t>("step_offsets"), c.input<std::int64_t>("step_end"),
                               c.input<T>("step_reward")};
              const grpo::process_options o{c.integer("ddof"), c.number("eps"), placement(c.text("eps_placement"))};
              with_tokens(c, [&](const auto& tokens) {
                  std::vector<T> normalised(s.reward.size()), a(static_cast<size_t>(tokens.extent()), T(77));
                  grpo::process_supervision(grpo::ragged(groups), tokens, s.view(), normalised, a, o);
                  CHECK(wrong(c, "step_normalised", normalised) == "");
                  CHECK(wrong(c, "advantage_token", a) == "");
              });
          }) == 10);
}

TEST_CASE("process supervision by hand: one good and one bad step against two good ones") {
    // Rewards 1, 0 | 1, 1: mean 3/4, deviation (ddof 0) sqrt(3)/4, so good = 1/sqrt(3) and bad = -sqrt(3).
    const steps<double> s{{0, 2, 4}, {1, 3, 0, 2}, {1, 0, 1, 1}};
    const offsets cu = {0, 4, 7};
    const std::vector<double> a = by_process(grpo::padded(1, 2), grpo::ragged(cu), s, {.ddof = 0, .eps = 0.0});
    const double good = 1 / std::sqrt(3.0), bad = -std::sqrt(3.0);
    const std::vector<double> expected = {good + bad, good + bad, bad, bad, 2 * good, good, good};
    CHECK(vectors::difference(a, expected, 1e-14) == "");
}

TEST_CASE("one step at the last token is outcome supervision") {
    const std::vector<double> reward = {1, 0, 0.5, 2, 2, -1};
    const offsets cu = {0, 3, 4, 8, 9, 11, 14};
    const offsets step_cu = {0, 1, 2, 3, 4, 5, 6};
    offsets last;
    for (size_t i = 0; i + 1 < cu.size(); ++i) last.push_back(cu[i + 1] - cu[i] - 1);
    const grpo::padded groups(2, 3);
    std::vector<double> per_sequence(6), outcome(14);
    grpo::outcome_supervision(groups, grpo::ragged(cu), reward, per_sequence, outcome);
    const std::vector<double> process = by_process(groups, grpo::ragged(cu), steps<double>{step_cu, last, reward});
    CHECK(same_bits(outcome, process));
}

TEST_CASE_TEMPLATE("R1.12 R1.13 masked tokens are written as 0 and change nothing else", T, float, double) {
    const steps<T> s{{0, 2, 4}, {1, 3, 0, 2}, {T(1), T(0), T(1), T(1)}};
    const offsets cu = {0, 4, 7};
    const flags mask = {1, 0, 0, 1, 1, 1, 0};  // steps end at masked tokens too
    const std::vector<T> plain = by_process(grpo::padded(1, 2), grpo::ragged(cu), s);
    const std::vector<T> masked = by_process(grpo::padded(1, 2), grpo::ragged(cu).where(mask), s);
    for (size_t i = 0; i < plain.size(); ++i) {
        if (mask[i]) {
            CHECK(masked[i] == plain[i]);
        } else {
            CHECK(plus_zero(masked[i]));
        }
    }
    // Three columns of padding to the right of each row.
    const offsets wide = {0, 7, 13};
    const std::vector<T> padded = by_process(grpo::padded(1, 2), grpo::ragged(wide), s);
    for (size_t i = 0; i < 4; ++i) CHECK(padded[i] == plain[i]);
    for (size_t i = 0; i < 3; ++i) CHECK(padded[7 + i] == plain[4 + i]);
    CHECK(padded[12] == T(0));
}

TEST_CASE("R1.34 ddof, eps and its placement change process supervision") {
    const steps<double> s{{0, 2, 4}, {1, 3, 0, 2}, {1, 0, 1, 0.5}};
    const offsets cu = {0, 4, 7};
    const auto run = [&](const grpo::process_options& o) {
        return by_process(grpo::padded(1, 2), grpo::ragged(cu), s, o);
    };
    const std::vector<double> base = run({.eps = 0.25});
    CHECK_FALSE(same_bits(run({.ddof = 0, .eps = 0.25}), base));
    CHECK_FALSE(same_bits(run({.eps = 0.5}), base));
    CHECK_FALSE(same_bits(run({.eps = 0.25, .placement = grpo::eps_placement::inside}), base));
}

TEST_CASE("R1.37 steps that do not fit are errors that name them") {
    const offsets cu = {0, 4, 7};
    const grpo::padded groups(1, 2);
    const auto sentence = [&](const steps<double>& s) {
        try {
            by_process(groups, grpo::ragged(cu), s);
        } catch (const grpo::error& e) {
            return std::string(e.what());
        }
        return std::string();
    };
    CHECK(sentence({{0, 2, 4}, {1, 4, 0, 2}, {1, 0, 1, 1}}).find("step 1") != std::string::npos);   // beyond the row
    CHECK(sentence({{0, 2, 4}, {1, 3, 2, 0}, {1, 0, 1, 1}}).find("step 3") != std::string::npos);   // falling
    CHECK(sentence({{0, 2, 4}, {1, 3, -1, 2}, {1, 0, 1, 1}}).find("step 2") != std::string::npos);  // negative
    CHECK(sentence({{0, 4}, {1, 3, 0, 2}, {1, 0, 1, 1}}).find("steps.offsets") != std::string::npos);
    CHECK(sentence({{0, 2, 4}, {1, 3, 0, 2}, {1, 0, 1}}).find("steps.reward") != std::string::npos);
    CHECK(sentence({{0, 3, 2}, {1, 3}, {1, 0}}) != "");
    CHECK(sentence({{0, 2, 4}, {1, 3, 0, 2}, {1, 0, std::nan(""), 1}}).find("index 2") != std::string::npos);
    std::vector<double> r = {1, 2, 3}, per(3), a(7);
    CHECK_THROWS_AS(grpo::outcome_supervision(grpo::padded(1, 3), grpo::ragged(cu), r, per, a), grpo::error);
}
