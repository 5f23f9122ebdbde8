"""From an explanation's chunk to graphs of its operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from .capture.calls import is_value
from .capture.dependence import tensors_in
from .capture.graph import Cut, separate
from .capture.hooks import ModelHooks, Pass
from .capture.names import operation
from .capture.unchanged import Unchanged
from .explained import Explained
from .found import Found, of_outputs
from .met import cycled
from .pairs import Pairs
from .planner import Chunks
from .rules.linear import METADATA
from .traced import NotTraceableError, Traced, Values, trace

if TYPE_CHECKING:
    from .explanation import Explanation

#: The groups of tensors that a trace is given: baselines, inputs, and what makes the pairs of one backward.
BASELINES, INPUTS, COTANGENTS = range(3)
#: Its stages, and which groups each depends on.
REFERENCE_PASS, INPUT_PASS, DECISIONS, PAIR_PASS = range(4)
_NEEDS = [{BASELINES}, {INPUTS}, {BASELINES, INPUTS}, {BASELINES, INPUTS, COTANGENTS}]


@dataclass
class Trace:
    """A chunk of ``sizes`` as graphs, for explanations of a ``kind`` while the ``model`` is as it was.

    ``template``: the form of what is found of each explained tensor. ``layers`` and ``cuts``: as of :class:`deepshap_ext.met.Met`.
    """

    kind: Any
    sizes: Chunks
    model: Unchanged
    traced: Traced
    template: list[Found]
    layers: list[slice]
    cuts: list[Cut]

    def given(self, group: int, tensors: Sequence[Tensor]) -> Values:
        """A group's tensors as values."""
        return dict(zip(self.traced.names[group], tensors, strict=True))

    def run(self, stage: int, values: Values) -> None:
        """Add to the values what a stage gives."""
        values.update(self.traced.stages[stage](values))

    def result(self, name: str, values: Values) -> Any:
        """A part of the result that has been computed."""
        return tree_map(values.__getitem__, self.traced.result[name])


def trace_chunk(
    explanation: Explanation, hooks: ModelHooks, here: slice, plan: Chunks, part: Explained, kind: Any
) -> Trace:
    """Trace the chunk ``here`` of an explanation, which gave ``part``.

    Raises :class:`NotTraceableError`, or whatever is raised where the model decides by values.
    """
    engine, theirs = explanation.engine, explanation.baselines.of(here)
    layouts, wanted, pairing = engine.probed.layouts, explanation.wanted, explanation.pairing
    rows = [tensor[here] for tensor in explanation.inputs]
    sizes = _balanced(plan, len(rows[0]) * engine.copies(hooks, rows), theirs.number, explanation.outputs)
    inputs, baselines = _swapped(rows, theirs.tensors, theirs.own, sizes)
    device = inputs[0].device
    cotangents = [
        torch.zeros(sizes.outputs, sizes.inputs, dtype=torch.int64, device=device),
        torch.arange(sizes.baselines, device=device),
        torch.ones(sizes.baselines, dtype=torch.float64, device=device),
    ]
    reads = _Reads()
    template: list[Found] = []
    layers: list[slice] = []

    def chunk(*tensors: Tensor) -> dict[str, Any]:
        number = len(baselines)
        with reads:
            reference = hooks.run(tensors[:number]).without_graph()
            graph = hooks.run(tensors[number : 2 * number])
        _check(graph)
        separate(graph)
        pairs = Pairs(graph, reference, layouts, pairing)
        found = of_outputs(wanted, pairs, *tensors[2 * number :], layouts.explained, 1, sizes.inputs)
        if pairs.gaps:
            raise NotTraceableError("how an integral is divided depends on values")
        template[:], layers[:] = found, graph.layers
        return {
            "output": graph.output,
            "reference_output": reference.output,
            "explained": graph.explained,
            "reference_explained": reference.explained,
            "differs": pairs.differs(part.cuts),
            "found": [one.tensors() for one in found],
        }

    traced = trace(chunk, [baselines, inputs, cotangents], [frozenset(needs) for needs in _NEEDS])
    model = Unchanged(engine.model, hooks.state, reads.any)
    form = [one.map(lambda tensor: tensor.new_empty(0)) for one in template]
    return Trace(kind, sizes, model, traced, form, layers, part.cuts)


def _balanced(plan: Chunks, inputs: int, baselines: int, outputs: int) -> Chunks:
    """The sizes of a plan, so that what is left for the last chunk is about as much as for the others."""

    def even(total: int, most: int) -> int:
        return math.ceil(total / math.ceil(total / most))

    taped = even(baselines, plan.taped)
    return Chunks(inputs, taped, even(taped, plan.baselines), even(outputs, plan.outputs))


def _swapped(
    rows: Sequence[Tensor], theirs: Sequence[Tensor], own: bool, sizes: Chunks
) -> tuple[list[Tensor], list[Tensor]]:
    """Baselines in the place of inputs and inputs in that of baselines: a trace that depends on which values these are is then seen to be
    wrong for the chunk itself."""
    if not own:
        return [cycled(r, sizes.inputs) for r in theirs], [cycled(x, sizes.taped) for x in rows]
    inputs = [cycled(r[:, 0], sizes.inputs) for r in theirs]
    return inputs, [cycled(x, sizes.inputs).repeat_interleave(sizes.taped, 0) for x in rows]


def _check(graph: Pass) -> None:
    """Refuse a pass whose operations may be others on other values."""
    if graph.capture.dependence.has_random:
        raise NotTraceableError("it draws random numbers")
    for entry in graph.tape.entries:
        if entry.multipliers is None and not entry.kept:
            raise NotTraceableError(f"{entry} reads values in Python")


class _Reads(TorchFunctionMode):
    """Whether the model reads values of tensors in Python; below the capture, it sees what that runs."""

    any = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if operation(function).name not in METADATA and is_value(function, result, list(tensors_in(result))):
            self.any = True
        return result
