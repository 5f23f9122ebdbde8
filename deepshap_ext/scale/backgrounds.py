"""The baselines of a job: shared, each sample's own, or made for each sample by a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arguments import shown
from ..baselines import weighted
from .fingerprint import fingerprint
from .sources import Source, leading

#: From samples as X has them, ``[n, *features]``, and a seed for each: ``[n, R, *features]``.
Made = Callable[[Any, list[int]], Any]


class Background:
    """The argument ``baselines`` of a job over ``inputs``; ``seed``: what those that a function makes are drawn from."""

    def __init__(self, baselines: Any, inputs: Source, seed: int) -> None:
        self._inputs, self._seed = inputs, seed
        self._own: Source | None = None
        self._made: Made | None = None
        self._shared: Any = None
        if leading(baselines) is None and not isinstance(baselines, (list, tuple)) and callable(baselines):
            self._made = baselines
        elif _dims(baselines) == [len(shape) + 1 for shape in inputs.shapes]:
            self._own = Source("baselines", baselines)
            if len(self._own) != len(inputs):
                raise ValueError(
                    f"baselines must have shape [{len(inputs)}, baselines, ...], got a first dimension of {len(self._own)}"
                )
        else:
            self._shared = _read(baselines)

    def of(self, x: Any, rows: slice, most: int | None = None) -> Any:
        """Those of the samples ``x``, which are these rows, as :meth:`deepshap_ext.Explainer.attribute` takes them; of a sample's own only
        so many at ``most``."""
        if self._own is not None:
            found = self._own.read(rows)
        elif self._made is not None:
            found = self._made(x, seeds(self._seed, rows))
        else:
            return self._shared
        return [part[:, :most] for part in found] if isinstance(found, (list, tuple)) else found[:, :most]

    def bytes_a_sample(self, first: Any) -> int:
        """Bytes of the baselines that are a sample's own; ``first`` is the first sample."""
        if self._shared is not None:
            return 0
        found = self.of(first, slice(0, 1))
        return sum(part.nbytes for part in (found if isinstance(found, (list, tuple)) else [found]))

    def number(self, first: Any) -> int:
        """How many baselines a sample has; ``first`` is the first sample."""
        (given, _), _ = weighted("baselines", self.of(first, slice(0, 1)), None)
        return int(given[0].tensor.shape[0 if self._shared is not None else 1])

    def described(self) -> Any:
        """By what another run knows the same baselines."""
        if self._own is not None:
            return self._own.described()
        if self._made is None:
            return fingerprint(self._shared)
        some = [slice(row, row + 1) for row in (0, len(self._inputs) - 1)]
        made, again = (fingerprint([self.of(self._inputs.read(rows), rows) for rows in some]) for _ in range(2))
        if made != again:
            raise ValueError(
                f"baselines must return the same for the same samples and seeds, so that a run can be continued: {shown(self._made)} "
                f"did not; draw from a generator that is seeded with each sample's seed"
            )
        return {"seed": self._seed, "made": made}


def seeds(seed: int, rows: slice) -> list[int]:
    """A number below 2^31 for each row, which depends on ``seed`` and the row's index alone (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = np.arange(rows.start, rows.stop, dtype=np.uint64) + np.uint64(1)
        z = z * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed) * np.uint64(0xD1B54A32D192ED03)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = (z ^ (z >> np.uint64(31))) >> np.uint64(33)
    found: list[int] = z.tolist()
    return found


def _dims(baselines: Any) -> list[int]:
    parts = baselines if isinstance(baselines, (list, tuple)) else [baselines]
    return [len(leading(part) or ()) for part in parts]


def _read(baselines: Any) -> Any:
    """Shared baselines in memory; what :meth:`deepshap_ext.Explainer.attribute` takes itself stays as it is."""
    if isinstance(baselines, (list, tuple)):
        return [_read(part) for part in baselines]
    kept = (
        not leading(baselines)
        or isinstance(baselines, np.ndarray)
        or hasattr(baselines, "dim")
        or hasattr(baselines, "iloc")
    )
    return baselines if kept else np.asarray(baselines[:])
