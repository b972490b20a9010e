"""Value losses V01, V02 and entropy terms E01-E03.

V01: factor x max((v - R)^2, (v_clip - R)^2), v_clip = v_old + clip(v - v_old, +-clip_range); the factor is explicit.
V02: the same with the Huber function h(x) = x^2 / 2 for |x| < delta, else delta (|x| - delta / 2); factor 1 is usual.
"""

import random

from mpmath import exp, log

from .aggregation import GARBAGE, active_rows, aggregate, over, token_weights
from .common import case, dyadics, gradient, mpf, num, nums, offsets, total
from .policy import AGGREGATIONS, LAYOUTS, clip

ERRORS = [0.25, -0.375, 1.5, -2.25, 0.0625, 3.0, -0.75, -5.0, 0.5, -1.25]
MOVES = [0.125, 0.75, -0.25, -0.875, 0.5, -0.625, 1.25]


def layout_of(name):
    lengths, bits, groups, _ = LAYOUTS[name]
    return offsets(lengths), [int(b) for b in bits], offsets(groups)


def hidden(xs, mask):
    return [x if m else GARBAGE for x, m in zip(xs, mask)]


def penalty(p, x):
    if "delta" not in p:
        return x * x
    delta = num(p["delta"])
    return x * x / 2 if abs(x) < delta else delta * (abs(x) - delta / 2)


def branches(p, v, old, target):
    eta = num(p["clip_range"])
    return penalty(p, v - target), penalty(p, old + clip(v - old, -eta, eta) - target)


def solve_value(p, inputs):
    mask, n = inputs["mask"], len(inputs["mask"])
    weights = token_weights(p, inputs["cu_seqlens"], mask, inputs.get("group_offsets"))
    old, target = nums(inputs["value_old"]), nums(inputs["return"])

    def value(x):
        return aggregate(weights, [num(p["factor"]) * max(branches(p, *t)) for t in zip(x, old, target)], mask)

    pairs = [branches(p, *t) for t, m in zip(zip(nums(inputs["value"]), old, target), mask) if m]
    skip = [t for t in range(n) if not mask[t]]
    return {"value": value(nums(inputs["value"])), "gradient": {"value": gradient(value, inputs["value"], skip)},
            "clipped": sum(1 for plain, cut in pairs if cut > plain), "tokens": len(pairs)}


def value_cases(rng):
    out = []
    settings = [("V01", "value_clip", {"clip_range": eta, "factor": f}) for eta, f in
                ((0.5, 0.5), (0.2, 0.5), (0.2, 1.0), ("inf", 0.5))]
    settings += [("V02", "value_huber", {"clip_range": eta, "delta": d, "factor": f}) for eta, d, f in
                 ((0.5, 10.0, 1.0), (0.2, 1.0, 1.0), ("inf", 0.7, 0.5))]
    for id, method, base in settings:
        for turn, layout in enumerate(("holes", "masked_row", "groups", "all_masked")):
            aggregation = AGGREGATIONS[(len(out) + turn) % len(AGGREGATIONS)]
            cu, mask, groups = layout_of(layout)
            n = cu[-1]
            target = dyadics(rng, n, -2, 2)
            value = [r + ERRORS[(t + len(out)) % len(ERRORS)] + j
                     for t, (r, j) in enumerate(zip(target, dyadics(rng, n, -0.02, 0.02)))]
            old = [v + MOVES[(t + turn) % len(MOVES)] + j
                   for t, (v, j) in enumerate(zip(value, dyadics(rng, n, -0.02, 0.02)))]
            inputs = {"value": hidden(value, mask), "value_old": hidden(old, mask), "return": hidden(target, mask),
                      "mask": mask, "cu_seqlens": cu}
            if aggregation["aggregation"] == "rollout_mean":
                inputs["group_offsets"] = groups
            p = {**base, **aggregation}
            equation = "arXiv 1707.06347 (clipped value loss)" if id == "V01" else "Huber 1964, with value clipping"
            out.append(case(f"{id}-{method}-{aggregation['aggregation']}-{len(out) + 1}", method, equation, p, inputs,
                            solve_value(p, inputs)))
    return out


# ---- entropy -------------------------------------------------------------------------------------------------------

def entropy(z, temperature):
    """H = lse(z / T) - sum p z / T; a -inf logit takes no part."""
    y = [x / temperature for x in z if x != mpf("-inf")]
    top = max(y)
    e = [exp(x - top) for x in y]
    s = total(e)
    return top + log(s) - total(a * b for a, b in zip(e, y)) / s


def bonus_cases(rng):
    out = []
    for coef in (0.01, 0.5):
        for layout in ("holes", "masked_row", "zero", "groups", "all_masked"):
            cu, mask, groups = layout_of(layout)
            p = {"coef": coef, **AGGREGATIONS[len(out) % len(AGGREGATIONS)]}
            inputs = {"entropy": hidden(dyadics(rng, cu[-1], 0, 4), mask), "mask": mask, "cu_seqlens": cu}
            if p["aggregation"] == "rollout_mean":
                inputs["group_offsets"] = groups
            weights = token_weights(p, cu, mask, groups)
            value = lambda x: -num(coef) * aggregate(weights, x, mask)
            skip = [t for t, m in enumerate(mask) if not m]
            expected = {"value": value(nums(inputs["entropy"])),
                        "gradient": {"entropy": gradient(value, inputs["entropy"], skip)}}
            out.append(case(f"E01-entropy_bonus-{p['aggregation']}-{len(out) + 1}", "entropy_bonus",
                            "arXiv 1602.01783 (entropy bonus: loss -= coef x H)", p, inputs, expected))
    return out


def logit_cases(rng):
    out = []
    for vocabulary, temperature, spread, filtered in ((2, 1.0, 2, ()), (5, 1.0, 4, ()), (7, 0.5, 3, (0, 4)),
                                                      (6, 2.0, 30, ()), (4, 1.0, 1, (0, 1, 3))):
        tokens = 3
        z = dyadics(rng, tokens * vocabulary, -spread, spread)
        for t in range(tokens):
            for v in filtered:
                z[t * vocabulary + v] = "-inf"
        T = num(temperature)

        def each(x):
            return [entropy(x[t * vocabulary:(t + 1) * vocabulary], T) for t in range(tokens)]

        skip = [i for i, x in enumerate(z) if x == "-inf"]
        expected = {"entropy": each(nums(z)), "gradient": {"logits": gradient(lambda x: total(each(x)), z, skip)}}
        p = {"vocabulary": vocabulary, "temperature": temperature}
        out.append(case(f"E01-entropy_from_logits-{len(out) + 1}", "entropy_from_logits",
                        "H = lse(z) - sum p z, z = logits / temperature", p, {"logits": z}, expected,
                        note="gradient of the sum of the entropies"))
    return out


def adaptive_cases():
    """coef moves by `step` after every optimiser step; the bonus acts only while the last entropy is <= target."""
    out = []
    runs = ((0.0, 0.2, 0.005), (0.998, 0.25, 0.005), (0.25, 0.5, 0.125))
    observed = [0.5, 0.125, 0.1875, 0.0625, 0.75, 0.25, 1.0, 1.5, 0.03125]
    for coef, target, step in runs:
        p = {"coef": coef, "target": target, "step": step, "coef_min": 0.0, "coef_max": 1.0}
        now, last, after, acting = num(coef), mpf("inf"), [], []
        for h in nums(observed):
            acting.append(now if last <= num(target) else mpf(0))
            now = clip(now + (num(step) if h <= num(target) else -num(step)), mpf(0), mpf(1))
            last = h
            after.append(now)
        out.append(case(f"E02-adaptive_entropy-{len(out) + 1}", "adaptive_entropy", "arXiv 2505.22312", p,
                        {"entropy": observed}, {"coef": after, "applied": acting},
                        note="coef after each observation; applied is what acted on the step that made it"))
    return out


def estimate_cases(rng):
    """-sum exp(logp - logp_rollout) logp, and per sequence -sum logp."""
    out = []
    for layout in ("holes", "masked_row", "zero", "all_masked"):
        cu, mask, _ = layout_of(layout)
        rollout = dyadics(rng, cu[-1], -4, -0.25)
        logp = [r + s for r, s in zip(rollout, dyadics(rng, cu[-1], -0.5, 0.5))]
        inputs = {"logp": hidden(logp, mask), "logp_rollout": hidden(rollout, mask), "mask": mask, "cu_seqlens": cu}
        l, r = nums(logp), nums(rollout)
        rows = active_rows(cu, mask)
        active = [t for row in rows for t in row]
        weighted = total(-exp(l[t] - r[t]) * l[t] for t in active)
        expected = {"estimate_sum": weighted, "tokens": len(active), "estimate": over(weighted, len(active)),
                    "sequence_negative_logp": [total(-l[t] for t in row) for row in rows]}
        out.append(case(f"E03-entropy_estimate-{len(out) + 1}", "entropy_estimate",
                        "H ~ -mean(exp(logp - logp_rollout) logp)", {}, inputs, expected))
    return out


def cases():
    rng = random.Random(909)
    return value_cases(rng) + bonus_cases(rng) + logit_cases(rng) + adaptive_cases() + estimate_cases(rng)
