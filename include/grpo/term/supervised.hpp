// Likelihood losses on given outputs. `label` is 1 where the output counts (is correct, has a positive reward), else 0.
#pragma once

#include <grpo/detail/check.hpp>
#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0 {

// SFT: L = -logp. Gradient -1: the gradient coefficient 1 of the unified paradigm (arXiv 2402.03300, appendix A.1.1).
struct nll {
    static constexpr unsigned needs = input::logp::bit;
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const { return S(-t.logp); }
};

// DFT: L = -sg(π_θ) logp (arXiv 2508.05629, eq. 9): SFT with each token weighed by its probability.
struct dft {
    static constexpr unsigned needs = input::logp::bit;
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        const constant_t<S> p = math::exp(constant_t<S>(value(t.logp)));
        return S(constant_t<S>(-p) * t.logp);
    }
};

// Rejection fine-tuning: L = -logp on correct outputs, 0 on the others, whose logp is then not used
// (arXiv 2402.03300, appendix A.1.2). Online RFT (A.1.3) is the same loss on outputs of the current policy.
struct rft {
    static constexpr unsigned needs = input::logp::bit | input::label::bit;
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        return math::select<S>(constant<S>(0) < t.label, S(-t.logp), S(constant<S>(0)));
    }
};
using online_rft = rft;

// The positive-example loss added to PPO: L = -coef logp on outputs with a positive reward (VAPO, arXiv 2504.05118,
// section 4.3). Default: coef 0.1, the paper's. Its mean runs over the positive outputs' tokens: give their number as
// the denominator of an objective of its own.
struct positive_nll {
    static constexpr unsigned needs = rft::needs;
    double coef = 0.1;

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const { return S(constant<S>(coef) * rft{}(t)); }
    problem validate(const char* function) const { return detail::below(function, "positive_nll.coef", coef, 0.0); }
};

}  // namespace grpo::inline v0
