"""Means over samples and their standard errors, from what each shard has of its own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from .store import Store

Array = np.ndarray[Any, Any]

#: The numbers of :class:`Moments` but for how many samples they are of.
MOMENTS = ("mean", "mean_absolute", "deviations")


@dataclass(frozen=True)
class Moments:
    """Of ``number`` samples: ``mean``, ``mean_absolute`` and the sum of squared deviations from the mean, ``[...]`` float64 each."""

    number: int
    mean: Array
    mean_absolute: Array
    deviations: Array

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """Those of ``[n, ...]`` values."""
        wide = values.double()
        mean = wide.mean(0)
        found = (mean, wide.abs().mean(0), (wide - mean).square_().sum(0))
        return cls(len(values), *(one.cpu().numpy() for one in found))

    def __add__(self, other: Moments) -> Moments:
        """Those of both sets together (Chan, Golub and LeVeque 1983, equations 1.5)."""
        number = self.number + other.number
        share = other.number / number
        delta = other.mean - self.mean
        return Moments(
            number,
            self.mean + share * delta,
            self.mean_absolute + share * (other.mean_absolute - self.mean_absolute),
            self.deviations + other.deviations + self.number * share * delta**2,
        )


@dataclass(frozen=True)
class Summary:
    """What values are over ``number`` samples, ``[*features]`` each in float64: their ``mean``, the mean of their absolute values
    (``mean_absolute``, by which features rank), and the standard errors of both over the samples (``mean_error``, ``mean_absolute_error``),
    NaN of one sample."""

    number: int
    mean: Array
    mean_absolute: Array
    mean_error: Array
    mean_absolute_error: Array

    @classmethod
    def of(cls, moments: Moments) -> Summary:
        number = moments.number
        # The mean square is the same with and without signs.
        absolute = moments.deviations + number * (moments.mean**2 - moments.mean_absolute**2)

        def error(deviations: Array) -> Array:
            if number < 2:
                return np.full_like(deviations, np.nan)
            return np.sqrt(np.maximum(deviations, 0) / (number - 1) / number)

        return cls(number, moments.mean, moments.mean_absolute, error(moments.deviations), error(absolute))


def summarize(store: str | os.PathLike[str]) -> dict[str, Summary]:
    """What the values in the ``store`` of this path are over its samples, by name: ``"values"``, of several inputs ``"values/0"``, ...

    Shards that are not done are left out. The same whatever the order in which shards were done.

    Raises:
        StoreError: there is no store, none of its shards is done, or one of them is corrupt.
    """
    from .store import Store, StoreError

    found = Store(store)
    missing = set(found.missing())
    done = [shard for shard in range(found.shards) if shard not in missing]
    if not done:
        raise StoreError(f"{found.path} has no shard that is done")
    names = [one.name for one in found.columns]
    parts = sorted({name.rsplit("/", 1)[0] for name in names if name.startswith("shards/")})
    if parts:
        return {part.split("/", 1)[1]: _merged(_from_parts(found, part, done)) for part in parts}
    values = [name for name in names if name.split("/")[0] == "values"]
    return {name: _merged(Moments.of(torch.from_numpy(found.read(name, shard))) for shard in done) for name in values}


def summary_arrays(summaries: dict[str, Summary]) -> dict[str, Array]:
    """What a store has of them, by name."""
    return {
        f"summary/{name}/{what}": array
        for name, summary in summaries.items()
        for what, array in vars(summary).items()
        if what != "number"
    }


def _from_parts(store: Store, part: str, done: Iterable[int]) -> Iterator[Moments]:
    for shard in done:
        here = store.slice_of(shard)
        arrays = (store.read(f"{part}/{name}", shard)[0] for name in MOMENTS)
        yield Moments(here.stop - here.start, *arrays)


def _merged(parts: Iterable[Moments]) -> Summary:
    return Summary.of(reduce(Moments.__add__, parts))
