// Diagnostics from the same pass as the loss, as sums. Each sum carries the row coefficients of the aggregation, so
// sum / weight is the metric reduced exactly like the loss (R1.29), and sums of parts add up. Exponents are cut at ±20, the
// default of safety_bound, whatever the loss does: one absurd token does not hide the others.
#pragma once

#include <cmath>
#include <cstdint>

#include <grpo/detail/config.hpp>
#include <grpo/fold.hpp>
#include <grpo/objective/batch.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/ratio.hpp>

namespace grpo::inline v0 {

struct diagnostics {
    // Σ over active tokens; d = logp - logp_old, ρ = e^d, r = logp - logp_ref, w = e^(logp_old - logp_rollout).
    double clipped_low = 0;         // A < 0 and the ratio below its bound
    double clipped_high = 0;        // A > 0 and the ratio above its bound
    double clamped = 0;             // outside a safety bound, where the derivative is cut (R1.20)
    double log_ratio = 0;           // d; -d is the k1 estimate of KL(π_old ‖ π_θ)
    double half_square = 0;         // ½ d², its k2 estimate
    double approx_kl = 0;           // ρ - 1 - d, its k3 estimate
    double ratio = 0;               // ρ
    double ratio_square = 0;        // ρ²; (Σρ)² / Σρ² is the effective sample size
    double entropy = 0;             // H
    double kl_ref_k1 = 0;           // r: the KL to the reference as it should be logged (R1.25)
    double kl_ref_k3 = 0;           // e^-r - 1 + r
    double rollout_kl = 0;          // logp_rollout - logp_old: the k1 estimate of KL(π_rollout ‖ π_old)
    double rollout_k3 = 0;          // w - 1 - log w
    double rollout_weight = 0;      // w
    double rollout_square = 0;      // w²
    double rollout_gap = 0;         // |logp_rollout - logp_old|
    double largest_log_ratio = 0;   // max d; 0 when there was no token
    double smallest_log_ratio = 0;  // min d
    double largest_gap = 0;         // max |logp_rollout - logp_old|
    double tokens = 0;              // active tokens seen

    // max |log ratio|: not 0 before the first update means that two code paths disagree (R1.31).
    double largest_abs_log_ratio() const {
        return largest_log_ratio > -smallest_log_ratio ? largest_log_ratio : -smallest_log_ratio;
    }
    // n_eff = (Σw)² / Σw² of the rollout weights.
    double effective_sample_size() const {
        return rollout_square > 0 ? rollout_weight * rollout_weight / rollout_square : 0.0;
    }
};

namespace detail {

inline constexpr int metric_sums = 16;
inline constexpr int metric_maxima = 3;
inline constexpr unsigned observable =
    input::logp::bit | input::logp_old::bit | input::logp_ref::bit | input::logp_rollout::bit | input::entropy::bit;

// Adds one token to the accumulators: a sum or maximum is a place in the order of the fields of `diagnostics`.
template <class V, class A>
struct observer {
    mask_t<V> active;
    A* sums;
    A* maxima;

    GRPO_HD void sum(int k, const V& x) const {
        add_where(sums[k], active, x);
    }
    GRPO_HD void count(int k, const mask_t<V>& which) const {
        add_count<V>(sums[k], both(active, which));
    }
    GRPO_HD void maximum(int k, const V& x) const {
        raise(maxima[k], V(math::select<V>(active, x, V(constant<V>(lowest)))));
    }
    // ρ and its KL estimates from d = logp - logp_old.
    GRPO_HD void ratio(const V& d) const {
        const math::exp_parts<V> parts = math::exp_split_inside(safety_bound{}(d));
        const V r = parts.expm1 + constant<V>(1);
        sum(3, d);
        sum(4, V(constant<V>(0.5) * d * d));
        sum(5, parts.remainder);
        sum(6, r);
        sum(7, V(r * r));
        maximum(0, d);
        maximum(1, V(-d));
    }
    GRPO_HD void reference(const V& r) const {
        sum(9, r);
        sum(10, safety_bound{}.exp_remainder(V(-r)));  // as in the loss, which it is then computed with
    }
    GRPO_HD void rollout(const V& log_w) const {
        const math::exp_parts<V> parts = math::exp_split_inside(safety_bound{}(log_w));
        const V w = parts.expm1 + constant<V>(1);
        sum(11, V(-log_w));
        sum(12, parts.remainder);
        sum(13, w);
        sum(14, V(w * w));
        sum(15, math::abs(log_w));
        maximum(2, math::abs(log_w));
    }
};

// Seen: the inputs a batch may have; `present`: those whose pointer is not null.
template <unsigned Seen, class V, class A, class Term>
GRPO_HD void observe(const Term& term, const token<V>& t, unsigned present, const observer<V, A>& to) {
    const flags<V> f = flags_of(term, t);
    to.count(0, f.low);
    to.count(1, f.high);
    to.count(2, f.clamped);
    constexpr unsigned ratio = input::logp::bit | input::logp_old::bit;
    constexpr unsigned reference = input::logp::bit | input::logp_ref::bit;
    constexpr unsigned rollout = input::logp_old::bit | input::logp_rollout::bit;
    if constexpr ((Seen & ratio) == ratio) {
        if ((present & ratio) == ratio) to.ratio(V(t.logp - t.logp_old));
    }
    if constexpr ((Seen & input::entropy::bit) != 0) to.sum(8, t.entropy);
    if constexpr ((Seen & reference) == reference) {
        if ((present & reference) == reference) to.reference(V(t.logp - t.logp_ref));
    }
    if constexpr ((Seen & rollout) == rollout) {
        if ((present & rollout) == rollout) to.rollout(V(t.logp_old - t.logp_rollout));
    }
}

// Adds one row's sums, each times the row's coefficient.
GRPO_HD void add_row(diagnostics& d, const double* sum, const double* top, double coefficient, double tokens) {
    double* const fields[metric_sums] = {
        &d.clipped_low,   &d.clipped_high, &d.clamped,   &d.log_ratio, &d.half_square, &d.approx_kl,
        &d.ratio,         &d.ratio_square, &d.entropy,   &d.kl_ref_k1, &d.kl_ref_k3,   &d.rollout_kl,
        &d.rollout_k3,    &d.rollout_weight, &d.rollout_square, &d.rollout_gap};
    for (int k = 0; k < metric_sums; ++k) *fields[k] += coefficient * sum[k];
    if (top[0] > lowest) {
        const bool first = d.tokens == 0;
        d.largest_log_ratio = first || top[0] > d.largest_log_ratio ? top[0] : d.largest_log_ratio;
        d.smallest_log_ratio = first || -top[1] < d.smallest_log_ratio ? -top[1] : d.smallest_log_ratio;
    }
    if (top[2] > d.largest_gap) d.largest_gap = top[2];
    d.tokens += tokens;
}

// d with those of later rows.
GRPO_HD void merge(diagnostics& d, const diagnostics& later) {
    const double tops[metric_maxima] = {later.tokens > 0 ? later.largest_log_ratio : lowest, -later.smallest_log_ratio,
                                        later.largest_gap};
    const double sums[metric_sums] = {
        later.clipped_low,   later.clipped_high,   later.clamped,        later.log_ratio, later.half_square, later.approx_kl,
        later.ratio,         later.ratio_square,   later.entropy,        later.kl_ref_k1, later.kl_ref_k3,   later.rollout_kl,
        later.rollout_k3,    later.rollout_weight, later.rollout_square, later.rollout_gap};
    add_row(d, sums, tops, 1.0, later.tokens);
}

}  // namespace detail
}  // namespace grpo::inline v0
