// Entropy terms. H is the entropy of the policy's whole distribution at the token, an input of its own.
#pragma once

#include <grpo/detail/config.hpp>
#include <grpo/scalar.hpp>
#include <grpo/term/compose.hpp>
#include <grpo/term/ratio.hpp>
#include <grpo/term/token.hpp>

namespace grpo::inline v0 {

// The entropy bonus: L = -H, to be scaled: 0.01 * entropy_bonus{} (arXiv 1602.01783, section 4). Its gradient goes to
// d_entropy. A scale of 0 reads no entropy.
struct entropy_bonus {
    static constexpr unsigned needs = input::entropy::bit;
    template <class S>
    GRPO_HD S operator()(const token<S>& t) const { return S(-t.entropy); }
};

// The entropy estimated from the sampled token, for logging: -π_θ/π_rollout · logp. The weight's logarithm is bounded.
struct entropy_estimate {
    static constexpr unsigned needs = input::logp::bit | input::logp_rollout::bit;
    safety_bound bound{};

    template <class S>
    GRPO_HD S operator()(const token<S>& t) const {
        return S(-bound.exp(S(t.logp - t.logp_rollout)) * t.logp);
    }
    problem validate(const char* function) const { return bound.validate(function); }
};

}  // namespace grpo::inline v0
