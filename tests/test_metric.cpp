// Evaluation metrics against tests/vectors/evaluation.json, the fits against diagnostics.json.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>
#include <grpo/grpo.hpp>
#include <grpo/metric.hpp>

#include <support/vectors.hpp>

namespace {

using mask_t = std::vector<std::uint8_t>;
using offsets_t = std::vector<std::int64_t>;
using vectors::test_case;

const double nan_d = std::numeric_limits<double>::quiet_NaN();
const double inf_d = std::numeric_limits<double>::infinity();

template <class T>
void check_groups(const test_case& c, const std::vector<T>& value, const grpo::metric_mean& r) {
    CHECK(vectors::difference(value, c.expected<double>("value"), c.tolerance<T>()) == "");
    CHECK(vectors::close(r.mean(), c.expected_number("mean"), c.tolerance<T>()));
    CHECK(r.skipped == 0);
}

template <class T>
void check_pass(const test_case& c) {
    const auto n = c.input<std::int64_t>("samples");
    const auto right = c.input<std::int64_t>("correct");
    const std::int64_t k = c.integer("k");
    std::vector<double> value;
    offsets_t offsets{0};
    mask_t flags;
    for (std::size_t i = 0; i < n.size(); ++i) {
        value.push_back(grpo::pass_at_k(n[i], right[i], k));
        offsets.push_back(offsets.back() + n[i]);
        for (std::int64_t j = 0; j < n[i]; ++j) flags.push_back(j >= n[i] - right[i] ? 1 : 0);
    }
    CHECK(vectors::difference(value, c.expected<double>("value"), c.tolerance<double>()) == "");
    std::vector<T> out(n.size(), T(7));
    const auto r = grpo::pass_at_k(grpo::ragged(offsets), flags, k, out);
    check_groups(c, out, r);
}

template <class T>
void check_case(const test_case& c) {
    const std::string m = c.method();
    if (m == "pass_at_k") {
        check_pass<T>(c);
        return;
    }
    const auto offsets = c.input<std::int64_t>("group_offsets");
    const auto groups = grpo::ragged(offsets);
    std::vector<T> out(offsets.size() - 1, T(7));
    if (m == "maj_at_k") {
        REQUIRE(c.text("tie") == "first");
        const auto answer = c.input<std::int32_t>("answer");
        const auto correct = c.input<T>("correct");
        const std::int64_t k = c.integer("k");
        std::vector<grpo::majority_cell> cells(static_cast<std::size_t>(grpo::majority_workspace(groups, k)));
        const auto r = grpo::maj_at_k(groups, answer, correct, k, grpo::majority_tie::first, cells, out);
        check_groups(c, out, r);
        return;
    }
    const auto reward = c.input<T>("reward");
    if (m == "mean_at_n") {
        const auto r = grpo::mean_at_n(groups, reward, out);
        check_groups(c, out, r);
    } else if (m == "best_of_n" || m == "worst_of_n") {
        const auto how = c.flag("replacement") ? grpo::draw::with_replacement : grpo::draw::without_replacement;
        const auto r = m == "best_of_n" ? grpo::best_of_n(groups, reward, c.integer("n"), how, out)
                                        : grpo::worst_of_n(groups, reward, c.integer("n"), how, out);
        check_groups(c, out, r);
    } else {
        FAIL("no test for the method " << m);
    }
}

// maj@k by listing every subset, under either rule for ties.
double listed_majority(const std::vector<int>& answer, const std::vector<int>& right, int k, bool split) {
    const int n = static_cast<int>(answer.size());
    double won = 0;
    int subsets = 0;
    for (int bits = 0; bits < (1 << n); ++bits) {
        if (__builtin_popcount(static_cast<unsigned>(bits)) != k) continue;
        ++subsets;
        std::vector<int> votes(16, 0), order;
        int most = 0;
        for (int i = 0; i < n; ++i) {
            if (!(bits >> i & 1)) continue;
            const int a = answer[static_cast<std::size_t>(i)];
            if (votes[static_cast<std::size_t>(a)]++ == 0) order.push_back(a);
            most = std::max(most, votes[static_cast<std::size_t>(a)]);
        }
        int tied = 0, good = 0, first = -1;
        for (const int a : order) {
            if (votes[static_cast<std::size_t>(a)] != most) continue;
            if (first < 0) first = a;
            ++tied;
            good += right[static_cast<std::size_t>(a)];
        }
        won += split ? static_cast<double>(good) / tied : right[static_cast<std::size_t>(first)];
    }
    return won / subsets;
}

template <class T>
void check_fit(const test_case& c) {
    const auto mask = c.input<std::uint8_t>("mask");
    const auto shape = grpo::padded(1, static_cast<std::int64_t>(mask.size())).where(mask);
    if (c.method() == "explained_variance") {
        const auto value = c.input<T>("value");
        const auto target = c.input<T>("return");
        const auto f = grpo::measure_value_fit(grpo::batch(shape, grpo::values(value), grpo::returns(target)));
        CHECK(f.of.n == c.expected_number("tokens"));
        CHECK(vectors::close(f.explained_variance(), c.expected_number("explained_variance"), c.tolerance<T>()));
        CHECK(vectors::close(f.of.xx, c.expected_number("return_square_sum"), c.tolerance<T>()));
        CHECK(vectors::close(f.of.yy, c.expected_number("residual_square_sum"), c.tolerance<T>()));
    } else {
        const auto old = c.input<T>("logp_old");
        const auto rollout = c.input<T>("logp_rollout");
        const auto f = grpo::measure_probability_fit(grpo::batch(shape, grpo::logp_old(old), grpo::logp_rollout(rollout)));
        CHECK(f.of.n == c.expected_number("tokens"));
        CHECK(vectors::close(f.correlation(), c.expected_number("correlation"), c.tolerance<T>()));
    }
}

}  // namespace

TEST_CASE("vectors: evaluation") {
    for (const test_case& c : vectors::load("evaluation")) {
        INFO(c.id());
        check_case<double>(c);
        check_case<float>(c);
    }
}

TEST_CASE("vectors: explained variance and correlation") {
    std::size_t seen = 0;
    for (const test_case& c : vectors::load("diagnostics")) {
        if (c.method() != "explained_variance" && c.method() != "probability_correlation") continue;
        INFO(c.id());
        ++seen;
        check_fit<double>(c);
        check_fit<float>(c);
    }
    CHECK(seen == 7);
}

TEST_CASE("maj@k counts what listing every subset counts, for both rules of ties") {
    std::uint32_t state = 5;
    for (int round = 0; round < 40; ++round) {
        const int n = 1 + round % 9;
        std::vector<int> answer, right(16, 0), correct;
        for (int i = 0; i < n; ++i) {
            state = state * 1664525u + 1013904223u;
            answer.push_back(static_cast<int>(state >> 28) % (2 + round % 4));
        }
        right[static_cast<std::size_t>(round % 3)] = 1;
        right[4] = round % 2;
        for (const int a : answer) correct.push_back(right[static_cast<std::size_t>(a)]);
        const auto groups = grpo::padded(1, n);
        for (int k = 1; k <= n; ++k) {
            std::vector<grpo::majority_cell> cells(static_cast<std::size_t>(grpo::majority_workspace(groups, k)));
            std::vector<double> out(1);
            grpo::maj_at_k(groups, answer, correct, k, grpo::majority_tie::first, cells, out);
            CHECK(out[0] == doctest::Approx(listed_majority(answer, right, k, false)).epsilon(1e-12));
            grpo::maj_at_k(groups, answer, correct, k, grpo::majority_tie::split, cells, out);
            CHECK(out[0] == doctest::Approx(listed_majority(answer, right, k, true)).epsilon(1e-12));
        }
    }
}

TEST_CASE("maj@k of 64 samples: a lone correct answer among equals, and a clear majority") {
    const auto groups = grpo::padded(1, 64);
    std::vector<int> answer(64), correct(64, 0);
    for (int i = 0; i < 64; ++i) answer[static_cast<std::size_t>(i)] = i;
    correct[0] = 1;
    std::vector<grpo::majority_cell> cells(static_cast<std::size_t>(grpo::majority_workspace(groups, 16)));
    std::vector<double> out(1);
    // All different: every vote ties, so the first of the subset wins, which is sample 0 in a share k/n of them.
    grpo::maj_at_k(groups, answer, correct, 16, grpo::majority_tie::first, cells, out);
    CHECK(out[0] == doctest::Approx(0.25).epsilon(1e-12));
    grpo::maj_at_k(groups, answer, correct, 16, grpo::majority_tie::split, cells, out);
    CHECK(out[0] == doctest::Approx(1.0 / 64).epsilon(1e-12));
    for (std::size_t i = 0; i < 64; ++i) answer[i] = i < 57 ? 1 : 2;
    for (std::size_t i = 0; i < 64; ++i) correct[i] = i < 57 ? 1 : 0;
    grpo::maj_at_k(groups, answer, correct, 16, grpo::majority_tie::first, cells, out);
    CHECK(out[0] == doctest::Approx(1.0).epsilon(1e-12));  // 7 votes never win 16
}

TEST_CASE("R1.12 samples that are masked out are not read, and short groups are skipped") {
    const mask_t valid{1, 0, 1, 1, 0, 0};
    const offsets_t offsets{0, 4, 6};
    const auto groups = grpo::ragged(offsets).where(valid);
    const std::vector<int> answer{1, 2, 1, 3, 3, 3};
    std::vector<grpo::majority_cell> cells(16);
    for (const double poison : {nan_d, inf_d, -inf_d, 1e30}) {
        const std::vector<double> reward{1.0, poison, 1.0, 0.0, poison, poison};
        std::vector<double> out(2, 7.0);
        auto r = grpo::pass_at_k(groups, reward, 2, out);
        CHECK(out == std::vector<double>{1.0, 0.0});
        CHECK(r.groups == 1);
        CHECK(r.skipped == 1);
        CHECK(r.mean() == 1.0);
        grpo::mean_at_n(groups, reward, out);
        CHECK(out[0] == doctest::Approx(2.0 / 3));
        grpo::best_of_n(groups, reward, 3, grpo::draw::without_replacement, out);
        CHECK(out == std::vector<double>{1.0, 0.0});
        grpo::worst_of_n(groups, reward, 1, grpo::draw::with_replacement, out);
        CHECK(out[0] == doctest::Approx(2.0 / 3));
        r = grpo::maj_at_k(groups, answer, reward, 3, grpo::majority_tie::first, cells, out);
        CHECK(out == std::vector<double>{1.0, 0.0});
        CHECK(r.skipped == 1);
    }
    const mask_t mask{1, 1, 0, 1};
    const std::vector<float> v{1.0f, 2.0f, 5.0f, 4.0f};
    const std::vector<float> target{1.5f, 2.0f, 5.0f, 3.0f};
    const auto shape = grpo::padded(1, 4).where(mask);
    const auto fit = grpo::measure_value_fit(grpo::batch(shape, grpo::values(v), grpo::returns(target)));
    auto dirty_v = v;
    auto dirty_target = target;
    dirty_v[2] = std::numeric_limits<float>::quiet_NaN();
    dirty_target[2] = std::numeric_limits<float>::infinity();
    const auto dirty = grpo::measure_value_fit(grpo::batch(shape, grpo::values(dirty_v), grpo::returns(dirty_target)));
    CHECK(dirty.of.xx == fit.of.xx);
    CHECK(dirty.of.yy == fit.of.yy);
    CHECK(dirty.nonfinite == 0);
}

TEST_CASE("R1.13 masked columns to the left and right change no bit") {
    const std::vector<double> narrow{0.25, 1.0, 0.5, 0.0, 0.75, 0.5};
    std::vector<double> wide(14, nan_d);
    mask_t mask(14, 0);
    const std::size_t at[] = {1, 3, 5, 7, 10, 13};
    for (std::size_t k = 0; k < 6; ++k) {
        wide[at[k]] = narrow[k];
        mask[at[k]] = 1;
    }
    const auto thin = grpo::padded(2, 3);
    const auto thick = grpo::padded(2, 7).where(mask);
    std::vector<double> a(2), b(2);
    grpo::best_of_n(thin, narrow, 2, grpo::draw::without_replacement, a);
    grpo::best_of_n(thick, wide, 2, grpo::draw::without_replacement, b);
    CHECK(a == b);
    grpo::mean_at_n(thin, narrow, a);
    grpo::mean_at_n(thick, wide, b);
    CHECK(a == b);
    grpo::pass_at_k(thin, narrow, 2, a);
    grpo::pass_at_k(thick, wide, 2, b);
    CHECK(a == b);
    CHECK(grpo::measure_value_fit(grpo::batch(thin, grpo::values(narrow), grpo::returns(narrow))).of.xx ==
          grpo::measure_value_fit(grpo::batch(thick, grpo::values(wide), grpo::returns(wide))).of.xx);
}

TEST_CASE("R1.16 fits leave non-finite tokens out and count them, and missing ones apart") {
    const std::vector<double> old{-1.0, nan_d, -3.0, -0.5};
    const std::vector<double> rollout{-1.5, -1.0, nan_d, -0.25};
    const auto f = grpo::measure_probability_fit(
        grpo::batch(grpo::padded(1, 4), grpo::logp_old(old), grpo::logp_rollout(rollout)));
    CHECK(f.of.n == 2);
    CHECK(f.missing == 1);
    CHECK(f.nonfinite == 1);
    CHECK(f.correlation() == doctest::Approx(1.0));
}

TEST_CASE("fits: parts add up, and constants have decided values") {
    const std::vector<double> v{1.0, 2.0, 2.5, 0.5};
    const std::vector<double> r{1.5, 2.0, 3.0, 1.0};
    const auto whole = grpo::measure_value_fit(grpo::batch(grpo::padded(1, 4), grpo::values(v), grpo::returns(r)));
    const auto sum = grpo::measure_value_fit(grpo::batch(grpo::padded(2, 2), grpo::values(v), grpo::returns(r)));
    CHECK(sum.explained_variance() == doctest::Approx(whole.explained_variance()).epsilon(1e-14));
    CHECK(sum.of.correlation() == doctest::Approx(whole.of.correlation()).epsilon(1e-14));
    // eps and ddof act: var(R) = 2.1875 / 4 or / 3, var(R - V) = 0.1875 / 4 or / 3.
    CHECK(whole.explained_variance(1.0, 0) == doctest::Approx(1.0 - 0.046875 / 1.546875).epsilon(1e-14));
    CHECK(whole.explained_variance(1.0, 1) == doctest::Approx(1.0 - 0.0625 / (2.1875 / 3 + 1.0)).epsilon(1e-14));
    const std::vector<double> flat(4, 0.1);
    const auto none = grpo::measure_value_fit(grpo::batch(grpo::padded(1, 4), grpo::values(v), grpo::returns(flat)));
    CHECK(none.explained_variance() == 0.0);
    CHECK(none.of.correlation() == 0.0);
    CHECK(grpo::value_fit{}.explained_variance() == 0.0);
    CHECK(grpo::metric_mean{}.mean() == 0.0);
}

TEST_CASE("sizes and ranges are checked before anything is written") {
    const std::vector<double> reward{1.0, 0.0, nan_d, 1.0};
    const std::vector<int> answer{1, 2, 1, 2};
    std::vector<double> out(2, 7.0), few(1, 7.0);
    std::vector<grpo::majority_cell> cells(16);
    const auto groups = grpo::padded(2, 2);
    CHECK_THROWS_WITH_AS(grpo::mean_at_n(groups, reward, out),
                         "grpo::mean_at_n: reward [2] of 4 is not finite: mask it with groups.where(valid)", grpo::error);
    CHECK_THROWS_AS(grpo::pass_at_k(groups, answer, 0, out), grpo::error);
    CHECK_THROWS_AS(grpo::pass_at_k(groups, answer, 1, few), grpo::error);
    CHECK_THROWS_AS(grpo::pass_at_k(3, 1, 4), grpo::error);
    CHECK_THROWS_AS(grpo::pass_at_k(3, 4, 1), grpo::error);
    CHECK_THROWS_AS(grpo::best_of_n(groups, answer, 0, grpo::draw::with_replacement, out), grpo::error);
    CHECK_THROWS_AS(grpo::maj_at_k(groups, few, answer, 1, grpo::majority_tie::first, cells, out), grpo::error);
    CHECK_THROWS_AS(grpo::maj_at_k(groups, answer, answer, 2, grpo::majority_tie::first, grpo::view(cells.data(), 3), out),
                    grpo::error);
    const std::vector<int> many(1400, 1);
    std::vector<grpo::majority_cell> room(701 * 701);
    CHECK_THROWS_AS(grpo::maj_at_k(grpo::padded(1, 1400), many, many, 700, grpo::majority_tie::first, room, few), grpo::error);
    CHECK(out == std::vector<double>(2, 7.0));
    CHECK(few == std::vector<double>(1, 7.0));
}
