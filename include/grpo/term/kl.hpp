// KL terms: estimators of KL(π_θ ‖ π_ref) from the sampled token, with r = logp - logp_ref.
//
//   kl{}                                                     k3 with its own gradient
//   kl_penalty<kl_estimator::k1, kl_gradient::k2>{}          any value with any gradient (R1.23)
//
// On-policy, in expectation (R1.24): the k2 gradient, and `score` and `importance` of k1 and k3, are the gradient of
// KL(π_θ ‖ π_ref); so is that of k2's own. k1's own is 0, and k3's own is the gradient of KL(π_ref ‖ π_θ).
#pragma once

#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/ratio.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0 {

enum class kl_estimator {
    k1,   // r: unbiased, any sign
    k2,   // ½ r²
    k3,   // e^-r - 1 + r: unbiased, never negative
    abs,  // |r|, derivative 0 at 0
};

enum class kl_gradient {
    own,                  // of the value as written
    k2,                   // straight-through: r, whatever the value and the clamps (verl's names ending in '+')
    score,                // of value · π_θ / sg(π_θ): the score-function term is added (arXiv 2506.09477)
    importance,           // value · ρ, ρ = π_θ / π_old with its gradient (DeepSeek-V3.2, arXiv 2512.02556)
    sequence_importance,  // value · e^(mean_t log ρ), the exact gradient of the whole row
};

// The estimator with one of the gradients. `bound` clamps r before it is exponentiated, `output` the product; a clamped
// token has derivative 0 (or that of the unclamped, with outside::straight_through), and where r is clamped the factor of
// `score` and `importance` is a constant. Defaults: r in ±20 (verl, NeMo RL); no output clamp (verl, NeMo RL, OpenRLHF
// and AReaL use ±10). `ratio` bounds log ρ of the importance weights.
// k3 is arXiv 2402.03300, eq. 4, as math::exp_remainder(-r): float e^d - d - 1 is 4.7 % off at d = 1e-3.
template <kl_estimator Value = kl_estimator::k3, kl_gradient Gradient = kl_gradient::own>
struct kl_penalty {
    static constexpr bool weighted = Gradient == kl_gradient::importance || Gradient == kl_gradient::sequence_importance;
    static constexpr unsigned needs =
        input::logp::bit | input::logp_ref::bit | (weighted ? input::logp_old::bit : 0u);
    static constexpr int statistics = Gradient == kl_gradient::sequence_importance ? 1 : 0;
    safety_bound bound{};
    safety_bound output{.bound = math::unbounded};
    safety_bound ratio{};

    template <class S>
    GRPO_HD S statistic(const token<S>& t) const { return t.log_ratio(); }
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        const S r = t.logp - t.logp_ref;
        const S x = estimate(r);
        if constexpr (Gradient == kl_gradient::own) {
            return output.if_any(x);
        } else if constexpr (Gradient == kl_gradient::k2) {
            return scalar_traits<S>::chain(value(output.if_any(x)), value(r), r);
        } else {
            return output.if_any(S(x * factor(t, r)));
        }
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        const S r = t.logp - t.logp_ref;
        S x = estimate(r);
        if constexpr (weighted) x = x * factor(t, r);
        return detail::only_clamped<S>(detail::either(bound.exceeded(r), output.exceeded(x)));
    }
    problem validate(const char* function) const {
        return detail::first_of(bound.validate(function), output.validate(function), ratio.validate(function));
    }

private:
    template <class S>
    GRPO_HD S estimate(const S& r) const {
        if constexpr (Value == kl_estimator::k1) return bound(r);
        if constexpr (Value == kl_estimator::k2) return S(constant<S>(0.5) * math::square(bound(r)));
        if constexpr (Value == kl_estimator::k3) return bound.exp_remainder(S(-r));
        if constexpr (Value == kl_estimator::abs) return math::abs(bound(r));
    }
    template <class S>
    GRPO_HD S factor(const token<S>& t, const S& r) const {
        S w = carry<S>(constant<S>(1), t.logp);
        if constexpr (Gradient == kl_gradient::importance) w = ratio.exp(t.log_ratio());
        if constexpr (Gradient == kl_gradient::sequence_importance) w = ratio.exp(t.sequence_mean());
        if (bound.gradient == outside::straight_through) return w;
        return math::select<S>(bound.exceeded(r), detach(w), w);
    }
};

using kl = kl_penalty<>;

// The exact KL in the loss: L = KL(π_θ ‖ π_ref) over the whole vocabulary, to be scaled: 0.04 * exact_kl{}. No estimate and
// no variance; its gradient goes to d_full_kl, or through both rows of logits by evaluate_logits(). K05.
struct exact_kl {
    static constexpr unsigned needs = input::full_kl::bit;
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const { return t.full_kl; }
};

}  // namespace grpo::inline v0
