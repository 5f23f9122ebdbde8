"""What a store keeps of attributions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import flag, shown
from ..arrays import as_array
from ..attribution import Attribution
from .store import Array, Column
from .summary import MOMENTS, Moments

#: What of an attribution is shaped like its values.
LIKE_VALUES = ("values", "standard_error", "multipliers")


@dataclass(frozen=True)
class Keep:
    """What is kept of every sample's attributions.

    Args:
        dtype: of the values and what is shaped like them: ``"float32"`` or ``"float16"``; None: as they are computed.
        axes: what the dimensions of a sample's features are called, such as ``["channel", "position"]``; for several inputs a list of such
            lists; None: ``"feature"``, or ``"feature_1"``, ``"feature_2"`` and so on where there are several.
        sum_over: the names of those that values are summed over.
        summary: keep no values but their mean and mean absolute value over the samples, with standard errors.
    """

    dtype: str | None = None
    axes: Sequence[Any] | None = None
    sum_over: Sequence[str] = ()
    summary: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in (None, "float32", "float16"):
            raise ValueError(f"dtype must be None, 'float32' or 'float16', got {shown(self.dtype)}")
        flag("summary", self.summary)
        object.__setattr__(self, "sum_over", _names("sum_over", self.sum_over))
        if self.axes is not None:
            object.__setattr__(self, "axes", _names("axes", self.axes))

    def check(self, options: dict[str, Any]) -> None:
        """Refuse options of an explanation that do not go with what is kept."""
        for name in ("standard_error", "multipliers"):
            flag(name, options.get(name, False))
            if options.get(name) and self.summary:
                raise ValueError(f"{name} must be False with summary=True, which keeps no sample's own")
            if options.get(name) and self.sum_over:
                raise ValueError(
                    f"{name} must be False with sum_over: it does not add up as values do; values that combine= sums have their own error"
                )
        if options.get("activations"):
            raise ValueError("activations must be False: a store keeps attributions")

    def arrays(self, found: Attribution) -> dict[str, Array]:
        """What is kept of the attributions of some samples, by name; several inputs' as ``values/0``, ``values/1``."""
        return {name: array for name, array, _ in self._kept(found)}

    def joined(self, parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
        """What is kept of several lots of samples together."""
        if len(parts) == 1:
            return parts[0]
        found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if not _is_of_shard(name)}
        for name in {name.rpartition("/")[0] for name in parts[0] if _is_of_shard(name)}:
            moments = [Moments(len(part["output"]), *(part[f"{name}/{what}"] for what in MOMENTS)) for part in parts]
            found |= _moments(name, reduce(Moments.__add__, moments))
        return found

    def columns(self, found: Attribution) -> list[Column]:
        """The columns that hold this."""
        return [
            Column(name, array.shape[1:], array.dtype, dims, _is_of_shard(name))
            for name, array, dims in self._kept(found)
        ]

    def described(self) -> dict[str, Any]:
        axes = self.axes and [one if isinstance(one, str) else list(one) for one in self.axes]
        return {"dtype": self.dtype, "axes": axes, "sum_over": sorted(self.sum_over), "summary": bool(self.summary)}

    def _kept(self, found: Attribution) -> Iterator[tuple[str, Array, tuple[str, ...]]]:
        """What is kept, by name, with the names of its dimensions behind the samples."""
        output, expected = found.output, next(_leaves("", found.expected_value))[1]
        outputs = _numbered("output", output.dim() - 1)
        baselines = ("baseline",) * (expected.dim() - output.dim())
        known: set[str] = set()
        for field in fields(found):
            leaves = list(_leaves(field.name, getattr(found, field.name)))
            for number, (name, tensor) in enumerate(leaves):
                if field.name not in LIKE_VALUES:
                    yield name, as_array(tensor), (*baselines[: tensor.dim() - output.dim()], *outputs)
                    continue
                features = self._axes(number, len(leaves), tensor.dim() - expected.dim())
                known |= set(features)
                dims = (*baselines, *features, *outputs)
                summed = [place + 1 for place, axis in enumerate(dims) if axis in self.sum_over]
                if summed:
                    tensor = tensor.sum(summed, dtype=torch.float64).to(tensor.dtype)
                dims = tuple(axis for axis in dims if axis not in self.sum_over)
                if self.summary:
                    for moment, array in _moments(f"shards/{name}", Moments.of(tensor)).items():
                        yield moment, array, dims
                else:
                    yield name, self._converted(name, as_array(tensor)), dims
        if unknown := set(self.sum_over) - known:
            raise ValueError(f"sum_over must name axes of the features, {sorted(known)}, got {sorted(unknown)}")

    def _axes(self, number: int, inputs: int, dims: int) -> tuple[str, ...]:
        """The names of the features' dimensions of an input."""
        if self.axes is None:
            return _numbered("feature", dims)
        axes = self.axes[number] if inputs > 1 and len(self.axes) == inputs else self.axes
        names = (axes,) if isinstance(axes, str) else tuple(axes)
        if len(names) != dims or not all(isinstance(name, str) for name in names) or len(set(names)) != dims:
            raise ValueError(
                f"axes must name the {dims} dimension(s) of a sample's values, got {shown(list(self.axes))}"
            )
        return names

    def _converted(self, name: str, array: Array) -> Array:
        if self.dtype is None or array.dtype == self.dtype:
            return array
        with np.errstate(over="ignore"):
            found = array.astype(self.dtype)
        if not np.array_equal(np.isinf(found), np.isinf(array)):
            raise ValueError(f"dtype must be wide enough for {name}: {self.dtype} holds no {np.abs(array).max():.3g}")
        return found


def _names(argument: str, value: Any) -> tuple[Any, ...]:
    """One name, or a list of names and of lists of these, as a tuple."""
    if isinstance(value, str):
        return (value,)
    array = isinstance(value, np.ndarray) and value.ndim > 0
    if not (array or isinstance(value, (list, tuple, set, frozenset))):
        raise TypeError(f"{argument} must be a name or a list of names, got {shown(value)}")
    return tuple(value)


def bytes_a_sample(columns: Sequence[Column]) -> int:
    """Bytes of a sample in the store."""
    return int(sum(np.prod(one.shape, dtype=np.int64) * one.dtype.itemsize for one in columns if not one.by_shard))


def _is_of_shard(name: str) -> bool:
    return name.startswith("shards/")


def _moments(name: str, moments: Moments) -> dict[str, Array]:
    """As columns with a row a shard, by name."""
    return {f"{name}/{what}": np.expand_dims(getattr(moments, what), 0) for what in MOMENTS}


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a nested tuple, by where they are in it."""
    if isinstance(value, tuple):
        for number, one in enumerate(value):
            yield from _leaves(f"{name}/{number}", one)
    elif isinstance(value, Tensor):
        yield name, value


def _numbered(name: str, number: int) -> tuple[str, ...]:
    return (name,) if number == 1 else tuple(f"{name}_{place}" for place in range(1, number + 1))
