// Selections over a batch: masks against the cases of tests/vectors/policy.json that select, groups against shaping.json.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <grpo/correction.hpp>
#include <grpo/grpo.hpp>
#include <grpo/selection.hpp>

#include <support/loss_cases.hpp>
#include <support/vectors.hpp>

namespace {

using mask_t = std::vector<std::uint8_t>;
using offsets_t = std::vector<std::int64_t>;

const float nan_f = std::numeric_limits<float>::quiet_NaN();
const float inf_f = std::numeric_limits<float>::infinity();

mask_t inverted(const mask_t& keep, const mask_t& mask) {
    mask_t out(keep.size());
    for (std::size_t t = 0; t < keep.size(); ++t) out[t] = mask[t] && !keep[t] ? 1 : 0;
    return out;
}

template <class T>
void check_selection(const vectors::test_case& c) {
    const vectors::layout l(c);
    vectors::policy_inputs<T> in(c, l);
    const auto b = in.batch(l);
    mask_t out(l.tokens(), 9);
    const std::string m = c.method();
    if (m == "clip_cov") {
        const grpo::clipped clip{.low = c.number("low"), .high = c.number("high"), .bound = vectors::safety_bound_of(c)};
        const auto r = grpo::select_clip_cov(
            b, clip, {c.number("fraction"), c.number("cov_low"), c.number("cov_high")}, out);
        CHECK(vectors::difference(inverted(out, l.mask()), c.expected<double>("selected"), 0.0) == "");
        const mask_t gone = inverted(out, l.mask());
        CHECK(r.selected == std::count(gone.begin(), gone.end(), 1));
    } else if (m == "kl_cov") {
        grpo::select_kl_cov(b, c.number("fraction"), out);
        CHECK(vectors::difference(out, c.expected<double>("selected"), 0.0) == "");
    } else if (m == "m2po") {
        grpo::select_m2po(b, c.number("threshold"), out);
        CHECK(vectors::difference(out, c.expected<double>("keep"), 0.0) == "");
    } else if (m == "logp_error_mask") {
        grpo::reject(b, grpo::rejection::logp_error(c.number("threshold")), out);
        CHECK(vectors::difference(out, c.expected<double>("keep"), 0.0) == "");
    } else {
        const std::vector<T> entropy = c.input<T>("entropy");
        grpo::select_top_entropy(grpo::batch(l.shape(), grpo::entropy(entropy)), c.number("keep"), out);
        in.keep.assign(out.begin(), out.end());
        const auto loss = grpo::selected{} * grpo::clipped{.low = c.number("low"), .high = c.number("high"),
                                                           .bound = vectors::safety_bound_of(c)};
        const auto r = vectors::evaluate<T>(loss, l, in);
        CHECK(vectors::close(r.value, c.value(), c.tolerance<T>()));
        CHECK(vectors::difference(r.gradient, c.expected<double>("gradient/logp"), c.tolerance<T>()) == "");
    }
}

// Two sequences with holes.
struct small {
    std::vector<float> logp{-1.0f, -9.0f, -0.5f, -2.0f, -1.5f, -9.0f, -0.25f};
    std::vector<float> old{-1.25f, -9.0f, -0.375f, -1.0f, -1.75f, -9.0f, -1.0f};
    std::vector<float> rollout{-1.5f, -9.0f, -0.25f, -2.5f, -1.75f, -9.0f, -0.5f};
    std::vector<float> advantage{1.0f, -9.0f, 1.0f, -0.5f, -0.5f, -9.0f, 2.0f};
    std::vector<float> entropy{0.5f, -9.0f, 1.0f, 0.25f, 1.0f, -9.0f, 2.0f};
    mask_t mask{1, 0, 1, 1, 1, 0, 1};
    offsets_t cu{0, 3, 7};
    template <class Shape>
    auto batch_over(const Shape& shape) const {
        return grpo::batch(shape, grpo::logp(logp), grpo::logp_old(old), grpo::logp_rollout(rollout),
                           grpo::advantage(advantage), grpo::entropy(entropy));
    }
    auto batch() const { return batch_over(grpo::ragged(cu).where(mask)); }
};

struct outcome {
    std::vector<mask_t> masks;
    std::vector<double> numbers;
    bool operator==(const outcome&) const = default;
};

template <class Batch>
outcome select_all(const Batch& b) {
    outcome out;
    const std::size_t n = static_cast<std::size_t>(b.layout.extent());
    const auto add = [&](const auto& select) {
        mask_t m(n, 9);
        const grpo::selection_result r = select(m);
        out.masks.push_back(m);
        out.numbers.insert(out.numbers.end(), {double(r.tokens), double(r.selected), double(r.nonfinite), r.threshold});
    };
    add([&](mask_t& m) { return grpo::select_clip_cov(b, grpo::clipped{.low = 1.0, .high = 5.0}, {0.5, -1.0, 5.0}, m); });
    add([&](mask_t& m) { return grpo::select_kl_cov(b, 0.5, m); });
    add([&](mask_t& m) { return grpo::select_top_entropy(b, 0.5, m); });
    add([&](mask_t& m) { return grpo::select_m2po(b, 0.1, m); });
    return out;
}

}  // namespace

TEST_CASE("vectors: P15 P16 P22 P24 P25 select the reference's tokens") {
    std::size_t seen = 0;
    for (const vectors::test_case& c : vectors::load("policy")) {
        const std::string m = c.method();
        if (m != "clip_cov" && m != "kl_cov" && m != "m2po" && m != "logp_error_mask" && m != "entropy_quantile") continue;
        INFO(c.id());
        ++seen;
        check_selection<double>(c);
        check_selection<float>(c);
    }
    CHECK(seen == 53);
}

TEST_CASE("vectors: Q01 R1.45 group filters judge the raw reward") {
    std::size_t seen = 0;
    for (const vectors::test_case& c : vectors::load("shaping")) {
        if (c.method() != "group_filter" && c.method() != "sample_filter") continue;
        INFO(c.id());
        ++seen;
        const auto reward = c.input<double>("reward");
        const auto offsets = c.input<std::int64_t>("group_offsets");
        const auto groups = grpo::ragged(offsets);
        const std::string rule = c.text("rule");
        if (c.method() == "sample_filter") {
            mask_t keep(reward.size(), 9);
            const auto r = grpo::select_samples(groups, reward, keep);
            CHECK(vectors::difference(keep, c.expected<double>("keep_sample"), 0.0) == "");
            CHECK(r.considered == static_cast<std::int64_t>(reward.size()));
            continue;
        }
        mask_t keep(offsets.size() - 1, 9);
        grpo::group_filter filter;
        if (rule == "std_above") {
            filter = grpo::group_filter::std_above(c.number("threshold"), c.integer("ddof"));
        } else if (rule == "mean_between") {
            filter = grpo::group_filter::mean_between(c.number("low"), c.number("high"));
        } else {
            REQUIRE(rule == "nonzero_std");
        }
        const auto r = grpo::select_groups(groups, reward, filter, keep);
        CHECK(vectors::difference(keep, c.expected<double>("keep"), 0.0) == "");
        CHECK(r.kept == std::count(keep.begin(), keep.end(), 1));
    }
    CHECK(seen == 7);
}

// What a sort would pick: the first k of all tokens by `before`, ties by the sort's own order.
template <class Before>
mask_t first_of_sorted(std::size_t n, std::size_t k, const Before& before) {
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), before);
    mask_t picked(n, 0);
    for (std::size_t i = 0; i < k; ++i) picked[order[i]] = 1;
    return picked;
}

TEST_CASE("selections agree with sorting, ties and signs included") {
    std::mt19937 random(7);
    const auto one_of_few = [&] {  // dyadic, so that no sum is rounded
        return std::ldexp(static_cast<double>(random() % 9) - 4.0, static_cast<int>(random() % 3) * 10 - 10);
    };
    for (int round = 0; round < 60; ++round) {
        const std::size_t n = static_cast<std::size_t>(1 + round * (round % 4 == 0 ? 13 : 1));
        std::vector<double> x(n), y(n), zero(n, 0.0);
        for (double& v : x) v = one_of_few();
        for (double& v : y) v = one_of_few();
        if (round % 3 == 0) x[0] = -0.0;
        const offsets_t cu{0, static_cast<std::int64_t>(n / 3), static_cast<std::int64_t>(n / 3), static_cast<std::int64_t>(n)};
        const grpo::ragged rows(cu);
        mask_t keep(n, 9);
        std::vector<double> sorted = x;
        std::sort(sorted.begin(), sorted.end());
        for (const double share : {0.0, 0.1, 0.25, 0.5, 0.9, 1.0}) {
            const double at = (1.0 - share) * static_cast<double>(n - 1);
            const auto below = static_cast<std::size_t>(at);
            const double high = sorted[std::min(below + 1, n - 1)];
            const double threshold = std::min(high, sorted[below] + (at - std::floor(at)) * (high - sorted[below]));
            const auto r = grpo::select_top_entropy(grpo::batch(rows, grpo::entropy(x)), share, keep);
            CHECK(r.threshold == threshold);
            for (std::size_t i = 0; i < n; ++i) CHECK(keep[i] == (x[i] >= threshold ? 1 : 0));

            const double mean_x = std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(n);
            const double mean_y = std::accumulate(y.begin(), y.end(), 0.0) / static_cast<double>(n);
            const auto cov = [&](std::size_t i) { return (x[i] - mean_x) * (y[i] - mean_y); };
            const std::size_t k = std::max<std::size_t>(1, static_cast<std::size_t>(share * static_cast<double>(n)));
            const auto chosen = grpo::select_kl_cov(grpo::batch(rows, grpo::logp(y), grpo::advantage(x)), share, keep);
            const mask_t expected = first_of_sorted(n, k, [&](std::size_t a, std::size_t b) { return cov(a) > cov(b); });
            CHECK(keep == expected);
            CHECK(chosen.selected == static_cast<std::int64_t>(k));
            double least = 1e300;
            for (std::size_t i = 0; i < n; ++i) least = expected[i] != 0 ? std::min(least, cov(i)) : least;
            CHECK(chosen.threshold == least);
        }
        // The longest run whose mean is below a threshold, by trying every length; of equal ones the last stay.
        sorted = x;
        for (double& v : sorted) v *= v;
        std::sort(sorted.begin(), sorted.end());
        for (const double threshold : {0.0, 1e-6, 0.5, 2.0, 1e12}) {
            std::size_t longest = 1;
            double sum = 0;
            for (std::size_t k = 1; k <= n; ++k) {
                sum += sorted[k - 1];
                if (sum / static_cast<double>(k) < threshold) longest = k;
            }
            const auto r = grpo::select_m2po(grpo::batch(rows, grpo::logp_old(zero), grpo::logp_rollout(x)), threshold, keep);
            CHECK(keep == first_of_sorted(n, longest, [&](std::size_t a, std::size_t b) {
                      const double p = x[a] * x[a], q = x[b] * x[b];
                      return p < q || (p <= q && a > b);
                  }));
            CHECK(r.threshold == sorted[longest - 1]);
        }
    }
}

TEST_CASE("R1.38 the top-entropy quantile is over active tokens only and keeps ties") {
    std::vector<double> entropy(12);
    std::iota(entropy.begin(), entropy.end(), 0.0);
    mask_t mask(12, 1);
    mask[11] = 0;  // 0..10 are active: the 0.8-quantile is 8
    entropy[11] = 1e6;
    const offsets_t cu{0, 5, 12};
    mask_t keep(12, 9);
    const auto shape = grpo::ragged(cu).where(mask);
    auto r = grpo::select_top_entropy(grpo::batch(shape, grpo::entropy(entropy)), 0.2, keep);
    CHECK(r.threshold == 8.0);
    CHECK(keep == mask_t{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0});
    entropy[2] = entropy[5] = 8.0;
    r = grpo::select_top_entropy(grpo::batch(shape, grpo::entropy(entropy)), 0.2, keep);
    CHECK(r.threshold == 8.0);
    CHECK(keep == mask_t{0, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0});
    CHECK(r.selected == 5);
    r = grpo::select_top_entropy(grpo::batch(shape, grpo::entropy(entropy)), 1.0, keep);
    CHECK(keep == mask);
    r = grpo::select_top_entropy(grpo::batch(shape, grpo::entropy(entropy)), 0.0, keep);
    CHECK(r.selected == 1);
    CHECK(keep[10] == 1);
}

TEST_CASE("R1.12 R1.16 masked entries never matter, active non-finite ones are counted and left alone") {
    const small clean;
    const outcome expected = select_all(clean.batch());
    for (const mask_t& m : expected.masks) {
        CHECK(m[1] == 0);
        CHECK(m[5] == 0);
        CHECK(m != clean.mask);
    }
    for (const float garbage : {nan_f, inf_f, -inf_f, 1e30f}) {
        small dirty;
        for (std::vector<float>* x : {&dirty.logp, &dirty.old, &dirty.rollout, &dirty.advantage, &dirty.entropy}) {
            (*x)[1] = (*x)[5] = garbage;
        }
        CHECK(select_all(dirty.batch()) == expected);
    }
    small bad;
    bad.logp[3] = bad.old[3] = bad.entropy[3] = nan_f;
    const outcome with_nan = select_all(bad.batch());
    bad.mask[3] = 0;
    const outcome without = select_all(bad.batch());
    for (std::size_t k = 0; k < with_nan.masks.size(); ++k) {
        CHECK(with_nan.numbers[4 * k + 2] == 1.0);
        CHECK(with_nan.numbers[4 * k + 3] == without.numbers[4 * k + 3]);
        CHECK(with_nan.masks[k][3] == (k == 1 ? 0 : 1));
        for (std::size_t t = 0; t < 7; ++t) {
            if (t != 3) CHECK(with_nan.masks[k][t] == without.masks[k][t]);
        }
    }
    mask_t keep(7);
    CHECK(grpo::select_top_entropy(small{bad}.batch(), 0.5, keep).first_nonfinite == -1);
    bad.mask[3] = 1;
    CHECK(grpo::select_top_entropy(bad.batch(), 0.5, keep).first_nonfinite == 3);
}

TEST_CASE("R1.13 masked columns to the left and right change no choice") {
    const small x;
    const outcome narrow = select_all(x.batch());
    small wide;
    const auto widen = [&](auto& to, const auto& from, auto fill) {
        to.assign(14, fill);
        for (std::size_t t = 0; t < 3; ++t) to[t + 2] = from[t];
        for (std::size_t t = 3; t < 7; ++t) to[t + 5] = from[t];
    };
    widen(wide.logp, x.logp, nan_f);
    widen(wide.old, x.old, nan_f);
    widen(wide.rollout, x.rollout, nan_f);
    widen(wide.advantage, x.advantage, nan_f);
    widen(wide.entropy, x.entropy, nan_f);
    widen(wide.mask, x.mask, std::uint8_t(0));
    const outcome got = select_all(wide.batch_over(grpo::padded(2, 7).where(wide.mask)));
    CHECK(got.numbers == narrow.numbers);
    for (std::size_t k = 0; k < narrow.masks.size(); ++k) {
        mask_t expected;
        widen(expected, narrow.masks[k], std::uint8_t(0));
        CHECK(got.masks[k] == expected);
    }
}

TEST_CASE("M2PO keeps one token when none is below the threshold, and a missing rollout logp is no difference") {
    const std::vector<double> old{-1.0, -1.0, -1.0};
    std::vector<double> rollout{-2.0, -3.0, 0.0};
    const offsets_t cu{0, 3};
    mask_t keep(3, 9);
    const auto b = grpo::batch(grpo::ragged(cu), grpo::logp_old(old), grpo::logp_rollout(rollout));
    grpo::select_m2po(b, 0.0, keep);
    CHECK(keep == mask_t{0, 0, 1});  // of the two equal ones the later stays
    rollout[0] = std::numeric_limits<double>::quiet_NaN();
    const auto r = grpo::select_m2po(b, 0.75, keep);
    CHECK(keep == mask_t{1, 0, 1});
    CHECK(r.threshold == 1.0);
    CHECK(r.nonfinite == 0);
}

TEST_CASE("groups: unscorable rewards are masked or refused, and choices expand to tokens") {
    const offsets_t offsets{0, 2, 4};
    std::vector<float> reward{1.0f, nan_f, 0.0f, 1.0f};
    mask_t keep(2, 9);
    CHECK_THROWS_WITH_AS(grpo::select_groups(grpo::ragged(offsets), reward, grpo::group_filter::nonzero_std(), keep),
                         "grpo::select_groups: reward [1] of 4 is not finite: mask it with groups.where(valid)",
                         grpo::error);
    CHECK(keep == mask_t{9, 9});
    const mask_t valid{1, 0, 1, 1};
    grpo::select_groups(grpo::ragged(offsets).where(valid), reward, grpo::group_filter::std_above(), keep);
    CHECK(keep == mask_t{0, 1});
    grpo::select_groups(grpo::ragged(offsets).where(valid), reward, grpo::group_filter::nonzero_std(), keep);
    CHECK(keep == mask_t{1, 1});
    mask_t samples(4, 9);
    grpo::select_samples(grpo::padded(1, 4).where(valid), reward, samples);
    CHECK(samples == mask_t{1, 0, 0, 1});  // without one of the two 1s the others still differ; without the 0 they do not
    const mask_t rows{0, 1};
    const offsets_t cu{0, 3, 5};
    const mask_t mask{1, 1, 1, 0, 1};
    mask_t tokens(5, 9);
    grpo::expand_rows(grpo::ragged(cu).where(mask), rows, tokens);
    CHECK(tokens == mask_t{0, 0, 0, 0, 1});
}

TEST_CASE("sizes and ranges are checked before anything is written") {
    const small x;
    const auto b = x.batch();
    mask_t keep(7, 9), few(6, 9);
    CHECK_THROWS_WITH_AS(grpo::select_kl_cov(b, 0.5, few),
                         "grpo::select_kl_cov: mark has 6 entries, but the batch has 7 positions", grpo::error);
    CHECK_THROWS_AS(grpo::select_kl_cov(b, 1.5, keep), grpo::error);
    CHECK_THROWS_AS(grpo::select_top_entropy(b, -0.5, keep), grpo::error);
    CHECK_THROWS_AS(grpo::select_m2po(b, -1.0, keep), grpo::error);
    CHECK_THROWS_AS(grpo::select_clip_cov(b, grpo::clipped{}, {0.5, 2.0, 1.0}, keep), grpo::error);
    CHECK_THROWS_AS(grpo::select_clip_cov(b, grpo::clipped{.low = -1.0}, {}, keep), grpo::error);
    CHECK_THROWS_AS(grpo::select_groups(grpo::padded(1, 7), x.logp, grpo::group_filter::std_above(-1.0), keep), grpo::error);
    CHECK_THROWS_AS(grpo::select_groups(grpo::padded(7, 1), x.logp, grpo::group_filter::mean_between(2.0, 1.0), keep),
                    grpo::error);
    CHECK_THROWS_AS(grpo::expand_rows(grpo::padded(7, 1), few, keep), grpo::error);
    CHECK(keep == mask_t(7, 9));
    CHECK(few == mask_t(6, 9));
}
