"""One explanation: the three passes over a model - baselines, inputs, and the backward over pairs - in chunks that fit into memory."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from . import ops
from .capture.graph import audit, cuts, led_past, separate
from .capture.hooks import Pass
from .capture.probe import same_outputs
from .engine import Engine, does_not_fit, within_memory
from .errors import ControlFlowError, ExplanationError, MixedSamplesError, integrate_instead
from .explained import Explained
from .memory import is_out_of_memory, keep_freed_memory
from .moments import Moments
from .pairs import Pairing, Pairs
from .planner import Chunks
from .rounding import Rounded, rounded, standard_error
from .rules.normalization import wide
from .targets import Choose

#: The baselines, evenly chosen from those there are, that a sample's rounding is estimated from.
ROUNDED_BASELINES = 4


@dataclass
class Explanation:
    """The explanation of the outputs that ``choose`` takes.

    ``own``: each input's own baselines ``[B, R, ...]``; None for those that all inputs share. ``spread``: also the contributions' spread
    over the baselines. ``progress``: show a bar.
    """

    engine: Engine
    inputs: Sequence[Tensor]
    choose: Choose
    own: Sequence[Tensor] | None
    pairing: Pairing
    spread: bool
    progress: bool

    def run(self) -> Explained:
        engine = self.engine
        self._budget = engine.budget()
        self._reference: Pass | None = None
        self._fits, self._layouts_tried = True, False
        self._baselines = engine.baselines_of(self.own)
        some = torch.zeros(1, math.prod(engine.output_shape), device=self.inputs[0].device)
        self._outputs = self.choose(some, slice(0, 1)).shape[1]
        if engine.baselines[0].device.type == "cpu":
            keep_freed_memory(self._budget)
        if engine.probed.layouts.rowwise:
            self.pairing = "alone"
        pairs = len(self.inputs[0]) * self._baselines * self._outputs
        # Made only where it is shown: Python swallows a KeyboardInterrupt that arrives in its __del__.
        bar = tqdm(total=pairs, desc="DeepSHAP", unit="pair") if self.progress else None
        with engine.hooks() as hooks, nullcontext() if bar is None else bar:
            self._hooks, self._bar = hooks, bar
            found = self._chunks()
            if self.pairing == "alone":
                self._check_alone(found)
        return found

    def rounding(self, samples: Tensor, targets: Tensor, wanted: Tensor, layers: Sequence[int]) -> Tensor:
        """``[n, K]``: the standard error of rounding in the gaps of additivity of ``layers``, of the ``samples`` ``[n]`` of the inputs and
        their outputs ``targets`` ``[n, K]`` that are ``wanted``; 0 for the others.

        Each input runs alone: once forward, and backward against :data:`ROUNDED_BASELINES` of its baselines.
        """
        engine = self.engine
        number = engine.baselines_of(self.own)
        rows = sorted({number * place // ROUNDED_BASELINES for place in range(ROUNDED_BASELINES)})
        step = max(1, engine.budget() // 3 // engine.probed.costs.row)
        found = torch.zeros(targets.shape, dtype=torch.float64, device=targets.device)
        with within_memory("what one input against one baseline rounds"), engine.hooks() as hooks:

            def passed(row: Sequence[Tensor]) -> Rounded:
                copies = engine.copies(hooks, row)
                return rounded(hooks, [tensor.expand(copies, *tensor.shape[1:]) for tensor in row])

            def references(tensors: Sequence[Tensor]) -> list[Rounded]:
                return [passed([tensor[row : row + 1] for tensor in tensors]).without_graph() for row in rows]

            shared = references(engine.baselines) if self.own is None else []
            for place, (row, outputs) in enumerate(zip(samples.tolist(), targets, strict=True)):
                sample = passed([tensor[row : row + 1] for tensor in self.inputs])
                theirs = shared if self.own is None else references([tensor[row] for tensor in self.own])
                chosen = outputs[wanted[place]]
                layouts = engine.probed.layouts
                found[place, wanted[place]] = standard_error(sample, theirs, layouts, chosen, layers, step)
        return found

    def _chunks(self) -> Explained:
        """All inputs, chunk by chunk."""
        total, done = len(self.inputs[0]), 0
        found: Explained | None = None
        while done < total:
            chunks = self._plan(total - done)
            try:
                part = self._try_chunk(slice(done, min(total, done + chunks.inputs)), chunks)
            except ControlFlowError:
                if self.pairing == "alone":
                    raise
                if not self._better_layouts():
                    # Each by its own path through the model; what is still not the same for a sample and a baseline is named.
                    self.pairing = "alone"
                part = None
            if part is None:
                if self._bar is not None:
                    self._bar.n = done * self._baselines * self._outputs
                continue
            if found is None:
                with within_memory(f"the result for {total} inputs"):
                    found = part if len(part.outputs) == total else part.room(total)
            if found is not part:
                found.put(done, part)
            done += len(part.outputs)
        assert found is not None
        return found

    def _better_layouts(self) -> bool:
        """Whether layouts that did not do have become others: found anew where the model runs otherwise than when it was probed, or told
        apart by more rows where several were left."""
        engine, tried = self.engine, self._layouts_tried
        self._layouts_tried = True
        if tried:
            return False
        try:
            if not self._fits:
                engine.probe(self._hooks)
            elif not engine.probed.layouts.certain:
                both = zip(engine.baselines, self.inputs, strict=True)
                engine.probed.layouts.narrow(self._hooks, [torch.cat([r[:1000], x[:1000]]) for r, x in both])
        except (ControlFlowError, MixedSamplesError):
            return False
        self._reference = None
        return True

    def _plan(self, inputs: int) -> Chunks:
        return self.engine.plan(inputs, self._outputs, self.own, self.pairing, self._budget)

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
            self._budget //= 2
        return None

    def _chunk(self, here: slice, chunks: Chunks) -> Explained:
        rows = [tensor[here] for tensor in self.inputs]
        own = None if self.own is None else [tensor[here] for tensor in self.own]
        copies = self.engine.copies(self._hooks, rows)
        if copies > 1:
            rows = [tensor.expand(copies, *tensor.shape[1:]) for tensor in rows]
            own = own and [tensor.expand(copies, *tensor.shape[1:]) for tensor in own]
        found: Explained | None = None
        graph, repeated = None, 0
        for first in range(0, self._baselines, chunks.taped):
            count = min(chunks.taped, self._baselines - first)
            reference = self._references(len(rows[0]), own, first, count)
            repeats = count if self.pairing == "aligned" else 1
            if graph is None or repeats != repeated:
                repeated = repeats
                own_output = None if self.engine.compared else self._hooks.own_output(rows)
                graph = self._hooks.run([tensor.repeat_interleave(repeats, 0) for tensor in rows])
                if own_output is not None:
                    self._compare(graph, own_output)
                audit(graph)
                separate(graph)
            part = self._against(graph, reference, here, first, count, repeats, chunks)
            found = part if found is None else found.with_more_baselines(part)
        assert found is not None
        return replace(found, expected=found.expected / self._baselines)

    def _references(self, samples: int, own: Sequence[Tensor] | None, first: int, count: int) -> Pass:
        """The reference pass for baselines ``first .. first + count`` of ``samples`` inputs; that for all shared ones is kept."""
        shared = self.engine.baselines
        if own is None and self.pairing == "grid" and count == len(shared[0]) and self._reference is not None:
            return self._reference
        if own is not None:
            rows = [tensor[:, first : first + count].flatten(0, 1) for tensor in own]
        else:
            rows = [tensor[first : first + count] for tensor in shared]
            if self.pairing != "grid":
                rows = [tensor.repeat(samples, *[1] * (tensor.dim() - 1)) for tensor in rows]
        reference = self.engine.run(self._hooks, rows).without_graph()
        if own is None and self.pairing == "grid" and count == len(shared[0]):
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
                where = f"sample {here.start} against its baseline {first}"
                raise ControlFlowError(f"{where}: {error}; {integrate_instead()}") from None
            raise
        adding_up, inexact = cuts(graph), dict[str, set[int]]()
        for entry, samples in wrong:
            if entry.past:
                adding_up = led_past(graph, adding_up, entry)
                continue
            inexact.setdefault(str(entry), set()).update((samples.nonzero()[:, 0] // repeats).tolist())
        outputs = wide(graph.output.detach()).reshape(len(graph.output), -1)[::repeats][:inputs]
        targets = self.choose(outputs, here)
        theirs = wide(reference.output).reshape(len(reference.output), -1)
        if self.own is None and self.pairing == "grid":
            expected = theirs[:count].sum(0).expand_as(outputs)
        else:
            expected = theirs.unflatten(0, (-1, count)).sum(1)[:inputs]
        moments = self._moments(pairs, reference, targets, count, repeats, chunks)
        return Explained(
            moments,
            [one.sums() for one in moments],
            graph.layers,
            outputs.gather(1, targets),
            expected.gather(1, targets),
            targets,
            inexact,
            adding_up,
            _coarsest([reference.output, *reference.explained]),
            pairs.gaps,
        )

    def _moments(
        self, pairs: Pairs, reference: Pass, targets: Tensor, count: int, repeats: int, chunks: Chunks
    ) -> list[Moments]:
        """Moments of every explained tensor over ``count`` baselines."""
        graph, inputs = pairs.inputs, len(targets)
        rows_of_all = targets.repeat_interleave(repeats, 0)
        if len(rows_of_all) < pairs.samples:
            # The model needs two rows, and has one twice.
            rows_of_all = rows_of_all.repeat(pairs.samples // len(rows_of_all), 1)
        baselines = torch.arange(1 if pairs.pairing == "aligned" else count, device=targets.device)
        layouts = self.engine.probed.layouts.explained
        by_output: list[list[Moments]] = []
        for chosen in rows_of_all.split(chunks.outputs, 1):
            each = chosen.t()
            total: list[Moments] | None = None
            for rows in baselines.split(chunks.baselines):
                # The outputs of one baseline are neighbours: the kernels compute a multiplier once for all of them.
                found = pairs.multipliers(each.repeat(len(rows), 1), rows.repeat_interleave(len(each)))
                part = []
                for m, x, r, layout in zip(found, graph.explained, reference.explained, layouts, strict=True):
                    geometry = (layout.outer(x.shape), pairs.samples, pairs.pairing)
                    weights = torch.ones(len(rows), dtype=torch.float64, device=rows.device)
                    each_baseline = m.detach().unflatten(0, (len(rows), -1))
                    mean, variance, _ = ops.contribution(each_baseline, x, r, rows, weights, *geometry)
                    moments = Moments(len(rows), mean, variance if self.spread else None)
                    part.append(moments.by_input(layout, repeats, inputs))
                total = part if total is None else [one + more for one, more in zip(total, part, strict=True)]
                if self._bar is not None:
                    self._bar.update(inputs * repeats * len(rows) * len(each))
            assert total is not None
            by_output.append(total)
        return [_of_all_outputs(parts) for parts in zip(*by_output, strict=True)]

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
        rows = max(1, self._budget // 3 // self.engine.probed.costs.row)
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


def _of_all_outputs(parts: Sequence[Moments]) -> Moments:
    spreads = [part.variance for part in parts if part.variance is not None]
    return Moments(parts[0].weight, torch.cat([part.mean for part in parts]), torch.cat(spreads) if spreads else None)
