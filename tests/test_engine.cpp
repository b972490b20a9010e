// The engine's promises on the serial executor: masks, padding, non-finite tokens, micro-batches, aliasing, storage types.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <support/all_terms.hpp>
#include <support/random_batch.hpp>

namespace {

using random_batch::arrays;
using random_batch::outcome;
using random_batch::same_bits;

const std::vector<int> lengths{5, 0, 9, 1, 6};

bool close(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance * std::max(1.0, std::abs(b)); }

const auto composed = grpo::clipped{} + 0.04 * grpo::kl{} + 0.01 * grpo::entropy_bonus{};

TEST_CASE("R1.12 masked positions may hold anything: every term") {
    const arrays<float> a = random_batch::make<float>(lengths, 1, 0.5);
    all_terms::for_each([&](const char* name, const auto& term) {
        INFO(std::string(name));
        const outcome<float> clean = random_batch::evaluate(grpo::serial{}, term, a, a.shape());
        for (const float poison : random_batch::poisons<float>()) {
            INFO("poison " << poison);
            const arrays<float> b = random_batch::poisoned(a, poison);
            const outcome<float> got = random_batch::evaluate(grpo::serial{}, term, b, b.shape());
            CHECK(std::string(random_batch::leak(clean, got, a)) == "");
        }
    });
}

TEST_CASE("R1.12 masked positions change no metric, whatever the aggregation") {
    const arrays<double> a = random_batch::make<double>(lengths, 2, 0.5);
    for (const auto& over : {grpo::aggregation::token_mean(), grpo::aggregation::sequence_mean(),
                             grpo::aggregation::sequence_sum(), grpo::aggregation::constant_length(9),
                             grpo::aggregation::length_power(0.5)}) {
        const outcome<double> clean = random_batch::diagnose(grpo::serial{}, composed, a, a.shape(), over);
        CHECK(clean.result.metrics.ratio > 0);
        for (const double poison : random_batch::poisons<double>()) {
            const arrays<double> b = random_batch::poisoned(a, poison);
            const outcome<double> got = random_batch::diagnose(grpo::serial{}, composed, b, b.shape(), over);
            CHECK(std::string(random_batch::leak(clean, got, a)) == "");
        }
    }
}

// The same rows in a padded batch of a greater width, with `shift` masked columns before them.
arrays<double> widened(const arrays<double>& a, int shift, std::int64_t width) {
    arrays<double> b;
    const std::size_t rows = a.cu.size() - 1;
    b.mask.assign(rows * static_cast<std::size_t>(width), 0);
    b.each([&](std::vector<double>& x) { x.assign(b.mask.size(), std::numeric_limits<double>::quiet_NaN()); });
    const arrays<double> from = a;
    const auto copy = [&](const auto& source, auto& to) {
        for (std::size_t s = 0; s < rows; ++s) {
            for (std::int64_t t = a.cu[s]; t < a.cu[s + 1]; ++t) {
                to[s * static_cast<std::size_t>(width) + static_cast<std::size_t>(t - a.cu[s] + shift)] =
                    source[static_cast<std::size_t>(t)];
            }
        }
    };
    copy(from.mask, b.mask);
    std::vector<const std::vector<double>*> sources;
    arrays<double> mutable_from = from;
    mutable_from.each([&](std::vector<double>& x) { sources.push_back(&x); });
    std::size_t k = 0;
    b.each([&](std::vector<double>& x) { copy(*sources[k++], x); });
    return b;
}

TEST_CASE("R1.13 masked columns, left or right, change no bit of any result") {
    const arrays<double> a = random_batch::make<double>(lengths, 3, 0.7);
    const std::int64_t rows = static_cast<std::int64_t>(a.cu.size()) - 1;
    const auto check = [&](const auto& term) {
        const outcome<double> packed = random_batch::diagnose(grpo::serial{}, term, a, a.shape());
        for (const int shift : {0, 1, 4}) {
            for (const std::int64_t width : {13, 24}) {
                const arrays<double> b = widened(a, shift, width);
                const auto shape = grpo::padded(rows, width).where(b.mask);
                const outcome<double> got = random_batch::diagnose(grpo::serial{}, term, b, shape);
                CHECK(same_bits(got.result.sum, packed.result.sum));
                CHECK(same_bits(got.loss(), packed.loss()));
                CHECK(std::memcmp(&got.result.metrics, &packed.result.metrics, sizeof packed.result.metrics) == 0);
                for (std::int64_t s = 0; s < rows; ++s) {
                    const std::size_t first = static_cast<std::size_t>(a.cu[static_cast<std::size_t>(s)]);
                    const std::size_t last = static_cast<std::size_t>(a.cu[static_cast<std::size_t>(s) + 1]);
                    for (std::size_t t = first; t < last; ++t) {
                        const std::size_t at = static_cast<std::size_t>(s * width + shift) + t - first;
                        CHECK(same_bits(got.d_logp[at], packed.d_logp[t]));
                    }
                }
            }
        }
    };
    check(composed);
    check(grpo::gspo{.low = 0.1, .high = 0.1} * grpo::kl{});
}

TEST_CASE("R1.14 holes are holes: a mask equals cutting the tokens out") {
    const arrays<double> a = random_batch::make<double>(lengths, 4, 0.6);
    arrays<double> cut = a;
    cut.mask.clear();
    cut.each([&](std::vector<double>& x) {
        std::size_t kept = 0;
        for (std::size_t t = 0; t < x.size(); ++t) {
            if (a.mask[t] != 0) x[kept++] = x[t];
        }
        x.resize(kept);
    });
    cut.cu.assign(1, 0);
    for (std::size_t s = 0; s + 1 < a.cu.size(); ++s) {
        std::int64_t n = cut.cu.back();
        for (std::int64_t t = a.cu[s]; t < a.cu[s + 1]; ++t) n += a.mask[static_cast<std::size_t>(t)] != 0 ? 1 : 0;
        cut.cu.push_back(n);
    }
    for (const auto& over : {grpo::aggregation::token_mean(), grpo::aggregation::sequence_mean()}) {
        const outcome<double> holes = random_batch::diagnose(grpo::serial{}, composed, a, a.shape(), over);
        const outcome<double> packed = random_batch::diagnose(grpo::serial{}, composed, cut, grpo::ragged(cut.cu), over);
        CHECK(same_bits(holes.loss(), packed.loss()));
        std::size_t k = 0;
        for (std::size_t t = 0; t < a.mask.size(); ++t) {
            if (a.mask[t] != 0) CHECK(same_bits(holes.d_logp[t], packed.d_logp[k++]));
        }
        CHECK(k == packed.d_logp.size());
    }
}

TEST_CASE_TEMPLATE("R1.16 an active non-finite token: report, propagate, skip", T, float, double) {
    const arrays<T> clean = random_batch::make<T>(lengths, 5, 1.0);
    const auto over = grpo::aggregation::sequence_mean();
    const auto check = [&](const auto& term) {
        const outcome<T> before = random_batch::evaluate(grpo::serial{}, term, clean, clean.shape(), over);
        for (const T bad : {std::numeric_limits<T>::quiet_NaN(), std::numeric_limits<T>::infinity()}) {
            arrays<T> a = clean;
            a.logp_old[16] = bad;
            a.logp[9] = bad;
            const auto run = [&](grpo::nonfinite policy) {
                return random_batch::evaluate(grpo::serial{}, term, a, a.shape(), over, policy);
            };
            const outcome<T> report = run(grpo::nonfinite::report);
            CHECK(report.result.nonfinite == 2);
            CHECK(report.result.first_nonfinite == 9);
            // What the arithmetic gives: a NaN stays one, an infinite log-ratio meets the safety bound.
            CHECK(std::isnan(report.result.sum) == std::isnan(bad));
            const outcome<T> propagate = run(grpo::nonfinite::propagate);
            CHECK(propagate.result.nonfinite == 0);
            CHECK(propagate.result.first_nonfinite == -1);
            CHECK(std::isnan(propagate.result.sum) == std::isnan(bad));
            // The first sequence has its own gradient, bit by bit, under every policy.
            const outcome<T> skip = run(grpo::nonfinite::skip);
            for (std::size_t t = 0; t < 5; ++t) {
                CHECK(same_bits(static_cast<double>(report.d_logp[t]), static_cast<double>(before.d_logp[t])));
                CHECK(same_bits(static_cast<double>(skip.d_logp[t]), static_cast<double>(before.d_logp[t])));
            }
            CHECK(skip.result.nonfinite == 2);
            CHECK(skip.result.first_nonfinite == 9);
            CHECK(std::isfinite(skip.result.sum));
            CHECK(skip.result.count.tokens == before.result.count.tokens);
            for (const std::size_t t : {std::size_t{9}, std::size_t{16}}) {
                CHECK(skip.d_logp[t] == T(0));
                CHECK(!std::signbit(skip.d_logp[t]));
            }
        }
    };
    check(grpo::clipped{});
    check(grpo::gspo{.low = 0.1, .high = 0.1});
}

TEST_CASE("R1.16 a non-finite advantage of a sequence counts at each of its active tokens") {
    arrays<double> a = random_batch::make<double>({3, 4}, 6, 1.0);
    const std::vector<double> by_row{1.0, NAN};
    std::vector<double> g(a.tokens());
    const grpo::batch b(a.shape(), grpo::logp(a.logp), grpo::logp_old(a.logp_old), grpo::advantage(grpo::by_sequence(by_row)));
    const grpo::objective loss{grpo::clipped{}, grpo::aggregation::token_mean(), grpo::nonfinite::skip};
    const grpo::loss_result r = grpo::evaluate(grpo::serial{}, loss, b, 7.0, grpo::d_logp(g));
    CHECK(r.nonfinite == 4);
    CHECK(r.first_nonfinite == 3);
    CHECK(std::isfinite(r.sum));
}

TEST_CASE("R1.18 everything masked, empty rows and no rows at all") {
    arrays<double> a = random_batch::make<double>(lengths, 7, 0.0);
    for (const auto& over : {grpo::aggregation::token_mean(), grpo::aggregation::sequence_mean(),
                             grpo::aggregation::sequence_mean(true), grpo::aggregation::constant_length(8)}) {
        const outcome<double> r = random_batch::diagnose(grpo::serial{}, composed, a, a.shape(), over);
        CHECK(r.loss() == 0.0);
        CHECK(r.result.count.tokens == 0);
        CHECK(r.result.count.nonempty == 0);
        CHECK(r.result.count.sequences == 5);
        for (const double g : r.d_logp) CHECK((g == 0.0 && !std::signbit(g)));
        const grpo::diagnostics zero;
        CHECK(std::memcmp(&r.result.metrics, &zero, sizeof zero) == 0);
    }
    const arrays<double> none = random_batch::make<double>({}, 8);
    const outcome<double> r = random_batch::diagnose(grpo::serial{}, composed, none, none.shape());
    CHECK(r.loss() == 0.0);
    CHECK(r.result.count.sequences == 0);
    CHECK(r.result.loss() == 0.0);
}

TEST_CASE("R1.18 an all-masked sequence leaves the mean of sequences, unless it is to be counted") {
    arrays<double> a = random_batch::make<double>({4, 4, 4}, 9, 1.0);
    const outcome<double> all = random_batch::evaluate(grpo::serial{}, composed, a, a.shape(), grpo::aggregation::sequence_mean());
    for (std::size_t t = 4; t < 8; ++t) a.mask[t] = 0;
    const auto shape = a.shape();
    const outcome<double> two = random_batch::evaluate(grpo::serial{}, composed, a, shape, grpo::aggregation::sequence_mean());
    const outcome<double> counted = random_batch::evaluate(grpo::serial{}, composed, a, shape, grpo::aggregation::sequence_mean(true));
    CHECK(all.denominator == 3.0);
    CHECK(two.denominator == 2.0);
    CHECK(counted.denominator == 3.0);
    CHECK(close(counted.loss() * 3.0, two.loss() * 2.0, 1e-14));
}

// Rows [first, last) of a batch, as a batch of its own.
arrays<double> part(const arrays<double>& a, std::size_t first, std::size_t last) {
    arrays<double> b = a;
    const auto cut = [&](auto& x) {
        const std::vector whole = x;
        x.assign(whole.begin() + static_cast<std::ptrdiff_t>(a.cu[first]), whole.begin() + static_cast<std::ptrdiff_t>(a.cu[last]));
    };
    b.each([&](std::vector<double>& x) { cut(x); });
    cut(b.mask);
    b.cu.clear();
    for (std::size_t s = first; s <= last; ++s) b.cu.push_back(a.cu[s] - a.cu[first]);
    return b;
}

TEST_CASE("R1.27 R1.28 micro-batches give the bits of the whole batch, ranks its value to 1e-12") {
    const arrays<double> a = random_batch::make<double>({5, 0, 9, 1, 6, 3, 7}, 10);
    const auto check = [&](const auto& term, grpo::aggregation over) {
        const grpo::objective loss = grpo::objective{term, over}.diagnosed();
        const outcome<double> whole = random_batch::evaluate_loss(grpo::serial{}, loss, a, a.shape());
        for (const std::vector<std::size_t>& cuts : {std::vector<std::size_t>{0, 3, 7}, {0, 1, 2, 3, 4, 5, 6, 7}, {0, 0, 6, 7}}) {
            grpo::loss_result continued;
            double sum = 0, weight = 0;
            grpo::totals counted;
            std::vector<double> gradient;
            for (std::size_t k = 0; k + 1 < cuts.size(); ++k) {
                const arrays<double> b = part(a, cuts[k], cuts[k + 1]);
                std::vector<double> g(b.tokens(), 77);
                grpo::accumulate(continued, grpo::serial{}, loss, b.batch(), whole.denominator, grpo::d_logp(g));
                gradient.insert(gradient.end(), g.begin(), g.end());
                const grpo::loss_result alone = grpo::evaluate(grpo::serial{}, loss, b.batch(), whole.denominator);
                sum += alone.sum;
                weight += alone.weight;
                counted = counted + alone.count;
            }
            CHECK(same_bits(continued.sum, whole.result.sum));
            CHECK(same_bits(continued.weight, whole.result.weight));
            CHECK(std::memcmp(&continued.metrics, &whole.result.metrics, sizeof continued.metrics) == 0);
            CHECK(same_bits(gradient, whole.d_logp));
            CHECK(close(sum, whole.result.sum, 1e-12));
            CHECK(close(weight, whole.result.weight, 1e-12));
            CHECK(counted.tokens == whole.result.count.tokens);
            CHECK(over.denominator(counted) == whole.denominator);
        }
    };
    check(composed, grpo::aggregation::token_mean());
    check(composed, grpo::aggregation::sequence_mean());
    check(composed, grpo::aggregation::constant_length(10));
    check(grpo::gspo{.low = 0.1, .high = 0.1}, grpo::aggregation::sequence_sum());
}

TEST_CASE("R1.28 the gradient is divided by the denominator that was given") {
    const arrays<double> a = random_batch::make<double>(lengths, 11);
    std::vector<double> one(a.tokens()), four(a.tokens()), none(a.tokens(), 77);
    const grpo::objective loss{grpo::clipped{}, grpo::aggregation::token_sum()};
    const auto at = [&](double n, std::vector<double>& g) { return grpo::evaluate(grpo::serial{}, loss, a.batch(), n, grpo::d_logp(g)); };
    const double sum = at(1.0, one).sum;
    CHECK(at(4.0, four).sum == sum);
    for (std::size_t t = 0; t < one.size(); ++t) CHECK(four[t] * 4.0 == one[t]);
    // Nothing counts: the loss is 0, and so is the gradient.
    CHECK(at(0.0, none).loss(0.0) == 0.0);
    for (const double g : none) CHECK(g == 0.0);
}

TEST_CASE("R1.41 d_logp may be the memory of a per-token input of an uncoupled term") {
    const arrays<double> a = random_batch::make<double>(lengths, 12);
    const grpo::objective loss{grpo::clipped{} + 0.04 * grpo::kl{}, grpo::aggregation::sequence_mean()};
    CHECK(random_batch::overwritten(grpo::serial{}, loss, a) == "");
    CHECK(random_batch::overwritten(grpo::serial{}, loss.diagnosed(), a) == "");
}

TEST_CASE("gradients can be added to what is there; masked entries then stay as they are") {
    const arrays<double> a = random_batch::make<double>(lengths, 13);
    const auto policy = grpo::objective{grpo::clipped{}, grpo::aggregation::token_mean()};
    const auto kl = grpo::objective{grpo::gspo{.low = 0.1, .high = 0.1} * grpo::kl{}, grpo::aggregation::sequence_mean()};
    std::vector<double> first(a.tokens()), second(a.tokens()), both(a.tokens(), 5.0);
    (void)grpo::evaluate(grpo::serial{}, policy, a.batch(), 7.0, grpo::d_logp(first));
    (void)grpo::evaluate(grpo::serial{}, kl, a.batch(), 3.0, grpo::d_logp(second));
    (void)grpo::evaluate(grpo::serial{}, policy, a.batch(), 7.0, grpo::d_logp(both).add());
    (void)grpo::evaluate(grpo::serial{}, kl, a.batch(), 3.0, grpo::d_logp(both).add());
    for (std::size_t t = 0; t < both.size(); ++t) {
        if (a.mask[t] == 0) CHECK(both[t] == 5.0);
        else CHECK(close(both[t], 5.0 + first[t] + second[t], 1e-14));
    }
}

// The upper half of a float: what a 16-bit storage type looks like to the engine.
struct brain {
    std::uint16_t bits = 0;
    brain() = default;
    explicit brain(float x) {
        std::uint32_t b;
        std::memcpy(&b, &x, sizeof b);
        bits = static_cast<std::uint16_t>((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
    }
    explicit operator float() const {
        const std::uint32_t b = static_cast<std::uint32_t>(bits) << 16;
        float x;
        std::memcpy(&x, &b, sizeof x);
        return x;
    }
};

TEST_CASE("R1.19 16-bit storage is computed in float, and gradients round once") {
    arrays<float> a = random_batch::make<float>(lengths, 14);
    std::vector<brain> logp, old, gradient(a.tokens());
    for (std::size_t t = 0; t < a.tokens(); ++t) {
        logp.emplace_back(a.logp[t]);
        old.emplace_back(a.logp_old[t]);
        a.logp[t] = static_cast<float>(logp[t]);
        a.logp_old[t] = static_cast<float>(old[t]);
    }
    const grpo::objective loss{grpo::clipped{}, grpo::aggregation::token_mean()};
    const grpo::batch small(a.shape(), grpo::logp(logp), grpo::logp_old(old), grpo::advantage(a.advantage));
    static_assert(std::same_as<decltype(small)::compute, float>);
    std::vector<float> wide(a.tokens());
    const grpo::loss_result expected = grpo::evaluate(grpo::serial{}, loss, a.batch(), 20.0, grpo::d_logp(wide));
    const grpo::loss_result got = grpo::evaluate(grpo::serial{}, loss, small, 20.0, grpo::d_logp(gradient));
    CHECK(same_bits(got.sum, expected.sum));
    for (std::size_t t = 0; t < wide.size(); ++t) CHECK(gradient[t].bits == brain(wide[t]).bits);
}

TEST_CASE("double anywhere makes the arithmetic double") {
    const std::vector<float> logp{-1.0f}, old{-1.25f};
    const std::vector<double> advantage{1.0};
    const grpo::batch b(grpo::padded(1, 1), grpo::logp(logp), grpo::logp_old(old), grpo::advantage(advantage));
    static_assert(std::same_as<decltype(b)::compute, double>);
    const grpo::objective loss{grpo::clipped{.high = 1.0}, grpo::aggregation::token_mean()};
    CHECK(grpo::evaluate(grpo::serial{}, loss, b, 1.0).sum == -std::exp(0.25));
}

TEST_CASE("a stride greater than the width skips what lies between rows, and writes nothing there") {
    const arrays<double> a = random_batch::make<double>({4, 4, 4}, 15, 1.0);
    arrays<double> wide = a;
    wide.each([&](std::vector<double>& x) {
        const std::vector<double> rows = x;
        x.assign(2 * 7 + 4, NAN);
        for (std::size_t t = 0; t < rows.size(); ++t) x[t / 4 * 7 + t % 4] = rows[t];
    });
    const grpo::padded shape(3, 4, 7);
    CHECK(shape.extent() == 18);
    const outcome<double> packed = random_batch::evaluate(grpo::serial{}, composed, a, grpo::padded(3, 4));
    const outcome<double> strided = random_batch::evaluate(grpo::serial{}, composed, wide, shape);
    CHECK(same_bits(strided.loss(), packed.loss()));
    for (std::size_t t = 0; t < 18; ++t) {
        if (t % 7 < 4) CHECK(same_bits(strided.d_logp[t], packed.d_logp[t / 7 * 4 + t % 7]));
        else CHECK(strided.d_logp[t] == 77.0);
    }
}

TEST_CASE("offsets may be int32, masks of any type") {
    const arrays<double> a = random_batch::make<double>(lengths, 16);
    const outcome<double> expected = random_batch::evaluate(grpo::serial{}, composed, a, a.shape());
    const std::vector<std::int32_t> cu(a.cu.begin(), a.cu.end());
    const std::vector<float> floats(a.mask.begin(), a.mask.end());
    std::vector<std::int64_t> numbers(a.mask.begin(), a.mask.end());
    for (std::int64_t& m : numbers) m *= -256;  // its low byte is 0
    bool flags[32] = {};
    REQUIRE(a.mask.size() <= 32);
    for (std::size_t t = 0; t < a.mask.size(); ++t) flags[t] = a.mask[t] != 0;
    CHECK(same_bits(random_batch::evaluate(grpo::serial{}, composed, a, grpo::ragged(cu).where(a.mask)), expected));
    CHECK(same_bits(random_batch::evaluate(grpo::serial{}, composed, a, grpo::ragged(cu).where(floats)), expected));
    CHECK(same_bits(random_batch::evaluate(grpo::serial{}, composed, a, grpo::ragged(cu).where(numbers)), expected));
    const grpo::view<const bool> view(flags, static_cast<std::int64_t>(a.mask.size()));
    CHECK(same_bits(random_batch::evaluate(grpo::serial{}, composed, a, grpo::ragged(cu).where(view)), expected));
}

TEST_CASE("a caller's mistake is a sentence with both numbers, before anything is written") {
    const arrays<double> a = random_batch::make<double>(lengths, 17);
    std::vector<double> g(a.tokens(), 77), few(a.tokens() - 1, 77);
    const auto sentence = [&](const auto& loss, const auto& batch, double n, const auto& out) {
        grpo::loss_result r;
        const grpo::problem p = grpo::try_accumulate(r, grpo::serial{}, loss, batch, n, out);
        CHECK(r.count.sequences == 0);
        for (const double x : g) CHECK(x == 77.0);
        return std::string(p.text);
    };
    const grpo::objective loss{grpo::clipped{}, grpo::aggregation::token_mean()};
    const auto batch = a.batch();
    const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
    CHECK(has(sentence(loss, batch, 1.0, grpo::d_logp(few)), "has 20 entries, but the batch has 21 positions"));
    CHECK(has(sentence(loss, batch, -1.0, grpo::d_logp(g)), "denominator is -1"));
    CHECK(has(sentence(loss, batch, NAN, grpo::d_logp(g)), "denominator is"));
    CHECK(has(sentence(grpo::objective{grpo::clipped{.low = -0.1}, grpo::aggregation::token_mean()}, batch, 1.0, grpo::d_logp(g)),
              "clipped.low is -0.1"));
    const grpo::batch shorter(a.shape(), grpo::logp(a.logp), grpo::logp_old(few), grpo::advantage(a.advantage));
    CHECK(has(sentence(loss, shorter, 1.0, grpo::d_logp(g)), "logp_old has 20 entries, but the batch has 21 positions"));
    const grpo::view<const double> null(static_cast<const double*>(nullptr), static_cast<std::int64_t>(a.tokens()));
    const grpo::batch nothing(a.shape(), grpo::logp(null), grpo::logp_old(a.logp_old), grpo::advantage(a.advantage));
    CHECK(has(sentence(loss, nothing, 1.0, grpo::d_logp(g)), "logp is a null pointer, but 21 entries are needed"));
    std::vector<std::int64_t> falling = a.cu;
    falling[2] = 3;
    const grpo::ragged bent(falling);
    const grpo::batch wrong(bent, grpo::logp(a.logp), grpo::logp_old(a.logp_old), grpo::advantage(a.advantage));
    CHECK(has(sentence(loss, wrong, 1.0, grpo::d_logp(g)), "cu_seqlens falls from 5 to 3 at row 1"));
    CHECK_THROWS_AS((void)grpo::evaluate(grpo::serial{}, loss, batch, 1.0, grpo::d_logp(few)), grpo::error);
}

TEST_CASE("R1.22 a term of scale 0 reads nothing: its arrays may be null") {
    const arrays<double> a = random_batch::make<double>(lengths, 18);
    const grpo::view<const double> null;
    std::vector<double> with(a.tokens()), without(a.tokens());
    const grpo::batch b(a.shape(), grpo::logp(a.logp), grpo::logp_old(a.logp_old), grpo::advantage(a.advantage), grpo::logp_ref(null));
    const grpo::objective zero{grpo::clipped{} + 0.0 * grpo::kl{}, grpo::aggregation::token_mean()};
    const grpo::objective plain{grpo::clipped{}, grpo::aggregation::token_mean()};
    const double x = grpo::evaluate(grpo::serial{}, zero, b, 9.0, grpo::d_logp(with)).sum;
    CHECK(same_bits(x, grpo::evaluate(grpo::serial{}, plain, b, 9.0, grpo::d_logp(without)).sum));
    CHECK(same_bits(with, without));
}

}  // namespace
