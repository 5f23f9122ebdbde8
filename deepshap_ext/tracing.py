"""Traces of an explanation's chunk: graphs of all operations that explaining it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing
from torch.overrides import TorchFunctionMode

from .arrays import wide
from .block import cycled, expected_outputs
from .capture.calls import is_value, reads_value
from .capture.dependence import plain, tensors_in
from .capture.forward import Pass
from .capture.graph import Cut, separate
from .capture.hooks import ModelHooks
from .capture.names import operation
from .capture.unchanged import Unchanged
from .comparison import operands_differ
from .compiled import compiled
from .engine import Engine
from .explained import Explained
from .found import Against, Found, of_outputs
from .pairs import Pairing, Pairs
from .planner import Chunks
from .recorded import MOST_BYTES, bytes_made, recorded
from .rules.linear import METADATA
from .rules.registry import registered
from .targets import EveryOutput
from .traced import NotTraceableError, Part, Traced, Values, node_of, trace

if TYPE_CHECKING:
    from .explanation import Explanation

#: The groups of tensors that a trace is given: baselines, inputs, and what makes the pairs of one backward.
BASELINES, INPUTS, COTANGENTS = range(3)
#: Its stages, and what each computes. The reference pass runs once for many chunks. Decisions are the only part of what both sides take
#: together that is known before the pair pass: what else its operations make of both sides takes too much memory to be there all at once.
REFERENCE_PASS, INPUT_PASS, DECISIONS, PAIR_PASS = range(4)
_PARTS = [
    Part(frozenset({BASELINES})),
    Part(frozenset({INPUTS})),
    Part(frozenset({BASELINES, INPUTS}), "differs"),
    Part(frozenset({BASELINES, INPUTS, COTANGENTS})),
]


@dataclass(frozen=True)
class Kind:
    """What explanations that one trace serves have in common; they may differ in their number of inputs.

    ``baselines`` and ``outputs``: how many of each; ``weighted``: whether baselines have different weights; ``every``: whether the outputs
    are all that the model has. ``wanted``: whether variance, multipliers, the values for each baseline and activations are.
    ``formats``: the memory formats of the baselines' tensors and of the inputs'. ``rules``: those that are registered.
    """

    engine: Engine
    pairing: Pairing
    baselines: int
    outputs: int
    weighted: bool
    every: bool
    wanted: tuple[bool, ...]
    formats: tuple[tuple[torch.memory_format, ...], ...]
    dtype: torch.dtype
    rules: Any


def kind_of(explanation: Explanation) -> Kind:
    """The kind of an explanation, with the settings of torch and of the registry that hold now."""
    wanted, baselines = explanation.wanted, explanation.baselines
    return Kind(
        explanation.engine,
        explanation.pairing,
        baselines.number,
        explanation.outputs,
        not baselines.weigh_the_same,
        isinstance(explanation.choose, EveryOutput),
        (wanted.variance, wanted.multipliers, wanted.each, wanted.activations),
        tuple(tuple(map(_format, tensors)) for tensors in (baselines.in_a_row(), explanation.inputs)),
        torch.get_default_dtype(),
        registered(),
    )


def _format(tensor: Tensor) -> torch.memory_format:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = formats.get(tensor.dim())
    if last is not None and tensor.is_contiguous(memory_format=last) and not tensor.is_contiguous():
        return last
    return torch.contiguous_format


def laid_out(tensors: Sequence[Tensor], formats: Sequence[torch.memory_format]) -> list[Tensor]:
    """The tensors in these memory formats: a graph is traced for one format of each."""
    return [tensor.contiguous(memory_format=one) for tensor, one in zip(tensors, formats, strict=True)]


@dataclass
class Trace:
    """A chunk of ``sizes`` as graphs, for explanations of a ``kind`` as long as the ``model`` is unchanged.

    ``partial``: whether memory allowed no larger chunk; ``budget``: the bytes that a chunk may take. ``template``: what is found of each
    explained tensor, without the values. ``layers``, ``cuts`` and ``precision``: as of :class:`deepshap_ext.explained.Explained`.
    ``in_use``: whether an explanation is being replayed from it.
    """

    kind: Kind
    sizes: Chunks
    partial: bool
    budget: int
    model: Unchanged
    traced: Traced
    template: list[Found]
    layers: list[slice]
    cuts: list[Cut]
    precision: torch.dtype
    in_use: bool = False
    _recorded: bool = False

    def compile(self, tell: Callable[[str], None]) -> None:
        """Have torch.compile make the graphs when they first run."""
        self.traced.stages = [compiled(stage, tell) for stage in self.traced.stages]

    def record(self, tell: Callable[[str], None]) -> None:
        """Have CUDA record the graphs when they first run on its device, if that saves more than it costs."""
        device = self.kind.engine.device
        if device.type == "cuda" and bytes_made(self.traced.stages) <= MOST_BYTES:
            self.traced.stages = recorded(self.traced.stages, device, tell)
            self._recorded = True

    def given(self, group: int, tensors: Sequence[Tensor]) -> Values:
        """A group's tensors as values."""
        return dict(zip(self.traced.given[group], tensors, strict=True))

    def run(self, stage: int, values: Values) -> None:
        """Add to the values what a stage gives."""
        values.update(self.traced.stages[stage](values))

    def result(self, name: str, values: Values) -> list[Tensor]:
        """The tensors that the traced function returns as ``name``, once the stages that compute them have run."""
        found = [values[each] for each in self.traced.results[name]]
        # The next run of a CUDA graph writes into what it returned.
        return [tensor.clone() for tensor in found] if self._recorded else found


def trace_chunk(
    explanation: Explanation, hooks: ModelHooks, here: slice, plan: Chunks, part: Explained, kind: Kind
) -> Trace:
    """Trace the chunk ``here`` of an explanation, which was explained eagerly as ``part``.

    Raises :class:`NotTraceableError`, or whatever the model raises when it is run on the tensors of a trace.
    """
    engine, theirs = explanation.engine, explanation.baselines.of(here)
    layouts, wanted, pairing = engine.probed.layouts, explanation.wanted, explanation.pairing
    rows = [tensor[here] for tensor in explanation.inputs]
    sizes = _balanced(plan, len(rows[0]) * engine.copies(hooks, rows), theirs.number, explanation.outputs)
    inputs, baselines = _swapped(rows, theirs.tensors, theirs.own, sizes)
    cotangents = _Cotangents(kind, sizes, inputs[0].device)
    reads = _Reads()
    template: list[Found] = []
    layers: list[slice] = []

    def chunk(*tensors: Tensor) -> dict[str, Sequence[Tensor]]:
        number = len(baselines)
        with reads:
            reference = hooks.run(tensors[:number]).without_graph()
            graph = hooks.run(tensors[number : 2 * number])
        _check(graph)
        separate(graph)
        pairs = Pairs(graph, reference, layouts, pairing)
        chosen, weights, rows = cotangents.of(tensors[2 * number :])
        found = of_outputs(wanted, pairs, chosen, layouts.explained, Against(rows, weights, sizes.inputs))
        if pairs.gaps:
            raise NotTraceableError("how an integral is divided depends on values")
        template[:], layers[:] = found, graph.layers
        results = {
            "differs": operands_differ(pairs, part.cuts),
            "found": [tensor for one in found for tensor in one.tensors()],
        }
        if not in_one_backward(kind, sizes):
            return {
                **results,
                "output": [graph.output],
                "reference_output": [reference.output],
                "explained": graph.explained,
                "reference_explained": reference.explained,
            }
        outputs, targets = wide(graph.output).reshape(sizes.inputs, -1), chosen.t()
        own = None if pairing == "grid" else sizes.taped
        return {
            **results,
            "outputs": [outputs],
            "targets": [targets],
            "explained_outputs": [outputs if kind.every else outputs.gather(1, targets)],
            "baseline_outputs": [expected_outputs(reference.output, targets, weights, wanted.each, own).value],
        }

    given = [laid_out(tensors, formats) for tensors, formats in zip((baselines, inputs), kind.formats, strict=True)]
    try:
        traced = trace(chunk, [*given, cotangents.given], _PARTS, reads.nodes)
    except Exception as error:
        reason = next((reason for part_of_message, reason in _REASONS.items() if part_of_message in str(error)), None)
        raise (error if reason is None else NotTraceableError(reason)) from None
    model = Unchanged(engine.model, hooks.state, reads.any)
    form = [one.map(lambda tensor: tensor.new_empty(0)) for one in template]
    partial = here.stop < len(explanation.inputs[0])
    return Trace(kind, sizes, partial, explanation.budget, model, traced, form, layers, part.cuts, part.precision)


#: Parts of the messages that torch raises where a function cannot be traced, each with the reason that users are told.
_REASONS = {
    "value out of a tracing tensor": "it reads values of tensors in Python",
    # The capture copies a storage before the model writes into it, which fails for the tensors of a trace.
    "UntypedStorage": "it writes into a tensor that the model holds or is given",
}


class _Cotangents:
    """What makes the pairs of one backward: flattened outputs ``targets`` ``[K, inputs]``; and baselines, ``weights`` and ``rows`` ``[J]``.

    ``given``: tensors for those of the three that differ from one backward to another. The others are made in the graph.
    """

    def __init__(self, kind: Kind, sizes: Chunks, device: torch.device) -> None:
        self._makes: list[Callable[[], Tensor]] = [
            lambda: torch.arange(sizes.outputs, device=device).unsqueeze(1).expand(-1, sizes.inputs),
            lambda: torch.ones(sizes.baselines, dtype=torch.float64, device=device),
            lambda: torch.arange(sizes.baselines, device=device),
        ]
        at_once = in_one_backward(kind, sizes)
        self._differ = [not (at_once and kind.every), not at_once or kind.weighted, sizes.baselines < sizes.taped]
        self.given = [make().contiguous() for make, differs in zip(self._makes, self._differ, strict=True) if differs]

    def of(self, given: Sequence[Tensor]) -> list[Tensor]:
        """Targets, weights and rows, of which these are ``given``."""
        each = iter(given)
        return [next(each) if differs else make() for make, differs in zip(self._makes, self._differ, strict=True)]


def in_one_backward(kind: Kind, sizes: Chunks) -> bool:
    """Whether the graph computes all that is wanted of a chunk: one backward takes all baselines and outputs, and the explained tensors
    themselves are not wanted."""
    *_, activations = kind.wanted
    return sizes.baselines == kind.baselines and sizes.outputs == kind.outputs and not activations


def _balanced(plan: Chunks, inputs: int, baselines: int, outputs: int) -> Chunks:
    """The sizes of a plan, lowered so that the last block of baselines or outputs is about as large as the others."""

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
    """Refuse a pass that may run other operations on other values."""
    if graph.record.dependence.has_random:
        raise NotTraceableError("it draws random numbers")
    for entry in graph.tape.entries:
        if entry.multipliers is None and not entry.kept:
            raise NotTraceableError(f"{entry} reads values in Python")


class _Reads(TorchFunctionMode):
    """Lets the model read values of tensors in Python while it is traced, and notes which tensors these are.

    It is entered before the capture, and so sees the operations that the capture runs. ``any``: whether values were read. ``nodes``: the
    nodes of the graph that made the tensors; a tensor from elsewhere, such as a parameter, has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.any = False
        self.nodes: list[Node] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        called = operation(function)
        if reads_value(called) and args and plain(args[0]) is args[0]:
            self.any = True
            self.nodes += node_of(args[0])
            with disable_proxy_modes_tracing():
                return function(*args, **(kwargs or {}))
        result = function(*args, **(kwargs or {}))
        if called.name not in METADATA and is_value(function, result, list(tensors_in(result))):
            self.any = True
        return result
