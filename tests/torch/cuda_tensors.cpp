// Everything of the adapter that takes an executor, on CUDA tensors.
#include <grpo/adapt/gemm/cublas.hpp>
#include <grpo/adapt/torch/cuda.hpp>

namespace lt = grpo::libtorch;

const grpo::objective loss{grpo::clipped{} + 0.04 * grpo::kl{}, grpo::aggregation::token_mean()};

lt::loss from_logp(const at::Tensor& logp, const at::Tensor& x) {
    return lt::evaluate(loss, {.logp = logp, .logp_old = x, .logp_ref = x, .advantage = x}, {}, lt::on_cuda());
}
lt::loss from_pairs(const at::Tensor& chosen, const at::Tensor& x) {
    const grpo::objective dpo{grpo::dpo{.beta = 0.1}, grpo::aggregation::token_mean()};
    return lt::evaluate(dpo, {.chosen = chosen, .rejected = x, .ref_chosen = x, .ref_rejected = x}, {}, lt::on_cuda());
}
lt::selected selected(const at::Tensor& logits, const at::Tensor& targets) {
    return lt::token_logp(logits, targets, {}, true, lt::on_cuda());
}
lt::loss from_logits(const at::Tensor& logits, const at::Tensor& targets, const at::Tensor& x, grpo::nvrtc_kernels& kernels) {
    return lt::evaluate_logits(loss, logits, targets, {.in_place = true}, {.logp_old = x, .logp_ref = x, .advantage = x}, {},
                               lt::on_cuda(kernels));
}
lt::loss from_hidden(const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets, const at::Tensor& x,
                     const grpo::cublas_gemm& gemm) {
    return lt::evaluate_hidden(loss, hidden, weight, targets, {.chunk = 4096, .rounded_logits = true},
                               {.logp_old = x, .logp_ref = x, .advantage = x}, {}, gemm, lt::on_cuda());
}
lt::estimates estimates(const at::Tensor& x) { return lt::gae({.reward = x, .value = x}, {}, lt::on_cuda()); }
at::Tensor advantages(const grpo::recipe::advantage_rule& rule, const at::Tensor& rewards, const at::Tensor& mask) {
    (void)lt::advantages(rule, {.rewards = rewards, .mask = mask}, 4, lt::on_cuda());
    return lt::whiten(lt::advantages(rule, rewards, 4, lt::on_cuda()), {}, {}, lt::on_cuda());
}
