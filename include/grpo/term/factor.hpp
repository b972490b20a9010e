// Factors: constants per token that a loss is multiplied by. factor * term selects: where the factor is 0 the product is 0
// with derivative 0 even if the term overflowed there (R1.15).
//
//   rollout_weighted{} * clipped{}                      truncated importance sampling, IcePop (weights: correction.hpp)
//   selected{} * clipped{}                                  Clip-Cov, entropy quantile, M2PO (masks: correction.hpp)
//   off_policy_mask{.delta = 0.1} * selected{} * clipped{} + 0.04 * kl{}
#pragma once

#include <concepts>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0 {

// A term without derivatives that declares `is_factor`.
template <class T>
concept factor = term<T> && requires { requires T::is_factor; };

namespace detail {

struct selects {
    template <class S>
    GRPO_HD S operator()(const S& a, const S& b) const {
        const constant_t<S> zero = constant<S>(0);
        return math::select<S>(either(a < zero, zero < a), S(a * b), S(zero));
    }
    template <class A, class B>
    static auto join(const A& a, const B& b);
};

}  // namespace detail

// A product that is a factor itself, so that a · b · c selects from left to right.
template <factor A, factor B>
struct factor_product : joined_term<detail::selects, A, B> {
    static constexpr bool is_factor = true;
};

template <class A, class B>
auto detail::selects::join(const A& a, const B& b) {
    if constexpr (std::same_as<A, no_term> || std::same_as<B, no_term>) {
        return no_term{};
    } else if constexpr (factor<A> && factor<B>) {
        return factor_product<A, B>{{a, b}};
    } else {
        return joined_term<selects, A, B>{a, b};
    }
}

template <factor A, term B>
auto operator*(const A& a, const B& b) {
    return detail::selects::join(a, b);
}

// The rollout-correction weight (constant) of the token. A weight of 0 drops it.
struct rollout_weighted {
    static constexpr unsigned needs = input::weight::bit;
    static constexpr bool is_factor = true;
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const { return S(t.weight); }
};

// 1 where a selection made beforehand over the batch keeps the token, else 0. Denominators are unchanged; for a selection
// that shrinks them use shape.where(keep) instead.
struct selected {
    static constexpr unsigned needs = input::keep::bit;
    static constexpr bool is_factor = true;
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        const constant_t<S> zero = constant<S>(0);
        return math::select<S>(detail::either(t.keep < zero, zero < t.keep), S(constant<S>(1)), S(zero));
    }
};

// The off-policy sequence mask: 1 where A >= 0 or mean_t (logp_behaviour - logp) <= delta, else 0 (DeepSeek-V3.2,
// arXiv 2512.02556). The behaviour policy is logp_old, or the rollout engine's: off_policy_mask_by<input::logp_rollout>.
// At delta the sequence is kept; each token's own advantage decides where advantages are per token.
// delta must be given: the paper publishes none.
template <class Behaviour>
struct off_policy_mask_by {
    static constexpr unsigned needs = input::logp::bit | Behaviour::bit | input::advantage::bit;
    static constexpr bool is_factor = true;
    static constexpr int statistics = 1;
    static constexpr bool statistic_is_constant = true;
    double delta = -1.0;

    template <class S>
    GRPO_HD S statistic(const token<S>& t) const { return S(Behaviour::of(t) - t.logp); }
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        const constant_t<S> zero = constant<S>(0);
        const constant_t<S> drift(value(t.sequence_mean()));
        const mask_t<S> keep = detail::either(zero <= t.advantage, drift <= constant<S>(delta));
        return math::select<S>(keep, S(constant<S>(1)), S(zero));
    }
    problem validate(const char* function) const {
        return detail::below(function, "off_policy_mask.delta", delta, 0.0);
    }
};
using off_policy_mask = off_policy_mask_by<input::logp_old>;

}  // namespace grpo::inline v0
