"""Chunks of explanations, traced once into graphs of operations and replayed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .arguments import shown
from .block import Block, BlockPasses, cycled, explained_block, trimmed
from .capture.hooks import ModelHooks, at_rest
from .capture.probe import same_outputs
from .errors import in_short
from .explained import Explained
from .found import Found
from .memory import is_out_of_memory, keep_freed_memory
from .planner import Chunks
from .traced import NotTraceableError, Values
from .tracing import (
    BASELINES,
    COTANGENTS,
    DECISIONS,
    INPUT_PASS,
    INPUTS,
    PAIR_PASS,
    REFERENCE_PASS,
    Kind,
    Trace,
    in_one_backward,
    kind_of,
    laid_out,
    trace_chunk,
)

if TYPE_CHECKING:
    from .explanation import Explanation

#: How many traces, and kinds of explanations without one, an explainer keeps.
_KEPT = 8


def replay_of(compile: Any) -> Replay | None:
    """What replays explanations as the argument ``compile`` asks for: None for False."""
    if not (isinstance(compile, bool) or compile == "replay"):
        raise ValueError(f"compile must be False, True or 'replay', got {shown(compile)}")
    return Replay(compile is True) if compile else None


class Replay:
    """Traces explanations and keeps the traces; ``compiled``: whether torch.compile makes their graphs."""

    def __init__(self, compiled: bool) -> None:
        self._compiled = compiled
        self._traces: list[Trace] = []
        self._refused: list[Kind] = []
        self._told: set[str] = set()

    @contextmanager
    def replaying(self, explanation: Explanation, inputs: int) -> Iterator[Replaying | None]:
        """What replays the next ``inputs`` inputs of an explanation; None where there is no trace for them."""
        if not self._traces or _without_trace(explanation):
            yield None
            return
        with at_rest(), torch.inference_mode(False), torch.no_grad():
            found = self._find(explanation, inputs)
            if found is None:
                yield None
                return
            if explanation.engine.device.type == "cpu":
                keep_freed_memory(found.budget)
            found.in_use = True
            try:
                yield Replaying(self, explanation, found)
            finally:
                found.in_use = False

    def trace(self, explanation: Explanation, hooks: ModelHooks, here: slice, plan: Chunks, part: Explained) -> bool:
        """Trace the chunk ``here``, which was explained eagerly as ``part``; returns whether the chunks after it can be replayed."""
        if reason := _without_trace(explanation):
            self.tell(reason)
            return False
        kind = kind_of(explanation)
        if kind in self._refused or part.inexact:
            return False
        if self._find(explanation, explanation.inputs[0].shape[0] - here.start) is not None:
            return True
        try:
            made = trace_chunk(explanation, hooks, here, plan, part, kind)
            again = Replaying(self, explanation, made).chunk(here)
        except Exception as error:
            self._refuse(kind, str(error) if isinstance(error, NotTraceableError) else in_short(error))
            return False
        if again is None or not _alike(part, again):
            self._refuse(kind, "its graph gives other values, so that these depend on more than its tensors")
            return False
        if self._compiled:
            made.compile(self.tell)
        made.record(self.tell)
        self._traces = [*self._traces[-_KEPT + 1 :], made]
        return True

    def forget(self, trace: Trace) -> None:
        """Drop a trace, and with it the memory that its graphs hold."""
        self._traces.remove(trace)

    def tell(self, reason: str) -> None:
        """Say once why something runs eagerly."""
        if reason not in self._told:
            self._told.add(reason)
            warnings.warn(f"the explanation runs without replay: {reason}", stacklevel=2)

    def _find(self, explanation: Explanation, inputs: int) -> Trace | None:
        """The trace for the next ``inputs`` inputs, which becomes the last to be dropped; one whose model has changed is dropped here."""
        kind = kind_of(explanation)
        for one in reversed(self._traces):
            # A trace is in use where an explanation that it replays calls a function of the user's, and that begins this explanation.
            if not one.in_use and one.kind == kind and _suits(one, inputs, explanation.begun):
                self._traces.remove(one)
                if one.model:
                    self._traces.append(one)
                    return one
        return None

    def _refuse(self, kind: Kind, reason: str) -> None:
        self._refused = [*self._refused[-_KEPT + 1 :], kind]
        self.tell(reason)


class Replaying:
    """An explanation's chunks from a trace of one."""

    def __init__(self, replay: Replay, explanation: Explanation, trace: Trace) -> None:
        self._replay, self._explanation, self._trace = replay, explanation, trace
        self._reference: Values | None = None

    @property
    def inputs(self) -> int:
        """How many inputs a chunk has."""
        return self._trace.sizes.inputs

    def try_chunk(self, here: slice) -> Explained | None:
        """The chunk explained; None where it must run eagerly, because the model decides otherwise or memory does not suffice."""
        try:
            found = self.chunk(here)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._replay.forget(self._trace)
            return None
        if found is None:
            self._replay.tell("the model takes other decisions for some samples than for their baselines")
        return found

    def chunk(self, here: slice) -> Explained | None:
        """The chunk explained; None where the model takes other decisions for one of its inputs than for that input's baselines."""
        explanation, trace, sizes = self._explanation, self._trace, self._trace.sizes
        theirs = explanation.baselines.of(here)
        inputs = self._given(INPUTS, [cycled(tensor[here], sizes.inputs) for tensor in explanation.inputs])
        trace.run(INPUT_PASS, inputs)
        found: Explained | None = None
        decided = []
        for first in range(0, theirs.number, sizes.taped):
            count = min(sizes.taped, theirs.number - first)
            values = {**inputs, **self._references(theirs.tensors, theirs.own, first, count)}
            trace.run(DECISIONS, values)
            decided += trace.result("differs", values)
            if in_one_backward(trace.kind, sizes):
                part = self._in_one_backward(values, here)
            else:
                part = explained_block(explanation, self._passes(values, here), Block(here, first, count), sizes)
            found = part if found is None else found.with_more_baselines(part)
        return None if any(decided) else found

    def _given(self, group: int, tensors: Sequence[Tensor]) -> Values:
        return self._trace.given(group, laid_out(tensors, self._trace.kind.formats[group]))

    def _references(self, theirs: Sequence[Tensor], own: bool, first: int, count: int) -> Values:
        """What the reference pass gives for ``count`` baselines from number ``first`` on; that for all shared baselines is kept."""
        if self._reference is not None:
            return self._reference
        trace, sizes = self._trace, self._trace.sizes
        here = slice(first, first + count)
        if own:
            rows = [cycled(cycled(tensor[:, here], sizes.inputs), sizes.taped, 1).flatten(0, 1) for tensor in theirs]
        else:
            rows = [cycled(tensor[here], sizes.taped) for tensor in theirs]
        values = self._given(BASELINES, rows)
        trace.run(REFERENCE_PASS, values)
        if not own and count == theirs[0].shape[0]:
            self._reference = values
        return values

    def _in_one_backward(self, values: Values, here: slice) -> Explained:
        """The chunk explained, all of it computed by the graph: one backward serves all baselines and outputs."""
        explanation, trace = self._explanation, self._trace
        inputs, weights = here.stop - here.start, explanation.baselines.weights
        cotangents = []
        if not trace.kind.every:
            chosen = explanation.choose(trimmed(trace.result("outputs", values)[0], inputs), here)
            cotangents.append(cycled(chosen, trace.sizes.inputs).t().contiguous())
        if trace.kind.weighted:
            cotangents.append(weights.to(explanation.engine.device))
        found = self._found(values, cotangents, explanation.outputs, inputs)
        explanation.advance(inputs * explanation.outputs * weights.shape[0])
        outputs, targets = (trimmed(trace.result(name, values)[0], inputs) for name in ("explained_outputs", "targets"))
        (expected,) = trace.result("baseline_outputs", values)
        return Explained(
            found=found,
            layers=trace.layers,
            outputs=outputs,
            baseline_outputs=found[0].totals.map(lambda _: trimmed(expected, inputs, 1)),
            weights=weights,
            targets=targets,
            inexact={},
            cuts=trace.cuts,
            precision=trace.precision,
            integrals={},
            activations=[],
        )

    def _passes(self, values: Values, here: slice) -> BlockPasses:
        trace, sizes = self._trace, self._trace.sizes
        (output,), (theirs,) = (trace.result(name, values) for name in ("output", "reference_output"))
        explained, reference_explained = (trace.result(name, values) for name in ("explained", "reference_explained"))

        def found(chosen: Tensor, rows: Tensor, weights: Tensor) -> list[Found]:
            number, total = len(weights), weights.sum()
            # Baselines are repeated to fill the trace's batch: the repeated ones have no weight.
            padded = torch.cat([weights, weights.new_zeros(sizes.baselines - number)])
            cotangents = [cycled(chosen, sizes.outputs).contiguous(), padded.to(chosen.device)]
            if sizes.baselines < sizes.taped:
                cotangents.append(cycled(rows, sizes.baselines))
            parts = self._found({**values}, cotangents, len(chosen), here.stop - here.start)
            return [part.of_first(number, total) for part in parts]

        return BlockPasses(
            output, theirs, explained, reference_explained, sizes.taped, trace.layers, trace.cuts, {}, {}, found
        )

    def _found(self, values: Values, cotangents: Sequence[Tensor], outputs: int, inputs: int) -> list[Found]:
        """What the pair pass finds of every explained tensor; what it gives goes into the ``values``."""
        trace = self._trace
        values.update(trace.given(COTANGENTS, cotangents))
        trace.run(PAIR_PASS, values)
        each = iter([trimmed(trimmed(tensor, outputs), inputs, 1) for tensor in trace.result("found", values)])
        return [one.map(lambda _: next(each)) for one in trace.template]


def _without_trace(explanation: Explanation) -> str | None:
    """Why an explanation like this one always runs eagerly; None where it can be traced."""
    engine = explanation.engine
    if explanation.pairing == "aligned":
        return "pairing='aligned' runs every pair forward"
    if explanation.pairing == "alone":
        return "which operations the model runs depends on values, so that every pair runs alone"
    if explanation.wanted.combine is not None:
        return "combine may decide by values"
    if engine.options.on_unsupported == "gradient":
        return "on_unsupported='gradient' warns of what a pass runs"
    if not engine.probed.layouts.certain:
        return "the place of the batch in the model's tensors is told by their values"
    if torch.is_autocast_enabled(engine.device.type):
        return "autocast chooses dtypes as the model runs"
    return None


def _suits(trace: Trace, inputs: int, begun: bool) -> bool:
    """Whether a trace suits so many inputs.

    They may be up to twice as many as it takes at once, or any number where memory allowed no larger chunk; and at least half as many,
    or fewer where they are the rest of an explanation that has begun.
    """
    size = trace.sizes.inputs
    return (begun or size <= 2 * inputs) and (trace.partial or inputs <= 2 * size)


def _alike(one: Explained, other: Explained) -> bool:
    """Whether two explanations of the same inputs are equal up to rounding."""

    def tensors(explained: Explained) -> list[Tensor]:
        parts = [part for each in explained.found for part in (each.values, each.multipliers) if part is not None]
        found = [tensor for part in parts for tensor in (part.value, part.variance) if tensor is not None]
        return [explained.outputs, explained.baseline_outputs.value, *found]

    return all(same_outputs(a, b, one.precision) for a, b in zip(tensors(one), tensors(other), strict=True))
