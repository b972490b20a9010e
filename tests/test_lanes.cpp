// The row bodies on a block of threads: same results as serial, and no data race (run under ThreadSanitizer).
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/advantage.hpp>
#include <grpo/grpo.hpp>

#include <support/all_terms.hpp>
#include <support/lanes.hpp>
#include <support/random_batch.hpp>

namespace {

using random_batch::arrays;
using random_batch::outcome;

bool close(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance * std::max(1.0, std::abs(b)); }

// The first entry that differs by more than the tolerance, or "".
template <class T>
std::string difference(const std::vector<T>& got, const std::vector<T>& expected, double tolerance) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
        if (!close(static_cast<double>(got[i]), static_cast<double>(expected[i]), tolerance)) {
            return "[" + std::to_string(i) + "] " + std::to_string(got[i]) + " != " + std::to_string(expected[i]);
        }
    }
    return "";
}

const std::vector<int> lengths{3, 0, 17, 1, 8, 29};

TEST_CASE("every term on a block of lanes has serial's loss and gradients") {
    const arrays<double> a = random_batch::make<double>(lengths, 5);
    all_terms::for_each([&](const char* name, const auto& term) {
        INFO(std::string(name));
        const outcome<double> serial = random_batch::evaluate(grpo::serial{}, term, a, a.shape());
        const outcome<double> block = random_batch::evaluate(lanes<4>{}, term, a, a.shape());
        CHECK(close(block.loss(), serial.loss(), 1e-12));
        CHECK(difference(block.d_logp, serial.d_logp, 1e-12) == "");
        CHECK(difference(block.d_entropy, serial.d_entropy, 1e-12) == "");
        CHECK(difference(block.d_values, serial.d_values, 1e-12) == "");
        CHECK(block.result.count.tokens == serial.result.count.tokens);
    });
}

TEST_CASE("R1.41 a gradient over an input is that of other memory, also with metrics") {
    const arrays<float> a = random_batch::make<float>(lengths, 8);
    const auto loss = grpo::objective{grpo::clipped{} + 0.04 * grpo::kl{}, grpo::aggregation::token_mean()}.diagnosed();
    CHECK(random_batch::overwritten(lanes<2>{}, loss, a) == "");
    CHECK(random_batch::overwritten(lanes<2, grpo::detail::token_pack>{}, loss, a) == "");
}

// A sum of float values of order 1, each rounded in its own way.
double of_sums(const outcome<float>& x) { return 2e-6 + 6e-8 * static_cast<double>(x.result.count.tokens); }

TEST_CASE("every term on a device's packs of tokens has serial's loss, gradients and metrics, whatever the length") {
    std::vector<int> every_length;
    for (int n = 0; n <= 21; ++n) every_length.push_back(n);
    for (const double active : {1.0, 0.6}) {
        const arrays<float> a = random_batch::make<float>(every_length, 11, active);
        all_terms::for_each([&](const char* name, const auto& term) {
            INFO(std::string(name));
            const outcome<float> serial = random_batch::evaluate(grpo::serial{}, term, a, a.shape());
            const outcome<float> packs = random_batch::evaluate(lanes<2, grpo::detail::token_pack>{}, term, a, a.shape());
            CHECK(close(packs.loss(), serial.loss(), of_sums(serial)));
            CHECK(difference(packs.d_logp, serial.d_logp, 2e-6) == "");
            CHECK(difference(packs.d_entropy, serial.d_entropy, 2e-6) == "");
            CHECK(difference(packs.d_values, serial.d_values, 2e-6) == "");
            CHECK(packs.result.count.tokens == serial.result.count.tokens);
        });
        const outcome<float> serial = random_batch::diagnose(grpo::serial{}, grpo::clipped{}, a, a.shape());
        const outcome<float> packs = random_batch::diagnose(lanes<2, grpo::detail::token_pack>{}, grpo::clipped{}, a, a.shape());
        const grpo::diagnostics& expected = serial.result.metrics;
        CHECK(close(packs.result.metrics.ratio, expected.ratio, of_sums(serial)));
        CHECK(close(packs.result.metrics.approx_kl, expected.approx_kl, of_sums(serial)));
        CHECK(expected.clipped_high > 0);
        CHECK(packs.result.metrics.clipped_high == doctest::Approx(expected.clipped_high).epsilon(1e-12));
        CHECK(packs.result.metrics.largest_log_ratio == expected.largest_log_ratio);
        CHECK(packs.result.metrics.smallest_log_ratio == expected.smallest_log_ratio);
    }
}

TEST_CASE("R1.12 masked positions may hold anything: every term on a device's packs") {
    const arrays<float> a = random_batch::make<float>({0, 1, 5, 16, 21}, 12, 0.5);
    using packs = lanes<2, grpo::detail::token_pack>;
    all_terms::for_each([&](const char* name, const auto& term) {
        INFO(std::string(name));
        const outcome<float> clean = random_batch::evaluate(packs{}, term, a, a.shape());
        for (const float poison : random_batch::poisons<float>()) {
            const arrays<float> b = random_batch::poisoned(a, poison);
            CHECK(std::string(random_batch::leak(clean, random_batch::evaluate(packs{}, term, b, b.shape()), a)) == "");
        }
    });
}

TEST_CASE("e^x - 1 - x and e^x - 1 of a device's packs are those of double") {
    using pack = grpo::float_pack<4>;
    double worst_remainder = 0, worst = 0;
    for (float x = -110.5f; x < 88.7f; x += x > -1 && x < 1 ? 1.0f / 1024 : 1.0f / 128) {
        const auto parts = grpo::math::exp_split(pack(x));
        const double wide = static_cast<double>(x);
        const double expm1 = std::expm1(wide);
        const double remainder = std::abs(wide) < 1e-3 ? wide * wide * (0.5 + wide * (1.0 / 6 + wide / 24)) : expm1 - wide;
        if (x == 0) continue;
        worst = std::max(worst, std::abs(static_cast<double>(parts.expm1.v[1]) / expm1 - 1));
        worst_remainder = std::max(worst_remainder, std::abs(static_cast<double>(parts.remainder.v[2]) / remainder - 1));
    }
    CHECK(worst < 2.5e-7);
    CHECK(worst_remainder < 1e-6);
    CHECK(grpo::math::exp_split(pack(0.0f)).remainder.v[0] == 0);
    CHECK(std::isinf(grpo::math::exp_split(pack(1e30f)).expm1.v[3]));
    CHECK(grpo::math::exp_split(pack(-1e30f)).expm1.v[3] == -1);
    CHECK(std::isnan(grpo::math::exp_split(pack(NAN)).expm1.v[0]));
}

TEST_CASE("metrics on a block of lanes are serial's") {
    const arrays<double> a = random_batch::make<double>(lengths, 5);
    const outcome<double> serial = random_batch::diagnose(grpo::serial{}, grpo::clipped{}, a, a.shape());
    const outcome<double> block = random_batch::diagnose(lanes<4>{}, grpo::clipped{}, a, a.shape());
    CHECK(close(block.result.metrics.ratio, serial.result.metrics.ratio, 1e-12));
    CHECK(serial.result.metrics.clipped_high > 0);
    CHECK(block.result.metrics.clipped_high == serial.result.metrics.clipped_high);
    CHECK(block.result.metrics.largest_log_ratio == serial.result.metrics.largest_log_ratio);
}

TEST_CASE("R1.16 the first non-finite token is found by whichever lane has it") {
    arrays<float> a = random_batch::make<float>(lengths, 6, 1.0);
    a.logp[27] = INFINITY;
    a.logp_old[11] = NAN;
    for (const auto policy : {grpo::nonfinite::report, grpo::nonfinite::skip}) {
        const auto over = grpo::aggregation::sequence_mean();
        const outcome<float> serial = random_batch::evaluate(grpo::serial{}, grpo::gspo{}, a, a.shape(), over, policy);
        const outcome<float> block = random_batch::evaluate(lanes<8>{}, grpo::gspo{}, a, a.shape(), over, policy);
        CHECK(block.result.nonfinite == 2);
        CHECK(block.result.first_nonfinite == 11);
        const outcome<float> packs = random_batch::evaluate(lanes<4, grpo::detail::token_pack>{}, grpo::gspo{}, a, a.shape(), over, policy);
        CHECK(packs.result.nonfinite == 2);
        CHECK(packs.result.first_nonfinite == 11);
        if (policy == grpo::nonfinite::skip) {
            CHECK(close(block.loss(), serial.loss(), 1e-6));
            CHECK(difference(block.d_logp, serial.d_logp, 1e-6) == "");
        }
    }
}

// x_t = b_t + a_t x_{t+1}, and the nearest later kept value, for every length around a multiple of the block.
struct recursion {
    const double* scale;
    const double* offset;
    const bool* kept;
    double* out;
    double* next;
    double* out_kept;
    std::int64_t n;

    template <class Team>
    void operator()(Team& team, std::int64_t) const {
        using V = typename Team::template vector<double>;
        using at = grpo::cursor<V>;
        team.template scan<V>(
            0, n, [&](at c) { return grpo::affine<V>{scale[c.i], offset[c.i]}; }, [&](at c, const V& x) { out[c.i] = x; });
        team.template scan<V>(
            0, n, [&](at c) { return grpo::kept_value<V>{offset[c.i], kept[c.i]}; },
            [&](at c, const V& later) {
                next[c.i] = later;
                return grpo::affine<V>{scale[c.i], later};
            },
            [&](at c, const V& x) { out_kept[c.i] = x; });
    }
};

TEST_CASE("scans on a block of lanes are the recursion") {
    random_batch::source random(3);
    for (int n = 0; n <= 19; ++n) {
        const std::size_t size = static_cast<std::size_t>(n);
        std::vector<double> scale(size), offset(size), out(size, 9), next(size, 9), out_kept(size, 9);
        bool kept[20] = {};
        for (std::size_t i = 0; i < size; ++i) {
            scale[i] = random.uniform(-1, 1);
            offset[i] = random.uniform(-1, 1);
            kept[i] = random.bits() % 3 == 0;
        }
        lanes<4>{}.teams(1, recursion{scale.data(), offset.data(), kept, out.data(), next.data(), out_kept.data(), n});
        double x = 0, y = 0, later = 0;
        for (std::size_t i = size; i-- > 0;) {
            x = offset[i] + scale[i] * x;
            y = later + scale[i] * y;
            CHECK(close(out[i], x, 1e-14));
            CHECK(next[i] == later);
            CHECK(close(out_kept[i], y, 1e-14));
            if (kept[i]) later = offset[i];
        }
    }
}

TEST_CASE("generalised advantages, returns and whitening on a block of lanes are serial's") {
    const arrays<double> a = random_batch::make<double>(lengths, 7);
    const auto shape = a.shape();
    std::vector<std::uint8_t> over(a.tokens());
    for (std::size_t i = 0; i < over.size(); ++i) over[i] = i % 5 == 0 ? 1 : 0;
    grpo::gae_inputs<double> x;
    x.reward = a.returns;
    x.value = a.value;
    x.terminated = over;
    const std::size_t n = a.tokens();
    std::vector<double> advantage[2], returns[2], discounted[2], white[2];
    const auto run = [&](const auto& exec, int k) {
        advantage[k].assign(n, 9);
        returns[k].assign(n, 9);
        discounted[k].assign(n, 9);
        white[k].assign(n, 9);
        grpo::gae(exec, shape, x, {.gamma = 0.99, .lambda = 0.95}, advantage[k], returns[k]);
        grpo::discounted_returns(exec, shape, 0.9, a.returns, discounted[k]);
        grpo::whiten(exec, shape, a.returns, white[k]);
    };
    run(grpo::serial{}, 0);
    run(lanes<8>{}, 1);
    CHECK(difference(advantage[1], advantage[0], 1e-12) == "");
    CHECK(difference(returns[1], returns[0], 1e-12) == "");
    CHECK(difference(discounted[1], discounted[0], 1e-12) == "");
    CHECK(difference(white[1], white[0], 1e-12) == "");
}

TEST_CASE("group statistics on a block of lanes are serial's") {
    const std::vector<double> reward{0, 1, 1, 0.5, 2, -1, 0.25, 0.125};
    std::vector<double> serial(reward.size(), 9), block(reward.size(), 9);
    grpo::group_normalised(grpo::serial{}, grpo::padded(2, 4), reward, serial, {});
    grpo::group_normalised(lanes<4>{}, grpo::padded(2, 4), reward, block, {});
    CHECK(difference(block, serial, 1e-12) == "");
}

}  // namespace
