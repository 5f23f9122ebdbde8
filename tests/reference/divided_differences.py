"""Oracles of the divided differences f[x, r] = (f(x) - f(r)) / (x - r), f[x, x] = f'(x), by mpmath with thousands of bits.

Slow and plain: each function is its definition, its derivative (torch's choice at kinks) and where it is defined. Nothing here
comes from the package under test.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import mpmath
import numpy as np
from mpmath import mp, mpf

INF = math.inf


def round_parameters(parameters: tuple[float, ...], dtype: np.dtype) -> tuple[mpf, ...]:
    """The parameters as the function sees them: rounded to the dtype."""
    return tuple(mpf(float(np.dtype(dtype).type(p))) for p in parameters)


@dataclass(frozen=True)
class Oracle:
    """One function.

    value, slope: f and f' of (x, *parameters), both mpmath.
    parameters: the sets of parameters to test.
    domain: the open or closed interval of finite x that has a finite f; `includes` names the ends that belong to it.
    limits: f' at (-inf, inf), None where f[x, r] has no limit there or the domain ends before.
    gate: g, where f(x) = x g(x): its terms cancel, and errors are measured against the larger of them.
    points: where trouble is expected, beyond what every function gets.
    rounded: the parameters as the function sees them in a dtype.
    """

    value: Callable
    slope: Callable
    parameters: tuple[tuple[float, ...], ...] = ((),)
    domain: Callable = lambda x, *p: True
    limits: Callable = lambda *p: (None, None)
    gate: Callable | None = None
    points: tuple[float, ...] = ()
    float32_bar: float = 8.0
    rounded: Callable = round_parameters


def _step(condition):
    return mpf(1) if condition else mpf(0)


def _exp(x):
    # Below the last subnormal by far; mpmath would spend thousands of bits on it.
    return mpmath.exp(x) if x > -100000 else mpf(0)


def _sigmoid(x):
    return 1 / (1 + _exp(-x)) if x > 0 else _exp(x) / (1 + _exp(x))


def _logistic_slope(x):
    return _sigmoid(x) * _sigmoid(-x)


def _normal_cdf(x):
    if abs(x) > 1000:  # mpmath's erfc overflows far out; the rest is below e^-500000
        return _step(x > 0)
    return mpmath.erfc(-x / mpmath.sqrt(2)) / 2


def _normal_pdf(x):
    return _exp(-x * x / 2) / mpmath.sqrt(2 * mp.pi)


def _gelu_tanh_argument(x):
    return 2 * mpmath.sqrt(2 / mp.pi) * (x + mpf(44715) / 1000000 * x**3)


def _gelu_tanh_slope(x):
    u = _gelu_tanh_argument(x)
    return _sigmoid(u) + x * _logistic_slope(u) * 2 * mpmath.sqrt(2 / mp.pi) * (1 + 3 * mpf(44715) / 1000000 * x * x)


def _mish_gate(x):
    if x > 0:
        q = _exp(-x)
        return (1 + 2 * q) / (1 + 2 * q + 2 * q * q)
    e = _exp(x)
    return (e * e + 2 * e) / (e * e + 2 * e + 2)


def _mish_slope(x):
    gate = _mish_gate(x)
    return gate + x * _sigmoid(x) * (1 - gate * gate)


def _elu(x, alpha, scale, input_scale):
    return scale * x if x > 0 else scale * alpha * (_exp(x * input_scale) - 1)


def _elu_slope(x, alpha, scale, input_scale):
    return scale if x > 0 else scale * alpha * input_scale * _exp(x * input_scale)


def _softplus(x, beta, last_curved):
    return (max(x, mpf(0)) + mpmath.log1p(_exp(-abs(beta * x))) / beta) if beta * x <= last_curved else x


def _softplus_slope(x, beta, last_curved):
    return _sigmoid(beta * x) if beta * x <= last_curved else mpf(1)


def _softplus_parameters(parameters, dtype):
    # torch compares the rounded product with the threshold: the exact one with the middle between it and the next number.
    beta, threshold = round_parameters(parameters, dtype)
    following = np.nextafter(np.dtype(dtype).type(parameters[1]), np.dtype(dtype).type(INF))
    return beta, (threshold + mpf(float(following))) / 2


def _power(x, p):
    if x == 0:
        return mpf(0) if p > 0 else mpf(1)
    if x < 0:
        return abs(x) ** p * (-1 if int(p) % 2 else 1)
    return x**p


def _power_slope(x, p):
    if p == 0:
        return mpf(0)
    if x == 0:
        return mpf(1) if p == 1 else mpf(0)
    return p * (abs(x) ** (p - 1)) * (-1 if x < 0 and int(p) % 2 == 0 else 1)


def _power_domain(x, p):
    integer = float(p) == math.floor(p)
    return x > 0 or (x == 0 and p >= 0) or (x < 0 and integer)


def _power_limits(p):
    integer = float(p) == math.floor(p)
    right = 0 if p < 1 else 1 if p == 1 else INF
    left = (0 if p < 1 else 1 if p == 1 else None) if integer else None
    return left, right


ORACLES: dict[str, Oracle] = {
    "relu": Oracle(lambda x: max(x, mpf(0)), lambda x: _step(x > 0), limits=lambda: (0, 1)),
    "leaky_relu": Oracle(
        lambda x, s: x if x > 0 else s * x,
        lambda x, s: mpf(1) if x > 0 else s,
        parameters=((0.01,), (0.0,), (3.0,), (-0.7,)),
        limits=lambda s: (s, 1),
    ),
    "elu": Oracle(
        _elu,
        _elu_slope,
        parameters=((1.0, 1.0, 1.0), (1.6732632423543772, 1.0507009873554805, 1.0), (0.7, 1.0, 1 / 0.7)),
        limits=lambda alpha, scale, input_scale: (0, scale),
        points=(-700.0, -87.0, -17.0),
    ),
    "gelu": Oracle(
        lambda x: x * _normal_cdf(x),
        lambda x: _normal_cdf(x) + x * _normal_pdf(x),
        limits=lambda: (0, 1),
        gate=_normal_cdf,
        points=(-0.7517915246935645, -29.0, -30.0, -12.9, -37.5, 6.0),
    ),
    "gelu_tanh": Oracle(
        lambda x: x * _sigmoid(_gelu_tanh_argument(x)),
        _gelu_tanh_slope,
        limits=lambda: (0, 1),
        gate=lambda x: _sigmoid(_gelu_tanh_argument(x)),
        points=(-0.7524614220710162, -10.0, -21.0, 5.0),
    ),
    "silu": Oracle(
        lambda x: x * _sigmoid(x),
        lambda x: _sigmoid(x) + x * _logistic_slope(x),
        limits=lambda: (0, 1),
        gate=_sigmoid,
        points=(-1.2784645427610738, -88.0, -700.0, -740.0),
    ),
    "mish": Oracle(
        lambda x: x * _mish_gate(x),
        _mish_slope,
        limits=lambda: (0, 1),
        gate=_mish_gate,
        points=(-1.1924312145, -88.0, -700.0, -740.0),
    ),
    "sigmoid": Oracle(_sigmoid, _logistic_slope, limits=lambda: (0, 0), points=(-88.0, 88.0, -740.0, 740.0)),
    "tanh": Oracle(
        mpmath.tanh, lambda x: 4 * _logistic_slope(2 * x), limits=lambda: (0, 0), points=(-44.0, 44.0, -370.0, 370.0)
    ),
    "softplus": Oracle(
        _softplus,
        _softplus_slope,
        rounded=_softplus_parameters,
        parameters=((1.0, 20.0), (0.3, 20.0), (5.0, 7.0), (1.0, 1e30)),
        limits=lambda beta, threshold: (0, 1),
        points=(20.0, -37.0, -18.0, -740.0, 700.0, 80.0),
    ),
    "hardtanh": Oracle(
        lambda x, low, high: min(max(x, low), high),
        lambda x, low, high: _step(low < x < high),
        parameters=((-1.0, 1.0), (0.0, 6.0), (-INF, 0.3), (0.1, INF)),
        limits=lambda low, high: (int(low == -INF), int(high == INF)),
        points=(-1.0, 1.0, 6.0, 0.3, 0.1),
    ),
    "clamp": Oracle(
        lambda x, low, high: min(max(x, low), high),
        lambda x, low, high: _step(low <= x <= high),
        parameters=((-1.0, 1.0), (-INF, 0.3), (1e-30, INF)),
        limits=lambda low, high: (int(low == -INF), int(high == INF)),
        points=(-1.0, 1.0, 6.0, 0.3, 1e-30),
    ),
    "exp": Oracle(
        _exp,
        _exp,
        domain=lambda x: x < 1000,
        limits=lambda: (0, INF),
        points=(-700.0, 709.0, 88.0, -87.0, -103.0, -740.0),
    ),
    "log": Oracle(mpmath.log, lambda x: 1 / x, domain=lambda x: x > 0, limits=lambda: (None, 0), points=(1.0,)),
    "sqrt": Oracle(
        mpmath.sqrt,
        lambda x: 1 / (2 * mpmath.sqrt(x)) if x > 0 else mpf(0),
        domain=lambda x: x >= 0,
        limits=lambda: (None, 0),
    ),
    "rsqrt": Oracle(
        lambda x: 1 / mpmath.sqrt(x),
        lambda x: -1 / (2 * x * mpmath.sqrt(x)),
        domain=lambda x: x > 0,
        limits=lambda: (None, 0),
    ),
    "reciprocal": Oracle(lambda x: 1 / x, lambda x: -1 / (x * x), domain=lambda x: x != 0, limits=lambda: (0, 0)),
    "square": Oracle(lambda x: x * x, lambda x: 2 * x, limits=lambda: (-INF, INF)),
    "pow": Oracle(
        _power,
        _power_slope,
        parameters=tuple(
            (p,) for p in (0.0, 1.0, 2.0, 3.0, 0.5, -0.5, -1.0, 1.7, 0.3, -2.0, -3.0, -1.3, 4.0, 7.0, 40.3)
        ),
        domain=_power_domain,
        limits=_power_limits,
        float32_bar=32.0,
    ),
    "abs": Oracle(abs, lambda x: mpf((x > 0) - (x < 0)), limits=lambda: (-1, 1)),
}


def working_bits(x: float, r: float) -> int:
    """Enough for this pair: for what a small side or difference adds to a value of 1, and for tails down to e^-3|x|."""
    sizes = [abs(v) for v in (x, r, x - r) if v != 0 and math.isfinite(v)]
    small = max([0, *(-math.frexp(v)[1] for v in sizes)])
    return 240 + 2 * small + int(min(2400.0, 3 * min(abs(x), abs(r))))


def divided_difference(
    name: str, x: float, r: float, parameters: tuple[float, ...], dtype: np.dtype
) -> tuple[mpf, mpf]:
    """(f[x, r], the size that its error is measured against), for finite x and r inside the domain.

    The size is |f[x, r]|. Where f = x g, whose terms cancel, it is at least the smaller, over the two ways to write the
    difference, of the larger term: mean(g) + mid g[x, r] and (f(x) - f(r)) / (x - r).
    """
    oracle = ORACLES[name]
    with mp.workprec(working_bits(float(x), float(r))):
        p = oracle.rounded(parameters, dtype)
        a, b = mpf(float(x)), mpf(float(r))
        if a == b:
            exact = oracle.slope(a, *p)
            size = abs(exact)
            if oracle.gate is not None:
                gate = oracle.gate(a)
                size = max(size, abs(gate), abs(exact - gate))
            return +exact, +size
        fa, fb = oracle.value(a, *p), oracle.value(b, *p)
        exact = (fa - fb) / (a - b)
        size = abs(exact)
        if oracle.gate is not None:
            ga, gb = oracle.gate(a), oracle.gate(b)
            product = max((ga + gb) / 2, abs((a + b) / 2 * (ga - gb) / (a - b)))
            direct = max(abs(fa), abs(fb)) / abs(a - b)
            size = max(size, min(product, direct))
        return exact, size


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
