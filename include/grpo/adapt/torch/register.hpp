// GRPO_TORCH_REGISTER(ns): the operations of this adapter as torch.ops.ns, from one translation unit of a shared
// library.
//
//   #include <grpo/adapt/torch/register.hpp>
//   GRPO_TORCH_REGISTER(grpo)
//
//   torch.ops.load_library("libmine.so");  loss, metrics = torch.ops.grpo.policy_loss("dapo", logp, old, advantage,
//   mask)
//
// GRPO_TORCH_REGISTER(grpo, grpo::simd) takes another executor (include its header first), which losses and logits then
// use.
//
// Link the library to LibTorch (grpo::torch does), or Python cannot load it. `ns` is yours to choose: one process can
// hold one registration of a name, and LibTorch ends the process at a second one.
//
// Losses come in two forms: <name> with a graph, and <name>_fused without one, which returns (loss, slopes, ...). Every
// operation without a graph has a Meta kernel, so torch.compile and FakeTensor see shapes and types without data.
#pragma once

#include <grpo/adapt/torch/operations.hpp>

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>

#include <string>
#include <tuple>
#include <vector>

#if __has_include(<torch/version.h>)
#include <torch/version.h>
#elif __has_include(<torch/headeronly/version.h>)
#include <torch/headeronly/version.h>
#endif

namespace grpo::inline v0 {
namespace libtorch {
namespace operations {
namespace detail {

// Operations that torch.compile may take as they are, from the version on that can be told so.
inline void define(torch::Library& m, const std::string& schema) {
#if defined(TORCH_VERSION_MAJOR) && (TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 1))
    m.def(schema.c_str(), {at::Tag::pt2_compliant_tag});
#else
    m.def(schema.c_str());
#endif
}

// Shapes and types alone.

inline Tensor like(const Tensor& x, at::ScalarType type) {
    return at::empty(x.sizes(), x.options().dtype(type).requires_grad(false));
}
inline Tensor empty(const Tensor& x, at::IntArrayRef sizes, at::ScalarType type) {
    return at::empty(sizes, x.options().dtype(type).requires_grad(false));
}
inline bool is_double(const Tensor& x) {
    return x.scalar_type() == at::kDouble;
}
inline bool is_double(const maybe_tensor& x) {
    return x.has_value() && x->scalar_type() == at::kDouble;
}
template <class Other>
bool is_double(const Other&) {
    return false;
}
inline bool has_data(const Tensor& x) {
    return !x.is_meta();
}
inline bool has_data(const maybe_tensor& x) {
    return x.has_value() && !x->is_meta();
}
template <class Other>
bool has_data(const Other&) {
    return false;
}
// The type that is computed in; tensors with and without data do not mix.
template <class... Arguments>
at::ScalarType type_of(const Arguments&... arguments) {
    if ((has_data(arguments) || ...)) {
        refuse("torch.ops", "a tensor", "is on the device meta, but another one holds data");
    }
    return (is_double(arguments) || ...) ? at::kDouble : at::kFloat;
}

template <class Signature>
struct meta_loss;
template <class... Rest>
struct meta_loss<three(std::string, const Tensor&, Rest...)> {
    static three call(std::string, const Tensor& logp, Rest... rest) {
        const auto type = type_of(logp, rest...);
        return {empty(logp, {}, type), like(logp, type), empty(logp, {metric_count}, at::kDouble)};
    }
};
inline three value_loss_meta(const Tensor& values, const Tensor& values_old, const Tensor& returns, const maybe_tensor&,
                             const maybe_tensor&, double, double, maybe_double) {
    const auto type = type_of(values, values_old, returns);
    return {empty(values, {}, type), like(values, type), empty(values, {metric_count}, at::kDouble)};
}
template <class Signature>
struct meta_pairs;
template <class... Rest>
struct meta_pairs<three(std::string, const Tensor&, const Tensor&, Rest...)> {
    static three call(std::string, const Tensor& chosen, const Tensor& rejected, Rest... rest) {
        const auto type = type_of(chosen, rejected, rest...);
        return {empty(chosen, {}, type), like(chosen, type), like(rejected, type)};
    }
};
inline four token_logp_saved_meta(const Tensor& logits, const Tensor& targets, double, bool with_entropy,
                                  const maybe_tensor&) {
    const auto type = type_of(logits);
    const auto per_token = [&](at::ScalarType t) { return empty(logits, {targets.numel()}, t); };
    const auto none = [&](at::ScalarType t) { return empty(logits, {0}, t); };
    return {empty(logits, targets.sizes(), type), with_entropy ? empty(logits, targets.sizes(), type) : none(type),
            per_token(at::kDouble), with_entropy ? per_token(at::kDouble) : none(at::kDouble)};
}
inline two token_logp_meta(const Tensor& logits, const Tensor& targets, double temperature, bool with_entropy,
                           const maybe_tensor& mask) {
    const auto [logp, entropy, lse, exact] = token_logp_saved_meta(logits, targets, temperature, with_entropy, mask);
    return {logp, entropy};
}
inline Tensor d_logits_meta(const Tensor& logits, const Tensor&, const maybe_tensor&, const maybe_tensor&, double,
                            const maybe_tensor&, const maybe_tensor&, const maybe_tensor&) {
    return like(logits, logits.scalar_type());
}
inline Tensor group_advantages_meta(std::string, const Tensor& rewards, std::int64_t, const maybe_tensor&) {
    return like(rewards, type_of(rewards));
}
template <class Signature>
struct meta_tokens;
template <class... Rest>
struct meta_tokens<two(std::string, const Tensor&, std::int64_t, const maybe_tensor&, const maybe_tensor&,
                       const maybe_tensor&, Rest...)> {
    static two call(std::string, const Tensor& rewards, std::int64_t, const maybe_tensor&, const maybe_tensor& mask,
                    const maybe_tensor&, Rest... rest) {
        if (!mask.has_value()) refuse("token_advantages", "mask", "is missing: without it shapes depend on data");
        const auto type = type_of(rewards, rest...);
        return {like(*mask, type), like(*mask, type)};
    }
};
inline two gae_meta(const Tensor& reward, const Tensor& value, double, double, const maybe_tensor&, const maybe_tensor&,
                    const maybe_tensor&, const maybe_tensor& bootstrap, const maybe_tensor&) {
    const auto type = type_of(reward, value, bootstrap);
    return {like(reward, type), like(reward, type)};
}
inline Tensor whiten_meta(const Tensor& x, const maybe_tensor&) {
    return like(x, type_of(x));
}

// The executor that a registration names, or serial.
template <class... Named>
struct chosen_executor {
    using type = serial;
};
template <class Named>
struct chosen_executor<Named> {
    using type = Named;
};

// Forms with a graph. Library::name is the namespace; a raw operation is called through the dispatcher, below autograd,
// so that it may be traced.

template <class Library, class Signature>
auto raw(const char* name) {
    return c10::Dispatcher::singleton()
        .findSchemaOrThrow((std::string(Library::name) + "::" + name).c_str(), "")
        .template typed<Signature>();
}

inline Tensor attach(const evaluated& result, const Tensor& first, const Tensor& second = {},
                     const Tensor& third = {}) {
    const auto wanted = [](const Tensor& x) { return x.defined() && x.requires_grad(); };
    if (!at::GradMode::is_enabled() || !(wanted(first) || wanted(second) || wanted(third))) return result.value;
    return loss_node::apply(&result, or_empty(first), or_empty(second), or_empty(third));
}

template <class Library, class Signature>
struct policy_loss;
template <class Library, class... Rest>
struct policy_loss<Library, three(std::string, const Tensor&, const maybe_tensor&, const maybe_tensor&,
                                  const maybe_tensor&, Rest...)> {
    using signature = three(std::string, const Tensor&, const maybe_tensor&, const maybe_tensor&, const maybe_tensor&,
                            Rest...);

    static two call(std::string recipe, const Tensor& logp, const maybe_tensor& old, const maybe_tensor& advantage,
                    const maybe_tensor& mask, Rest... rest) {
        const auto [value, slope, metrics] = [&] {
            const at::AutoDispatchBelowADInplaceOrView below;
            static const auto op = raw<Library, signature>("policy_loss_fused");
            return op.call(recipe, logp, old, advantage, mask, rest...);
        }();
        return {attach({value, {slope}}, logp), metrics};
    }
    static two from_logits(std::string recipe, const Tensor& logits, const Tensor& targets, double temperature,
                           const maybe_tensor& old, const maybe_tensor& advantage, const maybe_tensor& mask,
                           Rest... rest) {
        static const auto op = raw<Library, decltype(token_logp_fused<serial>)>("token_logp");
        const Tensor logp = std::get<0>(op.call(logits, targets, temperature, false, mask));
        return call(recipe, logp, old, advantage, mask, rest...);
    }
};

template <class Library>
two value_loss(const Tensor& values, const Tensor& values_old, const Tensor& returns, const maybe_tensor& mask,
               const maybe_tensor& cu_seqlens, double clip, double factor, maybe_double denominator) {
    const auto [value, slope, metrics] = [&] {
        const at::AutoDispatchBelowADInplaceOrView below;
        static const auto op = raw<Library, decltype(value_loss_fused<serial>)>("value_loss_fused");
        return op.call(values, values_old, returns, mask, cu_seqlens, clip, factor, denominator);
    }();
    return {attach({value, {slope}}, values), metrics};
}

template <class Library, class Signature>
struct preference_loss;
template <class Library, class... Rest>
struct preference_loss<Library, three(std::string, const Tensor&, const Tensor&, Rest...)> {
    static Tensor call(std::string loss, const Tensor& chosen, const Tensor& rejected, Rest... rest) {
        const auto [value, first, second] = [&] {
            const at::AutoDispatchBelowADInplaceOrView below;
            static const auto op =
                raw<Library, three(std::string, const Tensor&, const Tensor&, Rest...)>("preference_loss_fused");
            return op.call(loss, chosen, rejected, rest...);
        }();
        return attach({value, {first, second}}, chosen, rejected);
    }
};

// log-probabilities and entropy with a graph back to the logits.
template <class Library>
struct token_logp_node : torch::autograd::Function<token_logp_node<Library>> {
    static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context, Tensor logits,
                                                  Tensor targets, double temperature, bool with_entropy,
                                                  maybe_tensor mask) {
        const at::AutoDispatchBelowADInplaceOrView below;
        static const auto op = raw<Library, decltype(token_logp_saved<serial>)>("token_logp_saved");
        const auto [logp, entropy, lse, exact] = op.call(logits, targets, temperature, with_entropy, mask);
        context->save_for_backward({logits, targets, mask.value_or(Tensor()), lse, with_entropy ? exact : Tensor()});
        context->saved_data["temperature"] = temperature;
        keep_edges(context, torch::autograd::collect_next_edges(logits));
        if (!with_entropy) context->mark_non_differentiable({entropy});
        return {logp, entropy};
    }
    static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                   torch::autograd::variable_list upstream) {
        const auto saved = context->get_saved_variables();
        torch::autograd::variable_list gradients(5);
        {
            const at::NoGradGuard without;
            const at::AutoDispatchBelowADInplaceOrView below;
            static const auto op = raw<Library, decltype(d_logits<serial>)>("d_logits");
            const auto given = [](const Tensor& x) { return x.defined() ? maybe_tensor(x) : maybe_tensor(); };
            const auto slope = [&](std::size_t k) {
                const bool there = upstream[k].defined() && upstream[k].sizes() == saved[1].sizes();
                return there ? maybe_tensor(upstream[k]) : maybe_tensor();
            };
            gradients[0] =
                op.call(saved[0], saved[1], slope(0), slope(1), context->saved_data["temperature"].toDouble(),
                        given(saved[2]), given(saved[3]), given(saved[4]));
        }
        refuse_second_derivative(context, upstream, gradients);
        return gradients;
    }
};
template <class Library>
two token_logp(const Tensor& logits, const Tensor& targets, double temperature, bool with_entropy,
               const maybe_tensor& mask) {
    if (at::GradMode::is_enabled() && logits.requires_grad()) {
        const auto out = token_logp_node<Library>::apply(logits, targets, temperature, with_entropy, mask);
        return {out[0], out[1]};
    }
    const at::AutoDispatchBelowADInplaceOrView below;
    static const auto op = raw<Library, decltype(token_logp_fused<serial>)>("token_logp_fused");
    return op.call(logits, targets, temperature, with_entropy, mask);
}

inline constexpr const char* policy_arguments =
    "Tensor? logp_old=None, Tensor? advantage=None, Tensor? mask=None, Tensor? logp_ref=None, Tensor? cu_seqlens=None, "
    "Tensor? logp_rollout=None, Tensor? weight=None, Tensor? keep=None, Tensor? label=None, float? denominator=None, "
    "float? low=None, float? high=None, float? beta=None)";
inline constexpr const char* value_arguments =
    "(Tensor values, Tensor values_old, Tensor returns, Tensor? mask=None, Tensor? cu_seqlens=None, float clip=0.2, "
    "float factor=0.5, float? denominator=None)";
inline constexpr const char* preference_arguments =
    "(str loss, Tensor chosen, Tensor rejected, Tensor? ref_chosen=None, Tensor? ref_rejected=None, "
    "Tensor? chosen_length=None, Tensor? rejected_length=None, float? beta=None, float? denominator=None)";
inline constexpr const char* logp_arguments =
    "(Tensor logits, Tensor targets, float temperature=1.0, bool with_entropy=False, Tensor? mask=None)";

inline void define_raw(torch::Library& m) {
    const std::string policy = policy_arguments;
    define(m, "policy_loss_fused(str recipe, Tensor logp, " + policy + " -> (Tensor, Tensor, Tensor)");
    define(m, "value_loss_fused" + std::string(value_arguments) + " -> (Tensor, Tensor, Tensor)");
    define(m, "preference_loss_fused" + std::string(preference_arguments) + " -> (Tensor, Tensor, Tensor)");
    const std::string logp = logp_arguments;
    define(m, "token_logp_fused" + logp + " -> (Tensor, Tensor)");
    define(m, "token_logp_saved" + logp + " -> (Tensor, Tensor, Tensor, Tensor)");
    define(m,
           "d_logits(Tensor logits, Tensor targets, Tensor? d_logp, Tensor? d_entropy, float temperature=1.0, "
           "Tensor? mask=None, Tensor? lse=None, Tensor? entropy=None) -> Tensor");
    define(m, "group_advantages(str recipe, Tensor rewards, int group_size=0, Tensor? offsets=None) -> Tensor");
    define(m,
           "token_advantages(str recipe, Tensor rewards, int group_size=0, Tensor? offsets=None, Tensor? mask=None, "
           "Tensor? cu_seqlens=None, Tensor? logp_old=None, Tensor? logp_ref=None, Tensor? values=None, "
           "Tensor? greedy_rewards=None, Tensor? sum_probability_squared=None) -> (Tensor, Tensor)");
    define(
        m,
        "gae(Tensor reward, Tensor value, float gamma=1.0, float lam=1.0, Tensor? mask=None, Tensor? terminated=None, "
        "Tensor? truncated=None, Tensor? bootstrap=None, Tensor? cu_seqlens=None) -> (Tensor, Tensor)");
    define(m, "whiten(Tensor x, Tensor? mask=None) -> Tensor");
}

template <class Library>
void define_with_graph(torch::Library& m) {
    const std::string policy = policy_arguments;
    using policy_op = policy_loss<Library, decltype(policy_loss_fused<serial>)>;
    m.def(("policy_loss(str recipe, Tensor logp, " + policy + " -> (Tensor, Tensor)").c_str(), &policy_op::call);
    m.def(("policy_loss_from_logits(str recipe, Tensor logits, Tensor targets, float temperature=1.0, " + policy +
           " -> (Tensor, Tensor)")
              .c_str(),
          &policy_op::from_logits);
    m.def(("value_loss" + std::string(value_arguments) + " -> (Tensor, Tensor)").c_str(), &value_loss<Library>);
    m.def(("preference_loss" + std::string(preference_arguments) + " -> Tensor").c_str(),
          &preference_loss<Library, decltype(preference_loss_fused<serial>)>::call);
    m.def(("token_logp" + std::string(logp_arguments) + " -> (Tensor, Tensor)").c_str(), &token_logp<Library>);
    m.def("metric_names() -> str[]",
          [] { return std::vector<std::string>(std::begin(metric_names), std::end(metric_names)); });
    m.def("recipe_names() -> str[]", [] {
        const recipe::name_list all = recipe::names();
        return std::vector<std::string>(all.begin(), all.end());
    });
}

template <class Exec>
void implement_cpu(torch::Library& m) {
    m.impl("policy_loss_fused", &policy_loss_fused<Exec>);
    m.impl("value_loss_fused", &value_loss_fused<Exec>);
    m.impl("preference_loss_fused", &preference_loss_fused<Exec>);
    m.impl("token_logp_fused", &token_logp_fused<Exec>);
    m.impl("token_logp_saved", &token_logp_saved<Exec>);
    m.impl("d_logits", &d_logits<Exec>);
    m.impl("group_advantages", &group_advantages);
    m.impl("token_advantages", &token_advantages);
    m.impl("gae", &gae_of);
    m.impl("whiten", &whiten_of);
}
inline void implement_meta(torch::Library& m) {
    m.impl("policy_loss_fused", &meta_loss<decltype(policy_loss_fused<serial>)>::call);
    m.impl("value_loss_fused", &value_loss_meta);
    m.impl("preference_loss_fused", &meta_pairs<decltype(preference_loss_fused<serial>)>::call);
    m.impl("token_logp_fused", &token_logp_meta);
    m.impl("token_logp_saved", &token_logp_saved_meta);
    m.impl("d_logits", &d_logits_meta);
    m.impl("group_advantages", &group_advantages_meta);
    m.impl("token_advantages", &meta_tokens<decltype(token_advantages)>::call);
    m.impl("gae", &gae_meta);
    m.impl("whiten", &whiten_meta);
}
// A raw form in a graph says so when it is differentiated.
inline void implement_autograd(torch::Library& m) {
    for (const char* name : {"policy_loss_fused", "value_loss_fused", "preference_loss_fused", "token_logp_fused",
                             "token_logp_saved", "d_logits", "group_advantages", "token_advantages", "gae", "whiten"}) {
        m.impl(name, torch::autograd::autogradNotImplementedFallback());
    }
}

}  // namespace detail
}  // namespace operations
}  // namespace libtorch
}  // namespace grpo::inline v0

#define GRPO_TORCH_REGISTER(ns, ...)                                                             \
    namespace {                                                                                  \
    struct grpo_torch_library_##ns {                                                             \
        static constexpr const char* name = #ns;                                                 \
        using executor = grpo::libtorch::operations::detail::chosen_executor<__VA_ARGS__>::type; \
    };                                                                                           \
    TORCH_LIBRARY(ns, m) {                                                                       \
        grpo::libtorch::operations::detail::define_raw(m);                                       \
        grpo::libtorch::operations::detail::define_with_graph<grpo_torch_library_##ns>(m);       \
    }                                                                                            \
    TORCH_LIBRARY_IMPL(ns, CPU, m) {                                                             \
        grpo::libtorch::operations::detail::implement_cpu<grpo_torch_library_##ns::executor>(m); \
    }                                                                                            \
    TORCH_LIBRARY_IMPL(ns, Meta, m) {                                                            \
        grpo::libtorch::operations::detail::implement_meta(m);                                   \
    }                                                                                            \
    TORCH_LIBRARY_IMPL(ns, Autograd, m) {                                                        \
        grpo::libtorch::operations::detail::implement_autograd(m);                               \
    }                                                                                            \
    }                                                                                            \
    static_assert(true)
