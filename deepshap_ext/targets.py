"""Which of a model's outputs are explained: of every sample all, one, several, or those that rank first."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arguments import is_integer, one_of, shown

#: Takes the flattened outputs ``[b, outputs]`` of a slice of the samples to the positions ``[b, K]`` of those to explain.
Choose = Callable[[Tensor, slice], Tensor]


@dataclass(frozen=True)
class EveryOutput:
    """Chooses all of a ``number`` of outputs."""

    number: int

    def __call__(self, outputs: Tensor, here: slice) -> Tensor:
        return torch.arange(self.number, device=outputs.device).expand(outputs.shape[0], -1)


def ranked(ranked_outputs: Any, order: Any) -> Callable[[Tensor], Tensor] | None:
    """The target that takes the ``ranked_outputs`` outputs that rank first, by each sample's own order; all of them for None."""
    one_of("output_rank_order", order, ("max", "min", "max_abs"))
    if ranked_outputs is None:
        return None
    if not is_integer(ranked_outputs):
        raise TypeError(f"ranked_outputs must be None or an integer, got {shown(ranked_outputs)}")

    def choose(outputs: Tensor) -> Tensor:
        outputs = outputs.flatten(1)
        if not 1 <= ranked_outputs <= outputs.shape[1]:
            raise ValueError(
                f"ranked_outputs must be between 1 and the number of outputs, {outputs.shape[1]}, got {ranked_outputs}"
            )
        ranking = outputs.abs() if order == "max_abs" else outputs
        return torch.sort(ranking, descending=order != "min").indices[:, :ranked_outputs]

    return choose


def targeted(shape: tuple[int, ...], target: Any, samples: int, device: torch.device) -> tuple[Choose, tuple[int, ...]]:
    """The argument ``target``, checked, for outputs of this ``shape`` a sample; and the shape that a sample's explained outputs have.

    None: all of them. An integer, for outputs of several dimensions a tuple of integers: that one. A list, array, tensor or column of
    integers, or a list of tuples: one a sample; ``[samples, K]`` integers: ``K`` a sample. Negative integers count from the end. A
    function from outputs ``[n, *shape]`` to integers ``[n]`` or ``[n, K]``, positions in the flattened outputs: whatever it takes.
    """
    if target is None:
        return EveryOutput(math.prod(shape)), shape
    if callable(target) and not isinstance(target, Tensor):
        return _by_function(shape, target, device)
    return _by_index(shape, target, samples, device)


def _by_function(
    shape: tuple[int, ...], target: Callable[[Tensor], Tensor], device: torch.device
) -> tuple[Choose, tuple[int, ...]]:
    """:func:`targeted` for a function of the user's."""
    chosen_shape = _chosen(target, torch.zeros(1, *shape, device=device)).shape[1:]

    def choose(outputs: Tensor, here: slice) -> Tensor:
        # A copy, since the function may write into what it is given.
        chosen = _chosen(target, outputs.clone().unflatten(1, shape))
        if chosen.shape[1:] != chosen_shape:
            raise ValueError(
                f"target must return the same number of integers for every sample, {list(chosen_shape)} for outputs of 0, got shape "
                f"{list(chosen.shape)}"
            )
        return chosen.view(len(outputs), -1)

    return choose, chosen_shape


def _by_index(
    shape: tuple[int, ...], target: Any, samples: int, device: torch.device
) -> tuple[Choose, tuple[int, ...]]:
    """:func:`targeted` for one index, or for one or several a sample."""
    if hasattr(target, "to_numpy"):
        target = target.to_numpy()  # a column of a data frame
    if isinstance(target, (Tensor, np.ndarray)) and target.ndim > 0:
        integers = target.dtype.kind in "iu" if isinstance(target, np.ndarray) else _is_integer_dtype(target.dtype)
        if not integers:
            raise TypeError(f"target must hold integers, got {shown(target)}")
        target = target.tolist()
    if not isinstance(target, list):
        flat = _flat("target", target, shape)
        return lambda outputs, here: torch.full((outputs.shape[0], 1), flat, device=outputs.device), ()
    if len(target) != samples:
        raise ValueError(
            f"target must be one index, or a list of one a sample for {samples} samples, got {len(target)}"
        )
    several = isinstance(target[0], list)
    rows = [
        [_flat(f"target[{row}][{column}]", one, shape) for column, one in enumerate(chosen)]
        if isinstance(chosen, list)
        else [_flat(f"target[{row}]", chosen, shape)]
        for row, chosen in enumerate(target)
    ]
    if not rows[0] or any(
        isinstance(c, list) != several or len(r) != len(rows[0]) for c, r in zip(target, rows, strict=True)
    ):
        raise ValueError(f"target must have the same number of indices for every sample, got {shown(target)}")
    columns = torch.tensor(rows, device=device)
    return lambda outputs, here: columns[here], (len(rows[0]),) if several else ()


def _chosen(target: Callable[[Tensor], Tensor], outputs: Tensor) -> Tensor:
    """The positions ``[n]`` or ``[n, K]`` that the user's function takes of outputs ``[n, *shape]``."""
    number = outputs[0].numel()
    contract = f"target must return integers [{len(outputs)}] or [{len(outputs)}, K] from 0 to {number - 1}"
    chosen = target(outputs)
    if not isinstance(chosen, Tensor) or not _is_integer_dtype(chosen.dtype):
        raise TypeError(f"{contract}, got {shown(chosen)}")
    if chosen.dim() not in (1, 2) or len(chosen) != len(outputs) or chosen.numel() == 0:
        raise ValueError(f"{contract}, got shape {list(chosen.shape)}")
    if int(chosen.min()) < 0 or int(chosen.max()) >= number:
        raise ValueError(f"{contract}, got from {int(chosen.min())} to {int(chosen.max())}")
    return chosen.long()


def _flat(label: str, index: Any, shape: Sequence[int]) -> int:
    """The position in flattened outputs of an index into outputs of this ``shape``, whose last dimensions, of size 1, it may leave out."""
    each = index if isinstance(index, tuple) else (index,)
    contract = f"{label} must be an index into outputs of shape {list(shape)}"
    numbers = [_integer(contract, one) for one in each]
    if all(size == 1 for size in shape[len(numbers) :]):
        numbers += [0] * (len(shape) - len(numbers))
    if len(numbers) != len(shape):
        way = "one a sample is a list" if len(shape) == 1 else f"a tuple of {len(shape)} integers"
        raise ValueError(f"{contract}, got {index}: {way}")
    flat = 0
    for number, size in zip(numbers, shape, strict=True):
        if not -size <= number < size:
            raise ValueError(f"{contract}, got {index}")
        flat = flat * size + number % size
    return flat


def _integer(contract: str, value: Any) -> int:
    """An integer, also one in a tensor or an array of no dimensions."""
    if is_integer(value):
        return int(value)
    if isinstance(value, Tensor) and value.ndim == 0 and _is_integer_dtype(value.dtype):
        return int(value)
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iu":
        return int(value)
    raise TypeError(f"{contract}, an integer or a tuple of integers, got {shown(value)}")


def _is_integer_dtype(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
