"""Reference of reward shaping, token rewards and group filtering, in exact inputs and 50-digit arithmetic."""

import random
import struct

from mpmath import exp, mpf

from .common import case, dyadics, mean, num, nums, offsets, rows, total, variance

DAPO = "arXiv 2503.14476 eq. 13"


def f32(xs):
    """A list rounded to float32."""
    return [struct.unpack("f", struct.pack("f", x))[0] for x in xs]


def overlong(length, longest, buffer, factor, cap):
    """0 up to longest - buffer, then linear, -factor at longest; beyond it -factor (cap) or further down the line."""
    excess = mpf(length - (longest - buffer))
    if excess <= 0:
        return mpf(0)
    share = excess / buffer
    if cap:
        share = min(share, mpf(1))
    return -share * num(factor)


def overlong_cases(rng):
    out = []
    sets = (("paper", 16384, 4096, 1.0, [0, 1, 12287, 12288, 12289, 14336, 16383, 16384, 16385, 20480]),
            ("small", 100, 20, 10.0, [70, 80, 90, 100, 110]), ("half", 25, 5, 0.5, [10, 22, 25, 30]),
            ("off", 100, 20, 0.0, [70, 90, 110]), ("one", 10, 1, 1.0, [9, 10, 11, 12]))
    notes = {("small", 0): "published: 0, 0, -5, -10, -15 (tunix, which does not cap)",
             ("half", 0): "published: 0, -0.2, -0.5, -1.0 (NeMo RL, which does not cap)"}
    for name, longest, buffer, factor, lengths in sets:
        for cap in (1, 0):
            out.append(case(f"W01-overlong-{name}-{'capped' if cap else 'uncapped'}", "overlong", DAPO,
                            dict(max_length=longest, buffer=buffer, factor=factor, cap=cap), {"length": lengths},
                            {"penalty": [overlong(n, longest, buffer, factor, cap) for n in lengths]},
                            note=notes.get((name, cap))))
    return out


def truncation_cases(rng):
    out = []
    r, cut = f32([1.0, 0.8, 0.6, 0.4, -0.5]), [0, 1, 0, 1, 1]
    for coef in (0.5, 0.0, 1.0):
        shaped = [num(x) * (num(coef) if c else 1) for x, c in zip(r, cut)]
        out.append(case(f"W02-stop_properly-{coef}", "stop_properly", "truncated: r * coef", dict(coef=coef),
                        {"reward": r, "truncated": cut}, {"reward": shaped},
                        note="published for 0.5: 1, 0.4, 0.6, 0.2 (NeMo RL)" if coef == 0.5 else None))
    out.append(case("W02-stop_properly-negative", "stop_properly", "truncated, coef < 0: r := coef (OpenRLHF)",
                    dict(coef=-0.25), {"reward": r, "truncated": cut},
                    {"reward": [num(-0.25) if c else num(x) for x, c in zip(r, cut)]}))
    cu, mask, cut = [0, 3, 3, 4, 8], [1, 0, 1, 1, 1, 1, 0, 1], [0, 1, 1, 0]
    kept = [0 if cut[i] else mask[t] for i, row in enumerate(rows(cu)) for t in row]
    out.append(case("W03-mask_truncated", "mask_truncated", "a truncated sequence loses every token", {},
                    {"mask": mask, "cu_seqlens": cu, "truncated": cut}, {"mask": kept}))
    r, ended = [1.0, 0.5, -0.25, 0.0], [1, 0, 0, 1]
    for mode, value in (("subtract", 1.5), ("replace", -3.0)):
        shaped = [num(x) if e else (num(x) - num(value) if mode == "subtract" else num(value))
                  for x, e in zip(r, ended)]
        out.append(case(f"W04-missing_eos-{mode}", "missing_eos", "no EOS: r - penalty, or r := penalty",
                        dict(mode=mode, penalty=value), {"reward": r, "ended": ended}, {"reward": shaped}))
    return out


def clip_cases(rng):
    out = []
    r = dyadics(rng, 8, -16, 16, 8) + [10.0, -10.0, 11.0, -12.0]
    for name, p in (("openrlhf", dict(bias=0.0, scale=1.0, low=-10.0, high=10.0)),
                    ("areal", dict(bias=-0.5, scale=5.0, low=-20.0, high=20.0)),
                    ("upper-only", dict(bias=0.0, scale=1.0, low="-inf", high=2.0))):
        shaped = [min(max((num(x) + num(p["bias"])) * num(p["scale"]), num(p["low"])), num(p["high"])) for x in r]
        out.append(case(f"W05-reward_clip-{name}", "reward_clip", "clip((r + bias) * scale, low, high)", p,
                        {"reward": r}, {"reward": shaped}))
    sets = (("base", 0.0, 1.0, 0.0, 0.7, f32([1.0, 0.5, 0.8]), "published: 0.7, 0.35, 0.56 (NeMo RL)"),
            ("dapo", 0.0, 1.0, -1.0, 1.0, [1.0, 0.0, 0.0, 1.0, 0.0], "published: 1, -1, -1, 1, -1 (NeMo RL)"),
            ("clamped", -2.0, 2.0, -1.0, 1.0, f32([-2.8, -0.25, 1.5, 0.5, 2.0, 2.5]),
             "published: -1, -0.125, 0.75, 0.25, 1, 1 (NeMo RL)"),
            ("reversed", 0.0, 4.0, 1.0, -1.0, [-1.0, 0.0, 1.0, 3.0, 5.0], None))
    for name, a, b, c, d, r, note in sets:
        shaped = [num(c) + (min(max(num(x), num(a)), num(b)) - num(a)) / (num(b) - num(a)) * (num(d) - num(c))
                  for x in r]
        out.append(case(f"W06-linear_rescale-{name}", "linear_rescale", "[from_low, from_high] to [to_low, to_high]",
                        dict(from_low=a, from_high=b, to_low=c, to_high=d), {"reward": r}, {"reward": shaped},
                        note=note))
    return out


def weighted_cases(rng):
    """Sum over the scorable keys; a row without any is worth 0 and is not valid."""
    out = []
    keys = [[1.0, 0.0, 1.0, "nan", 0.5, "nan"], [0.25, "nan", -1.0, "nan", 0.75, 2.0], [-0.5, 1.0, "nan", "nan", 0.0, 1.0]]
    for weights in ([1.0, 1.0, 1.0], [1.0, 0.5, 2.0], [0.0, -1.0, 0.25]):
        sums, valid = [], []
        for i in range(6):
            seen = [k for k in range(3) if keys[k][i] != "nan"]
            sums.append(total(num(weights[k]) * num(keys[k][i]) for k in seen))
            valid.append(int(bool(seen)))
        tag = "-".join(str(w) for w in weights)
        out.append(case(f"W07-weighted_sum-{tag}", "weighted_sum", "sum over scorable keys of weight_k r_k",
                        dict(weights=weights), {"reward": keys[0] + keys[1] + keys[2]},
                        {"reward": sums, "valid": valid},
                        note="reward is key-major: reward[k * sequences + i]; nan means the key has no score there"))
    return out


def repetition(tokens, n, worst):
    """worst times the share of n-grams that repeat an earlier one; 0 when the text is shorter than n."""
    grams = [tuple(tokens[i:i + n]) for i in range(len(tokens) - n + 1)]
    return num(worst) * (1 - mpf(len(set(grams))) / len(grams)) if grams else mpf(0)


def repetition_cases(rng):
    out = []
    texts = [[1, 2, 3, 1, 2, 3, 1, 2, 3], [4, 4, 4, 4, 4, 4], [1, 2], [], [1, 2, 3], [7, 8, 9, 10, 7, 8, 9, 11, 12],
             [rng.randint(0, 2) for _ in range(12)]]
    tokens = [t for text in texts for t in text]
    for n, worst in ((1, -1.0), (2, -0.5), (3, -1.0), (4, -2.0)):
        out.append(case(f"W08-repetition-{n}gram", "repetition", "max_penalty (1 - unique n-grams / n-grams)",
                        dict(n=n, max_penalty=worst),
                        {"token": tokens, "cu_seqlens": offsets([len(t) for t in texts])},
                        {"penalty": [repetition(t, n, worst) for t in texts]}))
    return out


def kl_estimate(kind, old, ref, bound):
    """Estimate of KL(old || ref) on one token; the estimate, not the log-ratio, is clamped to +-bound."""
    d = num(ref) - num(old)
    k = {"k1": lambda: -d, "abs": lambda: abs(d), "k2": lambda: d * d / 2, "k3": lambda: exp(d) - d - 1}[kind]()
    return min(max(k, -num(bound)), num(bound))


def kl_reward_cases(rng):
    out = []
    cu = offsets([4, 0, 1, 5])
    n = cu[-1]
    mask = [1, 0, 1, 1, 0, 1, 1, 0, 0, 1]
    for kind in ("k1", "k2", "k3", "abs"):
        for beta, bound in ((0.05, "inf"), (0.5, 0.125), (0.0, "inf")):
            for m, tag in ((None, "plain"), (mask, "holes")):
                if beta == 0.0 and (m or kind != "k1"):
                    continue
                old, ref, r = (dyadics(rng, n, -3, -0.125) for _ in range(3))
                live = [t for t in range(n) if m is None or m[t]]
                x = {"reward_token": r, "logp_old": old, "logp_ref": ref}
                if m:
                    x = {k: [v if keep else "nan" for v, keep in zip(vs, m)] for k, vs in x.items()}
                    x["mask"] = m
                x["cu_seqlens"] = cu
                kl = [kl_estimate(kind, old[t], ref[t], bound) if t in live else mpf(0) for t in range(n)]
                shaped = [num(r[t]) - num(beta) * kl[t] if t in live else mpf(0) for t in range(n)]
                sums = [total(kl[t] for t in row) for row in rows(cu)]
                out.append(case(f"W09-kl_in_reward-{kind}-{beta}-{tag}", "kl_in_reward",
                                "r_t - beta kl(logp_old, logp_ref)", dict(beta=beta, kl=kind, output_bound=bound), x,
                                {"reward_token": shaped, "kl_token": kl, "kl_sequence": sums}))
    r = [1.0, -0.5, 0.25, 2.0]
    for m, tag in ((None, "plain"), ([1, 0, 1, 0, 0, 1, 1, 0, 0, 0], "holes")):
        placed = [mpf(0)] * n
        for i, row in enumerate(rows(cu)):
            live = [t for t in row if m is None or m[t]]
            if live:
                placed[live[-1]] = num(r[i])
        x = {"reward": r, "cu_seqlens": cu}
        if m:
            x["mask"] = m
        out.append(case(f"W09-place_outcome-{tag}", "place_outcome", "the score sits on the last active token", {}, x,
                        {"reward_token": placed}, note="a sequence without an active token keeps nothing"))
    return out


def filter_cases(rng):
    """Which groups (or samples) carry a signal; always judged on the raw reward."""
    out = []
    g = offsets([4, 4, 4, 1, 0, 2, 3])
    r = [1.0, 1.0, 0.0, 1.0] + [1.0] * 4 + [0.0] * 4 + [0.5] + [0.25, 0.75] + [1.0, 0.0, 0.0]
    groups = [nums(r[i] for i in row) for row in rows(g)]
    eq = "arXiv 2503.14476 eq. 11"
    x = {"reward": r, "group_offsets": g}

    def add(name, parameters, keep, note=None):
        out.append(case(f"F-group_filter-{name}", "group_filter", eq, parameters, x, {"keep": [int(k) for k in keep]},
                        note=note))

    add("nonzero-std", dict(rule="nonzero_std"), [len(v) == 1 or (len(v) > 1 and variance(v) > 0) for v in groups],
        "verl: a group is dropped when it has several members and they are equal; a lone sample stays")
    for threshold in (1e-6, 0.36):
        add(f"std-above-{threshold}", dict(rule="std_above", ddof=1, threshold=threshold),
            [len(v) > 1 and variance(v, 1) > num(threshold) ** 2 for v in groups],
            "slime's rule" if threshold == 1e-6 else None)
    for low, high in ((0.0, 1.0), (0.25, 0.5), (0.4, 0.8)):
        add(f"mean-between-{low}-{high}", dict(rule="mean_between", low=low, high=high),
            [bool(v) and num(low) < mean(v) < num(high) for v in groups], "OpenRLHF: both bounds are excluded")
    samples = []
    for v in groups:
        for i in range(len(v)):
            others = v[:i] + v[i + 1:]
            samples.append(int(len(others) > 1 and variance(others, 1) > 0))
    out.append(case("F-sample_filter-leave-one-out", "sample_filter", eq, dict(rule="leave_one_out_std", ddof=1), x,
                    {"keep_sample": samples},
                    note="NeMo RL default: a sample stays when the others differ among themselves, so a lone winner "
                         "is dropped and its losers stay"))
    return out


def cases():
    builders = (overlong_cases, truncation_cases, clip_cases, weighted_cases, repetition_cases, kl_reward_cases,
                filter_cases)
    return [c for build in builders for c in build(random.Random(f"20250314476 {build.__name__}"))]
