// e^(factor x) below a movable reference: what a softmax is summed up with, in one read.
//
//   softmax_exponent<V> e(1 / temperature);
//   if (any(e.limit() < x)) e.raise(top of x);       rarely: only where x outgrows what the reference leaves room for
//   p = e(e.clamped(x));                              e^(factor x - log_reference())
//
// A specialisation for a pack may leave room above its reference, so that it moves a few times in a row of logits at most.
#pragma once

#include <cmath>
#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/fold.hpp>
#include <grpo/scalar.hpp>

namespace grpo::inline v0::detail {

// Any V: the reference is the greatest x so far. x - reference is exact where it matters, for x near the greatest.
template <class V>
class softmax_exponent {
public:
    // Whether raise() multiplies by powers of 2 alone, so that a stored p loses nothing by it.
    static constexpr bool moves_exactly = false;
    // Whether p of -inf is 0 without clamped().
    static constexpr bool takes_infinities = false;
    // What is computed once a row, and its logarithm of Σ p.
    using once = double;
    GRPO_HD static double log(double sum) { return ::log(sum); }

    // NaN and -inf have no use as a factor; it is at least the least positive float.
    GRPO_HD explicit softmax_exponent(double factor)
        : factor_(constant<V>(factor)), exact_factor_(static_cast<double>(static_cast<element_t<V>>(factor))) {}

    // What x is multiplied by: the factor as V can hold it.
    GRPO_HD double factor() const { return exact_factor_; }
    GRPO_HD double log_reference() const { return top_ * exact_factor_; }
    // x above it must not be given to operator(): raise() first. A NaN is below it.
    GRPO_HD const V& limit() const { return reference_; }

    // Makes room for x up to top. Returns what sums of p have to be multiplied by.
    GRPO_HD double raise(double top) {
        const double before = top_;
        set(top);
        return before <= lowest ? 0.0 : ::exp((before - top_) * exact_factor_);
    }
    // Makes p at most about 1 for a row whose log Σ e^(factor x) is lse.
    GRPO_HD void expect(double lse) { set(lse / exact_factor_); }

    GRPO_HD static V greater(const V& a, const V& b) { return math::max(a, b); }
    // x, finite if it was -inf; still below every reference.
    GRPO_HD V clamped(const V& x) const {
        const V least(constant<V>(2 * lowest));
        return math::select<V>(x < least, least, x);
    }
    // factor x - log_reference() in units of `unit`, rounded once.
    static constexpr double unit = 1;
    GRPO_HD V relative(const V& x) const { return (x - reference_) * factor_; }
    GRPO_HD V operator()(const V& x) const { return math::exp(relative(x)); }

private:
    GRPO_HD void set(double top) {
        const auto rounded = static_cast<element_t<V>>(top);
        reference_ = V(constant<V>(static_cast<double>(rounded)));
        top_ = static_cast<double>(rounded);
    }

    V factor_;
    V reference_ = V(constant<V>(lowest));
    double exact_factor_;
    double top_ = lowest;
};

// Whether an exponent begins near an entry of its row, e.start(x), since it moves rarely.
template <class V>
inline constexpr bool starts_near = requires(softmax_exponent<V>& e, double x) { e.start(x); };

}  // namespace grpo::inline v0::detail
