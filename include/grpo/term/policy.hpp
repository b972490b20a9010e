// Policy terms with a token ratio and a clip.
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
        const S ratio = math::exp(bound(t.log_ratio()));
        const S kept = math::clamp(ratio, constant<S>(1 - low), constant<S>(1 + high));
        return math::max(S(-t.advantage * ratio), S(-t.advantage * kept));
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        const S d = t.log_ratio();
        const S ratio = math::exp(bound(d));
        const S zero(constant<S>(0));
        return {detail::both(t.advantage < zero, ratio < S(constant<S>(1 - low))),
                detail::both(zero < t.advantage, S(constant<S>(1 + high)) < ratio), bound.exceeded(d)};
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::below(function, "clipped.low", low, 0.0),
                                detail::below(function, "clipped.high", high, 0.0), bound.validate(function));
    }
};

}  // namespace grpo::inline v0
