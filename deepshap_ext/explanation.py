"""One explanation: the three passes over a model - baselines, inputs, and the backward over pairs - in chunks that fit into memory."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from .baselines import Baselines, examples
from .capture.graph import audit, cuts, led_past, separate
from .capture.passes import Pass
from .capture.probe import same_outputs
from .engine import Engine, does_not_fit, within_memory
from .errors import ControlFlowError, ExplanationError, MixedSamplesError, integrate_instead
from .explained import Activations, Explained
from .found import Found, Wanted, by_input, of_all_outputs, of_outputs
from .memory import is_out_of_memory, keep_freed_memory
from .met import Met, cycled, expected_outputs
from .pairs import Pairing, Pairs
from .planner import Chunks, Work
from .replay import Replay
from .rounding import Rounded, rounded, standard_error
from .rules.normalization import wide
from .targets import Choose

#: The baselines, evenly chosen from those there are, that a sample's rounding is estimated from.
ROUNDED_BASELINES = 4


@dataclass
class Explanation:
    """The explanation of the outputs that ``choose`` takes, so many of each input.

    ``wanted``: what is taken of the pairs. ``progress``: show a bar. ``replay``: what traces chunks and keeps the traces, if that is to be.
    """

    engine: Engine
    inputs: Sequence[Tensor]
    baselines: Baselines
    choose: Choose
    outputs: int
    pairing: Pairing
    wanted: Wanted
    progress: bool
    replay: Replay | None = None

    def run(self) -> Explained:
        engine = self.engine
        self._limit: int | None = None
        self._reference: Pass | None = None
        self._fits, self._layouts_tried = True, False
        self.begun = False
        if engine.probed.layouts.rowwise:
            self.pairing = "alone"
        pairs = self._total * self.baselines.number * self.outputs
        # Made only where it is shown: Python swallows a KeyboardInterrupt that arrives in its __del__.
        bar = tqdm(total=pairs, desc="DeepSHAP", unit="pair") if self.progress else None
        self._bar = bar
        self._done = 0
        self._result: list[Explained] = []
        with nullcontext() if bar is None else bar:
            self._replayed_chunks()
            while self._done < self._total:
                if engine.device.type == "cpu":
                    keep_freed_memory(self.budget)
                with engine.hooks() as hooks:
                    self._hooks = hooks
                    self._chunks()
                    if self.pairing == "alone":
                        self._check_alone(self._result[0])
                # Outside of these hooks the model may be written into.
                self._reference = None
                self._replayed_chunks()
        return self._result[0]

    @property
    def budget(self) -> int:
        """Bytes that may be used, as found out when it is first asked for."""
        if self._limit is None:
            self._limit = self.engine.budget(self._work(self._total))
        return self._limit

    def rounding(self, samples: Tensor, targets: Tensor, wanted: Tensor, layers: Sequence[int]) -> Tensor:
        """``[n, K]``: the standard error of rounding in the gaps of additivity of ``layers``, of the ``samples`` ``[n]`` of the inputs and
        their outputs ``targets`` ``[n, K]`` that are ``wanted``; 0 for the others.

        Each input runs alone: once forward, and backward against :data:`ROUNDED_BASELINES` of its baselines.
        """
        engine = self.engine
        number = self.baselines.number
        rows = sorted({number * place // ROUNDED_BASELINES for place in range(ROUNDED_BASELINES)})
        step = max(1, engine.budget() // 3 // engine.probed.costs.row)
        found = torch.zeros(targets.shape, dtype=torch.float64, device=targets.device)
        with within_memory("what one input against one baseline rounds"), engine.hooks() as hooks:

            def passed(row: Sequence[Tensor]) -> Rounded:
                copies = engine.copies(hooks, row)
                return rounded(hooks, [tensor.expand(copies, *tensor.shape[1:]) for tensor in row])

            def references(tensors: Sequence[Tensor]) -> list[Rounded]:
                return [passed([tensor[row : row + 1] for tensor in tensors]).without_graph() for row in rows]

            own = self.baselines.own
            shared = [] if own else references(self.baselines.tensors)
            for place, (row, outputs) in enumerate(zip(samples.tolist(), targets, strict=True)):
                sample = passed([tensor[row : row + 1] for tensor in self.inputs])
                theirs = references([tensor[row] for tensor in self.baselines.tensors]) if own else shared
                chosen = outputs[wanted[place]]
                layouts = engine.probed.layouts
                found[place, wanted[place]] = standard_error(sample, theirs, layouts, chosen, layers, step)
        return found

    def _chunks(self) -> None:
        """The inputs that are left, chunk by chunk; or one of them, where those behind it can then be replayed."""
        total = self._total
        while self._done < total:
            chunks = self._plan(total - self._done)
            here = slice(self._done, min(total, self._done + chunks.inputs))
            try:
                part = self._try_chunk(here, chunks)
            except ControlFlowError:
                if self.pairing == "alone":
                    raise
                if not self._better_layouts():
                    # Each by its own path through the model; what is still not the same for a sample and a baseline is named.
                    self.pairing = "alone"
                part = None
            if part is None:
                if self._bar is not None:
                    self._bar.n = self._done * self.baselines.number * self.outputs
                continue
            self._put(part)
            if (
                self.replay is not None
                and self.replay.trace(self, self._hooks, here, chunks, part)
                and self._done < total
            ):
                return

    def _replayed_chunks(self) -> None:
        """The inputs that are left, as long as there is a trace for them and it decides as they do."""
        total = self._total
        if self.replay is None or self._done == total:
            return
        with self.replay.replaying(self, total - self._done) as replaying:
            while replaying is not None and self._done < total:
                part = replaying.try_chunk(slice(self._done, min(total, self._done + replaying.inputs)))
                if part is None:
                    return
                self._put(part)

    def _put(self, part: Explained) -> None:
        """The next inputs, explained."""
        total, number = self._total, part.outputs.shape[0]
        if not self._result:
            with within_memory(f"the result for {total} inputs"):
                self._result = [part if number == total else part.room(total)]
        if self._result[0] is not part:
            self._result[0].put(self._done, part)
        self._done += number
        self.begun = True

    def _better_layouts(self) -> bool:
        """Whether layouts that did not do have become others: found anew where the model runs otherwise than when it was probed, or told
        apart by more rows where several were left."""
        engine, tried = self.engine, self._layouts_tried
        self._layouts_tried = True
        if tried:
            return False
        try:
            if not self._fits:
                engine.probe(self._hooks, examples(self.baselines, self.inputs, 1000))
            elif not engine.probed.layouts.certain:
                engine.probed.layouts.narrow(self._hooks, examples(self.baselines, self.inputs, 1000))
        except (ControlFlowError, MixedSamplesError):
            return False
        self._reference = None
        return True

    @property
    def _total(self) -> int:
        """How many inputs there are."""
        return self.inputs[0].shape[0]

    def _plan(self, inputs: int) -> Chunks:
        return self.engine.plan(self._work(inputs), self.budget)

    def _work(self, inputs: int) -> Work:
        alone = self.pairing == "alone"
        return Work(
            1 if alone else inputs,
            1 if alone else self.baselines.number,
            self.outputs,
            not self.baselines.own,
            self.pairing in ("aligned", "alone"),
            self.wanted.by_pair,
        )

    def _try_chunk(self, here: slice, chunks: Chunks) -> Explained | None:
        """The chunk explained, or None if it does not fit into memory and a smaller one may."""
        try:
            return self._chunk(here, chunks)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if chunks.smallest:
                raise does_not_fit("one input against one baseline", error) from error
        # Out here the traceback no longer holds on to the tensors of what failed.
        self._reference = None
        gc.collect()
        inputs = here.stop - here.start
        while chunks == self._plan(inputs):
            self._limit = self.budget // 2
        return None

    def _chunk(self, here: slice, chunks: Chunks) -> Explained:
        rows = [tensor[here] for tensor in self.inputs]
        theirs = self.baselines.of(here)
        copies = self.engine.copies(self._hooks, rows)
        if copies > 1:
            rows = [tensor.expand(copies, *tensor.shape[1:]) for tensor in rows]
            theirs = theirs.repeated(copies)
        found: Explained | None = None
        graph, repeated = None, 0
        for first in range(0, theirs.number, chunks.taped):
            count = min(chunks.taped, theirs.number - first)
            reference = self._references(len(rows[0]), theirs, first, count)
            repeats = count if self.pairing == "aligned" else 1
            if graph is None or repeats != repeated:
                repeated = repeats
                own_output = None if self.engine.compared else self._hooks.own_output(rows)
                each = [t.repeat_interleave(repeats, 0) if repeats > 1 else t.contiguous() for t in rows]
                graph = self._hooks.run(each)
                if own_output is not None:
                    self._compare(graph, own_output)
                audit(graph)
                separate(graph)
            part = self._against(graph, reference, here, first, count, repeats, chunks)
            found = part if found is None else found.with_more_baselines(part)
        assert found is not None
        return found

    def _references(self, samples: int, theirs: Baselines, first: int, count: int) -> Pass:
        """The reference pass for baselines ``first .. first + count`` of ``samples`` inputs; that for all shared ones is kept."""
        kept = not theirs.own and self.pairing == "grid" and count == theirs.number
        if kept and self._reference is not None:
            return self._reference
        if theirs.own:
            rows = [tensor[:, first : first + count].flatten(0, 1) for tensor in theirs.tensors]
        else:
            rows = [tensor[first : first + count] for tensor in theirs.tensors]
            if self.pairing != "grid":
                rows = [tensor.repeat(samples, *[1] * (tensor.dim() - 1)) for tensor in rows]
        reference = self.engine.run(self._hooks, rows).without_graph()
        if kept:
            self._reference = reference
        return reference

    def _against(
        self, graph: Pass, reference: Pass, here: slice, first: int, count: int, repeats: int, chunks: Chunks
    ) -> Explained:
        """The inputs ``here``, each ``repeats`` rows of ``graph``, against ``count`` baselines."""
        inputs = here.stop - here.start
        layouts = self.engine.probed.layouts
        pairs = Pairs(graph, reference, layouts, self.pairing)
        if self.pairing != "alone":
            self._fits = layouts.fit(graph)
            if self._fits and not layouts.certain and (not layouts.tried or pairs.ambiguous()):
                raise ControlFlowError("the place of the batch in the model's tensors is not certain")
        try:
            wrong = pairs.inexact()
        except ControlFlowError as error:
            if self.pairing == "alone":
                raise ControlFlowError(f"{self._pair(here.start, first)}: {error}; {integrate_instead()}") from None
            raise
        adding_up, inexact = cuts(graph), dict[str, set[int]]()
        for entry, samples in wrong:
            if entry.past:
                adding_up = led_past(graph, adding_up, entry)
                continue
            inexact.setdefault(str(entry), set()).update((samples.nonzero()[:, 0] // repeats).tolist())

        def found(chosen: Tensor, rows: Tensor, weights: Tensor) -> list[Found]:
            return of_outputs(self.wanted, pairs, chosen, rows, weights, layouts.explained, repeats, inputs)

        met = Met(
            graph.output.detach(),
            reference.output,
            graph.explained,
            reference.explained,
            count,
            graph.layers,
            adding_up,
            inexact,
            pairs.gaps,
            found,
        )
        return self.explained(met, here, first, count, repeats, chunks)

    def explained(self, met: Met, here: slice, first: int, count: int, repeats: int, chunks: Chunks) -> Explained:
        """What inputs and baselines that have met give."""
        inputs = here.stop - here.start
        outputs = wide(met.output).reshape(len(met.output), -1)[::repeats][:inputs]
        targets = self.choose(outputs, here)
        weights = self.baselines.weights[first : first + count]
        own = self.baselines.own or self.pairing != "grid"
        each = self.wanted.each
        rows = targets.repeat_interleave(repeats, 0) if repeats > 1 else targets
        if len(rows) < len(met.output):
            # Inputs are in the batch again, since the model needs two rows or a graph as many as it was traced with.
            rows = cycled(rows, len(met.output))
        return Explained(
            self._found(met, rows.t(), weights, inputs * repeats, chunks),
            met.layers,
            outputs.gather(1, targets),
            expected_outputs(met.reference_output, targets, weights, each, met.baselines if own else None),
            self.baselines.weights,
            targets,
            met.inexact,
            met.cuts,
            _coarsest([met.reference_output, *met.reference_explained]),
            met.gaps,
            self._activations(met, count, repeats, inputs) if self.wanted.activations else [],
        )

    def _pair(self, sample: int, baseline: int) -> str:
        """How a message names a sample and a baseline."""
        return f"sample {sample} against its baseline {baseline}"

    def advance(self, pairs: int) -> None:
        """Show that so many pairs are done."""
        if self._bar is not None:
            self._bar.update(pairs)

    def _found(self, met: Met, targets: Tensor, weights: Tensor, inputs: int, chunks: Chunks) -> list[Found]:
        """What is wanted of every explained tensor for outputs ``targets`` ``[K, rows]`` of the ``inputs``, over the baselines with these
        weights."""
        aligned = self.pairing in ("aligned", "alone")
        baselines = torch.arange(1 if aligned else len(weights), device=targets.device)
        by_output: list[list[Found]] = []
        for chosen in targets.split(chunks.outputs):
            total: list[Found] | None = None
            for first in range(0, len(baselines), chunks.baselines):
                rows = baselines[first : first + chunks.baselines]
                part = met.found(chosen, rows, weights if aligned else weights[first : first + len(rows)])
                total = part if total is None else [one + more for one, more in zip(total, part, strict=True)]
                self.advance(inputs * len(rows) * len(chosen))
            assert total is not None
            by_output.append(total)
        return [of_all_outputs(parts) for parts in zip(*by_output, strict=True)]

    def _activations(self, met: Met, count: int, repeats: int, inputs: int) -> list[Activations]:
        """The explained tensors on both sides."""
        own = self.baselines.own
        found = []
        layouts = self.engine.probed.layouts.explained
        for x, r, layout in zip(met.explained, met.reference_explained, layouts, strict=True):
            shared = not own and self.pairing == "grid"
            theirs = by_input(r[None], layout, met.baselines, 1 if shared else inputs)[0, :, :count]
            theirs = theirs if own else theirs[0]
            found.append(Activations(by_input(x[None], layout, repeats, inputs)[0, :, 0], theirs, own))
        return found

    def _compare(self, graph: Pass, own_output: Tensor) -> None:
        """Refuse a model that gives another output when it is followed than by itself."""
        own = wide(own_output)
        followed = wide(graph.returned.detach())[:: len(graph.returned) // len(own)]
        kept = [tensor for entry in graph.tape.entries for tensor in entry.kept if tensor.is_floating_point()]
        if not same_outputs(followed, own, _coarsest([graph.output, *kept])):
            raise ExplanationError(
                f"the model gives another output when its operations are followed than by itself, apart by up to "
                f"{float((followed - own).abs().max()):.3g} of {float(own.abs().max()):.3g}: what it computes depends on how it is run, or "
                f"an operation of its own is not what it stands for"
            )
        self.engine.compared = True

    def _check_alone(self, found: Explained) -> None:
        """Refuse a model that gives the inputs, explained alone, other outputs in their batch."""
        rows = max(1, self.budget // 3 // self.engine.probed.costs.row)
        for first in range(0, len(found.outputs), rows):
            here = slice(first, first + rows)
            output = self._hooks.run([tensor[here] for tensor in self.inputs]).output.detach()
            together = wide(output).reshape(len(output), -1)
            if not same_outputs(together.gather(1, found.targets[here]), found.outputs[here]):
                raise MixedSamplesError(
                    "the model takes another path through its operations, and gives another output, for the samples in one batch than for "
                    "each alone; such a model has no attribution per sample"
                )


def _coarsest(tensors: Sequence[Tensor]) -> torch.dtype:
    """The least precise of the tensors' dtypes."""
    return max((tensor.dtype for tensor in tensors), key=lambda dtype: torch.finfo(dtype).eps)
