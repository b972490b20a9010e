// Aggregations against the reference vectors, empty batches, and splitting a batch into micro-batches.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/loss_cases.hpp>

namespace {

using grpo::aggregation;
using vectors::layout;
using vectors::test_case;

// The term nll with logp = -loss: the token loss is the input itself, and its derivative is -d/dlogp.
template <class T>
void check(const test_case& c) {
    INFO(c.id());
    const layout l(c);
    std::vector<T> logp = c.input<T>("loss");
    for (T& x : logp) x = -x;
    std::vector<T> g(l.tokens(), T(7));
    const grpo::objective loss{grpo::nll{}, l.over()};
    const auto shape = l.shape();
    const grpo::batch b(shape, grpo::logp(logp));
    const grpo::loss_result r = grpo::evaluate(grpo::serial{}, loss, b, l.denominator(), grpo::d_logp(g));
    CHECK(vectors::close(r.loss(l.denominator()), c.value(), c.tolerance<T>()));
    for (T& x : g) x = -x;
    CHECK(vectors::difference(g, c.expected<double>("gradient/loss"), c.tolerance<T>()) == "");
}

TEST_CASE("R1.26 every aggregation equals the reference (double)") {
    for (const test_case& c : vectors::load("aggregation")) check<double>(c);
}

TEST_CASE("R1.26 every aggregation equals the reference (float)") {
    for (const test_case& c : vectors::load("aggregation")) check<float>(c);
}

// Five sequences of 0 to 40 tokens with holes, one of them masked whole.
template <class T>
struct long_batch {
    std::vector<std::int64_t> cu{0, 17, 17, 18, 58, 70};
    std::vector<std::uint8_t> mask;
    std::vector<T> logp, old, ref, advantage;
    std::vector<std::int64_t> rollout_tokens;

    long_batch() {
        std::uint32_t state = 2463534242u;
        const auto next = [&] {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            return static_cast<double>(state % 4096) / 4096;
        };
        for (std::int64_t t = 0; t < cu.back(); ++t) {
            mask.push_back(next() < 0.8 && t < 58 ? 1 : 0);
            logp.push_back(static_cast<T>(-3 * next()));
            old.push_back(logp.back() + static_cast<T>(next() - 0.5));
            ref.push_back(logp.back() + static_cast<T>(next() - 0.5));
        }
        for (int s = 0; s < 5; ++s) advantage.push_back(static_cast<T>(3 * next() - 1.5));
        const auto all = grpo::ragged(cu).where(mask);
        const std::int64_t first = all.count_active(0) + all.count_active(1) + all.count_active(2);
        const std::int64_t second = all.count_active(3) + all.count_active(4);
        rollout_tokens = {first, first, first, second, second};
    }

    std::vector<aggregation> modes() const {
        return {aggregation::token_mean(),        aggregation::sequence_mean(),
                aggregation::sequence_mean(true), aggregation::sequence_sum(),
                aggregation::sequence_sum(true),  aggregation::constant_length(40),
                aggregation::token_sum(),         aggregation::sum_over(6.5),
                aggregation::length_power(0.25),  aggregation::rollout_mean(rollout_tokens, 2)};
    }
};

// Rows [first, last) of a batch as a batch of its own, with a gradient of its own.
template <class T, class Term>
void accumulate_rows(const long_batch<T>& whole, std::size_t first, std::size_t last, const Term& term,
                     aggregation over, double denominator, grpo::loss_result& total, std::vector<T>& gradient) {
    const std::size_t begin = static_cast<std::size_t>(whole.cu[first]);
    const std::size_t n = static_cast<std::size_t>(whole.cu[last]) - begin;
    std::vector<std::int64_t> cu;
    for (std::size_t s = first; s <= last; ++s) cu.push_back(whole.cu[s] - whole.cu[first]);
    const auto part = [&](const auto& v) { return grpo::view(v.data() + begin, static_cast<std::int64_t>(n)); };
    const auto rows = static_cast<std::int64_t>(last - first);
    const auto shape = grpo::ragged(cu).where(part(whole.mask));
    const grpo::batch b(shape, grpo::logp(part(whole.logp)), grpo::logp_old(part(whole.old)),
                        grpo::logp_ref(part(whole.ref)),
                        grpo::advantage(grpo::by_sequence(grpo::view(whole.advantage.data() + first, rows))));
    const grpo::objective loss{term, over};
    grpo::accumulate(total, grpo::serial{}, loss.diagnosed(), b, denominator,
                     grpo::d_logp(grpo::view(gradient.data() + begin, static_cast<std::int64_t>(n))));
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// The rollout mean looks its token counts up by row, so a part needs the counts of its own rows.
template <class T>
aggregation mode_of_rows(const long_batch<T>& batch, std::size_t mode, std::size_t first, std::size_t last) {
    if (mode != 9) return batch.modes()[mode];
    const grpo::view<const std::int64_t> tokens(batch.rollout_tokens.data() + first,
                                                static_cast<std::int64_t>(last - first));
    return aggregation::rollout_mean(tokens, 2);
}

const std::vector<std::vector<std::size_t>> splits{{0, 5}, {0, 1, 5}, {0, 2, 3, 5}, {0, 1, 2, 3, 4, 5}, {0, 0, 4, 4, 5}};

template <class T, class Term>
void check_splits(const Term& term, double tolerance) {
    const long_batch<T> batch;
    for (std::size_t mode = 0; mode < batch.modes().size(); ++mode) {
        const aggregation over = batch.modes()[mode];
        const double n = over.denominator(grpo::count(grpo::ragged(batch.cu).where(batch.mask)));
        grpo::loss_result whole;
        std::vector<T> gradient(70, T(7));
        accumulate_rows(batch, 0, 5, term, over, n, whole, gradient);
        for (const auto& split : splits) {
            CAPTURE(mode);
            grpo::loss_result continued;
            double sum = 0, weight = 0;
            std::vector<T> g(70, T(7)), own(70, T(7));
            for (std::size_t k = 0; k + 1 < split.size(); ++k) {
                const aggregation part = mode_of_rows(batch, mode, split[k], split[k + 1]);
                accumulate_rows(batch, split[k], split[k + 1], term, part, n, continued, g);
                grpo::loss_result alone;
                accumulate_rows(batch, split[k], split[k + 1], term, part, n, alone, own);
                sum += alone.sum;
                weight += alone.weight;
            }
            CHECK(continued.sum == whole.sum);
            CHECK(continued.weight == whole.weight);
            CHECK(continued.count.tokens == whole.count.tokens);
            CHECK(continued.metrics.approx_kl == whole.metrics.approx_kl);
            CHECK(continued.metrics.clipped_high == whole.metrics.clipped_high);
            CHECK(same_bits(g, gradient));
            CHECK(vectors::close(sum, whole.sum, tolerance));
            CHECK(vectors::close(weight, whole.weight, 1e-15));
        }
    }
}

TEST_CASE("R1.27 R1.28 R1.29 any split into micro-batches gives the whole batch's sum, weight, metrics and gradient") {
    const auto token_level = grpo::clipped{} + 0.04 * grpo::kl{};
    check_splits<double>(token_level, 1e-12);
    check_splits<float>(token_level, 1e-6);
    const auto sequence_level = grpo::gspo{.low = 0.05, .high = 0.05} + 0.04 * grpo::kl{};
    check_splits<double>(sequence_level, 1e-12);
    check_splits<float>(sequence_level, 1e-6);
}

TEST_CASE("R1.27 loss = sum / weight is the loss for the batch's own denominator") {
    const long_batch<double> batch;
    for (const aggregation& over : batch.modes()) {
        std::vector<double> g(70);
        const double n = over.denominator(grpo::count(grpo::ragged(batch.cu).where(batch.mask)));
        grpo::loss_result r;
        accumulate_rows(batch, 0, 5, grpo::clipped{}, over, n, r, g);
        if (r.weight > 0) CHECK(vectors::close(r.loss(), r.loss(n), 1e-15));
    }
}

TEST_CASE("R1.28 the gradient is divided by the caller's denominator") {
    const long_batch<double> batch;
    std::vector<double> one(70), four(70);
    grpo::loss_result r;
    accumulate_rows(batch, 0, 5, grpo::clipped{}, aggregation::token_mean(), 1.0, r, one);
    accumulate_rows(batch, 0, 5, grpo::clipped{}, aggregation::token_mean(), 4.0, r, four);
    for (std::size_t t = 0; t < 70; ++t) CHECK(4 * four[t] == one[t]);
}

TEST_CASE("R1.18 a batch without active tokens has loss 0, gradient 0, finite metrics and count 0") {
    long_batch<float> batch;
    batch.mask.assign(batch.mask.size(), 0);
    for (auto* poisoned : {&batch.logp, &batch.old, &batch.ref}) {
        poisoned->assign(70, std::numeric_limits<float>::quiet_NaN());
    }
    batch.rollout_tokens.assign(5, 0);
    for (const aggregation& over : batch.modes()) {
        std::vector<float> g(70, 7.0f);
        const double n = over.denominator(grpo::count(grpo::ragged(batch.cu).where(batch.mask)));
        grpo::loss_result r;
        accumulate_rows(batch, 0, 5, grpo::clipped{} + 0.04 * grpo::kl{}, over, n, r, g);
        CHECK(r.loss(n) == 0.0);
        CHECK(r.loss() == 0.0);
        CHECK(r.count.tokens == 0);
        CHECK(r.nonfinite == 0);
        CHECK(same_bits(g, std::vector<float>(70, 0.0f)));
        CHECK(r.metrics.tokens == 0.0);
        CHECK(r.metrics.largest_abs_log_ratio() == 0.0);
        CHECK(r.metrics.effective_sample_size() == 0.0);
        CHECK(r.metrics.approx_kl == 0.0);
    }
}

TEST_CASE("R1.18 a fully masked sequence counts in the mean over sequences only if asked for") {
    const std::vector<std::int64_t> cu{0, 2, 4};
    const std::vector<std::uint8_t> mask{1, 1, 0, 0};
    const std::vector<double> logp{-1.0, -3.0, -100.0, -100.0};
    const auto shape = grpo::ragged(cu).where(mask);
    const grpo::batch b(shape, grpo::logp(logp));
    const auto loss = [&](aggregation over) {
        const double n = over.denominator(grpo::count(shape));
        return grpo::evaluate(grpo::serial{}, grpo::objective{grpo::nll{}, over}, b, n).loss(n);
    };
    CHECK(loss(aggregation::sequence_mean()) == 2.0);
    CHECK(loss(aggregation::sequence_mean(true)) == 1.0);
    CHECK(loss(aggregation::sequence_sum()) == 4.0);
    CHECK(loss(aggregation::sequence_sum(true)) == 2.0);
    CHECK(loss(aggregation::length_power(0.5, false)) == doctest::Approx(4 / std::sqrt(2.0)));
    CHECK(loss(aggregation::length_power(0.5, true)) == doctest::Approx(2 / std::sqrt(2.0)));
}

TEST_CASE("a normaliser that is not above 0 is refused") {
    const std::vector<std::int64_t> cu{0, 1};
    const std::vector<double> logp{-1.0};
    const auto shape = grpo::ragged(cu);
    const grpo::batch b(shape, grpo::logp(logp));
    for (const aggregation& over : {aggregation::constant_length(0), aggregation::sum_over(-1)}) {
        CHECK_THROWS_AS((void)grpo::evaluate(grpo::serial{}, grpo::objective{grpo::nll{}, over}, b, 1.0), grpo::error);
    }
}

}  // namespace
