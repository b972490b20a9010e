// Which tokens of a batch a loss applies to, where that depends on all of them: masks that the caller stores and gives to
// the loss as grpo::keep(mask), for the factor `selected` or the term `kl_cov`.
//
// Selections walk the batch some times over and need no memory. Over several ranks they see their own tokens alone. Inputs of the
// same batch that a selection does not need are not read. Each has an executor as an optional first argument; those of another
// memory return where the counts will be, after some twenty kernels.
#pragma once

#include <cstdint>
#include <type_traits>

#include <grpo/correction/log_weight.hpp>
#include <grpo/exec/serial.hpp>
#include <grpo/selection/order.hpp>
#include <grpo/selection/search.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/policy.hpp>

namespace grpo::inline v0 {

namespace detail {

inline problem validate_share(const char* function, const char* argument, double x) {
    if (x >= 0 && x <= 1) return {};
    return complain(function, argument, "is %g, but must be between 0 and %g", x, 1.0);
}

}  // namespace detail

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
    static constexpr unsigned needs = input::logp::bit | input::advantage::bit;
    static constexpr bool centred = true;

    template <class Token>
    GRPO_HD bool value(const Token& t, const token_counts& of, double& x) const {
        const double n = static_cast<double>(of.tokens);
        x = (static_cast<double>(t.advantage) - of.advantage / n) * (static_cast<double>(t.logp) - of.logp / n);
        return true;
    }
};
// The same of tokens inside a band that a clip leaves a gradient.
template <class Clip>
struct free_covariance {
    static constexpr unsigned needs = Clip::needs | covariance::needs;
    static constexpr bool centred = true;
    Clip clip;
    covariance_band band;

    template <class Token>
    GRPO_HD bool value(const Token& t, const token_counts& of, double& x) const {
        covariance{}.value(t, of, x);
        const auto f = flags_of(clip, t);
        return !f.low && !f.high && band.low < x && x < band.high;
    }
};
struct entropy_of_token {
    static constexpr unsigned needs = input::entropy::bit;
    static constexpr bool centred = false;

    template <class Token>
    GRPO_HD bool value(const Token& t, const token_counts&, double& x) const {
        x = static_cast<double>(t.entropy);
        return true;
    }
};
// (logp_rollout - logp_old)²; 0 where logp_rollout is missing.
struct squared_gap {
    static constexpr unsigned needs = correction_needs;
    static constexpr bool centred = false;

    template <class Token>
    GRPO_HD bool value(const Token& t, const token_counts&, double& x) const {
        const double d = is_nan(t.logp_rollout) ? 0.0 : static_cast<double>(t.logp_rollout) - static_cast<double>(t.logp_old);
        x = d * d;
        return true;
    }
};

template <class Exec, class Batch, class Of, class Goal, class M>
total_of<Exec, selection_result> select_tokens(const Exec& exec, const char* function, const char* argument, const Batch& b,
                                               const Of& of, const Goal& goal, const selection_marks& marks, view<M> out) {
    require(check_batch(exec, function, b, Of::needs));
    require(check_array(exec, function, argument, out, b.layout.extent(), "positions"));
    return select(exec, ranked_tokens<Batch, Of>{b, of}, goal, marks, out.data());
}

}  // namespace detail

// Clip-Cov (arXiv 2505.22617, eq. 11), made deterministic: keep[t] = 0 for the k = max(floor(fraction N), 1) tokens of
// largest covariance between advantage and logp among the candidates, which are those inside the band that `clip` leaves
// a gradient; 1 elsewhere, 0 where masked. The paper draws k of the candidates at random. Ties: the lower index goes.
//   loss: selected{} * clip, denominators unchanged
template <class Executor, class Clip, shape Shape, class... Fields, class Keep>
detail::total_of<Executor, selection_result> select_clip_cov(const Executor& exec, const batch<Shape, Fields...>& b,
                                                             const Clip& clip, const covariance_band& band, Keep&& keep) {
    static_assert(detail::statistics_of<Clip>() == 0, "grpo: select_clip_cov needs a clip of single tokens");
    constexpr const char* function = "select_clip_cov";
    using of = detail::free_covariance<Clip>;
    static_assert((batch<Shape, Fields...>::has & of::needs) == of::needs,
                  "grpo: select_clip_cov needs logp, logp_old and advantage in the batch");
    detail::require(detail::first_of(band.validate(function), detail::validate_term(clip, function)));
    return detail::select_tokens(exec, function, "keep", b, of{clip, band}, detail::greatest_share{band.fraction}, {0, 1, 1}, view(keep));
}
template <class Clip, shape Shape, class... Fields, class Keep>
selection_result select_clip_cov(const batch<Shape, Fields...>& b, const Clip& clip, const covariance_band& band, Keep&& keep) {
    return select_clip_cov(serial{}, b, clip, band, keep);
}

// KL-Cov (arXiv 2505.22617, eq. 12): mark[t] = 1 for the max(floor(fraction N), 1) tokens of largest covariance, else
// 0. Ties: the lower index. The term kl_cov reads it as grpo::keep(mark).
template <class Executor, shape Shape, class... Fields, class Mark>
detail::total_of<Executor, selection_result> select_kl_cov(const Executor& exec, const batch<Shape, Fields...>& b, double fraction,
                                                           Mark&& mark) {
    constexpr const char* function = "select_kl_cov";
    using of = detail::covariance;
    static_assert((batch<Shape, Fields...>::has & of::needs) == of::needs,
                  "grpo: select_kl_cov needs logp and advantage in the batch");
    detail::require(detail::validate_share(function, "fraction", fraction));
    return detail::select_tokens(exec, function, "mark", b, of{}, detail::greatest_share{fraction}, {1, 0, 0}, view(mark));
}
template <shape Shape, class... Fields, class Mark>
selection_result select_kl_cov(const batch<Shape, Fields...>& b, double fraction, Mark&& mark) {
    return select_kl_cov(serial{}, b, fraction, mark);
}

// The tokens of highest entropy (arXiv 2506.01939): keep[t] = 1 where H_t >= the (1 - share)-quantile of the active
// entropies, interpolated linearly between order statistics. Every token at the threshold is kept; share 1 keeps all. The
// paper keeps a share of 0.2.
//   loss: selected{} * clipped{}, denominators unchanged
template <class Executor, shape Shape, class... Fields, class Keep>
detail::total_of<Executor, selection_result> select_top_entropy(const Executor& exec, const batch<Shape, Fields...>& b, double share,
                                                                Keep&& keep) {
    constexpr const char* function = "select_top_entropy";
    using of = detail::entropy_of_token;
    static_assert((batch<Shape, Fields...>::has & of::needs) == of::needs, "grpo: select_top_entropy needs entropy in the batch");
    detail::require(detail::validate_share(function, "share", share));
    return detail::select_tokens(exec, function, "keep", b, of{}, detail::from_quantile{share}, {1, 0, 1}, view(keep));
}
template <shape Shape, class... Fields, class Keep>
selection_result select_top_entropy(const batch<Shape, Fields...>& b, double share, Keep&& keep) {
    return select_top_entropy(serial{}, b, share, keep);
}

// M2PO (arXiv 2510.01161): drops as few as possible of the tokens of largest (logp_rollout - logp_old)², until the mean of
// the rest is below the threshold; at least one token stays. Of equal ones the lower index goes first. The paper's
// threshold is 0.04. A missing logp_rollout (NaN) counts as no difference. selection_result::threshold is the greatest
// square kept.
template <class Executor, shape Shape, class... Fields, class Keep>
detail::total_of<Executor, selection_result> select_m2po(const Executor& exec, const batch<Shape, Fields...>& b, double threshold,
                                                         Keep&& keep) {
    constexpr const char* function = "select_m2po";
    using of = detail::squared_gap;
    static_assert((batch<Shape, Fields...>::has & of::needs) == of::needs,
                  "grpo: select_m2po needs logp_old and logp_rollout in the batch");
    detail::require(detail::below(function, "threshold", threshold, 0.0));
    return detail::select_tokens(exec, function, "keep", b, of{}, detail::longest_run_below{threshold}, {1, 0, 1}, view(keep));
}
template <shape Shape, class... Fields, class Keep>
selection_result select_m2po(const batch<Shape, Fields...>& b, double threshold, Keep&& keep) {
    return select_m2po(serial{}, b, threshold, keep);
}

}  // namespace grpo::inline v0
