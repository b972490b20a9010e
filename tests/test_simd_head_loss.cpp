// A loss from logits on packs against the serial executor in double: every way that the gradient can take.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/exec/simd.hpp>
#include <grpo/grpo.hpp>

#include <support/head_loss_cases.hpp>

namespace {

using grpo::bfloat16;
using head_loss_cases::world;

const auto plain = grpo::objective{grpo::clipped{.high = 0.28} + 0.04 * grpo::kl{}, grpo::aggregation::token_sum()};
const auto full = grpo::objective{grpo::clipped{} + 0.3 * grpo::exact_kl{} + 0.1 * grpo::entropy_bonus{},
                                  grpo::aggregation::token_sum()};

// "" or the first entry further from double's than 4e-6 of the row's greatest, what 1e-6 in the row's slope makes of it (a
// slope of float is a sum of parts of size 1), and the rounding of what it is stored in.
// Rows that do not count are +0.0, and what lies between rows is what was there.
template <class Out, class T, class S>
std::string difference(const std::vector<Out>& got, const std::vector<double>& expected, const world<T, S>& w,
                       const std::vector<Out>& before) {
    const double rounding = sizeof(Out) == 2 ? 0x1p-8 : 0.0;
    const auto wrong = [](std::int64_t i, std::int64_t c, double x, double e) {
        return "row " + std::to_string(i) + " column " + std::to_string(c) + " is " + std::to_string(x) + ", not " +
               std::to_string(e);
    };
    for (std::int64_t i = 0; i < w.rows(); ++i) {
        double most = 1e-6;
        for (std::int64_t c = 0; c < w.vocabulary; ++c) most = std::max(most, std::abs(expected[w.place(i, c)]));
        for (std::int64_t c = 0; c < (i + 1 < w.rows() ? w.stride : w.vocabulary); ++c) {
            const Out& x = got[w.place(i, c)];
            const double value = static_cast<double>(x), e = expected[w.place(i, c)];
            if (c >= w.vocabulary) {
                if (std::memcmp(&x, &before[w.place(i, c)], sizeof x) != 0) return wrong(i, c, value, -1) + " as before";
            } else if (w.a.mask[static_cast<std::size_t>(i)] == 0) {
                const Out zero(0.0f);
                if (std::memcmp(&x, &zero, sizeof x) != 0) return wrong(i, c, value, 0);
            } else if (!(std::abs(value - e) <= 4e-6 * most + 1e-6 * std::abs(e) / most + rounding * std::abs(e))) {
                return wrong(i, c, value, e);
            }
        }
    }
    return "";
}

// NaN behind every mask, in logits and inputs.
template <class T, class S>
world<T, S> poisoned(world<T, S> w) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    w.a = random_batch::poisoned(w.a, S(nan));
    for (std::int64_t i = 0; i < w.rows(); ++i) {
        if (w.a.mask[static_cast<std::size_t>(i)] != 0) continue;
        for (std::int64_t c = 0; c < w.vocabulary; ++c) w.z[w.place(i, c)] = w.ref[w.place(i, c)] = T(nan);
        w.target[static_cast<std::size_t>(i)] = -100;
    }
    return w;
}

// Over the logits, and into other memory of type Out, against double.
template <class Out, class Loss, class T>
void check(const Loss& loss, const world<T, float>& clean, std::size_t offset = 0) {
    const auto w = poisoned(clean);
    const auto exact = head_loss_cases::evaluate<double>(grpo::serial{}, loss, clean.template as<double, double>());
    INFO("vocabulary ", w.vocabulary, " stride ", w.stride, " offset ", offset);
    const auto o = head_loss_cases::evaluate<Out>(grpo::simd{}, loss, w, true, offset);
    const double tolerance = 2e-6 * (static_cast<double>(w.rows()) + std::abs(exact.result.sum));
    CHECK(std::abs(o.result.sum - exact.result.sum) <= tolerance);
    CHECK(o.result.count.tokens == exact.result.count.tokens);
    for (std::size_t i = 0; i < o.logp.size(); ++i) {
        CHECK(std::abs(static_cast<double>(o.logp[i]) - exact.logp[i]) <= 0x1p-22 * std::max(1.0, -exact.logp[i]));
    }
    CHECK(difference(o.gradient, exact.gradient, w, std::vector<Out>(w.z.size(), Out(head_loss_cases::sentinel))) == "");
    auto place = w;
    const grpo::loss_result r = head_loss_cases::evaluate_in_place(grpo::simd{}, loss, place);
    CHECK(std::abs(r.sum - exact.result.sum) <= tolerance);
    CHECK(difference(place.z, exact.gradient, w, w.z) == "");
}

const std::vector<int> lengths{5, 0, 9, 3};

TEST_CASE("R1.12 R1.41 float logits on packs: other memory and in place, ragged, padded, masked rows of NaN") {
    for (const std::int64_t vocabulary : {17, 1000, 4099}) {
        for (const std::int64_t apart : {0, 1, 6}) {
            const auto w = world<float, float>(lengths, vocabulary, vocabulary + apart, 7, 0.5);
            check<float>(plain, w, static_cast<std::size_t>(apart));
            check<float>(full, w, static_cast<std::size_t>(apart));
        }
    }
}

TEST_CASE("R1.12 R1.41 bfloat16 logits on packs: in place, and a gradient of float") {
    for (const std::int64_t vocabulary : {17, 1000, 4099}) {
        const auto w = world<bfloat16, float>(lengths, vocabulary, vocabulary + 3, 8, 0.5);
        check<float>(plain, w, 5);
    }
}

TEST_CASE("R1.12 columns that pad on packs are not read; the gradient there is +0.0") {
    for (const std::int64_t columns : {1, 16, 45}) {
        const auto w = head_loss_cases::padded(world<float, float>(lengths, 50, 53), columns);
        CHECK(std::string(head_loss_cases::padding_leaks<float>(grpo::simd{}, plain, w, 4e-6)) == "");
        CHECK(std::string(head_loss_cases::padding_leaks<float>(grpo::simd{}, full, w, 4e-6)) == "");
    }
}

TEST_CASE("unaligned gradients beside aligned logits") {
    for (std::size_t offset = 1; offset < 16; ++offset) check<float>(plain, world<float, float>({3, 2}, 300), offset);
}

TEST_CASE("rows that grow: probabilities that were stored move with the reference") {
    for (const std::int64_t vocabulary : {100, 1000, 3001}) {
        auto w = world<float, float>({6, 5}, vocabulary, vocabulary + 1, 9, 1.0);
        for (std::int64_t i = 0; i < w.rows(); ++i) {
            for (std::int64_t c = 0; c < vocabulary; ++c) {
                // Growing, growing in one part of the row, growing at last, falling.
                const double step = i % 4 == 0 ? 0.1 * static_cast<double>(c)
                                    : i % 4 == 1 ? (c > vocabulary / 2 ? 40.0 : 0.0)
                                    : i % 4 == 2 ? (c == vocabulary - 1 ? 15.0 : 0.0) : -0.1 * static_cast<double>(c);
                w.z[w.place(i, c)] += static_cast<float>(step);
            }
            w.target[static_cast<std::size_t>(i)] =
                static_cast<std::int32_t>(i % 4 == 3 ? 0 : i % 4 == 1 ? vocabulary / 2 + 2 : vocabulary - 1);
        }
        w.a.logp_old.assign(w.a.tokens(), -0.5f);
        w.a.logp_ref.assign(w.a.tokens(), -0.7f);
        check<float>(plain, w);
        check<float>(plain, w, 3);
    }
}

TEST_CASE("a gradient larger than a cache") {
    check<float>(plain, world<float, float>({40, 32}, 60001, 0, 10, 0.9), 1);
}

TEST_CASE("R1.16 a target that is filtered is counted, and left out where the policy says so") {
    auto w = world<float, float>({4, 5}, 67, 0, 11, 1.0);
    w.z[w.place(3, w.target[3])] = -std::numeric_limits<float>::infinity();
    w.z[w.place(6, w.target[6])] = -std::numeric_limits<float>::infinity();
    auto loss = plain;
    for (const auto policy : {grpo::nonfinite::report, grpo::nonfinite::skip}) {
        loss.policy = policy;
        const auto o = head_loss_cases::evaluate<float>(grpo::simd{}, loss, w);
        CHECK(o.result.nonfinite == 2);
        CHECK(o.result.first_nonfinite == 3);
        CHECK(o.logp[3] == -std::numeric_limits<float>::infinity());
    }
    const auto skipped = head_loss_cases::evaluate<float>(grpo::simd{}, loss, w);
    auto without = w;
    without.a.mask[3] = without.a.mask[6] = 0;
    const auto rest = head_loss_cases::evaluate<double>(grpo::serial{}, loss, without.as<double, double>());
    CHECK(std::abs(skipped.result.sum - rest.result.sum) <= 1e-5);
    for (std::size_t i = 0; i < w.z.size(); ++i) {
        const double g = static_cast<double>(skipped.gradient[i]);
        if (!(std::abs(g - rest.gradient[i]) <= 4e-6)) FAIL_CHECK("gradient ", i, " is ", g, ", not ", rest.gradient[i]);
    }
}

}  // namespace
