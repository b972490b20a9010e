"""Diagnostics as sums and counts, so that they add over micro-batches: clip fractions, KL, ratios, ESS, fit of values.

With d = logp - logp_old (KL of old against new, samples of old): k1 = -d, k2 = d^2 / 2, k3 = exp(d) - 1 - d.
Low clip: ratio < 1 - low and A < 0; high clip: ratio > 1 + high and A > 0; dual clip: A < 0 and ratio > c.
"""

import random

from mpmath import exp, sqrt

from .aggregation import over
from .common import case, dyadics, mean, num, nums, total
from .policy import BOUND, Context, batch, clip, sequence_ratio


def moments(prefix, xs):
    out = {f"{prefix}_sum": total(xs), f"{prefix}_square_sum": total(x * x for x in xs)}
    if xs:
        out |= {f"{prefix}_min": min(xs), f"{prefix}_max": max(xs)}
    return out


def solve_policy(p, inputs):
    c = Context(p, inputs)
    old, bound = c.array("logp_old"), num(p["log_ratio_bound"])
    d = {t: c.x0[t] - old[t] for t in c.active}
    if p["level"] == "sequence":
        r = {t: sequence_ratio(c, c.x0, row) for row in c.rows for t in row}
    else:
        r = {t: exp(clip(x, -bound, bound)) for t, x in d.items()}
    A, xs = c.A, list(d.values())
    low = sum(1 for t in c.active if r[t] < 1 - c["low"] and A[t] < 0)
    high = sum(1 for t in c.active if r[t] > 1 + c["high"] and A[t] > 0)
    out = {"tokens": len(xs), "clip_low": low, "clip_high": high, "clip": low + high,
           "dual_clip": sum(1 for t in c.active if A[t] < 0 and r[t] > c["c"]),
           "log_ratio_clamped": sum(1 for x in xs if abs(x) > bound),
           "k1_sum": total(-x for x in xs), "k2_sum": total(x * x / 2 for x in xs),
           "k3_sum": total(exp(x) - 1 - x for x in xs)}
    out |= moments("ratio", list(r.values()))
    square = out["ratio_square_sum"]
    out["ess"] = over(out["ratio_sum"] ** 2, square)
    out["ess_fraction"] = over(out["ratio_sum"] ** 2, len(xs) * square)
    if xs:
        out["absolute_log_ratio_max"] = max(abs(x) for x in xs)
        out["ratio_mean"] = out["ratio_sum"] / len(xs)
    return out


def policy_cases(rng):
    out = []
    p = {"low": 0.2, "high": 0.28, "c": 3.0, "level": "token", **BOUND}
    del p["bound_gradient"]

    def add(layout, parameters, change=None, **kind):
        inputs = batch(rng, layout, **kind)
        inputs.pop("group_offsets")
        if change:
            change(inputs)
        out.append(case(f"policy_diagnostics-{layout}-{len(out) + 1}", "policy_diagnostics",
                        "Schulman 2020 (k1, k2, k3), clip fractions, Kish effective sample size", parameters, inputs,
                        solve_policy({"bound_gradient": "zero", **parameters}, inputs)))

    def same(inputs):
        inputs["logp"] = list(inputs["logp_old"])

    def far(inputs):
        inputs["logp"][0] = inputs["logp_old"][0] + 12.0
        inputs["logp"][9] = inputs["logp_old"][9] - 15.0

    for layout in ("holes", "masked_row", "groups", "all_masked"):
        add(layout, p)
    add("zero", p, per_token=True)
    add("zero", {**p, "low": 0.1, "high": 0.1, "c": 1.5}, per_token=True)
    add("holes", p, change=same)
    add("holes", {**p, "log_ratio_bound": 10}, change=far)
    for layout in ("holes", "masked_row"):
        add(layout, {**p, "level": "sequence"}, row_level=True)
    return out


def value_fit_cases(rng):
    """Explained variance 1 - var(R - V) / var(R) over active tokens, from sums."""
    out = []
    for quality in (0.25, 1.0, 4.0, 0.0):
        n = 9
        target = dyadics(rng, n, -2, 2)
        value = [t + q for t, q in zip(target, dyadics(rng, n, -quality, quality))]
        mask = [1, 1, 0, 1, 1, 1, 0, 1, 1]
        inputs = {"value": value, "return": target, "mask": mask}
        R = [x for x, m in zip(nums(target), mask) if m]
        e = [x - v for x, v, m in zip(nums(target), nums(value), mask) if m]
        spread = lambda xs: total((x - mean(xs)) ** 2 for x in xs)
        expected = {"tokens": len(R), "explained_variance": 1 - spread(e) / spread(R), "residual_square_sum": spread(e),
                    "return_square_sum": spread(R)}
        out.append(case(f"explained_variance-{len(out) + 1}", "explained_variance", "1 - var(R - V) / var(R)", {},
                        inputs, expected))
    return out


def correlation_cases(rng):
    """Pearson correlation of the probabilities of trainer and rollout engine."""
    out = []
    for spread in (0.03125, 0.5, 2.0):
        rollout = dyadics(rng, 8, -3, -0.25)
        old = [min(x + y, -0.015625) for x, y in zip(rollout, dyadics(rng, 8, -spread, spread))]
        mask = [1, 1, 1, 0, 1, 1, 1, 1]
        inputs = {"logp_old": old, "logp_rollout": rollout, "mask": mask}
        pairs = [(exp(num(a)), exp(num(b))) for a, b, m in zip(old, rollout, mask) if m]
        a, b = mean(x for x, _ in pairs), mean(y for _, y in pairs)
        top = total((x - a) * (y - b) for x, y in pairs)
        rho = top / sqrt(total((x - a) ** 2 for x, _ in pairs) * total((y - b) ** 2 for _, y in pairs))
        out.append(case(f"probability_correlation-{len(out) + 1}", "probability_correlation",
                        "Pearson correlation of exp(logp_old) and exp(logp_rollout)", {}, inputs,
                        {"tokens": len(pairs), "correlation": rho}))
    return out


def cases():
    rng = random.Random(1010)
    return policy_cases(rng) + value_fit_cases(rng) + correlation_cases(rng)
