// Losses from logits: logits -> log-probability (and entropy) -> loss -> d loss / d logits, in one autograd node.
//
// What is kept for the backward pass are the logits themselves and one slope per token, not d loss / d logits: that is
// computed by the backward pass, from the upstream gradient, straight into the memory that it hands on. Neither pass
// ever holds a second array of the logits' size before the gradient itself is due.
#pragma once

#include <grpo/adapt/torch/loss.hpp>
#include <grpo/adapt/torch/node.hpp>
#include <grpo/adapt/torch/tensors.hpp>

#include <optional>
#include <utility>

namespace grpo::inline v0 {
namespace libtorch {

// Differentiable log-probabilities of the targets, and the entropy if it was asked for; shaped like the targets.
struct selected {
    at::Tensor logp, entropy;
};

namespace detail {

// Calls f with a value of the core's storage type for the tensor's.
template <class F>
decltype(auto) with_storage(at::ScalarType type, F&& f) {
    switch (type) {
        case at::kDouble:
            return f(double{});
        case at::kBFloat16:
            return f(bfloat16{});
        case at::kHalf:
            return f(float16{});
        default:
            return f(float{});
    }
}

struct head {
    at::Tensor logits;   // contiguous, [tokens, vocabulary]
    at::Tensor targets;  // contiguous, int64
    head_options options;

    template <class T>
    logits_view<T> view_of() const {
        return {read<T>(logits), logits.size(0), logits.size(1), 0};
    }
};

inline head make_head(const char* function, const at::Tensor& logits, const at::Tensor& targets,
                      const head_options& options) {
    if (!logits.defined()) refuse(function, "logits", "is missing, but the loss reads it");
    if (!targets.defined()) refuse(function, "targets", "is missing, but the loss reads it");
    check_floating(function, "logits", logits);
    check_memory(function, "targets", targets);
    if (targets.scalar_type() != at::kLong && targets.scalar_type() != at::kInt) {
        require(complain(function, "targets", "is of type %s, but must be int32 or int64",
                         at::toString(targets.scalar_type())));
    }
    const bool fits =
        logits.dim() == targets.dim() + 1 && logits.sizes().slice(0, targets.sizes().size()) == targets.sizes();
    if (!fits) {
        require(complain(function, "logits",
                         "has the shape %s, but the targets have %s: a vocabulary for each is wanted",
                         sizes_of(logits).c_str(), sizes_of(targets).c_str()));
    }
    require(options.validate(function));
    const std::int64_t tokens = targets.numel();
    return {logits.detach().contiguous().view({tokens, logits.size(-1)}),
            targets.to(at::kLong).contiguous().view({tokens}), options};
}

template <class Exec>
selected forward(const Exec& exec, const head& h, bool with_entropy) {
    selected out;
    const auto type = compute_of(h.logits);
    out.logp = at::empty({h.targets.size(0)}, type);
    if (with_entropy) out.entropy = at::empty({h.targets.size(0)}, type);
    with_storage(h.logits.scalar_type(), [&]<class T>(T) {
        using Out = std::conditional_t<std::same_as<T, double>, double, float>;
        grpo::token_logp(exec, h.view_of<T>(), read<std::int64_t>(h.targets), h.options, write<Out>(out.logp),
                         with_entropy ? write<Out>(out.entropy) : view<Out>());
    });
    return out;
}

// d loss / d logits; slopes flat, or undefined for 0.
template <class Exec>
at::Tensor d_logits_of(const Exec& exec, const head& h, const at::Tensor& d_logp, const at::Tensor& d_entropy) {
    const at::Tensor out = at::empty_like(h.logits);
    with_storage(h.logits.scalar_type(), [&]<class T>(T) {
        const auto slope = [&](const at::Tensor& x) { return x.defined() ? x.to(at::kDouble).contiguous() : x; };
        const at::Tensor g = slope(d_logp);
        const at::Tensor e = slope(d_entropy);
        grpo::d_logits(exec, h.view_of<T>(), read<std::int64_t>(h.targets), h.options, read<double>(g), read<double>(e),
                       write<T>(out));
    });
    return out;
}

// The executor of the forward pass, for the backward pass: a copy, or the executor itself if it cannot be copied, which
// must then live until the backward pass.
template <class Exec>
struct kept_executor : torch::CustomClassHolder {
    static constexpr bool copied = std::is_copy_constructible_v<Exec>;
    std::conditional_t<copied, Exec, const Exec*> kept;

    explicit kept_executor(const Exec& e) requires(copied) : kept(e) {}
    explicit kept_executor(const Exec& e) requires(!copied) : kept(&e) {}
    const Exec& exec() const {
        if constexpr (copied)
            return kept;
        else
            return *kept;
    }
};

// One node for both: the loss from logits (one output), and the log-probabilities alone (one or two outputs).
template <class Exec>
struct logits_node : torch::autograd::Function<logits_node<Exec>> {
    static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Exec* exec,
                                                  const head* h, const torch::autograd::variable_list* outputs,
                                                  const evaluated* result, at::Tensor logits, at::Tensor values) {
        const bool of_loss = result != nullptr;
        context->saved_data["executor"] = c10::IValue::make_capsule(c10::make_intrusive<kept_executor<Exec>>(*exec));
        const bool wants_values = of_loss && values.requires_grad();
        context->save_for_backward({logits, h->targets, of_loss ? result->slope[0] : at::Tensor(),
                                    of_loss ? result->slope[1] : at::Tensor(),
                                    wants_values ? result->slope[2].view(values.sizes()) : at::Tensor()});
        context->saved_data["temperature"] = h->options.temperature;
        context->saved_data["of_loss"] = of_loss;
        context->saved_data["wants_logits"] = logits.requires_grad();
        context->saved_data["values_type"] =
            static_cast<std::int64_t>(wants_values ? values.scalar_type() : at::kFloat);
        keep_edges(context, torch::autograd::collect_next_edges(logits, values));
        return *outputs;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list upstream) {
        torch::autograd::variable_list gradients(6);
        const auto saved = context->get_saved_variables();
        const bool of_loss = context->saved_data["of_loss"].toBool();
        {
            at::AutoGradMode without(false);
            if (of_loss && upstream[0].defined() && saved[4].defined()) {
                const auto type = static_cast<at::ScalarType>(context->saved_data["values_type"].toInt());
                gradients[5] = saved[4].mul(upstream[0]).to(type);
            }
            if (context->saved_data["wants_logits"].toBool())
                gradients[4] = of_logits(context, saved, upstream, of_loss);
        }
        refuse_second_derivative(context, upstream, gradients);
        return gradients;
    }

private:
    static at::Tensor of_logits(torch::autograd::AutogradContext* context, const torch::autograd::variable_list& saved,
                                const torch::autograd::variable_list& upstream, bool of_loss) {
        const at::Tensor& logits = saved[0];
        const head h{logits.contiguous().view({-1, logits.size(-1)}),
                     saved[1],
                     {.temperature = context->saved_data["temperature"].toDouble()}};
        const auto flat = [&](std::size_t k) {
            if (of_loss)
                return saved[k + 2].defined() && upstream[0].defined() ? saved[k + 2].mul(upstream[0]) : at::Tensor();
            return k < upstream.size() && upstream[k].defined() ? upstream[k].reshape({-1}) : at::Tensor();
        };
        const auto kept = context->saved_data["executor"].toCapsule();
        return d_logits_of(static_cast<const kept_executor<Exec>&>(*kept).exec(), h, flat(0), flat(1))
            .view(logits.sizes());
    }
};

}  // namespace detail

// logits [.., V] and targets [..]: log softmax(logits / temperature) at the targets, in float32 (float64 for float64).
template <class Exec = serial>
selected token_logp(const at::Tensor& logits, const at::Tensor& targets, const head_options& options = {},
                    bool with_entropy = false, const Exec& exec = {}) {
    const detail::head h = detail::make_head("libtorch::token_logp", logits, targets, options);
    selected out = detail::forward(exec, h, with_entropy);
    out.logp = out.logp.view(targets.sizes());
    if (with_entropy) out.entropy = out.entropy.view(targets.sizes());
    if (!at::GradMode::is_enabled() || !logits.requires_grad()) return out;
    torch::autograd::variable_list outputs{out.logp};
    if (with_entropy) outputs.push_back(out.entropy);
    const detail::evaluated* none = nullptr;
    const auto differentiable =
        detail::logits_node<Exec>::apply(&exec, &h, &outputs, none, logits, detail::or_empty({}));
    return {differentiable[0], with_entropy ? differentiable[1] : at::Tensor()};
}

// evaluate() where the log-probabilities (and the entropy, if the loss reads it) come from logits [rows, width, V] or
// [tokens, V]: `x` has neither logp nor entropy. Gradients reach the logits, and x.values.
template <class Term, bool D, class Exec = serial>
loss evaluate_logits(const objective<Term, D>& o, const at::Tensor& logits, const at::Tensor& targets,
                     const head_options& options, const token_tensors& x, std::optional<double> denominator = {},
                     const Exec& exec = {}) {
    constexpr const char* function = "libtorch::evaluate_logits";
    if (x.logp.defined() || x.entropy.defined()) {
        detail::refuse(function, x.logp.defined() ? "logp" : "entropy",
                       "is given, but comes from the logits: leave it out");
    }
    const detail::head h = detail::make_head(function, logits, targets, options);
    const detail::placement where = detail::place(function, "targets", targets, x.mask, x.cu_seqlens);
    const unsigned reads = detail::reads(o.term);
    // What is wrong with the other inputs is said before the vocabulary is walked.
    detail::check_inputs(function, detail::inputs_of(x), reads & ~(input::logp::bit | input::entropy::bit));
    const selected head_outputs = detail::forward(exec, h, (reads & input::entropy::bit) != 0);
    token_tensors all = x;
    all.logp = head_outputs.logp.view(targets.sizes());
    if (head_outputs.entropy.defined()) all.entropy = head_outputs.entropy.view(targets.sizes());
    auto inputs = detail::inputs_of(all);
    const auto type = detail::check_inputs(function, inputs, reads);
    detail::flatten(function, inputs, where, type);
    const bool slopes =
        at::GradMode::is_enabled() && (logits.requires_grad() || (x.values.defined() && x.values.requires_grad()));
    if (!slopes) {
        const auto [result, sums] = detail::compute<false>(exec, o, inputs, where, type, denominator);
        return {result.value, sums};
    }
    const auto [result, sums] = detail::compute<true>(exec, o, inputs, where, type, denominator);
    const torch::autograd::variable_list outputs{result.value};
    const auto value =
        detail::logits_node<Exec>::apply(&exec, &h, &outputs, &result, logits, detail::or_empty(x.values));
    return {value[0], sums};
}

}  // namespace libtorch
}  // namespace grpo::inline v0
