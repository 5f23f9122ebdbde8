"""Inputs and baselines that have met, however their passes were run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .capture.graph import Cut
from .found import Found
from .moments import OverBaselines, over_baselines


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


def expected_outputs(
    reference_output: Tensor, targets: Tensor, weights: Tensor, each: bool, baselines: int | None
) -> OverBaselines:
    """``[K, B]`` float64: outputs ``targets`` ``[B, K]`` over the baselines with these weights, averaged or of ``each``.

    ``baselines``: how many rows each input has of its own, if so; the first as many as there are weights count.
    """
    outputs = reference_output.reshape(len(reference_output), -1).double()
    by_input = outputs[None] if baselines is None else outputs.unflatten(0, (-1, baselines))[: len(targets)]
    # Averaged first: every output of every baseline of every input may be more than fits into memory.
    averaged = over_baselines(by_input[:, : len(weights)].movedim(2, 0), weights, each)
    chosen = targets.t()

    def of(tensor: Tensor) -> Tensor:
        behind = tensor.shape[2:]
        of_all = tensor if baselines is not None else tensor.expand(-1, len(targets), *behind)
        places = chosen.view(*chosen.shape, *[1] * len(behind)).expand(-1, -1, *behind) if behind else chosen
        return of_all.gather(0, places)

    return averaged.map(of)


def cycled(tensor: Tensor, rows: int, dim: int = 0) -> Tensor:
    """So many rows: the tensor's, from the first on again where they do not do."""
    number = tensor.shape[dim]
    return tensor if number == rows else tensor.index_select(dim, torch.arange(rows, device=tensor.device) % number)
