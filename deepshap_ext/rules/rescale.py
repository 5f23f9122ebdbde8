"""The rescale rule (DeepLIFT, arXiv 1704.02685, section 3.5.2) for an elementwise function of the user's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ..arguments import shown
from ..errors import UnsupportedOperationError
from ..memory import is_out_of_memory
from .differences import by_ends
from .registry import Application
from .whole import Whole


def rescale(
    function: Callable[..., Any], args: Any, kwargs: Any, operands: Sequence[Tensor], opaque: bool = False
) -> Application:
    """The application of any function that takes a single tensor that carries multipliers, element by element, to a tensor of its shape.

    ``operands``: the tensors in its arguments that carry multipliers. ``opaque``: it is no function of torch, and must not write into its
    argument. The function and its derivative run in the forward pass only.
    """
    unique = list({id(operand): operand for operand in operands}.values())
    if len(unique) != 1:
        shapes = ", ".join(str(list(operand.shape)) for operand in unique)
        raise UnsupportedOperationError(
            f"is rescaled, for which one of its arguments must depend on the explained input, got {len(unique)} of shapes {shapes}"
        )
    whole, dtype = Whole(function, args, kwargs, unique), unique[0].dtype

    def forward(value: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        result, slope = _with_slope(value, lambda copied: _one_tensor(whole, copied, may_write=not opaque))
        wide = reduce(torch.promote_types, (value.dtype, result.dtype), torch.float32)
        # Kept as one tensor, so that the three have the same layout: the probe could not tell it from a derivative that is constant.
        return result, [torch.stack([tensor.to(wide) for tensor in (value, result, slope)])]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        (x, f_x, slope_x), (r, f_r, slope_r) = (side.unbind() for side in sides.pair())
        eps = max(torch.finfo(dtype).eps, torch.finfo(grad.dtype).eps)
        return [(grad * by_ends(x, r, f_x, f_r, slope_x, slope_r, eps)).to(dtype)]

    return Application(unique, forward, multipliers)


def _one_tensor(whole: Whole, value: Tensor, may_write: bool) -> Tensor:
    """The function's result for a copy of ``value``, checked."""
    result = whole.on_copies([value], "is rescaled", may_write)
    if not isinstance(result, Tensor) or result.shape != value.shape or not result.is_floating_point():
        raise UnsupportedOperationError(
            f"is rescaled, for which it must return a real floating-point tensor of its argument's shape {list(value.shape)}, got "
            f"{shown(result)}"
        )
    return result


def _with_slope(value: Tensor, function: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The function's result and its derivative; that is NaN everywhere if torch has none."""
    try:
        # Autograd saves copies, because the function may write into the tensors that it saves.
        with torch.enable_grad(), saved_tensors_hooks(Tensor.clone, lambda saved: saved):
            leaf = value.detach().requires_grad_()
            result = function(leaf)
            (slope,) = torch.autograd.grad(result.sum(), leaf)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        result, slope = function(value), torch.full_like(value, math.nan)
    return result.detach(), slope
