"""Preference losses on summed log-probabilities of pairs: D01 to D24 (DPO and its relatives, unpaired, triple, online).

Inputs per pair: chosen, rejected, ref_chosen, ref_rejected are sums of token log-probs; chosen_length and
rejected_length count tokens. The value is the mean over pairs (over examples for the unpaired methods).
"""

import random

from mpmath import exp, log, log1p, mpf

from .common import case, dyadics, gradient, mean, num, nums, offsets, rows, total

HALF = mpf(1) / 2


def parsed(parameters):
    """Numbers as mpf, words unchanged."""
    return {k: v if isinstance(v, str) and v != "inf" else num(v) for k, v in parameters.items()}


def vector(id, method, equation, parameters, inputs, loss, wrt, extra=None, note=None):
    """A case whose value is loss(x, fixed, p); `fixed` is the unperturbed input, which models every stop-gradient."""
    fixed = {k: nums(v) for k, v in inputs.items()}
    p = parsed(parameters)
    slopes = {}
    for name in wrt:
        def along(v, name=name):
            return loss({**fixed, name: v}, fixed, p)
        slopes[name] = gradient(along, inputs[name])
    expected = {"value": loss(fixed, fixed, p), "gradient": slopes}
    if extra:
        expected.update(extra(fixed, p))
    return case(id, method, equation, parameters, inputs, expected, note=note)


def log_sigmoid(x):
    return -log1p(exp(-x))


def sigmoid(x):
    return 1 / (1 + exp(-x))


def smoothed(z, eps):
    """Label-smoothed logistic loss of the logit z."""
    return -(1 - eps) * log_sigmoid(z) - eps * log_sigmoid(-z)


def ratios(x):
    """Log-ratios to the reference: (chosen list, rejected list)."""
    w = [a - b for a, b in zip(x["chosen"], x["ref_chosen"])]
    l = [a - b for a, b in zip(x["rejected"], x["ref_rejected"])]
    return w, l


def averages(xs, lengths):
    return [x / max(n, mpf(1)) for x, n in zip(xs, lengths)]


# ---- one function per paired loss: (w, l, p) -> loss, with w and l the log-ratios of one pair

def dpo(w, l, p):
    return -log_sigmoid(p["beta"] * (w - l))


def cdpo(w, l, p):
    return smoothed(p["beta"] * (w - l), p["label_smoothing"])


def robust_dpo(w, l, p):
    z, e = p["beta"] * (w - l), p["label_smoothing"]
    return (-(1 - e) * log_sigmoid(z) + e * log_sigmoid(-z)) / (1 - 2 * e)


def squared(w, l, p):
    return (w - l - 1 / (2 * p["beta"])) ** 2


def hinge(w, l, p):
    return max(mpf(0), 1 - p["beta"] * (w - l))


def exo(w, l, p):
    z, e = p["beta"] * (w - l), p["label_smoothing"]
    return sigmoid(z) * (log_sigmoid(z) - log(1 - e)) + sigmoid(-z) * (log_sigmoid(-z) - log(e))


def nca(w, l, p):
    a, b = p["beta"] * w, p["beta"] * l
    return -log_sigmoid(a) - HALF * log_sigmoid(-a) - HALF * log_sigmoid(-b)


def bco_pair(w, l, p):
    return -log_sigmoid(p["beta"] * w) - log_sigmoid(-p["beta"] * l)


def sppo_hard(w, l, p):
    return (w - HALF / p["beta"]) ** 2 + (l + HALF / p["beta"]) ** 2


def apo_zero(w, l, p):
    return 1 - sigmoid(p["beta"] * w) + sigmoid(p["beta"] * l)


def apo_down(w, l, p):
    return sigmoid(p["beta"] * w) + 1 - sigmoid(p["beta"] * (w - l))


def discopop(w, l, p):
    z = p["beta"] * (w - l)
    u = sigmoid(z / p["tau"])
    return -log_sigmoid(z) * (1 - u) + exp(-z) * u


def head(x, p):
    """The score that an f-divergence puts in the place of the log-ratio x."""
    kind = p["divergence"]
    if kind == "reverse_kl":
        return x
    if kind == "forward_kl":
        return -exp(-x)
    if kind == "js":
        return log_sigmoid(x)
    a = p["alpha"] - 1
    return exp(min(a * x, p["exponent_bound"])) / a


def f_divergence(w, l, p):
    return -log_sigmoid(p["beta"] * (head(w, p) - head(l, p)))


def paired(f):
    """Mean of a per-pair loss."""
    def loss(x, fixed, p):
        return mean(f(w, l, p) for w, l in zip(*ratios(x)))
    return loss


def ipo(x, fixed, p):
    w, l = ratios(x)
    if p["log_prob"] == "average":
        w, l = averages(w, fixed["chosen_length"]), averages(l, fixed["rejected_length"])
    return mean(squared(a, b, p) for a, b in zip(w, l))


def sigmoid_norm(x, fixed, p):
    w, l = ratios(x)
    w, l = averages(w, fixed["chosen_length"]), averages(l, fixed["rejected_length"])
    return mean(dpo(a, b, p) for a, b in zip(w, l))


def aot(x, fixed, p):
    policy = sorted(a - b for a, b in zip(x["chosen"], x["rejected"]))
    reference = sorted(a - b for a, b in zip(x["ref_chosen"], x["ref_rejected"]))
    return mean(smoothed(p["beta"] * (a - b), p["label_smoothing"]) for a, b in zip(policy, reference))


def aot_unpaired(x, fixed, p):
    w, l = ratios(x)
    return mean(smoothed(p["beta"] * (a - b), p["label_smoothing"]) for a, b in zip(sorted(w), sorted(l)))


def nll(x, fixed, p, name="chosen"):
    """Negative log-likelihood term: sum (mean over pairs), sequence_mean (of token means), token_mean (batch)."""
    sums, lengths = x[name], fixed[name + "_length"]
    if p["nll"] == "sum":
        return -mean(sums)
    if p["nll"] == "sequence_mean":
        return -mean(averages(sums, lengths))
    return -total(sums) / max(total(lengths), mpf(1))


def dpo_nll(x, fixed, p):
    return paired(cdpo)(x, fixed, p) + p["nll_coef"] * nll(x, fixed, p)


def simpo(x, fixed, p):
    w, l = averages(x["chosen"], fixed["chosen_length"]), averages(x["rejected"], fixed["rejected_length"])
    return mean(smoothed(p["beta"] * (a - b) - p["gamma"], p["label_smoothing"]) for a, b in zip(w, l))


def cpo(x, fixed, p):
    contrast = mean(cdpo(a, b, p) for a, b in zip(x["chosen"], x["rejected"]))
    return contrast + p["nll_coef"] * nll(x, fixed, p)


def alpha_po(x, fixed, p):
    def reward(v):
        return (1 - exp(-p["alpha"] * v)) / p["alpha"] if p["alpha"] != 0 else v
    w, l = averages(x["chosen"], fixed["chosen_length"]), averages(x["rejected"], fixed["rejected_length"])
    return mean(-log_sigmoid(p["beta"] * (reward(a) - reward(b)) - p["gamma"]) for a, b in zip(w, l))


def orpo(x, fixed, p):
    w, l = x["chosen"], x["rejected"]
    if p["log_prob"] == "average":
        w, l = averages(w, fixed["chosen_length"]), averages(l, fixed["rejected_length"])
    def log_odds(v):
        return v - log(1 - exp(v))
    return nll(x, fixed, p) - p["beta"] * mean(log_sigmoid(log_odds(a) - log_odds(b)) for a, b in zip(w, l))


def tpo(x, fixed, p):
    contrast = mean(cdpo(a, b, p) for a, b in zip(x["chosen"], x["rejected"]))
    return contrast + p["nll_coef"] * nll(x, fixed, p, "gold")


def tpo_l(x, fixed, p):
    return simpo(x, fixed, p) + p["nll_coef"] * nll(x, fixed, p, "gold")


# ---- token-level inputs

def ld_sums(x, fixed, p):
    """LD-DPO sums: tokens up to the shorter length of the pair count fully, the tail counts alpha."""
    out = {}
    shared = [min(len(a), len(b)) for a, b in
              zip(rows(cu(fixed, "chosen")), rows(cu(fixed, "rejected")))]
    for side in ("chosen", "rejected"):
        for name in (side, "ref_" + side):
            out[name] = [total(x[name + "_logp"][t] * (1 if t - r.start < n else p["alpha"]) for t in r)
                         for r, n in zip(rows(cu(fixed, side)), shared)]
    return out


def cu(fixed, side):
    return [int(v) for v in fixed[side + "_cu_seqlens"]]


def ld_dpo(x, fixed, p):
    return paired(dpo)(ld_sums(x, fixed, p), fixed, p)


def wpo_weights(fixed, side):
    """exp of the mean over tokens of logp - log(sum of squared probabilities)."""
    pairs = zip(fixed[side + "_logp"], fixed[side + "_log_collision"])
    aligned = [a - b for a, b in pairs]
    return [exp(total(aligned[t] for t in r) / max(len(r), 1)) for r in rows(cu(fixed, side))]


def wpo(x, fixed, p):
    sums = {}
    for side in ("chosen", "rejected"):
        for name in (side, "ref_" + side):
            sums[name] = [total(x[name + "_logp"][t] for t in r) for r in rows(cu(fixed, side))]
    weights = [a * b for a, b in zip(wpo_weights(fixed, "chosen"), wpo_weights(fixed, "rejected"))]
    return mean(k * dpo(w, l, p) for k, w, l in zip(weights, *ratios(sums)))


def nash_md(x, fixed, p):
    out = []
    for r, win in zip(rows([int(v) for v in fixed["cu_seqlens"]]), fixed["win_probability"]):
        active = [t for t in r if fixed["mask"][t] != 0]
        pull = total((fixed["logp"][t] - fixed["logp_ref"][t]) * x["logp"][t] for t in active)
        out.append(p["beta"] * pull - (win - HALF) * total(x["logp"][t] for t in active))
    return mean(out)


# ---- unpaired and online

def kto_kl(fixed, p):
    return max(mpf(0), mean(a - b for a, b in zip(fixed["kl_logp"], fixed["kl_logp_ref"])))


def kto(x, fixed, p):
    kl = kto_kl(fixed, p)
    out = []
    for a, b, label in zip(x["logp"], fixed["logp_ref"], fixed["label"]):
        if label != 0:
            out.append(p["desirable_weight"] * (1 - sigmoid(p["beta"] * (a - b - kl))))
        else:
            out.append(p["undesirable_weight"] * (1 - sigmoid(p["beta"] * (kl - a + b))))
    return mean(out)


def bco(x, fixed, p):
    out = []
    for a, b, label in zip(x["logp"], fixed["logp_ref"], fixed["label"]):
        centred = p["beta"] * (a - b) - p["delta"]
        out.append(-log_sigmoid(centred if label != 0 else -centred))
    return mean(out)


def chosen_first(first, second, preferred):
    """(chosen, rejected) of a pair whose first member won iff preferred is 1."""
    chosen = [a if k != 0 else b for a, b, k in zip(first, second, preferred)]
    rejected = [b if k != 0 else a for a, b, k in zip(first, second, preferred)]
    return chosen, rejected


def contest(x, fixed, p):
    won = fixed["first_preferred"]
    chosen, rejected = chosen_first(x["first"], x["second"], won)
    ref_chosen, ref_rejected = chosen_first(fixed["ref_first"], fixed["ref_second"], won)
    pair = {"chosen": chosen, "rejected": rejected, "ref_chosen": ref_chosen, "ref_rejected": ref_rejected}
    return paired(dpo if p["loss"] == "sigmoid" else squared)(pair, fixed, p)


def xpo(x, fixed, p):
    return contest(x, fixed, p) + p["alpha"] * mean(x["second"])


# ---- data

HAND = {
    "chosen": [-12.5, -3.25, -40.75, -7.0, -0.5],
    "rejected": [-14.25, -2.0, -38.5, -9.5, -16.0],
    "ref_chosen": [-13.0, -3.5, -39.25, -6.125, -2.75],
    "ref_rejected": [-13.75, -2.5, -41.0, -8.0, -15.0],
    "chosen_length": [8, 2, 31, 5, 1],
    "rejected_length": [9, 1, 28, 7, 12],
}
EXTREME = {
    "chosen": [-8.0, -1032.0, -64.0],
    "rejected": [-1032.0, -8.0, -64.0],
    "ref_chosen": [-520.0, -520.0, -64.0],
    "ref_rejected": [-520.0, -520.0, -64.0],
    "chosen_length": [4, 400, 16],
    "rejected_length": [400, 4, 16],
}
POLICY = ("chosen", "rejected", "chosen_length", "rejected_length")
BOTH = ("chosen", "rejected")


def drawn(seed, n=4):
    """Random pairs: log-probs proportional to a random length, the reference near the policy."""
    rng = random.Random(seed)
    out = {k: [] for k in HAND}
    for side in BOTH:
        for _ in range(n):
            length = rng.randint(1, 24)
            policy = dyadics(rng, 1, -2.5 * length, -0.125 * length)[0]
            out[side].append(policy)
            out["ref_" + side].append(policy + dyadics(rng, 1, -3, 3)[0])
            out[side + "_length"].append(length)
    return out


def only(data, names):
    return {k: data[k] for k in names}


def tokens(seed, lengths, sides=BOTH, collision=False):
    """Token log-probs of pairs as flat arrays with offsets."""
    rng = random.Random(seed)
    out = {}
    for side, counts in zip(sides, lengths):
        n = sum(counts)
        out[side + "_logp"] = dyadics(rng, n, -3, -0.0625)
        out["ref_" + side + "_logp"] = [v + d for v, d in zip(out[side + "_logp"], dyadics(rng, n, -0.75, 0.75))]
        if collision:
            out[side + "_log_collision"] = dyadics(rng, n, -2.5, -0.03125)
        out[side + "_cu_seqlens"] = offsets(counts)
    return out


# ---- cases

PAIRED = [
    ("D01", "dpo", "arXiv 2305.18290 eq. 7", dpo, [{"beta": 0.1}, {"beta": 0.5}], True),
    ("D02", "cdpo", "cDPO (label-smoothed arXiv 2305.18290 eq. 7)", cdpo,
     [{"beta": 0.1, "label_smoothing": 0.0}, {"beta": 0.5, "label_smoothing": 0.1}], True),
    ("D03", "robust_dpo", "arXiv 2403.00409", robust_dpo,
     [{"beta": 0.1, "label_smoothing": 0.1}, {"beta": 0.5, "label_smoothing": 0.25}], True),
    ("D05", "hinge", "arXiv 2305.10425, arXiv 2309.06657", hinge, [{"beta": 0.1}, {"beta": 0.5}], True),
    ("D06", "exo", "arXiv 2402.00856", exo,
     [{"beta": 0.1, "label_smoothing": 0.001}, {"beta": 0.5, "label_smoothing": 0.1}], True),
    ("D07", "nca", "arXiv 2402.05369", nca, [{"beta": 0.1}, {"beta": 0.5}], True),
    ("D08", "bco_pair", "arXiv 2404.04656", bco_pair, [{"beta": 0.1}, {"beta": 0.5}], True),
    ("D09", "sppo_hard", "arXiv 2405.00675", sppo_hard, [{"beta": 0.1}, {"beta": 0.5}], False),
    ("D10", "apo_zero", "arXiv 2408.06266", apo_zero, [{"beta": 0.1}, {"beta": 0.5}], True),
    ("D10", "apo_down", "arXiv 2408.06266", apo_down, [{"beta": 0.1}, {"beta": 0.5}], True),
    ("D11", "discopop", "arXiv 2406.08414", discopop,
     [{"beta": 0.1, "tau": 0.05}, {"beta": 0.5, "tau": 1.0}], False),
    ("D14", "f_divergence", "arXiv 2309.16240", f_divergence,
     [{"beta": 0.1, "divergence": "reverse_kl", "alpha": 0.5, "exponent_bound": 80.0},
      {"beta": 0.5, "divergence": "forward_kl", "alpha": 0.5, "exponent_bound": 80.0},
      {"beta": 0.5, "divergence": "js", "alpha": 0.5, "exponent_bound": 80.0},
      {"beta": 0.1, "divergence": "alpha", "alpha": 0.5, "exponent_bound": 80.0},
      {"beta": 0.5, "divergence": "alpha", "alpha": 2.0, "exponent_bound": 80.0},
      {"beta": 0.5, "divergence": "alpha", "alpha": 0.5, "exponent_bound": 0.4}], False),
]

WHOLE = [
    ("D04", "ipo", "arXiv 2310.12036 eq. 17", ipo, tuple(HAND),
     [{"beta": 0.1, "log_prob": "average"}, {"beta": 0.1, "log_prob": "sum"}, {"beta": 0.5, "log_prob": "sum"}]),
    ("D12", "aot", "arXiv 2406.05882", aot, tuple(HAND)[:4],
     [{"beta": 0.1, "label_smoothing": 0.0}, {"beta": 0.5, "label_smoothing": 0.1}]),
    ("D12", "aot_unpaired", "arXiv 2406.05882", aot_unpaired, tuple(HAND)[:4],
     [{"beta": 0.1, "label_smoothing": 0.0}, {"beta": 0.5, "label_smoothing": 0.1}]),
    ("D13", "sigmoid_norm", "arXiv 2305.18290 eq. 7 on per-token means", sigmoid_norm, tuple(HAND),
     [{"beta": 0.1}, {"beta": 2.0}]),
    ("D01", "dpo_nll", "arXiv 2305.18290 eq. 7 plus the likelihood of the chosen response", dpo_nll, tuple(HAND),
     [{"beta": 0.1, "label_smoothing": 0.0, "nll_coef": 0.2, "nll": "sum"},
      {"beta": 0.1, "label_smoothing": 0.0, "nll_coef": 0.2, "nll": "sequence_mean"},
      {"beta": 0.5, "label_smoothing": 0.1, "nll_coef": 1.0, "nll": "token_mean"}]),
    ("D17", "simpo", "arXiv 2405.14734 eq. 6", simpo, POLICY,
     [{"beta": 2.0, "gamma": 0.5, "label_smoothing": 0.0}, {"beta": 2.5, "gamma": 1.4, "label_smoothing": 0.1}]),
    ("D18", "cpo", "arXiv 2401.08417", cpo, POLICY,
     [{"beta": 0.1, "label_smoothing": 0.0, "nll_coef": 1.0, "nll": "sum"},
      {"beta": 0.1, "label_smoothing": 0.0, "nll_coef": 1.0, "nll": "token_mean"},
      {"beta": 0.25, "label_smoothing": 0.1, "nll_coef": 0.5, "nll": "sequence_mean"}]),
    ("D19", "alpha_po", "arXiv 2501.03884", alpha_po, POLICY,
     [{"alpha": 0.25, "beta": 2.0, "gamma": 0.5}, {"alpha": -0.5, "beta": 2.0, "gamma": 0.1},
      {"alpha": 0.0, "beta": 2.0, "gamma": 0.5}]),
    ("D20", "orpo", "arXiv 2403.07691 eq. 6", orpo, POLICY,
     [{"beta": 0.1, "log_prob": "average", "nll": "token_mean"},
      {"beta": 0.5, "log_prob": "average", "nll": "sequence_mean"},
      {"beta": 0.1, "log_prob": "sum", "nll": "sum"}]),
]


def paired_cases():
    out = []
    for tag, name, equation, f, settings, extreme in PAIRED:
        sets = [("hand", HAND), ("drawn", drawn(tag + name))] + ([("extreme", EXTREME)] if extreme else [])
        for i, p in enumerate(settings, 1):
            for label, data in sets:
                if label == "extreme" and i != len(settings):
                    continue
                def each(fixed, q, f=f):
                    return {"pair_loss": [f(w, l, q) for w, l in zip(*ratios(fixed))]}
                out.append(vector(f"{tag}-{name}-{label}-{i}", name, equation, p, only(data, tuple(HAND)[:4]),
                                  paired(f), BOTH, each))
    return out


def whole_cases():
    out = []
    for tag, name, equation, f, names, settings in WHOLE:
        for i, p in enumerate(settings, 1):
            for label, data in (("hand", HAND), ("drawn", drawn(tag + name))):
                out.append(vector(f"{tag}-{name}-{label}-{i}", name, equation, p, only(data, names), f, BOTH))
    out.append(vector("D20-orpo-certain-1", "orpo", "arXiv 2403.07691 eq. 6",
                      {"beta": 0.1, "log_prob": "average", "nll": "token_mean"},
                      {"chosen": [-0.0009765625, -64.0], "rejected": [-128.0, -0.0009765625],
                       "chosen_length": [4, 2], "rejected_length": [2, 1]}, orpo, BOTH,
                      note="log-probabilities close to 0 and far from it: log(1 - exp(x)) needs a stable form"))
    return out


def token_cases():
    out = []
    shapes = [([4, 2, 3], [2, 5, 3]), ([1, 6], [3, 2])]
    for i, lengths in enumerate(shapes, 1):
        data = tokens(f"ld{i}", lengths)
        for j, p in enumerate([{"beta": 0.5, "alpha": 0.5}, {"beta": 0.1, "alpha": 0.0}, {"beta": 0.1, "alpha": 1.0}], 1):
            out.append(vector(f"D15-ld_dpo-{i}-{j}", "ld_dpo", "arXiv 2409.06411", p, data, ld_dpo,
                              ("chosen_logp", "rejected_logp"), lambda fixed, q: ld_sums(fixed, fixed, q),
                              note="tokens beyond the shorter length of the pair count alpha, in policy and reference"))
        data = tokens(f"wpo{i}", lengths, collision=True)
        def weights(fixed, q):
            return {side + "_weight": wpo_weights(fixed, side) for side in BOTH}
        for j, beta in enumerate([0.1, 0.5], 1):
            out.append(vector(f"D16-wpo-{i}-{j}", "wpo", "arXiv 2406.11827", {"beta": beta}, data, wpo,
                              ("chosen_logp", "rejected_logp"), weights,
                              note="log_collision is log of the sum of squared probabilities; weights carry no gradient"))
    rng = random.Random("nash")
    for i, (lengths, beta) in enumerate([([3, 0, 5, 1], 0.1), ([2, 4], 0.5)], 1):
        n = sum(lengths)
        logp = dyadics(rng, n, -3, -0.0625)
        data = {"logp": logp, "logp_ref": [a + d for a, d in zip(logp, dyadics(rng, n, -0.75, 0.75))],
                "mask": [int(t != 1) for t in range(n)], "cu_seqlens": offsets(lengths),
                "win_probability": dyadics(rng, len(lengths), 0, 1)}
        out.append(vector(f"D24-nash_md-{i}", "nash_md", "arXiv 2312.00886", {"beta": beta}, data, nash_md, ("logp",),
                          note="mean over all sequences; the log-ratio that multiplies logp carries no gradient"))
    return out


def unpaired_cases():
    out = []
    rng = random.Random("unpaired")
    labels = [[1, 0, 1, 0, 1], [0, 0, 1], [1, 1]]
    kto_sets = [{"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
                {"beta": 0.5, "desirable_weight": 1.33, "undesirable_weight": 0.75}]
    for i, label in enumerate(labels, 1):
        n = len(label)
        logp = dyadics(rng, n, -30, -1)
        data = {"logp": logp, "logp_ref": [a + d for a, d in zip(logp, dyadics(rng, n, -4, 4))], "label": label}
        shift = -1 if i == 2 else 1
        mismatched = dyadics(rng, n, -30, -1)
        kl = {"kl_logp": [a + shift * d for a, d in zip(mismatched, dyadics(rng, n, 0.25, 3))],
              "kl_logp_ref": mismatched}
        for j, p in enumerate(kto_sets, 1):
            out.append(vector(f"D21-kto-{i}-{j}", "kto", "arXiv 2402.01306", p, {**data, **kl}, kto, ("logp",),
                              lambda fixed, q: {"kl": kto_kl(fixed, q)},
                              note="kl is the mean over the mismatched pairs, not below 0, without gradient"))
        for j, p in enumerate([{"beta": 0.1, "delta": 0.0}, {"beta": 0.5, "delta": -0.375}], 1):
            out.append(vector(f"D22-bco-{i}-{j}", "bco", "arXiv 2404.04656", p, data, bco, ("logp",),
                              note="delta is the reward shift, a constant"))
    for i, (rewards, start, count) in enumerate([([0.5, -1.25, 2.0], 0.25, 4), ([0.75], -0.5, 1), ([1.5, 3.0], 0.0, 0)], 1):
        values = nums(rewards)
        new = (num(start) * count + total(values)) / (count + len(values))
        out.append(case(f"D22-bco_running_mean-{i}", "bco_running_mean", "arXiv 2404.04656", {},
                        {"reward": rewards, "mean": [start], "count": [count]},
                        {"mean": [new], "count": [count + len(values)]},
                        note="the shift delta as the mean of every reward so far"))
    return out


def triple_and_online_cases():
    out = []
    gold = {"gold": [-11.0, -2.25, -33.5, -6.5, -1.75], "gold_length": [9, 2, 27, 6, 2]}
    three = ("chosen", "rejected", "gold")
    for i, p in enumerate([{"beta": 0.1, "label_smoothing": 0.0, "nll_coef": 1.0, "nll": "token_mean"},
                           {"beta": 0.5, "label_smoothing": 0.1, "nll_coef": 0.25, "nll": "sum"}], 1):
        out.append(vector(f"D23-tpo-{i}", "tpo", "arXiv 2405.16681", p, {**only(HAND, POLICY), **gold}, tpo, three))
        q = {**p, "beta": 2.0, "gamma": 0.5 * i}
        out.append(vector(f"D23-tpo_l-{i}", "tpo_l", "arXiv 2405.16681", q, {**only(HAND, POLICY), **gold}, tpo_l, three))
    swap = {"first": HAND["chosen"], "second": HAND["rejected"], "ref_first": HAND["ref_chosen"],
            "ref_second": HAND["ref_rejected"], "first_preferred": [1, 0, 0, 1, 1]}
    for i, p in enumerate([{"beta": 0.1, "loss": "sigmoid"}, {"beta": 0.5, "loss": "sigmoid"},
                           {"beta": 0.1, "loss": "ipo"}], 1):
        out.append(vector(f"D24-online_dpo-{i}", "online_dpo", "arXiv 2402.04792", p, swap, contest,
                          ("first", "second"), note="both responses come from the policy; a judge says which won"))
        out.append(vector(f"D24-xpo-{i}", "xpo", "arXiv 2405.21046", {**p, "alpha": 0.00001 if i == 1 else 0.25}, swap,
                          xpo, ("first", "second"),
                          note="first is sampled from the policy, second from the reference policy"))
    return out


def cases():
    return paired_cases() + whole_cases() + token_cases() + unpaired_cases() + triple_and_online_cases()
