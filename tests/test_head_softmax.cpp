// A row's softmax and its gradient against long double, on the serial executor.
#include <cstdint>

#include <sys/mman.h>

#include <doctest/doctest.h>

#include <support/softmax_cases.hpp>

namespace {

const grpo::serial exec;

TEST_CASE_TEMPLATE("R1.32 R1.38 log-probability, entropy and gradients of any shape are those of long double", T, float,
                   double, grpo::bfloat16, grpo::float16) {
    softmax_cases::check_shapes<T>(exec);
}

TEST_CASE("R1.32 a vocabulary of 151936") {
    softmax_cases::check_large<float>(exec);
    softmax_cases::check_large<grpo::bfloat16>(exec);
}

TEST_CASE_TEMPLATE("R1.32 R1.38 rows that grow, fall, stay, start with -inf or lie about -1e4", T, float, double) {
    softmax_cases::check_orders<T>(exec);
}

TEST_CASE_TEMPLATE("R1.32 R1.38 one entry far above all others", T, float, double) { softmax_cases::check_huge<T>(exec); }

TEST_CASE_TEMPLATE("R1.38 logits filtered by any large negative number", T, float, double) {
    softmax_cases::check_filtered<T>(exec);
}

TEST_CASE_TEMPLATE("R1.16 R1.38 rows without a policy: -inf alone, +inf, NaN", T, float, double, grpo::bfloat16) {
    softmax_cases::check_without_policy<T>(exec);
}

TEST_CASE_TEMPLATE("R1.32 scale, softcap and bias in their order", T, float, double) { softmax_cases::check_options<T>(exec); }

TEST_CASE_TEMPLATE("R1.12 padding and masked rows are not read; what is computed of them is +0.0", T, float, double,
                   grpo::bfloat16) {
    softmax_cases::check_padding_and_mask<T>(exec);
}

TEST_CASE("rows beyond 2^31 entries, on memory of which only a few pages exist") {
    const std::int64_t vocabulary = 50, stride = (std::int64_t{1} << 30) + 9;
    const std::int64_t entries = 2 * stride + vocabulary;
    const std::size_t bytes = static_cast<std::size_t>(entries) * sizeof(grpo::bfloat16);
    void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        MESSAGE("skipped: this machine gives no ", bytes, " bytes of addresses");
        return;
    }
    auto* const z = static_cast<grpo::bfloat16*>(memory);
    softmax_cases::world<grpo::bfloat16> near(3, vocabulary);
    for (std::int64_t i = 0; i < 3; ++i) {
        for (std::int64_t v = 0; v < vocabulary; ++v) z[i * stride + v] = near.at(i, v);
    }
    const auto expected = softmax_cases::evaluate(exec, near, false, false);
    const auto far = grpo::logits(grpo::view<const grpo::bfloat16>(z, entries), 3, vocabulary, stride);
    std::vector<double> logp(3);
    grpo::token_logp(exec, far, near.target, {}, grpo::view(logp));
    CHECK(logp == expected.logp);
    grpo::d_logits(exec, far, near.target, {}, grpo::view<const double>(near.g), grpo::view<const double>{},
                   grpo::view<grpo::bfloat16>(z, entries));
    for (std::int64_t i = 0; i < 3; ++i) {
        for (std::int64_t v = 0; v < vocabulary; ++v) {
            if (z[i * stride + v].bits != expected.gradient[static_cast<std::size_t>(i * vocabulary + v)].bits) {
                FAIL_CHECK("gradient of row ", i, " at ", v);
            }
        }
    }
    munmap(memory, bytes);
}

}  // namespace
