"""What a store keeps of attributions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from torch import Tensor

from ..arrays import as_array
from ..attribution import Attribution
from .store import Array, Column

#: What of an attribution has a row a sample, and is of the values' shape.
LIKE_VALUES = ("values", "standard_error", "multipliers")


@dataclass(frozen=True)
class Keep:
    """``dtype``: of the values and what is shaped like them, ``"float32"`` or ``"float16"``; None: as they are computed."""

    dtype: str | None = None

    def arrays(self, found: Attribution) -> dict[str, Array]:
        """What is kept of the attributions of some samples, by name; several inputs' as ``values/0``, ``values/1``."""
        kept: dict[str, Array] = {}
        for field in fields(found):
            for name, tensor in _leaves(field.name, getattr(found, field.name)):
                array = as_array(tensor)
                kept[name] = array if self.dtype is None or field.name not in LIKE_VALUES else array.astype(self.dtype)
        return kept

    def columns(self, found: Attribution) -> list[Column]:
        """The columns that hold this."""
        return [
            Column(name, array.shape[1:], array.dtype, tuple(f"{name}_{axis}" for axis in range(1, array.ndim)))
            for name, array in self.arrays(found).items()
        ]

    def described(self) -> dict[str, Any]:
        return {"dtype": self.dtype}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a nested tuple, by where they are in it."""
    if isinstance(value, tuple):
        for number, one in enumerate(value):
            yield from _leaves(f"{name}/{number}", one)
    elif isinstance(value, Tensor):
        yield name, value


def bytes_a_row(columns: list[Column]) -> int:
    return int(sum(np.prod(one.shape, dtype=np.int64) * one.dtype.itemsize for one in columns))
