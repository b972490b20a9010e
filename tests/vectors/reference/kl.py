"""KL terms K01-K11: every value x gradient pair, clamps, KL in the reward, controllers, the full KL.

With d = logp - logp_ref the values are k1 = d, k2 = d^2 / 2, k3 = exp(-d) + d - 1, abs = |d|.
Order of a clamped term: d is cut to +-input_bound, the value is made, a gradient rule multiplies it by its weight,
the product is cut to +-output_bound. A cut token has slope 0; where d is cut the weight is detached too.
Gradient rules: "own" no weight; "score" weight exp(logp - sg(logp)); "importance" weight exp(logp - logp_old);
"k2" the clamped value with the slope of d^2 / 2, whatever the clamps did.
"""

from mpmath import exp, log

from .aggregation import GARBAGE, active_rows, aggregate, token_weights
from .common import case, dyadics, gradient, mpf, num, nums, offsets, total
from .policy import PPO, Context, Maker, clip, sequence_log_ratio, term_clip

VALUES = {
    "k1": lambda d: d,
    "k2": lambda d: d * d / 2,
    "k3": lambda d: exp(-d) + d - 1,
    "abs": abs,
}
EQUATIONS = {
    ("k3", "own"): "arXiv 2402.03300 eq. 4",
    ("k3", "importance"): "arXiv 2512.02556 (KL times the importance ratio)",
    ("k1", "score"): "arXiv 2506.09477 (score-function term)",
    ("k3", "score"): "arXiv 2506.09477 (score-function term)",
}


def rule_weight(c, x, t):
    """The factor of the gradient rule at token t; its value is 1 for "own" and "score"."""
    if c.p["gradient"] == "score":
        return exp(x[t] - c.x0[t])
    if c.p["gradient"] == "importance":
        if c.p["level"] == "sequence":
            return exp(sequence_log_ratio(c, x, c.rows[c.row_of[t]]))
        return exp(x[t] - num(c.inputs["logp_old"][t]))
    return mpf(1)


def term_kl(c, x):
    out, ref = {}, c.array("logp_ref")
    inner, outer, value = num(c.p["input_bound"]), num(c.p["output_bound"]), VALUES[c.p["value"]]
    for t in c.active:
        d0 = c.x0[t] - ref[t]
        cut = abs(d0) > inner
        d = clip(d0, -inner, inner) if cut else x[t] - ref[t]
        kl = value(d) * rule_weight(c, c.x0 if cut else x, t)
        kl0 = value(clip(d0, -inner, inner)) * rule_weight(c, c.x0, t)
        out[t] = clip(kl0, -outer, outer) if abs(kl0) > outer else kl
        if c.p["gradient"] == "k2":
            out[t] = clip(kl0, -outer, outer) + ((x[t] - ref[t]) ** 2 - d0 ** 2) / 2
    return out


def term_plus_kl(c, x):
    """The policy term plus beta x KL, per token; the usual GRPO loss."""
    policy, kl = term_clip(c, x), term_kl(c, x)
    return {t: policy[t] + c["beta"] * kl[t] for t in c.active}


TERMS = {"kl": term_kl, "clip_plus_kl": term_plus_kl}


def solve(method, p, inputs):
    c = Context(p, inputs)
    mask = inputs["mask"]
    weights = token_weights(p, inputs["cu_seqlens"], mask, inputs.get("group_offsets"))

    def value(x):
        loss = TERMS[method](c, x)
        return aggregate(weights, [loss.get(t, 0) for t in range(len(mask))], mask)

    skip = [t for t, m in enumerate(mask) if not m]
    out = {"value": value(c.x0), "gradient": {"logp": gradient(value, inputs["logp"], skip)}}
    if method == "kl":
        out["token_kl"] = [TERMS[method](c, c.x0).get(t, 0) for t in range(len(mask))]
    return out


class KLMaker(Maker):
    """Adds a reference policy to each batch: near for most tokens, far where asked."""

    def kl(self, id, method, equation, p, layout, aggregation=None, far=(), note=None):
        def change(inputs):
            d = [s / 1.25 for s in dyadics(self.rng, len(inputs["logp"]), -1.5, 1.5, 256)]
            d = [round(x * 1024) / 1024 for x in d]
            d[1:2] = [2.0 ** -10]
            inputs["logp_ref"] = [l - x for l, x in zip(inputs["logp"], d)]
            for t, x in far:
                inputs["logp_ref"][t] = inputs["logp"][t] - x
            inputs["logp_ref"] = [x if m else GARBAGE for x, m in zip(inputs["logp_ref"], inputs["mask"])]
            if method == "kl" and p["gradient"] != "importance":
                inputs.pop("logp_old")
            if method == "kl":
                inputs.pop("advantage")
        self.add(id, method, equation, p, layout, aggregation, note, change)


def solve_kl(method, p, inputs):
    """A KL term alone knows no advantage."""
    none = {"advantage": [0] * (len(inputs["cu_seqlens"]) - 1)}
    return solve(method, p, {**none, **inputs})


def setting(value="k3", gradient="own", input_bound="inf", output_bound="inf", level="token"):
    return {"value": value, "gradient": gradient, "input_bound": input_bound, "output_bound": output_bound,
            "level": level}


def equation_of(value, rule):
    return EQUATIONS.get((value, rule), "Schulman 2020 (k1, k2, k3 estimators)")


ID = {"k1": "K01", "k2": "K02", "k3": "K03", "abs": "K04"}


def add_pairs(m):
    for value in ("k1", "k2", "k3", "abs"):
        for rule in ("own", "k2", "score", "importance"):
            id = f"{ID[value]}-{value}-{rule}"
            for layout in ("holes", "masked_row"):
                m.kl(id, "kl", equation_of(value, rule), setting(value, rule), layout)
    for value in ("k1", "k2", "k3", "abs"):
        for layout in ("holes", "masked_row", "groups"):
            m.kl(f"K07-{value}-sequence", "kl", "arXiv 2512.02556, sequence ratio, total derivative",
                 setting(value, "importance", level="sequence"), layout)
    m.kl("K03-k3-all", "kl", equation_of("k3", "own"), setting(), "all_masked", {"aggregation": "token_mean"})


def add_clamps(m):
    far = ((0, 30.0), (3, -30.0), (9, -2.5), (8, 6.0))
    mean_of = {"aggregation": "token_mean"}
    for value in ("k1", "k2", "k3", "abs"):
        for rule in ("own", "score", "importance", "k2"):
            for inner, outer in ((20, 10), (2, "inf"), ("inf", 4)):
                p = setting(value, rule, inner, outer)
                m.kl(f"{ID[value]}-clamp-{value}-{rule}", "kl", equation_of(value, rule), p, "groups", mean_of, far)
    for inner, outer in ((20, 10), (88, 100)):
        m.kl("K03-far", "kl", equation_of("k3", "own"), setting("k3", "own", inner, outer), "holes", mean_of,
             ((0, -100.0), (2, 100.0)), note="logp_ref - logp = +100 and -100 stay finite")

    tiny = tuple((t, x) for t, x in ((0, 2.0 ** -13), (2, -2.0 ** -13), (3, 2.0 ** -20), (4, 0.0), (8, 0.25)))
    for value in ("k2", "k3", "abs"):
        m.kl(f"{ID[value]}-near", "kl", equation_of(value, "own"), setting(value), "holes", mean_of, tiny,
             note="differences near 0: token_kl calls for a stable form")


def add_losses(m):
    rows = [
        ("grpo", "arXiv 2402.03300 eq. 3", {"aggregation": "sequence_mean_token_mean", "count_empty": 0}, 0.04, "k3"),
        ("dapo", "arXiv 2503.14476", {"aggregation": "token_mean"}, 0.001, "k3"),
        ("dr_grpo", "arXiv 2503.20783", {"aggregation": "constant_length", "length": 10}, 0.1, "k1"),
        ("k2", "arXiv 2402.03300 eq. 3 with k2", {"aggregation": "token_sum"}, 0.5, "k2"),
    ]
    for name, equation, aggregation, beta, value in rows:
        for rule in ("own", "importance"):
            for layout in ("holes", "masked_row"):
                p = {**PPO, "beta": beta, **setting(value, rule)}
                m.kl(f"K10-{name}", "clip_plus_kl", equation, p, layout, aggregation)


# ---- KL in the reward ----------------------------------------------------------------------------------------------

def reward_inputs(rng, lengths, bits, far=False):
    cu = offsets(lengths)
    old = dyadics(rng, cu[-1], -4, -0.25)
    ref = [x + y for x, y in zip(old, dyadics(rng, cu[-1], -1.5, 1.5))]
    if far:
        ref[0], ref[2] = old[0] + 30, old[2] - 30
    mask = [int(b) for b in bits]
    hide = lambda xs: [x if m else GARBAGE for x, m in zip(xs, mask)]
    return {"reward": dyadics(rng, len(lengths), -2, 2), "logp_old": hide(old), "logp_ref": hide(ref), "mask": mask,
            "cu_seqlens": cu}


def token_kl(p, inputs):
    """Clamped KL of logp_old against logp_ref; 0 where masked."""
    inner, outer = num(p["input_bound"]), num(p["output_bound"])
    pairs = zip(nums(inputs["logp_old"]), nums(inputs["logp_ref"]), inputs["mask"])
    return [clip(VALUES[p["value"]](clip(o - r, -inner, inner)), -outer, outer) if m else mpf(0) for o, r, m in pairs]


def solve_reward(method, p, inputs):
    kl, rows = token_kl(p, inputs), active_rows(inputs["cu_seqlens"], inputs["mask"])
    reward = nums(inputs["reward"])
    if method == "kl_in_sequence_reward":
        return {"reward": [r - num(p["beta"]) * total(kl[t] for t in row) for r, row in zip(reward, rows)],
                "kl_sum": total(kl)}
    out = [-num(p["beta"]) * x for x in kl]
    for r, row in zip(reward, rows):
        if row:
            out[row[-1]] += r
    return {"token_reward": out, "kl_sum": total(kl), "tokens": sum(len(r) for r in rows)}


def reward_cases(rng):
    out = []
    layouts = [([4, 1, 0, 5], "1011" "1" "11101"), ([3, 6, 2], "111" "011110" "00"), ([2, 3], "00" "000")]
    for value in ("k1", "k2", "k3", "abs"):
        for inner, outer, far in (("inf", "inf", False), (20, 10, True)):
            for lengths, bits in layouts[: 1 if far else 3]:
                for method, what in (("kl_in_reward", "r_t = reward on the last active token - beta kl_t"),
                                     ("kl_in_sequence_reward", "reward - beta x sum of kl_t")):
                    p = {"beta": 0.05, "value": value, "input_bound": inner, "output_bound": outer}
                    inputs = reward_inputs(rng, lengths, bits, far)
                    out.append(case(f"K09-{method}-{value}-{len(out) + 1}", method, what, p, inputs,
                                    solve_reward(method, p, inputs)))
    return out


# ---- controllers and the full KL -----------------------------------------------------------------------------------

def controller_cases(rng):
    out = []
    for beta, target, horizon, n in ((0.01, 0.1, 10000, 256), (0.2, 6.0, 1000, 64), (0.05, 0.02, 128, 128)):
        p = {"beta": beta, "target": target, "horizon": horizon, "samples": n, "limit": 0.2}
        kl = [x * target for x in (1.0, 1.1, 0.95, 3.0, 0.0, 1.05, -0.5)]
        kl = [round(x * 2 ** 16) / 2 ** 16 for x in kl]
        now, betas = num(beta), []
        for x in kl:
            error = clip(num(x) / num(target) - 1, -num(p["limit"]), num(p["limit"]))
            now *= 1 + error * n / num(horizon)
            betas.append(now)
        out.append(case(f"K11-adaptive_kl-{len(out) + 1}", "adaptive_kl", "arXiv 1909.08593 sec. 2.2", p, {"kl": kl},
                        {"beta": betas}, note="beta after each observed kl"))
    return out


def log_softmax(z):
    top = max(z)
    lse = top + log(total(exp(x - top) for x in z))
    return [x - lse for x in z]


def full_kl(z, ref):
    """sum_v p (log p - log q), p from z."""
    return total(exp(a) * (a - b) for a, b in zip(log_softmax(z), log_softmax(ref)))


def full_cases(rng):
    out = []
    for spread in (0.0, 1.0, 4.0):
        z = dyadics(rng, 6, -3, 3)
        ref = [x + y for x, y in zip(z, dyadics(rng, 6, -spread, spread))]
        fixed = nums(ref)
        expected = {"value": full_kl(nums(z), fixed), "gradient": {"logits": gradient(lambda x: full_kl(x, fixed), z)}}
        out.append(case(f"K05-full_kl-{len(out) + 1}", "full_kl", "KL(pi || pi_ref) over the vocabulary", {},
                        {"logits": z, "logits_ref": ref}, expected))
    return out


def cases():
    m = KLMaker(707, solve_kl)
    add_pairs(m)
    add_clamps(m)
    add_losses(m)
    return m.out + reward_cases(m.rng) + controller_cases(m.rng) + full_cases(m.rng)
