"""What is explained as it lies somewhere: anything with a length and slices, read some rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import shown
from ..arrays import as_tensor
from .fingerprint import fingerprint


class Source:
    """Rows of one or several inputs.

    Args:
        name: the argument, as messages call it.
        value: a tensor, a numpy array or memory map, a data frame, an h5py dataset, a zarr array or whatever else has a ``shape`` and
            slices; a list of such for several inputs; or a torch ``Dataset`` whose items are tensors, or tuples of tensors for several
            inputs.
    """

    def __init__(self, name: str, value: Any) -> None:
        self._name = name
        self._dataset = value if _is_dataset(value) else None
        if self._dataset is not None:
            if not hasattr(self._dataset, "__len__"):
                raise TypeError(f"{name} must be a dataset with a length and items by index, got {shown(value)}")
            item = self._dataset[0] if len(self._dataset) else ()
            # A TensorDataset of one tensor has items that are tuples of one.
            self.listed = isinstance(item, (list, tuple)) and len(item) != 1
            self._parts: list[Any] = []
            self._length = len(self._dataset)
        else:
            self.listed = isinstance(value, (list, tuple))
            self._parts = list(value) if self.listed else [value]
            for number, part in enumerate(self._parts):
                if not leading(part):
                    label = f"{name}[{number}]" if self.listed else name
                    raise TypeError(f"{label} must have a shape [samples, ...] and slices, got {shown(part)}")
            lengths = [part.shape[0] for part in self._parts]
            if len(set(lengths)) != 1:
                raise ValueError(f"{name}: all inputs must have the same number of samples, got {lengths}")
            self._length = int(lengths[0])
        if self._length == 0:
            raise ValueError(f"{name} must have at least one sample, got none")

    def __len__(self) -> int:
        return self._length

    @property
    def shapes(self) -> list[list[int]]:
        """``[N, *features]`` of each input."""
        if self._dataset is None:
            return [list(part.shape) for part in self._parts]
        return [[self._length, *tensor.shape[1:]] for tensor in self.tensors(slice(0, 1))]

    def read(self, rows: slice) -> Any:
        """These rows as :meth:`deepshap_ext.Explainer.attribute` takes them."""
        if self._dataset is not None:
            items = [self._dataset[row] for row in range(*rows.indices(self._length))]
            each = [item if isinstance(item, (list, tuple)) else (item,) for item in items]
            parts: list[Any] = [self._stacked(column) for column in zip(*each, strict=True)]
        else:
            parts = [self._rows_of(part, rows) for part in self._parts]
        return parts if self.listed else parts[0]

    def _rows_of(self, part: Any, rows: slice) -> Any:
        """Some rows of an input."""
        if hasattr(part, "iloc"):
            return part.iloc[rows]
        try:
            found = part[rows]
        except OSError as error:
            raise ValueError(f"{self._name} must be open for reading, got {shown(part)}: {error}") from error
        return found if isinstance(found, Tensor) else np.asarray(found)

    def _stacked(self, items: Sequence[Any]) -> Tensor:
        """Items of the dataset as rows of a tensor."""
        tensors = [as_tensor(self._name, one) for one in items]
        shapes = sorted({tuple(tensor.shape) for tensor in tensors})
        if len(shapes) > 1:
            raise ValueError(f"{self._name} must have items of one shape, got {' and '.join(map(str, shapes))}")
        return torch.stack(tensors)

    def tensors(self, rows: slice) -> list[Tensor]:
        """These rows as tensors in their own dtypes, one an input."""
        found = self.read(rows)
        return [as_tensor(self._name, part) for part in (found if self.listed else [found])]

    def described(self) -> dict[str, Any]:
        """By what another run knows the same inputs: shapes, dtypes, and the fingerprint of the first, the middle and the last row."""
        some = [self.tensors(slice(row, row + 1)) for row in (0, self._length // 2, self._length - 1)]
        return {
            "shape": [[self._length, *tensor.shape[1:]] for tensor in some[0]],
            "dtype": [str(tensor.dtype)[6:] for tensor in some[0]],
            "rows": fingerprint(some),
        }


def _is_dataset(value: Any) -> bool:
    return isinstance(value, torch.utils.data.Dataset)


def leading(value: Any) -> Sequence[int] | None:
    """The shape of what has one, be it an array or not."""
    try:
        shape = getattr(value, "shape", None)
    except Exception:
        return None  # of a file that is closed
    return None if shape is None else tuple(shape)
