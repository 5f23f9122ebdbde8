"""Oracles of the divided differences f[x, r] = (f(x) - f(r)) / (x - r), f[x, x] = f'(x), by mpmath with as many bits as it takes.

Slow and plain; the functions are in elementwise_functions.py. Nothing here comes from the package under test.
"""

import math

import mpmath
import numpy as np
from mpmath import mp, mpf

from .elementwise_functions import INF, ORACLES, Oracle

__all__ = ["ORACLES", "adversarial_pairs", "divided_difference", "error_in_ulp"]


def working_bits(oracle: Oracle, x: float, r: float) -> int:
    """Enough for this pair: for what a small side or difference adds to a value of 1, a value of 1 to a large side, and for
    tails down to e^-3|x|, or as far down as the oracle says.
    """
    sizes = [abs(v) for v in (x, r, x - r) if v != 0 and math.isfinite(v)]
    small = max([0, *(-math.frexp(v)[1] for v in sizes)])
    large = max([0, *(math.frexp(v)[1] for v in sizes)])
    nearer = min(abs(x), abs(r))
    return 240 + oracle.order * small + 3 * large + int(min(2400, 3 * nearer + oracle.tail * min(nearer, 30) ** 2))


def divided_difference(
    name: str, x: float, r: float, parameters: tuple[float, ...], dtype: np.dtype
) -> tuple[mpf, mpf]:
    """(f[x, r], the size that its error is measured against), for finite x and r inside the domain.

    The size is |f[x, r]|. Where f = x g, whose terms cancel, it is at least the smaller, over the two ways to write the
    difference, of the larger term: mean(g) + mid g[x, r] and (f(x) - f(r)) / (x - r).
    """
    oracle = ORACLES[name]
    with mp.workprec(working_bits(oracle, float(x), float(r))):
        p = oracle.rounded(parameters, dtype)
        a, b = mpf(float(x)), mpf(float(r))
        if a == b:
            exact = oracle.slope(a, *p)
            size = abs(exact)
            if oracle.gate is not None:
                gate = oracle.gate(a)
                size = max(size, abs(gate), abs(exact - gate))
            return +exact, _size_beyond(oracle, a, b, +size)
        fa, fb = oracle.value(a, *p), oracle.value(b, *p)
        exact = (fa - fb) / (a - b)
        size = abs(exact)
        if oracle.gate is not None:
            ga, gb = oracle.gate(a), oracle.gate(b)
            product = max((ga + gb) / 2, abs((a + b) / 2 * (ga - gb) / (a - b)))
            direct = max(abs(fa), abs(fb)) / abs(a - b)
            size = max(size, min(product, direct))
        return exact, _size_beyond(oracle, a, b, size)


def _size_beyond(oracle, a: mpf, b: mpf, size: mpf) -> mpf:
    return max(size, oracle.large(a, b)) if oracle.large and max(abs(a), abs(b)) > 2**25 else size


def ulp(size: mpf, dtype: np.dtype) -> mpf:
    """The spacing of the dtype's numbers at `size`."""
    info = np.finfo(dtype)
    exponent = mpmath.frexp(size)[1] - 1 if size else info.minexp
    return mpmath.ldexp(mpf(1), max(int(exponent), int(info.minexp)) - info.nmant)


def error_in_ulp(computed: float, exact: mpf, size: mpf, dtype: np.dtype) -> float:
    """The distance of `computed` from `exact` in ulps of `size`; what lies beyond the largest number should be infinite."""
    info = np.finfo(dtype)
    largest = mpf(float(info.max))
    if math.isnan(computed):
        return INF
    if math.isinf(computed):
        return 0.0 if abs(exact) > largest * (1 - 8 * mpf(float(info.eps))) and (computed > 0) == (exact > 0) else INF
    with mp.workprec(120):
        if abs(exact) > largest:
            exact = largest if exact > 0 else -largest
        return float(abs(mpf(float(computed)) - exact) / ulp(size, dtype))


def adversarial_pairs(
    name: str, parameters: tuple[float, ...], dtype: np.dtype, count: int, seed: int = 0
) -> np.ndarray:
    """About `count` finite pairs [n, 2] inside the domain: a grid of hard values against themselves, then random ones.

    The two sides are equal, one ulp apart, 1e-12 to 1e3 apart (relative and absolute), of opposite signs, zeros of either
    sign, subnormal, near the largest number, or unrelated.
    """
    oracle, info, kind = ORACLES[name], np.finfo(dtype), np.dtype(dtype).type
    rng = np.random.default_rng([seed, sum(map(ord, name)), info.bits])
    largest, smallest, tiny = float(info.max), float(info.smallest_subnormal), float(info.tiny)
    hard = [0.0, smallest, 3 * smallest, tiny, 1e-12, 1e-3, 0.5, 1.0, 3.0, 30.0, 1e3, largest / 3, largest]
    hard = [*hard, *(-v for v in hard), *oracle.points]
    pairs = [(a, b) for i, a in enumerate(hard) for b in hard[i:]]
    if len(pairs) > count // 2:
        pairs = [pairs[i] for i in rng.choice(len(pairs), count // 2, replace=False)]

    def centre():
        draw = rng.random()
        sign = rng.choice([-1.0, 1.0])
        if draw < 0.25 and oracle.points:
            return rng.choice(oracle.points) * (1 + rng.choice([0, 1e-7, 1e-3, 0.1]) * rng.normal())
        if draw < 0.65:
            return rng.normal() * rng.choice([0.3, 1, 3, 10, 30])
        if draw < 0.85:
            return sign * 10 ** rng.uniform(-12, 3.3)
        return sign * 10 ** rng.uniform(math.log10(smallest), math.log10(largest))

    while len(pairs) < count:
        a = float(kind(centre()))
        how = rng.integers(7)
        sign = rng.choice([-1.0, 1.0])
        if how == 0:
            b = a
        elif how == 1:
            b = float(np.nextafter(kind(a), kind(sign * INF)))
        elif how == 2:
            b = a * (1 + sign * 10 ** rng.uniform(-12 if info.bits == 64 else -6, 0))
        elif how == 3:
            b = a + sign * 10 ** rng.uniform(-12 if info.bits == 64 else -6, 3)
        elif how == 4:
            b = -a * 10 ** rng.uniform(-3, 3) if rng.random() < 0.7 else -a
        else:
            b = centre()
        pairs.append((a, b))

    with np.errstate(over="ignore"):
        pairs = np.array(pairs).astype(dtype)
    rounded = oracle.rounded(parameters, dtype)
    if not oracle.domain(-2.0, *rounded):
        pairs = abs(pairs)

    def fits(v):
        if not math.isfinite(v) or not oracle.domain(v, *rounded):
            return False
        with mp.workprec(64):
            return abs(oracle.value(mpf(v), *rounded)) <= largest

    keep = [i for i, (a, b) in enumerate(pairs.tolist()) if fits(a) and fits(b)]
    return pairs[keep]
