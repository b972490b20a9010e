// Preference terms on single samples with a label: a sample is a token of the batch, batch(padded(1, samples), logp(sums),
// logp_ref(ref_sums), label(good)), its logp summed over the response. And Nash-MD, on real tokens.
#pragma once

#include <cstdint>

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/fold.hpp>
#include <grpo/objective/batch.hpp>
#include <grpo/preference/pair.hpp>
#include <grpo/scalar.hpp>
#include <grpo/shape.hpp>
#include <grpo/term/compose.hpp>

namespace grpo::inline v0 {

// With x = log π(y) - log π_ref(y): w_d (1 - σ(β (x - kl))) where the label is above 0, else w_u (1 - σ(β (kl - x))).
// KTO (arXiv 2402.01306, eq. 8; β 0.1 and weights 1 in TRL). kl is the reference point, a constant: kto_reference() of the
// log-ratios of mismatched prompts and responses.
struct kto {
    static constexpr unsigned needs = input::logp::bit | input::logp_ref::bit | input::label::bit;
    double beta = 0.1;
    double desirable_weight = 1.0;
    double undesirable_weight = 1.0;
    double kl = 0.0;

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        const S z = S(constant<S>(beta) * S(S(t.logp - t.logp_ref) - constant<S>(kl)));
        const constant_t<S> none(constant<S>(0));
        const mask_t<S> good = none < t.label;
        return math::select<S>(good, S(constant<S>(desirable_weight) * math::sigmoid(S(-z))),
                               S(constant<S>(undesirable_weight) * math::sigmoid(z)));
    }
    problem validate(const char* function) const {
        return detail::first_of(detail::not_above(function, "kto.beta", beta, 0.0),
                                detail::below(function, "kto.desirable_weight", desirable_weight, 0.0),
                                detail::below(function, "kto.undesirable_weight", undesirable_weight, 0.0),
                                detail::below(function, "kto.kl", kl, 0.0));
    }
};

// With R = β (log π(y) - log π_ref(y)): -log σ(R - delta) where the label is above 0, else -log σ(delta - R). BCO
// (arXiv 2404.04656); delta is the mean of all rewards so far: see add_log_ratios.
struct bco {
    static constexpr unsigned needs = input::logp::bit | input::logp_ref::bit | input::label::bit;
    double beta = 0.1;
    double delta = 0.0;

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        const S z = S(constant<S>(beta) * S(t.logp - t.logp_ref) - constant<S>(delta));
        const constant_t<S> none(constant<S>(0));
        const mask_t<S> good = none < t.label;
        return S(-math::log_sigmoid(math::select<S>(good, z, S(-z))));
    }
    problem validate(const char* function) const { return detail::not_above(function, "bco.beta", beta, 0.0); }
};

// L_t = (β sg(logp - logp_ref) - (p - 1/2)) logp, over the tokens of one response, p its probability to beat the
// mixture policy's, given as advantage(by_sequence(p)). Nash-MD (arXiv 2312.00886) as TRL writes it, with
// aggregation::sequence_sum(true): the mean over all responses of the sum over their tokens.
struct nash_md {
    static constexpr unsigned needs = input::logp::bit | input::logp_ref::bit | input::advantage::bit;
    double beta = 0.1;

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        using C = constant_t<S>;
        const C pull = C(constant<S>(beta) * C(value(t.logp) - t.logp_ref));
        return S(C(pull - C(t.advantage - constant<S>(0.5))) * t.logp);
    }
    problem validate(const char* function) const { return detail::below(function, "nash_md.beta", beta, 0.0); }
};

// Adds scale · (logp - logp_ref) of every sample to a running mean; non-finite ones are left out, so that one bad sample
// does not spoil the mean for good. States of ranks are joined by moments::merge.
//   BCO:  add_log_ratios(rewards, logp, logp_ref, beta);  bco{.beta = beta, .delta = rewards.mean}
template <class A, class B>
void add_log_ratios(moments::state<double>& onto, const A& logp, const B& logp_ref, double scale = 1.0) {
    const view x(logp);
    const view r(logp_ref);
    detail::require(detail::wrong_size("add_log_ratios", "logp_ref", r.size(), x.size(), "samples"));
    for (std::int64_t i = 0; i < x.size(); ++i) {
        const double ratio = scale * (static_cast<double>(x[i]) - static_cast<double>(r[i]));
        if (!detail::is_nonfinite(ratio)) moments::add(onto, ratio);
    }
}

// KTO's reference point: the mean log-ratio of mismatched pairs, not below 0; 0 when there was none.
inline double kto_reference(const moments::state<double>& mismatched) {
    return mismatched.mean > 0 ? mismatched.mean : 0.0;
}

}  // namespace grpo::inline v0
