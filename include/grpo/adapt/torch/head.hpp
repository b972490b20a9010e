// Logits -> log-probabilities (and entropy) of the targets, as an autograd node. It keeps the logits themselves and
// log Σ e^z per token: the backward pass is one read and one write of the logits' size.
#pragma once

#include <grpo/adapt/torch/node.hpp>
#include <grpo/adapt/torch/site.hpp>
#include <grpo/adapt/torch/tensors.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace grpo::inline v0 {
namespace libtorch {

// What lies between a model's output and its policy (grpo::head_options), and what else comes with logits.
struct logits_options {
    double temperature = 1.0;
    double scale = 1.0;
    double softcap = 0.0;         // 0: none
    at::Tensor bias{};            // [columns that exist], read as float32; a constant
    std::int64_t vocabulary = 0;  // columns that exist, the others only pad; 0: all
    // token_logp() alone (a loss has its batch's): shaped like the targets. Rows where it is 0 are not read.
    at::Tensor mask{};
    // evaluate_logits() alone.
    at::Tensor logits_ref{};  // of π_ref, for exact_kl: shaped and typed like the logits, read under the same options
    // Writes the gradient over the logits' own memory, for callers who give them up: the logits hold the gradient
    // afterwards, and count as modified. They are contiguous, and no leaf that requires a gradient nor a view of one.
    // Without effect where no gradient of the logits is wanted.
    bool in_place = false;
};

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
    at::Tensor mask;     // contiguous, bool, or undefined
    at::Tensor bias;     // contiguous, float32, or undefined: what the options' bias views
    head_options options{};

    template <class T>
    static logits_view<T> rows_of(const at::Tensor& x) {
        return {read<T>(x), x.size(0), x.size(1), 0};
    }
    template <class T>
    logits_view<T> view_of() const {
        const auto all = rows_of<T>(logits);
        return mask.defined() ? all.where(read<bool>(mask)) : all;
    }
};

inline void check_logits(const char* function, const at::Tensor& logits, const at::Tensor& targets, at::Device device) {
    if (!targets.defined()) refuse(function, "targets", "is missing, but the loss reads it");
    check_floating(function, "logits", logits, device);
    check_memory(function, "targets", targets, device);
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
}

inline head make_head(const char* function, const at::Tensor& logits, const at::Tensor& targets,
                      const logits_options& options, at::Device device) {
    check_logits(function, logits, targets, device);
    const std::int64_t tokens = targets.numel();
    head h{logits.detach().contiguous().view({tokens, logits.size(-1)}),
           targets.to(at::kLong).contiguous().view({tokens}),
           {},
           {}};
    h.options = {.temperature = options.temperature,
                 .scale = options.scale,
                 .softcap = options.softcap,
                 .vocabulary = options.vocabulary};
    if (options.mask.defined()) h.mask = as_mask(function, options.mask, targets);
    if (options.bias.defined()) {
        check_floating(function, "bias", options.bias, device);
        check_constant(function, "bias", options.bias);
        h.bias = options.bias.detach().to(at::kFloat).contiguous().view({-1});
        h.options.bias = read<float>(h.bias);
    }
    require(h.options.validate(function, logits.size(-1)));
    return h;
}

// Per token, flat, in double.
struct measured {
    at::Tensor logp, entropy, lse;
};

template <class Site>
measured measure(const Site& site, const head& h, bool with_entropy) {
    const auto doubles = [&] { return at::empty({h.targets.size(0)}, made(site.device(), at::kDouble)); };
    const measured out{doubles(), with_entropy ? doubles() : at::Tensor(), doubles()};
    with_storage(h.logits.scalar_type(), [&]<class T>(T) {
        grpo::token_logp(site.executor(0), h.view_of<T>(), read<std::int64_t>(h.targets), h.options,
                         softmax_outputs<double>{.logp = write<double>(out.logp),
                                                 .entropy = with_entropy ? write<double>(out.entropy) : view<double>(),
                                                 .lse = write<double>(out.lse)});
    });
    return out;
}

// d loss / d logits; slopes flat, or undefined for 0. What `saved` lacks is measured again.
template <class Site>
at::Tensor d_logits_of(const Site& site, const head& h, const at::Tensor& d_logp, const at::Tensor& d_entropy,
                       const measured& saved) {
    const at::Tensor out = at::empty_like(h.logits);
    with_storage(h.logits.scalar_type(), [&]<class T>(T) {
        const auto flat = [](const at::Tensor& x) {
            return x.defined() ? x.to(at::kDouble).contiguous().view({-1}) : x;
        };
        const at::Tensor g = flat(d_logp);
        const at::Tensor e = flat(d_entropy);
        const at::Tensor lse = flat(saved.lse);
        const at::Tensor entropy = flat(saved.entropy);
        grpo::d_logits(site.executor(0), h.view_of<T>(), read<std::int64_t>(h.targets), h.options, read<double>(g),
                       read<double>(e), write<T>(out), {.lse = read<double>(lse), .entropy = read<double>(entropy)});
    });
    return out;
}

// The executor of the forward pass, for the backward pass: a copy, or the executor itself if it cannot be copied, which
// must then live until the backward pass. With it the options, whose bias is saved as a tensor.
template <class Exec>
struct kept_forward : torch::CustomClassHolder {
    static constexpr bool copied = std::is_copy_constructible_v<Exec>;
    std::conditional_t<copied, Exec, const Exec*> kept;
    head_options options;

    kept_forward(const Exec& e, const head_options& o) requires(copied) : kept(e), options(o) {}
    kept_forward(const Exec& e, const head_options& o) requires(!copied) : kept(&e), options(o) {}
    const Exec& exec() const {
        if constexpr (copied)
            return kept;
        else
            return *kept;
    }
};

// The log-probabilities, and the entropy if it was asked for.
template <class Exec>
struct logp_node : torch::autograd::Function<logp_node<Exec>> {
    static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, const Exec* exec,
                                                  const head* h, const measured* m,
                                                  const torch::autograd::variable_list* outputs, at::Tensor logits) {
        context->saved_data["forward"] =
            c10::IValue::make_capsule(c10::make_intrusive<kept_forward<Exec>>(*exec, h->options));
        context->save_for_backward({logits, h->targets, h->mask, h->bias, m->lse, m->entropy});
        keep_edges(context, torch::autograd::collect_next_edges(logits));
        return *outputs;
    }

    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list upstream) {
        torch::autograd::variable_list gradients(5);
        const auto saved = context->get_saved_variables();
        {
            at::AutoGradMode without(false);
            const auto capsule = context->saved_data["forward"].toCapsule();
            const auto& kept = static_cast<const kept_forward<Exec>&>(*capsule);
            const at::Tensor& logits = saved[0];
            head h{logits.contiguous().view({-1, logits.size(-1)}), saved[1], saved[2], saved[3], kept.options};
            if (h.bias.defined()) h.options.bias = read<float>(h.bias);
            const auto slope = [&](std::size_t k) { return k < upstream.size() ? upstream[k] : at::Tensor(); };
            const auto site = site_of("libtorch::token_logp", "logits", kept.exec(), logits);
            gradients[4] =
                d_logits_of(site, h, slope(0), slope(1), {{}, saved[5], saved[4]}).view(logits.sizes());
        }
        refuse_second_derivative(context, upstream, gradients);
        return gradients;
    }
};

}  // namespace detail

// logits [.., V] and targets [..]: log softmax(z) at the targets, in float32 (float64 for float64); 0 where masked.
template <class Exec = serial>
selected token_logp(const at::Tensor& logits, const at::Tensor& targets, const logits_options& options = {},
                    bool with_entropy = false, const Exec& exec = {}) {
    constexpr const char* function = "libtorch::token_logp";
    if (options.logits_ref.defined() || options.in_place) {
        detail::refuse(function, options.in_place ? "in_place" : "logits_ref", "is for evaluate_logits() alone");
    }
    if (!logits.defined()) detail::refuse(function, "logits", "is missing, but the loss reads it");
    const auto site = detail::site_of(function, "logits", exec, logits);
    const detail::head h = detail::make_head(function, logits, targets, options, site.device());
    const detail::measured m = detail::measure(site, h, with_entropy);
    const auto shaped = [&](const at::Tensor& x) { return x.to(detail::compute_of(logits)).view(targets.sizes()); };
    // In a tensor of its own: the saved entropy is no output.
    torch::autograd::variable_list outputs{shaped(m.logp)};
    if (with_entropy) outputs.push_back(shaped(m.entropy).clone());
    if (at::GradMode::is_enabled() && logits.requires_grad())
        outputs = detail::logp_node<Exec>::apply(&exec, &h, &m, &outputs, logits);
    return {outputs[0], with_entropy ? outputs[1] : at::Tensor()};
}

}  // namespace libtorch
}  // namespace grpo::inline v0
