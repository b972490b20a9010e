// Policy terms with a token ratio ρ = e^(logp - logp_old) and a clip. (Sequence ratios: sequence.hpp; weighted
// log-probabilities: weighted.hpp.)
#pragma once

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/ratio.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0 {

// The clipped surrogate: L = max(-A ρ, -A clip(ρ, 1 - low, 1 + high)).
// Defaults: 0.2 both sides (PPO, arXiv 1707.06347, eq. 7); clip-higher 0.2 / 0.28 (DAPO, arXiv 2503.14476, eq. 10).
// At a bound, and at A = 0, the unclipped side: derivative -A ρ. Beyond a bound the derivative is 0 where clipping
// makes the loss larger, unchanged where it does not.
struct clipped {
    static constexpr unsigned needs = input::logp::bit | input::logp_old::bit | input::advantage::bit;
    double low = 0.2;
    double high = 0.2;
    safety_bound bound{};

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        return detail::clipped_surrogate<S>(t.advantage, bound, t.log_ratio(), low, high);
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        const S d = t.log_ratio();
        return detail::beyond<S>(t.advantage, bound.exp(d), 1 - low, 1 + high, bound.exceeded(d));
    }
    problem validate(const char* function) const {
        return detail::clip_range(function, "clipped.low", low, "clipped.high", high, bound);
    }
};

// Dual clip: the clipped surrogate, and where A < 0 at most -c A: L = min(L_clip, -c A).
// Defaults: c = 3, verl's; clip 0.2 (arXiv 1912.09729, eq. 5 of the dual-clip section).
// ρ = c exactly takes the unclipped side; beyond it, with A < 0, the derivative is 0. A >= 0 is untouched.
// flagged: `high` also counts A < 0 with ρ > c.
struct dual_clip {
    static constexpr unsigned needs = clipped::needs;
    double low = 0.2;
    double high = 0.2;
    double c = 3.0;
    safety_bound bound{};

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        const S base = clipped{low, high, bound}(t);
        const S most(constant_t<S>(-constant<S>(c) * t.advantage));
        return math::select<S>(t.advantage < constant<S>(0), math::min(base, most), base);
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        flags<S> f = clipped{low, high, bound}.flagged(t);
        const S ratio = bound.exp(t.log_ratio());
        f.high = detail::either(f.high, detail::both(t.advantage < constant<S>(0), S(constant<S>(c)) < ratio));
        return f;
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::clip_range(function, "dual_clip.low", low, "dual_clip.high", high, bound),
                                detail::below(function, "dual_clip.c", c, 1.0));
    }
};

// Two-sided clip: L = max(-A min(ρ, delta), -A clip(ρ, 1 - low, 1 + high)) (arXiv 2505.07291).
// delta must be at least 1 + high; the papers publish no default. Where A < 0 it equals the dual clip with c = delta.
// ρ = delta exactly takes the uncapped side; beyond it the derivative is 0.
// flagged: `high` also counts A < 0 with ρ > delta.
struct two_sided_clip {
    static constexpr unsigned needs = clipped::needs;
    double low = 0.2;
    double high = 0.2;
    double delta = 4.0;
    safety_bound bound{};

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        const S ratio = bound.exp(t.log_ratio());
        const S capped = math::min(ratio, S(constant<S>(delta)));
        const S kept = math::clamp(ratio, constant<S>(1 - low), constant<S>(1 + high));
        return math::max(S(-t.advantage * capped), S(-t.advantage * kept));
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        return dual_clip{low, high, delta, bound}.flagged(t);
    }
    problem validate(const char* function) const {
        return detail::first_of(
            detail::clip_range(function, "two_sided_clip.low", low, "two_sided_clip.high", high, bound),
            detail::below(function, "two_sided_clip.delta", delta, 1 + high));
    }
};

// Decoupled PPO: the clip is around a proximal policy (logp_old), the samples come from another (logp_rollout):
// L = e^(logp_old - logp_rollout) max(-A ρ, -A clip(ρ)) (arXiv 2110.00641, eq. 5; AReaL, arXiv 2505.24298).
// The weight is a constant; its logarithm has the same safety bound as the ratio's.
struct decoupled_clip {
    static constexpr unsigned needs = clipped::needs | input::logp_rollout::bit;
    double low = 0.2;
    double high = 0.2;
    safety_bound bound{};

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        using C = constant_t<S>;
        const C weight = bound.weight(S(C(t.logp_old - t.logp_rollout)));
        return S(weight * clipped{low, high, bound}(t));
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        return clipped{low, high, bound}.flagged(t);
    }
    problem validate(const char* function) const {
        return detail::clip_range(function, "decoupled_clip.low", low, "decoupled_clip.high", high, bound);
    }
};

// KL-Cov: L = -A ρ, and + coef |logp - logp_old| on the tokens whose `keep` is not 0: those of the largest covariance
// between advantage and logp, selected beforehand over the batch (arXiv 2505.22617, eq. 12). No clip.
// Default: coef = 1, the paper's (verl's configuration: 0.1). |d| has derivative 0 at d = 0.
struct kl_cov {
    static constexpr unsigned needs = clipped::needs | input::keep::bit;
    double coef = 1.0;
    safety_bound bound{};

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        const S d = t.log_ratio();
        const S plain = -t.advantage * bound.exp(d);
        const S penalised = plain + constant<S>(coef) * math::abs(d);
        return math::select<S>(constant<S>(0) < t.keep, penalised, plain);
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        return detail::only_clamped<S>(bound.exceeded(t.log_ratio()));
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::below(function, "kl_cov.coef", coef, 0.0), bound.validate(function));
    }
};

}  // namespace grpo::inline v0
