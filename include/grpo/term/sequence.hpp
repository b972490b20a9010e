// Policy terms with a ratio of the whole sequence. They couple its tokens: the engine sums `statistic` over the row and
// carries the gradient through the sum exactly, except where the paper stops it.
#pragma once

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/ratio.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0 {

// GSPO: the clipped surrogate of s = e^(mean_t (logp - logp_old)), the same for every token of the sequence.
// Defaults: 3e-4 / 4e-4, the paper's (arXiv 2507.18071, eq. 5 and 7, section 5.1). The safety bound acts on the mean.
// Gradient: -A s / n for each of the n active tokens, 0 where clipped. With per-token advantages each token has its own
// side of the clip. LUSPO (arXiv 2602.05261) is this term under aggregation::sequence_sum.
struct gspo {
    static constexpr unsigned needs = input::logp::bit | input::logp_old::bit | input::advantage::bit;
    static constexpr int statistics = 1;
    double low = 3e-4;
    double high = 4e-4;
    safety_bound bound{};

    template <class S>
    GRPO_HD S statistic(const token<S>& t) const { return t.log_ratio(); }
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        return detail::clipped_surrogate<S>(t.advantage, bound, t.sequence_mean(), low, high);
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        const S mean = t.sequence_mean();
        return detail::beyond<S>(t.advantage, bound.exp(mean), 1 - low, 1 + high, bound.exceeded(mean));
    }
    problem validate(const char* function) const {
        return detail::clip_range(function, "gspo.low", low, "gspo.high", high, bound);
    }
};
using luspo = gspo;

// GSPO-token: s_t = sg(s) π_θ / sg(π_θ): the value of GSPO's ratio, the gradient of the token's own log-probability:
// -A_t s where not clipped (arXiv 2507.18071, eq. 13 and 14). With one advantage per sequence and sequence_mean its value
// and gradient are GSPO's. The safety bound acts on the mean log-ratio.
struct gspo_token {
    static constexpr unsigned needs = gspo::needs;
    static constexpr int statistics = 1;
    static constexpr bool statistic_is_constant = true;
    double low = 3e-4;
    double high = 4e-4;
    safety_bound bound{};

    template <class S>
    GRPO_HD S statistic(const token<S>& t) const { return t.log_ratio(); }
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        const S d = carry<S>(value(t.sequence_mean()), t.logp);
        return detail::clipped_surrogate<S>(t.advantage, bound, d, low, high);
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        return gspo{low, high, bound}.flagged(t);
    }
    problem validate(const char* function) const {
        return detail::clip_range(function, "gspo_token.low", low, "gspo_token.high", high, bound);
    }
};

// GMPO: the geometric mean of one-sidedly clipped ratios: L = -mean(A) e^(mean_t d̂_t), d̂ = min(d, high) where A > 0,
// max(d, -low) where A < 0, 0 where A = 0, d = logp - logp_old (arXiv 2507.20673, eq. 4).
// Default: the paper's clip, [e^-0.4, e^0.4]; low and high are widths in log space. d at a bound passes its gradient.
// The safety bound acts on each d before the clip.
struct gmpo {
    static constexpr unsigned needs = gspo::needs;
    static constexpr int statistics = 2;
    double low = 0.4;
    double high = 0.4;
    safety_bound bound{};

    template <class S>
    GRPO_HD void write_statistics(const token<S>& t, S* out) const {
        const S d = bound(t.log_ratio());
        const constant_t<S> zero = constant<S>(0);
        const S upper = math::min(d, S(constant<S>(high)));
        const S lower = math::max(d, S(constant<S>(-low)));
        out[0] = math::select<S>(zero < t.advantage, upper,
                                 math::select<S>(t.advantage < zero, lower, S(zero)));
        out[1] = S(t.advantage);
    }
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        const S advantage = t.sums[1] / t.length;
        return S(-advantage * math::exp(t.sequence_mean()));
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        const S d = t.log_ratio();
        return detail::beyond<S>(t.advantage, bound(d), -low, high, bound.exceeded(d));
    }
    problem validate(const char* function) const {
        return detail::clip_range(function, "gmpo.low", low, "gmpo.high", high, bound);
    }
};

// VESPO: L = -sg(φ(w)) A logp, φ(w) = w^k e^(λ (1 - w)), w = Π_t ρ_t (arXiv 2602.10693). φ(1) = 1; (k, λ) depends on the
// sign of A, A = 0 counting as positive.
// Defaults: (2, 3) and (3, 2), the paper's. Each log-ratio has the safety bound, and log w lies in [log 1e-8, 20].
// Gradient: -φ A. Off-policy samples enter through w: pass the rollout's log-probabilities as logp_old.
struct vespo {
    static constexpr unsigned needs = gspo::needs;
    static constexpr int statistics = 1;
    static constexpr bool statistic_is_constant = true;
    double k_positive = 2.0;
    double lambda_positive = 3.0;
    double k_negative = 3.0;
    double lambda_negative = 2.0;
    safety_bound bound{};

    template <class S>
    GRPO_HD S statistic(const token<S>& t) const { return bound(t.log_ratio()); }
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        using C = constant_t<S>;
        const C log_w = math::clamp(C(value(t.sequence_sum())), constant<S>(-18.420680743952367), constant<S>(20));
        const auto negative = t.advantage < constant<S>(0);
        const C k = math::select<C>(negative, constant<S>(k_negative), constant<S>(k_positive));
        const C lambda = math::select<C>(negative, constant<S>(lambda_negative), constant<S>(lambda_positive));
        const C phi = math::exp(C(k * log_w - lambda * math::expm1(log_w)));
        return S(C(-phi * t.advantage) * t.logp);
    }
    template <class S>
    GRPO_HD flags<S> flagged(const token<S>& t) const {
        return detail::only_clamped<S>(bound.exceeded(t.log_ratio()));
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::below(function, "vespo.k_positive", k_positive, 0.0),
                                detail::below(function, "vespo.lambda_positive", lambda_positive, 0.0),
                                detail::below(function, "vespo.k_negative", k_negative, 0.0),
                                detail::below(function, "vespo.lambda_negative", lambda_negative, 0.0),
                                bound.validate(function));
    }
};

}  // namespace grpo::inline v0
