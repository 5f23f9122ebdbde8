"""Special functions of one tensor, and elementwise functions of several."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import torch
from reference import rules as slow
from torch import Tensor

from .sample import Sample, of_two, positive


def samples() -> dict[str, Sample]:
    def special(name: str, function: Callable[[Any], Any], draw: Any = None, *args: Any) -> Sample:
        op = getattr(torch.special, name, None) or getattr(torch, name)

        def slowly(a: np.ndarray) -> list[Any]:
            return [slow.of_several(function, unit) for unit in a]

        sample = Sample((4,), lambda x: op(x, *args), slowly)
        return sample if draw is None else sample._replace(draw=draw)

    def of_pairs(op: Callable[..., Tensor], function: Callable[..., float], draw: Any = None) -> Sample:
        sample = of_two(op, lambda a, b: [slow.of_several(function, *pair) for pair in zip(a, b, strict=True)])
        return sample if draw is None else sample._replace(draw=draw)

    def probabilities(*sides: Tensor) -> Any:
        return tuple(side.sigmoid() for side in sides)

    def large(*sides: Tensor) -> Any:
        return tuple(1 + side.exp() for side in sides)

    def of_one_sign(*sides: Tensor) -> Any:
        """The second argument's sign stays."""
        signs = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)
        return tuple(torch.stack([side[:, 0], side[:, 1].abs() * signs], 1) for side in sides)

    def to_tensors(a: np.ndarray) -> list[Any]:
        return [slow.of_several(lambda x, low, high: min(max(x, low), high), *three) for three in a.T]

    def polar(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        turned = [[slow.of_several(f, angle) for f in (math.cos, math.sin)] for angle in b]
        return a[:, None] * np.array(turned, dtype=object)

    bessel: Any = mpmath.besseli
    found = {
        "sinc": special("sinc", mpmath.sincpi),
        "erfcx": special("erfcx", lambda x: mpmath.exp(x * x) * mpmath.erfc(x)),
        "erfinv": special("erfinv", mpmath.erfinv, lambda x, r: (x.tanh() * 0.9, r.tanh() * 0.9)),
        "ndtri": special("ndtri", lambda p: mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1), probabilities),
        "ndtr": special("ndtr", mpmath.ncdf),
        "log_ndtr": special("log_ndtr", lambda x: mpmath.log(mpmath.ncdf(x))),
        "entr": special("entr", lambda x: -x * mpmath.log(x), positive),
        "lgamma": special("lgamma", mpmath.loggamma, positive),
        "gammaln": special("gammaln", mpmath.loggamma, positive),
        "digamma": special("digamma", mpmath.digamma, positive),
        "psi": special("psi", mpmath.digamma, positive),
        "mvlgamma": special(
            "multigammaln",
            lambda x: sum(mpmath.loggamma(x - mpmath.mpf(i) / 2) for i in range(2)) + mpmath.log(mpmath.pi) / 2,
            large,
            2,
        ),
        "logit": special("logit", lambda p: mpmath.log(p / (1 - p)), probabilities),
        "i0": special("i0", lambda x: bessel(0, x)),
        "i0e": special("i0e", lambda x: bessel(0, x) * mpmath.exp(-abs(x))),
        "i1": special("i1", lambda x: bessel(1, x)),
        "i1e": special("i1e", lambda x: bessel(1, x) * mpmath.exp(-abs(x))),
        "hypot": of_pairs(torch.hypot, math.hypot),
        "atan2": of_pairs(torch.atan2, math.atan2),
        "logaddexp": of_pairs(torch.logaddexp, lambda a, b: math.log(math.exp(a) + math.exp(b))),
        "logaddexp2": of_pairs(torch.logaddexp2, lambda a, b: math.log2(2**a + 2**b)),
        "xlogy": of_pairs(torch.xlogy, lambda a, b: a * math.log(b), positive),
        "xlog1py": of_pairs(torch.special.xlog1py, lambda a, b: a * math.log1p(b), positive),
        "copysign": of_pairs(torch.copysign, math.copysign, of_one_sign),
        "pow: of two": of_pairs(torch.pow, math.pow, positive),
        "abs: complex": of_pairs(lambda a, b: torch.complex(a, b).abs(), math.hypot),
        "angle": of_pairs(lambda a, b: torch.complex(a, b).angle(), lambda a, b: math.atan2(b, a)),
        "polar": of_two(torch.polar, polar),
        "clamp: to tensors": Sample((3, 2), lambda x: x[:, 0].clamp(x[:, 1], x[:, 2]), to_tensors),
    }
    return found
