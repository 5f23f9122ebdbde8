"""Batch norm in eval mode is one affine map a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import UnsupportedOperationError
from .registry import Application, Carries, rule


@rule("batch_norm")
def _batch_norm(_: Carries, input: Tensor, *args: Any, **kwargs: Any) -> Application:
    if len(args) == 8:
        # torch.batch_norm has weight and bias before the running statistics, torch.nn.functional.batch_norm behind them.
        weight, bias, mean, var, *args = args[:-1]  # type: ignore[assignment]
        args = (mean, var, weight, bias, *args)
    return _affine(input, *args, **kwargs)


def _affine(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Application:
    if training or running_mean is None or running_var is None:
        raise UnsupportedOperationError("uses batch statistics, which mix the samples of a batch; it needs running statistics")
    scale = torch.rsqrt(running_var + eps)
    if weight is not None:
        scale = scale * weight
    scale = scale.to(input.dtype).view(-1, *[1] * (input.dim() - 2))

    def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        return torch.nn.functional.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps), []

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        # Autograd's own is right but transposes under vmap.
        return [grad * scale]

    return Application([input], forward, multipliers)
