// Losses on a device: the CPU's, for every term.
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <cuda/on_device.cuh>
#include <support/all_terms.hpp>
#include <support/random_batch.hpp>

namespace {

using on_device::close;
using on_device::difference;
using random_batch::arrays;
using random_batch::outcome;

// Rows of one lane, of a warp, of a block and of a cluster of blocks.
const std::vector<int> lengths{3, 0, 17, 1, 8, 129, 29};
const std::vector<int> long_lengths{40000, 1, 3000, 0, 20011};

template <class T>
void compare(const outcome<T>& device, const outcome<T>& host, double tolerance) {
    CHECK(close(device.loss(), host.loss(), tolerance));
    CHECK(close(device.result.weight, host.result.weight, 1e-12));
    CHECK(device.result.count.tokens == host.result.count.tokens);
    CHECK(device.result.nonfinite == host.result.nonfinite);
    CHECK(difference(device.d_logp, host.d_logp, tolerance) == "");
    CHECK(difference(device.d_entropy, host.d_entropy, tolerance) == "");
    CHECK(difference(device.d_values, host.d_values, tolerance) == "");
}

TEST_CASE("every term on a device has the CPU's loss and gradients") {
    const on_device::session device;
    const arrays<float> a = random_batch::make<float>(lengths, 5);
    all_terms::for_each([&](const char* name, const auto& term) {
        INFO(std::string(name));
        const auto host = random_batch::evaluate(grpo::serial{}, term, a, a.shape());
        const auto got = random_batch::evaluate(device.gpu(), term, a, a.shape());
        compare(got, host, 1e-6);
        CHECK(random_batch::same_bits(got, random_batch::evaluate(device.gpu(), term, a, a.shape())));
    });
}

template <class T>
void check_composed(const std::vector<int>& rows, grpo::aggregation over, double tolerance) {
    const on_device::session device;
    const arrays<T> a = random_batch::make<T>(rows, 7);
    all_terms::composed([&](const char* name, const auto& term) {
        INFO(std::string(name));
        const auto host = random_batch::diagnose(grpo::serial{}, term, a, a.shape(), over);
        const auto got = random_batch::diagnose(device.gpu(), term, a, a.shape(), over);
        compare(got, host, tolerance);
        CHECK(close(got.result.metrics.ratio, host.result.metrics.ratio, tolerance));
        CHECK(got.result.metrics.clipped_high == host.result.metrics.clipped_high);
        CHECK(got.result.metrics.largest_log_ratio == host.result.metrics.largest_log_ratio);
    });
}
TEST_CASE("long rows and metrics in double are the CPU's") {
    check_composed<double>(long_lengths, grpo::aggregation::sequence_mean(), 1e-12);
}

TEST_CASE("R1.41 metrics in float are the CPU's, also where the gradient is written over an input") {
    const on_device::session device;
    const arrays<float> a = random_batch::make<float>(lengths, 8);
    const auto loss = grpo::objective{grpo::clipped{} + 0.04 * grpo::kl{} + 0.01 * grpo::entropy_bonus{}, grpo::aggregation::token_mean()};
    const auto host = random_batch::diagnose(grpo::serial{}, loss.term, a, a.shape());
    const auto got = random_batch::diagnose(device.gpu(), loss.term, a, a.shape());
    compare(got, host, 1e-6);
    CHECK(difference(random_batch::numbers(got.result.metrics), random_batch::numbers(host.result.metrics), 1e-5) == "");
    CHECK(random_batch::overwritten(device.gpu(), loss.diagnosed(), a) == "");
}

TEST_CASE("what lies behind a mask never leaks on a device") {
    const on_device::session device;
    const auto term = grpo::clipped{} + 0.04 * grpo::kl{} + 0.01 * grpo::entropy_bonus{};
    const arrays<float> a = random_batch::make<float>(lengths, 6);
    const auto clean = random_batch::evaluate(device.gpu(), term, a, a.shape());
    for (const float poison : random_batch::poisons<float>()) {
        const arrays<float> bad = random_batch::poisoned(a, poison);
        CHECK(std::string(random_batch::leak(clean, random_batch::evaluate(device.gpu(), term, bad, bad.shape()), a)) == "");
    }
}

TEST_CASE("arrays that begin anywhere: whole packs of them are no single access") {
    const on_device::session device;
    const arrays<float> a = random_batch::make<float>(std::vector<int>(6, 24), 19);
    const std::int64_t n = 140;  // of 144
    for (const std::int64_t at : {1, 2, 3}) {
        INFO("from entry " << at);
        const auto from = [&](const std::vector<float>& x) { return grpo::view<const float>(x.data() + at, n); };
        const auto shape = grpo::padded(5, 28).where(grpo::view<const std::uint8_t>(a.mask.data() + at, n));
        const auto batch = grpo::batch(shape, grpo::logp(from(a.logp)), grpo::logp_old(from(a.logp_old)), grpo::advantage(from(a.advantage)));
        const grpo::objective loss{grpo::clipped{}, grpo::aggregation::token_mean()};
        std::vector<float> there(144, 7.0f), here(144, 7.0f);
        const auto got = random_batch::arrived(
            grpo::evaluate(device.gpu(), loss, batch, 1.0, grpo::d_logp(grpo::view<float>(there.data() + at, n))));
        const auto expected = grpo::evaluate(grpo::serial{}, loss, batch, 1.0, grpo::d_logp(grpo::view<float>(here.data() + at, n)));
        CHECK(close(got.loss(1.0), expected.loss(1.0), 1e-6));
        CHECK(got.count.tokens == expected.count.tokens);
        CHECK(difference(there, here, 1e-6) == "");
    }
}

TEST_CASE("R1.16 a device counts non-finite tokens and finds the first") {
    const on_device::session device;
    arrays<float> a = random_batch::make<float>(lengths, 6, 1.0);
    a.logp[27] = INFINITY;
    a.logp_old[11] = NAN;
    for (const auto policy : {grpo::nonfinite::report, grpo::nonfinite::skip}) {
        const auto over = grpo::aggregation::sequence_mean();
        const auto host = random_batch::evaluate(grpo::serial{}, grpo::gspo{}, a, a.shape(), over, policy);
        const auto got = random_batch::evaluate(device.gpu(), grpo::gspo{}, a, a.shape(), over, policy);
        CHECK(got.result.nonfinite == 2);
        CHECK(got.result.first_nonfinite == 11);
        if (policy == grpo::nonfinite::skip) compare(got, host, 1e-6);
    }
}

TEST_CASE("R1.36 at the bound itself a device decides as the CPU does") {
    const on_device::session device;
    arrays<float> a = random_batch::make<float>(lengths, 13, 1.0);
    a.logp = a.logp_old;  // the ratio is 1, and so are both bounds
    const auto term = grpo::clipped{.low = 0, .high = 0};
    const auto host = random_batch::evaluate(grpo::serial{}, term, a, a.shape());
    const auto got = random_batch::evaluate(device.gpu(), term, a, a.shape());
    CHECK(random_batch::same_bits(got.d_logp, host.d_logp));
    compare(got, host, 1e-6);
}

TEST_CASE("R1.39 more rows than a grid's y or z could count, of one token each, and tokens beyond 65,535") {
    const on_device::session device(200000);
    const arrays<float> a = random_batch::make<float>(std::vector<int>(140000, 1), 9);
    compare(random_batch::evaluate(device.gpu(), grpo::clipped{}, a, a.shape()),
            random_batch::evaluate(grpo::serial{}, grpo::clipped{}, a, a.shape()), 1e-6);
}

}  // namespace
