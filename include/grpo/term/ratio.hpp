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

// A scalar with the value v and the derivatives of x: carry(1, logp) is π / sg(π).
template <class S>
GRPO_HD S carry(const constant_t<S>& v, const S& x) {
    return scalar_traits<S>::chain(v, constant<S>(1), x);
}

// Clamps x to [-bound, bound] before it is exponentiated. 20 is verl's and OpenRLHF's bound for log-ratios (e^20 is 4.9e8,
// finite in float); math::unbounded switches it off, and e^x then overflows float beyond 88.7 (R1.19, R1.20).
struct safety_bound {
    static constexpr double unbounded = 1e30;
    double bound = 20.0;
    outside gradient = outside::zero;

    template <class S>
    GRPO_HD S operator()(const S& x) const {
        if constexpr (std::same_as<mask_t<S>, bool>) {
            if (!exceeded(x)) [[likely]] return x;
        }
        const constant_t<S> b = constant<S>(bound);
        const S clamped = math::clamp(x, constant_t<S>(-b), b);
        if (gradient == outside::zero) return clamped;
        return carry<S>(value(clamped), x);
    }
    // e^x and e^x - 1 - x with x clamped. Where nothing needs the clamp, and that is nearly always, it costs one comparison.
    // Values and slopes are chosen as plain numbers, which stay in registers where a whole S would not.
    template <class S>
    GRPO_HD S exp(const S& x) const {
        using C = constant_t<S>;
        const C v = value(x);
        C e = math::exp_inside(v);
        C slope = e;
        if (needs_care(v)) [[unlikely]] {
            e = math::exp((*this)(v));
            slope = gated(v, e);
        }
        return scalar_traits<S>::chain(e, slope, x);
    }
    template <class S>
    GRPO_HD S exp_remainder(const S& x) const {
        using C = constant_t<S>;
        const C v = value(x);
        math::exp_parts<C> parts = math::exp_split_inside(v);
        if (needs_care(v)) [[unlikely]] {
            parts = math::exp_split((*this)(v));
            parts.expm1 = gated(v, parts.expm1);
        }
        return scalar_traits<S>::chain(parts.remainder, parts.expm1, x);
    }
    // e^x as a constant: no derivative flows through it.
    template <class S>
    GRPO_HD constant_t<S> weight(const S& x) const {
        using C = constant_t<S>;
        return math::exp(C(value((*this)(x))));
    }
    // The bound where it is usually absent: tested first, so that it then costs nothing.
    template <class S>
    GRPO_HD S if_any(const S& x) const {
        if (bound >= unbounded) [[likely]] return x;
        return (*this)(x);
    }
    template <class S>
    GRPO_HD mask_t<S> exceeded(const S& x) const {
        return constant<S>(bound) < math::abs(value(x));
    }
    problem validate(const char* function) const { return detail::below(function, "safety_bound.bound", bound, 0.0); }

private:
    static constexpr double inside = 80.0;  // see math::exp_inside

    // The slope, but 0 where x is beyond the bound and the rule says so.
    template <class C>
    GRPO_HD C gated(const C& x, const C& slope) const {
        if (gradient == outside::straight_through) return slope;
        return math::select<C>(exceeded(x), C(constant<C>(0)), slope);
    }
    // The lesser of the bound and `inside`. Packs take it in their own type: where a loop does not keep it, as on a device, a
    // minimum in double costs eight instructions.
    template <class S>
    GRPO_HD constant_t<S> nearest_limit() const {
        if constexpr (scalar_traits<S>::lanes > 1) return math::min(constant<S>(bound), constant<S>(inside));
        else return constant<S>(bound < inside ? bound : inside);
    }
    // Whether any lane is beyond the bound, or so far out that an exponential needs its guards.
    template <class S>
    GRPO_HD bool needs_care(const S& x) const {
        using detail::any;
        const auto far = nearest_limit<S>() < math::abs(value(x));
        if constexpr (requires { any(far); }) {
            return any(far);
        } else {
            return true;
        }
    }
};

namespace math {
inline constexpr double unbounded = safety_bound::unbounded;
}

namespace detail {

// max(-A ρ, -A clip(ρ, 1 - low, 1 + high)) with ρ = e^log_ratio; a tie takes the unclipped side. Since only the bound that
// A pushes towards can win, this is -A ρ with ρ held at 1 + high where A > 0, and at 1 - low where not. The bounds come
// before the exponential: a compiler moves constants out of a loop only if no call precedes them.
template <class S>
GRPO_HD S clipped_surrogate(const constant_t<S>& advantage, const safety_bound& bound, const S& log_ratio, double low,
                            double high) {
    using C = constant_t<S>;
    const mask_t<C> gain = constant<S>(0) < advantage;
    const C limit = math::select<C>(gain, constant<S>(1 + high), constant<S>(1 - low));
    const S ratio = bound.exp(log_ratio);
    const C rho = value(ratio);
    const mask_t<C> beyond = either(both(gain, limit < rho), both(negation(gain), rho < limit));
    return S(-advantage * math::select<S>(beyond, S(limit), ratio));
}

// A < 0 and x < low; A > 0 and high < x.
template <class S>
GRPO_HD flags<S> beyond(const constant_t<S>& advantage, const S& x, double low, double high, const mask_t<S>& clamped) {
    const constant_t<S> zero = constant<S>(0);
    return {both(advantage < zero, x < S(constant<S>(low))), both(zero < advantage, S(constant<S>(high)) < x), clamped};
}

// What every clip checks: the widths of its interval, and its safety bound.
inline problem clip_range(const char* function, const char* low_name, double low, const char* high_name, double high,
                          const safety_bound& bound) {
    return first_of(below(function, low_name, low, 0.0), below(function, high_name, high, 0.0),
                    bound.validate(function));
}

}  // namespace detail

}  // namespace grpo::inline v0
