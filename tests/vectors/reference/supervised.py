"""Likelihood losses: SFT (S01), DFT (S02), rejection fine-tuning offline and online (S03).

The per-token loss is -weight * logp; the weight is a constant (1, the token's own probability, or 1[correct]).
"""

import random

from mpmath import exp, mpf

from .common import dyadics, offsets, rows, total
from .preference import vector


def active_rows(fixed):
    """The active token indices of every sequence."""
    return [[t for t in r if fixed["mask"][t] != 0] for r in rows([int(v) for v in fixed["cu_seqlens"]])]


def reduced(token, fixed, p):
    """Aggregates a token loss; `counts` says whether empty sequences weigh in the mean over sequences."""
    active = active_rows(fixed)
    kind = p["aggregation"]
    if kind == "token_sum":
        return total(token(i, t) for i, r in enumerate(active) for t in r)
    if kind in ("token_mean", "token_mean_global"):
        tokens = sum(len(r) for r in active)
        bottom = p["denominator"] if kind == "token_mean_global" else max(tokens, 1)
        return total(token(i, t) for i, r in enumerate(active) for t in r) / bottom
    means = [total(token(i, t) for t in r) / max(len(r), 1) for i, r in enumerate(active)]
    rows_counted = len(active) if p["count_empty"] else sum(1 for r in active if r)
    return total(means) / max(rows_counted, 1)


def sft(x, fixed, p):
    return reduced(lambda i, t: -x["logp"][t], fixed, p)


def dft(x, fixed, p):
    return reduced(lambda i, t: -exp(fixed["logp"][t]) * x["logp"][t], fixed, p)


def rft(x, fixed, p):
    """The expectation runs over every sampled output ("all") or over the kept, correct ones ("correct")."""
    correct = [c != 0 for c in fixed["correct"]]
    if p["denominator_over"] == "all":
        return reduced(lambda i, t: -x["logp"][t] if correct[i] else mpf(0), fixed, p)
    lengths = [b - a for a, b in zip(fixed["cu_seqlens"][:-1], fixed["cu_seqlens"][1:])]
    kept = [i for i, keep in enumerate(correct) if keep]
    flat = [t for i in kept for t in range(int(fixed["cu_seqlens"][i]), int(fixed["cu_seqlens"][i] + lengths[i]))]
    part = {"mask": [fixed["mask"][t] for t in flat], "cu_seqlens": offsets([int(lengths[i]) for i in kept])}
    return reduced(lambda i, t: -x["logp"][flat[t]], part, p)


def data(seed, lengths, holes=(), poison=()):
    """Ragged token log-probs; holes are masked, poison positions are masked and hold NaN."""
    rng = random.Random(seed)
    n = sum(lengths)
    logp = dyadics(rng, n, -4, -0.015625)
    mask = [int(t not in holes and t not in poison) for t in range(n)]
    return {"logp": ["nan" if t in poison else v for t, v in enumerate(logp)], "mask": mask,
            "cu_seqlens": offsets(lengths)}


SHAPES = [
    data("a", [3, 1, 4]),
    data("b", [2, 0, 5, 1], holes=(3, 7)),
    data("c", [4, 3, 2], holes=(0, 4, 5, 6), poison=(2,)),
    data("empty", [2, 0], holes=(0, 1)),
]
NOTES = [None, "an empty sequence and a sequence whose only token is masked", "masked positions may hold NaN",
         "nothing is active: the value and every gradient are 0"]

AGGREGATIONS = [
    {"aggregation": "token_mean"},
    {"aggregation": "token_mean_global", "denominator": 37},
    {"aggregation": "sequence_mean_token_mean", "count_empty": 1},
    {"aggregation": "sequence_mean_token_mean", "count_empty": 0},
    {"aggregation": "token_sum"},
]


def cases():
    out = []
    for name, tag, f, equation in (("sft", "S01", sft, "negative log-likelihood; arXiv 2402.03300 App. A.1.1"),
                                   ("dft", "S02", dft, "arXiv 2508.05629")):
        for i, (inputs, note) in enumerate(zip(SHAPES, NOTES), 1):
            for j, p in enumerate(AGGREGATIONS, 1):
                out.append(vector(f"{tag}-{name}-{i}-{j}", name, equation, p, inputs, f, ("logp",), note=note))
    correct = [[1, 0, 1], [0, 1, 1, 0], [1, 1, 0], [1, 0]]
    for name, section in (("rft", "A.1.2"), ("online_rft", "A.1.3")):
        for i, (inputs, label, note) in enumerate(zip(SHAPES, correct, NOTES), 1):
            for j, (p, over) in enumerate([(AGGREGATIONS[2], "all"), (AGGREGATIONS[2], "correct"),
                                           (AGGREGATIONS[0], "correct"), (AGGREGATIONS[3], "all")], 1):
                out.append(vector(f"S03-{name}-{i}-{j}", name, f"arXiv 2402.03300 §5.2, App. {section}",
                                  {**p, "denominator_over": over}, {**inputs, "correct": label}, rft, ("logp",),
                                  note=note))
        out.append(vector(f"S03-{name}-none_correct", name, f"arXiv 2402.03300 §5.2, App. {section}",
                          {**AGGREGATIONS[2], "denominator_over": "correct"}, {**SHAPES[0], "correct": [0, 0, 0]},
                          rft, ("logp",), note="no output is correct: the value and every gradient are 0"))
    return out
