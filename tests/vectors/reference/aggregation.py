"""Aggregations G01-G09: from token losses to one number. Each is linear, so it is a list of token weights.

Other families import token_weights() and aggregate(); the parameters "aggregation", "denominator", "count_empty",
"length", "norm" and "alpha" mean the same everywhere.
"""

import random

from .common import case, dyadics, gradient, mpf, num, nums, offsets, rows, total

GARBAGE = 64.0  # what masked positions hold; large enough to be seen in any result it leaks into


def active_rows(cu_seqlens, mask):
    """Per row, the positions that count."""
    return [[t for t in row if mask[t]] for row in rows(cu_seqlens)]


def over(x, n):
    """x / n, and 0 for an empty denominator."""
    return x / n if n else mpf(0)


def row_count(members, p):
    """How many rows a mean over rows divides by; rows without an active token count only when asked for."""
    return len(members) if p["count_empty"] else sum(1 for m in members if m)


def row_factors(p, members, group_offsets):
    """The weight of every token of a row, row by row."""
    name, count = p["aggregation"], sum(len(m) for m in members)
    if name == "token_mean":
        return [over(mpf(1), count)] * len(members)
    if name == "token_mean_global":
        return [over(mpf(1), num(p["denominator"]))] * len(members)
    if name == "token_sum":
        return [mpf(1)] * len(members)
    if name == "sum_norm":
        return [1 / num(p["norm"])] * len(members)
    if name == "constant_length":
        return [over(mpf(1), len(members) * num(p["length"]))] * len(members)
    if name == "rollout_mean":
        return rollout_factors(p, members, group_offsets)
    powers = {"sequence_mean_token_mean": mpf(-1), "sequence_mean_token_sum": mpf(0)}
    power = num(p["alpha"]) - 1 if name == "length_power" else powers[name]
    n = row_count(members, p)
    return [over(mpf(len(m)) ** power, n) if m else mpf(0) for m in members]


def rollout_factors(p, members, group_offsets):
    """1 / (tokens of the rollout group x number of groups)."""
    groups = rows(group_offsets)
    sizes = [sum(len(members[i]) for i in g) for g in groups]
    n = len(groups) if p["count_empty"] else sum(1 for s in sizes if s)
    out = [mpf(0)] * len(members)
    for g, size in zip(groups, sizes):
        for i in g:
            out[i] = over(mpf(1), size * n)
    return out


def token_weights(p, cu_seqlens, mask, group_offsets=None):
    """The weight of every token in the scalar loss; exactly 0 where masked."""
    members = active_rows(cu_seqlens, mask)
    out = [mpf(0)] * cu_seqlens[-1]
    for m, factor in zip(members, row_factors(p, members, group_offsets)):
        for t in m:
            out[t] = factor
    return out


def aggregate(weights, values, mask):
    """Sum of weight x value over active tokens; masked values are never touched."""
    return total(w * v for w, v, m in zip(weights, values, mask) if m)


MODES = [
    ("G01", "arXiv 2503.14476 (token mean)", {"aggregation": "token_mean"}),
    ("G02", "arXiv 2503.14476, count of the global batch", {"aggregation": "token_mean_global", "denominator": 37}),
    ("G03", "arXiv 2402.03300 eq. 3", {"aggregation": "sequence_mean_token_mean", "count_empty": 0}),
    ("G03", "arXiv 2402.03300 eq. 3", {"aggregation": "sequence_mean_token_mean", "count_empty": 1}),
    ("G04", "mean over sequences of token sums", {"aggregation": "sequence_mean_token_sum", "count_empty": 0}),
    ("G04", "mean over sequences of token sums", {"aggregation": "sequence_mean_token_sum", "count_empty": 1}),
    ("G05", "arXiv 2503.20783 (constant length)", {"aggregation": "constant_length", "length": 12}),
    ("G06", "token sum", {"aggregation": "token_sum"}),
    ("G07", "token sum / norm", {"aggregation": "sum_norm", "norm": 6.5}),
    ("length_power", "mean over sequences of n^(alpha-1) x sum",
     {"aggregation": "length_power", "alpha": 0.25, "count_empty": 0}),
    ("length_power", "mean over sequences of n^(alpha-1) x sum",
     {"aggregation": "length_power", "alpha": 1.5, "count_empty": 1}),
    ("G09", "mean over rollout groups of token means", {"aggregation": "rollout_mean", "count_empty": 0}),
    ("G09", "mean over rollout groups of token means", {"aggregation": "rollout_mean", "count_empty": 1}),
]

# name, lengths, mask as one string over all tokens, rollout groups as counts of sequences
LAYOUTS = [
    ("holes", [4, 1, 0, 6], "0111" "1" "101101", [1, 3]),
    ("masked_row", [3, 5, 2], "111" "00000" "01", [1, 1, 1]),
    ("full", [2, 7], "11" "1111111", [2]),
    ("empty_group", [3, 0, 2, 4], "110" "" "00" "1011", [1, 2, 0, 1]),
    ("all_masked", [2, 3], "00" "000", [1, 1]),
    ("no_tokens", [0, 0], "", [2]),
    ("no_rows", [], "", []),
]


def one(rng, prefix, equation, p, layout, number):
    name, lengths, bits, groups = layout
    cu, mask = offsets(lengths), [int(b) for b in bits]
    loss = [x if m else GARBAGE for x, m in zip(dyadics(rng, cu[-1], -4, 4), mask)]
    inputs = {"loss": loss, "mask": mask, "cu_seqlens": cu}
    if p["aggregation"] == "rollout_mean":
        inputs["group_offsets"] = offsets(groups)
    weights = token_weights(p, cu, mask, inputs.get("group_offsets"))

    def value(x):
        return aggregate(weights, x, mask)

    skip = [t for t, m in enumerate(mask) if not m]
    expected = {"value": value(nums(loss)), "gradient": {"loss": gradient(value, loss, skip)}}
    return case(f"{prefix}-{p['aggregation']}-{name}-{number}", p["aggregation"], equation, p, inputs, expected)


def cases():
    rng = random.Random(601)
    out = []
    for number, (prefix, equation, p) in enumerate(MODES, 1):
        for layout in LAYOUTS:
            out.append(one(rng, prefix, equation, p, layout, number))
    return out
