// The kernels behind GRPO_TORCH_REGISTER (register.hpp), with the flat signatures that torch.ops wants: raw, without a
// graph. A loss returns its value, its slopes and its metrics. Exec: who walks the rows; made anew for every call.
#pragma once

#include <grpo/adapt/torch.hpp>

#include <algorithm>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace grpo::inline v0 {
namespace libtorch {
namespace operations {

using at::Tensor;
using maybe_tensor = c10::optional<Tensor>;
using maybe_double = c10::optional<double>;
using two = std::tuple<Tensor, Tensor>;
using three = std::tuple<Tensor, Tensor, Tensor>;
using four = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// What a caller may change in a recipe: the clip's widths, and the coefficient of the KL in the loss.
struct overrides {
    maybe_double low{}, high{}, beta{};
    int used = 0;

    int wanted() const { return (low ? 1 : 0) + (high ? 2 : 0) + (beta ? 4 : 0); }
};

// Sums in the order of the metrics that a loss returns. Those of parts of a batch add up.
inline constexpr const char* metric_names[] = {
    "loss_sum",        "weight",      "sequences",      "nonempty",       "tokens",     "nonfinite",
    "missing_rollout", "clipped_low", "clipped_high",   "clamped",        "log_ratio",  "half_square",
    "approx_kl",       "ratio",       "ratio_square",   "entropy",        "kl_ref_k1",  "kl_ref_k3",
    "rollout_kl",      "rollout_k3",  "rollout_weight", "rollout_square", "rollout_gap"};
inline constexpr std::int64_t metric_count = static_cast<std::int64_t>(std::size(metric_names));

namespace detail {

using namespace libtorch::detail;

inline Tensor given(const maybe_tensor& x) {
    return x.has_value() ? *x : Tensor();
}
inline std::optional<double> given(const maybe_double& x) {
    return x.has_value() ? std::optional<double>(*x) : std::nullopt;
}

template <class T>
inline constexpr bool is_kl = false;
template <kl_estimator Value, kl_gradient Gradient>
inline constexpr bool is_kl<kl_penalty<Value, Gradient>> = true;

inline void replace(double& field, const maybe_double& with, int bit, int& used) {
    if (!with.has_value()) return;
    field = *with;
    used |= bit;
}

template <class Term>
void amend(Term& t, overrides& o) {
    if constexpr (requires {
                      t.a;
                      t.b;
                  }) {
        amend(t.a, o);
        amend(t.b, o);
    } else if constexpr (requires {
                             t.scale;
                             t.a;
                         }) {
        if constexpr (is_kl<std::remove_cvref_t<decltype(t.a)>>) replace(t.scale, o.beta, 4, o.used);
        amend(t.a, o);
    } else {
        if constexpr (requires { t.low; }) replace(t.low, o.low, 1, o.used);
        if constexpr (requires { t.high; }) replace(t.high, o.high, 2, o.used);
    }
}

inline Tensor metrics_of(const loss_result& r) {
    const diagnostics& d = r.metrics;
    const auto n = [](std::int64_t x) { return static_cast<double>(x); };
    const double all[] = {r.sum,
                          r.weight,
                          n(r.count.sequences),
                          n(r.count.nonempty),
                          n(r.count.tokens),
                          n(r.nonfinite),
                          n(r.missing_rollout),
                          d.clipped_low,
                          d.clipped_high,
                          d.clamped,
                          d.log_ratio,
                          d.half_square,
                          d.approx_kl,
                          d.ratio,
                          d.ratio_square,
                          d.entropy,
                          d.kl_ref_k1,
                          d.kl_ref_k3,
                          d.rollout_kl,
                          d.rollout_k3,
                          d.rollout_weight,
                          d.rollout_square,
                          d.rollout_gap};
    static_assert(std::size(all) == std::size(metric_names));
    const Tensor out = at::empty({metric_count}, at::kDouble);
    std::copy(std::begin(all), std::end(all), static_cast<double*>(out.data_ptr()));
    return out;
}

// A recipe's loss times the rollout weight: a weight of 1 changes no bit.
template <class Recipe>
auto weighed(const Recipe& r) {
    if constexpr ((decltype(r.objective.term)::needs & input::weight::bit) != 0) {
        return r.objective;
    } else {
        return r.weighted();
    }
}

template <class Exec, class Term, bool D, class Tensors>
std::pair<evaluated, loss_result> with_slopes(const char* function, const objective<Term, D>& o, const Tensors& x,
                                              const placement* pairs, std::optional<double> denominator) {
    auto inputs = inputs_of(x);
    const unsigned read = reads(o.term);
    const named_tensor& leader = leader_of(function, inputs, read);
    const Exec exec{};
    const auto site = site_of(function, leader.name, exec, *leader.given);
    const auto type = check_inputs(function, inputs, read, site.device());
    placement where;
    if constexpr (requires { x.cu_seqlens; }) {
        where = place(function, leader.name, *leader.given, x.mask, x.cu_seqlens);
    } else {
        where = *pairs;
    }
    flatten(function, inputs, where, type);
    return compute<true>(site, o, inputs, where, type, denominator);
}

template <class Exec, class Recipe>
three policy_loss_of(const Recipe& r, token_tensors x, overrides o, std::optional<double> denominator) {
    constexpr const char* function = "policy_loss";
    constexpr bool reads_weight = (decltype(r.objective.term)::needs & input::weight::bit) != 0;
    auto loss = weighed(r);
    amend(loss.term, o);
    if (const int lost = o.wanted() & ~o.used; lost != 0) {
        require(complain(function,
                         (lost & 1) != 0   ? "low"
                         : (lost & 2) != 0 ? "high"
                                           : "beta",
                         "is given, but the recipe %s has no such parameter", r.name));
    }
    if (!reads_weight && !x.weight.defined())
        x.weight = at::ones(x.logp.sizes(), x.logp.options().requires_grad(false));
    const auto [result, sums] = with_slopes<Exec>(function, loss.diagnosed(), x, nullptr, denominator);
    return {result.value, result.slope[0].view(x.logp.sizes()), metrics_of(sums)};
}

template <class Exec, class Term>
three preference_loss_of(const Term& term, const pair_tensors& x, std::optional<double> denominator) {
    const Tensor& like = x.chosen;
    const placement where = place_pairs("preference_loss", inputs_of(x), like);
    const objective<Term> o{term, aggregation::token_mean()};
    const auto [result, sums] = with_slopes<Exec>("preference_loss", o, x, &where, denominator);
    return {result.value, result.slope[0].view(like.sizes()), result.slope[1].view(like.sizes())};
}

inline grouping groups_of(const char* function, std::int64_t size, const maybe_tensor& offsets) {
    if ((size > 0) == offsets.has_value()) {
        require(complain(function, "group_size",
                         "is %lld and offsets %s given: exactly one of them says what a group is",
                         static_cast<long long>(size), offsets.has_value() ? "are" : "are not"));
    }
    return offsets.has_value() ? grouping(*offsets) : grouping(size);
}

}  // namespace detail

// The loss of any recipe over tokens, and its slopes by logp.
template <class Exec>
three policy_loss_fused(std::string recipe, const Tensor& logp, const maybe_tensor& logp_old,
                        const maybe_tensor& advantage, const maybe_tensor& mask, const maybe_tensor& logp_ref,
                        const maybe_tensor& cu_seqlens, const maybe_tensor& logp_rollout, const maybe_tensor& weight,
                        const maybe_tensor& keep, const maybe_tensor& label, maybe_double denominator, maybe_double low,
                        maybe_double high, maybe_double beta) {
    using detail::given;
    const token_tensors x{.logp = logp,
                          .logp_old = given(logp_old),
                          .logp_ref = given(logp_ref),
                          .logp_rollout = given(logp_rollout),
                          .advantage = given(advantage),
                          .weight = given(weight),
                          .keep = given(keep),
                          .label = given(label),
                          .mask = given(mask),
                          .cu_seqlens = given(cu_seqlens)};
    three out;
    recipe::visit(recipe.c_str(), [&]<class Recipe>(const Recipe& r) {
        if constexpr ((decltype(r.objective.term)::needs & input::chosen::bit) != 0) {
            detail::refuse("policy_loss", "recipe", "is a loss of pairs: call preference_loss");
        } else {
            out = detail::policy_loss_of<Exec>(r, x, {low, high, beta}, given(denominator));
        }
    });
    return out;
}

// The clipped value loss over tokens, and its slopes by values.
template <class Exec>
three value_loss_fused(const Tensor& values, const Tensor& values_old, const Tensor& returns, const maybe_tensor& mask,
                       const maybe_tensor& cu_seqlens, double clip, double factor, maybe_double denominator) {
    using detail::given;
    const objective o{value_loss{.clip = clip, .factor = factor}, aggregation::token_mean()};
    const token_tensors x{.values = values,
                          .values_old = values_old,
                          .returns = returns,
                          .mask = given(mask),
                          .cu_seqlens = given(cu_seqlens)};
    const auto [result, sums] = detail::with_slopes<Exec>("value_loss", o.diagnosed(), x, nullptr, given(denominator));
    return {result.value, result.slope[2].view(values.sizes()), detail::metrics_of(sums)};
}

// A loss of pairs, and its slopes by chosen and rejected: dpo, ipo, hinge, simpo, contrastive or bradley_terry
// (scores).
template <class Exec>
three preference_loss_fused(std::string loss, const Tensor& chosen, const Tensor& rejected,
                            const maybe_tensor& ref_chosen, const maybe_tensor& ref_rejected,
                            const maybe_tensor& chosen_length, const maybe_tensor& rejected_length, maybe_double beta,
                            maybe_double denominator) {
    using detail::given;
    const pair_tensors x{.chosen = chosen,
                         .rejected = rejected,
                         .ref_chosen = given(ref_chosen),
                         .ref_rejected = given(ref_rejected),
                         .chosen_length = given(chosen_length),
                         .rejected_length = given(rejected_length)};
    const auto run = [&](auto term) {
        if constexpr (requires { term.beta; }) {
            if (beta.has_value()) term.beta = *beta;
        } else if (beta.has_value()) {
            detail::refuse("preference_loss", "beta", "is given, but this loss has no such parameter");
        }
        return detail::preference_loss_of<Exec>(term, x, given(denominator));
    };
    if (loss == "dpo") return run(dpo{});
    if (loss == "ipo") return run(ipo{});
    if (loss == "hinge") return run(hinge{});
    if (loss == "simpo") return run(simpo{});
    if (loss == "contrastive") return run(contrastive{});
    if (loss == "bradley_terry") return run(bradley_terry{});
    detail::require(detail::complain("preference_loss", "loss",
                                     "is \"%.60s\", but must be dpo, ipo, hinge, simpo, contrastive or bradley_terry",
                                     loss.c_str()));
    return {};
}

// log softmax(logits / temperature) at the targets, and the entropy (empty unless asked for); and, for d_logits(), log
// Σ e^z and the entropy per token in double. Where the mask is 0, rows are not read.
template <class Exec>
four token_logp_saved(const Tensor& logits, const Tensor& targets, double temperature, bool with_entropy,
                      const maybe_tensor& mask) {
    const Exec exec{};
    const auto site = detail::site_of("token_logp", "logits", exec, logits);
    const detail::head h = detail::make_head(
        "token_logp", logits, targets, {.temperature = temperature, .mask = detail::given(mask)}, site.device());
    const detail::measured m = detail::measure(site, h, with_entropy);
    // No output shares memory with another.
    const auto shaped = [&](const Tensor& x) {
        return x.to(detail::compute_of(logits), false, true).view(targets.sizes());
    };
    const Tensor none = at::empty({0}, at::kDouble);
    return {shaped(m.logp), with_entropy ? shaped(m.entropy) : none.to(detail::compute_of(logits), false, true), m.lse,
            with_entropy ? m.entropy : none};
}
template <class Exec>
two token_logp_fused(const Tensor& logits, const Tensor& targets, double temperature, bool with_entropy,
                     const maybe_tensor& mask) {
    const auto [logp, entropy, lse, exact] = token_logp_saved<Exec>(logits, targets, temperature, with_entropy, mask);
    return {logp, entropy};
}
// d loss / d logits. What is left out of lse and entropy is measured again.
template <class Exec>
Tensor d_logits(const Tensor& logits, const Tensor& targets, const maybe_tensor& d_logp, const maybe_tensor& d_entropy,
                double temperature, const maybe_tensor& mask, const maybe_tensor& lse, const maybe_tensor& entropy) {
    using detail::given;
    const Exec exec{};
    const auto site = detail::site_of("d_logits", "logits", exec, logits);
    const detail::head h = detail::make_head("d_logits", logits, targets,
                                             {.temperature = temperature, .mask = given(mask)}, site.device());
    return detail::d_logits_of(site, h, given(d_logp), given(d_entropy), {{}, given(entropy), given(lse)})
        .view(logits.sizes());
}

// Advantages by a recipe's rule: one per response, and per token.
inline Tensor group_advantages(std::string recipe, const Tensor& rewards, std::int64_t group_size,
                               const maybe_tensor& offsets) {
    return advantages(recipe::advantages(recipe.c_str()), rewards,
                      detail::groups_of("group_advantages", group_size, offsets));
}
inline two token_advantages(std::string recipe, const Tensor& rewards, std::int64_t group_size,
                            const maybe_tensor& offsets, const maybe_tensor& mask, const maybe_tensor& cu_seqlens,
                            const maybe_tensor& logp_old, const maybe_tensor& logp_ref, const maybe_tensor& values,
                            const maybe_tensor& greedy_rewards, const maybe_tensor& sum_probability_squared) {
    using detail::given;
    const advantage_tensors x{.rewards = rewards,
                              .logp_old = given(logp_old),
                              .logp_ref = given(logp_ref),
                              .values = given(values),
                              .greedy_rewards = given(greedy_rewards),
                              .sum_probability_squared = given(sum_probability_squared),
                              .mask = given(mask),
                              .cu_seqlens = given(cu_seqlens)};
    const estimates e =
        advantages(recipe::advantages(recipe.c_str()), x, detail::groups_of("token_advantages", group_size, offsets));
    return {e.advantage, e.returns};
}
inline two gae_of(const Tensor& reward, const Tensor& value, double gamma, double lambda, const maybe_tensor& mask,
                  const maybe_tensor& terminated, const maybe_tensor& truncated, const maybe_tensor& bootstrap,
                  const maybe_tensor& cu_seqlens) {
    using detail::given;
    const estimates e = gae({.reward = reward,
                             .value = value,
                             .terminated = given(terminated),
                             .truncated = given(truncated),
                             .bootstrap = given(bootstrap),
                             .mask = given(mask),
                             .cu_seqlens = given(cu_seqlens)},
                            {.gamma = gamma, .lambda = lambda});
    return {e.advantage, e.returns};
}
inline Tensor whiten_of(const Tensor& x, const maybe_tensor& mask) {
    return whiten(x, detail::given(mask));
}

}  // namespace operations
}  // namespace libtorch
}  // namespace grpo::inline v0
