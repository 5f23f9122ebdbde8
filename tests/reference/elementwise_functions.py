"""The elementwise functions and their derivatives as mpmath sees them: the definitions behind tests/reference/divided_differences.py."""

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
    large: the size of f[x, r]'s factors that oscillate, against which errors are measured for sides beyond 2^25, where the
        zeros of f[x, r] would take more than twice the precision.
    order: f(x) is as small as x^(order - 1) near 0; tail: f[x, r] is as small as 2^(-tail x^2) far out.
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
    large: Callable | None = None
    order: int = 2
    tail: float = 0.0
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


def _hardswish(x, sixth):
    return x * min(max(x + 3, mpf(0)), mpf(6)) * sixth


#: One sixth, and what torch's CUDA kernels multiply by.
SIXTHS = ((1 / 6,), (float(np.float32(1 / 6)),))


def _oscillation(x, r):
    return mpf(1) if x == r else min(mpf(1), 2 / abs(x - r))


def _within(bound):
    return lambda x: abs(x) <= bound


ORACLES |= {
    "threshold": Oracle(
        lambda x, bound, value: x if x > bound else value,
        lambda x, bound, value: _step(x > bound),
        parameters=((0.5, -2.0), (-1.0, 20.0)),
        limits=lambda bound, value: (0, 1),
        points=(0.5, -1.0),
    ),
    "hardsigmoid": Oracle(
        lambda x, sixth: min(max(x + 3, mpf(0)), mpf(6)) * sixth,
        lambda x, sixth: _step(-3 < x < 3) * sixth,
        parameters=SIXTHS,
        limits=lambda sixth: (0, 0),
        points=(-3.0, 3.0),
    ),
    "hardswish": Oracle(
        _hardswish,
        lambda x, sixth: mpf(0) if x <= -3 else 6 * sixth if x >= 3 else (2 * x + 3) * sixth,
        parameters=SIXTHS,
        limits=lambda sixth: (0, 6 * sixth),
        points=(-3.0, 3.0, -1.5),
    ),
    "softsign": Oracle(lambda x: x / (1 + abs(x)), lambda x: 1 / (1 + abs(x)) ** 2, limits=lambda: (0, 0)),
    "softshrink": Oracle(
        lambda x, width: x - width if x > width else x + width if x < -width else mpf(0),
        lambda x, width: _step(abs(x) > width),
        parameters=((0.5,), (0.0,)),
        limits=lambda width: (1, 1),
        points=(-0.5, 0.5),
    ),
    "hardshrink": Oracle(
        lambda x, width: x if abs(x) > width else mpf(0),
        lambda x, width: _step(abs(x) > width),
        parameters=((0.5,), (0.0,)),
        limits=lambda width: (1, 1),
        points=(-0.5, 0.5),
    ),
    "logsigmoid": Oracle(
        lambda x: min(x, mpf(0)) - mpmath.log1p(_exp(-abs(x))),
        lambda x: _sigmoid(-x),
        limits=lambda: (1, 0),
        points=(-20.0, 37.0, 18.0, 740.0),
    ),
    "tanhshrink": Oracle(
        lambda x: x - mpmath.tanh(x), lambda x: mpmath.tanh(x) ** 2, limits=lambda: (1, 1), points=(-2.5, 2.5), order=4
    ),
    "log1p": Oracle(
        mpmath.log1p, lambda x: 1 / (1 + x), domain=lambda x: x > -1, limits=lambda: (None, 0), points=(-0.999999, -0.3)
    ),
    "expm1": Oracle(
        lambda x: _exp(x) - 1, _exp, domain=lambda x: x < 1000, limits=lambda: (0, INF), points=(709.0, 88.0)
    ),
    "log2": Oracle(
        lambda x: mpmath.log(x, 2), lambda x: 1 / (x * mpmath.log(2)), domain=lambda x: x > 0, limits=lambda: (None, 0)
    ),
    "log10": Oracle(mpmath.log10, lambda x: 1 / (x * mpmath.log(10)), domain=lambda x: x > 0, limits=lambda: (None, 0)),
    "exp2": Oracle(
        lambda x: _exp(x * mpmath.log(2)),
        lambda x: _exp(x * mpmath.log(2)) * mpmath.log(2),
        domain=lambda x: x < 1100,
        limits=lambda: (0, INF),
        points=(1023.0, -1070.0, 127.0, -148.0),
    ),
    "sin": Oracle(mpmath.sin, mpmath.cos, large=_oscillation, points=(1e8, math.pi / 2, math.pi)),
    "cos": Oracle(mpmath.cos, lambda x: -mpmath.sin(x), large=_oscillation, points=(1e8, math.pi / 2, math.pi)),
    "tan": Oracle(
        mpmath.tan,
        lambda x: 1 / mpmath.cos(x) ** 2,
        large=lambda x, r: _oscillation(x, r) / abs(mpmath.cos(x) * mpmath.cos(r)),
        points=(1e8, math.pi / 2, math.pi, -math.pi / 2),
    ),
    "asin": Oracle(
        mpmath.asin,
        lambda x: 1 / mpmath.sqrt(1 - x * x) if abs(x) < 1 else mpf(INF),
        domain=_within(1),
        points=(-1.0, 0.7),
    ),
    "acos": Oracle(
        mpmath.acos,
        lambda x: -1 / mpmath.sqrt(1 - x * x) if abs(x) < 1 else -mpf(INF),
        domain=_within(1),
        points=(1.0, -0.7),
    ),
    "atan": Oracle(mpmath.atan, lambda x: 1 / (1 + x * x), limits=lambda: (0, 0), points=(-1.0, 1e8)),
    "sinh": Oracle(mpmath.sinh, mpmath.cosh, domain=_within(1000), limits=lambda: (INF, INF), points=(709.0, -88.0)),
    "cosh": Oracle(mpmath.cosh, mpmath.sinh, domain=_within(1000), limits=lambda: (-INF, INF), points=(709.0, -88.0)),
    "asinh": Oracle(mpmath.asinh, lambda x: 1 / mpmath.sqrt(1 + x * x), limits=lambda: (0, 0), points=(1e8,)),
    "acosh": Oracle(
        mpmath.acosh,
        lambda x: 1 / mpmath.sqrt(x * x - 1) if x > 1 else mpf(INF),
        domain=lambda x: x >= 1,
        limits=lambda: (None, 0),
        points=(1.0, 1.0001, 5.0, 1e8),
    ),
    "atanh": Oracle(mpmath.atanh, lambda x: 1 / (1 - x * x), domain=lambda x: abs(x) < 1, points=(0.999999, -0.7, 0.3)),
    "erf": Oracle(
        mpmath.erf,
        lambda x: 2 / mpmath.sqrt(mp.pi) * _exp(-x * x),
        limits=lambda: (0, 0),
        points=(26.0, -9.0, -5.5, 2.0),
        tail=1.5,
    ),
    "erfc": Oracle(
        lambda x: 2 * _normal_cdf(-x * mpmath.sqrt(2)),
        lambda x: -2 / mpmath.sqrt(mp.pi) * _exp(-x * x),
        limits=lambda: (0, 0),
        points=(26.0, -9.0, -5.5, 2.0),
        tail=1.5,
    ),
}
