// Losses from hidden states and a head's weight, in chunks of tokens: logits of all tokens never exist at once. One
// autograd node, whose gradients are made while the loss is.
#pragma once

#include <grpo/adapt/torch/head_loss.hpp>

#include <array>
#include <concepts>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>

namespace grpo::inline v0 {
namespace libtorch {

// What lies between hidden states and the policy (grpo::head_options), and what else comes with them.
struct hidden_options {
    double temperature = 1.0;
    double scale = 1.0;
    double softcap = 0.0;         // 0: none
    at::Tensor bias{};            // [vocabulary], read as float32; its gradient is made if it wants one
    std::int64_t vocabulary = 0;  // entries that exist, the others only pad; 0: all
    std::int64_t chunk = 256;     // tokens at a time
    at::Tensor hidden_ref{};      // of π_ref, for exact_kl: [.., any width], typed like the states
    at::Tensor weight_ref{};      // [vocabulary, that width]
    bool rounded_logits = false;  // grpo::rounded_logits(): logits of 16-bit states as torch would have them
};

namespace detail {

// hidden [tokens, width] and weight [vocabulary, width], contiguous and of one type.
struct states {
    at::Tensor hidden, weight;

    template <class T>
    linear_view<T> view_of() const {
        if (!hidden.defined()) return {};
        return {read<T>(hidden), read<T>(weight), hidden.size(0), weight.size(0), hidden.size(1)};
    }
};

inline states make_states(const char* function, const char* name, const at::Tensor& hidden, const at::Tensor& weight,
                          const at::Tensor& targets, at::Device device) {
    if (!hidden.defined()) refuse(function, name, "is missing, but the loss reads it");
    if (!weight.defined()) refuse(function, "weight", "is missing, but the loss reads it");
    check_floating(function, name, hidden, device);
    check_floating(function, "weight", weight, device);
    const bool shaped = hidden.dim() == targets.dim() + 1 && hidden.sizes().slice(0, targets.sizes().size()) == targets.sizes();
    if (!shaped) {
        require(complain(function, name, "has the shape %s, but the targets have %s: a state for each is wanted",
                         sizes_of(hidden).c_str(), sizes_of(targets).c_str()));
    }
    if (weight.dim() != 2 || weight.size(1) != hidden.size(-1) || weight.scalar_type() != hidden.scalar_type()) {
        require(complain(function, "weight", "is %s of type %s, but the states are %s of type %s", sizes_of(weight).c_str(),
                         at::toString(weight.scalar_type()), sizes_of(hidden).c_str(), at::toString(hidden.scalar_type())));
    }
    return {hidden.detach().contiguous().view({targets.numel(), hidden.size(-1)}), weight.detach().contiguous()};
}

inline void check_hidden(const char* function, const at::Tensor& targets, const hidden_options& options,
                         const token_tensors& x, at::Device device) {
    if (x.logp.defined() || x.entropy.defined()) {
        refuse(function, x.logp.defined() ? "logp" : "entropy", "is given, but comes from the states: leave it out");
    }
    if (x.values.defined()) check_constant(function, "values", x.values);
    if (!targets.defined()) refuse(function, "targets", "is missing, but the loss reads it");
    check_memory(function, "targets", targets, device);
    require(grpo::detail::below(function, "chunk", static_cast<double>(options.chunk), 1));
}

// The core's options, and the bias that they view.
inline std::pair<head_options, at::Tensor> core_options(const char* function, const hidden_options& o,
                                                        at::Device device) {
    head_options head{.temperature = o.temperature, .scale = o.scale, .softcap = o.softcap};
    head.vocabulary = o.vocabulary;
    if (!o.bias.defined()) return {head, {}};
    check_floating(function, "bias", o.bias, device);
    const at::Tensor bias = o.bias.detach().to(at::kFloat).contiguous();
    head.bias = read<float>(bias);
    return {head, bias};
}

inline bool wants(const at::Tensor& t) { return at::GradMode::is_enabled() && t.defined() && t.requires_grad(); }

// A loss from hidden states: what goes in, and the gradients of states, weight and bias where they are wanted.
template <class Site, class Gemm, class Objective>
struct hidden_run {
    const Site& site;
    const Gemm& gemm;
    const Objective& o;
    const states& in;
    const states& reference;
    const at::Tensor& targets;
    const head_options& options;
    const placement& where;
    const std::array<named_tensor, 13>& inputs;
    double n;
    const hidden_options& how;
    const std::array<at::Tensor, 3>& gradients;

    loss_result operator()(at::ScalarType type) const {
        return with_types(in.hidden.scalar_type(), type, [&]<class T, class C>(T, C) { return run<T, C>(); });
    }

private:
    template <class C, class G, class T, class L>
    loss_result run(const linear_view<T, L>& head) const {
        const auto b = batch_beside_head<C>(where.shape(), inputs);
        decltype(auto) exec = site.executor(where.rows());
        const auto ref = reference.view_of<T>();
        const std::int64_t bytes = evaluate_hidden_workspace(exec.size(), head, how.chunk, ref.width);
        const at::Tensor workspace = at::empty({bytes}, made(site.device(), at::kByte));
        const auto to = [&](std::size_t k) { return gradients[k].defined() ? write<G>(gradients[k]) : view<G>(); };
        return arrived(site.device(),
                       grpo::evaluate_hidden(exec, gemm, o, head, read<std::int64_t>(targets), options, b, n,
                                             linear_gradients<G>{to(0), to(1), to(2)}, write<std::byte>(workspace), {}, ref));
    }
    template <class T, class C>
    loss_result run() const {
        using G = std::conditional_t<std::same_as<T, double>, double, float>;
        static_assert(multiplies<Gemm, float, float, float>);
        if constexpr (!multiplies<Gemm, T, T, G>) {
            require(complain("libtorch::evaluate_hidden", "gemm", "does not multiply %s: 16-bit states need onednn_gemm or plain_gemm",
                             at::toString(in.hidden.scalar_type())));
            return {};
        } else {
            if (!how.rounded_logits) return run<C, G>(in.view_of<T>());
            if constexpr (sizeof(T) == 2 && multiplies<Gemm, T, T, T>) {
                return run<C, G>(grpo::rounded_logits(in.view_of<T>()));
            } else {
                require(complain("libtorch::evaluate_hidden", "rounded_logits", "is set, but this gemm does not write logits of %s: "
                                 "cublas_gemm and onednn_gemm write those of 16-bit states",
                                 at::toString(in.hidden.scalar_type())));
                return {};
            }
        }
    }
};

}  // namespace detail

// evaluate() where the log-probabilities (and the entropy or the exact KL, if the loss reads them) come from hidden
// states [rows, width, H] or [tokens, H] and a head's weight [V, H], of one type. Gradients reach the states, the weight and the
// bias. States of masked tokens are not read. gemm: who multiplies (grpo::plain_gemm, blas_gemm, onednn_gemm, ...); a BLAS
// should use one thread of its own where `exec` has several. Memory: the gradients, and a workspace of `chunk` rows of logits.
template <class Term, bool D, class Gemm = plain_gemm, class Exec = serial>
loss evaluate_hidden(const objective<Term, D>& o, const at::Tensor& hidden, const at::Tensor& weight, const at::Tensor& targets,
                     const hidden_options& options, const token_tensors& x, std::optional<double> denominator = {},
                     const Gemm& gemm = {}, const Exec& exec = {}) {
    constexpr const char* function = "libtorch::evaluate_hidden";
    if (!hidden.defined()) detail::refuse(function, "hidden", "is missing, but the loss reads it");
    const auto site = detail::site_of(function, "hidden", exec, hidden);
    const at::Device device = site.device();
    detail::check_hidden(function, targets, options, x, device);
    const detail::states in = detail::make_states(function, "hidden", hidden, weight, targets, device);
    const detail::placement where = detail::place(function, "targets", targets, x.mask, x.cu_seqlens);
    const unsigned reads = detail::reads(o.term);
    detail::states reference;
    if ((reads & input::full_kl::bit) != 0) {
        reference = detail::make_states(function, "hidden_ref", options.hidden_ref, options.weight_ref, targets, device);
    }
    auto inputs = detail::inputs_of(x);
    auto type = detail::check_inputs(function, inputs, reads & ~(input::logp::bit | input::entropy::bit), device);
    if (hidden.scalar_type() == at::kDouble) type = at::kDouble;
    detail::flatten(function, inputs, where, type);
    const auto [head, bias] = detail::core_options(function, options, device);
    const auto sums = detail::made(device, hidden.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
    detail::evaluated result;
    if (detail::wants(hidden)) result.slope[0] = at::zeros(in.hidden.sizes(), sums);
    if (detail::wants(weight)) result.slope[1] = at::zeros(in.weight.sizes(), sums);
    if (detail::wants(options.bias)) result.slope[2] = at::zeros({in.weight.size(0)}, sums);
    const at::Tensor ids = targets.to(at::kLong).contiguous().view({-1});
    const double n = denominator ? *denominator : o.over.denominator(where.count());
    const detail::hidden_run<std::remove_const_t<decltype(site)>, Gemm, objective<Term, D>> run{
        site, gemm, o, in, reference, ids, head, where, inputs, n, options, result.slope};
    const loss_result counted = run(type);
    result.value = at::full({}, counted.loss(n), detail::made(device, type));
    if (!result.slope[0].defined() && !result.slope[1].defined() && !result.slope[2].defined()) return {result.value, counted};
    return {detail::loss_node::apply(&result, hidden, weight, detail::or_empty(options.bias)), counted};
}

}  // namespace libtorch
}  // namespace grpo::inline v0
