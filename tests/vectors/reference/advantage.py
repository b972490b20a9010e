"""Reference of the advantage estimators, in exact inputs and 50-digit arithmetic.

Conventions of the vectors: per-sequence rewards are "reward", per-token rewards "reward_token"; groups are
"group_offsets" over sequences, sequences "cu_seqlens" over tokens; "valid" marks scorable rewards. Outputs hold 0 at
masked tokens and at invalid rewards.
"""

import random
import struct

from mpmath import exp, log, mpf, sqrt

from .common import (case, dyadic, dyadics, gradient, mean, num, nums, offsets, rows, total, variance)

GRPO = "arXiv 2402.03300 §4.1.2"
GAE = "arXiv 1506.02438 eq. 16"


def f32(x):
    """x rounded to float32, as a float."""
    return struct.unpack("f", struct.pack("f", x))[0]


def active(mask, row):
    """The unmasked indices of a row; every index when there is no mask."""
    return [t for t in row if mask is None or mask[t]]


# ------------------------------------------------------------------------------------------------ group statistics


def deviation(xs, ddof):
    """Standard deviation with divisor n - ddof; 0 where that divisor is not positive."""
    return sqrt(variance(xs, ddof)) if len(xs) > ddof else mpf(0)


def divide(centred, sigma, eps, placement):
    """centred over sigma with eps in the place named; 0 stays 0 whatever sigma is."""
    eps = num(eps)
    if centred == 0 or placement == "none":
        return centred
    if placement == "outside":
        return centred / (sigma + eps)
    if placement == "inside":
        return centred / sqrt(sigma ** 2 + eps)
    if placement == "floor":
        return centred / max(sigma, eps)
    if placement == "where_positive":
        return centred / (sigma + eps) if sigma > 0 else centred
    raise ValueError(placement)


def members(reward, valid, group):
    """The scorable members of a group."""
    return [i for i in group if valid is None or valid[i]]


def grpo(reward, group_offsets, valid=None, ddof=1, eps=1e-6, eps_placement="outside", baseline="mean",
         scale="group", singleton="zero"):
    """Group-normalised advantages, one per sequence."""
    out = [mpf(0)] * len(reward)
    everyone = [num(reward[i]) for g in rows(group_offsets) for i in members(reward, valid, g)]
    batch_sigma = deviation(everyone, ddof)
    for g in rows(group_offsets):
        ids = members(reward, valid, g)
        r = {i: num(reward[i]) for i in ids}
        if len(ids) == 1:
            if singleton == "raw_reward" and len(g) == 1:
                sigma = mpf(1)
                out[ids[0]] = r[ids[0]] if scale == "none" else divide(r[ids[0]], sigma, eps, eps_placement)
            continue
        others = {i: [r[j] for j in ids if j != i] for i in ids}
        centred = {i: r[i] - mean(others[i] if baseline == "leave_one_out" else r.values()) for i in ids}
        for i in ids:
            if scale == "none":
                out[i] = centred[i]
                continue
            sigma = {
                "group": lambda: deviation(list(r.values()), ddof),
                "batch": lambda: batch_sigma,
                "leave_one_out": lambda: deviation(others[i], ddof),
                "about_baseline": lambda: sqrt(total(c ** 2 for c in centred.values()) / (len(ids) - ddof)),
            }[scale]()
            out[i] = divide(centred[i], sigma, eps, eps_placement)
    return out


def group_report(reward, group_offsets, valid, ddof):
    """Size, mean, standard deviation and degeneracy of each group; an empty group is degenerate."""
    sizes, means, stds, degenerate = [], [], [], []
    for g in rows(group_offsets):
        r = [num(reward[i]) for i in members(reward, valid, g)]
        sizes.append(len(r))
        means.append(mean(r))
        stds.append(deviation(r, ddof))
        degenerate.append(int(all(x == r[0] for x in r)))
    return {"group_size": sizes, "group_mean": means, "group_std": stds, "group_degenerate": degenerate}


def grpo_case(id, reward, group_offsets, valid=None, note=None, equation=GRPO, tolerance=None, report=True, **options):
    p = dict(ddof=1, eps=1e-6, eps_placement="outside", baseline="mean", scale="group", singleton="zero")
    p.update(options)
    inputs = {"reward": reward, "group_offsets": group_offsets}
    if valid is not None:
        inputs["valid"] = valid
    expected = {"advantage": grpo(reward, group_offsets, valid, **p)}
    if report:
        expected.update(group_report(reward, group_offsets, valid, p["ddof"]))
    return case(id, "grpo", equation, p, inputs, expected, tolerance=tolerance, note=note)


PEERS = {
    "verl": (dict(eps=1e-6, singleton="raw_reward"), "verl: std1 + 1e-6, a lone sample keeps its reward"),
    "trl": (dict(eps=1e-4), "TRL: std1 + 1e-4, a lone sample gets 0"),
    "trl_async": (dict(ddof=0, eps=1e-8), "TRL asynchronous worker: std0 + 1e-8"),
    "trl_batch": (dict(eps=1e-4, scale="batch"), "TRL scale_rewards=batch (arXiv 2508.08221): std1 of the whole batch"),
    "trl_none": (dict(scale="none"), "TRL scale_rewards=none"),
    "openrlhf": (dict(eps=1e-9, singleton="error"), "OpenRLHF group_norm: std1 + 1e-9; a lone sample would be NaN"),
    "nemo": (dict(baseline="leave_one_out", scale="leave_one_out", eps_placement="where_positive"),
             "NeMo RL default: mean and std1 of the other samples, divided only where that std is positive"),
    "nemo_plain": (dict(eps_placement="where_positive"), "NeMo RL without leave-one-out"),
    "slime": (dict(eps=1e-6, singleton="error"), "slime: std1 + 1e-6; a lone sample would be NaN"),
    "areal": (dict(eps=1e-5), "AReaL: std1 + 1e-5"),
    "areal_leave_one_out": (dict(eps=1e-5, baseline="leave_one_out", scale="about_baseline", singleton="raw_reward"),
                            "AReaL leave-one-out mean: the deviation is taken about that same baseline"),
    "tunix": (dict(eps=1e-6, singleton="error"), "tunix: std1 + 1e-6; refuses a lone sample"),
    "torchtune": (dict(eps=1e-4, singleton="error"), "torchtune: std1 + 1e-4; a lone sample would be NaN"),
    "rl_cu": (dict(ddof=0, eps=1e-8, eps_placement="inside"), "RL.cu: sqrt(var0 + 1e-8)"),
    "rl_kernel": (dict(ddof=0, eps=1e-6, eps_placement="floor"), "RL-Kernel: max(std0, 1e-6)"),
    "grpo_cpp": (dict(ddof=0, eps=1e-8, eps_placement="inside"), "grpo.cpp: sqrt(var0 + 1e-8)"),
    "deepseekmath": (dict(ddof=0, eps=0.0), "DeepSeekMath as printed: no eps; the ddof is not stated, here 0"),
}


def grpo_cases(rng):
    out = []
    pairs = offsets([4, 3, 2, 5])
    reward = [1.0, 0.0, 0.0, 1.0, 0.5, 0.25, -1.0, 2.0, 2.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    lonely = offsets([2, 1, 3, 0, 1])
    lonely_reward = [1.5, -0.5, 0.75, 0.0, 1.0, 3.0, -2.0]
    for name, (options, note) in PEERS.items():
        out.append(grpo_case(f"A03-{name}", reward, pairs, note=note, **options))
        if options.get("singleton") != "error":
            out.append(grpo_case(f"A03-{name}-singleton", lonely_reward, lonely, note=note, **options))
    out.append(case("A03-singleton-error", "grpo", GRPO,
                    dict(ddof=1, eps=1e-6, eps_placement="outside", baseline="mean", scale="group", singleton="error"),
                    {"reward": lonely_reward, "group_offsets": lonely}, {"error": 1},
                    note="a group of one is refused"))
    for ddof in (0, 1):
        for placement, eps in (("outside", 0.125), ("inside", 0.125), ("floor", 0.5), ("where_positive", 0.125),
                               ("outside", 0.0)):
            for baseline in ("mean", "leave_one_out"):
                for scale in ("group", "batch", "none"):
                    g = offsets([rng.randint(2, 4), rng.randint(2, 4), 3])
                    r = dyadics(rng, g[-1] - 3, -2, 2, 16) + [1.0, 1.0, 1.0]
                    out.append(grpo_case(f"A03-{placement}-{eps}-ddof{ddof}-{baseline}-{scale}", r, g, ddof=ddof,
                                         eps=eps, eps_placement=placement, baseline=baseline, scale=scale,
                                         report=False))
    for ddof in (0, 1):
        g = offsets([5, 4, 3])
        out.append(grpo_case(f"A03-leave_one_out-std-ddof{ddof}", dyadics(rng, 12, -2, 2, 16), g, ddof=ddof, eps=0.25,
                             baseline="leave_one_out", scale="leave_one_out"))
    return out + grpo_corner_cases(rng)


def grpo_corner_cases(rng):
    out = []
    close = [1.0, f32(1.00001), 2.0, f32(2.00001)]
    out.append(grpo_case("R1.2-two-close-rewards", close, offsets([2, 2]), eps=1e-6,
                         note="published: -0.6196008, 0.6196008 in both groups (verl PR 6348); E[x^2]-E[x]^2 in "
                              "float32 gives 0.0050"))
    out.append(grpo_case("R1.2-large-offset", [1e4, 1e4 + 1, 1e4 + 2, 1e4 + 4], offsets([4]), eps=1e-6))
    out.append(grpo_case("R1.2-hundred", [100.0, f32(100.001), f32(100.002), f32(100.004)], offsets([4]), eps=1e-6,
                         note="inputs are rounded to float32"))
    for name, value in (("0.1", f32(0.1)), ("third", f32(1 / 3)), ("1e4", f32(1e4 + 0.1)), ("negative", f32(-7.3))):
        for eps in (0.0, 1e-9, 1e-4):
            out.append(grpo_case(f"R1.1-constant-{name}-eps{eps}", [value] * 13, offsets([8, 5]), eps=eps,
                                 note="all rewards equal: every advantage is exactly 0"))
    base = dyadics(rng, 6, -1, 1, 8)
    g = offsets([3, 3])
    out.append(grpo_case("R1.4-plain", base, g, eps=0.0))
    out.append(grpo_case("R1.4-shifted", [x + 64 for x in base], g, eps=0.0, note="the advantages of R1.4-plain"))
    out.append(grpo_case("R1.4-scaled", [-4 * x for x in base], g, eps=0.0, note="minus the advantages of R1.4-plain"))
    mixed = [1.0, 3.0, 0.5, -1.0, 0.0, 2.0]
    out.append(grpo_case("R1.9-mixed-sizes", mixed, offsets([2, 1, 3]), eps=1e-4))
    for name, part in (("first", mixed[:2]), ("second", mixed[2:3]), ("third", mixed[3:])):
        out.append(grpo_case(f"R1.9-{name}-alone", part, [0, len(part)], eps=1e-4))
    holes = [1.0, "nan", 0.0, 2.0, "nan", 1.5, "nan", "nan", 3.0, "inf", 4.0]
    valid = [1, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1]
    for scale in ("group", "batch"):
        out.append(grpo_case(f"R1.6-invalid-{scale}", holes, offsets([4, 2, 2, 3]), valid, eps=1e-4, scale=scale,
                             note="invalid rewards enter no statistic and get 0; one scorable sample gives 0"))
    winner = [1.0] + [f32(-0.9)] * 15
    nemo = PEERS["nemo"][0]
    out.append(grpo_case("A03-nemo-lone-winner", winner, [0, 16], **nemo,
                         note="the winner's leave-one-out deviation is exactly 0, so it stays undivided; NeMo RL in "
                              "float32 was observed to return 7488.88 for it"))
    out.append(grpo_case("A03-nemo-pair", [2.0, 0.5], [0, 2], **nemo, note="n = 2: undivided"))
    out.append(grpo_case("A03-leave_one_out-flat-peers", [0.0, 100.0, 100.0], [0, 3], **nemo,
                         note="published: -100, 0.7071, 0.7071 (tunix, leave-one-out test)"))
    big = [float(rng.random() < 0.25) for _ in range(64)]
    out.append(grpo_case("A03-sixty-four-in-eight", big, offsets([8] * 8), eps=1e-4))
    return out


# ------------------------------------------------------------------------------------- relatives of the group mean


def scalar_family_cases(rng):
    out = []
    g = offsets([3, 1, 4, 2, 0, 2])
    r = dyadics(rng, 10, -2, 2, 16) + [0.5, 0.5]
    for singleton in ("zero", "raw_reward"):
        p = dict(singleton=singleton)
        keep = dict(p, eps=0.0)
        out.append(case(f"A04-dr_grpo-{singleton}", "dr_grpo", "arXiv 2503.20783", p,
                        {"reward": r, "group_offsets": g}, {"advantage": grpo(r, g, scale="none", **keep)}))
        out.append(case(f"A08-rloo-{singleton}", "rloo", "arXiv 2402.14740",
                        dict(p, batch_normalise=0, ddof=1, eps=1e-4), {"reward": r, "group_offsets": g},
                        {"advantage": grpo(r, g, scale="none", baseline="leave_one_out", **keep)}))
        out.append(case(f"A13-gpg-{singleton}", "gpg", "arXiv 2504.02546", dict(p, norm=1.0),
                        {"reward": r, "group_offsets": g}, {"advantage": gpg(r, g, singleton, 1.0)}))
    out.append(case("A08-rloo-batch-normalised", "rloo", "arXiv 2402.14740",
                    dict(singleton="zero", batch_normalise=1, ddof=1, eps=1e-4), {"reward": r, "group_offsets": g},
                    {"advantage": normalise_all(grpo(r, g, scale="none", baseline="leave_one_out"), None, 1, 1e-4,
                                                "outside")}))
    valid = [1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1]
    bad = ["nan" if not v else x for v, x in zip(valid, r)]
    out.append(case("A08-rloo-invalid", "rloo", "arXiv 2402.14740",
                    dict(singleton="zero", batch_normalise=0, ddof=1, eps=1e-4),
                    {"reward": bad, "group_offsets": g, "valid": valid},
                    {"advantage": grpo(bad, g, valid, scale="none", baseline="leave_one_out")},
                    note="the baseline averages the other scorable samples; one alone gets 0"))
    six = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    out.append(case("A08-rloo-published", "rloo", "arXiv 2402.14740",
                    dict(singleton="zero", batch_normalise=0, ddof=1, eps=1e-4),
                    {"reward": six, "group_offsets": [0, 3, 6]},
                    {"advantage": grpo(six, [0, 3, 6], scale="none", baseline="leave_one_out")},
                    note="published: -1.5, 0, 1.5 in both groups (tunix, algo_core test)"))
    sparse = [1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0]
    out.append(case("A13-gpg-sparse", "gpg", "arXiv 2504.02546", dict(singleton="raw_reward", norm=2.0),
                    {"reward": sparse, "group_offsets": [0, 4, 8]},
                    {"advantage": gpg(sparse, [0, 4, 8], "raw_reward", 2.0)},
                    note="8 rewards, 2 of them non-zero: alpha = 4"))
    out.append(case("A13-gpg-all-zero", "gpg", "arXiv 2504.02546", dict(singleton="raw_reward", norm=1.0),
                    {"reward": [0.0] * 4, "group_offsets": [0, 4]}, {"advantage": [0.0] * 4}))
    out.append(case("A16-raw", "raw", "A = r", {}, {"reward": r}, {"advantage": nums(r)}))
    out.append(case("A20-clip-both", "clip", "A = min(max(A, low), high)", dict(low=-0.5, high=1.0),
                    {"advantage": r}, {"advantage": [min(max(num(x), num(-0.5)), num(1)) for x in r]}))
    out.append(case("A20-clip-low", "clip", "A = min(max(A, low), high)", dict(low=-0.25, high="inf"),
                    {"advantage": r}, {"advantage": [max(num(x), num(-0.25)) for x in r]}))
    return out + pass_at_k_cases(rng) + pf_ppo_cases(rng)


def gpg(reward, group_offsets, singleton, norm):
    """B over the count of non-zero rewards, times the centred reward, over norm."""
    nonzero = max(sum(1 for x in reward if x != 0), 1)
    centred = grpo(reward, group_offsets, scale="none", singleton=singleton)
    return [x * len(reward) / nonzero / num(norm) for x in centred]


def pass_at_k(reward, group_offsets, eps, normalise):
    """Only the strictly best response of a group scores: its lead over the second best."""
    out = [mpf(0)] * len(reward)
    for g in rows(group_offsets):
        if len(g) < 2:
            continue
        ranked = sorted(g, key=lambda i: num(reward[i]), reverse=True)
        lead = num(reward[ranked[0]]) - num(reward[ranked[1]])
        sigma = deviation(nums(reward[i] for i in g), 1)
        out[ranked[0]] = divide(lead, sigma, eps, "outside") if normalise else lead
    return out


def pass_at_k_cases(rng):
    out = []
    g = offsets([4, 3, 1, 5])
    r = [0.0, 1.0, 0.25, 0.0, 1.0, 1.0, 0.0, 2.0] + dyadics(rng, 5, -1, 1, 16)
    for normalise in (1, 0):
        out.append(case(f"A07-pass_at_k-normalise{normalise}", "pass_at_k", "arXiv 2503.19595",
                        dict(ddof=1, eps=1e-6, normalise=normalise, singleton="zero"),
                        {"reward": r, "group_offsets": g}, {"advantage": pass_at_k(r, g, 1e-6, normalise)},
                        note="a tie for the maximum and a group of one give 0"))
    return out


def pf_ppo_cases(rng):
    r = [1.0, -0.5, 0.0, 2.0, -1.5, 2.0, 0.25]
    x = nums(r)
    top, bottom = max(x), min(x)
    kinds = {
        "power": [abs(v) ** 2 for v in x],
        "max_min": [mpf(int(v in (top, bottom))) for v in x],
        "max_random": [num("0.4") if v == top else num("0.1") for v in x],
    }
    out = []
    for kind, w in kinds.items():
        w = [v + num(1e-8) for v in w]
        out.append(case(f"A22-pf_ppo-{kind}", "pf_ppo", "arXiv 2409.06957", dict(kind=kind, power=2.0, eps=1e-8),
                        {"reward": r}, {"weight": w, "probability": [v / total(w) for v in w]},
                        note="weights of the multinomial resampling with replacement"))
    return out


# ---------------------------------------------------------------------------------------------- whitening, GDPO, OPO


def normalise_all(x, mask, ddof, eps, placement, center=1):
    """Whitening of every active entry by one mean and one deviation; 0 at masked entries."""
    live = active(mask, range(len(x)))
    if not live:
        return [mpf(0)] * len(x)
    values = [num(x[t]) for t in live]
    mu, sigma = mean(values), deviation(values, ddof)
    out = [mpf(0)] * len(x)
    for t, v in zip(live, values):
        out[t] = divide(v - mu, sigma, eps, placement) + (0 if center else mu)
    return out


WHITENING = {
    "verl": dict(ddof=1, eps=1e-8, eps_placement="inside", center=1),
    "slime": dict(ddof=1, eps=1e-8, eps_placement="inside", center=1),
    "rewards": dict(ddof=1, eps=1e-8, eps_placement="inside", center=0),
    "openrlhf": dict(ddof=0, eps=1e-4, eps_placement="floor", center=1),
    "openrlhf-no-std": dict(ddof=0, eps=0.0, eps_placement="none", center=1),
    "areal": dict(ddof=1, eps=1e-5, eps_placement="outside", center=1),
    "areal-biased": dict(ddof=0, eps=1e-5, eps_placement="outside", center=1),
    "big-eps": dict(ddof=1, eps=0.5, eps_placement="inside", center=1),
}
WHITENING_NOTES = {
    "verl": "verl, TRL PPO, tunix, NeMo RL GAE; torchtune with its shift flag off",
    "rewards": "the mean is added back: verl and TRL with the flag off, torchtune with it on",
    "openrlhf": "OpenRLHF, NeMo RL: rsqrt(max(var, 1e-8)), the same as max(std, 1e-4)",
    "openrlhf-no-std": "centred only",
}


def whitening_cases(rng):
    out = []
    x = dyadics(rng, 11, -3, 3, 64)
    mask = [1, 1, 0, 1, 1, 0, 0, 1, 1, 1, 1]
    poisoned = [v if m else "nan" for v, m in zip(x, mask)]
    for name, p in WHITENING.items():
        data = {"plain": (x, None), "masked": (poisoned, mask), "single": ([2.5, "nan"], [1, 0]),
                "constant": ([f32(0.1)] * 5, None), "tiny": ([1.0, 1.0 + 2.0 ** -20, 1.0 - 2.0 ** -20], None)}
        for kind, (values, m) in data.items():
            if kind == "tiny" and name.startswith("big"):
                continue
            inputs = {"advantage_token": values}
            if m is not None:
                inputs["mask"] = m
            white = normalise_all(values, m, p["ddof"], p["eps"], p["eps_placement"], p["center"])
            out.append(case(f"A19-whiten-{name}-{kind}", "whiten", "A = (x - mean) / std", p, inputs,
                            {"advantage_token": white}, note=WHITENING_NOTES.get(name)))
    out.append(case("A19-whiten-empty", "whiten", "A = (x - mean) / std", WHITENING["verl"],
                    {"advantage_token": ["nan", "inf"], "mask": [0, 0]}, {"advantage_token": [0.0, 0.0]}))
    return out


def gdpo(keys, weights, group_offsets, valid, group, batch, level, lengths):
    """Per-key group normalisation, weighted sum, then batch normalisation over samples or over their tokens."""
    size = len(keys[0])
    mixed, scored = [mpf(0)] * size, [0] * size
    for k, r in enumerate(keys):
        v = None if valid is None else valid[k]
        a = grpo(r, group_offsets, v, **group)
        for i in range(size):
            if v is None or v[i]:
                mixed[i] += num(weights[k]) * a[i]
                scored[i] = 1
    spread = []
    for i in range(size):
        spread += [mixed[i]] * ((lengths[i] if level == "token" else 1) * scored[i])
    mu, sigma = mean(spread), deviation(spread, batch["ddof"])
    return [divide(mixed[i] - mu, sigma, batch["eps"], batch["eps_placement"]) if scored[i] else mpf(0)
            for i in range(size)]


def gdpo_cases(rng):
    g = offsets([3, 4, 2])
    keys = [[float(rng.random() < 0.5) for _ in range(9)], dyadics(rng, 9, -1, 1, 16)]
    keys[0][0:3] = [1.0, 0.0, 0.0]
    weights = [1.0, 0.5]
    lengths = [2, 1, 3, 1, 4, 2, 2, 1, 3]
    group = {
        "trl": dict(ddof=1, eps=1e-4, eps_placement="outside", baseline="mean", scale="group", singleton="zero"),
        "verl": dict(ddof=1, eps=1e-6, eps_placement="outside", baseline="mean", scale="group",
                     singleton="raw_reward"),
        "nemo": dict(ddof=1, eps=1e-6, eps_placement="where_positive", baseline="leave_one_out",
                     scale="leave_one_out", singleton="zero"),
    }
    batch = {
        "trl": dict(ddof=1, eps=1e-4, eps_placement="outside"),
        "verl": dict(ddof=1, eps=1e-8, eps_placement="inside"),
        "nemo": dict(ddof=1, eps=0.0, eps_placement="outside"),
    }
    out = []
    for name in group:
        level = "token" if name == "verl" else "sample"
        p = dict(weights=weights, level=level, group=group[name], batch=batch[name])
        flat = keys[0] + keys[1]
        inputs = {"reward": flat, "group_offsets": g}
        if level == "token":
            inputs["cu_seqlens"] = offsets(lengths)
        out.append(case(f"A06-gdpo-{name}", "gdpo", "arXiv 2601.05242", p, inputs,
                        {"advantage": gdpo(keys, weights, g, None, group[name], batch[name], level, lengths)},
                        note="reward is key-major: reward[k * sequences + i]"))
    valid = [[1, 1, 1, 0, 1, 1, 1, 1, 0], [1, 0, 1, 0, 1, 1, 1, 1, 1]]
    torn = [[x if v else "nan" for x, v in zip(keys[k], valid[k])] for k in range(2)]
    out.append(case("A06-gdpo-invalid", "gdpo", "arXiv 2601.05242",
                    dict(weights=weights, level="sample", group=group["trl"], batch=batch["trl"]),
                    {"reward": torn[0] + torn[1], "valid": valid[0] + valid[1], "group_offsets": g},
                    {"advantage": gdpo(torn, weights, g, valid, group["trl"], batch["trl"], "sample", lengths)},
                    note="a sample without any scorable key stays out of the batch statistics and gets 0"))
    return out


def opo_cases(rng):
    """Length-weighted mean baseline."""
    g = offsets([3, 1, 4])
    lengths = [2, 4, 1, 3, 0, 2, 5, 1]
    cu = offsets(lengths)
    r = dyadics(rng, 8, -2, 2, 16)
    mask = [int(rng.random() < 0.75) for _ in range(cu[-1])]
    out = []
    for name, m in (("plain", None), ("masked", mask)):
        for singleton in ("raw_reward", "zero"):
            a = []
            for group in rows(g):
                n = {i: len(active(m, rows(cu)[i])) for i in group}
                base = total(n[i] * num(r[i]) for i in group) / sum(n.values())
                if len(group) == 1 and singleton == "raw_reward":
                    base = mpf(0)
                a += [num(r[i]) - base for i in group]
            inputs = {"reward": r, "group_offsets": g, "cu_seqlens": cu}
            if m:
                inputs["mask"] = m
            out.append(case(f"A12-opo-{name}-{singleton}", "opo", "arXiv 2505.23585", dict(singleton=singleton),
                            inputs, {"advantage": a}))
    return out


# --------------------------------------------------------------------------------------------------------------- GAE


def gae(reward, value, cu, mask=None, gamma=1, lam=1, discount=None, lambda_token=None, terminated=None,
        truncated=None, bootstrap=None):
    """Generalised advantage estimation on each row's active tokens; the value beyond the end of a row is 0.

    terminated: no value and no advantage flows back from the next step. truncated: the episode is cut, the next
    value is bootstrap[t] and no advantage flows back. discount[t] replaces gamma, lambda_token[t] replaces lambda.
    """
    advantage, returns = [mpf(0)] * len(reward), [mpf(0)] * len(reward)
    for row in rows(cu):
        after, carried = mpf(0), mpf(0)
        for t in reversed(active(mask, row)):
            g = num(gamma if discount is None else discount[t])
            k = num(lam if lambda_token is None else lambda_token[t])
            if terminated is not None and terminated[t]:
                after, carried = mpf(0), mpf(0)
            elif truncated is not None and truncated[t]:
                after, carried = num(bootstrap[t]), mpf(0)
            v = num(value[t])
            carried = num(reward[t]) + g * after - v + g * k * carried
            advantage[t], returns[t], after = carried, carried + v, v
    return advantage, returns


def gae_inputs(rng, lengths, holes):
    cu = offsets(lengths)
    n = cu[-1]
    x = {"reward_token": dyadics(rng, n, -1, 1), "value": dyadics(rng, n, -1, 1), "cu_seqlens": cu}
    if holes:
        mask = [int(rng.random() < 0.6) for _ in range(n)]
        x["mask"] = mask
        for name in ("reward_token", "value"):
            x[name] = [v if m else rng.choice([999.0, "nan", "inf"]) for v, m in zip(x[name], mask)]
    return x


def gae_case(id, x, gamma, lam, note=None):
    a, r = gae(x["reward_token"], x["value"], x["cu_seqlens"], x.get("mask"), gamma, lam, x.get("discount"),
               x.get("lambda_token"), x.get("terminated"), x.get("truncated"), x.get("bootstrap"))
    return case(id, "gae", GAE, {"gamma": gamma, "lambda": lam}, x, {"advantage_token": a, "return_token": r},
                note=note)


def gae_cases(rng):
    out = []
    lengths = [4, 0, 1, 6]
    for gamma, lam in ((1.0, 1.0), (1.0, 0.95), (0.99, 0.95), (0.9, 0.0), (0.0, 0.5), (0.5, 1.0)):
        for holes in (0, 1):
            out.append(gae_case(f"A01-gae-{gamma}-{lam}-{'holes' if holes else 'plain'}",
                                gae_inputs(rng, lengths, holes), gamma, lam))
    x = gae_inputs(rng, [7, 5], True)
    x["mask"][0:7] = [0, 1, 1, 0, 0, 1, 0]
    x["mask"][7:12] = [0] * 5
    for name, clean in (("reward_token", 0.5), ("value", -0.25)):
        x[name] = [v if m and v not in ("nan", "inf", 999.0) else (clean if m else "nan")
                   for v, m in zip(x[name], x["mask"])]
    out.append(gae_case("R1.37-gae-holes", x, 0.9, 0.8, note="an interior gap, leading and trailing holes, an empty row"))
    live = [t for t in range(12) if x["mask"][t]]
    packed = {k: [x[k][t] for t in live] for k in ("reward_token", "value")}
    packed["cu_seqlens"] = [0, len(live), len(live)]
    out.append(gae_case("R1.37-gae-compacted", packed, 0.9, 0.8, note="the active tokens of R1.37-gae-holes"))
    return out + gae_episode_cases(rng)


def gae_episode_cases(rng):
    out = []
    x = gae_inputs(rng, [5, 4], False)
    out.append(gae_case("A01-gae-open-end", x, 0.9, 0.95, note="no flag: the value beyond the end is 0"))
    cut = [0, 0, 0, 0, 1, 0, 0, 0, 1]
    end = dict(x, truncated=cut, bootstrap=[dyadic(rng, -1, 1) if c else "nan" for c in cut])
    out.append(gae_case("R1.42-truncated-end", end, 0.9, 0.95, note="both rows are cut at their last token"))
    out.append(gae_case("R1.42-terminated-end", dict(x, terminated=cut), 0.9, 0.95,
                        note="the advantages of A01-gae-open-end"))
    for holes in (0, 1):
        y = gae_inputs(rng, [8, 6], holes)
        y["terminated"] = [0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
        y["truncated"] = [0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0]
        y["bootstrap"] = [dyadic(rng, -1, 1) if c else "nan" for c in y["truncated"]]
        out.append(gae_case(f"R1.42-episodes-{'holes' if holes else 'plain'}", y, 0.95, 0.9,
                            note="several episodes in one row; bootstrap is read only where truncated; a flag on a "
                                 "masked token is not read"))
    y = gae_inputs(rng, [5, 3], False)
    y["discount"] = [0.5, 1.0, 0.0, 0.75, 0.875, 0.25, 0.9375, 0.5]
    out.append(gae_case("R1.42-discount", y, 1.0, 0.95, note="discount[t] replaces gamma at step t; 0 ends an episode"))
    z = dict(y)
    z["lambda_token"] = [0.5, 0.75, 1.0, 0.0, 0.25, 0.875, 0.5, 1.0]
    out.append(gae_case("R1.42-lambda-array", z, 1.0, 1.0, note="lambda_token[t] replaces lambda at step t"))
    h = gae_inputs(rng, [6, 4], True)
    h["discount"] = [v if m else "nan" for v, m in zip([0.5, 1.0, 0.75, 0.875, 0.25, 0.5, 1.0, 0.5, 0.25, 0.75],
                                                       h["mask"])]
    out.append(gae_case("R1.42-discount-holes", h, 1.0, 0.9))
    return out


def vapo_cases(rng):
    """Separate lambdas for the policy's advantage and the critic's return; length-adaptive lambda of the policy."""
    out = []
    eq = "arXiv 2504.05118"
    for name, p in (("decoupled", dict(gamma=1.0, lambda_policy=0.95, lambda_value=1.0, alpha=0.0)),
                    ("discounted", dict(gamma=0.9, lambda_policy=0.5, lambda_value=0.75, alpha=0.0)),
                    ("adaptive", dict(gamma=1.0, lambda_policy=0.95, lambda_value=1.0, alpha=0.5)),
                    ("adaptive-paper", dict(gamma=1.0, lambda_policy=0.95, lambda_value=1.0, alpha=0.05))):
        for holes in (0, 1):
            x = gae_inputs(rng, [3, 48] if name == "adaptive-paper" else [1, 3, 7, 0], holes)
            a = [mpf(0)] * len(x["value"])
            lams = []
            for i, row in enumerate(rows(x["cu_seqlens"])):
                n = len(active(x.get("mask"), row))
                lam = num(p["lambda_policy"])
                if p["alpha"] > 0:
                    lam = min(max(1 - 1 / max(num(p["alpha"]) * n, mpf(1)), mpf(0)), mpf(1))
                lams.append(lam)
                part = gae(x["reward_token"], x["value"], x["cu_seqlens"], x.get("mask"), p["gamma"], lam)[0]
                for t in row:
                    a[t] = part[t]
            r = gae(x["reward_token"], x["value"], x["cu_seqlens"], x.get("mask"), p["gamma"], p["lambda_value"])[1]
            out.append(case(f"A02-vapo-{name}-{'holes' if holes else 'plain'}", "vapo", eq, p, x,
                            {"advantage_token": a, "return_token": r, "lambda_policy": lams},
                            note="alpha > 0: lambda_policy = clip(1 - 1/max(alpha n, 1), 0, 1) per sequence, n = its "
                                 "active tokens; returns keep lambda_value"))
    return out


# ------------------------------------------------------------------------------------------------------- token returns


def returns_to_go(reward, cu, mask, gamma):
    """Discounted sums over the active tokens from t on; masked tokens neither count nor discount."""
    out = [mpf(0)] * len(reward)
    for row in rows(cu):
        carried = mpf(0)
        for t in reversed(active(mask, row)):
            carried = num(reward[t]) + num(gamma) * carried
            out[t] = carried
    return out


def token_data(rng, lengths, holes):
    x = gae_inputs(rng, lengths, holes)
    del x["value"]
    return x


def return_cases(rng):
    out = []
    eq = "arXiv 2501.03262"
    for gamma in (1.0, 0.9):
        for holes in (0, 1):
            x = token_data(rng, [4, 1, 5, 0], holes)
            g = returns_to_go(x["reward_token"], x["cu_seqlens"], x.get("mask"), gamma)
            tag = f"{gamma}-{'holes' if holes else 'plain'}"
            out.append(case(f"A24-discounted_return-{tag}", "discounted_return", "G_t = r_t + gamma G_{t+1}",
                            dict(gamma=gamma), x, {"return_token": g}))
            for name, w in (("verl", dict(ddof=1, eps=1e-8, eps_placement="inside")),
                            ("openrlhf", dict(ddof=0, eps=1e-4, eps_placement="floor"))):
                p = dict(gamma=gamma, **w)
                a = normalise_all(g, x.get("mask"), p["ddof"], p["eps"], p["eps_placement"])
                out.append(case(f"A09-reinforce_plus_plus-{name}-{tag}", "reinforce_plus_plus", eq, p, x,
                                {"advantage_token": a, "return_token": g}))
    long = token_data(rng, [150, 129], False)
    long["reward_token"] = [0.0] * 279
    for t in (0, 60, 127, 128, 149, 150, 200, 278):
        long["reward_token"][t] = dyadic(rng, -4, 4, 8)
    out.append(case("A24-discounted_return-long", "discounted_return", "G_t = r_t + gamma G_{t+1}",
                    dict(gamma=0.96875), long,
                    {"return_token": returns_to_go(long["reward_token"], long["cu_seqlens"], None, 0.96875)},
                    note="long enough for a chunked scan to cross a chunk of 128"))
    for holes in (0, 1):
        x = token_data(rng, [4, 1, 5, 0], holes)
        x["baseline"] = dyadics(rng, 4, -1, 1)
        g = returns_to_go(x["reward_token"], x["cu_seqlens"], x.get("mask"), 1)
        a = [mpf(0)] * len(g)
        for i, row in enumerate(rows(x["cu_seqlens"])):
            for t in active(x.get("mask"), row):
                a[t] = g[t] - num(x["baseline"][i])
        out.append(case(f"A11-remax-{'holes' if holes else 'plain'}", "remax", "arXiv 2310.10505", {}, x,
                        {"advantage_token": a, "return_token": g},
                        note="baseline: the reward of the greedy answer, one per sequence"))
    for discount in (1.0, 0.5, 0.9, 0.0):
        turns = {"reward": dyadics(rng, 8, -1, 1, 16), "turn_offsets": [0, 3, 3, 4, 8]}
        out.append(case(f"A21-turn_returns-{discount}", "turn_returns", "R_i = r_i + discount R_{i+1}",
                        dict(discount=discount), turns,
                        {"return": returns_to_go(turns["reward"], turns["turn_offsets"], None, discount)}))
    return out + baseline_whitened_cases(rng)


def baseline_whitened_cases(rng):
    """REINFORCE++-baseline: centred by the group, broadcast to tokens, whitened over the batch's tokens."""
    out = []
    g = offsets([3, 1, 2])
    cu = offsets([2, 4, 1, 3, 0, 2])
    r = dyadics(rng, 6, -2, 2, 16)
    mask = [1, 1, 0, 1, 1, 0, 1, 1, 0, 1, 1, 1]
    for m, tag in ((None, "plain"), (mask, "holes")):
        for singleton in ("raw_reward", "zero"):
            for name, w in (("verl", dict(ddof=1, eps=1e-8, eps_placement="inside")),
                            ("openrlhf", dict(ddof=0, eps=1e-4, eps_placement="floor"))):
                centred = grpo(r, g, scale="none", singleton=singleton)
                spread = broadcast(centred, cu, m)
                inputs = {"reward": r, "group_offsets": g, "cu_seqlens": cu}
                if m:
                    inputs["mask"] = m
                a = normalise_all(spread, m, w["ddof"], w["eps"], w["eps_placement"])
                out.append(case(f"A10-reinforce_plus_plus_baseline-{name}-{singleton}-{tag}",
                                "reinforce_plus_plus_baseline", "arXiv 2501.03262", dict(singleton=singleton, **w),
                                inputs, {"advantage_token": a}))
    return out


def broadcast(per_sequence, cu, mask):
    """One value per sequence to its active tokens."""
    out = [mpf(0)] * cu[-1]
    for i, row in enumerate(rows(cu)):
        for t in active(mask, row):
            out[t] = num(per_sequence[i])
    return out


# ------------------------------------------------------------------------------------------- optimal token baseline


def token_baseline(x, eps, compact):
    """Variance-optimal baseline per position, over the rows of each group.

    Positions are columns from the start of a row, or with compact the rank among the row's active tokens. A single
    strictly longest row has baseline 0 from the second-longest row's length on.
    """
    cu, mask = x["cu_seqlens"], x.get("mask")
    seqs = rows(cu)
    g = returns_to_go(x["reward_token"], cu, mask, 1)
    big_w = [mpf(0)] * cu[-1]
    for row in seqs:
        run = mpf(0)
        for t in active(mask, row):
            w = 1 - 2 * exp(num(x["logp_old"][t])) + num(x["sum_probability_squared"][t])
            if "weight" in x:
                w *= num(x["weight"][t]) ** 2
            run += w
            big_w[t] = run
    advantage, base = [mpf(0)] * cu[-1], [mpf(0)] * cu[-1]
    for group in rows(x["group_offsets"]):
        column = {}
        for i in group:
            for rank, t in enumerate(active(mask, seqs[i])):
                column[t] = rank if compact else t - cu[i]
        counts = sorted((len(active(mask, seqs[i])) for i in group), reverse=True)
        for i in group:
            longest = len(counts) > 1 and len(active(mask, seqs[i])) == counts[0] > counts[1]
            for t in active(mask, seqs[i]):
                peers = [u for u in column if column[u] == column[t]]
                b = total(g[u] * big_w[u] for u in peers) / (total(big_w[u] for u in peers) + num(eps))
                if len(counts) == 1 or (longest and column[t] >= counts[1]):
                    b = mpf(0)
                base[t], advantage[t] = b, g[t] - b
    return {"advantage_token": advantage, "baseline_token": base, "return_token": g}


def otb_cases(rng):
    out = []
    eq = "arXiv 2602.07078"
    contiguous = [([4, 2, 4], "equal-longest"), ([2, 5, 3], "lone-longest"), ([3, 0, 1], "empty-row")]
    for weighted in (0, 1):
        for lengths, tag in contiguous:
            x = otb_inputs(rng, lengths + [3], [0, 3, 4], None, weighted)
            for compact, name in ((0, "otb"), (1, "otb_multi_turn")):
                if weighted and compact:
                    continue
                id = f"A1{4 + compact}-{name}-{tag}{'-weighted' if weighted else ''}"
                out.append(case(id, name, eq, dict(eps=1e-8), x, token_baseline(x, 1e-8, compact),
                                note="the last group has one member: baseline 0"))
        mask = [1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 0, 1]
        x = otb_inputs(rng, [5, 5, 2, 3], [0, 3, 4], mask, weighted)
        tag = "-weighted" if weighted else ""
        out.append(case(f"A14-otb-holes{tag}", "otb", eq, dict(eps=1e-8), holed(x), token_baseline(x, 1e-8, 0),
                        note="rows align by position; the two longest rows have the same number of active tokens")
                   if balanced(x) else None)
        out.append(case(f"A15-otb_multi_turn-holes{tag}", "otb_multi_turn", eq, dict(eps=1e-8), holed(x),
                        token_baseline(x, 1e-8, 1), note="rows align by rank among their active tokens"))
        mask = [1, 0, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 0, 0, 1]
        x = otb_inputs(rng, [5, 5, 2, 3], [0, 3, 4], mask, weighted)
        out.append(case(f"A15-otb_multi_turn-holes-lone-longest{tag}", "otb_multi_turn", eq, dict(eps=1e-8), holed(x),
                        token_baseline(x, 1e-8, 1)))
    return [c for c in out if c]


def otb_inputs(rng, lengths, group_offsets, mask, weighted):
    cu = offsets(lengths)
    n = cu[-1]
    x = {"reward_token": dyadics(rng, n, -1, 1), "logp_old": dyadics(rng, n, -4, -0.75),
         "sum_probability_squared": dyadics(rng, n, 0.25, 0.9375), "cu_seqlens": cu, "group_offsets": group_offsets}
    if mask:
        x["mask"] = mask
    if weighted:
        x["weight"] = dyadics(rng, n, 0.5, 2)
    return x


def balanced(x):
    """True when no row of the first group is strictly longest in active tokens."""
    counts = sorted((len(active(x["mask"], rows(x["cu_seqlens"])[i])) for i in rows(x["group_offsets"])[0]),
                    reverse=True)
    return counts[0] == counts[1]


def holed(x):
    """The same inputs with NaN behind the mask."""
    out = dict(x)
    for name in ("reward_token", "logp_old", "sum_probability_squared", "weight"):
        if name in x:
            out[name] = [v if m else "nan" for v, m in zip(x[name], x["mask"])]
    return out


# ------------------------------------------------------------------------------------------------- teacher and A*-PO


def teacher_cases(rng):
    out = []
    cu = [0, 3, 3, 8]
    mask = [1, 0, 1, 1, 1, 0, 1, 1]
    old, teach, base = (dyadics(rng, 8, -3, -0.125) for _ in range(3))
    for m, tag in ((None, "plain"), (mask, "holes")):
        live = active(m, range(8))
        x = {"logp_old": old, "logp_teacher": teach, "cu_seqlens": cu}
        if m:
            x = {k: [v if keep else "nan" for v, keep in zip(x[k], m)] for k in ("logp_old", "logp_teacher")}
            x.update(cu_seqlens=cu, mask=m)
        a = [num(teach[t]) - num(old[t]) if t in live else mpf(0) for t in range(8)]
        out.append(case(f"A17-teacher-replace-{tag}", "teacher", "arXiv 2601.02780", dict(mode="replace", coef=1.0), x,
                        {"advantage_token": a}))
        y = dict(x, advantage_token=base)
        b = [num(base[t]) + num(0.25) * a[t] if t in live else mpf(0) for t in range(8)]
        out.append(case(f"A17-teacher-add-{tag}", "teacher", "A - coef (logp_old - logp_teacher)",
                        dict(mode="add", coef=0.25), y, {"advantage_token": b}))
    return out


def a_star_cases(rng):
    """Squared error of the scaled log-ratio against the reward over the optimal value."""
    out = []
    cu = [0, 3, 4, 4, 7]
    g, ref_offsets = [0, 2, 4], [0, 3, 7]
    mask = [1, 0, 1, 1, 1, 1, 0]
    ref_reward = [1.0, 0.0, 0.0, 0.5, 1.0, 1.0, -1.0]
    for m, tag in ((None, "plain"), (mask, "holes")):
        for beta1, beta2 in ((0.5, 0.125), (0.25, 1.0)):
            lp, lref = dyadics(rng, 7, -3, -0.125), dyadics(rng, 7, -3, -0.125)
            r = [1.0, 0.0, 0.5, -0.25]
            b1, b2 = num(beta1), num(beta2)
            star = [b1 * (log(total(exp(num(ref_reward[j]) / b1) for j in row)) - log(mpf(len(row))))
                    for row in rows(ref_offsets)]
            adv = [num(r[i]) - star[k] for k, row in enumerate(rows(g)) for i in row]

            def loss(x):
                errors = []
                for i, row in enumerate(rows(cu)):
                    gap = total(x[t] - num(lref[t]) for t in active(m, row))
                    errors.append((b2 * gap - adv[i]) ** 2)
                return mean(errors)

            inputs = {"logp": lp, "logp_ref": lref, "cu_seqlens": cu, "reward": r, "group_offsets": g,
                      "reference_reward": ref_reward, "reference_offsets": ref_offsets}
            if m:
                inputs["mask"] = m
            skip = [t for t in range(7) if m and not m[t]]
            out.append(case(f"A18-a_star-{beta1}-{beta2}-{tag}", "a_star", "arXiv 2505.20686",
                            dict(beta1=beta1, beta2=beta2), inputs,
                            {"value": loss(nums(lp)), "gradient": {"logp": gradient(loss, lp, skip)},
                             "optimal_value": star, "advantage": adv},
                            note="mean over all sequences, an empty one included"))
    return out


# -------------------------------------------------------------------------------- outcome and process supervision


def outcome_cases(rng):
    out = []
    g = offsets([3, 2, 1])
    cu = offsets([3, 1, 0, 4, 2, 2])
    r = dyadics(rng, 6, -1, 1, 16)
    mask = [1, 0, 1, 1, 1, 1, 0, 1, 0, 0, 1, 1]
    for m, tag in ((None, "plain"), (mask, "holes")):
        for p in (dict(ddof=1, eps=1e-6), dict(ddof=0, eps=0.0)):
            p = dict(p, eps_placement="outside", baseline="mean", scale="group", singleton="zero")
            inputs = {"reward": r, "group_offsets": g, "cu_seqlens": cu}
            if m:
                inputs["mask"] = m
            out.append(case(f"A23-outcome_supervision-ddof{p['ddof']}-{tag}", "outcome_supervision", GRPO, p, inputs,
                            {"advantage_token": broadcast(grpo(r, g, **p), cu, m)}))
    return out


def process_supervision(x, ddof, eps, placement):
    """All step rewards of a group are normalised together; a token gets the sum over the steps ending at or after it."""
    cu, steps = rows(x["cu_seqlens"]), rows(x["step_offsets"])
    normal = [mpf(0)] * len(x["step_reward"])
    for group in rows(x["group_offsets"]):
        ids = [j for i in group for j in steps[i]]
        values = [num(x["step_reward"][j]) for j in ids]
        mu, sigma = mean(values), deviation(values, ddof)
        for j, v in zip(ids, values):
            normal[j] = divide(v - mu, sigma, eps, placement)
    out = [mpf(0)] * x["cu_seqlens"][-1]
    for i, row in enumerate(cu):
        for t in active(x.get("mask"), row):
            out[t] = total(normal[j] for j in steps[i] if x["step_end"][j] >= t - row.start)
    return {"advantage_token": out, "step_normalised": normal}


def process_cases(rng):
    out = []
    eq = "arXiv 2402.03300 §4.1.3"
    lengths = [6, 4, 1, 5, 0, 3, 4, 2, 3]
    x = {"cu_seqlens": offsets(lengths), "group_offsets": offsets([3, 2, 2, 2, 0]),
         "step_offsets": offsets([3, 1, 1, 2, 0, 2, 2, 1, 0]),
         "step_end": [1, 3, 5, 3, 0, 0, 3, 0, 2, 1, 3, 1]}
    x["step_reward"] = dyadics(rng, 7, -1, 1, 16) + [0.5, 0.5, 0.5, 0.5, 0.75]
    note = ("group 0: 5 steps over 3 answers; group 1: the last token lies after the last step, one answer is empty; "
            "group 2: all steps equal; group 3: one step in all, and an answer without steps; group 4: empty. "
            "step_end counts tokens from the start of its sequence")
    mask = [int(rng.random() < 0.7) for _ in range(sum(lengths))]
    for name, p in (("paper", dict(ddof=0, eps=0.0)), ("sample", dict(ddof=1, eps=0.0)),
                    ("eps", dict(ddof=1, eps=0.0625)), ("trl-like", dict(ddof=1, eps=1e-4))):
        for m, tag in ((None, "plain"), (mask, "holes")):
            y = dict(x, mask=m) if m else x
            p = dict(p, eps_placement="outside")
            out.append(case(f"A23-process_supervision-{name}-{tag}", "process_supervision", eq, p, y,
                            process_supervision(y, p["ddof"], p["eps"], "outside"), note=note))
    one = {"cu_seqlens": [0, 4, 7], "group_offsets": [0, 2], "step_offsets": [0, 2, 4], "step_end": [1, 3, 0, 2],
           "step_reward": [1.0, 0.0, 1.0, 1.0]}
    out.append(case("A23-process_supervision-by-hand", "process_supervision", eq,
                    dict(ddof=0, eps=0.0, eps_placement="outside"), one, process_supervision(one, 0, 0, "outside"),
                    note="by hand: mean 3/4, std sqrt(3)/4, so a good step is 1/sqrt(3) and the bad one -sqrt(3)"))
    two = {"cu_seqlens": [0, 3, 6], "group_offsets": [0, 2], "step_offsets": [0, 2, 3], "step_end": [2, 2, 1],
           "step_reward": [1.0, -1.0, 0.5]}
    out.append(case("A23-process_supervision-same-end", "process_supervision", eq,
                    dict(ddof=1, eps=0.0, eps_placement="outside"), two, process_supervision(two, 1, 0, "outside"),
                    note="two steps that end on one token both count there"))
    return out


def cases():
    builders = (gae_cases, vapo_cases, grpo_cases, scalar_family_cases, gdpo_cases, opo_cases, return_cases, otb_cases,
                teacher_cases, a_star_cases, whitening_cases, outcome_cases, process_cases)
    return [c for build in builders for c in build(random.Random(f"20240203300 {build.__name__}"))]
