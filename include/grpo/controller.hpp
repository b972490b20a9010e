// Controllers: coefficients of a loss that follow what the training does. Each is a plain struct that the caller keeps,
// copies and saves; a non-finite observation changes nothing and is counted.
#pragma once

#include <cstdint>

#include <grpo/detail/check.hpp>
#include <grpo/objective/batch.hpp>

namespace grpo::inline v0 {

// A KL coefficient that stays: the same interface, so that one may be exchanged for the other.
struct fixed_kl {
    double beta = 0.001;

    double coefficient() const { return beta; }
    void update(double, double) {}
    problem validate(const char* function) const { return detail::below(function, "fixed_kl.beta", beta, 0.0); }
};

// beta <- beta · (1 + clip(kl / target - 1, -limit, limit) · samples / horizon) after each step (arXiv 1909.08593, sec. 2.2).
// Defaults: limit 0.2, the paper's; target 0.1 and horizon 10000, verl's.
struct adaptive_kl {
    double beta = 0.001;
    double target = 0.1;
    double horizon = 10000;
    double limit = 0.2;
    std::int64_t ignored = 0;  // observations that were not finite

    double coefficient() const { return beta; }

    // observed: the mean KL of the step, of `samples` sequences. beta does not fall below 0.
    void update(double observed, double samples) {
        if (detail::is_nonfinite(observed) || detail::is_nonfinite(samples)) {
            ++ignored;
            return;
        }
        const double error = observed / target - 1.0;
        const double cut = error < -limit ? -limit : limit < error ? limit : error;
        const double factor = 1.0 + cut * samples / horizon;
        beta *= factor > 0 ? factor : 0.0;
    }
    problem validate(const char* function) const {
        const problem p = detail::first_of(detail::below(function, "adaptive_kl.beta", beta, 0.0),
                                           detail::below(function, "adaptive_kl.limit", limit, 0.0));
        if (p) return p;
        if (!(target > 0)) return detail::complain(function, "adaptive_kl.target", "is %g, but must be above %g", target, 0.0);
        if (!(horizon > 0)) {
            return detail::complain(function, "adaptive_kl.horizon", "is %g, but must be above %g", horizon, 0.0);
        }
        return {};
    }
};

// An entropy coefficient that moves by `step` after each optimiser step, up while the entropy is at most the target, else
// down, within [least, most]; the bonus acts only while the last entropy was at most the target (arXiv 2505.22312).
// Before the first observation it does not act.
struct adaptive_entropy {
    double coef = 0.0;
    double target = 0.2;
    double step = 0.005;
    double least = 0.0;
    double most = 1.0;
    bool acting = false;       // whether the last entropy was at most the target
    std::int64_t ignored = 0;  // observations that were not finite

    // What to multiply the entropy bonus by in the coming step.
    double coefficient() const { return acting ? coef : 0.0; }

    void update(double entropy) {
        if (detail::is_nonfinite(entropy)) {
            ++ignored;
            return;
        }
        acting = entropy <= target;
        const double moved = acting ? coef + step : coef - step;
        coef = moved < least ? least : most < moved ? most : moved;
    }
    problem validate(const char* function) const {
        const problem p = detail::below(function, "adaptive_entropy.step", step, 0.0);
        if (p || least <= most) return p;
        return detail::complain(function, "adaptive_entropy", "has the lower bound %g above the upper bound %g", least, most);
    }
};

}  // namespace grpo::inline v0
