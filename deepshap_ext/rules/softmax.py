"""Softmax and log-softmax: softmax's gradient with each probability replaced by the logarithmic mean of its two sides.

With ``L_k = (p_k(x) - p_k(r)) / (log p_k(x) - log p_k(r))`` the differences are ``p_k(x) - p_k(r) = L_k (da_k - c)`` for logits ``a`` and
``c`` the difference of the log-normalisers, and they sum to 0: ``c = sum_i L_i da_i / sum_i L_i``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from .registry import Application, Context, rule


def _softmax(input: Tensor, dim: int | None, dtype: torch.dtype | None, log: bool) -> Application:
    if dim is None:
        # torch's deprecated default.
        dim = 0 if input.dim() in (0, 1, 3) else 1
    operand = input if dtype is None else input.to(dtype)
    function = torch.log_softmax if log else torch.softmax

    def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        output = function(x, dim)
        # From log-probabilities: a probability that underflows to 0 has no logarithm to take the mean from.
        return output, [output if log else torch.log_softmax(x, dim)]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        out = ops.softmax(grad.unsqueeze(0), sides.x[0], sides.r[0], sides.rows(), dim, log, *sides.geometry())
        return [out.squeeze(0)]

    return Application([operand], forward, multipliers, (dim,), stand_for=[input])


@rule("softmax")
def softmax(_: Context, input: Tensor, dim: int | None = None, _stacklevel: Any = 3, dtype: Any = None) -> Application:
    return _softmax(input, dim, _dtype(_stacklevel, dtype), log=False)


@rule("log_softmax")
def log_softmax(_: Context, input: Tensor, dim: int | None = None, _stacklevel: Any = 3, dtype: Any = None) -> Application:
    return _softmax(input, dim, _dtype(_stacklevel, dtype), log=True)


def _dtype(third: Any, dtype: Any) -> Any:
    # torch.softmax and Tensor.softmax take the dtype third, torch.nn.functional's its _stacklevel.
    return third if isinstance(third, torch.dtype) else dtype
