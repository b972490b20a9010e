"""What run.py compares with: the formulas in PyTorch, eager and compiled, and Liger-Kernel where it is installed."""
import math
from dataclasses import dataclass

import torch

CLIP = 0.2
BETA = 0.04


@dataclass
class Batch:
    """A batch of `sequences` responses of the same length; per-token tensors have that shape."""

    logits: torch.Tensor  # [tokens, V]
    target: torch.Tensor  # int32
    mask: torch.Tensor  # uint8
    logp_old: torch.Tensor
    logp_ref: torch.Tensor
    advantage: torch.Tensor  # [sequences]

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.mask.shape)


def make_batch(sequences: int, length: int, vocabulary: int, device: str, active: float = 1.0, seed: int = 5) -> Batch:
    """Log-probabilities of the old and the reference policy are near those of the logits. active: the share of tokens that count."""
    random = torch.Generator(device=device).manual_seed(seed)
    tokens = sequences * length
    logits = torch.empty(tokens, vocabulary, device=device, dtype=torch.bfloat16)
    for part in logits.split(1024):
        part.copy_(2 * torch.randn(part.shape, device=device, generator=random))
    target = torch.randint(0, vocabulary, (sequences, length), device=device, generator=random, dtype=torch.int32)
    mask = (torch.rand(sequences, length, device=device, generator=random) < active).to(torch.uint8)
    logp = torch.cat([token_logp(part, t) for part, t in zip(logits.split(1024), target.flatten().split(1024))])
    logp = logp.view(sequences, length)
    noise = [torch.randn(sequences, length, device=device, generator=random) for _ in range(2)]
    return Batch(logits, target, mask, logp + 0.2 * noise[0], logp + 0.2 * noise[1],
                 torch.randn(sequences, device=device, generator=random))


def token_logp(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    wide = logits.float() if logits.dtype != torch.float64 else logits
    return torch.log_softmax(wide, -1).gather(1, target.long().unsqueeze(1)).squeeze(1)


def token_logp_by_lse(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The form that a compiler can make one pass of."""
    chosen = logits.gather(1, target.long().unsqueeze(1)).squeeze(1).float()
    return chosen - torch.logsumexp(logits.float(), -1)


def clipped_loss(logp, logp_old, logp_ref, mask, advantage):
    """PPO's clipped surrogate with a k3 KL, mean over all tokens of the batch, masked ones too."""
    ratio = torch.exp(logp - logp_old)
    a = advantage.unsqueeze(1)
    surrogate = torch.minimum(ratio * a, ratio.clamp(1 - CLIP, 1 + CLIP) * a)
    d = logp_ref - logp
    per_token = -surrogate + BETA * (torch.exp(d) - d - 1)
    return (per_token * mask).sum() / mask.numel()


def sequence_loss(logp, logp_old, logp_ref, mask, advantage, low: float, high: float):
    """GSPO: the ratio is the sequence's geometric mean."""
    count = mask.sum(1, keepdim=True).clamp(min=1)
    ratio = torch.exp(((logp - logp_old) * mask).sum(1, keepdim=True) / count)
    a = advantage.unsqueeze(1)
    surrogate = torch.minimum(ratio * a, ratio.clamp(1 - low, 1 + high) * a)
    return (-surrogate * mask).sum() / mask.numel()


def truncated_weights(logp_old, logp_rollout, mask):
    """min(w, 2) of tokens that count, and the sums that say how far the engines are apart: Σw, Σw², how many are cut."""
    w = torch.exp(logp_old - logp_rollout)
    weight = w.clamp(max=2.0) * mask
    return weight, weight.sum(), (weight * weight).sum(), ((w > 2.0) * mask).sum()


def top_entropy(entropy, mask, share):
    """1 for the tokens that count from the (1 - share)-quantile of their entropies on."""
    threshold = torch.nanquantile(torch.where(mask.bool(), entropy, math.nan).flatten(), 1 - share)  # which waits for nothing
    return (entropy >= threshold).to(torch.uint8) * mask


def loss_of_logits(logits, b: Batch, token_loss=clipped_loss, logp_of=token_logp):
    logp = logp_of(logits, b.target.flatten()).view(b.shape)
    return token_loss(logp, b.logp_old.to(logp.dtype), b.logp_ref.to(logp.dtype), b.mask, b.advantage.to(logp.dtype))


def gae(reward, value, gamma: float, lam: float):
    """One row after the other position: for checks alone."""
    advantage = torch.zeros_like(reward)
    carry = torch.zeros_like(reward[:, 0])
    after = torch.zeros_like(carry)
    for t in range(reward.shape[1] - 1, -1, -1):
        carry = reward[:, t] + gamma * after - value[:, t] + gamma * lam * carry
        after = value[:, t]
        advantage[:, t] = carry
    return advantage


def group_normalised(reward):
    """(r - mean) / (std + 1e-6), the deviation with n - 1."""
    return (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True) + 1e-6)


def liger_loss(b: Batch):
    """Liger-Kernel's Triton loss, which writes its gradient over the logits; None where it is not installed."""
    try:
        from liger_kernel.transformers.grpo_loss import triton_grpo_loss
    except ImportError:
        return None
    sequences, length = b.shape
    vocabulary = b.logits.shape[1]
    # It reads one position more than there are targets.
    logits = torch.empty(sequences, length + 1, vocabulary, device=b.logits.device, dtype=b.logits.dtype)
    logits[:, :-1] = b.logits.view(sequences, length, vocabulary)
    logits[:, -1] = 0
    logits.requires_grad_()
    ids = b.target.long()

    def run():
        logits.grad = None
        loss, _ = triton_grpo_loss(logits, b.logp_old, b.logp_ref, ids, b.advantage, completion_mask=b.mask, temperature=1.0,
                                   beta=BETA, eps_low=CLIP, eps_high=CLIP, inplace=True, loss_type="dapo", reduce=True)
        loss.backward()

    return run


def liger_fused_linear(hidden, weight, b: Batch, chunk: int):
    """Liger-Kernel's loss from hidden states; `chunk` sequences at once."""
    try:
        from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss
    except ImportError:
        return None
    sequences, length = b.shape
    x = hidden.view(sequences, length, -1).detach().requires_grad_()
    w = weight.detach().requires_grad_()
    loss_of = LigerFusedLinearGRPOLoss(beta=BETA, epsilon_low=CLIP, epsilon_high=CLIP, use_ref_model=True, chunk_size=chunk,
                                       loss_type="dapo", temperature=1.0)

    def run():
        x.grad = w.grad = None
        loss, _ = loss_of(x, w, b.target.long(), b.mask, b.advantage, ref_per_token_logps=b.logp_ref,
                          old_per_token_logps=b.logp_old)
        loss.backward()

    return run


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to what is largest."""
    scale = expected.abs().max().item() or 1.0
    difference = (got.double() - expected.double()).abs().max().item()
    return difference / scale if math.isfinite(difference) else math.inf
