// Policy terms that weigh the log-probability itself, L = -c A logp with a constant c, and smooth ones without a clip.
#pragma once

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/ratio.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0 {

// L = -A logp: the score-function estimator (Williams, 1992). GPG (arXiv 2504.02546, eq. 5) is the same term with its own
// advantages. Gradient -A.
struct reinforce {
    static constexpr unsigned needs = input::logp::bit | input::advantage::bit;
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const { return S(-t.advantage * t.logp); }
};
using gpg = reinforce;

// On-policy mode: L = -A π_θ / sg(π_θ). The ratio is exactly 1 and needs no logp_old: value -A, gradient -A (R1.30).
// What PPO's clip becomes where every batch is used for one update.
struct on_policy {
    static constexpr unsigned needs = reinforce::needs;
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        return scalar_traits<S>::chain(constant_t<S>(-t.advantage), constant_t<S>(-t.advantage), t.logp);
    }
};

// CISPO: L = -sg(clip(ρ, 1 - low, 1 + high)) A logp (arXiv 2506.13585, eq. 4 and 5). Gradient -A clip(ρ): a clipped token
// keeps its gradient, with a bounded weight.
// Defaults: 0.2 both sides, as verl and NeMo RL have them; the paper tunes `high` alone and sets `low` too large to act.
// flagged: weights that were clipped, whatever the sign of A.
struct cispo {
    static constexpr unsigned needs = input::logp::bit | input::logp_old::bit | input::advantage::bit;
    double low = 0.2;
    double high = 0.2;
    safety_bound bound{};

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        using C = constant_t<S>;
        const C ratio = bound.weight(t.log_ratio());
        const C kept = math::clamp(ratio, constant<S>(1 - low), constant<S>(1 + high));
        return S(C(-kept * t.advantage) * t.logp);
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        const S d = t.log_ratio();
        const S ratio = bound.exp(d);
        return {ratio < S(constant<S>(1 - low)), S(constant<S>(1 + high)) < ratio, bound.exceeded(d)};
    }
    problem validate(const char* function) const {
        return detail::clip_range(function, "cispo.low", low, "cispo.high", high, bound);
    }
};

namespace detail {

// -sg(min(ρ, cap)) A logp: what CISPO's upper bound and DPPO have in common.
template <class S>
GRPO_HD S capped_reinforce(const token<S>& t, double cap, const safety_bound& bound) {
    using C = constant_t<S>;
    const C ratio = bound.weight(t.log_ratio());
    return S(C(-math::min(ratio, constant<S>(cap)) * t.advantage) * t.logp);
}

}  // namespace detail

// CISPO with an upper bound alone: L = -sg(min(ρ, cap)) A logp, cap a raw ratio. Default: 5 (ScaleRL, arXiv 2510.13786).
struct cispo_upper {
    static constexpr unsigned needs = cispo::needs;
    double cap = 5.0;
    safety_bound bound{};

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        return detail::capped_reinforce(t, cap, bound);
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        const S d = t.log_ratio();
        flags<S> f = detail::no_flags<S>();
        f.high = S(constant<S>(cap)) < bound.exp(d);
        f.clamped = bound.exceeded(d);
        return f;
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::below(function, "cispo_upper.cap", cap, 0.0), bound.validate(function));
    }
};

// SAPO: a soft gate instead of a clip: L = -(4 / τ) σ(τ (ρ - 1)) A, τ by the sign of A (arXiv 2511.20347, eq. 5 and 6).
// Defaults: τ = 1.0 for A > 0, 1.05 otherwise, the paper's. At ρ = 1 the derivative is -A.
struct sapo {
    static constexpr unsigned needs = cispo::needs;
    double tau_positive = 1.0;
    double tau_negative = 1.05;
    safety_bound bound{};

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        using C = constant_t<S>;
        const C tau = math::select<C>(constant<S>(0) < t.advantage, constant<S>(tau_positive), constant<S>(tau_negative));
        const S beyond_one = math::expm1(bound(t.log_ratio()));
        const S gate = math::sigmoid(S(tau * beyond_one));
        return S(C(constant<S>(-4) / tau * t.advantage) * gate);
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        return detail::only_clamped<S>(bound.exceeded(t.log_ratio()));
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::not_above(function, "sapo.tau_positive", tau_positive, 0.0),
                                detail::not_above(function, "sapo.tau_negative", tau_negative, 0.0),
                                bound.validate(function));
    }
};

// DRO: L = -(A logp - ½ beta (logp - logp_old)²) (arXiv 2405.19107). Gradient -A + beta (logp - logp_old).
// beta must be given: the paper and verl have no default.
struct dro {
    static constexpr unsigned needs = cispo::needs;
    double beta = 0.0;

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        return S(constant<S>(0.5 * beta) * math::square(t.log_ratio()) - t.advantage * t.logp);
    }
    problem validate(const char* function) const { return detail::not_above(function, "dro.beta", beta, 0.0); }
};

namespace detail {

// -sg(min(ρ, cap)) A logp where valid, else 0.
template <class S>
GRPO_HD S divergence_gated(const token<S>& t, const mask_t<S>& valid, double cap, const safety_bound& bound) {
    return math::select<S>(valid, capped_reinforce(t, cap, bound), S(constant<S>(0)));
}

// The gated tokens by the sign of A.
template <class S>
GRPO_HD flags<S> gated(const token<S>& t, const mask_t<S>& valid, const safety_bound& bound) {
    const mask_t<S> positive = constant<S>(0) < t.advantage;
    const mask_t<S> stopped = negation(valid);
    return {both(negation(positive), stopped), both(positive, stopped), bound.exceeded(t.log_ratio())};
}

}  // namespace detail

// DPPO with total variation: tokens whose probability has already moved too far in the advantage's direction are dropped:
// kept where A > 0 and p - p_old <= high, or A <= 0 and p - p_old >= -low; L = -sg(min(ρ, cap)) A logp there
// (arXiv 2602.04879). Defaults: 0.2 both sides and cap 3, as verl configures it. At a threshold the token is kept.
struct dppo_tv {
    static constexpr unsigned needs = cispo::needs;
    double low = 0.2;
    double high = 0.2;
    double cap = 3.0;
    safety_bound bound{};

    template <class S>
    GRPO_HD mask_t<S> valid(const token<S>& t) const {
        using C = constant_t<S>;
        const C moved = math::exp(C(value(t.logp))) - math::exp(C(t.logp_old));
        const mask_t<S> positive = constant<S>(0) < t.advantage;
        return detail::either(detail::both(positive, moved <= constant<S>(high)),
                              detail::both(detail::negation(positive), constant<S>(-low) <= moved));
    }
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        return detail::divergence_gated(t, valid(t), cap, bound);
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        return detail::gated(t, valid(t), bound);
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::clip_range(function, "dppo_tv.low", low, "dppo_tv.high", high, bound),
                                detail::below(function, "dppo_tv.cap", cap, 0.0));
    }
};

// DPPO with the KL between the two Bernoulli variables "this token or another":
// D = p_old log(p_old / p) + (1 - p_old) log((1 - p_old + 1e-8) / (1 - p + 1e-8)); kept where D is within its threshold
// (high for A > 0, low otherwise) or the probability has moved against the advantage. Otherwise as dppo_tv.
struct dppo_kl {
    static constexpr unsigned needs = cispo::needs;
    double low = 0.2;
    double high = 0.2;
    double cap = 3.0;
    safety_bound bound{};

    template <class S>
    GRPO_HD mask_t<S> valid(const token<S>& t) const {
        using C = constant_t<S>;
        const C logp(value(t.logp));
        const C old(t.logp_old);
        const C rest = rest_of<S>(logp);
        const C rest_old = rest_of<S>(old);
        const C divergence = math::exp(old) * (old - logp) + rest_old * (log_guarded<S>(rest_old) - log_guarded<S>(rest));
        const mask_t<S> positive = constant<S>(0) < t.advantage;
        const mask_t<S> rising = detail::either(divergence <= constant<S>(high), logp <= old);
        const mask_t<S> falling = detail::either(divergence <= constant<S>(low), old <= logp);
        return detail::either(detail::both(positive, rising), detail::both(detail::negation(positive), falling));
    }
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        return detail::divergence_gated(t, valid(t), cap, bound);
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        return detail::gated(t, valid(t), bound);
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::clip_range(function, "dppo_kl.low", low, "dppo_kl.high", high, bound),
                                detail::below(function, "dppo_kl.cap", cap, 0.0));
    }

private:
    // 1 - e^x without cancellation; 0 for the x slightly above 0 that low precision produces.
    template <class S>
    GRPO_HD static constant_t<S> rest_of(const constant_t<S>& x) {
        return -math::expm1(math::min(x, constant<S>(0)));
    }
    template <class S>
    GRPO_HD static constant_t<S> log_guarded(const constant_t<S>& x) {
        return math::log(constant_t<S>(x + constant<S>(1e-8)));
    }
};

}  // namespace grpo::inline v0
