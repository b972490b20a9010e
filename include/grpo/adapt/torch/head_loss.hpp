// Losses from logits: logits -> log-probability (and entropy, and exact KL) -> loss -> d loss / d logits, in one
// autograd node. The gradient is made while the loss is, in one read and one write of the logits: the node keeps it
// finished, and the backward pass multiplies it by the upstream gradient. A second array of the logits' size never
// exists beside it.
#pragma once

#include <grpo/adapt/torch/head.hpp>
#include <grpo/adapt/torch/loss.hpp>

#include <torch/csrc/autograd/graph_task.h>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>

namespace grpo::inline v0 {
namespace libtorch {
namespace detail {

// upstream · gradient over the logits, which the forward pass has finished; and the same of the values.
struct logits_node : torch::autograd::Function<logits_node> {
    static at::Tensor forward(torch::autograd::AutogradContext* context, const evaluated* result, at::Tensor logits,
                              at::Tensor values) {
        const bool wants_values = values.requires_grad();
        context->saved_data["values_type"] =
            static_cast<std::int64_t>(wants_values ? values.scalar_type() : at::kFloat);
        context->save_for_backward(
            {result->slope[0], wants_values ? result->slope[2].view(values.sizes()) : at::Tensor()});
        keep_edges(context, torch::autograd::collect_next_edges(logits, values));
        return result->value;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list upstream) {
        torch::autograd::variable_list gradients(3);
        const auto saved = context->get_saved_variables();
        {
            at::AutoGradMode without(false);
            if (saved[0].defined()) gradients[1] = scaled(saved[0], upstream[0].item<double>());
            if (saved[1].defined()) {
                const auto type = static_cast<at::ScalarType>(context->saved_data["values_type"].toInt());
                gradients[2] = saved[1].mul(upstream[0]).to(type);
            }
        }
        refuse_second_derivative(context, upstream, gradients);
        return gradients;
    }

private:
    // In the memory of the gradient itself, unless another backward pass is to find it there.
    static at::Tensor scaled(const at::Tensor& gradient, double upstream) {
        const at::Tensor out = torch::autograd::get_current_graph_task_keep_graph() ? gradient.clone() : gradient;
        if (upstream == 1) return out;
        if (out.element_size() > 2) return out.mul_(upstream);
        // LibTorch 1.13 rounds the factor to 16 bits as well.
        for (const at::Tensor& piece : out.view({-1}).split(std::int64_t{1} << 16))
            piece.copy_(piece.to(at::kFloat).mul_(upstream));
        return out;
    }
};

// Where the gradient over the logits goes; h.logits is the logits' own memory, or a copy of what was not contiguous.
inline at::Tensor gradient_memory(const char* function, const head& h, const at::Tensor& logits,
                                  const logits_options& options) {
    if (!options.in_place) return at::empty(logits.sizes(), h.logits.options());
    const bool view_of_leaf = logits.is_view() && logits._base().is_leaf() && logits._base().requires_grad();
    if (logits.is_leaf() || view_of_leaf) {
        refuse(function, "logits", "is a leaf that requires a gradient, or a view of one: in_place would overwrite it");
    }
    if (!logits.is_contiguous()) {
        require(complain(function, "logits", "of shape %s is not contiguous, so that in_place cannot write to it",
                         sizes_of(logits).c_str()));
    }
    if (options.logits_ref.defined() && options.logits_ref.is_alias_of(logits)) {
        refuse(function, "logits_ref", "lies in the logits' memory, which in_place would overwrite");
    }
    return logits.detach();
}

inline at::Tensor reference_of(const char* function, const at::Tensor& logits, const at::Tensor& reference,
                               bool reads) {
    if (!reads) return {};
    if (!reference.defined()) refuse(function, "logits_ref", "is missing, but the loss reads it");
    check_memory(function, "logits_ref", reference, logits.device());
    check_constant(function, "logits_ref", reference);
    if (reference.sizes() != logits.sizes() || reference.scalar_type() != logits.scalar_type()) {
        require(complain(function, "logits_ref", "is %s of type %s, but the logits are %s of type %s",
                         sizes_of(reference).c_str(), at::toString(reference.scalar_type()), sizes_of(logits).c_str(),
                         at::toString(logits.scalar_type())));
    }
    return reference.detach().contiguous().view({-1, logits.size(-1)});
}

// batch_of() without what comes from the head itself.
template <class T, class Shape>
auto batch_beside_head(const Shape& shape, const std::array<named_tensor, 13>& x) {
    const auto at = [&](std::size_t k) { return read<T>(x[k].flat); };
    return batch(shape, grpo::values(at(2)), logp_old(at(3)), logp_ref(at(4)), logp_rollout(at(5)), logp_teacher(at(6)),
                 advantage(at(7)), weight(at(8)), keep(at(9)), label(at(10)), values_old(at(11)), returns(at(12)));
}

// f with values of the storage type and of the type that the loss is computed in: double for double.
template <class F>
loss_result with_types(at::ScalarType storage, at::ScalarType compute, F&& f) {
    return with_storage(storage, [&]<class T>(T x) {
        if constexpr (std::same_as<T, double>) return f(x, double{});
        else return with_compute(compute, [&]<class C>(C y) { return f(x, y); });
    });
}

// A loss from logits: what goes in, and the two slopes that may come out.
template <class Site, class Objective>
struct logits_run {
    const Site& site;
    const Objective& o;
    const head& h;
    const at::Tensor& reference;  // undefined if the loss reads none
    const placement& where;
    const std::array<named_tensor, 13>& inputs;
    double n;
    const at::Tensor& gradient;  // undefined: the value alone
    const at::Tensor& d_values;  // undefined: not wanted

    loss_result operator()(at::ScalarType type) const {
        return with_types(h.logits.scalar_type(), type, [&]<class T, class C>(T, C) { return run<T, C>(); });
    }

private:
    template <class T, class C>
    loss_result run() const {
        const auto b = batch_beside_head<C>(where.shape(), inputs);
        decltype(auto) exec = site.executor(where.rows());
        const std::int64_t bytes = evaluate_logits_workspace(exec.size(), h.logits.size(0), h.logits.size(1));
        const at::Tensor workspace = at::empty({bytes}, made(site.device(), at::kByte));
        const auto outputs = kept_tokens<C>();
        const auto out = [&](std::size_t k) { return outputs[k].defined() ? write<C>(outputs[k]) : view<C>(); };
        const loss_result result = arrived(
            site.device(),
            grpo::evaluate_logits(exec, o, h.view_of<T>(), read<std::int64_t>(h.targets), h.options, b, n,
                                  gradient.defined() ? write<T>(gradient) : view<T>(), write<std::byte>(workspace),
                                  token_outputs<C>{.logp = out(0), .entropy = out(1), .full_kl = out(2)},
                                  reference.defined() ? head::rows_of<T>(reference) : logits_view<T>()));
        if constexpr (reads_values) {
            if (d_values.defined()) slope_of_values(exec, b, outputs);
        }
        return result;
    }

    using term = std::remove_cvref_t<decltype(Objective::term)>;
    static constexpr bool reads_values = (term::needs & input::value::bit) != 0;

    // What the slope of the values is evaluated with; the head itself has no use for it.
    template <class C>
    std::array<at::Tensor, 3> kept_tokens() const {
        std::array<at::Tensor, 3> kept;
        for (at::Tensor& x : kept) {
            if (reads_values && d_values.defined()) {
                x = at::empty({where.positions()}, made(site.device(), c10::CppTypeToScalarType<C>::value));
            }
        }
        return kept;
    }
    template <class Exec, class Shape, class... Fields>
    void slope_of_values(const Exec& exec, const batch<Shape, Fields...>& b, const std::array<at::Tensor, 3>& kept) const {
        using C = typename batch<Shape, Fields...>::compute;
        const batch whole(b.layout, static_cast<const Fields&>(b)..., logp(read<C>(kept[0])), entropy(read<C>(kept[1])),
                          full_kl(read<C>(kept[2])));
        [[maybe_unused]] const auto same = grpo::evaluate(exec, o, whole, n, grpo::d_values(write<C>(d_values)));
    }
};

}  // namespace detail

// evaluate() where the log-probabilities (and the entropy or the exact KL, if the loss reads them) come from logits
// [rows, width, V] or [tokens, V]: `x` has neither logp nor entropy. Gradients reach the logits, and x.values. Rows of
// masked tokens are not read. Memory: the gradient over the logits (in_place: none), and about 80 bytes a token.
template <class Term, bool D, class Exec = serial>
loss evaluate_logits(const objective<Term, D>& o, const at::Tensor& logits, const at::Tensor& targets,
                     const logits_options& options, const token_tensors& x, std::optional<double> denominator = {},
                     const Exec& exec = {}) {
    constexpr const char* function = "libtorch::evaluate_logits";
    if (x.logp.defined() || x.entropy.defined()) {
        detail::refuse(function, x.logp.defined() ? "logp" : "entropy",
                       "is given, but comes from the logits: leave it out");
    }
    if (options.mask.defined()) detail::refuse(function, "options.mask", "is given, but a loss has its batch's mask");
    if (!logits.defined()) detail::refuse(function, "logits", "is missing, but the loss reads it");
    const auto site = detail::site_of(function, "logits", exec, logits);
    const detail::head h = detail::make_head(function, logits, targets, options, site.device());
    const detail::placement where = detail::place(function, "targets", targets, x.mask, x.cu_seqlens);
    const unsigned reads = detail::reads(o.term);
    auto inputs = detail::inputs_of(x);
    auto type = detail::check_inputs(function, inputs, reads & ~(input::logp::bit | input::entropy::bit), site.device());
    if (logits.scalar_type() == at::kDouble) type = at::kDouble;
    detail::flatten(function, inputs, where, type);
    const at::Tensor reference =
        detail::reference_of(function, logits, options.logits_ref, (reads & input::full_kl::bit) != 0);
    const bool recorded = at::GradMode::is_enabled();
    const bool of_logits = recorded && logits.requires_grad();
    const bool of_values = recorded && x.values.defined() && x.values.requires_grad();
    detail::evaluated result;
    if (of_logits) result.slope[0] = detail::gradient_memory(function, h, logits, options);
    if (of_values) result.slope[2] = at::zeros({where.positions()}, detail::made(site.device(), type));
    const double n = denominator ? *denominator : o.over.denominator(where.count());
    const detail::logits_run<std::remove_const_t<decltype(site)>, objective<Term, D>> run{
        site, o, h, reference, where, inputs, n, result.slope[0], result.slope[2]};
    const loss_result sums = run(type);
    if (of_logits && options.in_place) logits.unsafeGetTensorImpl()->bump_version();
    result.value = at::full({}, sums.loss(n), detail::made(site.device(), type));
    if (!of_logits && !of_values) return {result.value, sums};
    return {detail::logits_node::apply(&result, logits, detail::or_empty(x.values)), sums};
}

}  // namespace libtorch
}  // namespace grpo::inline v0
