"""The unified paradigm of DeepSeekMath (arXiv 2402.03300 §5.2, App. A.1): grad J = E[1/|o| sum_t GC_t grad log pi(o_t)].

Every coefficient here is the numeric derivative of the method's objective J, scaled by |o| and by the number of
outputs (pairs for DPO); the closed forms of the paper are asserted, not used. value and gradient are those of -J.
"""

import random

from mpmath import exp, mpf

from .common import dyadics, gradient, mean, offsets, total
from .preference import log_sigmoid, sigmoid, vector
from .supervised import active_rows


def expectation(token, fixed):
    """Mean over outputs of the mean over active tokens; an output without tokens contributes 0."""
    out = [total(token(i, t) for t in r) / max(len(r), 1) for i, r in enumerate(active_rows(fixed))]
    return mean(out)


def sft(x, fixed, p):
    return -expectation(lambda i, t: x["logp"][t], fixed)


def rft(x, fixed, p):
    return -expectation(lambda i, t: fixed["correct"][i] * x["logp"][t], fixed)


def advantage(fixed, i, t):
    return fixed["advantage"][i] if "advantage" in fixed else fixed["advantage_token"][t]


def ppo(x, fixed, p):
    def token(i, t):
        ratio = exp(x["logp"][t] - fixed["logp_old"][t])
        a = advantage(fixed, i, t)
        return min(ratio * a, max(min(ratio, 1 + p["high"]), 1 - p["low"]) * a)
    return -expectation(token, fixed)


def grpo(x, fixed, p):
    def token(i, t):
        ratio = exp(x["logp"][t] - fixed["logp_old"][t])
        to_ref = fixed["logp_ref"][t] - x["logp"][t]
        return ratio * advantage(fixed, i, t) - p["beta"] * (exp(to_ref) - to_ref - 1)
    return -expectation(token, fixed)


def margin(x, fixed, p):
    """Per pair, beta times the difference of (mean or summed) log-ratios; even rows are chosen, odd rejected."""
    scores = []
    for r in active_rows(fixed):
        s = total(x["logp"][t] - fixed["logp_ref"][t] for t in r)
        scores.append(s / max(len(r), 1) if p["log_prob"] == "average" else s)
    return [p["beta"] * (w - l) for w, l in zip(scores[0::2], scores[1::2])]


def dpo(x, fixed, p):
    return -mean(log_sigmoid(z) for z in margin(x, fixed, p))


def scaled(loss, per_row, divide=mpf(1)):
    """The gradient coefficient: minus the slope of the loss times |o| times the number of outputs."""
    def extra(fixed, p):
        slope = gradient(lambda v: loss({**fixed, "logp": v}, fixed, p), fixed["logp"])
        out = [mpf(0)] * len(slope)
        active = active_rows(fixed)
        for i, r in enumerate(active):
            for t in r:
                length = len(r) if p.get("log_prob", "average") == "average" else 1
                out[t] = -slope[t] * length * len(active) / per_row / (p["beta"] if divide == "beta" else 1)
        for i, r in enumerate(active):
            for t in r:
                assert abs(out[t] - closed_form(loss, fixed, p, i, t)) < mpf(10) ** -20
        return {"coefficient": out}
    return extra


def closed_form(loss, fixed, p, i, t):
    """What the paper writes for GC."""
    if loss is sft:
        return mpf(1)
    if loss is rft:
        return fixed["correct"][i]
    if loss is ppo:
        return advantage(fixed, i, t)
    if loss is grpo:
        return advantage(fixed, i, t) + p["beta"] * (exp(fixed["logp_ref"][t] - fixed["logp"][t]) - 1)
    return sigmoid(-margin(fixed, fixed, p)[i // 2]) * (1 if i % 2 == 0 else -1)


def batch(seed, lengths, holes=()):
    rng = random.Random(seed)
    n = sum(lengths)
    logp = dyadics(rng, n, -3, -0.0625)
    return {"logp": logp, "logp_old": list(logp), "logp_ref": [a + d for a, d in zip(logp, dyadics(rng, n, -1, 1))],
            "mask": [int(t not in holes) for t in range(n)], "cu_seqlens": offsets(lengths)}


def pick(inputs, *names):
    return {k: inputs[k] for k in names + ("mask", "cu_seqlens")}


SINGLE = "one update per batch of samples, so logp_old = logp and every ratio is 1"


def cases():
    out = []
    for i, (lengths, holes) in enumerate([([3, 1, 4, 2], ()), ([2, 0, 5, 3], (3, 8))], 1):
        d = batch(f"paradigm{i}", lengths, holes)
        n = sum(lengths)
        rng = random.Random(f"labels{i}")
        per_sequence = {"advantage": dyadics(rng, 4, -1.5, 1.5)}
        per_token = {"advantage_token": dyadics(rng, n, -1.5, 1.5)}
        correct = {"correct": [[1, 0, 1, 0], [0, 1, 1, 0]][i - 1]}

        def add(name, section, p, inputs, loss, per_row=1, divide=mpf(1), note=None, suffix=""):
            out.append(vector(f"U-{name}-{i}{suffix}", name, f"arXiv 2402.03300 §5.2, App. {section}", p, inputs, loss,
                              ("logp",), scaled(loss, per_row, divide), note))

        add("sft", "A.1.1", {}, pick(d, "logp"), sft)
        add("rft", "A.1.2", {}, {**pick(d, "logp"), **correct}, rft, note="outputs sampled from the SFT model")
        add("online_rft", "A.1.3", {}, {**pick(d, "logp"), **correct}, rft, note="outputs sampled from the policy")
        for j, log_prob in enumerate(["average", "sum"], 1):
            add("dpo", "A.1.4", {"beta": 0.25 * j, "log_prob": log_prob}, pick(d, "logp", "logp_ref"), dpo, 2, "beta",
                "rows 2k are chosen, 2k+1 rejected; the coefficient is signed, without the factor beta that the "
                "paper's GC leaves out; value and gradient are the objective's own. With sum there is no 1/|o|.", f"-{j}")
        for j, a in enumerate([per_sequence, per_token], 1):
            add("ppo", "A.1.5", {"low": 0.2, "high": 0.2}, {**pick(d, "logp", "logp_old"), **a}, ppo, note=SINGLE,
                suffix=f"-{j}")
            add("grpo", "A.1.6", {"beta": 0.04 * j}, {**pick(d, "logp", "logp_old", "logp_ref"), **a}, grpo,
                note=SINGLE + (" (outcome supervision)" if j == 1 else " (process supervision)"), suffix=f"-{j}")
    return out
