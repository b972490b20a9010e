// Preference terms on a pair and a reference policy. With c = log π(y_w) - log π_ref(y_w), r the same of y_l:
// Δ = c - r, z = β Δ, and every loss below is minimised. β is 0.1 unless said otherwise.
//
// All are finite for any finite input unless said otherwise: log σ is never taken as log of a rounded σ. Each is
// d loss / d log π(y_w) in `chosen` and d loss / d log π(y_l) in `rejected`; for those that see only Δ the two are opposite.
#pragma once

#include <cmath>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/preference/pair.hpp>
#include <grpo/scalar.hpp>

namespace grpo::inline v0 {

// L = -log σ(z), slope -β σ(-z) in y_w. DPO (arXiv 2305.18290, eq. 7). z -> -inf: -z, slope -β; z -> +inf: 0, slope 0.
struct dpo {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        return S(-math::log_sigmoid(S(constant<S>(beta) * t.delta())));
    }
    problem validate(const char* function) const { return detail::not_above(function, "dpo.beta", beta, 0.0); }
};

// L = -(1 - e) log σ(z) - e log σ(-z), e = label_smoothing: the label is wrong with probability e. Conservative DPO
// (Mitchell, "A note on DPO with noisy preferences"; OpenRLHF, torchtune and tunix smooth plain DPO like this).
// e = 0, the frameworks' default, is dpo.
struct cdpo {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;
    double label_smoothing = 0.0;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        return detail::smoothed_logistic(S(constant<S>(beta) * t.delta()), label_smoothing);
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::not_above(function, "cdpo.beta", beta, 0.0),
                                detail::validate_smoothing(function, "cdpo.label_smoothing", label_smoothing, 1.0));
    }
};

// L = [-(1 - e) log σ(z) + e log σ(-z)] / (1 - 2e): unbiased under labels flipped with probability e < 1/2.
// rDPO (arXiv 2403.00409). May be negative. e = 0, the frameworks' default, is dpo.
struct robust_dpo {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;
    double label_smoothing = 0.0;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        const S z = S(constant<S>(beta) * t.delta());
        const double share = 1.0 / (1.0 - 2.0 * label_smoothing);
        const S won = math::log_sigmoid(z);
        const S lost = math::log_sigmoid(S(-z));
        return S(constant<S>((label_smoothing - 1.0) * share) * won + constant<S>(label_smoothing * share) * lost);
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::not_above(function, "robust_dpo.beta", beta, 0.0),
                                detail::validate_smoothing(function, "robust_dpo.label_smoothing", label_smoothing, 0.5));
    }
};

// L = (Δ - 1 / (2β))². IPO (arXiv 2310.12036, eq. 17) on sums, as in the paper and OpenRLHF; per_token{ipo{}} is TRL's and
// AReaL's. β is the paper's τ.
struct ipo {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        return math::square(S(t.delta() - constant<S>(0.5 / beta)));
    }
    problem validate(const char* function) const { return detail::not_above(function, "ipo.beta", beta, 0.0); }
};

// L = max(0, 1 - z): SLiC-HF (arXiv 2305.10425) and RSO's hinge (arXiv 2309.06657). At z = 1 the slope is 0.
struct hinge {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        const S zero(constant<S>(0));
        return math::max(zero, S(constant<S>(1) - constant<S>(beta) * t.delta()));
    }
    problem validate(const char* function) const { return detail::not_above(function, "hinge.beta", beta, 0.0); }
};

// L = q_w (log q_w - log(1 - e)) + q_l (log q_l - log e), q_w = σ(z), q_l = σ(-z): the reverse KL to the smoothed label.
// EXO (arXiv 2402.00856); e = 1e-3 there and in TRL and Liger, and it must be above 0. z -> -inf: -log e; +inf: -log(1 - e).
struct exo {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;
    double label_smoothing = 1e-3;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        const S z = S(constant<S>(beta) * t.delta());
        const S minus_z = S(-z);
        const S won = S(math::sigmoid(z) * S(math::log_sigmoid(z) - constant<S>(::log1p(-label_smoothing))));
        const S lost = S(math::sigmoid(minus_z) * S(math::log_sigmoid(minus_z) - constant<S>(::log(label_smoothing))));
        return S(won + lost);
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::not_above(function, "exo.beta", beta, 0.0),
                                detail::not_above(function, "exo.label_smoothing", label_smoothing, 0.0),
                                detail::validate_smoothing(function, "exo.label_smoothing", label_smoothing, 1.0));
    }
};

// L = -log σ(βc) - 1/2 log σ(-βc) - 1/2 log σ(-βr). NCA for pairs (arXiv 2402.05369).
struct nca {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        const S w = S(constant<S>(beta) * t.chosen_ratio());
        const S l = S(constant<S>(beta) * t.rejected_ratio());
        const S noise = S(math::log_sigmoid(S(-w)) + math::log_sigmoid(S(-l)));
        return S(-math::log_sigmoid(w) - constant<S>(0.5) * noise);
    }
    problem validate(const char* function) const { return detail::not_above(function, "nca.beta", beta, 0.0); }
};

// L = -log σ(βc) - log σ(-βr). BCO on pairs, without the reward shift (arXiv 2404.04656); the unpaired one is bco.
struct bco_pair {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        const S w = math::log_sigmoid(S(constant<S>(beta) * t.chosen_ratio()));
        const S l = math::log_sigmoid(S(constant<S>(-beta) * t.rejected_ratio()));
        return S(-w - l);
    }
    problem validate(const char* function) const { return detail::not_above(function, "bco_pair.beta", beta, 0.0); }
};

// L = (c - 1/(2β))² + (r + 1/(2β))². SPPO with hard labels 1 and 0 (arXiv 2405.00675), as in TRL and Liger.
struct sppo_hard {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        const constant_t<S> half = constant<S>(0.5 / beta);
        return S(math::square(S(t.chosen_ratio() - half)) + math::square(S(t.rejected_ratio() + half)));
    }
    problem validate(const char* function) const { return detail::not_above(function, "sppo_hard.beta", beta, 0.0); }
};

// L = 1 - σ(βc) + σ(βr): raises y_w and lowers y_l. APO-zero (arXiv 2408.06266). Between 0 and 2.
struct apo_zero {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        const S w = math::sigmoid(S(constant<S>(-beta) * t.chosen_ratio()));
        return S(w + math::sigmoid(S(constant<S>(beta) * t.rejected_ratio())));
    }
    problem validate(const char* function) const { return detail::not_above(function, "apo_zero.beta", beta, 0.0); }
};

// L = σ(βc) + 1 - σ(z): lowers both, y_l more. APO-down (arXiv 2408.06266). Between 0 and 2.
struct apo_down {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        const S w = math::sigmoid(S(constant<S>(beta) * t.chosen_ratio()));
        return S(w + math::sigmoid(S(constant<S>(-beta) * t.delta())));
    }
    problem validate(const char* function) const { return detail::not_above(function, "apo_down.beta", beta, 0.0); }
};

// L = (1 - u) (-log σ(z)) + u e^-z, u = σ(z / tau). DiscoPOP's log-ratio modulated loss (arXiv 2406.08414), tau 0.05 there
// and in TRL. u e^-z is taken as one exponential: for tau <= 1 it is finite for every z; for tau > 1 it grows as
// e^(|z| (1 - 1/tau)) for z -> -inf, as the formula does.
struct discopop {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;
    double tau = 0.05;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        const S z = S(constant<S>(beta) * t.delta());
        const S modulation = S(constant<S>(1.0 / tau) * z);
        const S logistic = S(-math::sigmoid(S(-modulation)) * math::log_sigmoid(z));
        return S(logistic + math::exp(S(math::log_sigmoid(modulation) - z)));
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::not_above(function, "discopop.beta", beta, 0.0),
                                detail::not_above(function, "discopop.tau", tau, 0.0));
    }
};

// The divergence whose DPO is taken: which function of the log-ratio x is compared.
enum class divergence {
    reverse_kl,  // x: plain DPO
    forward_kl,  // -e^-x
    js,          // log σ(x)
    alpha,       // e^((alpha - 1) x) / (alpha - 1)
};

// L = -log σ(β (h(c) - h(r))). f-DPO (arXiv 2309.16240, table 1; heads as TRL writes them, alpha 0.5). Exponents are
// clamped from above at exponent_bound (80 in TRL: e^80 is finite in float), where the slope becomes 0. alpha = 1 has no
// head (its limit is the reverse KL).
struct f_dpo {
    static constexpr unsigned needs = detail::both_policies;
    double beta = 0.1;
    divergence kind = divergence::reverse_kl;
    double alpha = 0.5;
    double exponent_bound = 80.0;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        return S(-math::log_sigmoid(S(constant<S>(beta) * S(head(t.chosen_ratio()) - head(t.rejected_ratio())))));
    }
    problem validate(const char* function) const {
        const problem p = detail::first_of(detail::not_above(function, "f_dpo.beta", beta, 0.0),
                                           detail::below(function, "f_dpo.exponent_bound", exponent_bound, 0.0));
        if (p || kind != divergence::alpha || alpha != 1.0) return p;
        return detail::complain(function, "f_dpo.alpha", "is %g, but must differ from %g (use divergence::reverse_kl)", alpha,
                                1.0);
    }

private:
    template <class S>
    GRPO_HD S bounded_exp(const S& x) const {
        return math::exp(math::min(x, S(constant<S>(exponent_bound))));
    }
    template <class S>
    GRPO_HD S head(const S& x) const {
        if (kind == divergence::forward_kl) return S(-bounded_exp(S(-x)));
        if (kind == divergence::js) return math::log_sigmoid(x);
        if (kind == divergence::alpha) {
            return S(bounded_exp(S(constant<S>(alpha - 1.0) * x)) * constant<S>(1.0 / (alpha - 1.0)));
        }
        return x;
    }
};

// L = smoothed logistic of β (log π(y_w) - log π(y_l) - m), m from aot_match: the reference's margin at the same rank, so
// that whole distributions are compared, not pairs. AOT paired (arXiv 2406.05882; smoothing as in TRL).
struct aot {
    static constexpr unsigned needs = detail::responses | input::margin::bit;
    double beta = 0.1;
    double label_smoothing = 0.0;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        const S z = S(constant<S>(beta) * S(S(t.chosen - t.rejected) - t.margin));
        return detail::smoothed_logistic(z, label_smoothing);
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::not_above(function, "aot.beta", beta, 0.0),
                                detail::validate_smoothing(function, "aot.label_smoothing", label_smoothing, 1.0));
    }
};

}  // namespace grpo::inline v0
