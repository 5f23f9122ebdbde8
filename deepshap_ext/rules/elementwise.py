"""The rescale rule of elementwise functions: the multiplier is the divided difference (DeepLIFT, arXiv 1704.02685, section 3.5.2)."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ..errors import UnsupportedOperationError
from .registry import RULES, Application, Context, rule


def rescale(function: str, input: Tensor, forward: Callable[[Tensor], Tensor], *parameters: float) -> Application:
    """The application of elementwise ``function`` (its name in ``csrc/math/elementwise.h``) computed by ``forward``."""

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        return [_rescale(grad, sides, function, parameters)]

    return Application([input], lambda x: (forward(x), [x]), multipliers, parameters)


def _rescale(grad: Tensor, sides: Any, function: str, parameters: tuple[float, ...]) -> Tensor:
    x, r = sides.x[0], sides.r[0]
    out = ops.rescale(grad.unsqueeze(0), x, r, sides.rows(), function, parameters, *sides.geometry())
    return out.squeeze(0)


_WITHOUT_PARAMETERS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "silu": F.silu,
    "mish": F.mish,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "square": torch.square,
    "abs": torch.abs,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "logsigmoid": F.logsigmoid,
    "log1p": torch.log1p,
    "log2": torch.log2,
    "log10": torch.log10,
    "expm1": torch.expm1,
    "exp2": torch.exp2,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "erf": torch.erf,
    "erfc": torch.erfc,
}


def _register(name: str, forward: Callable[[Tensor], Tensor]) -> None:
    RULES[name] = lambda context, input: rescale(name, input, forward)


for _name, _forward in _WITHOUT_PARAMETERS.items():
    _register(_name, _forward)


@rule("leaky_relu")
def _leaky_relu(_: Context, input: Tensor, negative_slope: float = 0.01) -> Application:
    return rescale("leaky_relu", input, lambda x: F.leaky_relu(x, negative_slope), float(negative_slope))


@rule("rrelu")
def _rrelu(
    _: Context, input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False
) -> Application:
    # In eval mode its slope is the mean of the two; in training mode it is random and never comes here.
    return _leaky_relu(_, input, (lower + upper) / 2)


@rule("prelu")
def _prelu(context: Context, input: Tensor, weight: Tensor) -> Application:
    if context.carries(weight):
        raise UnsupportedOperationError("has no rule for a weight that depends on the explained input")
    slope = weight.detach()
    if slope.numel() > 1:
        slope = slope.view(-1, *[1] * (input.dim() - 2))

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        # prelu(x) = slope x + (1 - slope) relu(x)
        positive = _rescale(grad, sides, "relu", ())
        return [positive + slope * (grad - positive)]

    return Application([input], lambda x: (F.prelu(x, weight), [x]), multipliers)


@rule("elu")
def _elu(_: Context, input: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Application:
    def forward(x: Tensor) -> Tensor:
        return torch.ops.aten.elu(x, alpha, scale, input_scale)

    return rescale("elu", input, forward, float(alpha), float(scale), float(input_scale))


@rule("selu")
def _selu(_: Context, input: Tensor) -> Application:
    # Klambauer et al., arXiv 1706.02515: the constants as torch has them.
    return rescale("elu", input, F.selu, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0)


@rule("celu")
def _celu(_: Context, input: Tensor, alpha: float = 1.0) -> Application:
    return rescale("elu", input, lambda x: F.celu(x, alpha), float(alpha), 1.0, 1.0 / alpha)


@rule("gelu")
def _gelu(_: Context, input: Tensor, approximate: str = "none") -> Application:
    name = "gelu" if approximate == "none" else "gelu_tanh"
    return rescale(name, input, lambda x: F.gelu(x, approximate=approximate))


@rule("softplus")
def _softplus(_: Context, input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Application:
    return rescale("softplus", input, lambda x: F.softplus(x, beta, threshold), float(beta), float(threshold))


@rule("hardtanh")
def _hardtanh(_: Context, input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Application:
    return rescale("hardtanh", input, lambda x: F.hardtanh(x, min_val, max_val), float(min_val), float(max_val))


@rule("softshrink")
def _softshrink(_: Context, input: Tensor, lambd: float = 0.5) -> Application:
    return rescale("softshrink", input, lambda x: F.softshrink(x, lambd), float(lambd))


@rule("hardshrink")
def _hardshrink(_: Context, input: Tensor, lambd: float = 0.5) -> Application:
    return rescale("hardshrink", input, lambda x: F.hardshrink(x, lambd), float(lambd))


@rule("threshold")
def _threshold(_: Context, input: Tensor, threshold: float, value: float) -> Application:
    return rescale("threshold", input, lambda x: F.threshold(x, threshold, value), float(threshold), float(value))


@rule("relu6")
def _relu6(_: Context, input: Tensor) -> Application:
    return _hardtanh(_, input, 0.0, 6.0)


@rule("clamp")
def _clamp(_: Context, input: Tensor, min: Any = None, max: Any = None) -> Application:
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        raise UnsupportedOperationError("with tensor bounds has no rule: use torch.maximum and torch.minimum")
    low, high = (-math.inf if min is None else float(min)), (math.inf if max is None else float(max))
    # With bounds that cross, torch sets everything to max.
    return rescale("clamp", input, lambda x: torch.clamp(x, min, max), builtins.min(low, high), high)


@rule("clamp_min")
def _clamp_min(_: Context, input: Tensor, min: Any) -> Application:
    return _clamp(_, input, min=min)


@rule("clamp_max")
def _clamp_max(_: Context, input: Tensor, max: Any) -> Application:
    return _clamp(_, input, max=max)


_POWERS = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}


@rule("pow", "float_power")
def _pow(context: Context, input: Any, exponent: Any) -> Application | None:
    if not isinstance(input, Tensor) or isinstance(exponent, Tensor):
        raise UnsupportedOperationError(
            "has no rule for a tensor as exponent: give a number, or write exp(exponent * log(base))"
        )
    exponent = float(exponent)

    def forward(x: Tensor) -> Tensor:
        return torch.pow(x, exponent)

    if exponent in _POWERS:
        return rescale(_POWERS[exponent], input, forward)
    return rescale("pow", input, forward, exponent)
