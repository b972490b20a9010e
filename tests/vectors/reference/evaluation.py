"""Reference of the evaluation estimators, by brute force over every subset or draw in exact fractions.

The closed forms that a library uses are never used here, except where a count is too large to enumerate: there the
binomial identity is evaluated in integers.
"""

import itertools
import math
import random
from fractions import Fraction

from mpmath import mpf

from .common import case, dyadics, offsets, rows

CODEX = "arXiv 2107.03374 eq. 1"


def value(fraction):
    """An exact fraction as mpf."""
    return mpf(fraction.numerator) / fraction.denominator


def average(xs):
    """Exact mean of a list of fractions."""
    xs = list(xs)
    return sum(xs, Fraction(0)) / len(xs)


def pass_at_k(n, c, k):
    """Probability that k of the n samples, drawn without replacement, contain one of the c correct ones."""
    if n <= 10:
        flags = [1] * c + [0] * (n - c)
        return average(Fraction(max(s)) for s in itertools.combinations(flags, k))
    return 1 - Fraction(math.comb(n - c, k), math.comb(n, k))


def pass_cases(rng):
    out = []
    small = [(n, c) for n in (1, 2, 5, 8) for c in range(n + 1)]
    for k in (1, 2, 4, 8):
        pairs = [(n, c) for n, c in small if n >= k]
        v = [value(pass_at_k(n, c, k)) for n, c in pairs]
        out.append(case(f"V-pass_at_k-{k}", "pass_at_k", CODEX, dict(k=k),
                        {"samples": [n for n, _ in pairs], "correct": [c for _, c in pairs]},
                        {"value": v, "mean": sum(v, mpf(0)) / len(v)}))
    big = [(200, 0), (200, 1), (200, 7), (200, 100), (200, 101), (200, 200), (1000, 3)]
    for k in (1, 10, 100):
        v = [value(pass_at_k(n, c, k)) for n, c in big]
        out.append(case(f"V-pass_at_k-{k}-large", "pass_at_k", CODEX, dict(k=k),
                        {"samples": [n for n, _ in big], "correct": [c for _, c in big]},
                        {"value": v, "mean": sum(v, mpf(0)) / len(v)},
                        note="factorials overflow a double here; a product does not"))
    return out


def majority(answers, chosen):
    """The answer named most often among the chosen samples; a tie goes to the one seen first."""
    counts = {}
    for i in chosen:
        counts[answers[i]] = counts.get(answers[i], 0) + 1
    return max(counts, key=counts.get)


def maj_at_k(answers, correct, k):
    """Share of all k-subsets (in sample order) whose majority answer is correct."""
    right = {}
    for a, ok in zip(answers, correct):
        right.setdefault(a, ok)
    subsets = itertools.combinations(range(len(answers)), k)
    return average(Fraction(right[majority(answers, s)]) for s in subsets)


def maj_cases(rng):
    out = []
    groups = [([7, 3, 3, 5, 3, 7], [0, 1, 1, 0, 1, 0]), ([1, 2, 1, 2], [1, 0, 1, 0]), ([2, 1, 1, 2], [0, 1, 1, 0]),
              ([4, 4, 4, 4], [0, 0, 0, 0]), ([9, 8, 7, 6, 5], [0, 0, 0, 0, 1]), ([5], [1])]
    wide = [rng.randint(0, 3) for _ in range(9)]
    groups.append((wide, [int(a == 2) for a in wide]))
    for k in (1, 2, 3, 4, 5):
        kept = [(a, c) for a, c in groups if len(a) >= k]
        v = [value(maj_at_k(a, c, k)) for a, c in kept]
        out.append(case(f"V-maj_at_k-{k}", "maj_at_k", "mean over all k-subsets of the majority answer's correctness",
                        dict(k=k, tie="first"),
                        {"answer": [x for a, _ in kept for x in a], "correct": [x for _, c in kept for x in c],
                         "group_offsets": offsets([len(a) for a, _ in kept])},
                        {"value": v, "mean": sum(v, mpf(0)) / len(v)},
                        note="answer holds equal integers for equal answers; a tie goes to the answer that comes first "
                             "among the k samples"))
    return out


def extreme_of_n(rewards, n, replacement, pick):
    """Expected best (or worst) of n rewards drawn from the group."""
    r = [Fraction(x) for x in rewards]
    draws = itertools.product(r, repeat=n) if replacement else itertools.combinations(r, n)
    return average(pick(d) for d in draws)


def best_cases(rng):
    out = []
    groups = [[0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [1.0], dyadics(rng, 5, -1, 1, 16), dyadics(rng, 6, -1, 1, 4)]
    for name, pick in (("best_of_n", max), ("worst_of_n", min)):
        for n in (1, 2, 3, 4):
            for replacement in (0, 1):
                kept = [g for g in groups if replacement or len(g) >= n]
                v = [value(extreme_of_n(g, n, replacement, pick)) for g in kept]
                tag = "with" if replacement else "without"
                out.append(case(f"V-{name}-{n}-{tag}-replacement", name,
                                "expected extreme of n rewards drawn from the group",
                                dict(n=n, replacement=replacement),
                                {"reward": [x for g in kept for x in g],
                                 "group_offsets": offsets([len(g) for g in kept])},
                                {"value": v, "mean": sum(v, mpf(0)) / len(v)}))
    return out


def mean_cases(rng):
    """mean@n: the plain average of each group."""
    g = offsets([4, 1, 3])
    r = dyadics(rng, 8, -1, 1, 16)
    v = [value(average(Fraction(r[i]) for i in row)) for row in rows(g)]
    return [case("V-mean_at_n", "mean_at_n", "mean over the group", {}, {"reward": r, "group_offsets": g},
                 {"value": v, "mean": sum(v, mpf(0)) / len(v)}, note="mean is over the groups")]


def cases():
    builders = (pass_cases, maj_cases, best_cases, mean_cases)
    return [c for build in builders for c in build(random.Random(f"20210703374 {build.__name__}"))]
