// Reward shaping against tests/vectors/shaping.json. The group filters of that file are tested in test_selection.cpp.
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <grpo/advantage.hpp>
#include <grpo/grpo.hpp>
#include <grpo/selection.hpp>
#include <grpo/shaping.hpp>

#include <support/vectors.hpp>

namespace {

using mask_t = std::vector<std::uint8_t>;
using offsets_t = std::vector<std::int64_t>;
using vectors::test_case;

template <class T>
std::vector<T> rewards_of(const test_case& c) {
    return c.input<T>("reward");
}

template <class T>
void check_rewards(const test_case& c, const std::vector<T>& got, const char* name = "reward") {
    CHECK(vectors::difference(got, c.expected<double>(name), c.tolerance<T>()) == "");
}

template <class T>
void check_overlong(const test_case& c) {
    const grpo::overlong rule{c.number("max_length"), c.number("buffer"), c.number("factor"), c.flag("cap")};
    const auto length = c.input<std::int64_t>("length");
    std::vector<T> penalty(length.size(), T(7));
    grpo::overlong_penalty(length, rule, penalty);
    check_rewards(c, penalty, "penalty");
}

template <class T>
void check_weighted(const test_case& c) {
    const std::vector<double> weights = vectors::to_array<double>(c.parameter("weights"), c.id());
    const auto reward = rewards_of<T>(c);
    std::vector<T> out(reward.size() / weights.size(), T(7));
    mask_t valid(out.size(), 9);
    grpo::weighted_rewards(reward, weights, out, valid);
    check_rewards(c, out);
    CHECK(vectors::difference(valid, c.expected<double>("valid"), 0.0) == "");
}

template <class T>
void check_repetition(const test_case& c) {
    const auto tokens = c.input<std::int32_t>("token");
    const auto cu = c.input<std::int64_t>("cu_seqlens");
    const auto shape = grpo::ragged(cu);
    std::vector<std::int64_t> workspace(static_cast<std::size_t>(grpo::repetition_workspace(shape)), 77);
    std::vector<T> penalty(cu.size() - 1, T(7));
    grpo::repetition_penalty(shape, tokens, {.n = c.integer("n"), .max_penalty = c.number("max_penalty")}, workspace,
                             penalty);
    check_rewards(c, penalty, "penalty");
}

template <class T>
void check_in_place(const test_case& c, const auto& rule) {
    std::vector<T> reward = rewards_of<T>(c);
    std::vector<T> out(reward.size(), T(7));
    grpo::shape_rewards(reward, rule, out);
    check_rewards(c, out);
    grpo::shape_rewards(reward, rule, reward);
    CHECK(reward == out);
}

template <class T>
void check_flagged(const test_case& c, const auto& rule, const char* flag) {
    std::vector<T> reward = rewards_of<T>(c);
    const auto flags = c.input<std::uint8_t>(flag);
    std::vector<T> out(reward.size(), T(7));
    grpo::shape_rewards(reward, rule, flags, out);
    check_rewards(c, out);
    grpo::shape_rewards(reward, rule, flags, reward);
    CHECK(reward == out);
}

template <class T>
void check_token_rewards(const test_case& c) {
    const auto cu = c.input<std::int64_t>("cu_seqlens");
    const std::size_t n = static_cast<std::size_t>(cu.back());
    const mask_t mask = c.has("mask") ? c.input<std::uint8_t>("mask") : mask_t(n, 1);
    std::vector<T> out(n, T(7));
    if (c.method() == "place_outcome") {
        grpo::place_outcome(grpo::ragged(cu).where(mask), rewards_of<T>(c), out);
    } else {
        const double bound = c.number("output_bound");
        const grpo::safety_bound cut{bound < 1e30 ? bound : grpo::math::unbounded};
        const auto run = [&](const auto& estimator) {
            grpo::kl_in_reward(grpo::ragged(cu).where(mask), estimator, c.number("beta"), c.input<T>("reward_token"),
                               c.input<T>("logp_old"), c.input<T>("logp_ref"), out);
        };
        using grpo::kl_estimator;
        const std::string kind = c.text("kl");
        if (kind == "k1") run(grpo::kl_penalty<kl_estimator::k1, grpo::kl_gradient::own>{.output = cut});
        else if (kind == "k2") run(grpo::kl_penalty<kl_estimator::k2, grpo::kl_gradient::own>{.output = cut});
        else if (kind == "k3") run(grpo::kl_penalty<kl_estimator::k3, grpo::kl_gradient::own>{.output = cut});
        else if (kind == "abs") run(grpo::kl_penalty<kl_estimator::abs, grpo::kl_gradient::own>{.output = cut});
        else FAIL("unknown estimator " << kind);
    }
    check_rewards(c, out, "reward_token");
}

template <class T>
void check_case(const test_case& c) {
    const std::string m = c.method();
    if (m == "overlong") {
        check_overlong<T>(c);
    } else if (m == "stop_properly") {
        check_flagged<T>(c, grpo::stop_properly{c.number("coef")}, "truncated");
    } else if (m == "missing_eos") {
        check_flagged<T>(c, grpo::missing_eos{c.number("penalty"), c.text("mode") == "replace"}, "ended");
    } else if (m == "reward_clip") {
        check_in_place<T>(c, grpo::reward_clip{c.number("bias"), c.number("scale"), c.number("low"), c.number("high")});
    } else if (m == "linear_rescale") {
        check_in_place<T>(c, grpo::linear_rescale{c.number("from_low"), c.number("from_high"), c.number("to_low"),
                                                  c.number("to_high")});
    } else if (m == "mask_truncated") {
        const auto cu = c.input<std::int64_t>("cu_seqlens");
        mask_t mask = c.input<std::uint8_t>("mask");
        mask_t out(mask.size(), 9);
        grpo::mask_truncated(grpo::ragged(cu).where(mask), c.input<std::uint8_t>("truncated"), out);
        CHECK(vectors::difference(out, c.expected<double>("mask"), 0.0) == "");
        grpo::mask_truncated(grpo::ragged(cu).where(mask), c.input<std::uint8_t>("truncated"), mask);
        CHECK(mask == out);
    } else if (m == "weighted_sum") {
        check_weighted<T>(c);
    } else if (m == "repetition") {
        check_repetition<T>(c);
    } else if (m == "kl_in_reward" || m == "place_outcome") {
        check_token_rewards<T>(c);
    } else if (m != "group_filter" && m != "sample_filter") {
        FAIL("no test for the method " << m);
    }
}

}  // namespace

TEST_CASE("vectors: reward shaping") {
    for (const test_case& c : vectors::load("shaping")) {
        INFO(c.id());
        check_case<double>(c);
        check_case<float>(c);
    }
}

TEST_CASE("R1.45 the overlong penalty is capped by default, at the paper's lengths") {
    const grpo::overlong paper;
    CHECK(paper(16384) == 0.0);
    CHECK(paper(18432) == -0.5);
    CHECK(paper(20480) == -1.0);
    CHECK(paper(40960) == -1.0);
    // Published by peers that do not cap: 110 of 100 tokens cost 15 (tunix), 30 of 25 cost 1 (NeMo RL).
    CHECK(grpo::overlong{100, 20, 10.0, false}(110) == -15.0);
    CHECK(grpo::overlong{25, 5, 0.5, false}(30) == -1.0);
    CHECK(grpo::overlong{100, 20, 10.0, true}(110) == -10.0);
}

TEST_CASE("R1.45 a filter on the raw reward drops the group that shaping would have kept") {
    const std::vector<double> raw{1.0, 1.0, 1.0, 0.0};
    const offsets_t groups{0, 2, 4};
    const std::vector<std::int64_t> length{10, 120, 10, 120};
    std::vector<double> penalty(4), shaped(4);
    grpo::overlong_penalty(length, {.max_length = 100, .buffer = 50}, penalty);
    for (std::size_t i = 0; i < 4; ++i) shaped[i] = raw[i] + penalty[i];
    mask_t keep(2);
    grpo::select_groups(grpo::ragged(groups), raw, grpo::group_filter::nonzero_std(), keep);
    CHECK(keep == mask_t{0, 1});
    grpo::select_groups(grpo::ragged(groups), shaped, grpo::group_filter::nonzero_std(), keep);
    CHECK(keep == mask_t{1, 1});
}

TEST_CASE("R1.12 R1.13 masked tokens are neither n-grams nor part of one, wherever they lie") {
    const std::int32_t poison[] = {-1, 2147483647, 1, 2};
    for (const std::int32_t p : poison) {
        const std::vector<std::int32_t> tokens{p, 1, 2, p, p, 1, 2, 1, p, 3};
        const mask_t mask{0, 1, 1, 0, 0, 1, 1, 1, 0, 0};  // 1 2 1 2 1
        const auto shape = grpo::padded(1, 10).where(mask);
        std::vector<std::int64_t> workspace(static_cast<std::size_t>(grpo::repetition_workspace(shape)));
        std::vector<double> penalty(1);
        grpo::repetition_penalty(shape, tokens, {.n = 2}, workspace, penalty);
        CHECK(penalty[0] == -0.5);
        grpo::repetition_penalty(shape, tokens, {.n = 5}, workspace, penalty);
        CHECK(penalty[0] == 0.0);
        grpo::repetition_penalty(shape, tokens, {.n = 6}, workspace, penalty);
        CHECK(penalty[0] == 0.0);
    }
}

TEST_CASE("the n-gram table counts like a nested loop") {
    std::vector<std::int64_t> tokens(400);
    std::uint32_t state = 1;
    for (auto& t : tokens) {
        state = state * 1664525u + 1013904223u;
        t = static_cast<std::int64_t>(state >> 30);
    }
    const auto shape = grpo::padded(1, 400);
    std::vector<std::int64_t> workspace(static_cast<std::size_t>(grpo::repetition_workspace(shape)));
    for (const std::int64_t n : {1, 3, 4, 7}) {
        int repeated = 0;
        const int total = 400 - static_cast<int>(n) + 1;
        for (int k = 0; k < total; ++k) {
            bool seen = false;
            for (int j = 0; j < k && !seen; ++j) {
                bool same = true;
                for (int q = 0; q < n; ++q) same = same && tokens[static_cast<std::size_t>(k + q)] == tokens[static_cast<std::size_t>(j + q)];
                seen = same;
            }
            repeated += seen ? 1 : 0;
        }
        std::vector<double> penalty(1);
        grpo::repetition_penalty(shape, tokens, {.n = n, .max_penalty = -2.0}, workspace, penalty);
        CHECK(penalty[0] == doctest::Approx(-2.0 * repeated / total).epsilon(1e-14));
    }
}

TEST_CASE("an unscorable reward stays NaN, and only a key without a score is left out of the sum") {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const double inf = std::numeric_limits<double>::infinity();
    const std::vector<double> reward{nan, 1.0};
    std::vector<double> out(2);
    grpo::shape_rewards(reward, grpo::reward_clip{}, out);
    CHECK(grpo::detail::is_nan(out[0]));
    grpo::shape_rewards(reward, grpo::linear_rescale{}, out);
    CHECK(grpo::detail::is_nan(out[0]));
    const std::vector<double> keys{inf, nan, 1.0, 1.0};
    mask_t valid(2);
    grpo::weighted_rewards(keys, std::vector<double>{1.0, 1.0}, out, valid);
    CHECK(out[0] == inf);
    CHECK(out[1] == 1.0);
    CHECK(valid == mask_t{1, 1});
}

TEST_CASE("sizes and ranges are checked before anything is written") {
    const std::vector<double> reward{1.0, 2.0, 3.0};
    std::vector<double> out(3, 7.0), few(2, 7.0);
    mask_t flags(3, 1), mask(3, 9);
    std::vector<std::int64_t> workspace(3);
    const std::vector<int> ids{1, 2, 3};
    CHECK_THROWS_WITH_AS(grpo::shape_rewards(reward, grpo::reward_clip{}, few),
                         "grpo::shape_rewards: out has 2 entries, but there are 3 sequences", grpo::error);
    CHECK_THROWS_AS(grpo::shape_rewards(reward, grpo::reward_clip{.low = 2.0, .high = 1.0}, out), grpo::error);
    CHECK_THROWS_AS(grpo::shape_rewards(reward, grpo::linear_rescale{.from_low = 1.0, .from_high = 1.0}, out), grpo::error);
    CHECK_THROWS_AS(grpo::shape_rewards(reward, grpo::stop_properly{1.5}, flags, out), grpo::error);
    CHECK_THROWS_AS(grpo::shape_rewards(reward, grpo::missing_eos{}, std::vector<int>{1}, out), grpo::error);
    CHECK_THROWS_AS(grpo::overlong_penalty(ids, {.buffer = 0.0}, out), grpo::error);
    CHECK_THROWS_AS(grpo::overlong_penalty(ids, {.factor = -1.0}, out), grpo::error);
    CHECK_THROWS_AS(grpo::overlong_penalty(ids, {.max_length = 10, .buffer = 20}, out), grpo::error);
    CHECK_THROWS_AS(grpo::weighted_rewards(reward, reward, out, flags), grpo::error);
    CHECK_THROWS_AS(grpo::mask_truncated(grpo::padded(2, 1), flags, mask), grpo::error);
    CHECK_THROWS_AS(grpo::repetition_penalty(grpo::padded(3, 1), ids, {.n = 0}, workspace, out), grpo::error);
    CHECK_THROWS_AS(grpo::repetition_penalty(grpo::padded(3, 1), ids, {.max_penalty = 1.0}, workspace, out), grpo::error);
    CHECK_THROWS_AS(grpo::repetition_penalty(grpo::padded(1, 3), ids, {}, workspace, few), grpo::error);
    CHECK_THROWS_AS(grpo::repetition_penalty(grpo::padded(3, 1), ids, {}, std::vector<std::int64_t>(2), out), grpo::error);
    CHECK(out == std::vector<double>(3, 7.0));
    CHECK(few == std::vector<double>(2, 7.0));
    CHECK(mask == mask_t(3, 9));
}
