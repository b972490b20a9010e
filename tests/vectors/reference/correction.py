"""Rollout-mismatch correction R01-R12: weights, rejection masks, veto, bypass and off-policy metrics.

log w = logp_old - logp_rollout. Level "token": w_t = exp(log w_t); "sequence": exp(sum of log w); "geometric":
exp(mean of log w), the last two repeated at every active token. The log quantity is cut to +-log_weight_bound before
exp. A NaN logp_rollout means "missing": that token has log w = 0 and is counted. Masked positions weigh 0.
"""

import math
import random

from mpmath import exp, log, sqrt

from .aggregation import GARBAGE, active_rows, aggregate, over, token_weights
from .common import case, dyadics, gradient, mean, mpf, num, nums, offsets, total
from .policy import BOUND, PPO, Context, clip, term_clip

LAYOUTS = {
    "holes": ([4, 1, 0, 5], "1011" "1" "" "11101"),
    "masked_row": ([3, 5, 2, 3], "111" "01111" "00" "101"),
    "all_masked": ([2, 3], "00" "000"),
}
MILD = [0.25, -0.1875, 0.5, -0.0625, 0.9375, -0.75, 0.125, 1.25, -1.5, 0.03125]


def inputs_of(rng, layout, scale=1.0, far=(), missing=()):
    """logp_old and logp_rollout whose differences visit both sides of the usual bands."""
    lengths, bits = LAYOUTS[layout]
    cu, mask = offsets(lengths), [int(b) for b in bits]
    rollout = dyadics(rng, cu[-1], -4, -1.5)
    steps = [MILD[(t + len(layout)) % len(MILD)] * scale for t in range(cu[-1])]
    old = [r + s + j for r, s, j in zip(rollout, steps, dyadics(rng, cu[-1], -0.01, 0.01))]
    for t, x in far:
        old[t] = rollout[t] + x
    rollout = ["nan" if t in missing else x for t, x in enumerate(rollout)]
    hide = lambda xs: [x if m else GARBAGE for x, m in zip(xs, mask)]
    return {"logp_old": hide(old), "logp_rollout": hide(rollout), "mask": mask, "cu_seqlens": cu}


def is_missing(x):
    return x == "nan" or (isinstance(x, float) and math.isnan(x))


def log_weights(inputs):
    """log w per token: 0 where the rollout's logp is missing, None where masked."""
    out = []
    for o, r, m in zip(inputs["logp_old"], inputs["logp_rollout"], inputs["mask"]):
        out.append(None if not m else mpf(0) if is_missing(r) else num(o) - num(r))
    return out


def raw_weights(level, bound, inputs):
    """{active token: weight before any cap}."""
    logs, out = log_weights(inputs), {}
    for row in active_rows(inputs["cu_seqlens"], inputs["mask"]):
        whole = total(logs[t] for t in row)
        for t in row:
            x = {"token": logs[t], "sequence": whole, "geometric": whole / len(row)}[level]
            out[t] = exp(clip(x, -bound, bound))
    return out


def shaped(method, p, w):
    """One weight after the method's rule, and whether it lay outside the band."""
    if method == "tis":
        return min(w, num(p["cap"])), w > num(p["cap"])
    low, high = num(p["low"]), num(p["high"])
    outside = w < low or w > high
    if method == "tis_band":
        return clip(w, low, high), outside
    return (mpf(0) if outside else w), outside


def normaliser(level, rows, w):
    """Mean weight: over tokens, or over non-empty rows of the row mean; 1 when it is not above 1e-8."""
    if level == "token":
        centre = mean(w.values())
    else:
        centre = mean(mean(w[t] for t in row) for row in rows if row)
    return centre if centre > mpf(10) ** -8 else mpf(1)


def weights_of(method, p, inputs):
    rows, bound = active_rows(inputs["cu_seqlens"], inputs["mask"]), num(p["log_weight_bound"])
    if method == "seq_mask_tis":
        token, geometric = raw_weights("token", bound, inputs), raw_weights("geometric", bound, inputs)
        outside = {t: shaped("icepop", p, geometric[t])[1] for t in token}
        return {t: mpf(0) if outside[t] else w for t, w in token.items()}, outside
    pairs = {t: shaped(method, p, w) for t, w in raw_weights(p["level"], bound, inputs).items()}
    w = {t: a for t, (a, _) in pairs.items()}
    if p["normalise"]:
        centre = normaliser(p["level"], rows, w)
        w = {t: x / centre for t, x in w.items()}
    return w, {t: b for t, (_, b) in pairs.items()}


def solve_weights(method, p, inputs):
    w, outside = weights_of(method, p, inputs)
    n = len(inputs["mask"])
    missing = sum(1 for r, m in zip(inputs["logp_rollout"], inputs["mask"]) if m and is_missing(r))
    return {"weight": [w.get(t, mpf(0)) for t in range(n)], "tokens": len(w), "outside_tokens": sum(outside.values()),
            "missing_tokens": missing, "weight_sum": total(w.values()),
            "weight_square_sum": total(x * x for x in w.values())}


WEIGHTS = [
    ("R01", "tis", "truncated importance sampling, min(w, C)", {"cap": 2.0}),
    ("R01", "tis", "truncated importance sampling, min(w, C)", {"cap": 1.125}),
    ("R07", "tis_band", "clip(w, low, high)", {"low": 0.5, "high": 1.5}),
    ("R09", "tis_band", "clip(w, low, high)", {"low": 0.0, "high": 2.0}),
    ("R02", "icepop", "arXiv 2510.18855: w inside the band, else 0", {"low": 0.5, "high": 2.0}),
    ("R02", "icepop", "arXiv 2510.18855: w inside the band, else 0", {"low": 0.8, "high": 1.3}),
]


def weight_cases(rng):
    out = []

    def add(id, method, equation, p, layout, note=None, **kind):
        inputs = inputs_of(rng, layout, **kind)
        p = {**p, "log_weight_bound": p.get("log_weight_bound", 20)}
        name = f"{id}-{method}-{p.get('level', 'sequence')}-{len(out) + 1}"
        out.append(case(name, method, equation, p, inputs, solve_weights(method, p, inputs), note=note))

    for id, method, equation, p in WEIGHTS:
        for level in ("token", "sequence", "geometric"):
            for normalise in (0, 1):
                q = {**p, "level": level, "normalise": normalise}
                add(id, method, equation, q, "holes")
                add(id, method, equation, q, "masked_row", scale=0.5)
    for level in ("token", "sequence", "geometric"):
        q = {"cap": 1e10, "level": level, "normalise": 0}
        add("R10", "tis", "safety bound on the log quantity", {**q, "log_weight_bound": 0.5}, "holes")
        add("R10", "tis", "safety bound on the log quantity", q, "holes", far=((0, 30.0), (4, -30.0)))
        q = {"cap": 2.0, "level": level, "normalise": 0}
        add("R01", "tis", "truncated importance sampling, min(w, C)", q, "all_masked")
        add("R01", "tis", "truncated importance sampling, min(w, C)", {**q, "normalise": 1}, "all_masked")
        add("R01-missing", "tis", "missing rollout logp: neutral", q, "masked_row", missing=(1, 4, 10),
            note="NaN logp_rollout: log w = 0 there")
    nothing = {"low": 90.0, "high": 99.0, "level": "token", "normalise": 1}
    add("R03", "icepop", "normalisation is skipped where the mean weight is not above 1e-8", nothing, "holes")
    for low, high in ((0.5, 2.0), (0.9, 1.2), (0.999, 1.001)):
        for layout, scale in (("holes", 1.0), ("masked_row", 0.5), ("masked_row", 2.0)):
            add("R08", "seq_mask_tis", "row kept where low <= exp(mean log w) <= high; token weights whole",
                {"low": low, "high": high}, layout, scale=scale)
    return out


# ---- rejection and veto --------------------------------------------------------------------------------------------

def statistic(stat, x):
    return {"k1": -x, "k2": x * x / 2, "k3": exp(x) - 1 - x}[stat]


def within(stat, p, s):
    """k1 keeps log low <= k1 <= log high; k2 and k3 keep s <= high. Bounds included."""
    if stat == "k1":
        return log(num(p["low"])) <= s <= log(num(p["high"]))
    return s <= num(p["high"])


def reject(p, inputs):
    """Per-token keep flags, and the statistic per token or per sequence."""
    rows, logs = active_rows(inputs["cu_seqlens"], inputs["mask"]), log_weights(inputs)
    bound = num(p["log_weight_bound"])
    n, stat = len(inputs["mask"]), p["stat"]
    s = [statistic(stat, clip(x, -bound, bound)) if x is not None else mpf(0) for x in logs]
    keep = [0] * n
    if p["level"] == "token":
        for t in (t for row in rows for t in row):
            keep[t] = int(within(stat, p, s[t]))
        return keep, s
    fold = {"sequence_sum": total, "sequence_mean": mean, "sequence_max": lambda xs: max(list(xs), default=mpf(0))}
    per_row = [fold[p["level"]](s[t] for t in row) for row in rows]
    for row, value in zip(rows, per_row):
        for t in row:
            keep[t] = int(within(stat, p, value))
    return keep, per_row


def veto(p, inputs):
    """A sequence with any active token of log w < log threshold is dropped whole."""
    logs, keep = log_weights(inputs), [0] * len(inputs["mask"])
    for row in active_rows(inputs["cu_seqlens"], inputs["mask"]):
        good = all(logs[t] >= log(num(p["threshold"])) for t in row)
        for t in row:
            keep[t] = int(good)
    return keep


def counts(keep, inputs):
    rows = [row for row in active_rows(inputs["cu_seqlens"], inputs["mask"]) if row]
    tokens = sum(len(row) for row in rows)
    return {"keep": keep, "tokens": tokens, "rejected_tokens": tokens - sum(keep), "sequences": len(rows),
            "rejected_sequences": sum(1 for row in rows if not any(keep[t] for t in row))}


BANDS = {
    ("k1", "token"): [(0.5, 2.0), (0.8, 1.25)],
    ("k1", "sequence_sum"): [(0.5, 2.0), (0.25, 8.0)],
    ("k1", "sequence_mean"): [(0.999, 1.001), (0.75, 1.5)],
    ("k2", "token"): [(0.0, 0.125)], ("k3", "token"): [(0.0, 0.125)],
    ("k2", "sequence_sum"): [(0.0, 0.5)], ("k3", "sequence_sum"): [(0.0, 0.5)],
    ("k2", "sequence_mean"): [(0.0, 0.125)], ("k3", "sequence_mean"): [(0.0, 0.01), (0.0, 0.25)],
    ("k2", "sequence_max"): [(0.0, 0.25)], ("k3", "sequence_max"): [(0.0, 0.375)],
}


def reject_cases(rng):
    out = []
    for (stat, level), bands in BANDS.items():
        for low, high in bands:
            for layout, kind in (("holes", {}), ("masked_row", {"scale": 0.5}), ("holes", {"far": ((0, 25.0),)}),
                                 ("masked_row", {"missing": (1, 6)})):
                p = {"stat": stat, "level": level, "low": low, "high": high, "log_weight_bound": 20}
                inputs = inputs_of(rng, layout, **kind)
                keep, s = reject(p, inputs)
                out.append(case(f"R04-reject-{stat}-{level}-{len(out) + 1}", "reject",
                                "keep by k1 = -log w, k2 = log^2 w / 2, k3 = w - 1 - log w", p, inputs,
                                {**counts(keep, inputs), "statistic": s}))
    for threshold in (1e-4, 0.125, 0.5):
        for layout, kind in (("holes", {}), ("masked_row", {"far": ((4, -10.0),)}), ("all_masked", {})):
            p, inputs = {"threshold": threshold}, inputs_of(rng, layout, **kind)
            out.append(case(f"R10-veto-{len(out) + 1}", "veto", "any token with w < threshold drops its sequence", p,
                            inputs, counts(veto(p, inputs), inputs)))
    return out


# ---- corrected losses and bypass -----------------------------------------------------------------------------------

def loss_terms(method, p, inputs):
    """The token loss as a function of the perturbed logp, and the mask its denominators count."""
    mask = list(inputs["mask"])
    if method.startswith("bypass"):
        c = Context(p, {**inputs, "logp_old": inputs["logp_rollout"]})
        if method == "bypass_clip":
            return lambda x: term_clip(c, x), mask
        bound, rollout = num(p["log_ratio_bound"]), nums(inputs["logp_rollout"])
        w = {t: exp(clip(c.x0[t] - rollout[t], -bound, bound)) for t in c.active}
        return lambda x: {t: -c.A[t] * x[t] * w[t] for t in c.active}, mask
    c = Context(p, inputs)
    if method == "clip_reject":
        keep, _ = reject({**p, "high": p["band_high"]}, inputs)
        kept = mask if p["denominator_counts"] == "original" else keep
        return lambda x: {t: v * keep[t] for t, v in term_clip(c, x).items()}, kept
    w, _ = weights_of(method.removeprefix("clip_"), {**p, "low": p.get("band_low"), "high": p.get("band_high")}, inputs)
    return lambda x: {t: v * w[t] for t, v in term_clip(c, x).items()}, mask


def solve_loss(method, p, inputs):
    loss, counted = loss_terms(method, p, inputs)
    weights = token_weights(p, inputs["cu_seqlens"], counted)

    def value(x):
        terms = loss(x)
        return aggregate(weights, [terms.get(t, 0) for t in range(len(weights))], inputs["mask"])

    skip = [t for t, m in enumerate(inputs["mask"]) if not m]
    return {"value": value(nums(inputs["logp"])), "gradient": {"logp": gradient(value, inputs["logp"], skip)}}


LOSSES = [
    ("R05", "bypass_clip", "clip with logp_old := logp_rollout, no weight", PPO),
    ("R05", "bypass_reinforce", "-A logp w, w = exp(logp - logp_rollout) detached", BOUND),
    ("R01", "clip_tis", "PPO clip x truncated weight", {**PPO, "cap": 1.5, "level": "token"}),
    ("R01", "clip_tis", "PPO clip x truncated weight", {**PPO, "cap": 1.5, "level": "sequence"}),
    ("R02", "clip_icepop", "PPO clip x IcePop weight", {**PPO, "band_low": 0.5, "band_high": 2.0, "level": "token"}),
    ("R02", "clip_icepop", "PPO clip x sequence mask", {**PPO, "band_low": 0.3, "band_high": 3.0, "level": "sequence"}),
]


def loss_cases(rng):
    out = []

    def add(id, method, equation, p, layout):
        inputs = inputs_of(rng, layout)
        n, rows = len(inputs["mask"]), len(inputs["cu_seqlens"]) - 1
        step = dyadics(rng, n, -0.6, 0.6)
        logp = [o + s if m else GARBAGE for o, s, m in zip(inputs["logp_old"], step, inputs["mask"])]
        inputs = {"logp": logp, **inputs, "advantage": dyadics(rng, rows, -2, 2)}
        out.append(case(f"{id}-{method}-{p['aggregation']}-{len(out) + 1}", method, equation, p, inputs,
                        solve_loss(method, p, inputs)))

    token, row = {"aggregation": "token_mean"}, {"aggregation": "sequence_mean_token_mean", "count_empty": 0}
    for id, method, equation, p in LOSSES:
        more = {} if method.startswith("bypass") else {"log_weight_bound": 20, "normalise": 0}
        add(id, method, equation, {**p, **more, **token}, "holes")
        add(id, method, equation, {**p, **more, **row}, "masked_row")
        add(id, method, equation, {**p, **more, **token}, "all_masked")
    for kept in ("original", "kept"):
        for stat, level, high in (("k2", "token", 0.125), ("k3", "sequence_mean", 0.2)):
            p = {**PPO, "stat": stat, "level": level, "band_high": high,
                 "denominator_counts": kept, "log_weight_bound": 20}
            add("R04", "clip_reject", "PPO clip on the kept tokens", {**p, **token}, "holes")
            add("R04", "clip_reject", "PPO clip on the kept tokens", {**p, **row}, "masked_row")
    return out


# ---- metrics -------------------------------------------------------------------------------------------------------

def metrics(p, inputs):
    """Off-policy metrics as sums and counts, so that they add over micro-batches, with the ratios made of them."""
    rows = [r for r in active_rows(inputs["cu_seqlens"], inputs["mask"]) if r]
    logs, bound = log_weights(inputs), num(p["log_weight_bound"])
    old, rollout = nums(inputs["logp_old"]), nums(inputs["logp_rollout"])
    x = [logs[t] for row in rows for t in row]
    w = [exp(clip(v, -bound, bound)) for v in x]
    n, square = len(x), total(v * v for v in w)
    ppl = [(exp(-mean(old[t] for t in r)), exp(-mean(rollout[t] for t in r))) for r in rows]
    out = {
        "tokens": n, "sequences": len(rows), "kl_sum": total(-v for v in x), "k3_sum": total(exp(v) - 1 - v for v in x),
        "weight_sum": total(w), "weight_square_sum": square, "absolute_log_sum": total(abs(v) for v in x),
        "probability_error_sum": total(exp(abs(v)) for v in x),
        "perplexity_old_sum": total(a for a, _ in ppl), "perplexity_rollout_sum": total(b for _, b in ppl),
        "log_perplexity_ratio_sum": total(log(a) - log(b) for a, b in ppl),
        "sequence_weight_square_sum": total(exp(2 * clip(total(logs[t] for t in r), -bound, bound)) for r in rows),
        "ess": over(total(w) ** 2, square), "ess_fraction": over(total(w) ** 2, n * square),
    }
    out["outside_low"] = sum(1 for v in w if v < num(p["low"]))
    out["outside_high"] = sum(1 for v in w if v > num(p["high"]))
    if n:
        out |= {"weight_min": min(w), "weight_max": max(w), "absolute_log_max": max(abs(v) for v in x),
                "chi2_token": square / n - 1, "chi2_sequence": out["sequence_weight_square_sum"] / len(rows) - 1,
                "weight_std": sqrt(square / n - (total(w) / n) ** 2)}
    return out


def metric_cases(rng):
    out = []
    for layout, scale in (("holes", 1.0), ("masked_row", 0.5), ("masked_row", 0.0625), ("all_masked", 1.0)):
        p = {"log_weight_bound": 20, "low": 0.5, "high": 2.0}
        inputs = inputs_of(rng, layout, scale)
        out.append(case(f"R-metrics-{len(out) + 1}", "off_policy_metrics",
                        "kl = logp_rollout - logp_old, ESS = (sum w)^2 / sum w^2, chi2 = mean w^2 - 1", p, inputs,
                        metrics(p, inputs)))
    return out


def cases():
    rng = random.Random(808)
    return weight_cases(rng) + reject_cases(rng) + loss_cases(rng) + metric_cases(rng)
