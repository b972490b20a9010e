// The head on a device: the CPU's log-probabilities, losses and gradients, from every storage, in place and elsewhere.
#include <cstring>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/grpo.hpp>

#include <cuda/on_device.cuh>
#include <support/head_loss_cases.hpp>

namespace {

using head_loss_cases::world;
using on_device::close;
using on_device::difference;

// Vocabularies of less than a pack, of no whole number of packs, of several blocks; gaps between the rows.
struct size {
    std::vector<int> lengths;
    std::int64_t vocabulary, stride;
};
std::vector<size> sizes() {
    std::vector<size> all{{{3, 0, 7, 1}, 5, 5},         {{3, 0, 7, 1}, 37, 39}, {{3, 0, 7, 1}, 1000, 1000},
                          {{20, 0, 31, 1}, 5003, 5003}, {{20, 31}, 32768, 32768}, {{4, 0, 9}, 70001, 70003},
                          {{5, 6}, 128256, 128256},     {{3, 2}, 262144, 262144}, {{300, 1, 211}, 640, 640}};
    for (size& s : all) {
        if (on_device::emulated() && s.vocabulary > 5000) s.lengths = {2, 0, 2};
    }
    return all;
}

double tolerance_of(float) { return 1e-6; }
double tolerance_of(double) { return 1e-12; }
double tolerance_of(grpo::bfloat16) { return 1.0 / 128; }  // one place of the gradient, relative to the largest
double tolerance_of(grpo::float16) { return 1.0 / 1024; }

template <class T, class S, class Term>
void check_loss(const on_device::session& device, const size& s, const Term& term, const char* what) {
    INFO(std::string(what) << " V " << s.vocabulary);
    const auto w = world<double>(s.lengths, s.vocabulary, s.stride).template as<T, S>();
    const grpo::objective loss{term, grpo::aggregation::sequence_mean()};
    const auto host = head_loss_cases::evaluate<T>(grpo::serial{}, loss, w);
    const auto got = head_loss_cases::evaluate<T>(device.gpu(), loss, w);
    const double tolerance = std::is_same_v<T, double> ? 1e-12 : 2e-6;
    CHECK(close(got.loss(), host.loss(), tolerance));
    CHECK(difference(got.logp, host.logp, tolerance) == "");
    double largest = 0;
    for (const T& x : host.gradient) {
        const double size = std::abs(static_cast<double>(x));
        if (size < head_loss_cases::sentinel && size > largest) largest = size;
    }
    for (std::size_t i = 0; i < host.gradient.size(); ++i) {
        const double a = static_cast<double>(got.gradient[i]), b = static_cast<double>(host.gradient[i]);
        if (!(std::abs(a - b) <= tolerance_of(T()) * std::fmax(largest, std::abs(b)))) {
            FAIL_CHECK(i, ": ", a, " != ", b);
            break;
        }
    }
    auto place = w;
    CHECK(close(head_loss_cases::evaluate_in_place(device.gpu(), loss, place).sum, got.result.sum, 0));
    for (std::int64_t i = 0; i < w.rows(); ++i) {
        if (std::memcmp(&place.z[w.place(i, 0)], &got.gradient[w.place(i, 0)],
                        static_cast<std::size_t>(w.vocabulary) * sizeof(T)) != 0) {
            FAIL_CHECK("in place, row ", i, " differs");
        }
    }
}

// Every storage with one term, and every kind of term with one storage: what a storage does is apart from what a term does.
template <class T, class S, class Term>
void check_losses(const Term& term, const char* what) {
    const on_device::session device;
    for (const size& s : sizes()) check_loss<T, S>(device, s, term, what);
}
TEST_CASE("losses from bfloat16 logits") {
    check_losses<grpo::bfloat16, float>(grpo::clipped{} + 0.04 * grpo::kl{}, "clipped + kl");
    check_losses<grpo::bfloat16, float>(grpo::gspo{.low = 0.1, .high = 0.1}, "gspo");
}
TEST_CASE("losses from float16 logits") { check_losses<grpo::float16, float>(grpo::clipped{}, "clipped"); }
TEST_CASE("losses from float logits, with entropy and full KL") {
    check_losses<float, float>(grpo::clipped{} + 0.3 * grpo::exact_kl{} + 0.01 * grpo::entropy_bonus{}, "entropy, full KL");
}
TEST_CASE("losses from double logits") { check_losses<double, double>(grpo::clipped{}, "clipped"); }

// token_logp(), d_logits() and full_kl() on shaped logits: a softcap, a scale, columns that pad, masked rows of NaN.
template <class T>
void check_rows() {
    const on_device::session device;
    for (const size& s : sizes()) {
        INFO("V " << s.vocabulary);
        auto w = head_loss_cases::padded(world<double>(s.lengths, s.vocabulary, s.stride).template as<T, float>(),
                                         s.vocabulary - s.vocabulary / 5);
        w.options.softcap = 1.7;
        w.options.scale = 0.9;
        const std::size_t n = w.a.tokens();
        for (std::int64_t i = 0; i < w.rows(); ++i) {
            for (std::int64_t c = 0; c < w.vocabulary && w.a.mask[static_cast<std::size_t>(i)] == 0; ++c) w.z[w.place(i, c)] = T(NAN);
        }
        struct outputs {
            std::vector<float> logp, entropy, squares, kl;
            std::vector<double> lse;
            std::vector<T> gradient;
        };
        const auto run = [&](const auto& exec) {
            const std::vector<float> one(n, 9.0f);
            outputs o{one, one, one, one, std::vector<double>(n, 9.0), std::vector<T>(w.z.size(), T(9.0f))};
            const auto in = w.logits().where(w.a.mask);
            grpo::token_logp(exec, in, w.target, w.options,
                             grpo::softmax_outputs<float>{grpo::view(o.logp), grpo::view(o.entropy), grpo::view(o.squares),
                                                          grpo::view(o.lse)});
            grpo::d_logits(exec, in, w.target, w.options, grpo::view<const float>(o.logp), grpo::view<const float>(o.entropy),
                           grpo::view(o.gradient));
            grpo::full_kl(exec, in, w.reference(), w.options, grpo::view(o.kl));
            random_batch::arrive();
            return o;
        };
        const outputs host = run(grpo::serial{}), got = run(device.gpu());
        CHECK(difference(got.logp, host.logp, 2e-6) == "");
        CHECK(difference(got.entropy, host.entropy, 2e-6) == "");
        CHECK(difference(got.squares, host.squares, 2e-6) == "");
        CHECK(difference(got.lse, host.lse, 2e-6) == "");
        CHECK(difference(got.kl, host.kl, 2e-6) == "");
        CHECK(difference(got.gradient, host.gradient, 2 * tolerance_of(T())) == "");
    }
}
TEST_CASE("rows of shaped logits") {
    check_rows<grpo::bfloat16>();
}

TEST_CASE("a target outside the vocabulary has the log-probability -inf, and nothing is read or written for it") {
    const on_device::session device;
    for (const std::int64_t vocabulary : {129, 5003, 128256}) {
        INFO(vocabulary);
        auto w = world<double>({3, 4}, vocabulary).as<float, float>();
        w.a.mask.assign(7, 1);
        const grpo::objective loss{grpo::reinforce{}, grpo::aggregation::token_mean()};
        const auto regular = head_loss_cases::evaluate<float>(device.gpu(), loss, w);
        for (const std::int32_t wrong : {1000000000, static_cast<std::int32_t>(vocabulary), -7}) {
            w.target[2] = wrong;
            std::vector<float> logp(7, 9.0f);
            grpo::token_logp(device.gpu(), w.logits(), w.target, w.options,
                             grpo::softmax_outputs<float>{.logp = grpo::view(logp)});
            device.wait();
            CHECK(logp[2] == -INFINITY);
            CHECK(std::isfinite(logp[3]));
            const auto got = head_loss_cases::evaluate<float>(device.gpu(), loss, w);
            CHECK(got.logp[2] == -INFINITY);
            CHECK(got.result.nonfinite == 1);
            // Every other token as before.
            for (std::int64_t i = 0; i < w.rows(); ++i) {
                if (i != 2 && std::memcmp(&got.gradient[w.place(i, 0)], &regular.gradient[w.place(i, 0)],
                                          static_cast<std::size_t>(vocabulary) * sizeof(float)) != 0) {
                    FAIL_CHECK("row ", i, " differs");
                }
            }
        }
    }
}

// Logits of 0: every log-probability is -log V, every gradient that of the uniform distribution.
TEST_CASE("R1.39 logits beyond 2^31 positions, read and written in place") {
    const std::int64_t rows = 17000, vocabulary = 128256;
    const std::size_t bytes = static_cast<std::size_t>(rows * vocabulary) * sizeof(grpo::bfloat16);
    REQUIRE(rows * vocabulary > std::int64_t{1} << 31);
    std::size_t free = 0, all = 0;
    REQUIRE(cudaMemGetInfo(&free, &all) == cudaSuccess);
    if (free < bytes + (std::size_t{1} << 30)) {
        MESSAGE("skipped: the device has no 5 GB to spare");
        return;
    }
    const on_device::session device(rows);
    void* memory = nullptr;
    REQUIRE(cudaMalloc(&memory, bytes) == cudaSuccess);
    REQUIRE(cudaMemsetAsync(memory, 0, bytes, device.stream()) == cudaSuccess);
    auto* const z = static_cast<grpo::bfloat16*>(memory);
    const auto in = grpo::logits(grpo::view<const grpo::bfloat16>(z, rows * vocabulary), rows, vocabulary);
    std::vector<std::int32_t> target;
    for (std::int64_t i = 0; i < rows; ++i) target.push_back(static_cast<std::int32_t>(i * 7919 % vocabulary));
    std::vector<float> logp(static_cast<std::size_t>(rows), 9.0f), slope(static_cast<std::size_t>(rows), 128256.0f);
    grpo::token_logp(device.gpu(), in, target, {}, grpo::view(logp));
    grpo::d_logits(device.gpu(), in, target, {}, grpo::view<const float>(slope), grpo::view<const float>{},
                   grpo::view<grpo::bfloat16>(z, rows * vocabulary));
    device.wait();
    for (const float x : logp) {
        if (!close(static_cast<double>(x), -std::log(128256.0), 1e-6)) FAIL_CHECK(x);
    }
    std::vector<grpo::bfloat16> row(static_cast<std::size_t>(vocabulary));
    for (const std::int64_t i : {std::int64_t{0}, std::int64_t{16743}, std::int64_t{16744}, rows - 1}) {
        REQUIRE(cudaMemcpy(row.data(), z + i * vocabulary, static_cast<std::size_t>(vocabulary) * 2, cudaMemcpyDefault) == cudaSuccess);
        for (std::int64_t c = 0; c < vocabulary; ++c) {
            const double expected = c == target[static_cast<std::size_t>(i)] ? 128255.0 : -1.0;
            const double got = static_cast<double>(static_cast<float>(row[static_cast<std::size_t>(c)]));
            if (!(std::abs(got - expected) <= std::abs(expected) / 128)) FAIL_CHECK(i, " ", c, ": ", got, " != ", expected);
        }
    }
    cudaFree(memory);
}

}  // namespace
