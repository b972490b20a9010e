// What run.py times: the library's functions behind a C interface. Pointers are device addresses; 0 is success.
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>

#include <cublas_v2.h>

#include <grpo/adapt/gemm/cublas.hpp>
#include <grpo/advantage.hpp>
#include <grpo/exec/cuda.cuh>
#include <grpo/grpo.hpp>

namespace {

using grpo::bfloat16;
using grpo::view;

std::string last_error;

template <class F>
int guarded(F&& f) {
    try {
        f();
        return 0;
    } catch (const std::exception& e) {
        last_error = e.what();
        return 1;
    }
}

// An executor over the first part of a workspace, the rest of which is for the functions: made once, as in a training loop.
struct workplace {
    grpo::cuda gpu;
    view<std::byte> rest;

    workplace(void* stream, void* memory, long long bytes, std::int64_t rows)
        : gpu(static_cast<cudaStream_t>(stream), {static_cast<std::byte*>(memory), grpo::cuda::workspace_bytes(rows)}),
          rest(static_cast<std::byte*>(memory) + grpo::cuda::workspace_bytes(rows), bytes - grpo::cuda::workspace_bytes(rows)) {}
};

// Where a loss goes: the caller reads its first number, the sum.
grpo::loss_result* result_at(double* loss) {
    static_assert(offsetof(grpo::loss_result, sum) == 0);
    return reinterpret_cast<grpo::loss_result*>(loss);
}

auto clip_and_kl() {
    return grpo::objective{grpo::clipped{.low = 0.2, .high = 0.2} + 0.04 * grpo::kl{}, grpo::aggregation::token_mean()};
}
auto sequence_ratio() { return grpo::objective{grpo::gspo{}, grpo::aggregation::token_mean()}; }

}  // namespace

extern "C" {

const char* grpo_last_error() { return last_error.c_str(); }

// Lives as long as the program, as what is timed does.
void* grpo_open(void* stream, void* memory, long long bytes, long long rows) {
    workplace* made = nullptr;
    guarded([&] { made = new workplace(stream, memory, bytes, rows); });
    return made;
}
long long grpo_result_bytes() { return sizeof(grpo::loss_result); }

long long grpo_workspace_bytes(long long tokens, long long vocabulary) {
    return grpo::cuda::workspace_bytes(tokens) + grpo::evaluate_logits_workspace(0, tokens, vocabulary);
}

int grpo_token_logp(void* place, const void* logits, const int* targets, long long n,
                    long long v, float* logp, float* entropy) {
    return guarded([&] {
        const auto& at = *static_cast<const workplace*>(place);
        const view z(static_cast<const bfloat16*>(logits), n * v);
        grpo::token_logp(at.gpu, grpo::logits(z, n, v), view(targets, n), {}, view(logp, n), view(entropy, entropy == nullptr ? 0 : n));
    });
}

int grpo_evaluate_logits(void* place, int sequence_level, void* logits, const int* targets,
                         const unsigned char* mask, const float* logp_old, const float* logp_ref, const float* advantage,
                         long long sequences, long long length, long long v, void* gradient, double* loss) {
    return guarded([&] {
        const std::int64_t n = sequences * length;
        const auto& at = *static_cast<const workplace*>(place);
        const auto shape = grpo::padded(sequences, length).where(view(mask, n));
        const auto batch = grpo::batch(shape, grpo::logp_old(view(logp_old, n)), grpo::logp_ref(view(logp_ref, n)),
                                       grpo::advantage(grpo::by_sequence(view(advantage, sequences))));
        const view z(static_cast<const bfloat16*>(logits), n * v);
        const view g(static_cast<bfloat16*>(gradient), n * v);
        const auto denominator = static_cast<double>(n);
        const auto run = [&](const auto& objective) {
            (void)grpo::evaluate_logits(at.gpu.into(result_at(loss)), objective, grpo::logits(z, n, v), view(targets, n), {}, batch,
                                        denominator, g, at.rest);
        };
        if (sequence_level != 0) run(sequence_ratio());
        else run(clip_and_kl());
    });
}

int grpo_token_loss(void* place, const float* logp, const float* logp_old, const float* logp_ref,
                    const unsigned char* mask, const float* advantage, long long sequences, long long length, float* d_logp,
                    double* loss) {
    return guarded([&] {
        const std::int64_t n = sequences * length;
        const auto& at = *static_cast<const workplace*>(place);
        const auto shape = grpo::padded(sequences, length).where(view(mask, n));
        const auto batch = grpo::batch(shape, grpo::logp(view(logp, n)), grpo::logp_old(view(logp_old, n)),
                                       grpo::logp_ref(view(logp_ref, n)), grpo::advantage(grpo::by_sequence(view(advantage, sequences))));
        const auto denominator = static_cast<double>(n);
        (void)grpo::evaluate(at.gpu.into(result_at(loss)), clip_and_kl(), batch, denominator, grpo::d_logp(view(d_logp, n)));
    });
}

int grpo_correction_weights(void* place, const float* logp_old, const float* logp_rollout, const unsigned char* mask,
                            long long sequences, long long length, float* weight) {
    return guarded([&] {
        const std::int64_t n = sequences * length;
        const auto& at = *static_cast<const workplace*>(place);
        const auto shape = grpo::padded(sequences, length).where(view(mask, n));
        const auto batch = grpo::batch(shape, grpo::logp_old(view(logp_old, n)), grpo::logp_rollout(view(logp_rollout, n)));
        (void)grpo::correction_weights(at.gpu, batch, grpo::correction::tis(2.0), view(weight, n));
    });
}

int grpo_select_top_entropy(void* place, const float* entropy, const unsigned char* mask, long long sequences, long long length,
                            double share, unsigned char* keep) {
    return guarded([&] {
        const std::int64_t n = sequences * length;
        const auto& at = *static_cast<const workplace*>(place);
        const auto shape = grpo::padded(sequences, length).where(view(mask, n));
        (void)grpo::select_top_entropy(at.gpu, grpo::batch(shape, grpo::entropy(view(entropy, n))), share, view(keep, n));
    });
}

int grpo_gae(void* place, const float* reward, const float* value, long long sequences,
             long long length, double gamma, double lambda, float* advantage, float* returns) {
    return guarded([&] {
        const std::int64_t n = sequences * length;
        const auto& at = *static_cast<const workplace*>(place);
        const grpo::gae_inputs<float> in{.reward = {reward, n}, .value = {value, n}};
        grpo::gae(at.gpu, grpo::padded(sequences, length), in, {.gamma = gamma, .lambda = lambda}, view(advantage, n),
                  view(returns, n));
    });
}

int grpo_group_normalise(void* place, const float* reward, long long groups, long long size,
                         float* advantage) {
    return guarded([&] {
        const std::int64_t n = groups * size;
        const auto& at = *static_cast<const workplace*>(place);
        grpo::group_normalised(at.gpu, grpo::padded(groups, size), view(reward, n), view(advantage, n));
    });
}

long long grpo_hidden_workspace_bytes(int rounded, long long n, long long h, long long v, long long chunk) {
    const grpo::linear_view<bfloat16> head{{}, {}, n, v, h};
    return grpo::cuda::workspace_bytes(n) + (rounded != 0 ? grpo::evaluate_hidden_workspace(0, grpo::rounded_logits(head), chunk)
                                                          : grpo::evaluate_hidden_workspace(0, head, chunk));
}

// d_hidden and d_weight are of float; d_weight is set to 0 first. Rounded: with logits of bfloat16.
int grpo_evaluate_hidden(void* place, int rounded, const void* hidden, const void* weight, const int* targets,
                         const unsigned char* mask, const float* logp_old, const float* logp_ref, const float* advantage,
                         long long sequences, long long length, long long h, long long v, float* d_hidden, float* d_weight,
                         double* loss) {
    return guarded([&] {
        static cublasHandle_t handle = nullptr;
        if (handle == nullptr) cublasCreate(&handle);
        const auto& at = *static_cast<const workplace*>(place);
        cublasSetStream(handle, at.gpu.stream());
        const std::int64_t n = sequences * length;
        const auto shape = grpo::padded(sequences, length).where(view(mask, n));
        const auto batch = grpo::batch(shape, grpo::logp_old(view(logp_old, n)), grpo::logp_ref(view(logp_ref, n)),
                                       grpo::advantage(grpo::by_sequence(view(advantage, sequences))));
        const auto head = grpo::linear(view(static_cast<const bfloat16*>(hidden), n * h),
                                       view(static_cast<const bfloat16*>(weight), v * h), n, v, h);
        cudaMemsetAsync(d_weight, 0, static_cast<std::size_t>(v * h) * sizeof(float), at.gpu.stream());
        const auto denominator = static_cast<double>(n);
        const auto run = [&](const auto& of) {
            (void)grpo::evaluate_hidden(at.gpu.into(result_at(loss)), grpo::cublas_gemm(handle), clip_and_kl(), of, view(targets, n), {},
                                        batch, denominator,
                                        {.hidden = view(d_hidden, n * h), .weight = view(d_weight, v * h)}, at.rest);
        };
        if (rounded != 0) run(grpo::rounded_logits(head));
        else run(head);
    });
}

}
