"""The argument ``combine``: a function of multipliers, inputs and baselines whose results take the place of the contributions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Size, Tensor

from .arguments import shown
from .arrays import as_tensor, wide
from .structure import Structure


class Combination:
    """The function ``combine``, checked; ``structure``: whether it takes and returns tensors, or tuples of them."""

    def __init__(self, combine: Any, structure: Structure) -> None:
        if not callable(combine):
            raise TypeError(
                f"combine must be None or a function of multipliers, inputs and baselines, got {shown(combine)}"
            )
        self._combine: Callable[[Any, Any, Any], Any] = combine
        self._structure = structure
        #: The shapes of one pair's results, one an explained tensor, once it was called.
        self._shapes: list[Size] = []

    def __call__(self, sides: Sequence[Sequence[Tensor]], layers: Sequence[slice]) -> list[Tensor]:
        """``[K, B, J, ...]`` for every explained tensor, from ``sides``, its multipliers, inputs and baselines ``[K, B, J, *features]``."""
        pairs = sides[0][0].shape[:3]
        # Copies, since the function may write into what it is given.
        given = [
            [tensor.clone(memory_format=torch.contiguous_format).flatten(0, 2) for tensor in tensors]
            for tensors in zip(*sides, strict=True)
        ]
        made = self._combine(*(self._structure.of(tensors, layers) for tensors in given))
        found = self._structure.flat(made, layers)
        if found is None:
            raise TypeError(f"combine must return tensors as it is given them, got {shown(made)}")
        plain = [as_tensor("combine(...)", one) for one in found]
        self._check(plain, pairs.numel())
        return [wide(one.to(sides[0][0].device)).unflatten(0, pairs) for one in plain]

    def _check(self, found: Sequence[Tensor], number: int) -> None:
        for one in found:
            if one.dim() == 0 or len(one) != number or not one.is_floating_point():
                raise ValueError(
                    f"combine must return floating-point tensors of shape [{number}, ...] for {number} pairs, got {shown(one)}"
                )
        self._shapes = self._shapes or [one.shape[1:] for one in found]
        for one, shape in zip(found, self._shapes, strict=True):
            if one.shape[1:] != shape:
                raise ValueError(
                    f"combine must return the same shape for every pair, which was {list(shape)} at first, got {shown(one)}"
                )
