"""Gradients of channels-last tensors keep their memory format: convolutions in another one are slower."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from ..rules.formats import has_channels_last, with_channels_last
from .dependence import plain


def keep_format(tensor: Tensor) -> None:
    """Have the gradients of a channels-last tensor, which come from several operations, in that memory format before they go on."""
    node = tensor.grad_fn
    if node is None or tensor._is_view() or tensor.is_nested or plain(tensor) is not tensor:
        return
    if has_channels_last(tensor):
        node.register_prehook(partial(_in_channels_last, tensor.output_nr))


def _in_channels_last(number: int, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(
        with_channels_last(grad) if position == number and grad is not None else grad
        for position, grad in enumerate(grads)
    )
