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

    ``output`` and ``reference_output`` ``[rows, ...]``; ``explained`` and ``reference_explained``, the explained tensors; ``baselines``:
    how many of the reference rows are one input's, where each has its own. ``layers``, ``cuts``, ``inexact`` and ``gaps``: as of
    :class:`deepshap_ext.explained.Explained`. ``found`` gives what the pair pass finds of every explained tensor, for outputs ``[K,
    rows]`` against the baselines of rows ``[J]`` with weights ``[J]``.
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


def expected_outputs(reference_output: Tensor, targets: Tensor, baselines: int | None) -> Tensor:
    """``[K, B, J]`` float64: outputs ``targets`` ``[B, K]`` for the baselines; ``baselines``: how many each input has of its own, if so."""
    theirs = reference_output.reshape(len(reference_output), -1).double()
    each = (
        theirs.expand(len(targets), -1, -1)
        if baselines is None
        else theirs.unflatten(0, (-1, baselines))[: len(targets)]
    )
    return each.gather(2, targets.unsqueeze(1).expand(-1, each.shape[1], -1)).movedim(2, 0)


def cycled(tensor: Tensor, rows: int, dim: int = 0) -> Tensor:
    """So many rows: the tensor's, from the first on again where they do not do."""
    number = tensor.shape[dim]
    return tensor if number == rows else tensor.index_select(dim, torch.arange(rows, device=tensor.device) % number)
