"""Chains of points, each explained against the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .baselines import Baselines
from .block import Block
from .capture.graph import audit, separate
from .capture.hooks import ModelHooks
from .engine import Engine
from .explained import Explained
from .explanation import Explanation
from .found import Wanted
from .passes import Passes
from .planner import Chunks


class Chains(Explanation):
    """Chains of points from a baseline to an input, in as many legs for all: leg ``l`` explains points ``l`` against points ``l - 1``.

    ``points``: for each place along the chains, from the first to the last, the model's inputs there, ``[C, ...]`` each. ``targets``
    ``[C, K]``: the flattened outputs to explain. Every point runs forward once: as what is explained, and then as the baseline of the next.

    The values and multipliers that :meth:`run` gives are means over the legs, ``outputs`` those of the last points.
    """

    def __init__(self, engine: Engine, points: Sequence[Sequence[Tensor]], targets: Tensor) -> None:
        first = Baselines([tensor.unsqueeze(1) for tensor in points[0]], torch.ones(1, dtype=torch.float64), True)
        super().__init__(
            engine,
            inputs=points[-1],
            baselines=first,
            choose=lambda outputs, here: targets[here],
            outputs=targets.shape[1],
            pairing="aligned",
            wanted=Wanted(multipliers=True),
            progress=False,
        )
        self._points = points

    def _passes(self, hooks: ModelHooks) -> Passes:
        return _Legs(self, hooks, self._points)


class _Legs(Passes):
    """The passes over a chunk of chains: forward over each point, backward over each leg."""

    def __init__(self, chains: Chains, hooks: ModelHooks, points: Sequence[Sequence[Tensor]]) -> None:
        super().__init__(chains, hooks)
        self._points = points

    def chunk(self, here: slice, chunks: Chunks) -> Explained:
        found: Explained | None = None
        before = None
        for point in self._points:
            graph = self._engine.run(self.hooks, [tensor[here] for tensor in point])
            if before is not None:
                audit(graph)
                separate(graph)
                leg = self._pair_pass(graph, before, Block(here, 0, 1), chunks)
                found = leg if found is None else replace(found.with_more_baselines(leg), outputs=leg.outputs)
            before = graph.without_graph()
        assert found is not None
        return found

    def _title(self, sample: int, baseline: int) -> str:
        return "between a sample and its baseline, where some features have the one's values and some the other's"
