"""Policy terms P01-P26: value and exact gradient with respect to logp, aggregated.

A term is a function term(c, x) -> {position: token loss}, x being the perturbed logp and c.x0 the unperturbed one.
Everything a paper detaches (weights, masks, selections) is computed from c.x0, so differences do not see it.
A term that belongs to a whole sequence returns that number at each of its active positions.
Rollout weights ("weight", constant) multiply the token loss.
"""

import random

from mpmath import exp, log

from .aggregation import GARBAGE, active_rows, aggregate, over, token_weights
from .common import case, dyadics, gradient, mean, mpf, num, nums, offsets, total

BOUND = {"log_ratio_bound": 20, "bound_gradient": "zero"}
PPO = {"low": 0.2, "high": 0.28, **BOUND}


class Context:
    """One batch at its unperturbed point."""

    def __init__(self, p, inputs):
        self.p, self.inputs = p, inputs
        self.rows = active_rows(inputs["cu_seqlens"], inputs["mask"])
        self.active = [t for row in self.rows for t in row]
        self.row_of = {t: i for i, row in enumerate(self.rows) for t in row}
        self.x0 = nums(inputs["logp"])
        if "advantage_token" in inputs:
            self.A = nums(inputs["advantage_token"])
        else:
            per_row = nums(inputs["advantage"])
            self.A = {t: per_row[i] for t, i in self.row_of.items()}

    def __getitem__(self, name):
        return num(self.p[name])

    def array(self, name):
        return nums(self.inputs[name])

    def has(self, name):
        return name in self.inputs


def clip(x, lo, hi):
    return min(max(x, lo), hi)


def bounded(c, d, d0):
    """The log-ratio clamp: which side is decided at d0; beyond the bound the slope is 0 or straight-through 1."""
    bound = num(c.p["log_ratio_bound"])
    if abs(d0) <= bound:
        return d
    edge = bound if d0 > 0 else -bound
    return edge + (d - d0) if c.p["bound_gradient"] == "straight_through" else edge


def ratio(c, x, t):
    old = num(c.inputs["logp_old"][t])
    return exp(bounded(c, x[t] - old, c.x0[t] - old))


def unclipped_wins(c, A, r0):
    """max(-A r, -A clip(r)) taken at the unperturbed point; a tie takes the unclipped side."""
    return -A * r0 >= -A * clip(r0, 1 - c["low"], 1 + c["high"])


def surrogate(c, A, r, r0):
    if unclipped_wins(c, A, r0):
        return -A * r
    return -A * clip(r0, 1 - c["low"], 1 + c["high"])


def term_clip(c, x):
    return {t: surrogate(c, c.A[t], ratio(c, x, t), ratio(c, c.x0, t)) for t in c.active}


def term_dual_clip(c, x):
    base = term_clip(c, x)
    return {t: min(v, -c["c"] * c.A[t]) if c.A[t] < 0 else v for t, v in base.items()}


def term_two_sided_clip(c, x):
    out = {}
    for t in c.active:
        r = ratio(c, x, t)
        plain = -c.A[t] * min(r, c["delta"])
        out[t] = max(plain, -c.A[t] * clip(r, 1 - c["low"], 1 + c["high"]))
    return out


def sequence_log_ratio(c, x, row):
    old = c.inputs["logp_old"]
    return mean(x[t] - num(old[t]) for t in row)


def sequence_ratio(c, x, row):
    """exp(mean log-ratio); the bound applies to the mean."""
    return exp(bounded(c, sequence_log_ratio(c, x, row), sequence_log_ratio(c, c.x0, row)))


def term_gspo(c, x):
    out = {}
    for row in c.rows:
        s, s0 = sequence_ratio(c, x, row), sequence_ratio(c, c.x0, row)
        for t in row:
            out[t] = surrogate(c, c.A[t], s, s0)
    return out


def term_gspo_token(c, x):
    """s_t = sg(s) pi / sg(pi): the bound applies to sg(mean) + logp - sg(logp)."""
    out = {}
    for row in c.rows:
        m0 = sequence_log_ratio(c, c.x0, row)
        for t in row:
            s = exp(bounded(c, m0 + x[t] - c.x0[t], m0))
            out[t] = surrogate(c, c.A[t], s, exp(bounded(c, m0, m0)))
    return out


def term_cispo(c, x):
    return {t: -clip(ratio(c, c.x0, t), 1 - c["low"], 1 + c["high"]) * c.A[t] * x[t] for t in c.active}


def term_cispo_upper(c, x):
    return {t: -min(ratio(c, c.x0, t), c["cap"]) * c.A[t] * x[t] for t in c.active}


def term_sapo(c, x):
    out = {}
    for t in c.active:
        tau = c["tau_positive"] if c.A[t] > 0 else c["tau_negative"]
        out[t] = -4 / tau / (1 + exp(-tau * (ratio(c, x, t) - 1))) * c.A[t]
    return out


def term_gmpo(c, x):
    """-A exp(mean of one-sidedly clipped log-ratios); per-token advantages give their own sign to their token."""
    out = {}
    for row in c.rows:
        logs = []
        for t in row:
            old = num(c.inputs["logp_old"][t])
            d = bounded(c, x[t] - old, c.x0[t] - old)
            cut = clip(d, -c["low"], c["high"])
            logs.append(min(d, cut) if c.A[t] > 0 else max(d, cut) if c.A[t] < 0 else mpf(0))
        s = exp(mean(logs))
        for t in row:
            out[t] = -s * mean(c.A[u] for u in row)
    return out


def term_vespo(c, x):
    """phi = w^k exp(lambda (1 - w)), w the product of ratios, log w in [log 1e-8, 20]; phi is detached."""
    out = {}
    old = c.inputs["logp_old"]
    for row in c.rows:
        d = total(bounded(c, c.x0[t] - num(old[t]), c.x0[t] - num(old[t])) for t in row)
        log_w = clip(d, log(mpf(10) ** -8), mpf(20))
        for t in row:
            side = "positive" if c.A[t] >= 0 else "negative"
            k, lam = c["k_" + side], c["lambda_" + side]
            out[t] = -exp(lam + k * log_w - lam * exp(log_w)) * c.A[t] * x[t]
    return out


def term_dppo_tv(c, x):
    def valid(t, p, p_old):
        return p - p_old <= c["high"] if c.A[t] > 0 else p - p_old >= -c["low"]
    return dppo(c, x, valid)


def term_dppo_kl(c, x):
    tiny = mpf(10) ** -8

    def valid(t, p, p_old):
        divergence = p_old * log(p_old / p) + (1 - p_old) * log((1 - p_old + tiny) / (1 - p + tiny))
        if c.A[t] > 0:
            return divergence <= c["high"] or p <= p_old
        return divergence <= c["low"] or p >= p_old
    return dppo(c, x, valid)


def dppo(c, x, valid):
    out = {}
    for t in c.active:
        keep = valid(t, exp(c.x0[t]), exp(num(c.inputs["logp_old"][t])))
        out[t] = -c.A[t] * min(ratio(c, c.x0, t), c["cap"]) * x[t] * (1 if keep else 0)
    return out


def covariances(c):
    """(A - mean A)(logp - mean logp) of every active token, both means over the active tokens of the batch."""
    a, l = mean(c.A[t] for t in c.active), mean(c.x0[t] for t in c.active)
    return {t: (c.A[t] - a) * (c.x0[t] - l) for t in c.active}


def largest(c, cov, candidates):
    """max(floor(fraction N), 1) candidates of largest covariance; ties go to the lower index."""
    k = max(int(c["fraction"] * len(c.active)), 1)
    return set(sorted(candidates, key=lambda t: (-cov[t], t))[:k])


def selected_clip_cov(c):
    cov = covariances(c)
    kept = [t for t in c.active if unclipped_wins(c, c.A[t], ratio(c, c.x0, t))]
    return largest(c, cov, [t for t in kept if c["cov_low"] < cov[t] < c["cov_high"]])


def term_clip_cov(c, x):
    chosen = selected_clip_cov(c)
    return {t: mpf(0) if t in chosen else v for t, v in term_clip(c, x).items()}


def selected_kl_cov(c):
    return largest(c, covariances(c), c.active)


def term_kl_cov(c, x):
    chosen, out = selected_kl_cov(c), {}
    for t in c.active:
        out[t] = -c.A[t] * ratio(c, x, t)
        if t in chosen:
            out[t] += c["coef"] * abs(x[t] - num(c.inputs["logp_old"][t]))
    return out


def term_dro(c, x):
    old = c.inputs["logp_old"]
    return {t: -(c.A[t] * x[t] - c["beta"] * (x[t] - num(old[t])) ** 2 / 2) for t in c.active}


def term_log_prob(c, x):
    return {t: -c.A[t] * x[t] for t in c.active}


def term_on_policy(c, x):
    return {t: -c.A[t] * exp(x[t] - c.x0[t]) for t in c.active}


def term_positive_nll(c, x):
    return {t: -c["coef"] * x[t] if c.inputs["positive"][c.row_of[t]] else mpf(0) for t in c.active}


def entropy_threshold(c):
    """The (1 - keep) quantile of active entropies, interpolated linearly between order statistics."""
    values = sorted(num(c.inputs["entropy"][t]) for t in c.active)
    if not values:
        return mpf(0)
    at = (1 - c["keep"]) * (len(values) - 1)
    below = int(at)
    above = min(below + 1, len(values) - 1)
    return values[below] + (at - below) * (values[above] - values[below])


def term_entropy_quantile(c, x):
    threshold = entropy_threshold(c)
    keep = {t: num(c.inputs["entropy"][t]) >= threshold for t in c.active}
    return {t: v if keep[t] else mpf(0) for t, v in term_clip(c, x).items()}


def kept_off_policy(c):
    """A >= 0, or mean(behaviour logp - logp) over the sequence at most delta."""
    behaviour = c.array("logp_rollout" if c.has("logp_rollout") else "logp_old")
    drift = [mean(behaviour[t] - c.x0[t] for t in row) for row in c.rows]
    return {t for t in c.active if c.A[t] >= 0 or drift[c.row_of[t]] <= c["delta"]}


def kept_logp_error(c):
    old, rollout = c.array("logp_old"), c.array("logp_rollout")
    error = [mean(exp(abs(rollout[t] - old[t])) for t in row) for row in c.rows]
    return {t for t in c.active if error[c.row_of[t]] <= c["threshold"]}


def kept_m2po(c):
    """Drop the fewest largest (logp_rollout - logp_old)^2 so that the mean of the rest is below; keep at least one."""
    old, rollout = c.array("logp_old"), c.array("logp_rollout")
    left = sorted(c.active, key=lambda t: (-(rollout[t] - old[t]) ** 2, t))
    while len(left) > 1 and mean((rollout[t] - old[t]) ** 2 for t in left) >= c["threshold"]:
        left = left[1:]
    return set(left)


KEPT = {"off_policy_mask": kept_off_policy, "logp_error_mask": kept_logp_error, "m2po": kept_m2po}


def term_masked_clip(c, x):
    kept = KEPT[c.method](c)
    return {t: v if t in kept else mpf(0) for t, v in term_clip(c, x).items()}


def term_decoupled_clip(c, x):
    old, rollout = c.array("logp_old"), c.array("logp_rollout")
    return {t: exp(old[t] - rollout[t]) * v for t, v in term_clip(c, x).items()}


TERMS = {
    "clip": term_clip, "dual_clip": term_dual_clip, "two_sided_clip": term_two_sided_clip, "gspo": term_gspo,
    "gspo_token": term_gspo_token, "luspo": term_gspo, "cispo": term_cispo, "cispo_upper": term_cispo_upper,
    "sapo": term_sapo, "gmpo": term_gmpo, "vespo": term_vespo, "dppo_tv": term_dppo_tv, "dppo_kl": term_dppo_kl,
    "clip_cov": term_clip_cov, "kl_cov": term_kl_cov, "dro": term_dro, "gpg": term_log_prob,
    "reinforce": term_log_prob, "on_policy": term_on_policy, "positive_nll": term_positive_nll,
    "entropy_quantile": term_entropy_quantile, "off_policy_mask": term_masked_clip,
    "logp_error_mask": term_masked_clip, "m2po": term_masked_clip, "decoupled_clip": term_decoupled_clip,
}
SELECTED = {"clip_cov": selected_clip_cov, "kl_cov": selected_kl_cov}


def aggregation_weights(c, extra):
    """Token weights of the loss. With "denominator_counts": "kept" a dropped token leaves the denominators too."""
    mask = list(c.inputs["mask"])
    if c.p["aggregation"] == "positive_token_mean":
        n = sum(1 for t in c.active if c.inputs["positive"][c.row_of[t]])
        return [over(mpf(1), n) if m else mpf(0) for m in mask]
    if c.p.get("denominator_counts") == "kept":
        mask = [int(t in extra["keep"]) for t in range(len(mask))]
    return token_weights(c.p, c.inputs["cu_seqlens"], mask, c.inputs.get("group_offsets"))


def selections(c):
    out = {}
    if c.method in KEPT:
        out["keep"] = KEPT[c.method](c)
    if c.method in SELECTED:
        out["selected"] = SELECTED[c.method](c)
    return out


def solve(method, p, inputs):
    """Value, gradient and the frozen selections of one case."""
    c = Context(p, inputs)
    c.method = method
    chosen = selections(c)
    weights, mask = aggregation_weights(c, chosen), inputs["mask"]
    extra = c.array("weight") if c.has("weight") else [mpf(1)] * len(mask)

    def value(x):
        loss = TERMS[method](c, x)
        return aggregate(weights, [extra[t] * loss[t] if m else 0 for t, m in enumerate(mask)], mask)

    skip = [t for t, m in enumerate(mask) if not m]
    out = {"value": value(c.x0), "gradient": {"logp": gradient(value, inputs["logp"], skip)}}
    for name, positions in chosen.items():
        out[name] = [int(t in positions) for t in range(len(mask))]
    return out


# ---- batches -------------------------------------------------------------------------------------------------------

# log-ratios that visit every side of the usual clips, moved a little by the random source
RATIOS = [-1.5, 0.0625, 0.5, -0.125, 1.25, -0.4375, 0.1875, 0.25, 1.5, -0.25]
ROW_RATIOS = [0.5, -0.375, 1.25, 0.0625, -0.75]

LAYOUTS = {
    "holes": ([4, 1, 0, 5], "1011" "1" "" "11101", [1, 3], [0.75, -1.25, 0.5, -0.5]),
    "masked_row": ([3, 6, 2, 2], "111" "011110" "00" "11", [2, 2], [-1.5, 1.0, 2.0, 0.625]),
    "zero": ([2, 5, 3], "11" "10111" "111", [1, 2], [0.0, -0.75, 1.125]),
    "all_masked": ([2, 3], "00" "000", [2], [1.0, -1.0]),
    "groups": ([2, 3, 4, 1], "11" "110" "1011" "1", [1, 2, 1], [-0.625, 0.375, -2.0, 1.5]),
}


def batch(rng, layout, per_token=False, row_level=False, near_one=False, needs=()):
    """Inputs of one case. near_one keeps probabilities large, so that differences of probabilities are too."""
    lengths, bits, groups, advantage = LAYOUTS[layout]
    cu, mask = offsets(lengths), [int(b) for b in bits]
    n = cu[-1]
    old = dyadics(rng, n, -2, -0.25) if near_one else dyadics(rng, n, -4, -1.75)
    steps = [RATIOS[(t + len(bits)) % len(RATIOS)] for t in range(n)]
    if row_level:
        steps = [ROW_RATIOS[i % len(ROW_RATIOS)] for i, m in enumerate(lengths) for _ in range(m)]
    new = [o + s + j for o, s, j in zip(old, steps, dyadics(rng, n, -0.03, 0.03))]
    if near_one:
        new = [min(x, -0.015625) for x in new]
    out = {"logp": new, "logp_old": old}
    if per_token:
        out["advantage_token"] = dyadics(rng, n, -2.5, 2.5)
    else:
        out["advantage"] = advantage
    out["logp_rollout"] = [o + x for o, x in zip(old, dyadics(rng, n, -0.75, 0.75))]
    out["entropy"] = dyadics(rng, n, 0.0625, 3)
    out["weight"] = dyadics(rng, n, 0.25, 2)
    wanted = {"logp", "logp_old", "advantage", "advantage_token"} | set(needs)
    out = {k: [x if len(v) != n or m else GARBAGE for x, m in zip(v, mask)] if len(v) == n else v
           for k, v in out.items() if k in wanted}
    return {**out, "mask": mask, "cu_seqlens": cu, "group_offsets": offsets(groups)}


AGGREGATIONS = [
    {"aggregation": "token_mean"},
    {"aggregation": "sequence_mean_token_mean", "count_empty": 0},
    {"aggregation": "sequence_mean_token_sum", "count_empty": 0},
    {"aggregation": "constant_length", "length": 8},
    {"aggregation": "token_mean_global", "denominator": 24},
    {"aggregation": "sequence_mean_token_mean", "count_empty": 1},
    {"aggregation": "token_sum"},
    {"aggregation": "sum_norm", "norm": 5},
    {"aggregation": "length_power", "alpha": 0.5, "count_empty": 0},
    {"aggregation": "rollout_mean", "count_empty": 0},
]


class Maker:
    """Numbers the cases and deals the aggregations out in turn."""

    def __init__(self, seed, solve):
        self.rng, self.solve = random.Random(seed), solve
        self.out, self.turn = [], 0

    def add(self, id, method, equation, p, layout="holes", aggregation=None, note=None, change=None, **kind):
        if aggregation is None:
            aggregation = AGGREGATIONS[self.turn % len(AGGREGATIONS)]
            self.turn += 1
        inputs = batch(self.rng, layout, **kind)
        if change:
            change(inputs)
        if aggregation["aggregation"] != "rollout_mean":
            del inputs["group_offsets"]
        p = {**p, **aggregation}
        name = f"{id}-{method}-{aggregation['aggregation']}-{len(self.out) + 1}"
        self.out.append(case(name, method, equation, p, inputs, self.solve(method, p, inputs), note=note))


def without(*names):
    def change(inputs):
        for name in names:
            inputs.pop(name, None)
    return change


# id, method, equation, parameters, what the batch must offer; each gets the same round of layouts
ROUND = [
    ("P03", "clip", "arXiv 1707.06347 eq. 7; asymmetric bounds arXiv 2503.14476", PPO, {}),
    ("P04", "dual_clip", "arXiv 1912.09729 (dual clip)", {"low": 0.2, "high": 0.2, "c": 3.0, **BOUND}, {}),
    ("P05", "two_sided_clip", "arXiv 2505.07291", {"low": 0.2, "high": 0.28, "delta": 2.5, **BOUND}, {}),
    ("P06", "gspo", "arXiv 2507.18071 eq. 5, 7", {"low": 0.2, "high": 0.28, **BOUND}, {"row_level": True}),
    ("P07", "gspo_token", "arXiv 2507.18071 eq. 13, 14", {"low": 0.2, "high": 0.28, **BOUND}, {"row_level": True}),
    ("P08", "cispo", "arXiv 2506.13585 eq. 4, 5", PPO, {}),
    ("P08", "cispo_upper", "arXiv 2506.13585 eq. 4 with an upper bound alone", {"cap": 1.5, **BOUND}, {}),
    ("P09", "sapo", "arXiv 2511.20347", {"tau_positive": 1.0, "tau_negative": 1.05, **BOUND}, {}),
    ("P13", "dppo_tv", "arXiv 2602.04879", {"low": 0.2, "high": 0.2, "cap": 3.0, **BOUND}, {"near_one": True}),
    ("P14", "dppo_kl", "arXiv 2602.04879", {"low": 0.0625, "high": 0.1, "cap": 3.0, **BOUND}, {"near_one": True}),
    ("P17", "dro", "arXiv 2405.19107 (quadratic log-ratio penalty)", {"beta": 0.375}, {}),
]


def add_rounds(m):
    for id, method, equation, p, kind in ROUND:
        m.add(id, method, equation, p, "holes", **kind)
        m.add(id, method, equation, p, "masked_row", **kind)
        m.add(id, method, equation, p, "zero", per_token=True, **kind)
        m.add(id, method, equation, p, "groups", needs=("weight",), **kind)
        m.add(id, method, equation, p, "all_masked", AGGREGATIONS[0], **kind)


def add_bounds(m):
    """The log-ratio clamp, small enough to act on several tokens, with both of its gradient rules."""
    for id, method, equation, p, kind in ROUND:
        if "log_ratio_bound" not in p or method.startswith("dppo"):
            continue
        for bound, rule in ((0.375, "zero"), (0.375, "straight_through"), ("inf", "zero")):
            q = {**p, "log_ratio_bound": bound, "bound_gradient": rule}
            note = "the bound acts on the mean log-ratio of the sequence" if method.startswith("gspo") else None
            m.add(id + "-bound", method, equation, q, "groups", AGGREGATIONS[1], note=note, **kind)


def add_extremes(m):
    def far(inputs):
        inputs["logp"][0], inputs["logp_old"][0] = -1.0, -25.0
        inputs["logp"][4], inputs["logp_old"][4] = -25.0, -1.0

    def equal(inputs):
        inputs["logp"] = list(inputs["logp_old"])

    clip_eq = "arXiv 1707.06347 eq. 7"
    for rule in ("zero", "straight_through"):
        m.add("P01-far", "clip", clip_eq, {**PPO, "bound_gradient": rule}, "masked_row", AGGREGATIONS[1], change=far,
              note="log-ratio +24 with a negative and -24 with a positive advantage: the bound 20 acts")
        m.add("P01-far", "dual_clip", "arXiv 1912.09729 (dual clip)", {**PPO, "c": 3.0, "bound_gradient": rule},
              "masked_row", AGGREGATIONS[1], change=far)
    m.add("P02-symmetric", "clip", clip_eq, {"low": 0.2, "high": 0.2, **BOUND}, "zero", AGGREGATIONS[0])
    m.add("P02-one", "clip", clip_eq, PPO, "holes", AGGREGATIONS[0], change=equal, note="every ratio is exactly 1")
    m.add("P02-edge", "clip", clip_eq, {"low": 0.0, "high": 0.0, **BOUND}, "holes", AGGREGATIONS[0], change=equal,
          note="ratio exactly on both bounds: a tie takes the unclipped side, so the gradient is -A")


def add_sequence_terms(m):
    luspo, eq = {"low": 0.2, "high": 0.28, **BOUND}, "arXiv 2602.05261 (sequence length times the GSPO term)"
    for layout in ("holes", "masked_row", "groups"):
        m.add("P11", "luspo", eq, luspo, layout, AGGREGATIONS[2], row_level=True,
              note="the GSPO term at every token, summed over the sequence")
    m.add("P11", "luspo", eq, luspo, "holes", {"aggregation": "sequence_mean_token_sum", "count_empty": 1},
          row_level=True)
    gmpo, eq = {"low": 0.4, "high": 0.4, **BOUND}, "arXiv 2507.20673 (geometric mean, log-space clip)"
    for layout in ("holes", "masked_row", "zero", "groups"):
        m.add("P10", "gmpo", eq, gmpo, layout, AGGREGATIONS[1])
    m.add("P10", "gmpo", eq, gmpo, "holes", {"aggregation": "sequence_mean_token_mean", "count_empty": 1})
    m.add("P10", "gmpo", eq, {**gmpo, "low": 0.2, "high": 0.3}, "groups", {"aggregation": "token_mean"})
    m.add("P10", "gmpo", eq, gmpo, "zero", AGGREGATIONS[1], per_token=True,
          note="each token's clip side follows its own advantage; the sequence advantage is their mean")
    for rule in ("zero", "straight_through"):
        m.add("P10-bound", "gmpo", eq, {**gmpo, "log_ratio_bound": 0.75, "bound_gradient": rule}, "holes",
              AGGREGATIONS[1], note="the bound acts on each token's log-ratio, before the clip")
    vespo = {"k_positive": 2.0, "lambda_positive": 3.0, "k_negative": 3.0, "lambda_negative": 2.0, **BOUND}
    eq = "arXiv 2602.10693 (soft weight w^k exp(lambda (1 - w)))"
    for layout in ("holes", "masked_row", "zero", "groups"):
        m.add("P12", "vespo", eq, vespo, layout)
    m.add("P12", "vespo", eq, {**vespo, "k_positive": 1.5, "lambda_positive": 0.75, "k_negative": 0.5,
                               "lambda_negative": 1.25}, "groups", row_level=True)
    m.add("P12-bound", "vespo", eq, {**vespo, "log_ratio_bound": 0.5}, "holes", AGGREGATIONS[0],
          note="the bound acts on each token's log-ratio, before the sum")
    m.add("P12", "vespo", eq, vespo, "all_masked", AGGREGATIONS[0])


def add_covariance(m):
    def tie(inputs):
        for t in (1, 5, 6):
            inputs["logp"][t], inputs["logp_old"][t], inputs["advantage_token"][t] = -0.25, -0.3125, 2.0

    eq = "arXiv 2505.22617 (covariance clipping)"
    for fraction, low, high in ((0.0002, 1.0, 5.0), (0.25, -0.5, 5.0), (0.5, -2.0, 0.25), (0.25, 40.0, 50.0)):
        p = {"low": 0.7, "high": 2.0, "fraction": fraction, "cov_low": low, "cov_high": high, **BOUND}
        m.add("P15", "clip_cov", eq, p, "zero", per_token=True)
        m.add("P15", "clip_cov", eq, p, "groups")
    for fraction, low, high in ((0.0002, 1.0, 5.0), (0.25, 1.0, 5.0), (0.5, 1.0, 5.0)):
        p = {"low": 0.2, "high": 0.2, "fraction": fraction, "cov_low": low, "cov_high": high, **BOUND}
        m.add("P15-tie", "clip_cov", eq, p, "zero", AGGREGATIONS[0], per_token=True, change=tie,
              note="tokens 1, 5 and 6 have the same covariance; ties go to the lower index")
    m.add("P15", "clip_cov", eq, p, "all_masked", AGGREGATIONS[0])
    eq = "arXiv 2505.22617 (KL penalty on the largest covariances)"
    for fraction, coef in ((0.0002, 1.0), (0.25, 0.1), (0.5, 0.75)):
        m.add("P16", "kl_cov", eq, {"fraction": fraction, "coef": coef, **BOUND}, "zero", per_token=True)
        m.add("P16", "kl_cov", eq, {"fraction": fraction, "coef": coef, **BOUND}, "groups")
    m.add("P16-tie", "kl_cov", eq, {"fraction": 0.25, "coef": 0.5, **BOUND}, "zero", AGGREGATIONS[0], per_token=True,
          change=tie, note="tokens 1, 5 and 6 have the same covariance; ties go to the lower index")
    m.add("P16", "kl_cov", eq, {"fraction": 0.25, "coef": 0.1, **BOUND}, "all_masked", AGGREGATIONS[0])


def add_log_prob_terms(m):
    for layout, kind in (("holes", {}), ("masked_row", {}), ("zero", {"per_token": True}), ("all_masked", {})):
        bare = without("logp_old")
        m.add("P18", "gpg", "arXiv 2504.02546 (-A logp)", {}, layout, change=bare, **kind)
        m.add("P19", "reinforce", "Williams 1992 (-A logp w)", {}, layout, change=bare, needs=("weight",), **kind)
        m.add("P20", "on_policy", "ratio exp(logp - sg(logp)): value -A, gradient -A", {}, layout, change=bare, **kind)

    def positive(inputs):
        inputs.pop("logp_old")
        inputs["positive"] = [int(a > 0) for a in inputs["advantage"]]

    def negative(inputs):
        inputs.pop("logp_old")
        inputs["advantage"] = [-abs(a) for a in inputs["advantage"]]
        inputs["positive"] = [0 for _ in inputs["advantage"]]

    eq, local = "arXiv 2504.05118 (positive-example language-model loss)", {"aggregation": "positive_token_mean"}
    for layout in ("holes", "masked_row", "groups"):
        m.add("P21", "positive_nll", eq, {"coef": 0.1}, layout, local, change=positive,
              note="the mean runs over the tokens of positive sequences alone")
        m.add("P21", "positive_nll", eq, {"coef": 0.1}, layout, AGGREGATIONS[0], change=positive)
    m.add("P21", "positive_nll", eq, {"coef": 0.1}, "holes", local, change=negative, note="no positive sequence: 0")


def add_masks(m):
    eq = "arXiv 2506.01939 (policy gradient on the highest-entropy tokens)"
    for keep in (0.2, 0.25, 0.5, 0.8125, 1.0):
        m.add("P22", "entropy_quantile", eq, {"keep": keep, **PPO}, "zero", needs=("entropy",))
        m.add("P22", "entropy_quantile", eq, {"keep": keep, **PPO}, "masked_row", needs=("entropy",))
    m.add("P22", "entropy_quantile", eq, {"keep": 0.2, **PPO}, "all_masked", AGGREGATIONS[0], needs=("entropy",))
    eq = "arXiv 2512.02556 (off-policy sequence mask)"
    for delta in (0.0001, 0.125, 1.0):
        p = {"delta": delta, "denominator_counts": "original", **PPO}
        for layout in ("holes", "groups"):
            m.add("P23", "off_policy_mask", eq, p, layout, needs=("logp_rollout",), row_level=True)
            m.add("P23", "off_policy_mask", eq, p, layout, note="no logp_rollout: the behaviour policy is logp_old")
        m.add("P23", "off_policy_mask", eq, p, "zero", per_token=True, note="each token's own advantage decides")
    for counts in ("kept", "original"):
        for threshold in (1.25, 1.5, 4.0):
            p = {"threshold": threshold, "denominator_counts": counts, **PPO}
            m.add("P24", "logp_error_mask", "sequence kept where mean exp|logp_rollout - logp_old| <= threshold", p,
                  "masked_row", needs=("logp_rollout",))
            m.add("P24", "logp_error_mask", "sequence kept where mean exp|logp_rollout - logp_old| <= threshold", p,
                  "groups", AGGREGATIONS[1], needs=("logp_rollout",))
        for threshold in (0.04, 0.125, 10.0, 0.0):
            p = {"threshold": threshold, "denominator_counts": counts, **PPO}
            m.add("P25", "m2po", "arXiv 2510.01161 (second-moment trust region)", p, "groups", needs=("logp_rollout",))
        m.add("P25", "m2po", "arXiv 2510.01161 (second-moment trust region)", p, "all_masked", AGGREGATIONS[0],
              needs=("logp_rollout",))
    for layout in ("holes", "masked_row", "groups"):
        m.add("P26", "decoupled_clip", "arXiv 2110.00641 (decoupled objective)", PPO, layout, needs=("logp_rollout",))
    m.add("P26", "decoupled_clip", "arXiv 2110.00641 (decoupled objective)", PPO, "zero", per_token=True,
          needs=("logp_rollout",))


def check_branches(out):
    """The round must visit both signs of the advantage on all three sides of the clip."""
    for method in ("clip", "dual_clip", "two_sided_clip", "cispo", "sapo", "gspo", "gspo_token", "luspo"):
        seen = set()
        for one in (x for x in out if x["method"] == method and x["inputs"]["mask"]):
            c = Context({**PPO, **one["parameters"]}, one["inputs"])
            for row in c.rows:
                for t in row:
                    r = sequence_ratio(c, c.x0, row) if method in ("gspo", "gspo_token", "luspo") else ratio(c, c.x0, t)
                    side = -1 if r < mpf("0.8") else 1 if r > mpf("1.28") else 0
                    seen.add((c.A[t] > 0, side))
        if len(seen) != 6:
            raise ValueError(f"{method}: branches visited {sorted(seen)}")


def cases():
    m = Maker(101, solve)
    add_rounds(m)
    add_bounds(m)
    add_extremes(m)
    add_sequence_terms(m)
    add_covariance(m)
    add_log_prob_terms(m)
    add_masks(m)
    check_branches(m.out)
    return m.out
