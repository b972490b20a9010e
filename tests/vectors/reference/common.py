"""Shared helpers of the reference: exact inputs, 50-digit arithmetic, numeric gradients, JSON emission.

Nothing here knows a formula. A family module builds its inputs with dyadic(), computes with mpf numbers made by
num(), differentiates with gradient(), and returns a list of case() dicts.
"""

import json
import math
import struct

from mpmath import mp, mpf

mp.dps = 50

STEP = mpf(10) ** -20
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
NAN = float("nan")
INF = float("inf")


def num(x):
    """The exact value of a float or int as mpf; mpf passes through; "inf", "-inf", "nan" are understood."""
    if isinstance(x, str):
        x = float(x)
    return mpf(x)


def nums(xs):
    """num() over a list."""
    return [num(x) for x in xs]


def dyadic(rng, lo, hi, denominator=1024):
    """A random multiple of 1/denominator in [lo, hi]; exact in float32 while |x| * denominator < 2^24."""
    return rng.randint(math.ceil(lo * denominator), math.floor(hi * denominator)) / denominator


def dyadics(rng, n, lo, hi, denominator=1024):
    """A list of n dyadic() numbers."""
    return [dyadic(rng, lo, hi, denominator) for _ in range(n)]


def offsets(lengths):
    """Lengths to offsets: [2, 0, 3] -> [0, 2, 2, 5]. Used for cu_seqlens and for group_offsets."""
    out = [0]
    for n in lengths:
        out.append(out[-1] + n)
    return out


def rows(cu_seqlens):
    """The index ranges of the segments: [0, 2, 2, 5] -> [range(0, 2), range(2, 2), range(2, 5)]."""
    return [range(a, b) for a, b in zip(cu_seqlens[:-1], cu_seqlens[1:])]


def gradient(f, x, skip=()):
    """Central differences of the scalar function f over the list x, at 50 digits (error about 1e-30).

    f receives a list of mpf. Positions in `skip` (for example masked ones) get exactly 0 without a call.
    A stop-gradient is the caller's business: compute the frozen sub-expression from the unperturbed x outside f.
    """
    x = nums(x)
    out = []
    for i in range(len(x)):
        if i in skip:
            out.append(mpf(0))
            continue
        up, down = list(x), list(x)
        up[i] += STEP
        down[i] -= STEP
        out.append((f(up) - f(down)) / (2 * STEP))
    return [tidy(g) for g in out]


def tidy(x):
    """Differences leave dust of 1e-30 where the derivative is exactly zero; sweep it away."""
    return mpf(0) if abs(x) < mpf(10) ** -24 else x


def total(xs):
    """Sum of mpf numbers, 0 when empty."""
    out = mpf(0)
    for x in xs:
        out += x
    return out


def mean(xs):
    """Mean; 0 when empty."""
    xs = list(xs)
    return total(xs) / len(xs) if xs else mpf(0)


def variance(xs, ddof=0):
    """Two-pass variance with divisor n - ddof."""
    xs = list(xs)
    centre = mean(xs)
    return total((x - centre) ** 2 for x in xs) / (len(xs) - ddof)


def case(id, method, equation, parameters, inputs, expected, tolerance=None, note=None):
    """One test vector. Inputs are checked to be exactly representable in float32."""
    for name, values in inputs.items():
        for x in values if isinstance(values, (list, tuple)) else [values]:
            check_float32(x, f"{id}: input {name}")
    out = {"id": id, "method": method, "equation": equation}
    if note:
        out["note"] = note
    out["parameters"] = plain(parameters)
    out["inputs"] = plain(inputs)
    out["expected"] = plain(expected)
    out["tolerance"] = dict(tolerance or TOLERANCE)
    return out


def check_float32(x, where):
    """Raises unless x reads the same in float32 and in float64."""
    if isinstance(x, (bool, str)) or x is None:
        return
    x = float(x)
    if math.isfinite(x) and struct.unpack("f", struct.pack("f", x))[0] != x:
        raise ValueError(f"{where}: {x!r} is not exact in float32")


def plain(x):
    """mpf to double, tuples to lists, non-finite numbers to the strings "nan", "inf", "-inf"."""
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(v) for v in x]
    if isinstance(x, bool):
        return int(x)
    if isinstance(x, (int, str)) or x is None:
        return x
    x = float(x)
    if math.isnan(x):
        return "nan"
    if math.isinf(x):
        return "inf" if x > 0 else "-inf"
    return x + 0.0


def to_json(family, cases):
    """The text of one vector file: one line per field of a case, so that a change reads well in a diff."""
    seen = set()
    for c in cases:
        if c["id"] in seen:
            raise ValueError(f"duplicate case id {c['id']}")
        seen.add(c["id"])
    body = ",\n".join(case_text(c) for c in cases)
    return f'{{"schema": 1, "family": {json.dumps(family)}, "cases": [\n{body}\n]}}\n'


def case_text(c):
    """One case, two spaces deep."""
    fields = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in c.items())
    return " {\n" + fields + "\n }"
