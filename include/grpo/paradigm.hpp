// The unified paradigm of DeepSeekMath (arXiv 2402.03300, §5.2 and appendix A): every method's gradient is
//
//   ∇J = E[ 1/|o| Σ_t GC(q, o, t) ∇ log π_θ(o_t | q, o_<t) ]
//
// and methods differ in where outputs come from, in the reward, and in the gradient coefficient GC:
//
//   method       outputs from         term (loss of one token or pair)    GC
//   SFT          a data set           nll                                 1
//   RFT          the SFT model        rft                                 1 where the answer is correct, else 0
//   Online RFT   the policy           online_rft                          the same
//   DPO          the SFT model        (1/β) dpo, on a pair                ±σ(β (log π/π_ref)(o⁻) - β (log π/π_ref)(o⁺))
//   PPO          the policy           clipped                             A_t, while the ratio is 1
//   GRPO         the policy           on_policy + β kl                    Â_t + β (π_ref / π_θ - 1)
//
// GC is minus the slope of the loss, so it needs no formula of its own: one function serves every term of the library.
#pragma once

#include <grpo/detail/config.hpp>
#include <grpo/objective.hpp>
#include <grpo/objective/aggregation.hpp>
#include <grpo/preference/paired.hpp>
#include <grpo/term.hpp>

namespace grpo::inline v0 {

// Writes GC of every token (or of both responses of every pair) where the outputs say: d_logp(gc) for token terms,
// d_chosen(gc_w) and d_rejected(gc_l) for pair terms. Masked entries get +0.0. Minus the slope of the unaveraged loss:
// where a term is weighed by 1/|o| or divided by a batch size, that is the aggregation's business, not GC's.
template <class Exec, term Term, class Batch, class... Outputs>
void gradient_coefficient(Exec&& exec, const Term& loss, const Batch& b, const Outputs&... outputs) {
    static_assert(sizeof...(Outputs) > 0,
                  "grpo: gradient_coefficient writes where d_logp(...), or d_chosen(...) and d_rejected(...), points");
    detail::loss_target<Exec> total{};
    accumulate(total, exec, objective{-loss, aggregation::token_sum()}, b, 1.0, outputs...);
}

// DPO as the paradigm writes it: the coefficient without the factor β that the paper leaves out.
inline auto paradigm_dpo(double beta) { return (1.0 / beta) * dpo{.beta = beta}; }

}  // namespace grpo::inline v0
