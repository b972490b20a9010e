// R1.41: an output may be the memory of an input where the header says so, and then holds the bits that it would hold
// elsewhere. One test for every function that says so; d_logp over a batch's inputs is in test_engine.cpp.
#include <cstdint>
#include <cstring>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

namespace {

using array = std::vector<double>;
using mask_t = std::vector<std::uint8_t>;

const std::vector<std::int64_t> cu{0, 4, 4, 7};
const mask_t mask{1, 0, 1, 1, 1, 1, 0};
const array x{0.5, -1.5, 2.0, -0.25, 1.0, -3.0, 0.75};
const array y{-1.0, 0.25, -0.5, 2.0, -0.125, 1.5, 3.0};

auto shape() {
    return grpo::ragged(cu).where(mask);
}

bool same_bits(const array& a, const array& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(double)) == 0;
}

// f(input, output): the same bits where the output is the input.
template <class F>
void check(const char* what, const F& f, const array& input = x) {
    CAPTURE(what);
    array elsewhere(input.size(), 77.0), own = input;
    f(input, elsewhere);
    f(own, own);
    CHECK(same_bits(own, elsewhere));
    CHECK_FALSE(same_bits(own, input));
}

TEST_CASE("R1.41 advantages over the rewards") {
    for (const auto baseline : {grpo::group_baseline::mean, grpo::group_baseline::leave_one_out}) {
        for (const auto scale : {grpo::group_scale::group, grpo::group_scale::batch, grpo::group_scale::none,
                                 grpo::group_scale::about_baseline}) {
            check("group_normalised", [&](const auto& in, auto& out) {
                grpo::group_normalised(shape(), in, out, {.baseline = baseline, .scale = scale});
            });
        }
    }
    check("whiten", [](const auto& in, auto& out) { grpo::whiten(shape(), in, out); });
    check("whiten, the mean added back",
          [](const auto& in, auto& out) { grpo::whiten(shape(), in, out, {.center = false}); });
    check("discounted_returns", [](const auto& in, auto& out) { grpo::discounted_returns(shape(), 0.5, in, out); });
    check("kl_in_reward",
          [](const auto& in, auto& out) { grpo::kl_in_reward(shape(), grpo::kl{}, 0.5, in, y, x, out); });
}

TEST_CASE("R1.41 shaped rewards over the rewards") {
    const std::vector<int> flag{1, 0, 1, 1, 0, 0, 1};
    check("clip",
          [](const auto& in, auto& out) { grpo::shape_rewards(in, grpo::reward_clip{.low = -1, .high = 1}, out); });
    check("rescale",
          [](const auto& in, auto& out) { grpo::shape_rewards(in, grpo::linear_rescale{.to_high = 4}, out); });
    check("stop properly",
          [&](const auto& in, auto& out) { grpo::shape_rewards(in, grpo::stop_properly{0.5}, flag, out); });
    check("missing EOS", [&](const auto& in, auto& out) { grpo::shape_rewards(in, grpo::missing_eos{}, flag, out); });
}

TEST_CASE("R1.41 a mask over the mask that it is made from") {
    const std::vector<int> truncated{0, 1, 1};
    mask_t elsewhere(7, 9), own = mask;
    grpo::mask_truncated(shape(), truncated, elsewhere);
    const grpo::ragged rows(cu);
    grpo::mask_truncated(rows.where(own), truncated, own);
    CHECK(own == elsewhere);
    CHECK(own == mask_t{1, 0, 1, 1, 0, 0, 0});
    for (const auto level : {grpo::rejection_level::token, grpo::rejection_level::sequence_sum,
                             grpo::rejection_level::sequence_mean, grpo::rejection_level::sequence_max}) {
        const auto reject = [&](const mask_t& from, mask_t& to) {
            const grpo::batch b(rows.where(from), grpo::logp_old(x), grpo::logp_rollout(y));
            return grpo::reject(b, grpo::rejection::log_weight(level, -1.5, 2), to).rejected_tokens;
        };
        own = mask;
        CHECK(reject(mask, elsewhere) == reject(own, own));
        CHECK(own == elsewhere);
        CHECK(own != mask);
    }
}

TEST_CASE("R1.41 token weights over either log-probability") {
    for (const auto& rule :
         {grpo::correction::tis(1.5), grpo::correction::icepop(0.25, 4), grpo::correction::band().normalised()}) {
        check("logp_rollout", [&](const auto& in, auto& out) {
            grpo::correction_weights(grpo::batch(shape(), grpo::logp_old(y), grpo::logp_rollout(in)), rule, out);
        });
        check("logp_old", [&](const auto& in, auto& out) {
            grpo::correction_weights(grpo::batch(shape(), grpo::logp_old(in), grpo::logp_rollout(y)), rule, out);
        });
    }
}

TEST_CASE("R1.41 the gradient over the logits") {
    const array six(x.begin(), x.begin() + 6), other(y.begin(), y.begin() + 6), slope{2, -1}, of_entropy{0.5, 3};
    const std::vector<int> target{2, 0};
    check(
        "d_logits",
        [&](const auto& in, auto& out) {
            grpo::d_logits(grpo::serial{}, grpo::logits(in, 2, 3), target, {.temperature = 0.5}, grpo::view(slope),
                           grpo::view(of_entropy), grpo::view<double>(out));
        },
        six);
    check(
        "full_kl",
        [&](const auto& in, auto& out) {
            array kl(2);
            grpo::full_kl(grpo::serial{}, grpo::logits(in, 2, 3), grpo::logits(other, 2, 3), {}, grpo::view<double>(kl),
                          grpo::view<const double>(slope), grpo::view<double>(out));
        },
        six);
}

TEST_CASE("R1.41 every recipe's advantages over the rewards") {
    for (const char* name : grpo::recipe::names()) {
        const grpo::recipe::advantage_rule rule = grpo::recipe::advantages(name);
        if (!rule.gives_sequences() || rule.group.scale == grpo::group_scale::leave_one_out) continue;
        const std::vector<std::int64_t> tokens{0, 2, 3, 7, 8, 8, 10, 14};
        CAPTURE(name);
        array elsewhere(x.size(), 77.0), own = x;
        rule.by_sequence(shape(), grpo::ragged(tokens), x, elsewhere);
        rule.by_sequence(shape(), grpo::ragged(tokens), own, own);
        CHECK(same_bits(own, elsewhere));
    }
}

TEST_CASE("R1.41 rewards that a recipe cuts are cut in the output: each estimator reads before it writes") {
    array cut = x;
    for (double& r : cut) r = r < -1 ? -1 : r > 1 ? 1 : r;
    for (const auto kind : {grpo::recipe::estimator::group, grpo::recipe::estimator::opo, grpo::recipe::estimator::gpg,
                            grpo::recipe::estimator::pass_at_k, grpo::recipe::estimator::raw}) {
        const std::vector<std::int64_t> tokens{0, 2, 3, 7, 8, 8, 10, 14};
        grpo::recipe::advantage_rule rule{.kind = kind};
        array expected(x.size(), 77.0), got(expected);
        rule.by_sequence(shape(), grpo::ragged(tokens), cut, expected);
        rule.reward_bound = 1;
        rule.by_sequence(shape(), grpo::ragged(tokens), x, got);
        CHECK(same_bits(got, expected));
    }
}

}  // namespace
