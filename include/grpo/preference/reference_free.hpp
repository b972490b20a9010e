// Preference terms without a reference policy, and the likelihood terms that the published losses add to them.
//
// A published loss is a sum of terms: cpo(), orpo(), tpo() and xpo() below write it down. The likelihood of the chosen
// response enters as
//   chosen_nll{}                      minus the sum of its log-probs: mean over pairs of the NLL of the whole response
//   per_token{chosen_nll{}}           mean over pairs of the NLL per token
//   (pairs / tokens) * chosen_nll{}   mean over all chosen tokens of the batch (tokens = Σ chosen_length)
#pragma once

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/preference/pair.hpp>
#include <grpo/scalar.hpp>

namespace grpo::inline v0 {

// L = -log π(y_w).
struct chosen_nll {
    static constexpr unsigned needs = input::chosen::bit;
    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const { return S(-t.chosen); }
};

// L = -log π(y_gold), a third response that is better than both.
struct gold_nll {
    static constexpr unsigned needs = input::gold::bit;
    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const { return S(-t.gold); }
};

// L = log π(y_l): pushes the rejected (or second) response down.
struct rejected_logp {
    static constexpr unsigned needs = input::rejected::bit;
    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const { return S(t.rejected); }
};

// L = -(1 - e) log σ(z) - e log σ(-z), z = β (log π(y_w) - log π(y_l)): DPO against a uniform reference, the preference
// part of CPO (arXiv 2401.08417) and TPO (arXiv 2405.16681). e = label_smoothing.
struct contrastive {
    static constexpr unsigned needs = detail::responses;
    double beta = 0.1;
    double label_smoothing = 0.0;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        return detail::smoothed_logistic(S(constant<S>(beta) * S(t.chosen - t.rejected)), label_smoothing);
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::not_above(function, "contrastive.beta", beta, 0.0),
                                detail::validate_smoothing(function, "contrastive.label_smoothing", label_smoothing, 1.0));
    }
};

// The smoothed logistic of z = β (p_w - p_l) - γ, p = log-probability per token. SimPO (arXiv 2405.14734, eq. 6; β 2 and
// γ 0.5 are in its range). TRL asks for γ / β. A response of length 0 counts as length 1.
struct simpo {
    static constexpr unsigned needs = detail::responses | detail::lengths_for(detail::responses);
    double beta = 2.0;
    double gamma = 0.5;
    double label_smoothing = 0.0;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        const pair<S> p = detail::averaged(t);
        const S z = S(constant<S>(beta) * S(p.chosen - p.rejected) - constant<S>(gamma));
        return detail::smoothed_logistic(z, label_smoothing);
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::not_above(function, "simpo.beta", beta, 0.0),
                                detail::validate_smoothing(function, "simpo.label_smoothing", label_smoothing, 1.0));
    }
};

// L = -log σ(β (R(p_w) - R(p_l)) - γ), R(p) = (1 - e^(-alpha p)) / alpha, p = log-probability per token. AlphaPO
// (arXiv 2501.03884); alpha is tuned per model there, and alpha = 0 is SimPO's R(p) = p. The exponent -alpha p is clamped
// from above at exponent_bound (e^80 is finite in float), where the slope becomes 0.
struct alpha_po {
    static constexpr unsigned needs = detail::responses | detail::lengths_for(detail::responses);
    double alpha = 0.25;
    double beta = 2.0;
    double gamma = 0.5;
    double exponent_bound = 80.0;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        const pair<S> p = detail::averaged(t);
        const S z = S(constant<S>(beta) * S(reward(p.chosen) - reward(p.rejected)) - constant<S>(gamma));
        return S(-math::log_sigmoid(z));
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::not_above(function, "alpha_po.beta", beta, 0.0),
                                detail::below(function, "alpha_po.exponent_bound", exponent_bound, 0.0));
    }

private:
    template <class S>
    GRPO_HD S reward(const S& p) const {
        if (alpha == 0.0) return p;
        const S exponent = math::min(S(constant<S>(-alpha) * p), S(constant<S>(exponent_bound)));
        return S(constant<S>(-1.0 / alpha) * math::expm1(exponent));
    }
};

// L = -log σ(o(p_w) - o(p_l)), o(p) = p - log(1 - e^p), the log-odds. ORPO's second part (arXiv 2403.07691, eq. 6-7), there
// and in TRL on log-probabilities per token: per_token{odds_ratio{}}. On sums it saturates. At p = 0 the odds are
// infinite: p is clamped from above at -certainty (tunix's 1e-7), where the slope becomes 0.
struct odds_ratio {
    static constexpr unsigned needs = detail::responses;
    double certainty = 1e-7;

    template <class S>
    GRPO_HD S operator()(const pair<S>& t) const {
        return S(-math::log_sigmoid(S(log_odds(t.chosen) - log_odds(t.rejected))));
    }
    problem validate(const char* function) const {
        return detail::not_above(function, "odds_ratio.certainty", certainty, 0.0);
    }

private:
    template <class S>
    GRPO_HD S log_odds(const S& logp) const {
        const S p = math::min(logp, S(constant<S>(-certainty)));
        return S(p - math::log1mexp(p));
    }
};

// CPO (arXiv 2401.08417): the contrastive part and the NLL of the chosen response (nll_coef 1 in the paper and in TRL).
inline auto cpo(double beta = 0.1, double label_smoothing = 0.0, double nll_coef = 1.0) {
    return contrastive{.beta = beta, .label_smoothing = label_smoothing} + nll_coef * chosen_nll{};
}

// ORPO (arXiv 2403.07691, eq. 6): NLL per token of the chosen response + β times the odds-ratio part (β 0.1, its λ).
inline auto orpo(double beta = 0.1) { return per_token{chosen_nll{}} + beta * per_token{odds_ratio{}}; }

// TPO (arXiv 2405.16681): the contrastive part on the pair and the NLL of a gold response.
inline auto tpo(double beta = 0.1, double label_smoothing = 0.0, double nll_coef = 1.0) {
    return contrastive{.beta = beta, .label_smoothing = label_smoothing} + nll_coef * gold_nll{};
}

// TPO-L: the same with SimPO's length-normalised margin in place of the contrastive part.
inline auto tpo_l(double beta = 2.0, double gamma = 0.5, double label_smoothing = 0.0, double nll_coef = 1.0) {
    return simpo{.beta = beta, .gamma = gamma, .label_smoothing = label_smoothing} + nll_coef * gold_nll{};
}

// Online DPO (arXiv 2402.04792): a pair loss (dpo or ipo) on two responses of the current policy, ranked by a judge.
template <term Loss>
judged<Loss> online_dpo(const Loss& loss) {
    return {loss};
}

// XPO (arXiv 2405.21046): the same where `chosen` holds the policy's response and `rejected` the reference policy's, plus
// alpha times the log-probability of the latter, which makes the policy explore.
template <term Loss>
auto xpo(const Loss& loss, double alpha = 1e-5) {
    return judged<Loss>{loss} + alpha * rejected_logp{};
}

}  // namespace grpo::inline v0
