"""Inputs and baselines that have met, however their passes were run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .capture.graph import Cut
from .found import Found


@dataclass
class Met:
    """What the passes over inputs and baselines gave.

    ``output`` and ``reference_output`` ``[rows, ...]``; ``explained`` and ``reference_explained``, the explained tensors, of which ``layers``
    are each layer's; ``baselines``: how many of the reference rows are one input's, where each has its own. ``cuts``, ``inexact`` and
    ``gaps``: as of :class:`deepshap_ext.explained.Explained`. ``found`` gives what the pair pass finds of every explained tensor, for
    outputs ``[K, rows]`` against the baselines of rows ``[J]`` with weights ``[J]``.
    """

    output: Tensor
    reference_output: Tensor
    explained: Sequence[Tensor]
    reference_explained: Sequence[Tensor]
    baselines: int
    layers: list[slice]
    cuts: list[Cut]
    inexact: dict[str, set[int]]
    gaps: dict[str, float]
    found: Callable[[Tensor, Tensor, Tensor], list[Found]]


def cycled(tensor: Tensor, rows: int, dim: int = 0) -> Tensor:
    """So many rows: the tensor's, from the first on again where they do not do."""
    number = tensor.shape[dim]
    return tensor if number == rows else tensor.index_select(dim, torch.arange(rows, device=tensor.device) % number)
