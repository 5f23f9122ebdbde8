"""The three passes over a chunk of an explanation: baselines forward, inputs forward, and backward over their pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from .arrays import wide
from .baselines import Baselines
from .block import Block, BlockPasses, explained_block, least_precise
from .capture.graph import Cut, audit, cuts, led_past, separate
from .capture.hooks import ModelHooks, Pass
from .capture.probe import same_outputs
from .comparison import differing_operands, layouts_ambiguous
from .errors import ControlFlowError, ExplanationError, MixedSamplesError, integrate_instead
from .explained import Explained
from .found import Against, Found, of_outputs
from .pairs import Pairs
from .planner import Chunks

if TYPE_CHECKING:
    from .explanation import Explanation


class Passes:
    """Explains chunks of an ``explanation`` while its model runs in ``hooks``.

    The reference pass over baselines that all inputs share runs once in these hooks: outside of them, the model may be changed.
    """

    def __init__(self, explanation: Explanation, hooks: ModelHooks) -> None:
        self.hooks = hooks
        #: Whether the layouts that the probe found fitted the last input pass.
        self.layouts_fit = True
        self._explanation = explanation
        self._engine = explanation.engine
        self._reference: Pass | None = None

    def chunk(self, here: slice, chunks: Chunks) -> Explained:
        """The inputs ``here`` explained, ``chunks.taped`` baselines at a time."""
        engine, aligned = self._engine, self._explanation.pairing == "aligned"
        inputs = [tensor[here] for tensor in self._explanation.inputs]
        baselines = self._explanation.baselines.of(here)
        copies = engine.copies(self.hooks, inputs)
        if copies > 1:
            inputs = [tensor.expand(copies, *tensor.shape[1:]) for tensor in inputs]
            baselines = baselines.repeated(copies)
        found: Explained | None = None
        graph, repeats = None, 0
        for first in range(0, baselines.number, chunks.taped):
            count = min(chunks.taped, baselines.number - first)
            reference = self._reference_pass(len(inputs[0]), baselines, first, count)
            if graph is None or (aligned and repeats != count):
                repeats = count if aligned else 1
                graph = self._input_pass(inputs, repeats)
            part = self._pair_pass(graph, reference, Block(here, first, count, repeats), chunks)
            found = part if found is None else found.with_more_baselines(part)
        assert found is not None
        return found

    def forget_reference(self) -> None:
        """Free the reference pass that is kept, or have it run again."""
        self._reference = None

    def check_alone(self, found: Explained) -> None:
        """Refuse a model whose outputs for the inputs in one batch are not those in ``found``, for each input alone."""
        engine, inputs = self._engine, self._explanation.inputs
        rows = max(1, self._explanation.budget // 3 // engine.probed.costs.row)
        for first in range(0, len(found.outputs), rows):
            here = slice(first, first + rows)
            output = self.hooks.run([tensor[here] for tensor in inputs]).output.detach()
            together = wide(output).reshape(len(output), -1)
            if not same_outputs(together.gather(1, found.targets[here]), found.outputs[here]):
                raise MixedSamplesError(
                    "the model takes another path through its operations, and gives another output, for the samples in one batch than for "
                    "each alone; such a model has no attribution per sample"
                )

    def _reference_pass(self, samples: int, baselines: Baselines, first: int, count: int) -> Pass:
        """The pass over baselines ``first .. first + count`` of ``samples`` inputs; that over all shared baselines is kept."""
        grid = self._explanation.pairing == "grid"
        kept = grid and not baselines.own and count == baselines.number
        if kept and self._reference is not None:
            return self._reference
        if baselines.own:
            rows = [tensor[:, first : first + count].flatten(0, 1) for tensor in baselines.tensors]
        else:
            rows = [tensor[first : first + count] for tensor in baselines.tensors]
            if not grid:
                rows = [tensor.repeat(samples, *[1] * (tensor.dim() - 1)) for tensor in rows]
        reference = self._engine.run(self.hooks, rows).without_graph()
        if kept:
            self._reference = reference
        return reference

    def _input_pass(self, inputs: Sequence[Tensor], repeats: int) -> Pass:
        """The pass over the inputs, each in ``repeats`` consecutive rows; its graph is checked and ready for the pair pass."""
        own_output = None if self._engine.compared else self.hooks.own_output(inputs)
        rows = [t.repeat_interleave(repeats, 0) if repeats > 1 else t.contiguous() for t in inputs]
        graph = self.hooks.run(rows)
        if own_output is not None:
            _check_output(graph, own_output)
            self._engine.compared = True
        audit(graph)
        separate(graph)
        return graph

    def _pair_pass(self, graph: Pass, reference: Pass, block: Block, chunks: Chunks) -> Explained:
        """The block explained, from the passes over its inputs (``graph``) and over its baselines."""
        wanted, layouts = self._explanation.wanted, self._engine.probed.layouts
        pairs = Pairs(graph, reference, layouts, self._explanation.pairing)
        adding_up, inexact = self._compare_tapes(pairs, block)

        def found(targets: Tensor, baselines: Tensor, weights: Tensor) -> list[Found]:
            against = Against(baselines, weights, block.inputs, block.repeats)
            return of_outputs(wanted, pairs, targets, layouts.explained, against)

        both = BlockPasses(
            output=graph.output.detach(),
            reference_output=reference.output,
            explained=graph.explained,
            reference_explained=reference.explained,
            baselines=block.count,
            layers=graph.layers,
            cuts=adding_up,
            inexact=inexact,
            gaps=pairs.gaps,
            found=found,
        )
        return explained_block(self._explanation, both, block, chunks)

    def _compare_tapes(self, pairs: Pairs, block: Block) -> tuple[list[Cut], dict[str, set[int]]]:
        """The cuts that attributions add up over, and the operations that keep them from adding up, with the positions of the inputs.

        Raises :class:`ControlFlowError` where the two passes ran different operations, or the layouts do not fit them.
        """
        graph, layouts = pairs.inputs, self._engine.probed.layouts
        alone = self._explanation.pairing == "alone"
        if not alone:
            self.layouts_fit = layouts.fit(graph)
            if self.layouts_fit and not layouts.certain and (not layouts.tried or layouts_ambiguous(pairs)):
                raise ControlFlowError("the place of the batch in the model's tensors is not certain")
        try:
            differing = differing_operands(pairs)
        except ControlFlowError as error:
            if alone:
                raise ControlFlowError(
                    f"{self._title(block.here.start, block.first)}: {error}; {integrate_instead()}"
                ) from None
            raise
        adding_up, inexact = cuts(graph), dict[str, set[int]]()
        for entry, samples in differing:
            if entry.past:
                adding_up = led_past(graph, adding_up, entry)
            else:
                numbers = (samples.nonzero()[:, 0] // block.repeats).tolist()
                inexact.setdefault(str(entry), set()).update(numbers)
        return adding_up, inexact

    def _title(self, sample: int, baseline: int) -> str:
        """How a message names a sample and a baseline."""
        return f"sample {sample} against its baseline {baseline}"


def _check_output(graph: Pass, own_output: Tensor) -> None:
    """Refuse a model that gives another output when its operations are followed than its ``own_output``, for the same rows."""
    own = wide(own_output)
    followed = wide(graph.returned.detach())[:: len(graph.returned) // len(own)]
    kept = [tensor for entry in graph.tape.entries for tensor in entry.kept if tensor.is_floating_point()]
    if not same_outputs(followed, own, least_precise([graph.output, *kept])):
        raise ExplanationError(
            f"the model gives another output when its operations are followed than by itself, apart by up to "
            f"{float((followed - own).abs().max()):.3g} of {float(own.abs().max()):.3g}: what it computes depends on how it is run, or "
            f"an operation of its own is not what it stands for"
        )
