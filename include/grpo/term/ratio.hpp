// The probability ratio ρ = π_θ / π_old = e^(logp - logp_old), and what bounds its logarithm.
#pragma once

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0 {

// The derivative of a clamp outside its interval.
enum class outside {
    zero,              // 0: what clamp(x) in the frameworks gives
    straight_through,  // 1: as if it had not been clamped
};

// Clamps x to [-bound, bound] before it is exponentiated. 20 is verl's and OpenRLHF's bound for log-ratios (e^20 is 4.9e8,
// finite in float); math::unbounded switches it off, and e^x then overflows float beyond 88.7 (R1.19, R1.20).
struct safety_bound {
    double bound = 20.0;
    outside gradient = outside::zero;

    template <class S>
    GRPO_HD S operator()(const S& x) const {
        const constant_t<S> b = constant<S>(bound);
        const S clamped = math::clamp(x, constant_t<S>(-b), b);
        if (gradient == outside::zero) return clamped;
        return S(x - detach(x) + value(clamped));
    }
    template <class S>
    GRPO_HD mask_t<S> exceeded(const S& x) const {
        const S b(constant<S>(bound));
        return detail::either(b < x, x < S(-b));
    }
    problem validate(const char* function) const { return detail::below(function, "safety_bound.bound", bound, 0.0); }
};

namespace math {
inline constexpr double unbounded = 1e30;
}

}  // namespace grpo::inline v0
