"""Memory formats: what travels backward lies in memory as what it is the multiplier of."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def has_channels_last(tensor: Tensor) -> bool:
    """Whether channels (dimension 1) lie side by side in memory, and not only since other dimensions are of size 1.

    Also inside ``torch.func.vmap``, where torch does not say.
    """
    return tensor.dim() > 2 and tensor.shape[1] > 1 and tensor.stride(1) == 1 and not tensor.is_contiguous()


def with_channels_last(tensor: Tensor) -> Tensor:
    """The tensor with its channels side by side in memory; a copy where they are not."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def padded(tensor: Tensor, edges: Sequence[int]) -> Tensor:
    """``[N, channels, ...]`` with so many zeros before and behind it in every further dimension, in the tensor's memory format.

    ``torch.nn.functional.pad`` makes a contiguous tensor of a batched one.
    """
    sides = [side for edge in reversed(edges) for side in (edge, edge)]
    if has_channels_last(tensor):
        return F.pad(tensor.movedim(1, -1), [0, 0, *sides]).movedim(-1, 1)
    return F.pad(tensor, sides)
