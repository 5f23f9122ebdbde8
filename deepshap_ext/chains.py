"""Chains of points, each explained against the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .baselines import Baselines
from .capture.graph import audit, separate
from .engine import Engine
from .explained import Explained
from .explanation import Explanation
from .found import Wanted
from .planner import Chunks


class Chains(Explanation):
    """Chains from a first to a last point, by as many legs for all: leg ``l`` explains points ``l`` against points ``l - 1``.

    ``points``: of every number along the chains, from 0, the model's inputs ``[C, ...]``; ``targets`` ``[C, K]``: the flattened outputs to
    explain. Every point runs forward once: it is what is explained, and then the baseline of the next one.

    What is found are means over the legs, with the multipliers; ``outputs`` are those of the last points.
    """

    def __init__(self, engine: Engine, points: Sequence[Sequence[Tensor]], targets: Tensor) -> None:
        first = Baselines([tensor.unsqueeze(1) for tensor in points[0]], torch.ones(1, dtype=torch.float64), True)
        wanted = Wanted(multipliers=True)
        number = targets.shape[1]
        super().__init__(
            engine, points[-1], first, lambda outputs, here: targets[here], number, "aligned", wanted, False
        )
        self._points = points

    def _chunk(self, here: slice, chunks: Chunks) -> Explained:
        found: Explained | None = None
        before = None
        for point in self._points:
            graph = self.engine.run(self._hooks, [tensor[here] for tensor in point])
            if before is not None:
                audit(graph)
                separate(graph)
                leg = self._against(graph, before, here, 0, 1, 1, chunks)
                found = leg if found is None else replace(found.with_more_baselines(leg), outputs=leg.outputs)
            before = graph.without_graph()
        assert found is not None
        return found

    def _pair(self, sample: int, baseline: int) -> str:
        return "between a sample and its baseline, where some features have the one's values and some the other's"
