// The library's contestants of the head, and the one place to change when better ways than these are to be timed.
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#if defined(GRPO_BENCHMARK_BLAS)
#include <grpo/adapt/gemm/blas.hpp>
#endif
#if defined(GRPO_BENCHMARK_ONEDNN)
#include <grpo/adapt/gemm/onednn.hpp>
#endif
#include <grpo/exec/simd.hpp>
#include <grpo/exec/threads.hpp>
#include <grpo/grpo.hpp>

#include "head_inputs.hpp"

namespace ours {

/// f(executor) with one or with several threads.
template <class F>
void on_threads(int threads, const F& f) {
    if (threads == 1) return f(grpo::simd{});
    static const grpo::threads<grpo::simd> several(threads);
    f(several);
}

/// f(objective, batch, denominator) of a case.
template <class F>
void with_loss(const bench::head_inputs& in, const F& f) {
    const auto floats = [](const float* p, std::int64_t n) { return grpo::view<const float>{p, n}; };
    const grpo::objective loss{grpo::clipped{.low = in.low, .high = in.high} + in.beta * grpo::kl{},
                               grpo::aggregation::token_mean()};
    const auto shape = grpo::padded(in.sequences(), in.per_sequence)
                           .where(grpo::view<const std::uint8_t>{in.mask, in.tokens});
    const grpo::batch batch(shape, grpo::logp_old(floats(in.logp_old, in.tokens)),
                            grpo::logp_ref(floats(in.logp_ref, in.tokens)),
                            grpo::advantage(grpo::by_sequence(floats(in.advantage, in.sequences()))));
    f(loss, batch, loss.over.denominator(grpo::count(shape)));
}

/// The head of one case on logits of type T (float or grpo::bfloat16); d/dlogits is written to `gradient`, which may be
/// the logits' own memory. What it needs besides, a few floats a token, is made once.
template <class T>
class head {
public:
    head(const bench::head_inputs& in, int threads)
        : in_(in),
          threads_(threads),
          logp_(size(in.tokens)),
          entropy_(size(in.tokens)),
          log_sum_exp_(size(in.tokens)),
          workspace_(size(grpo::evaluate_logits_workspace(threads, in.tokens, in.vocabulary))) {}

    void forward() {
        on_threads(threads_, [&](const auto& exec) { logp_on(exec); });
    }
    void forward_with_entropy() {
        on_threads(threads_, [&](const auto& exec) {
            grpo::token_logp(exec, logits(), targets(), options(),
                             grpo::softmax_outputs<float>{.logp = logp_, .entropy = entropy_, .lse = log_sum_exp_});
        });
    }
    void forward_backward(T* gradient) {
        on_threads(threads_, [&](const auto& exec) {
            logp_on(exec);
            grpo::d_logits(exec, logits(), targets(), options(), floats(in_.d_logp, in_.tokens),
                           grpo::view<const float>{}, output(gradient), {.lse = log_sum_exp_});
        });
    }
    double loss(T* gradient) {
        double value = 0;
        on_threads(threads_, [&](const auto& exec) { value = loss_on(exec, gradient); });
        return value;
    }

    const float* logp() const { return logp_.data(); }
    const float* entropy() const { return entropy_.data(); }

private:
    static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }
    grpo::view<const float> floats(const float* p, std::int64_t n) const { return {p, n}; }
    grpo::head_options options() const { return {.temperature = in_.temperature}; }
    grpo::view<const std::int64_t> targets() const { return {in_.targets, in_.tokens}; }
    grpo::logits_view<T> logits() const {
        return {{static_cast<const T*>(in_.logits), in_.tokens * in_.vocabulary}, in_.tokens, in_.vocabulary, 0};
    }

    grpo::view<T> output(T* gradient) const { return {gradient, in_.tokens * in_.vocabulary}; }

    template <class Exec>
    void logp_on(const Exec& exec) {
        grpo::token_logp(exec, logits(), targets(), options(),
                         grpo::softmax_outputs<float>{.logp = logp_, .lse = log_sum_exp_});
    }
    template <class Exec>
    double loss_on(const Exec& exec, T* gradient) {
        double value = 0;
        with_loss(in_, [&](const auto& loss, const auto& batch, double n) {
            value = grpo::evaluate_logits(exec, loss, logits(), targets(), options(), batch, n, output(gradient),
                                          grpo::view(workspace_), {.logp = logp_})
                        .loss(n);
        });
        return value;
    }

    bench::head_inputs in_;
    int threads_;
    std::vector<float> logp_, entropy_;
    std::vector<double> log_sum_exp_;
    std::vector<std::byte> workspace_;
};

/// Who multiplies: a BLAS for float, oneDNN for 16 bits, each where it was found; else the library itself.
template <class T>
struct best_gemm {
    using type = grpo::plain_gemm;
};
#if defined(GRPO_BENCHMARK_BLAS)
template <>
struct best_gemm<float> {
    using type = grpo::blas_gemm;
};
#endif
#if defined(GRPO_BENCHMARK_ONEDNN)
template <>
struct best_gemm<grpo::bfloat16> {
    using type = grpo::onednn_gemm;
};
#endif

/// OpenBLAS with one thread of its own while we multiply from several; LibTorch gets its number back.
class one_blas_thread {
public:
    explicit one_blas_thread(int before) : before_(before) { set(1); }
    ~one_blas_thread() { set(before_); }
    one_blas_thread(const one_blas_thread&) = delete;
    one_blas_thread& operator=(const one_blas_thread&) = delete;

private:
    static void set(int n) {
        static auto* const f = reinterpret_cast<void (*)(int)>(::dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
        if (f != nullptr) f(n);
    }
    int before_;
};

/// From hidden states; d/dhidden and d/dweight are in f32 whatever the inputs are.
template <class T>
class linear_head {
public:
    static constexpr bool built() { return true; }
    static constexpr std::int64_t chunk = 256;

    linear_head(const bench::linear_inputs& in, int threads)
        : in_(in),
          threads_(threads),
          logp_(size(in.head.tokens)),
          d_hidden_(size(in.head.tokens * in.width)),
          d_weight_(size(in.head.vocabulary * in.width)),
          workspace_(size(grpo::evaluate_hidden_workspace(threads, head(), chunk))) {}

    void forward() { run({}); }
    double loss() {
        std::fill(d_weight_.begin(), d_weight_.end(), 0.0f);
        return run({.hidden = d_hidden_, .weight = d_weight_});
    }
    const float* logp() const { return logp_.data(); }
    const float* d_hidden() const { return d_hidden_.data(); }
    const float* d_weight() const { return d_weight_.data(); }

private:
    static std::size_t size(std::int64_t n) { return static_cast<std::size_t>(n); }
    grpo::linear_view<T> head() const {
        const bench::head_inputs& h = in_.head;
        return {{static_cast<const T*>(in_.hidden), h.tokens * in_.width},
                {static_cast<const T*>(in_.weight), h.vocabulary * in_.width},
                h.tokens,
                h.vocabulary,
                in_.width};
    }
    double run(const grpo::linear_gradients<float>& gradients) {
        const one_blas_thread ours(threads_);
        double value = 0;
        on_threads(threads_, [&](const auto& exec) {
            with_loss(in_.head, [&](const auto& loss, const auto& batch, double n) {
                const grpo::view<const std::int64_t> targets{in_.head.targets, in_.head.tokens};
                value = grpo::evaluate_hidden(exec, gemm_, loss, head(), targets, {.temperature = in_.head.temperature},
                                              batch, n, gradients, grpo::view(workspace_), {.logp = logp_})
                            .loss(n);
            });
        });
        return value;
    }

    bench::linear_inputs in_;
    int threads_;
    typename best_gemm<T>::type gemm_;
    std::vector<float> logp_, d_hidden_, d_weight_;
    std::vector<std::byte> workspace_;
};

}  // namespace ours
