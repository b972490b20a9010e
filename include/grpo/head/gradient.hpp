// The gradient of one row of logits, from its softmax and the slopes of a loss.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include <grpo/detail/config.hpp>
#include <grpo/head/exponent.hpp>
#include <grpo/head/softmax.hpp>
#include <grpo/scalar.hpp>

namespace grpo::inline v0::detail {

// dL/dlogit = g (onehot - π) - h π (log π + H) + k π (log π - log π_ref - KL), times the slope of z in the logit: the
// slopes of a loss in the log-probability of the target, the entropy and the full KL.
struct softmax_slopes {
    double logp = 0;
    double entropy = 0;
    double kl = 0;
};

// What a row's gradient is made with, once its slopes are known: the same for all its positions.
struct gradient_scales {
    double reference = 0;  // of the second pass's exponent: where it resumes, or log Σ e^z
    double constant = 0;
    double of_u = 0;
    double of_difference = 0;
    double of_chosen = 0;  // the target's own entry
    bool resumes = false;
};

// One position of a row's gradient. From p stored in the output's place, or from the logits.
template <bool WithEntropy, bool Stored, class V, class Row, class Ref, class Out>
struct softmax_gradient {
    static constexpr bool WithKl = !std::is_same_v<Ref, no_reference>;
    using once = typename softmax_exponent<V>::once;
    static constexpr int segments = Row::reading_type::plain && !WithKl ? 8 : 1;
    Row row;
    Ref ref;
    Out* gradient;
    bool past_cache;      // a large gradient in memory of its own
    std::int64_t chosen;  // position of the target; outside of the row: none
    double of_chosen;     // its gradient
    softmax_exponent<V> e;
    V constant_part;
    V of_u;
    V of_difference;

    GRPO_HD softmax_gradient() : softmax_gradient(Row{}, nullptr, Ref{}) {}
    GRPO_HD softmax_gradient(const Row& r, Out* out, const Ref& q)
        : row(r), ref(q), gradient(out), past_cache(false), chosen(-1), of_chosen(0), e(r.reading.factor), constant_part(constant<V>(0)),
          of_u(constant<V>(0)), of_difference(constant<V>(0)) {}

    // Before the first write of any lane. `target`: its position; outside of the row there is none.
    template <class Team>
    GRPO_HD void prepare(Team& team, const softmax_row& s, const softmax_slopes& slope, std::int64_t target) {
        const bool inside = target >= row.begin && target < row.end;
        const double y = inside ? known_to_all<V>(team, row, target) : 0.0;
        take(scales(s, slope, y, inside ? target : -1), inside ? target : -1);
    }
    // y: the target's entry as the row reads it.
    GRPO_HD gradient_scales scales(const softmax_row& s, const softmax_slopes& slope, double y, std::int64_t target) const {
        gradient_scales g;
        if (!s.empty) {
            softmax_exponent<V> at = e;
            g.resumes = resume_or_expect(at, s);
            g.reference = g.resumes ? s.log_reference : s.lse;
            const double by = e.factor() * static_cast<double>(Stored || g.resumes ? 1 / static_cast<once>(s.sum)
                                                               : ::exp(at.log_reference() - s.lse));
            const double shift = s.lse - at.log_reference();
            double sum = -slope.logp;
            if (WithEntropy) sum -= slope.entropy * (s.entropy - shift);
            if (WithKl) sum -= slope.kl * (shift + s.divergence);
            g.constant = by * sum;
            g.of_u = -by * slope.entropy * e.unit;
            g.of_difference = by * slope.kl;
        }
        if (target >= 0) g.of_chosen = at_target(s, slope, y, target);
        return g;
    }
    GRPO_HD void take(const gradient_scales& g, std::int64_t target) {
        if constexpr (!Stored) {
            if (g.resumes) resume(e, g.reference);
            else e.expect(g.reference);
        }
        constant_part = V(constant<V>(g.constant));
        of_u = V(constant<V>(g.of_u));
        of_difference = V(constant<V>(g.of_difference));
        of_chosen = g.of_chosen;
        chosen = target;
    }

    // From the p that the row's place holds, or from the logits.
    template <class Cursor>
    GRPO_HD void operator()(const Cursor& at) const {
        if constexpr (Stored) {
            put(at, at.load(gradient));
        } else {
            but_chosen(at);
            fix_chosen(at);
        }
    }
    // From the logits, the chosen entry like any other; and that entry once more.
    template <class Cursor>
    GRPO_HD void but_chosen(const Cursor& at) const {
        at.prefetch(row.data);
        at.store(gradient, from_logits(at));
    }
    GRPO_HD void fix() const {
        if (chosen >= 0) gradient[chosen] = static_cast<Out>(of_chosen);
    }
    // From a stored p.
    template <class Cursor>
    GRPO_HD void put(const Cursor& at, const V& p) const {
        const V d = p * constant_part;
        if (past_cache) {
            at.store_past_cache(gradient, d);
        } else {
            at.store(gradient, d);
        }
        fix_chosen(at);
    }

private:
    template <class E>
    GRPO_HD static void resume([[maybe_unused]] E& at, [[maybe_unused]] double log_reference) {
        if constexpr (requires { at.resume(log_reference); }) at.resume(log_reference);
    }
    // The reference of the second pass: that of the first, if the exponent can and the first pass was of this row now.
    template <class E>
    GRPO_HD static bool resume_or_expect(E& at, const softmax_row& s) {
        if constexpr (Stored) return false;
        if constexpr (requires { at.resume(s.log_reference); }) {
            if (s.sum > 0) {
                at.resume(s.log_reference);
                return true;
            }
        }
        at.expect(s.lse);
        return false;
    }
    GRPO_HD double at_target(const softmax_row& s, const softmax_slopes& slope, double y, std::int64_t target) const {
        using E = element_t<V>;
        if (s.empty) return 0;
        const double factor = e.factor();
        const double log_p = s.log_probability(y * factor);
        const double p = WithEntropy || WithKl ? ::exp(log_p) : 0;
        double d = -slope.logp * static_cast<double>(math::expm1(static_cast<once>(log_p)));
        if (WithEntropy && p > 0) d -= slope.entropy * p * (log_p + s.entropy);
        if constexpr (WithKl) {
            if (p > 0) d += slope.kl * p * (log_p - ref.log_probability_at(target) - s.divergence);
        }
        return d * factor * static_cast<double>(row.reading.template slope<E>(static_cast<E>(y)));
    }
    template <class Cursor>
    GRPO_HD void fix_chosen(const Cursor& at) const {
        if (at.i <= chosen && chosen < at.i + at.count) gradient[chosen] = static_cast<Out>(of_chosen);
    }
    template <class Cursor>
    GRPO_HD V from_logits(const Cursor& at) const {
        constexpr bool clamps = !softmax_exponent<V>::takes_infinities || WithEntropy || WithKl;
        const V x = row(at);
        const V y = clamps ? e.clamped(x) : x;
        const V p = e(y);
        V sum = constant_part;
        if constexpr (WithEntropy) sum = sum + of_u * e.relative(y);
        if constexpr (WithKl) {
            sum = sum + of_difference * (e.relative(y) * V(constant<V>(e.unit)) - ref.log_probability(at));
        }
        V d = p * sum;
        if constexpr (WithKl) d = math::select<V>(V(constant<V>(0)) < p, d, V(constant<V>(0)));
        if constexpr (!Row::reading_type::plain) d = d * row.reading.slope(y);
        return d;
    }
};

}  // namespace grpo::inline v0::detail
