// The library's contestants of the head, and the one place to change when better ways than these are to be timed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

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
        const grpo::objective loss{grpo::clipped{.low = in_.low, .high = in_.high} + in_.beta * grpo::kl{},
                                   grpo::aggregation::token_mean()};
        const grpo::view<const std::uint8_t> mask{in_.mask, in_.tokens};
        const auto shape = grpo::padded(in_.sequences(), in_.per_sequence).where(mask);
        const grpo::batch batch(shape, grpo::logp_old(floats(in_.logp_old, in_.tokens)),
                                grpo::logp_ref(floats(in_.logp_ref, in_.tokens)),
                                grpo::advantage(grpo::by_sequence(floats(in_.advantage, in_.sequences()))));
        const double n = loss.over.denominator(grpo::count(shape));
        return grpo::evaluate_logits(exec, loss, logits(), targets(), options(), batch, n, output(gradient),
                                     grpo::view(workspace_), {.logp = logp_})
            .loss(n);
    }

    bench::head_inputs in_;
    int threads_;
    std::vector<float> logp_, entropy_;
    std::vector<double> log_sum_exp_;
    std::vector<std::byte> workspace_;
};

/// From hidden states; d/dhidden and d/dweight are in f32 whatever the inputs are. built(): whether the library has it.
template <class T>
class linear_head {
public:
    static constexpr bool built() { return false; }

    linear_head(const bench::linear_inputs&, int) {}
    void forward() {}
    double loss() { return 0; }
    const float* logp() const { return nullptr; }
    const float* d_hidden() const { return nullptr; }
    const float* d_weight() const { return nullptr; }
};

}  // namespace ours
