// The policy loss as TRL's GRPO trainer writes it, for the translation units that parse LibTorch's headers.
#pragma once

#include <torch/torch.h>

namespace peer {

struct trl_terms {
    torch::Tensor logp_old, logp_ref, advantage, mask;  // advantage: one column
    double low, high, beta;

    /// Clipped surrogate plus beta * k3, summed over the active tokens.
    torch::Tensor sum(const torch::Tensor& logp) const {
        const torch::Tensor ratio = torch::exp(logp - logp_old);
        const torch::Tensor bounded = torch::clamp(ratio, 1 - low, 1 + high);
        torch::Tensor token = -torch::min(ratio * advantage, bounded * advantage);
        const torch::Tensor kl = torch::exp(logp_ref - logp) - (logp_ref - logp) - 1;
        token = token + beta * kl;
        return (token * mask).sum();
    }

    torch::Tensor mean(const torch::Tensor& logp) const { return sum(logp) / mask.sum().clamp(1.0); }
};

}  // namespace peer
