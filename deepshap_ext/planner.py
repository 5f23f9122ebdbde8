"""How much of the work is done at once: chunks over inputs, baselines and outputs that fit into memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .capture.graph import audit
from .capture.hooks import ModelHooks, Pass
from .capture.probe import Layouts
from .memory import MemoryMeter
from .pairs import Pairs


@dataclass(frozen=True)
class Costs:
    """What passes take, in bytes.

    ``row``: a row of a forward pass whose graph is held. ``taped_row``: a row on a tape. ``pair``: a pair in the backward.
    ``largest_of_row``, ``largest_of_pair``: a row's part of the largest tensor in a forward pass, and a pair's in the backward.
    ``explained``: a row's explained tensors.
    """

    row: int
    taped_row: int
    pair: int
    largest_of_row: int
    largest_of_pair: int
    explained: int


@dataclass(frozen=True)
class Chunks:
    """How much runs at once: ``inputs`` in a forward pass, ``taped`` baselines in a reference pass, ``baselines`` and ``outputs`` in a
    backward."""

    inputs: int
    taped: int
    baselines: int
    outputs: int

    def do(self, work: Work) -> bool:
        """Whether one chunk is all of the work."""
        pairs = 1 if work.aligned else work.baselines
        return self == Chunks(work.inputs, work.baselines, pairs, work.outputs)

    @property
    def smallest(self) -> bool:
        return self.inputs == self.taped == self.outputs == 1


class Measurement:
    """Measures the costs in passes over two different numbers of rows, and backwards of one and of two cotangents.

    The differences leave out what does not grow with them.
    """

    def __init__(self, hooks: ModelHooks) -> None:
        self._hooks = hooks
        self._rows: list[int] = []
        self._forward: list[tuple[int, int, int]] = []
        self._backward: list[tuple[int, int]] = []
        self._explained = 0

    def run(self, inputs: Sequence[Tensor]) -> Pass:
        """A measured pass, without its graph."""
        with MemoryMeter() as meter:
            graph = self._hooks.run(inputs)
            held = meter.live
        self._rows.append(len(inputs[0]))
        self._forward.append((held, _tape_bytes(graph), meter.largest))
        if not self._backward:
            audit(graph)
            # Every row is paired with itself: layouts are not known yet, and memory does not depend on them.
            pairs = Pairs(graph, graph, Layouts([], [], rowwise=True), "alone")
            for count in (1, 2):
                zeros = torch.zeros(count, len(graph.output), dtype=torch.int64, device=graph.output.device)
                with MemoryMeter() as meter:
                    pairs.multipliers(zeros, zeros[:, 0])
                self._backward.append((meter.peak, meter.largest))
            self._explained = sum(tensor.nbytes for tensor in graph.explained) // len(graph.output)
        return graph.without_graph()

    def costs(self) -> Costs:
        rows = self._rows[1] - self._rows[0]
        of_row = [(two - one) // rows for one, two in zip(*self._forward, strict=True)]
        of_pair = [(two - one) // self._rows[0] for one, two in zip(*self._backward, strict=True)]
        (held, taped, largest), (peak, travelling) = of_row, of_pair
        # Besides the backward, a pair has contributions: their mean, their variance, the sums with earlier ones, and those by input.
        peak += 4 * self._explained
        return Costs(*(max(each, 1) for each in (held, taped, peak, largest, travelling, self._explained)))


@dataclass(frozen=True)
class Work:
    """``inputs`` against ``baselines`` each, for ``outputs`` outputs.

    ``shared``: all inputs have the same baselines, so that a row on the tape serves them all. ``aligned``: forward passes run on pairs.
    ``by_pair``: the numbers of every single pair are kept or combined.
    """

    inputs: int
    baselines: int
    outputs: int
    shared: bool
    aligned: bool
    by_pair: bool


@dataclass(frozen=True)
class Limits:
    """``budget``: bytes in all. ``warm``: bytes of the largest tensor that comes and goes. ``batch``: rows and pairs at once."""

    budget: int
    warm: int
    batch: int


def plan(costs: Costs, limits: Limits, work: Work) -> Chunks:
    """The largest chunks whose tapes, graph and travelling pairs take a third of the budget each, within the other limits."""
    third = limits.budget // 3
    # Kept by pair are inputs, baselines, contributions and what is made of these, of up to twice the size in float64.
    of_pair = costs.pair + (8 * costs.explained if work.by_pair else 0)
    pairs = max(1, min(third // of_pair, limits.warm // costs.largest_of_pair, limits.batch))
    held = max(1, min(third // costs.row, limits.batch))
    rows = max(1, min(limits.warm // costs.largest_of_row, limits.batch))
    if work.aligned:
        taped = max(1, min(work.baselines, third // (costs.row + costs.taped_row), rows))
        outputs = max(1, min(work.outputs, pairs // taped))
        taped = min(taped, max(1, pairs // outputs))
        inputs = min(work.inputs, held // taped, pairs // (taped * outputs))
        return Chunks(max(1, inputs), taped, 1, outputs)
    outputs = min(work.outputs, pairs)
    if work.shared:
        taped = min(work.baselines, held)
        # Inputs before baselines, so that forward passes over inputs run on as many rows as they can.
        inputs = max(1, min(work.inputs, held, pairs // outputs))
        return Chunks(inputs, taped, max(1, min(taped, pairs // (inputs * outputs))), outputs)
    taped = max(1, min(work.baselines, third // (costs.row + costs.taped_row), rows))
    baselines = max(1, min(taped, pairs // outputs))
    inputs = min(work.inputs, held // taped, pairs // (baselines * outputs), rows // taped)
    return Chunks(max(1, inputs), taped, baselines, outputs)


def _tape_bytes(one: Pass) -> int:
    """Bytes of the tensors on a pass's tape, those that share memory once."""
    storages = {
        storage._cdata: storage.nbytes()
        for entry in one.tape.entries
        for storage in (tensor.untyped_storage() for tensor in entry.kept)
    }
    return sum(storages.values())
