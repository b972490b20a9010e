"""Reward-model losses: pairwise logistic with margin and centring, log-exp, step-labelled cross-entropy (PRM)."""

import random

from mpmath import exp, log, log1p, mpf

from .common import dyadics, mean, offsets, rows, total
from .preference import log_sigmoid, vector


def pairwise(x, fixed, p):
    margin = fixed.get("margin", [mpf(0)] * len(fixed["chosen"]))
    pairs = list(zip(x["chosen"], x["rejected"], margin))
    centre = mean((w + l) ** 2 for w, l, _ in pairs)
    return mean(-log_sigmoid(w - l - m) for w, l, m in pairs) + p["centre_coef"] * centre


def log_exp(x, fixed, p):
    return mean(log1p(exp(l - w)) for w, l in zip(x["chosen"], x["rejected"]))


def prm_rows(fixed, p):
    """Labelled tokens: all of them, or only the last labelled token of every sequence."""
    out = []
    for r in rows([int(v) for v in fixed["cu_seqlens"]]):
        labelled = [t for t in r if fixed["label"][t] != p["ignore_label"]]
        out += labelled[-1:] if p["last_step_only"] else labelled
    return out


def prm(x, fixed, p):
    """Mean cross-entropy of the class logits (token-major) at labelled tokens; 0 when there is none."""
    classes = int(p["classes"])
    losses = []
    for t in prm_rows(fixed, p):
        z = x["logits"][classes * t:classes * (t + 1)]
        losses.append(log(total(exp(v) for v in z)) - z[int(fixed["label"][t])])
    return mean(losses)


def prm_single(x, fixed, p):
    """The same with one logit per token: binary cross-entropy with logits."""
    losses = []
    for t in prm_rows(fixed, p):
        z = x["logits"][t]
        losses.append(-log_sigmoid(z if fixed["label"][t] != 0 else -z))
    return mean(losses)


PAIRS = [
    {"chosen": [1.5, -0.25, 3.0, 0.125], "rejected": [0.5, 0.75, -2.0, 0.125]},
    {"chosen": [256.0, -256.0, 12.0], "rejected": [-256.0, 256.0, 11.0]},
]
MARGINS = [[0.0, 0.5, 2.25, 1.0], [1.0, 3.0, 0.25]]


def pair_cases():
    out = []
    rng = random.Random("pairs")
    sets = [(d, m) for d, m in zip(PAIRS, MARGINS)]
    sets.append(({"chosen": dyadics(rng, 5, -3, 3), "rejected": dyadics(rng, 5, -3, 3)}, dyadics(rng, 5, 0, 2)))
    for i, (d, margin) in enumerate(sets, 1):
        for j, (inputs, coef) in enumerate([(d, 0.0), ({**d, "margin": margin}, 0.0),
                                            (d, 0.01), ({**d, "margin": margin}, 0.5)], 1):
            out.append(vector(f"RM-pairwise-{i}-{j}", "pairwise", "arXiv 2307.09288 eq. 2; centring arXiv 2312.09244",
                              {"centre_coef": coef}, inputs, pairwise, ("chosen", "rejected"),
                              note="margin is absent: 0" if "margin" not in inputs else None))
        out.append(vector(f"RM-log_exp-{i}", "log_exp", "arXiv 2204.05862", {}, d, log_exp, ("chosen", "rejected")))
    return out


def prm_cases():
    out = []
    rng = random.Random("prm")
    shapes = [([5, 3], {1: 1, 4: 0, 6: 1, 7: 1}), ([1, 0, 6], {0: 1, 3: 0, 5: 0, 6: 1}), ([3], {})]
    for i, (lengths, steps) in enumerate(shapes, 1):
        n = sum(lengths)
        label = [steps.get(t, -100) for t in range(n)]
        for j, last in enumerate([0, 1], 1):
            p = {"classes": 2, "ignore_label": -100, "last_step_only": last}
            shape = {"label": label, "cu_seqlens": offsets(lengths)}
            note = "a step's label sits on its last token, -100 elsewhere" if steps else "no label: value and gradient 0"
            out.append(vector(f"PRM-prm-{i}-{j}", "prm", "cf. arXiv 2211.14275", p,
                              {"logits": dyadics(rng, 2 * n, -6, 6), **shape}, prm, ("logits",), note=note))
            out.append(vector(f"PRM-prm_single-{i}-{j}", "prm_single", "cf. arXiv 2211.14275",
                              {**p, "classes": 1}, {"logits": dyadics(rng, n, -6, 6), **shape}, prm_single,
                              ("logits",), note=note))
    return out


def cases():
    return pair_cases() + prm_cases()
