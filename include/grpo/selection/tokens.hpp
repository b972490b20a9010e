// Which tokens of a batch a loss applies to, where that depends on all of them: masks that the caller stores and gives to
// the loss as grpo::keep(mask), for the factor `selected` or the term `kl_cov`.
//
// Selections walk the batch serially, a fixed number of times, and need no memory. Over several ranks they see their own
// tokens alone. Inputs of the same batch that a selection does not need are not read.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/correction/log_weight.hpp>
#include <grpo/selection/order.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/policy.hpp>

namespace grpo::inline v0 {

// Clip-Cov: which share of the tokens, among those with low < cov < high.
struct covariance_band {
    double fraction = 2e-4;
    double low = 1.0;
    double high = 5.0;

    problem validate(const char* function) const {
        const problem p = detail::validate_share(function, "covariance_band.fraction", fraction);
        if (p || low <= high) return p;
        return detail::complain(function, "covariance_band", "has the lower bound %g above the upper bound %g", low, high);
    }
};

namespace detail {

// cov_t = (A_t - mean A)(logp_t - mean logp), both means over the finite active tokens of the batch.
struct covariance {
    double advantage = 0;
    double logp = 0;

    template <class Token>
    double operator()(const Token& t) const {
        return (static_cast<double>(t.advantage) - advantage) * (static_cast<double>(t.logp) - logp);
    }
};

template <unsigned Needs, class Batch>
covariance centre_covariance(const Batch& b, std::int64_t tokens) {
    covariance c;
    if (tokens == 0) return c;
    each_active<Needs>(b, [&](std::int64_t, const auto& t, bool finite) {
        if (!finite) return;
        c.advantage += static_cast<double>(t.advantage);
        c.logp += static_cast<double>(t.logp);
    });
    c.advantage /= static_cast<double>(tokens);
    c.logp /= static_cast<double>(tokens);
    return c;
}

// max(floor(fraction · tokens), 1), but not more than there are.
inline std::int64_t how_many(double fraction, std::int64_t tokens, std::int64_t candidates) {
    const std::int64_t k = static_cast<std::int64_t>(fraction * static_cast<double>(tokens));
    return k < 1 ? (candidates < 1 ? candidates : 1) : (k < candidates ? k : candidates);
}

// Marks the k greatest of the values with `mark`; of equal ones those with the lower index.
template <class Values, class M>
void mark_greatest(const Values& values, std::int64_t count, std::int64_t k, M mark, view<M> out, selection_result& r) {
    if (k == 0) return;
    const order_statistic cut = nth_value(values, count - k);
    std::int64_t left = k - (count - cut.below - cut.equal);
    values([&](std::int64_t i, double x) {
        if (x < cut.value || (x <= cut.value && left <= 0)) return;
        if (x <= cut.value) --left;
        out[i] = mark;
    });
    r.selected = k;
    r.threshold = cut.value;
}

}  // namespace detail

// Clip-Cov (arXiv 2505.22617, eq. 11), made deterministic: keep[t] = 0 for the k = max(floor(fraction N), 1) tokens of
// largest covariance between advantage and logp among the candidates, which are those inside the band that `clip` leaves
// a gradient; 1 elsewhere, 0 where masked. The paper draws k of the candidates at random. Ties: the lower index goes.
//   loss: selected{} * clip, denominators unchanged
template <class Clip, shape Shape, class... Fields, class Keep>
selection_result select_clip_cov(const batch<Shape, Fields...>& b, const Clip& clip, const covariance_band& band,
                                 Keep&& keep) {
    static_assert(detail::statistics_of<Clip>() == 0, "grpo: select_clip_cov needs a clip of single tokens");
    constexpr const char* function = "select_clip_cov";
    constexpr unsigned needs = Clip::needs | input::logp::bit | input::advantage::bit;
    static_assert((batch<Shape, Fields...>::has & needs) == needs,
                  "grpo: select_clip_cov needs logp, logp_old and advantage in the batch");
    const view out(keep);
    detail::require(detail::first_of(b.validate(function, needs), band.validate(function),
                                     detail::validate_term(clip, function),
                                     detail::validate_mask_output(function, "keep", b.layout, out)));
    using M = std::remove_reference_t<decltype(out[0])>;
    selection_result r = detail::count_finite<needs>(b);
    const auto cov = detail::centre_covariance<needs>(b, r.tokens);
    const auto candidates = [&](const auto& visit) {
        detail::each_active<needs>(b, [&](std::int64_t i, const auto& t, bool finite) {
            const double x = cov(t);
            const auto f = detail::flags_of(clip, t);
            if (finite && !f.low && !f.high && band.low < x && x < band.high) visit(i, x);
        });
    };
    std::int64_t n = 0;
    candidates([&](std::int64_t, double) { ++n; });
    detail::fill_active(b.layout, out, 1);
    detail::mark_greatest(candidates, n, detail::how_many(band.fraction, r.tokens, n), M(0), out, r);
    return r;
}

// KL-Cov (arXiv 2505.22617, eq. 12): mark[t] = 1 for the max(floor(fraction N), 1) tokens of largest covariance, else
// 0. Ties: the lower index. The term kl_cov reads it as grpo::keep(mark).
template <shape Shape, class... Fields, class Mark>
selection_result select_kl_cov(const batch<Shape, Fields...>& b, double fraction, Mark&& mark) {
    constexpr const char* function = "select_kl_cov";
    constexpr unsigned needs = input::logp::bit | input::advantage::bit;
    static_assert((batch<Shape, Fields...>::has & needs) == needs,
                  "grpo: select_kl_cov needs logp and advantage in the batch");
    const view out(mark);
    detail::require(detail::first_of(b.validate(function, needs),
                                     detail::validate_share(function, "fraction", fraction),
                                     detail::validate_mask_output(function, "mark", b.layout, out)));
    using M = std::remove_reference_t<decltype(out[0])>;
    selection_result r = detail::count_finite<needs>(b);
    const auto cov = detail::centre_covariance<needs>(b, r.tokens);
    const auto values = [&](const auto& visit) {
        detail::each_active<needs>(b, [&](std::int64_t i, const auto& t, bool finite) {
            if (finite) visit(i, cov(t));
        });
    };
    detail::fill_active(b.layout, out, 0);
    detail::mark_greatest(values, r.tokens, detail::how_many(fraction, r.tokens, r.tokens), M(1), out, r);
    return r;
}

// The tokens of highest entropy (arXiv 2506.01939): keep[t] = 1 where H_t >= the (1 - share)-quantile of the active
// entropies, interpolated linearly between order statistics. Every token at the threshold is kept; share 1 keeps all. The
// paper keeps a share of 0.2.
//   loss: selected{} * clipped{}, denominators unchanged
template <shape Shape, class... Fields, class Keep>
selection_result select_top_entropy(const batch<Shape, Fields...>& b, double share, Keep&& keep) {
    constexpr const char* function = "select_top_entropy";
    constexpr unsigned needs = input::entropy::bit;
    static_assert((batch<Shape, Fields...>::has & needs) == needs, "grpo: select_top_entropy needs entropy in the batch");
    const view out(keep);
    detail::require(detail::first_of(b.validate(function, needs), detail::validate_share(function, "share", share),
                                     detail::validate_mask_output(function, "keep", b.layout, out)));
    using M = std::remove_reference_t<decltype(out[0])>;
    selection_result r = detail::count_finite<needs>(b);
    const auto values = [&](const auto& visit) {
        detail::each_active<needs>(b, [&](std::int64_t i, const auto& t, bool finite) {
            if (finite) visit(i, static_cast<double>(t.entropy));
        });
    };
    detail::fill_active(b.layout, out, 1);
    if (r.tokens == 0) return r;
    const double at = (1.0 - share) * static_cast<double>(r.tokens - 1);
    const std::int64_t below = static_cast<std::int64_t>(at);
    const double low = detail::nth_value(values, below).value;
    const double high = below + 1 < r.tokens ? detail::nth_value(values, below + 1).value : low;
    const double between = low + (at - static_cast<double>(below)) * (high - low);
    r.threshold = between < high ? between : high;
    values([&](std::int64_t i, double x) {
        const bool stays = r.threshold <= x;
        out[i] = static_cast<M>(stays ? 1 : 0);
        r.selected += stays ? 1 : 0;
    });
    return r;
}

namespace detail {

// visit(i, (logp_rollout - logp_old)², finite) for every active token; 0 where logp_rollout is missing.
template <class Batch, class Visit>
void each_squared_gap(const Batch& b, const Visit& visit) {
    each_active<correction_needs>(b, [&](std::int64_t i, const auto& t, bool) {
        const bool missing = is_nan(t.logp_rollout);
        const double d = missing ? 0.0 : static_cast<double>(t.logp_rollout) - static_cast<double>(t.logp_old);
        visit(i, d * d, !is_nonfinite(t.logp_old) && (missing || !is_nonfinite(t.logp_rollout)));
    });
}

// Keeps the run of values: all below its end, and of those at its end the last ones.
template <class Values, class M>
void keep_run(const Values& values, const run_below& run, view<M> out, selection_result& r) {
    std::int64_t at_end = 0;
    values([&](std::int64_t, double x) { at_end += order_key(x) == run.end ? 1 : 0; });
    values([&](std::int64_t i, double x) {
        const std::uint64_t key = order_key(x);
        const bool stays = key < run.end || (key == run.end && at_end-- <= run.at_end);
        out[i] = static_cast<M>(stays ? 1 : 0);
        r.selected += stays ? 1 : 0;
        if (stays && r.threshold < x) r.threshold = x;
    });
}

}  // namespace detail

// M2PO (arXiv 2510.01161): drops as few as possible of the tokens of largest (logp_rollout - logp_old)², until the mean of
// the rest is below the threshold; at least one token stays. Of equal ones the lower index goes first. The paper's
// threshold is 0.04. A missing logp_rollout (NaN) counts as no difference. selection_result::threshold is the greatest
// square kept.
template <shape Shape, class... Fields, class Keep>
selection_result select_m2po(const batch<Shape, Fields...>& b, double threshold, Keep&& keep) {
    constexpr const char* function = "select_m2po";
    constexpr unsigned needs = detail::correction_needs;
    static_assert((batch<Shape, Fields...>::has & needs) == needs,
                  "grpo: select_m2po needs logp_old and logp_rollout in the batch");
    const view out(keep);
    detail::require(detail::first_of(b.validate(function, needs), detail::below(function, "threshold", threshold, 0.0),
                                     detail::validate_mask_output(function, "keep", b.layout, out)));
    selection_result r;
    std::uint64_t least = ~std::uint64_t{0};
    detail::each_squared_gap(b, [&](std::int64_t i, double x, bool finite) {
        r.tokens += finite ? 1 : 0;
        r.nonfinite += finite ? 0 : 1;
        if (!finite && r.first_nonfinite < 0) r.first_nonfinite = i;
        if (finite && detail::order_key(x) < least) least = detail::order_key(x);
    });
    const auto values = [&](const auto& visit) {
        detail::each_squared_gap(b, [&](std::int64_t i, double x, bool finite) {
            if (finite) visit(i, x);
        });
    };
    detail::fill_active(b.layout, out, 1);
    detail::run_below run = detail::longest_run(values, threshold);
    if (run.size == 0) run = {least, 1, 1};
    detail::keep_run(values, run, out, r);
    return r;
}

}  // namespace grpo::inline v0
