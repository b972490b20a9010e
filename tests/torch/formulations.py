"""Every recipe's loss, written with torch's own operations from the papers: what the registered operations must equal.

A formulation takes a batch x (logp, logp_old, ..., advantage, all [rows, width], mask as numbers) and gives the loss. Stop-
gradients are detach(); slopes come from autograd.
"""
import torch

UNBOUNDED = 1e30


def token_mean(loss, x, eps=0.0):
    return (loss * x.mask).sum() / (x.mask.sum() + eps)


def token_sum_per_row(loss, x):
    return (loss * x.mask).sum(1)


def row_mean(loss, x):
    """The masked mean of each row, [rows, 1]; 0 for an empty row."""
    return (token_sum_per_row(loss, x) / x.mask.sum(1).clamp(min=1)).unsqueeze(1)


def sequence_mean(loss, x, count_empty=False):
    rows = x.mask.shape[0] if count_empty else (x.mask.sum(1) > 0).sum()
    return row_mean(loss, x).sum() / rows


def sequence_sum(loss, x):
    return token_sum_per_row(loss, x).sum() / (x.mask.sum(1) > 0).sum()


def clamped_exp(d, bound=20.0):
    return d.clamp(-bound, bound).exp()


def clip_loss(x, low, high, bound=20.0):
    ratio = clamped_exp(x.logp - x.logp_old, bound)
    return torch.max(-x.advantage * ratio, -x.advantage * ratio.clamp(1 - low, 1 + high))


def dual_clip(x, low=0.2, high=0.2, c=3.0):
    plain = clip_loss(x, low, high)
    return torch.where(x.advantage < 0, torch.min(plain, -c * x.advantage), plain)


def two_sided(x, low=0.2, high=0.2, delta=4.0):
    ratio = clamped_exp(x.logp - x.logp_old)
    return torch.max(-x.advantage * ratio.clamp(max=delta), -x.advantage * ratio.clamp(1 - low, 1 + high))


def k3(x, bound=20.0):
    d = (x.logp_ref - x.logp).clamp(-bound, bound)
    return d.exp() - d - 1


def k1(x):
    return x.logp - x.logp_ref


def k3_importance(x):
    return k3(x) * clamped_exp(x.logp - x.logp_old)


def k3_score(x):
    return (k3(x) * (x.logp - x.logp.detach()).exp()).clamp(-10, 10)


def drift_mask(x, delta):
    drift = row_mean(x.logp_old - x.logp, x).detach()
    return ((x.advantage >= 0) | (drift <= delta)).to(x.logp.dtype)


def gspo(x, low=3e-4, high=4e-4):
    ratio = clamped_exp(row_mean(x.logp - x.logp_old, x))
    return torch.max(-x.advantage * ratio, -x.advantage * ratio.clamp(1 - low, 1 + high)).expand_as(x.logp)


def gspo_token(x, low=3e-4, high=4e-4):
    log_ratio = row_mean(x.logp - x.logp_old, x).detach() + x.logp - x.logp.detach()
    ratio = clamped_exp(log_ratio)
    return torch.max(-x.advantage * ratio, -x.advantage * ratio.clamp(1 - low, 1 + high))


def gmpo(x, low=0.4, high=0.4):
    d = x.logp - x.logp_old
    sign = torch.sign(x.advantage)
    kept = sign * torch.min(sign * d, sign * d.clamp(-low, high))
    return (-row_mean(x.advantage, x) * row_mean(kept, x).exp()).expand_as(x.logp)


def cispo(x, low, high):
    weight = clamped_exp(x.logp - x.logp_old).clamp(1 - low, 1 + high).detach()
    return -weight * x.advantage * x.logp


def capped(x, cap):
    return -clamped_exp(x.logp - x.logp_old).clamp(max=cap).detach() * x.advantage * x.logp


def sapo(x, positive=1.0, negative=1.05):
    one = torch.ones_like(x.advantage)
    tau = torch.where(x.advantage > 0, positive * one, negative * one)
    return -4 / tau * torch.sigmoid(tau * (clamped_exp(x.logp - x.logp_old) - 1)) * x.advantage


def vespo(x):
    log_w = token_sum_per_row(x.logp - x.logp_old, x).unsqueeze(1).clamp(-18.420680743952367, 20).detach()
    positive = x.advantage >= 0
    k = torch.where(positive, 2.0, 3.0).to(x.logp.dtype)
    lam = torch.where(positive, 3.0, 2.0).to(x.logp.dtype)
    return -(k * log_w + lam * (1 - log_w.exp())).exp() * x.advantage * x.logp


def dppo_tv(x, width=0.2, cap=3.0):
    moved = (x.logp.exp() - x.logp_old.exp()).detach()
    valid = torch.where(x.advantage > 0, moved <= width, moved >= -width)
    return capped(x, cap) * valid


def dppo_kl(x, width=0.2, cap=3.0):
    p, old = x.logp.exp().detach(), x.logp_old.exp()
    divergence = old * (x.logp_old - x.logp.detach()) + (1 - old) * ((1 - old + 1e-8) / (1 - p + 1e-8)).log()
    near = divergence <= width
    valid = torch.where(x.advantage > 0, near | (p <= old), near | (p >= old))
    return capped(x, cap) * valid


def kl_cov(x, coef=1.0):
    d = x.logp - x.logp_old
    return -x.advantage * clamped_exp(d) + coef * x.keep * d.abs()


def reinforce(x):
    return -x.advantage * x.logp


def on_policy(x):
    return -x.advantage * (x.logp - x.logp.detach()).exp()


def decoupled(x):
    return clamped_exp(x.logp_old - x.logp_rollout) * clip_loss(x, 0.2, 0.2)


def ppo(x, low=0.2, high=0.2):
    return token_mean(clip_loss(x, low, high), x)


RECIPES = {
    "grpo": lambda x: sequence_mean(clip_loss(x, 0.2, 0.2) + 0.04 * k3(x), x),
    "deepseek_r1": lambda x: sequence_mean(clip_loss(x, 10, 10) + 0.001 * k3(x), x),
    "deepseek_v3_2": lambda x: sequence_mean(drift_mask(x, 0.1) * clip_loss(x, 0.2, 0.2) + 0.001 * k3_importance(x), x),
    "dr_grpo": lambda x: (clip_loss(x, 0.2, 0.2) * x.mask).sum() / (x.mask.shape[0] * 3000),
    "dapo": lambda x: ppo(x, 0.2, 0.28),
    "lite_ppo": ppo,
    "dual_clip": lambda x: token_mean(dual_clip(x), x),
    "two_sided_clip": lambda x: token_mean(two_sided(x), x),
    "gspo": lambda x: sequence_mean(gspo(x), x),
    "gspo_token": lambda x: sequence_mean(gspo_token(x), x),
    "luspo": lambda x: sequence_sum(gspo(x), x),
    "gmpo": lambda x: sequence_mean(gmpo(x), x),
    "cispo": lambda x: token_mean(cispo(x, 0.2, 0.2), x),
    "cispo_upper": lambda x: token_mean(capped(x, 5.0), x),
    "minimax_m1": lambda x: token_mean(cispo(x, 1.0, 0.2), x),
    "sapo": lambda x: sequence_mean(sapo(x), x),
    "vespo": lambda x: token_mean(vespo(x), x),
    "dppo_tv": lambda x: token_mean(dppo_tv(x), x),
    "dppo_kl": lambda x: token_mean(dppo_kl(x), x),
    "clip_cov": lambda x: token_mean(x.keep * clip_loss(x, 0.2, 0.2), x),
    "kl_cov": lambda x: token_mean(kl_cov(x), x),
    "high_entropy": lambda x: token_mean(x.keep * clip_loss(x, 0.2, 0.28), x),
    "m2po": lambda x: token_mean(x.keep * clip_loss(x, 0.2, 0.2), x),
    "icepop": lambda x: token_mean(x.weight * clip_loss(x, 0.2, 0.2), x),
    "decoupled_ppo": lambda x: token_mean(decoupled(x), x),
    "dro": lambda x: token_mean(0.5 * (x.logp - x.logp_old) ** 2 - x.advantage * x.logp, x),
    "gpg": lambda x: token_mean(reinforce(x), x),
    "pass_at_k": ppo,
    "gdpo": ppo,
    "rloo": lambda x: sequence_sum(reinforce(x), x),
    "opo": lambda x: token_mean(on_policy(x), x),
    "reinforce": lambda x: sequence_sum(reinforce(x), x),
    "remax": lambda x: sequence_sum(reinforce(x), x),
    "reinforce_plus_plus": ppo,
    "reinforce_plus_plus_baseline": ppo,
    "ppo": ppo,
    "vapo": lambda x: ppo(x, 0.2, 0.28),
    "otb": lambda x: sequence_sum(reinforce(x), x),
    "sft": lambda x: sequence_mean(-x.logp, x),
    "rft": lambda x: sequence_mean(-x.label * x.logp, x),
    "online_rft": lambda x: sequence_mean(-x.label * x.logp, x),
    "dft": lambda x: token_mean(-x.logp.exp().detach() * x.logp, x),
    "trl": lambda x: token_mean(clip_loss(x, 0.2, 0.2, UNBOUNDED), x),
    "verl": lambda x: token_mean(dual_clip(x), x),
    "openrlhf": ppo,
    "nemo_rl": lambda x: token_mean(clip_loss(x, 0.2, 0.2, UNBOUNDED) + 0.01 * k3_score(x), x, eps=1e-8),
    "slime": lambda x: sequence_mean(clip_loss(x, 0.2, 0.2, UNBOUNDED), x, count_empty=True),
    "areal": lambda x: token_mean(clip_loss(x, 0.2, 0.2, UNBOUNDED), x),
    "tunix": lambda x: sequence_mean(clip_loss(x, 0.2, 0.2) + 0.04 * k1(x), x),
    "torchtune": lambda x: sequence_mean(on_policy(x) + 0.1 * k3(x, UNBOUNDED), x, count_empty=True),
}


def log_sigmoid_of(margin):
    return torch.nn.functional.logsigmoid(margin)


# Losses of pairs: (chosen, rejected, ref_chosen, ref_rejected, chosen_length, rejected_length) -> loss per pair.
PAIRS = {
    "dpo": lambda w, l, rw, rl, nw, nl: -log_sigmoid_of(0.1 * ((w - rw) - (l - rl))),
    "ipo": lambda w, l, rw, rl, nw, nl: ((w - rw) - (l - rl) - 1 / (2 * 0.1)) ** 2,
    "hinge": lambda w, l, rw, rl, nw, nl: torch.relu(1 - 0.1 * ((w - rw) - (l - rl))),
    "simpo": lambda w, l, rw, rl, nw, nl: -log_sigmoid_of(2.0 * (w / nw - l / nl) - 0.5),
    "contrastive": lambda w, l, rw, rl, nw, nl: -log_sigmoid_of(0.1 * (w - l)),
    "bradley_terry": lambda w, l, rw, rl, nw, nl: -log_sigmoid_of(w - l),
}


def value_loss(values, old, returns, mask, clip=0.2, factor=0.5):
    kept = torch.min(torch.max(values, old - clip), old + clip)
    worst = torch.max((values - returns) ** 2, (kept - returns) ** 2)
    return factor * (worst * mask).sum() / mask.sum()


def token_logp(logits, targets, temperature):
    everything = (logits / temperature).log_softmax(-1)
    chosen = everything.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return chosen, -(everything.exp() * everything).sum(-1)


def by_group(r):
    """Rewards [groups, size] to advantages, per recipe with one number per response."""
    n = r.shape[1]
    mean, std = r.mean(1, keepdim=True), r.std(1, keepdim=True)
    others = (r.sum(1, keepdim=True) - r) / (n - 1)
    top = r.topk(2, dim=1)
    best = torch.zeros_like(r).scatter_(1, top.indices[:, :1], 1.0)
    left_out = torch.stack([torch.cat([r[:, :i], r[:, i + 1:]], 1).std(1) for i in range(n)], 1)
    scored = (r != 0).sum()
    return {
        "grpo": (r - mean) / (std + 1e-6),
        "dr_grpo": r - mean,
        "lite_ppo": (r - mean) / (r.std() + 1e-6),
        "rloo": r - others,
        "reinforce": r,
        "trl": (r - mean) / (std + 1e-4),
        "slime": (r - mean) / (std + 1e-6),
        "openrlhf": ((r - mean) / (std + 1e-9)).clamp(-10, 10),
        "nemo_rl": (r - others) / (left_out + 1e-6),
        "pass_at_k": best * (top.values[:, :1] - top.values[:, 1:]) / (std + 1e-6),
        "gpg": (r - mean) * r.numel() / scored,
    }


def gae(reward, value, gamma, lam, mask):
    """Backwards over the active tokens alone."""
    advantage = torch.zeros_like(reward)
    for row in range(reward.shape[0]):
        following, running = 0.0, 0.0
        for t in reversed(range(reward.shape[1])):
            if mask[row, t] == 0:
                continue
            running = reward[row, t] + gamma * following - value[row, t] + gamma * lam * running
            following = value[row, t]
            advantage[row, t] = running
    return advantage, (advantage + value) * mask


def last_active(mask):
    places = torch.zeros_like(mask)
    for row in range(mask.shape[0]):
        active = mask[row].nonzero()
        if len(active):
            places[row, active[-1]] = 1
    return places


def later_sums(x, mask):
    return (x * mask).flip(1).cumsum(1).flip(1) * mask


def whitened(x, mask, ddof, floor=None, eps=1e-8):
    n = mask.sum()
    mean = (x * mask).sum() / n
    variance = (((x - mean) ** 2) * mask).sum() / (n - ddof)
    deviation = variance.sqrt().clamp(min=floor) if floor else (variance + eps).sqrt()
    return (x - mean) / deviation * mask
