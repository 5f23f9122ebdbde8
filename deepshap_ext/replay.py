"""Chunks of explanations, traced once into graphs of operations and replayed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .capture.hooks import ModelHooks, at_rest
from .capture.probe import same_outputs
from .explained import Explained
from .found import Found
from .memory import is_out_of_memory
from .met import Met, cycled
from .planner import Chunks
from .rules.registry import registered
from .traced import NotTraceableError, Values
from .tracing import BASELINES, COTANGENTS, DECISIONS, INPUT_PASS, INPUTS, PAIR_PASS, REFERENCE_PASS, Trace, trace_chunk

if TYPE_CHECKING:
    from .explanation import Explanation

#: How many traces, and kinds of explanations without one, an explainer keeps.
_KEPT = 8


class Replay:
    """Traces explanations and keeps the traces."""

    def __init__(self) -> None:
        self._traces: list[Trace] = []
        self._refused: list[Any] = []
        self._told: set[str] = set()

    @contextmanager
    def replaying(self, explanation: Explanation, plan: Chunks) -> Iterator[Replaying | None]:
        """What replays the chunks of an explanation that is planned so; None where there is no trace of them."""
        if not self._traces or _without_trace(explanation):
            yield None
            return
        with at_rest(), torch.inference_mode(False), torch.no_grad():
            found = self._find(explanation, plan)
            yield None if found is None else Replaying(self, explanation, found)

    def trace(self, explanation: Explanation, hooks: ModelHooks, here: slice, plan: Chunks, part: Explained) -> bool:
        """Trace a chunk that was explained as ``part``; returns whether those behind it can be replayed."""
        if reason := _without_trace(explanation):
            self.tell(reason)
            return False
        kind = _kind(explanation)
        if kind in self._refused or part.inexact:
            return False
        if self._find(explanation, plan) is not None:
            return True
        try:
            made = trace_chunk(explanation, hooks, here, plan, part, kind)
            again = Replaying(self, explanation, made).chunk(here)
        except Exception as error:
            self._refuse(kind, str(error) if isinstance(error, NotTraceableError) else f"{type(error).__name__}: {error}")
            return False
        if again is None or not _alike(part, again):
            self._refuse(kind, "its graph gives other values, so that these depend on more than its tensors")
            return False
        self._traces = [*self._traces[-_KEPT + 1 :], made]
        return True

    def forget(self, trace: Trace) -> None:
        """Let go of a trace."""
        self._traces.remove(trace)

    def tell(self, reason: str) -> None:
        """Say once why something runs eagerly."""
        if reason not in self._told:
            self._told.add(reason)
            warnings.warn(f"the explanation runs without replay: {reason}", stacklevel=2)

    def _find(self, explanation: Explanation, plan: Chunks) -> Trace | None:
        kind = _kind(explanation)
        for one in reversed(self._traces):
            if one.kind == kind and _suits(one.sizes, plan, explanation.begun):
                self._traces.remove(one)
                if one.model:
                    self._traces.append(one)
                    return one
        return None

    def _refuse(self, kind: Any, reason: str) -> None:
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
        """The chunk explained; None where it is to run eagerly: it takes other decisions, or does not fit into memory."""
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
        """The chunk explained; None where the model decides otherwise for it than for its baselines."""
        trace, sizes = self._trace, self._trace.sizes
        theirs = self._explanation.baselines.of(here)
        inputs = trace.given(INPUTS, [cycled(tensor[here], sizes.inputs) for tensor in self._explanation.inputs])
        trace.run(INPUT_PASS, inputs)
        found: Explained | None = None
        decided = []
        for first in range(0, theirs.number, sizes.taped):
            count = min(sizes.taped, theirs.number - first)
            values = {**inputs, **self._references(theirs.tensors, theirs.own, first, count)}
            trace.run(DECISIONS, values)
            decided.append(trace.result("differs", values))
            part = self._explanation.explained(self._met(values, here), here, first, count, 1, sizes)
            found = part if found is None else found.with_more_baselines(part)
        return None if torch.stack(decided).any() else found

    def _references(self, theirs: Sequence[Tensor], own: bool, first: int, count: int) -> Values:
        """What the reference pass gives; that for all shared baselines is kept."""
        if self._reference is not None:
            return self._reference
        trace, sizes = self._trace, self._trace.sizes
        here = slice(first, first + count)
        if own:
            rows = [cycled(cycled(tensor[:, here], sizes.inputs), sizes.taped, 1).flatten(0, 1) for tensor in theirs]
        else:
            rows = [cycled(tensor[here], sizes.taped) for tensor in theirs]
        values = trace.given(BASELINES, rows)
        trace.run(REFERENCE_PASS, values)
        if not own and count == len(theirs[0]):
            self._reference = values
        return values

    def _met(self, values: Values, here: slice) -> Met:
        trace = self._trace
        result = [trace.result(name, values) for name in ("output", "reference_output", "explained", "reference_explained")]

        def found(chosen: Tensor, rows: Tensor, weights: Tensor) -> list[Found]:
            return self._found(values, chosen, rows, weights, here.stop - here.start)

        return Met(*result, trace.sizes.taped, trace.layers, trace.cuts, {}, {}, found)

    def _found(self, values: Values, chosen: Tensor, rows: Tensor, weights: Tensor, inputs: int) -> list[Found]:
        trace, sizes = self._trace, self._trace.sizes
        outputs, number = len(chosen), len(rows)
        total = weights.sum()
        if number < sizes.baselines:
            # The baselines that are there again count for nothing.
            weights = torch.cat([weights, weights.new_zeros(sizes.baselines - number)])
        given = [cycled(chosen, sizes.outputs), cycled(rows, sizes.baselines), weights]
        values = {**values, **trace.given(COTANGENTS, given)}
        trace.run(PAIR_PASS, values)
        whole = (outputs, inputs, number) == (sizes.outputs, sizes.inputs, sizes.baselines)
        found = []
        for form, tensors in zip(trace.template, trace.result("found", values), strict=True):
            following = iter(tensors)

            def taken(_: Tensor) -> Tensor:
                tensor = next(following)
                return tensor if whole else tensor[:outputs, :inputs]

            found.append(form.map(taken))
        return [one.of_first(number, total) for one in found]


def _kind(explanation: Explanation) -> Any:
    """What explanations have in common that one trace serves, but for the number of inputs."""
    engine, wanted = explanation.engine, explanation.wanted
    asked = wanted.variance, wanted.multipliers, wanted.each
    baselines = explanation.baselines
    number = baselines.number, baselines.own
    return engine, explanation.pairing, number, explanation.outputs, asked, torch.get_default_dtype(), registered()


def _without_trace(explanation: Explanation) -> str | None:
    """Why explanations of this kind run eagerly."""
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


def _suits(sizes: Chunks, plan: Chunks, begun: bool) -> bool:
    """Whether a trace of these sizes does for what is planned so; the last chunk of several may be as short as it likes."""
    return 2 * sizes.inputs >= plan.inputs and (begun or sizes.inputs <= 2 * plan.inputs)


def _alike(one: Explained, other: Explained) -> bool:
    """Whether two explanations of the same inputs are equal up to rounding."""

    def tensors(explained: Explained) -> list[Tensor]:
        found = [tensor for each in explained.found for tensor in each.tensors()]
        return [explained.outputs, explained.baseline_outputs.value, *found]

    return all(same_outputs(a, b, one.precision) for a, b in zip(tensors(one), tensors(other), strict=True))
