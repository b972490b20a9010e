// From hidden states to a loss and its gradients on a device, multiplied by cuBLAS: the CPU's.
#include <cmath>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <grpo/adapt/gemm/cublas.hpp>
#include <grpo/grpo.hpp>

#include <cuda/on_device.cuh>
#include <support/random_batch.hpp>
#include <support/rounding_gemm.hpp>

namespace {

// 41 tokens in four sequences, of which some are masked with states of NaN.
template <class T>
struct world {
    static constexpr std::int64_t vocabulary = 203, width = 24;
    random_batch::arrays<float> a = random_batch::make<float>({3, 0, 29, 9}, 8);
    std::int64_t tokens = static_cast<std::int64_t>(a.tokens());
    std::vector<T> hidden, weight;
    std::vector<std::int32_t> target;

    world() {
        random_batch::source random(3);
        for (std::int64_t i = 0; i < tokens; ++i) {
            target.push_back(static_cast<std::int32_t>(random.bits() % vocabulary));
            for (std::int64_t k = 0; k < width; ++k) {
                const double x = random.uniform(-1, 1);
                hidden.push_back(T(a.mask[static_cast<std::size_t>(i)] != 0 ? x : std::nan("")));
            }
        }
        for (std::int64_t i = 0; i < vocabulary * width; ++i) weight.push_back(T(random.uniform(-1, 1)));
        // Near log-probabilities of logits of this size.
        for (std::size_t i = 0; i < a.tokens(); ++i) {
            for (auto* x : {&a.logp_old, &a.logp_ref}) (*x)[i] = (*x)[i] - a.logp[i] - 5;
        }
    }
    auto batch() const {
        return grpo::batch(a.shape(), grpo::logp_old(a.logp_old), grpo::logp_ref(a.logp_ref), grpo::advantage(a.advantage));
    }
};
struct outcome {
    double loss = 0;
    std::vector<float> hidden, weight, bias;
};

enum class logits { wide, rounded };

template <logits Kept = logits::wide, class Exec, class Gemm, class Loss, class T>
outcome evaluate(const Exec& exec, const Gemm& gemm, const Loss& loss, const world<T>& w, std::int64_t chunk) {
    outcome o;
    o.hidden.assign(w.hidden.size(), 9.0f);
    o.weight.assign(w.weight.size(), 0.5f);
    o.bias.assign(static_cast<std::size_t>(w.vocabulary), 0.5f);
    const auto plain = grpo::linear(w.hidden, w.weight, w.tokens, w.vocabulary, w.width);
    const auto head = [&] {
        if constexpr (Kept == logits::rounded) return grpo::rounded_logits(plain);
        else return plain;
    }();
    std::vector<std::byte> memory(static_cast<std::size_t>(grpo::evaluate_hidden_workspace(exec.size(), head, chunk)));
    const double n = loss.over.denominator(grpo::count(w.a.shape()));
    o.loss = random_batch::arrived(grpo::evaluate_hidden(
                 exec, gemm, loss, head, w.target, {}, w.batch(), n,
                 {.hidden = grpo::view(o.hidden), .weight = grpo::view(o.weight), .bias = grpo::view(o.bias)}, grpo::view(memory)))
                 .loss(n);
    return o;
}

double largest(const std::vector<float>& x) {
    double most = 0;
    for (const float v : x) most = std::fmax(most, std::abs(static_cast<double>(v)));
    return most;
}
std::string apart(const std::vector<float>& got, const std::vector<float>& expected, double tolerance) {
    const double scale = largest(expected);
    for (std::size_t i = 0; i < expected.size(); ++i) {
        const double difference = std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
        if (!(difference <= tolerance * scale)) {
            return "[" + std::to_string(i) + "] " + std::to_string(got[i]) + " != " + std::to_string(expected[i]);
        }
    }
    return "";
}

template <class T, logits Kept = logits::wide, class Loss>
void check(const Loss& loss, double tolerance) {
    const on_device::session device;
    cublasHandle_t handle = nullptr;
    REQUIRE(cublasCreate(&handle) == CUBLAS_STATUS_SUCCESS);
    REQUIRE(cublasSetStream(handle, device.stream()) == CUBLAS_STATUS_SUCCESS);
    const grpo::cublas_gemm gemm(handle);
    {
        const world<T> w;
        const outcome host = evaluate<Kept>(grpo::serial{}, rounding_gemm{}, loss, w, 41);
        for (const std::int64_t chunk : {41, 16, 7}) {
            INFO("chunk " << chunk);
            const outcome got = evaluate<Kept>(device.gpu(), gemm, loss, w, chunk);
            CHECK(std::abs(got.loss - host.loss) <= tolerance * std::fmax(1.0, std::abs(host.loss)));
            CHECK(apart(got.hidden, host.hidden, tolerance) == "");
            CHECK(apart(got.weight, host.weight, tolerance) == "");
            CHECK(apart(got.bias, host.bias, tolerance) == "");
            const outcome again = evaluate<Kept>(device.gpu(), gemm, loss, w, chunk);
            CHECK(again.loss == got.loss);
            CHECK(random_batch::same_bits(again.hidden, got.hidden));
            CHECK(random_batch::same_bits(again.weight, got.weight));
            for (std::size_t i = 0; i < w.hidden.size(); ++i) {
                if (w.a.mask[i / static_cast<std::size_t>(w.width)] == 0 && (got.hidden[i] != 0 || std::signbit(got.hidden[i]))) {
                    FAIL_CHECK("a masked token's gradient is not +0.0 at ", i);
                }
            }
        }
    }
    cublasDestroy(handle);
}

TEST_CASE("K3 from float") {
    check<float>(grpo::objective{grpo::clipped{} + 0.04 * grpo::kl{}, grpo::aggregation::token_mean()}, 1e-5);
}
TEST_CASE("K3 from bfloat16, in two sweeps") {
    check<grpo::bfloat16>(grpo::objective{grpo::gspo{.low = 0.1, .high = 0.1}, grpo::aggregation::sequence_mean()}, 1.0 / 64);
}
TEST_CASE("K3 from bfloat16") {
    check<grpo::bfloat16>(grpo::objective{grpo::clipped{} + 0.04 * grpo::kl{}, grpo::aggregation::token_mean()}, 1.0 / 64);
}
TEST_CASE("K3 from 16 bits, logits of 16 bits") {
    const grpo::objective loss{grpo::clipped{} + 0.04 * grpo::kl{}, grpo::aggregation::token_mean()};
    check<grpo::bfloat16, logits::rounded>(loss, 1.0 / 64);
    check<grpo::float16, logits::rounded>(loss, 1.0 / 512);

    // Rounding shows, and each token of a chunk takes a row less of floats.
    const world<grpo::bfloat16> w;
    CHECK(evaluate<logits::rounded>(grpo::serial{}, rounding_gemm{}, loss, w, 7).loss != evaluate(grpo::serial{}, rounding_gemm{}, loss, w, 7).loss);
    const auto head = grpo::linear(w.hidden, w.weight, w.tokens, w.vocabulary, w.width);
    const auto bytes = [](const auto& of, std::int64_t chunk) { return grpo::evaluate_hidden_workspace(1, of, chunk); };
    const std::int64_t row = 208;  // 203 in whole sixteens
    CHECK(bytes(head, 9) - bytes(head, 8) - (bytes(grpo::rounded_logits(head), 9) - bytes(grpo::rounded_logits(head), 8)) == 4 * row);
}

}  // namespace
