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
from .differences import piecewise, rescaled, smooth
from .registry import RULES, Application, Context, Roundoff, decomposition, rule
from .two_arguments import HYPOT


def rescale(function: str, input: Tensor, forward: Callable[[Tensor], Tensor], *parameters: float) -> Application:
    """The application of elementwise ``function`` (its name in ``csrc/math/elementwise.h``) computed by ``forward``."""

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        return [_rescale(grad, sides, function, parameters)]

    roundoffs = _of_operand_size if function in _CANCELLING else None
    return Application([input], lambda x: (forward(x), [x]), multipliers, parameters, roundoffs=roundoffs)


#: Functions that torch rounds to the size of ``x``, however small the result is: it computes ``x * (1 + erf(x / sqrt(2))) / 2``, the same
#: with tanh, and ``x - tanh(x)``.
_CANCELLING = frozenset({"gelu", "gelu_tanh", "tanhshrink"})


def _of_operand_size(x: Tensor) -> list[Roundoff]:
    return [Roundoff(x)]


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


@rule("abs")
def _abs(context: Context, input: Tensor) -> Application:
    if input.is_complex():
        return rescaled(context, torch.hypot, [input.real, input.imag], HYPOT, stand_for=[input])
    return rescale("abs", input, torch.abs)


@rule("leaky_relu")
def _leaky_relu(_: Context, input: Tensor, negative_slope: float = 0.01) -> Application:
    return rescale("leaky_relu", input, lambda x: F.leaky_relu(x, negative_slope), float(negative_slope))


@rule("rrelu")
def _rrelu(
    _: Context, input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False
) -> Application:
    # In eval mode the slope is the mean of the two; in training mode it is random, and no call of it comes here.
    return _leaky_relu(_, input, (lower + upper) / 2)


@rule("prelu")
def _prelu(context: Context, input: Tensor, weight: Tensor) -> Application:
    slope = weight.view(-1, *[1] * (input.dim() - 2)) if weight.numel() > 1 else weight
    if context.carries(weight):
        return rescaled(
            context, _bent, [input, slope], [_of_bent, lambda x, r, input: input.clamp(max=0)], [input, weight]
        )
    slope = slope.detach().clone()  # the model may write into a weight that is no parameter

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        # prelu(x) = slope x + (1 - slope) relu(x)
        positive = _rescale(grad, sides, "relu", ())
        return [positive + slope * (grad - positive)]

    return Application([input], lambda x: (F.prelu(x, weight), [x]), multipliers)


def _bent(x: Tensor, slope: Tensor) -> Tensor:
    """prelu, with a slope that broadcasts."""
    return torch.where(x > 0, x, slope * x)


def _of_bent(x: Tensor, r: Tensor, slope: Tensor) -> Tensor:
    """The divided difference of :func:`_bent` in ``x``."""
    return piecewise(lambda t: _bent(t, slope), lambda t: torch.where(t > 0, 1, slope), x, r)


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


def _sixth(input: Tensor) -> float:
    """What torch's kernels take for one sixth: on the CPU they divide by 6, on CUDA they multiply by ``1.0f / 6.0f``, also in float64.

    aten/src/ATen/native/cpu/Activation.cpp; cuda/ActivationHardsigmoidKernel.cu and ActivationHardswishKernel.cu beside it.
    """
    return torch.tensor(1 / 6, dtype=torch.float32).item() if input.is_cuda else 1 / 6


@rule("hardsigmoid")
def _hardsigmoid(_: Context, input: Tensor) -> Application:
    return rescale("hardsigmoid", input, F.hardsigmoid, _sixth(input))


@rule("hardswish")
def _hardswish(_: Context, input: Tensor) -> Application:
    return rescale("hardswish", input, F.hardswish, _sixth(input))


@rule("threshold")
def _threshold(_: Context, input: Tensor, threshold: float, value: float) -> Application:
    return rescale("threshold", input, lambda x: F.threshold(x, threshold, value), float(threshold), float(value))


@rule("relu6")
def _relu6(_: Context, input: Tensor) -> Application:
    return _hardtanh(_, input, 0.0, 6.0)


@rule("clamp")
def _clamp(context: Context, input: Tensor, min: Any = None, max: Any = None) -> Application:
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return _clamp_to_tensors(context, input, min, max)
    low, high = (-math.inf if min is None else float(min)), (math.inf if max is None else float(max))
    # With bounds that cross, torch sets everything to max.
    return rescale("clamp", input, lambda x: torch.clamp(x, min, max), builtins.min(low, high), high)


@rule("clamp_min")
def _clamp_min(context: Context, input: Tensor, min: Any) -> Application:
    return _clamp(context, input, min=min)


@rule("clamp_max")
def _clamp_max(context: Context, input: Tensor, max: Any) -> Application:
    return _clamp(context, input, max=max)


def _between(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, low), high)


def _clamp_to_tensors(context: Context, input: Tensor, low: Any, high: Any) -> Application:
    low = input.new_full((), -math.inf) if low is None else low
    high = input.new_full((), math.inf) if high is None else high

    def of_input(x: Tensor, r: Tensor, low: Tensor, high: Tensor) -> Tensor:
        return piecewise(lambda t: _between(t, low, high), lambda t: ((low <= t) & (t <= high)).to(t.dtype), x, r)

    def of_low(x: Tensor, r: Tensor, input: Tensor, high: Tensor) -> Tensor:
        return piecewise(lambda t: _between(input, t, high), lambda t: ((input < t) & (t < high)).to(t.dtype), x, r)

    def of_high(x: Tensor, r: Tensor, input: Tensor, low: Tensor) -> Tensor:
        return piecewise(lambda t: _between(input, low, t), lambda t: (t < torch.maximum(input, low)).to(t.dtype), x, r)

    return rescaled(context, _between, [input, low, high], [of_input, of_low, of_high])


_POWERS = {2.0: "square", 0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}


@rule("pow")
def _pow(context: Context, input: Any, exponent: Any) -> Application:
    if not isinstance(input, Tensor) or not _is_number(context, input, exponent):
        return rescaled(context, torch.pow, [input, exponent], [_of_base, _of_exponent])
    number = float(exponent)

    def forward(x: Tensor) -> Tensor:
        return torch.pow(x, exponent)

    if number in _POWERS:
        return rescale(_POWERS[number], input, forward)
    return rescale("pow", input, forward, number)


def _is_number(context: Context, input: Tensor, exponent: Any) -> bool:
    """Whether the exponent is a number, or a constant tensor of one element that changes neither shape nor dtype of the result."""
    if not isinstance(exponent, Tensor):
        return True
    alike = exponent.dim() <= input.dim() and torch.result_type(input, exponent) == input.dtype
    return exponent.numel() == 1 and alike and not context.carries(exponent)


def _of_base(x: Tensor, r: Tensor, exponent: Any) -> Tensor:
    return smooth(lambda t: torch.pow(t, exponent), lambda t: exponent * torch.pow(t, exponent - 1), x, r)


def _of_exponent(x: Tensor, r: Tensor, base: Any) -> Tensor:
    base = torch.as_tensor(base, dtype=x.dtype, device=x.device)
    return smooth(lambda t: torch.pow(base, t), lambda t: torch.xlogy(torch.pow(base, t), base), x, r)


@decomposition("float_power")
def _float_power(input: Any, exponent: Any) -> Tensor:
    base, power = (value.double() if isinstance(value, Tensor) else float(value) for value in (input, exponent))
    return base**power
