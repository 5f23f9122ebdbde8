"""Elementwise functions of one tensor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from reference.divided_differences import ORACLES
from reference.units import elementwise as rescaled
from rules.linear_samples import const
from torch import Tensor

from .sample import Sample, by_sample, positive, wide


def samples() -> dict[str, Sample]:
    found: dict[str, Sample] = {}

    def sample(op: Callable[[Tensor], Tensor], function: str, *parameters: float) -> Sample:
        inside = ORACLES[function].domain
        within = {
            (-4.0, 4.0): wide,
            (0.01, 9.0): positive,
            (-0.99, 0.99): lambda *sides: tuple(side.tanh() * 0.9 for side in sides),
            (1.01, 9.0): lambda *sides: tuple(1 + side.exp() for side in sides),
        }
        draw = next(draw for ends, draw in within.items() if all(inside(end, *parameters) for end in ends))
        return Sample((4,), op, lambda a: rescaled(function, a, *parameters), draw=draw)

    for name in """
        abs acos acosh asin asinh atan atanh cos cosh erf erfc exp exp2 expm1 gelu log log10 log1p log2 logsigmoid
        mish reciprocal relu rsqrt sigmoid silu sin sinh softsign sqrt square tan tanh tanhshrink
    """.split():
        found[name] = sample(getattr(torch, name, None) or getattr(F, name), name)
    slopes = const(4)
    scale, alpha = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
    found.update(
        {
            "gelu: tanh": sample(lambda x: F.gelu(x, approximate="tanh"), "gelu_tanh"),
            "leaky_relu": sample(lambda x: F.leaky_relu(x, 0.2), "leaky_relu", 0.2),
            "rrelu": sample(lambda x: F.rrelu(x, 0.1, 0.3), "leaky_relu", 0.2),
            "prelu": Sample(
                (4,),
                lambda x: F.prelu(x, slopes),
                lambda a: [rescaled("leaky_relu", unit, slope) for unit, slope in zip(a, slopes.tolist(), strict=True)],
            ),
            "elu": sample(lambda x: F.elu(x, 0.7), "elu", 0.7, 1.0, 1.0),
            "celu": sample(lambda x: F.celu(x, 2.0), "elu", 2.0, 1.0, 0.5),
            "selu": sample(F.selu, "elu", alpha, scale, 1.0),
            "softplus": sample(lambda x: F.softplus(x, 2.0, 5.0), "softplus", 2.0, 5.0),
            "hardtanh": sample(lambda x: F.hardtanh(x, -0.5, 2.0), "hardtanh", -0.5, 2.0),
            "relu6": sample(F.relu6, "hardtanh", 0.0, 6.0),
            "clamp": sample(lambda x: x.clamp(-0.5, 2.0), "clamp", -0.5, 2.0),
            "clamp_min": sample(lambda x: x.clamp_min(0.5), "clamp", 0.5, np.inf),
            "clamp_max": sample(lambda x: x.clamp_max(0.5), "clamp", -np.inf, 0.5),
            "softshrink": sample(lambda x: F.softshrink(x, 0.7), "softshrink", 0.7),
            "hardshrink": sample(lambda x: F.hardshrink(x, 0.7), "hardshrink", 0.7),
            "hardsigmoid": sample(F.hardsigmoid, "hardsigmoid", 1 / 6),
            "hardswish": sample(F.hardswish, "hardswish", 1 / 6),
            "threshold": sample(lambda x: F.threshold(x, 0.7, -2.0), "threshold", 0.7, -2.0),
            "pow": sample(lambda x: x**3, "pow", 3.0),
            "pow: root": sample(lambda x: x**0.3, "pow", 0.3),
            "pow: square": sample(lambda x: x**2, "square"),
            "linalg_vander": Sample(
                (3,), lambda x: torch.linalg.vander(x), lambda a: [p**n for p in a for n in range(3)]
            ),
            "vander": Sample(
                (3,), by_sample(lambda x: torch.vander(x, 3)), lambda a: [p**n for p in a for n in (2, 1, 0)]
            ),
            "float_power": sample(lambda x: torch.float_power(x, 1.5), "pow", 1.5),
        }
    )
    return found
