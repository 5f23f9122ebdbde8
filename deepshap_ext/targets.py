"""Which of a model's outputs are explained: of every sample all, one, or those that rank first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: From flattened outputs ``[b, outputs]`` of a slice of the samples to the indices ``[b, K]`` of those to explain.
Choose = Callable[[Tensor, slice], Tensor]

_RANK_ORDERS = ("max", "min", "max_abs")


def ranked(number: int, ranked_outputs: int | None, order: str) -> Choose:
    """The ``ranked_outputs`` of ``number`` outputs that come first in each sample's own order; all of them for None."""
    if order not in _RANK_ORDERS:
        raise ValueError(f"output_rank_order must be one of {', '.join(map(repr, _RANK_ORDERS))}, got {order!r}")
    if ranked_outputs is None:
        return lambda outputs, here: torch.arange(number, device=outputs.device).expand(len(outputs), -1)
    if isinstance(ranked_outputs, bool) or not isinstance(ranked_outputs, (int, np.integer)):
        raise TypeError(f"ranked_outputs must be None or an integer, got {ranked_outputs!r}")
    if not 1 <= ranked_outputs <= number:
        raise ValueError(f"ranked_outputs must be between 1 and the number of outputs, {number}, got {ranked_outputs}")

    def choose(outputs: Tensor, here: slice) -> Tensor:
        ranking = outputs.abs() if order == "max_abs" else outputs
        return torch.sort(ranking, descending=order != "min").indices[:, :ranked_outputs]

    return choose


def targeted(shape: tuple[int, ...], target: Any, samples: int, device: torch.device) -> tuple[Choose, tuple[int, ...]]:
    """What ``target`` chooses of outputs of this ``shape`` a sample, and the shape that a sample's explained outputs have."""
    if target is None:
        return ranked(int(np.prod(shape)), None, "max"), shape
    if isinstance(target, (int, np.integer)) and not isinstance(target, bool):
        target = (int(target),)
    if isinstance(target, tuple) and len(target) == len(shape):
        flat = 0
        for index, size in zip(target, shape, strict=True):
            if not -size <= index < size:
                raise ValueError(f"target must be an index into outputs of shape {list(shape)}, got {target}")
            flat = flat * size + index % size
        return lambda outputs, here: torch.full((len(outputs), 1), flat, device=outputs.device), ()
    try:
        indices = torch.as_tensor(target, device=device)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(
            f"target must be None, an integer, a tuple of integers or one integer a sample, got {target!r}"
        ) from None
    if indices.is_floating_point() or indices.dtype == torch.bool or indices.shape != (samples,) or len(shape) != 1:
        raise ValueError(
            f"target must be None, an index into outputs of shape {list(shape)}, or, where outputs have one dimension, {samples} "
            f"integers, one a sample; got {target!r}"
        )
    outside = (indices < 0) | (indices >= shape[0])
    if outside.any():
        row = int(outside.nonzero()[0])
        raise ValueError(f"target[{row}] must be between 0 and {shape[0] - 1}, got {int(indices[row])}")
    column = indices.to(torch.int64).unsqueeze(1)
    return lambda outputs, here: column[here], ()
