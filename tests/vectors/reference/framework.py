"""End-to-end vectors: grouped rewards to advantages, loss value and gradient under eight frameworks' conventions (R1.46).

Commits read: verl 1dda039b, TRL f2cd5771, OpenRLHF 3c3be623, NeMo RL 7ea279ab, slime 624b824a, AReaL 4aef98d8,
tunix c7d8950f, torchtune bd2a0fc7. The parameters of a case are complete: no convention is left implicit.

Pipeline: reward_clip_before -> group normalisation -> reward_clip_after -> (kl_place "reward": score on the last
active token, minus kl_coef * kl(logp_old, logp_ref) on every active token, undiscounted sum to the end) -> clipped
surrogate, dual clip where A < 0 -> rollout weight -> (kl_place "loss": + kl_coef * kl(logp, logp_ref)) -> aggregation.
"""

import random

from mpmath import exp, mpf, sqrt

from .common import dyadics, mean, offsets, rows, total, variance
from .preference import vector
from .supervised import active_rows

CONVENTION = {
    "reward_clip_before": "inf", "baseline": "mean", "scale": "group", "ddof": 1, "eps": 1e-6,
    "eps_placement": "outside", "singleton": "zero", "reward_clip_after": "inf",
    "on_policy": 0, "low": 0.2, "high": 0.2, "dual_clip": "inf", "log_ratio_bound": "inf", "bound_gradient": "zero",
    "correction": "none", "correction_high": "inf",
    "kl_place": "none", "kl_coef": 0.0, "kl_value": "k3", "kl_gradient": "own", "kl_input_bound": "inf",
    "kl_output_bound": "inf",
    "aggregation": "token_mean", "denominator_eps": 0.0, "count_empty": 0,
}
DEFAULTS = {
    "trl": {"eps": 1e-4, "aggregation": "token_mean_global"},
    "verl": {"singleton": "raw_reward", "dual_clip": 3.0, "log_ratio_bound": 20.0},
    "openrlhf": {"eps": 1e-9, "reward_clip_after": 10.0, "log_ratio_bound": 20.0, "kl_place": "reward",
                 "kl_coef": 0.01, "kl_value": "k1", "kl_output_bound": 10.0},
    "nemo_rl": {"baseline": "leave_one_out", "scale": "leave_one_out", "eps_placement": "where_positive",
                "kl_place": "loss", "kl_coef": 0.01, "kl_gradient": "score", "kl_input_bound": 20.0,
                "kl_output_bound": 10.0, "denominator_eps": 1e-8},
    "slime": {"aggregation": "sequence_mean_token_mean", "count_empty": 1},
    "areal": {"reward_clip_before": 20.0, "eps": 1e-5, "kl_place": "reward", "kl_coef": 0.1, "kl_value": "k1",
              "kl_output_bound": 10.0},
    "tunix": {"log_ratio_bound": 20.0, "kl_place": "loss", "kl_coef": 0.04, "kl_value": "k1",
              "aggregation": "sequence_mean_token_mean"},
    "torchtune": {"eps": 1e-4, "on_policy": 1, "low": 0.1, "high": 0.1, "kl_place": "loss", "kl_coef": 0.1,
                  "aggregation": "sequence_mean_token_mean", "count_empty": 1},
}
EQUATION = {
    "trl": "arXiv 2402.03300 eq. 3 with the token mean of arXiv 2503.14476 eq. 8",
    "verl": "arXiv 2402.03300 eq. 3, dual clip arXiv 1912.09729, token mean arXiv 2503.14476",
    "openrlhf": "arXiv 2402.03300 eq. 3, KL in the reward",
    "nemo_rl": "arXiv 2402.03300 eq. 3, leave-one-out statistics, KL gradient arXiv 2506.09477",
    "slime": "arXiv 2402.03300 eq. 3",
    "areal": "arXiv 2402.03300 eq. 3, KL in the reward",
    "tunix": "arXiv 2402.03300 eq. 3 with k1 in the loss",
    "torchtune": "arXiv 2402.03300 eq. 3, one update per batch (the chunked loss)",
}


def clamp(x, bound):
    return min(max(x, -bound), bound)


def spread(values, ddof):
    """Standard deviation; 0 where the divisor vanishes."""
    return sqrt(variance(values, ddof)) if len(values) > ddof else mpf(0)


def normalised(group, p):
    """Advantages of one group of scores."""
    if len(group) == 1 and p["singleton"] == "raw_reward":
        return [group[0] / (1 + p["eps"])]
    out = []
    for i, score in enumerate(group):
        others = group[:i] + group[i + 1:]
        base = others if p["baseline"] == "leave_one_out" else group
        sample = others if p["scale"] == "leave_one_out" else group
        centred = score - mean(base) if base else mpf(0)
        sigma = spread(sample, p["ddof"])
        divide = p["eps_placement"] == "outside" or sigma > 0
        out.append(centred / (sigma + p["eps"]) if divide else centred)
    return out


def advantages(fixed, p):
    """One advantage per sequence, before any KL in the reward."""
    scores = [clamp(r, p["reward_clip_before"]) for r in fixed["reward"]]
    out = []
    for group in rows([int(v) for v in fixed["group_offsets"]]):
        out += normalised([scores[i] for i in group], p) if len(group) else []
    return [clamp(a, p["reward_clip_after"]) for a in out]


def kl(logp, old, ref, p):
    """The KL estimate between logp and ref; `old` is the frozen logp that the score weight divides by."""
    x = clamp(logp - ref, p["kl_input_bound"])
    value = x if p["kl_value"] == "k1" else exp(-x) + x - 1
    if p["kl_gradient"] == "score":
        value *= exp(logp - old)
    return clamp(value, p["kl_output_bound"])


def token_advantages(fixed, p):
    """Per token; 0 where masked."""
    out = [mpf(0)] * len(fixed["mask"])
    for r, a in zip(active_rows(fixed), advantages(fixed, p)):
        to_go = a
        for t in reversed(r):
            if p["kl_place"] == "reward":
                plain = {**p, "kl_gradient": "own"}
                to_go -= p["kl_coef"] * kl(fixed["logp_old"][t], None, fixed["logp_ref"][t], plain)
            out[t] = to_go
    return out


def surrogate(logp, old, a, p):
    """The loss of one token: clipped, and dual clipped where the advantage is negative."""
    if p["on_policy"]:
        return -a * exp(logp - old)
    ratio = exp(clamp(logp - old, p["log_ratio_bound"]))
    bounded = min(max(ratio, 1 - p["low"]), 1 + p["high"])
    loss = max(-a * ratio, -a * bounded)
    return min(loss, -a * p["dual_clip"]) if a < 0 else loss


def correction_weights(fixed, p):
    """Per sequence: exp of the summed logp_old - logp_rollout, 0 above the bound."""
    if p["correction"] == "none":
        return [mpf(1)] * (len(fixed["cu_seqlens"]) - 1)
    out = []
    for r in active_rows(fixed):
        w = exp(total(fixed["logp_old"][t] - fixed["logp_rollout"][t] for t in r))
        out.append(w if w <= p["correction_high"] else mpf(0))
    return out


def aggregated(token, fixed, p):
    active = active_rows(fixed)
    if p["aggregation"] == "sequence_mean_token_mean":
        means = [total(token(i, t) for t in r) / len(r) if r else mpf(0) for i, r in enumerate(active)]
        return total(means) / max(len(active) if p["count_empty"] else sum(1 for r in active if r), 1)
    count = p.get("denominator", mpf(sum(len(r) for r in active))) + p["denominator_eps"]
    return total(token(i, t) for i, r in enumerate(active) for t in r) / count


def parts(x, fixed, p):
    """(policy loss, KL), both aggregated."""
    a, weights = token_advantages(fixed, p), correction_weights(fixed, p)
    anchor = fixed["logp"] if p["on_policy"] else fixed["logp_old"]
    policy = aggregated(lambda i, t: weights[i] * surrogate(x["logp"][t], anchor[t], a[t], p), fixed, p)
    if p["kl_place"] != "loss":
        return policy, mpf(0)
    return policy, aggregated(lambda i, t: kl(x["logp"][t], fixed["logp"][t], fixed["logp_ref"][t], p), fixed, p)


def loss(x, fixed, p):
    policy, divergence = parts(x, fixed, p)
    return policy + p["kl_coef"] * divergence


def outputs(fixed, p):
    policy, divergence = parts(fixed, fixed, p)
    out = {"advantage": advantages(fixed, p), "policy_loss": policy}
    if p["kl_place"] == "reward":
        out["advantage_token"] = token_advantages(fixed, p)
    if p["kl_place"] == "loss":
        out["kl"] = divergence
    return out


# ---- batches

def batch(seed, groups, lengths, rewards, holes=()):
    """logp near logp_old (every clip branch occurs), logp_ref and logp_rollout near both."""
    rng = random.Random(seed)
    n = sum(lengths)
    logp = dyadics(rng, n, -3.5, -1.5)
    def near(spread_by):
        return [v - d for v, d in zip(logp, dyadics(rng, n, -spread_by, spread_by))]
    return {"reward": rewards, "group_offsets": offsets(groups), "logp": logp, "logp_old": near(0.5),
            "logp_ref": near(0.75), "logp_rollout": near(0.5),
            "mask": [int(t not in holes) for t in range(n)], "cu_seqlens": offsets(lengths)}


def changed(data, **edits):
    """A copy with some entries of some arrays replaced: logp={3: -1.0}."""
    out = {k: list(v) for k, v in data.items()}
    for name, entries in edits.items():
        for i, v in entries.items():
            out[name][i] = v
    return out


def ragged(empty=True):
    """Two groups; lengths 1 to 5, an interior hole, a fully masked sequence, an empty one, ratios up to e^1.5."""
    d = batch("ragged", [4, 3], [4, 1, 3, 0 if empty else 2, 5, 2, 3],
              [1.0, 0.0, 0.5, 0.25, 0.0, 0.0, 1.0], holes=(2, 13, 14) if empty else (2, 15, 16))
    far = {i: d["logp"][i] - 1.5 for i in (4, 8)}
    return changed(d, logp_old=far)


def degenerate(singleton=True):
    """A group of equal rewards, a group of two, a lone winner, and (where defined) a group of one."""
    sizes = [3, 2, 4] + ([1] if singleton else [])
    rewards = [0.5] * 3 + [1.0, 0.0] + [0.0, 1.0, 0.0, 0.0] + ([0.75] if singleton else [])
    return batch("degenerate", sizes, [2, 1, 2, 3, 1, 2, 2, 1, 2, 3][:sum(sizes)], rewards, holes=(1,))


def extreme():
    """Log-ratios of +-25 and +-32 under both signs of the advantage; bounded ratios only."""
    d = batch("extreme", [2, 2], [3, 3, 2, 2], [1.0, 0.0, -1.0, 0.5])
    return changed(d, logp={0: -0.5, 1: -30.0, 3: -0.5, 4: -30.0, 6: -0.25},
                   logp_old={0: -25.5, 1: -5.0, 3: -32.5, 4: -5.0, 6: -1.75},
                   logp_ref={0: -24.0, 1: -6.0, 3: -33.0, 4: -4.0, 6: -1.0})


def far_reference():
    """References far from the policy on both sides: the KL clamps act."""
    d = batch("far", [3], [3, 2, 3], [1.0, 0.0, 0.25])
    return changed(d, logp_ref={0: d["logp"][0] + 3.0, 1: d["logp"][1] + 2.0, 3: d["logp"][3] - 12.0,
                                5: d["logp"][5] + 25.0, 6: d["logp"][6] - 25.0, 7: d["logp"][7] - 9.0})


def rollout():
    """Rollout log-probs that give the last sequence a weight of e^1.5, above the bound 3."""
    d = ragged()
    last = range(d["cu_seqlens"][-2], d["cu_seqlens"][-1])
    return changed(d, logp_rollout={t: d["logp_old"][t] - 0.5 for t in last})


def close_rewards():
    """Two groups whose rewards differ by 1e-5 (rounded to float32): the spread must not vanish in rounding."""
    return batch("close", [2, 2], [2, 3, 1, 2], [1.0, 1.0000100135803223, 2.0, 2.0000100135803223])


def poisoned(data):
    """The same with NaN behind the mask."""
    out = {k: list(v) for k, v in data.items()}
    for t, m in enumerate(data["mask"]):
        if not m:
            for name in ("logp", "logp_old", "logp_ref", "logp_rollout"):
                out[name][t] = "nan"
    return out


def scenarios(name):
    """(label, data, overrides, note) beyond the framework's defaults."""
    out = [("default", ragged(), {}, None), ("default-poison", poisoned(ragged()), {}, "masked entries hold NaN"),
           ("degenerate", degenerate(name in ("trl", "verl", "nemo_rl", "areal")), {},
            "equal rewards, a group of two, a lone winner" + (
                ", a group of one" if name in ("trl", "verl", "nemo_rl", "areal") else ""))]
    if name in ("verl", "openrlhf", "tunix"):
        out.append(("extreme", extreme(), {}, "beyond the log-ratio bound the gradient is 0"))
    if name in ("nemo_rl", "openrlhf", "areal", "tunix", "torchtune"):
        data = far_reference()
        if name == "torchtune":
            data = changed(data, logp_ref={5: data["logp"][5] + 4.0})
        out.append(("far_reference", data, {}, None))
    if name == "trl":
        out += [("global_count", ragged(), {"denominator": 40}, "the batch is a part of a larger one with 40 tokens"),
                ("kl", ragged(), {"kl_place": "loss", "kl_coef": 0.04}, "beta set; it is 0 by default"),
                ("rollout_mask", rollout(), {"correction": "sequence_mask", "correction_high": 3.0},
                 "the sampling engine differs from the trainer: a sequence whose weight exceeds the bound counts 0")]
    if name == "verl":
        out.append(("close_rewards", close_rewards(), {}, "every advantage is +-0.6196008 in verl's own test"))
        out.append(("kl", far_reference(), {"kl_place": "loss", "kl_coef": 0.001, "kl_input_bound": 20.0,
                                            "kl_output_bound": 10.0}, "KL loss switched on; it is off by default"))
    if name in ("openrlhf", "areal"):
        out.append(("no_kl", ragged(), {"kl_place": "none", "kl_coef": 0.0}, "KL switched off"))
    if name == "areal":
        out.append(("reward_clip", changed(ragged(), reward={0: 64.0, 1: -48.0, 4: 24.0}), {}, "rewards beyond +-20 are clipped first"))
    if name in ("slime", "torchtune", "tunix"):
        out.append(("no_empty", ragged(empty=False), {}, "a fully masked sequence, but no empty one"))
    return out


def used(data, p):
    """Only the arrays that the conventions read."""
    drop = set()
    if p["kl_place"] == "none":
        drop.add("logp_ref")
    if p["correction"] == "none":
        drop.add("logp_rollout")
    if p["on_policy"]:
        drop.add("logp_old")
    return {k: v for k, v in data.items() if k not in drop}


def cases():
    out = []
    for name, own in DEFAULTS.items():
        for label, data, overrides, note in scenarios(name):
            p = {**CONVENTION, **own, **overrides}
            if p["aggregation"] == "token_mean_global" and "denominator" not in p:
                p["denominator"] = sum(data["mask"])
            out.append(vector(f"F-{name}-{label}", name, EQUATION[name], p, used(data, p), loss, ("logp",), outputs,
                              note))
    return out
