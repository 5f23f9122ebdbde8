"""Memory formats: multipliers have the memory order of the tensors that they belong to, so that no operation has to copy them."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor


def has_channels_last(tensor: Tensor) -> bool:
    """Whether channels (dimension 1) lie side by side in memory, and not just because other dimensions have size 1.

    It works inside ``torch.func.vmap``, where ``is_contiguous(memory_format=...)`` does not.
    """
    return tensor.dim() > 2 and tensor.shape[1] > 1 and tensor.stride(1) == 1 and not tensor.is_contiguous()


def with_channels_last(tensor: Tensor) -> Tensor:
    """The tensor with its channels side by side in memory; a copy where they are not."""
    return tensor.movedim(1, -1).contiguous().movedim(-1, 1)


def padded(tensor: Tensor, edges: Sequence[int]) -> Tensor:
    """A tensor ``[N, channels, ...]`` with ``edges`` zeros on both sides of each further dimension, in its memory format.

    Inside ``torch.func.vmap``, ``torch.nn.functional.pad`` would return a contiguous tensor.
    """
    sides = [side for edge in reversed(edges) for side in (edge, edge)]
    if has_channels_last(tensor):
        return F.pad(tensor.movedim(1, -1), [0, 0, *sides]).movedim(-1, 1)
    return F.pad(tensor, sides)
