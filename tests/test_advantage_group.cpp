// Group-normalised advantages and their relatives against tests/vectors/advantage.json, and requirements R1.1 to R1.14.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <grpo/advantage.hpp>

#include "support/advantage_cases.hpp"

namespace {

using namespace advantage_cases;
using std::size_t;

template <class T, class Groups>
std::vector<T> normalised(const Groups& groups, const std::vector<T>& reward, const grpo::group_options& options = {}) {
    std::vector<T> a(reward.size(), T(77));
    grpo::group_normalised(groups, reward, a, options);
    return a;
}

// Every option that a caller can set, for properties that hold under all of them.
std::vector<grpo::group_options> all_options() {
    std::vector<grpo::group_options> out;
    for (const auto placement : {grpo::eps_placement::outside, grpo::eps_placement::inside, grpo::eps_placement::floor,
                                 grpo::eps_placement::where_positive}) {
        for (const auto baseline : {grpo::group_baseline::mean, grpo::group_baseline::leave_one_out}) {
            for (const auto scale : {grpo::group_scale::group, grpo::group_scale::batch, grpo::group_scale::none,
                                     grpo::group_scale::leave_one_out, grpo::group_scale::about_baseline}) {
                for (const int ddof : {0, 1}) {
                    for (const double eps : {0.0, 1e-9, 1e-4}) {
                        out.push_back({ddof, eps, placement, baseline, scale, grpo::singleton_rule::zero});
                    }
                }
            }
        }
    }
    return out;
}

template <class T>
void check_group_case(const vectors::test_case& c, T) {
    const std::vector<T> reward = c.input<T>("reward");
    const grpo::group_options options = group_options(c.data().at("parameters"));
    with_groups(c, [&](const auto& groups) {
        if (c.expects_error()) {
            CHECK_THROWS_AS(normalised(groups, reward, options), grpo::error);
            return;
        }
        CHECK(wrong(c, "advantage", normalised(groups, reward, options)) == "");
        if (!c.expects("group_size")) return;
        std::vector<grpo::group_report> report(static_cast<size_t>(groups.rows()));
        std::vector<T> a(reward.size());
        grpo::group_normalised(groups, reward, a, options, report);
        std::vector<T> size, mean, deviation, degenerate;
        for (const grpo::group_report& g : report) {
            size.push_back(static_cast<T>(g.size));
            mean.push_back(static_cast<T>(g.mean));
            deviation.push_back(static_cast<T>(g.std));
            degenerate.push_back(static_cast<T>(g.degenerate));
        }
        CHECK(wrong(c, "group_size", size) == "");
        CHECK(wrong(c, "group_mean", mean) == "");
        CHECK(wrong(c, "group_std", deviation) == "");
        CHECK(wrong(c, "group_degenerate", degenerate) == "");
    });
}

template <class T, class F>
void check_advantage(const vectors::test_case& c, T, F&& f) {
    const std::vector<T> reward = c.input<T>("reward");
    std::vector<T> a(reward.size(), T(77));
    with_groups(c, [&](const auto& groups) { f(groups, reward, a); });
    CHECK(wrong(c, "advantage", a) == "");
}

}  // namespace

TEST_CASE("every method of advantage.json has its test") {
    const std::set<std::string> tested = {"grpo",
                                          "dr_grpo",
                                          "rloo",
                                          "gpg",
                                          "raw",
                                          "clip",
                                          "pass_at_k",
                                          "pf_ppo",
                                          "gdpo",
                                          "opo",
                                          "otb",
                                          "otb_multi_turn",
                                          "teacher",
                                          "a_star",  // here
                                          "discounted_return",
                                          "reinforce_plus_plus",
                                          "remax",
                                          "turn_returns",
                                          "reinforce_plus_plus_baseline",  // returns
                                          "gae",
                                          "vapo",
                                          "whiten",
                                          "outcome_supervision",
                                          "process_supervision"};
    for (const vectors::test_case& c : vectors::load("advantage")) {
        INFO(c.id());
        CHECK(tested.count(c.method()) == 1);
    }
}

TEST_CASE("vectors: group-normalised advantages under every convention (R1.2, R1.3, R1.6, R1.8)") {
    CHECK(for_each("advantage", "grpo", [](const auto& c, auto t) { check_group_case(c, t); }) > 100);
}

TEST_CASE("vectors: relatives of the group mean") {
    CHECK(for_each("advantage", "dr_grpo", [](const vectors::test_case& c, auto t) {
              check_advantage(c, t, [&](const auto& groups, const auto& reward, auto& a) {
                  grpo::dr_grpo(groups, reward, a, singleton(c.text("singleton")));
              });
          }) > 0);
    CHECK(for_each("advantage", "rloo", [](const vectors::test_case& c, auto t) {
              check_advantage(c, t, [&](const auto& groups, const auto& reward, auto& a) {
                  grpo::rloo(groups, reward, a,
                             {singleton(c.text("singleton")), c.flag("batch_normalise"),
                              whiten_options(c.data().at("parameters"))});
              });
          }) > 0);
    CHECK(for_each("advantage", "gpg", [](const vectors::test_case& c, auto t) {
              check_advantage(c, t, [&](const auto& groups, const auto& reward, auto& a) {
                  grpo::gpg_advantage(groups, reward, a, {singleton(c.text("singleton")), c.number("norm")});
              });
          }) > 0);
    CHECK(for_each("advantage", "pass_at_k", [](const vectors::test_case& c, auto t) {
              check_advantage(c, t, [&](const auto& groups, const auto& reward, auto& a) {
                  grpo::pass_at_k_advantage(
                      groups, reward, a,
                      {c.integer("ddof"), c.number("eps"), c.flag("normalise"), singleton(c.text("singleton"))});
              });
          }) > 0);
    CHECK(for_each("advantage", "opo", [](const vectors::test_case& c, auto t) {
              check_advantage(c, t, [&](const auto& groups, const auto& reward, auto& a) {
                  with_tokens(c, [&](const auto& tokens) {
                      grpo::opo(groups, tokens, reward, a, singleton(c.text("singleton")));
                  });
              });
          }) > 0);
}

TEST_CASE("vectors: raw rewards and clipping") {
    CHECK(for_each("advantage", "raw", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> reward = c.input<T>("reward");
              std::vector<T> a(reward.size());
              grpo::raw_reward(grpo::padded(1, static_cast<std::int64_t>(reward.size())), reward, a);
              CHECK(wrong(c, "advantage", a) == "");
          }) > 0);
    CHECK(for_each("advantage", "clip", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              std::vector<T> a = c.input<T>("advantage");
              grpo::clip_advantage(grpo::padded(1, static_cast<std::int64_t>(a.size())), a, c.number("low"),
                                   c.number("high"));
              CHECK(wrong(c, "advantage", a) == "");
          }) > 0);
}

TEST_CASE("vectors: PF-PPO's weights") {
    CHECK(for_each("advantage", "pf_ppo", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              using K = grpo::pf_ppo_kind;
              const std::vector<T> reward = c.input<T>("reward");
              std::vector<T> weight(reward.size()), probability(reward.size());
              const K kind = one_of<K>(c.text("kind"),
                                       {{"power", K::power}, {"max_min", K::max_min}, {"max_random", K::max_random}});
              grpo::pf_ppo_weights(reward, weight, probability, {kind, c.number("power"), c.number("eps")});
              CHECK(wrong(c, "weight", weight) == "");
              CHECK(wrong(c, "probability", probability) == "");
          }) > 0);
}

TEST_CASE("vectors: GDPO") {
    CHECK(for_each("advantage", "gdpo", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> reward = c.input<T>("reward");
              const std::vector<T> weight = vectors::to_array<T>(c.parameter("weights"), c.id());
              const offsets cu = c.input<std::int64_t>("group_offsets");
              const flags valid = c.has("valid") ? c.input<std::uint8_t>("valid") : flags{};
              std::vector<std::int64_t> repeat;
              if (c.text("level") == "token") {
                  const offsets tokens = c.input<std::int64_t>("cu_seqlens");
                  for (size_t i = 0; i + 1 < tokens.size(); ++i) repeat.push_back(tokens[i + 1] - tokens[i]);
              }
              std::vector<T> scratch(static_cast<size_t>(cu.back())), a(scratch.size());
              grpo::gdpo(grpo::ragged(cu),
                         grpo::gdpo_inputs<T>{.reward = reward, .weight = weight, .valid = valid, .repeat = repeat},
                         scratch, a, {group_options(c.parameter("group")), whiten_options(c.parameter("batch"))});
              CHECK(wrong(c, "advantage", a) == "");
          }) > 0);
}

TEST_CASE("vectors: optimal token baselines") {
    int n = 0;
    for (const char* method : {"otb", "otb_multi_turn"}) {
        n += for_each("advantage", method, [&](const vectors::test_case& c, auto t) {
            using T = decltype(t);
            const offsets cu = c.input<std::int64_t>("group_offsets");
            const std::vector<T> reward = c.input<T>("reward_token"), logp = c.input<T>("logp_old");
            const std::vector<T> squared = c.input<T>("sum_probability_squared");
            const std::vector<T> weight = c.has("weight") ? c.input<T>("weight") : std::vector<T>{};
            std::vector<T> a(reward.size(), T(77)), g(a), b(a);
            with_tokens(c, [&](const auto& tokens) {
                grpo::optimal_token_baseline(
                    grpo::ragged(cu), tokens, grpo::otb_inputs<T>{reward, logp, squared, weight}, a, g, b,
                    {c.method() == "otb" ? grpo::token_alignment::position : grpo::token_alignment::active_tokens,
                     c.number("eps")});
            });
            CHECK(wrong(c, "advantage_token", a) == "");
            CHECK(wrong(c, "return_token", g) == "");
            CHECK(wrong(c, "baseline_token", b) == "");
        });
    }
    CHECK(n == 15);
}

TEST_CASE("vectors: teacher advantages") {
    CHECK(for_each("advantage", "teacher", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> old = c.input<T>("logp_old"), teacher = c.input<T>("logp_teacher");
              const bool add = c.text("mode") == "add";
              std::vector<T> a = add ? c.input<T>("advantage_token") : std::vector<T>(old.size(), T(77));
              with_tokens(c, [&](const auto& tokens) {
                  grpo::teacher_advantage(
                      tokens, old, teacher, a,
                      {add ? grpo::teacher_mode::add : grpo::teacher_mode::replace, c.number("coef")});
              });
              CHECK(wrong(c, "advantage_token", a) == "");
          }) > 0);
}

TEST_CASE("vectors: A*-PO") {
    CHECK(for_each("advantage", "a_star", [](const vectors::test_case& c, auto t) {
              using T = decltype(t);
              const std::vector<T> reward = c.input<T>("reward"), reference = c.input<T>("reference_reward");
              const std::vector<T> now = c.input<T>("logp"), ref = c.input<T>("logp_ref");
              const offsets cu = c.input<std::int64_t>("group_offsets");
              const offsets offline = c.input<std::int64_t>("reference_offsets");
              std::vector<T> star(cu.size() - 1), a(reward.size()), gradient(now.size(), T(77));
              grpo::a_star_advantage(grpo::ragged(cu), grpo::ragged(offline), c.number("beta1"), reward, reference,
                                     star, a);
              CHECK(wrong(c, "optimal_value", star) == "");
              CHECK(wrong(c, "advantage", a) == "");
              with_tokens(c, [&](const auto& tokens) {
                  const double loss = grpo::a_star_loss(tokens, c.number("beta2"), now, ref, a, gradient);
                  CHECK(vectors::close(loss, c.value(), c.tolerance<T>()));
              });
              CHECK(wrong(c, "gradient/logp", gradient) == "");
          }) > 0);
}

TEST_CASE_TEMPLATE("R1.1 equal rewards give exactly +0.0 for every option, size and constant", T, float, double) {
    const std::vector<grpo::group_options> options = all_options();
    for (const double constant : {0.1, 1.0 / 3.0, 1e4 + 0.1, -7.3, 0.0, 1e-30, 1e20}) {
        for (const int size : {1, 2, 3, 5, 8, 13, 64, 1024}) {
            const std::vector<T> reward(static_cast<size_t>(size) * 2, static_cast<T>(constant));
            for (const grpo::group_options& o : options) {
                if (o.scale == grpo::group_scale::leave_one_out && size > 64) continue;
                const std::vector<T> a = normalised(grpo::padded(2, size), reward, o);
                REQUIRE(std::all_of(a.begin(), a.end(), [](T x) { return plus_zero(x); }));
            }
        }
    }
}

TEST_CASE("R1.2 close rewards and large offsets keep their spread") {
    const std::vector<float> close = {1.0f, 1.00001f, 2.0f, 2.00001f};
    const std::vector<float> a = normalised(grpo::padded(2, 2), close);
    // Published: verl pull request 6348.
    CHECK(a[0] == doctest::Approx(-0.6196008).epsilon(1e-6));
    CHECK(a[1] == doctest::Approx(0.6196008).epsilon(1e-6));
    CHECK(a[2] == doctest::Approx(-0.6196008).epsilon(1e-2));  // the spread of these two is 1 % more in float
    // mean 1e4 + 1.75, variance ((1.75² + 0.75² + 0.25² + 2.25²) / 3) = 35/12
    const std::vector<double> far = {1e4, 1e4 + 1, 1e4 + 2, 1e4 + 4};
    const std::vector<double> b = normalised(grpo::padded(1, 4), far, {.eps = 0.0});
    CHECK(b[3] == doctest::Approx(2.25 / std::sqrt(35.0 / 12.0)).epsilon(1e-12));
}

TEST_CASE_TEMPLATE("R1.3 every option changes some output (R1.34)", T, float, double) {
    const std::vector<T> reward = {T(1), T(0), T(0.5), T(2), T(-1), T(0.25), T(3)};
    const grpo::padded one(1, 7);
    const grpo::group_options plain{.eps = 0.25};
    const std::vector<T> base = normalised(one, reward, plain);
    std::vector<grpo::group_options> changed(8, plain);
    changed[0].ddof = 0;
    changed[1].eps = 0.5;
    changed[2].placement = grpo::eps_placement::inside;
    changed[3].placement = grpo::eps_placement::floor;
    changed[4].baseline = grpo::group_baseline::leave_one_out;
    changed[5].scale = grpo::group_scale::none;
    changed[6].scale = grpo::group_scale::leave_one_out;
    changed[7].placement = grpo::eps_placement::none;
    for (const grpo::group_options& o : changed) CHECK_FALSE(same_bits(normalised(one, reward, o), base));
    const grpo::padded two(2, 3);
    const std::vector<T> six(reward.begin(), reward.begin() + 6);
    grpo::group_options batch = plain;
    batch.scale = grpo::group_scale::batch;
    CHECK_FALSE(same_bits(normalised(two, six, batch), normalised(two, six, plain)));
    grpo::group_options about = plain;
    about.baseline = grpo::group_baseline::leave_one_out;
    const std::vector<T> left_out = normalised(two, six, about);
    about.scale = grpo::group_scale::about_baseline;
    CHECK_FALSE(same_bits(normalised(two, six, about), left_out));
    CHECK_THROWS_AS(normalised(one, reward, {.ddof = -1}), grpo::error);
    CHECK_THROWS_AS(normalised(one, reward, {.eps = -1e-6}), grpo::error);
}

TEST_CASE("R1.3 where_positive leaves a flat deviation undivided") {
    // Published: tunix's leave-one-out test.
    const std::vector<double> a = normalised(grpo::padded(1, 3), std::vector<double>{0, 100, 100},
                                             {.placement = grpo::eps_placement::where_positive,
                                              .baseline = grpo::group_baseline::leave_one_out,
                                              .scale = grpo::group_scale::leave_one_out});
    CHECK(a[0] == -100.0);
    CHECK(a[1] == doctest::Approx(0.7071).epsilon(1e-4));
}

TEST_CASE("R1.4 shifting changes nothing and scaling only the sign") {
    numbers draw(4);
    std::vector<double> r(24);
    for (double& x : r) x = static_cast<double>(draw.next() % 64) / 8.0;
    const grpo::padded groups(4, 6);
    const std::vector<double> base = normalised(groups, r, {.eps = 0.0});
    std::vector<double> shifted(r), scaled(r);
    for (double& x : shifted) x += 256.0;
    for (double& x : scaled) x *= -4.0;
    const std::vector<double> a = normalised(groups, shifted, {.eps = 0.0});
    const std::vector<double> b = normalised(groups, scaled, {.eps = 0.0});
    for (size_t i = 0; i < r.size(); ++i) {
        CHECK(a[i] == doctest::Approx(base[i]).epsilon(1e-13));
        CHECK(b[i] == doctest::Approx(-base[i]).epsilon(1e-13));
    }
}

TEST_CASE("R1.5 R1.11 the report tells sizes and degenerate groups") {
    const std::vector<float> r = {1, 1, 0, 1, 2, 0.5f};
    const offsets cu = {0, 2, 5, 6, 6};
    std::vector<grpo::group_report> report(4);
    std::vector<float> a(6);
    grpo::group_normalised(grpo::ragged(cu), r, a, {}, report);
    CHECK(report[0].degenerate);
    CHECK_FALSE(report[1].degenerate);
    CHECK(report[1].size == 3);
    CHECK(report[1].mean == 1.0);
    CHECK(report[1].std == 1.0);
    CHECK(report[2].degenerate);
    CHECK(report[2].mean == 0.5);
    CHECK(report[3].size == 0);
    std::vector<grpo::group_report> few(3);
    CHECK_THROWS_AS(grpo::group_normalised(grpo::ragged(cu), r, a, {}, few), grpo::error);
}

TEST_CASE_TEMPLATE("R1.6 a reward that cannot be scored is an error, or is left out", T, float, double) {
    const T nan = std::numeric_limits<T>::quiet_NaN();
    const std::vector<T> r = {T(1), T(0), nan, T(2), nan, nan};
    std::vector<T> a(6, T(77));
    std::string sentence;
    try {
        grpo::group_normalised(grpo::padded(2, 3), r, a);
    } catch (const grpo::error& e) {
        sentence = e.what();
    }
    CHECK(sentence.find("reward") != std::string::npos);
    CHECK(sentence.find("index 2") != std::string::npos);
    CHECK(a[0] == T(77));
    const flags valid = {1, 1, 0, 1, 0, 0};
    const std::vector<T> b = normalised(grpo::padded(2, 3).where(valid), r, {.eps = 0.0});
    CHECK(b[0] == doctest::Approx(std::sqrt(0.5)));
    CHECK(b[1] == doctest::Approx(-std::sqrt(0.5)));
    for (size_t i = 2; i < 6; ++i) CHECK(plus_zero(b[i]));
    const std::vector<T> inf = {T(1), std::numeric_limits<T>::infinity()};
    CHECK_THROWS_AS(normalised(grpo::padded(1, 2), inf), grpo::error);
}

TEST_CASE_TEMPLATE("R1.6 R1.12 what stands behind the validity mask changes no bit", T, float, double) {
    numbers draw(6);
    const offsets cu = {0, 5, 6, 6, 9, 17};
    std::vector<T> r = draw.many<T>(17, -2, 2);
    flags valid(17);
    for (auto& v : valid) v = draw.next() % 3 != 0;
    const auto groups = grpo::ragged(cu).where(valid);
    for (const grpo::group_options& o : all_options()) {
        std::vector<T> clean(r);
        for (size_t i = 0; i < r.size(); ++i) clean[i] = valid[i] ? r[i] : T(0);
        const std::vector<T> base = normalised(groups, clean, o);
        for (const T poison : poisons<T>()) {
            for (size_t i = 0; i < r.size(); ++i) clean[i] = valid[i] ? r[i] : poison;
            REQUIRE(same_bits(normalised(groups, clean, o), base));
        }
        for (size_t i = 0; i < r.size(); ++i) REQUIRE((valid[i] || plus_zero(base[i])));
    }
}

TEST_CASE_TEMPLATE("R1.12 relatives ignore what stands behind the masks", T, float, double) {
    numbers draw(12);
    const offsets cu = {0, 4, 5, 9};
    const std::vector<T> r = draw.many<T>(9, -1, 1);
    const flags valid = {1, 0, 1, 1, 1, 0, 1, 1, 1};
    const auto groups = grpo::ragged(cu).where(valid);
    const offsets tokens = {0, 2, 4, 5, 7, 8, 9, 12, 13, 15};
    std::vector<std::vector<T>> base;
    for (const T poison : poisons<T>()) {
        std::vector<T> x(r);
        for (size_t i = 0; i < x.size(); ++i) x[i] = valid[i] ? r[i] : poison;
        std::vector<std::vector<T>> got(6, std::vector<T>(9, T(77)));
        grpo::dr_grpo(groups, x, got[0]);
        grpo::rloo(groups, x, got[1], {.batch_normalise = true});
        grpo::gpg_advantage(groups, x, got[2]);
        grpo::opo(groups, grpo::ragged(tokens), x, got[3]);
        grpo::pass_at_k_advantage(groups, x, got[4]);
        grpo::raw_reward(groups, x, got[5]);
        if (base.empty()) base = got;
        for (size_t k = 0; k < got.size(); ++k) {
            CHECK(same_bits(got[k], base[k]));
            CHECK(plus_zero(got[k][1]));
            CHECK(plus_zero(got[k][5]));
        }
    }
}

TEST_CASE("R1.7 sizes may differ, 0 and 1 included; mismatches are errors") {
    const std::vector<double> r = {1, 3, 5};
    const offsets cu = {0, 0, 1, 3, 3};
    const std::vector<double> a = normalised(grpo::ragged(cu), r, {.eps = 0.0});
    CHECK(plus_zero(a[0]));
    CHECK(a[1] == doctest::Approx(-std::sqrt(0.5)));
    CHECK_THROWS_AS(normalised(grpo::padded(2, 2), r), grpo::error);
    std::vector<double> few(2);
    CHECK_THROWS_AS(grpo::group_normalised(grpo::ragged(cu), r, few), grpo::error);
    const std::vector<double> none;
    CHECK(normalised(grpo::padded(0, 4), none).empty());
}

TEST_CASE("R1.8 a lone sample: 0, its reward, or an error") {
    const std::vector<double> r = {0.5};
    const grpo::padded one(1, 1);
    CHECK(plus_zero(normalised(one, r)[0]));
    // verl: s / (1 + 1e-6)
    CHECK(normalised(one, r, {.singleton = grpo::singleton_rule::raw_reward})[0] ==
          doctest::Approx(0.5 / (1 + 1e-6)).epsilon(1e-15));
    CHECK_THROWS_AS(normalised(one, r, {.singleton = grpo::singleton_rule::error}), grpo::error);
    const flags invalid = {0};
    CHECK(plus_zero(normalised(one.where(invalid), r, {.singleton = grpo::singleton_rule::raw_reward})[0]));
    std::vector<double> a(1);
    CHECK_THROWS_AS(grpo::pass_at_k_advantage(one, r, a, {.singleton = grpo::singleton_rule::error}), grpo::error);
    grpo::pass_at_k_advantage(one, r, a, {.singleton = grpo::singleton_rule::raw_reward});
    CHECK(a[0] == 0.5);
}

TEST_CASE_TEMPLATE("R1.9 mixed sizes equal separate calls, bit by bit", T, float, double) {
    numbers draw(9);
    const std::vector<T> r = draw.many<T>(23, -1, 1);
    const offsets cu = {0, 2, 3, 6, 6, 7, 12, 13, 15, 18, 20, 23};
    for (const grpo::group_options& o : all_options()) {
        if (o.scale == grpo::group_scale::batch) continue;
        const std::vector<T> together = normalised(grpo::ragged(cu), r, o);
        std::vector<T> separate;
        for (size_t g = 0; g + 1 < cu.size(); ++g) {
            const std::vector<T> part(r.begin() + cu[g], r.begin() + cu[g + 1]);
            const std::vector<T> a = normalised(grpo::padded(1, cu[g + 1] - cu[g]), part, o);
            separate.insert(separate.end(), a.begin(), a.end());
        }
        REQUIRE(same_bits(together, separate));
    }
}

TEST_CASE_TEMPLATE("R1.10 permuting members or groups permutes the advantages, bit by bit", T, float, double) {
    numbers draw(10);
    for (int round = 0; round < 50; ++round) {
        const std::int64_t size = 2 + static_cast<std::int64_t>(draw.next() % 16);
        const std::int64_t groups = 1 + static_cast<std::int64_t>(draw.next() % 10);
        const std::vector<T> r = draw.many<T>(static_cast<size_t>(size * groups), -3, 300);
        std::vector<size_t> inside(static_cast<size_t>(size)), outside(static_cast<size_t>(groups));
        std::iota(inside.begin(), inside.end(), size_t{0});
        std::iota(outside.begin(), outside.end(), size_t{0});
        for (size_t i = inside.size(); i > 1; --i) std::swap(inside[i - 1], inside[draw.next() % i]);
        for (size_t i = outside.size(); i > 1; --i) std::swap(outside[i - 1], outside[draw.next() % i]);
        std::vector<size_t> to;
        for (const size_t g : outside) {
            for (const size_t i : inside) to.push_back(g * inside.size() + i);
        }
        std::vector<T> moved(r.size());
        for (size_t i = 0; i < to.size(); ++i) moved[i] = r[to[i]];
        for (const grpo::group_options& o : all_options()) {
            if (o.eps != 1e-9) continue;
            const std::vector<T> a = normalised(grpo::padded(groups, size), r, o);
            const std::vector<T> b = normalised(grpo::padded(groups, size), moved, o);
            std::vector<T> expected(r.size());
            for (size_t i = 0; i < to.size(); ++i) expected[i] = a[to[i]];
            REQUIRE(same_bits(b, expected));
        }
    }
}

TEST_CASE("R1.10 groups with the same rewards stay separate") {
    const std::vector<double> r = {1, 0, 1, 0, 1, 0};
    const std::vector<double> a = normalised(grpo::padded(3, 2), r);
    CHECK(a[0] == doctest::Approx(0.5 / (std::sqrt(0.5) + 1e-6)));
    CHECK(a[0] == a[2]);
    CHECK(a[0] == a[4]);
}

TEST_CASE("R1.7 labels in any order become offsets and an order") {
    const std::vector<int> label = {7, 3, 7, 9, 3, 7};
    const std::vector<double> r = {1, 5, 2, 4, 6, 3};
    offsets cu(7), order(6);
    const std::int64_t groups = grpo::group_by_label(label, cu, order);
    REQUIRE(groups == 3);
    CHECK(order == offsets{1, 4, 0, 2, 5, 3});
    CHECK(offsets(cu.begin(), cu.begin() + 4) == offsets{0, 2, 5, 6});
    std::vector<double> sorted(6), a(6), back(6);
    grpo::gather(order, r, sorted);
    grpo::group_normalised(grpo::ragged(grpo::view<const std::int64_t>(cu.data(), groups + 1)), sorted, a,
                           {.eps = 0.0});
    grpo::scatter(order, a, back);
    const double half = std::sqrt(0.5);
    const std::vector<double> expected = {-1, -half, 0, 0, half, 1};
    CHECK(vectors::difference(back, expected, 1e-15) == "");
    offsets few(6);
    CHECK_THROWS_AS(grpo::group_by_label(label, few, order), grpo::error);
}

TEST_CASE("R1.7 labels: many, checked against a stable sort") {
    numbers draw(7);
    for (const size_t n : {size_t{0}, size_t{1}, size_t{2}, size_t{257}}) {
        std::vector<std::uint32_t> label(n);
        for (auto& l : label) l = static_cast<std::uint32_t>(draw.next() % 17);
        offsets cu(n + 1, -1), order(n), expected(n);
        const std::int64_t groups = grpo::group_by_label(label, cu, order);
        std::iota(expected.begin(), expected.end(), std::int64_t{0});
        std::stable_sort(expected.begin(), expected.end(), [&](std::int64_t a, std::int64_t b) {
            return label[static_cast<size_t>(a)] < label[static_cast<size_t>(b)];
        });
        CHECK(order == expected);
        CHECK(groups == static_cast<std::int64_t>(std::set<std::uint32_t>(label.begin(), label.end()).size()));
        CHECK(cu[static_cast<size_t>(groups)] == static_cast<std::int64_t>(n));
    }
}

TEST_CASE_TEMPLATE("R1.12 R1.13 token baselines ignore masked memory and padding", T, float, double) {
    numbers draw(13);
    const std::int64_t rows = 4, width = 6;
    const size_t n = 24;
    flags mask(n);
    for (auto& m : mask) m = draw.next() % 3 != 0;
    const std::vector<T> reward = draw.many<T>(n, -1, 1), logp = draw.many<T>(n, -3, -0.1);
    const std::vector<T> squared = draw.many<T>(n, 0.3, 0.9);
    const grpo::padded groups(2, 2);
    for (const auto align : {grpo::token_alignment::position, grpo::token_alignment::active_tokens}) {
        std::vector<T> base;
        for (const T poison : poisons<T>()) {
            std::vector<T> r(reward), l(logp), q(squared), a(n), g(n), b(n);
            for (size_t i = 0; i < n; ++i) {
                if (!mask[i]) r[i] = l[i] = q[i] = poison;
            }
            grpo::optimal_token_baseline(groups, grpo::padded(rows, width).where(mask),
                                         grpo::otb_inputs<T>{r, l, q, {}}, a, g, b, {.align = align});
            if (base.empty()) base = a;
            CHECK(same_bits(a, base));
            for (size_t i = 0; i < n; ++i) CHECK((mask[i] || (plus_zero(a[i]) && plus_zero(b[i]) && plus_zero(g[i]))));
        }
        // Two masked columns to the right.
        const size_t wide = static_cast<size_t>(width) + 2;
        std::vector<T> r(rows * wide, T(5)), l(r), q(r), a(r), g(r), b(r);
        flags m(r.size());
        for (size_t i = 0; i < n; ++i) {
            const size_t to = i / 6 * wide + i % 6;
            r[to] = reward[i], l[to] = logp[i], q[to] = squared[i], m[to] = mask[i];
        }
        grpo::optimal_token_baseline(groups, grpo::padded(rows, width + 2).where(m), grpo::otb_inputs<T>{r, l, q, {}},
                                     a, g, b, {.align = align});
        std::vector<T> narrow(n);
        for (size_t i = 0; i < n; ++i) narrow[i] = a[i / 6 * wide + i % 6];
        CHECK(same_bits(narrow, base));
    }
}

TEST_CASE("a token baseline is a mean of returns, also where sums of squares are rounded below what they hold") {
    // Tokens of probability 1 - 2^-23: Σ π² is π² and a little, in float one place more or one place less.
    const float logp = -1.1920930e-7f;
    const float square = static_cast<float>(std::exp(2.0 * static_cast<double>(logp)));
    const std::vector<float> old(8, logp), reward{0, 0, 0, 1, 0, 0, 0, -1};
    std::vector<float> squared(8, square), a(8), g(8), b(8);
    for (size_t t = 0; t < 4; ++t) squared[t] = std::nextafter(square, 2.0f), squared[4 + t] = std::nextafter(square, 0.0f);
    grpo::optimal_token_baseline(grpo::padded(1, 2), grpo::padded(2, 4), grpo::otb_inputs<float>{reward, old, squared, {}}, a, g, b);
    for (size_t t = 0; t < 8; ++t) {
        CAPTURE(t);
        CHECK(std::abs(b[t]) <= 1.0f);
        CHECK(g[t] == (t < 4 ? 1.0f : -1.0f));
    }
}

TEST_CASE("R1.12 teacher advantages and A*-PO ignore masked memory") {
    const offsets cu = {0, 3, 5};
    const flags mask = {1, 0, 1, 0, 1};
    std::vector<double> base, base_gradient;
    double base_loss = 0;
    for (const double poison : poisons<double>()) {
        const std::vector<double> old = {-1, poison, -2, poison, -0.5}, teacher = {-0.5, poison, -1, poison, -1};
        const std::vector<double> target = {0.5, -0.25};
        std::vector<double> a(5, poison), gradient(5, poison);
        grpo::teacher_advantage(grpo::ragged(cu).where(mask), old, teacher, a);
        const double loss = grpo::a_star_loss(grpo::ragged(cu).where(mask), 0.5, old, teacher, target, gradient);
        if (base.empty()) base = a, base_gradient = gradient, base_loss = loss;
        CHECK(same_bits(a, base));
        CHECK(same_bits(gradient, base_gradient));
        CHECK(loss == base_loss);
        CHECK(plus_zero(a[1]));
        CHECK(plus_zero(gradient[3]));
    }
}

TEST_CASE("R1.34 clipping, PF-PPO and GDPO refuse what makes no sense") {
    std::vector<double> a = {1, 2};
    CHECK_THROWS_AS(grpo::clip_advantage(grpo::padded(1, 2), a, 1.0, -1.0), grpo::error);
    std::vector<double> w(2), p(1);
    CHECK_THROWS_AS(grpo::pf_ppo_weights(a, w, p), grpo::error);
    const std::vector<double> weight = {1, 1};
    CHECK_THROWS_AS(grpo::gdpo(grpo::padded(1, 2), grpo::gdpo_inputs<double>{.reward = a, .weight = weight}, w, w),
                    grpo::error);
    CHECK_THROWS_AS(grpo::gpg_advantage(grpo::padded(1, 2), a, w, {.norm = 0}), grpo::error);
}

TEST_CASE("groups of equal size, taken eight at a time, have the bits of the same groups taken one by one") {
    std::mt19937 rng(3);
    std::normal_distribution<float> normal(0.5f, 2.0f);
    for (const std::int64_t size : {1, 2, 3, 8, 63, 64, 65}) {
        for (const std::int64_t count : {7, 8, 9, 16}) {
            std::vector<float> reward;
            std::vector<std::int64_t> offsets{0};
            for (std::int64_t g = 0; g < count; ++g) {
                for (std::int64_t k = 0; k < size; ++k) reward.push_back(g == 3 ? 0.1f : normal(rng));
                offsets.push_back(offsets.back() + size);
            }
            for (const auto& options : {grpo::group_options{}, grpo::group_options{.ddof = 0, .eps = 0.0},
                                        grpo::group_options{.baseline = grpo::group_baseline::leave_one_out}}) {
                std::vector<float> together(reward.size(), 9.0f), alone(reward.size(), 9.0f);
                grpo::group_normalised(grpo::padded(count, size), reward, together, options);
                grpo::group_normalised(grpo::ragged(offsets), reward, alone, options);
                CHECK(std::memcmp(together.data(), alone.data(), reward.size() * sizeof(float)) == 0);
            }
        }
    }
}
