// What is not a loss, on a block of threads and on the same block as if its memory were a device's: serial's results, and no
// data race (run under ThreadSanitizer).
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/core_cases.hpp>
#include <support/elsewhere.hpp>
#include <support/lanes.hpp>
#include <support/sentence.hpp>

namespace {

template <class F>
void on_each_executor(F&& f) {
    f(lanes<4>{})();
    f(elsewhere<4>{})();
}

}  // namespace


namespace {

TEST_CASE("group reports, sums the same bits in every order") {
    const rows_of_any_length rows;
    const auto reward = numbers<double>(rows.n, 2);
    std::vector<double> out(rows.n);
    std::vector<grpo::group_report> expected(6), block(6), there(6);
    grpo::group_normalised(grpo::serial{}, rows.masked(), reward, out, {}, expected);
    grpo::group_normalised(lanes<4>{}, rows.masked(), reward, out, {}, block);
    grpo::group_normalised(elsewhere<4>{}, rows.masked(), reward, out, {}, there);
    for (std::size_t g = 0; g < 6; ++g) {
        for (const auto* got : {&block[g], &there[g]}) {
            CHECK(got->size == expected[g].size);
            CHECK(got->mean == expected[g].mean);
            CHECK(got->std == expected[g].std);
            CHECK(got->degenerate == expected[g].degenerate);
        }
    }
}

TEST_CASE("several rewards, and A*-PO's loss") {
    const rows_of_any_length rows;
    const auto reward = numbers<double>(2 * rows.n, 10);
    const std::vector<double> weight{0.5, 2.0};
    std::vector<std::uint8_t> valid(2 * rows.n, 1);
    valid[3] = valid[3 + rows.n] = valid[30] = 0;
    const std::vector<std::int64_t> repeat(rows.n, 3);
    std::vector<double> scratch(rows.n);
    for (const bool all : {true, false}) {
        grpo::gdpo_inputs<double> in{.reward = reward, .weight = weight};
        if (!all) in.valid = valid;
        if (!all) in.repeat = repeat;
        same_everywhere<double>(
            rows.n, [&](const auto& exec, auto& out) { grpo::gdpo(exec, rows.shape(), in, scratch, out); }, 1e-12);
    }
    const auto advantage = numbers<double>(6, 11);
    std::vector<double> gradient(rows.n);
    const elsewhere<4> there;
    const auto now = numbers<double>(rows.n, 12);
    const auto ref = numbers<double>(rows.n, 13);
    const double expected = grpo::a_star_loss(rows.masked(), 0.1, now, ref, advantage, gradient);
    CHECK(*grpo::a_star_loss(there, rows.masked(), 0.1, now, ref, advantage, gradient) ==
          doctest::Approx(expected));
}

TEST_CASE("the extremes of weights are serial's, to the bit") {
    const rows_of_any_length rows;
    const auto old = numbers<float>(rows.n, 16);
    const auto rollout = numbers<float>(rows.n, 17);
    const auto engines = grpo::batch(rows.masked(), grpo::logp_old(old), grpo::logp_rollout(rollout));
    same_everywhere<double>(2, [&](const auto& exec, auto& out) {
        const grpo::mismatch m = random_batch::arrived(grpo::measure_mismatch(exec, engines));
        out = {m.smallest_weight, m.largest_weight};
    }, 0);
}

TEST_CASE("advantage rules of recipes") {
    const rows_of_any_length rows;
    const auto groups = grpo::padded(3, 2);
    const auto per_sequence = numbers<float>(6, 23);
    const auto x = numbers<float>(rows.n, 24);
    const auto y = numbers<float>(rows.n, 25);
    std::vector<float> returns(rows.n), reward_token(rows.n), baseline(rows.n), centred(6);
    using grpo::recipe::estimator;
    for (const auto kind : {estimator::group, estimator::returns, estimator::remax, estimator::gae, estimator::vapo, estimator::otb}) {
        grpo::recipe::advantage_rule rule{.kind = kind};
        rule.kl.beta = 0.1;
        const grpo::recipe::token_inputs<float> in{per_sequence, x, y, x, per_sequence, y};
        same_everywhere<float>(rows.n, [&](const auto& exec, auto& out) {
            rule.by_token(exec, groups, rows.masked(), in, {out, returns, centred, reward_token, baseline});
        }, 1e-5);
    }
    // One number per response: also where rewards and advantages are cut.
    const std::vector<std::uint8_t> mask{1, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1};
    const auto tokens = grpo::padded(6, 2).where(mask);
    for (const auto kind : {estimator::group, estimator::opo, estimator::gpg, estimator::pass_at_k, estimator::raw}) {
        grpo::recipe::advantage_rule rule{.kind = kind};
        for (const double bound : {grpo::math::unbounded, 0.25}) {
            rule.reward_bound = rule.advantage_bound = bound;
            same_everywhere<float>(6, [&](const auto& exec, auto& out) { rule.by_sequence(exec, groups, tokens, per_sequence, out); }, 1e-5);
        }
    }
}

TEST_CASE("errors of another memory, with nothing written") {
    const rows_of_any_length rows;
    const auto x = numbers<float>(rows.n, 22);
    std::vector<float> out(rows.n, 7.0f);
    elsewhere<4> there;
    CHECK(errors::sentence([&] { grpo::whiten(there, grpo::ragged(rows.cu), x, out); }) ==
          "grpo::whiten: cu_seqlens has 7 entries in a device's memory: give ragged() their last as well");
    CHECK(errors::sentence([&] { grpo::group_normalised(there, rows.shape(), x, out, {.singleton = grpo::singleton_rule::error}); }) ==
          "grpo::group_normalised: options.singleton is error (2), but the sizes of 6 groups lie in another memory");
    const std::string host = " points into host memory, but device 0 is to read or write it";
    there.forbidden = x.data();
    CHECK(errors::sentence([&] { grpo::whiten(there, rows.masked(), x, out); }) == "grpo::whiten: x" + host);
    CHECK(errors::sentence([&] { (void)grpo::measure_value_fit(there, grpo::batch(rows.masked(), grpo::values(x), grpo::returns(out))); }) ==
          "grpo::measure_value_fit: value" + host);
    there.forbidden = rows.mask.data();
    CHECK(errors::sentence([&] { grpo::discounted_returns(there, rows.masked(), 1.0, x, out); }) == "grpo::discounted_returns: mask" + host);
    std::vector<std::uint8_t> keep(rows.n, 9);
    const auto entropies = grpo::batch(rows.masked(), grpo::entropy(x));
    CHECK(errors::sentence([&] { grpo::mask_truncated(there, rows.masked(), rows.cu, keep); }) == "grpo::mask_truncated: mask" + host);
    CHECK(errors::sentence([&] { grpo::mask_truncated(there, rows.shape(), rows.mask, keep); }) ==
          "grpo::mask_truncated: truncated has 58 entries, but there are 6 sequences");
    CHECK(errors::sentence([&] { grpo::opo(there, rows.shape(), grpo::padded(58, 1).where(rows.mask), x, out); }) == "grpo::opo: mask" + host);
    there.forbidden = x.data();
    CHECK(errors::sentence([&] { (void)grpo::select_top_entropy(there, entropies, 0.2, keep); }) == "grpo::select_top_entropy: entropy" + host);
    CHECK(errors::sentence([&] { (void)grpo::mean_at_n(there, rows.shape(), x, grpo::view(out.data(), 6)); }) == "grpo::mean_at_n: reward" + host);
    CHECK(errors::sentence([&] { grpo::gpg_advantage(there, rows.shape(), x, out); }) == "grpo::gpg_advantage: reward" + host);
    there.forbidden = keep.data();
    CHECK(errors::sentence([&] { (void)grpo::select_top_entropy(there, entropies, 0.2, keep); }) == "grpo::select_top_entropy: keep" + host);
    CHECK(errors::sentence([&] { (void)grpo::select_samples(there, rows.shape(), x, keep); }) == "grpo::select_samples: keep" + host);
    there.forbidden = out.data();
    CHECK(errors::sentence([&] { grpo::shape_rewards(there, x, grpo::reward_clip{}, out); }) == "grpo::shape_rewards: out" + host);
    std::vector<float> weight(rows.n, 7.0f);
    CHECK(errors::sentence([&] { grpo::pf_ppo_weights(there, x, weight, out); }) == "grpo::pf_ppo_weights: probability" + host);
    CHECK(keep == std::vector<std::uint8_t>(rows.n, 9));
    there.forbidden = rows.cu.data();
    CHECK(errors::sentence([&] { grpo::sequence_logp(there, rows.masked(), x, out); }) != "");
    CHECK(out == std::vector<float>(rows.n, 7.0f));
}

}  // namespace
