"""The three passes over a model: baselines, inputs, and the backward over pairs, in chunks that fit into memory."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import ops
from .capture.graph import Cut, audit, cuts, separate
from .capture.hooks import Call, ModelHooks, Pass
from .capture.layout import Layout
from .capture.probe import probe, same_outputs
from .errors import ControlFlowError, MixedSamplesError, OutOfMemoryError
from .memory import WARM, available_memory, is_out_of_memory, keep_freed_memory
from .pairs import Pairing, Pairs
from .planner import Chunks, measure, plan
from .rounding import Rounded, rounded, standard_error
from .rules.normalization import wide
from .rules.registry import Options
from .targets import Choose

#: The baselines, evenly chosen from those there are, that a sample's rounding is estimated from.
ROUNDED_BASELINES = 4


@dataclass
class Moments:
    """Mean and sum of squared deviations of contributions over ``count`` baselines, ``[K, B, *features]`` each."""

    count: int
    mean: Tensor
    m2: Tensor

    def __add__(self, other: Moments) -> Moments:
        """The moments of both sets together (Chan, Golub and LeVeque 1983, equations 1.5)."""
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        m2 = self.m2 + other.m2 + delta.square() * (self.count * other.count / count)
        return Moments(count, mean, m2)


@dataclass
class Explained:
    """What explaining ``B`` inputs gave, ``K`` outputs each.

    ``moments``: one an explained tensor; ``sums``, ``[B, K]`` in float64: of each, the sum of an input's values; ``layers``: which of
    them are each layer's. ``outputs`` and ``expected``, ``[B, K]``: the explained outputs for the inputs, and their mean over the
    baselines. ``targets``, ``[B, K]``: which of the flattened outputs these are. ``inexact``: operations that keep attributions from adding
    up, with the positions of the inputs concerned. ``cuts``: which layers' attributions add up, and together with which. ``precision``: the
    least precise dtype of the explained tensors and the output; parts of the passes may compute in a less precise one.
    """

    moments: list[Moments]
    sums: list[Tensor]
    layers: list[slice]
    outputs: Tensor
    expected: Tensor
    targets: Tensor
    inexact: dict[str, set[int]]
    cuts: list[Cut]
    precision: torch.dtype


class Engine:
    """Explains a model's output from inputs and baselines that are tensors on one device, already checked.

    Inputs, and baselines likewise, are the model's inputs and behind them its keyword arguments that have a row a sample.
    """

    def __init__(
        self, model: nn.Module, call: Call, baselines: Sequence[Tensor], options: Options, max_memory: int | None
    ) -> None:
        self._model = model
        self._call = call
        self._options = options
        self._baselines = list(baselines)
        self._max_memory = max_memory
        self._reference: Pass | None = None
        self._weights: list[tuple[int, int]] = []
        self._expected = torch.empty(0)
        try:
            with self._hooks() as hooks:
                self._layouts = probe(hooks, self._baselines)
                self._costs = measure(hooks, self._layouts, self._baselines)
        except Exception as error:
            if is_out_of_memory(error):
                raise _does_not_fit("a batch of three rows", error) from error
            raise
        _ = self.expected

    def __getstate__(self) -> dict[str, Any]:
        # A copy runs its own reference pass.
        return {**self.__dict__, "_reference": None, "_weights": []}

    @property
    def expected(self) -> Tensor:
        """Mean of the model's output over the baselines, of the shape of one sample's output; computed anew when weights change."""
        weights = [
            (tensor.data_ptr(), tensor._version) for tensor in (*self._model.parameters(), *self._model.buffers())
        ]
        if not self._weights or weights != self._weights:
            self._reference = None
            self._expected = self._mean_output()
            self._weights = weights
        return self._expected

    def _hooks(self) -> ModelHooks:
        return ModelHooks(self._model, self._call, self._options)

    def _mean_output(self) -> Tensor:
        number = len(self._baselines[0])
        step = self._plan(1, 1, None, "grid", self._budget()).taped
        while True:
            try:
                with self._hooks() as hooks:
                    sums = []
                    for first in range(0, number, step):
                        reference = self._shared_reference(hooks, first, step)
                        # Sums over baselines must not round.
                        sums.append(wide(reference.output).sum(0))
                return torch.stack(sums).sum(0) / number
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if step == 1:
                    raise _does_not_fit("one baseline", error) from error
            step = (step + 1) // 2

    def explain(
        self, inputs: Sequence[Tensor], choose: Choose, own: Sequence[Tensor] | None, pairing: Pairing, progress: bool
    ) -> Explained:
        """Explain the outputs that ``choose`` takes, as indices ``[b, K]``, from flattened outputs ``[b, outputs]`` of a slice of inputs.

        ``own``: each input's own baselines ``[B, R, ...]``; None for those that all inputs share. ``progress``: show a bar.
        """
        if self._baselines[0].device.type == "cpu":
            keep_freed_memory()
        if self._layouts.entries is None:
            pairing = "alone"
        parts: list[Explained] = []
        done, total = 0, len(inputs[0])
        budget = self._budget()
        outputs = choose(self.expected.reshape(1, -1), slice(0, 1)).shape[1]
        baselines = self._count(own)
        pairs = total * baselines * outputs
        with self._hooks() as hooks, tqdm(total=pairs, desc="DeepSHAP", unit="pair", disable=not progress) as bar:
            while done < total:
                chunks = self._plan(total - done, outputs, own, pairing, budget)
                here = slice(done, done + chunks.inputs)
                own_here = None if own is None else [tensor[here] for tensor in own]
                rows = [tensor[here] for tensor in inputs]
                try:
                    part = self._try_chunk(hooks, rows, here, choose, own_here, pairing, chunks, bar)
                except ControlFlowError:
                    if pairing == "alone":
                        raise
                    # Each by its own path through the model; what is still not the same for a sample and a baseline is named.
                    pairing = "alone"
                    bar.n = done * baselines * outputs
                    continue
                if part is None:
                    bar.n = done * baselines * outputs
                    while chunks == self._plan(total - done, outputs, own, pairing, budget):
                        budget //= 2
                    continue
                part.inexact = {title: {done + row for row in rows} for title, rows in part.inexact.items()}
                parts.append(part)
                done += len(part.outputs)
            found = _joined(parts)
            if pairing == "alone":
                self._check_alone(hooks, inputs, found)
        return found

    def rounding(
        self,
        inputs: Sequence[Tensor],
        own: Sequence[Tensor] | None,
        targets: Tensor,
        wanted: Tensor,
        layers: Sequence[int],
    ) -> Tensor:
        """``[B, K]``: the standard error of rounding in the gaps of additivity of ``layers``, for the explained outputs ``targets`` that
        are ``wanted``; 0 for the others.

        Each input runs alone: once forward, and backward against :data:`ROUNDED_BASELINES` of its baselines.
        """
        number = self._count(own)
        rows = sorted({number * place // ROUNDED_BASELINES for place in range(ROUNDED_BASELINES)})
        step = max(1, self._budget() // 3 // self._costs.row)
        found = torch.zeros(targets.shape, dtype=torch.float64, device=targets.device)
        try:
            with self._hooks() as hooks:

                def references(tensors: Sequence[Tensor]) -> list[Rounded]:
                    return [
                        rounded(hooks, [tensor[row : row + 1] for tensor in tensors]).without_graph() for row in rows
                    ]

                shared = references(self._baselines) if own is None else []
                for one, outputs in enumerate(targets):
                    sample = rounded(hooks, [tensor[one : one + 1] for tensor in inputs])
                    theirs = shared if own is None else references([tensor[one] for tensor in own])
                    chosen = outputs[wanted[one]]
                    found[one, wanted[one]] = standard_error(sample, theirs, self._layouts, chosen, layers, step)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise _does_not_fit("what one input against one baseline rounds", error) from error
        return found

    def _check_alone(self, hooks: ModelHooks, inputs: Sequence[Tensor], found: Explained) -> None:
        """Refuse a model that gives the inputs, explained alone, other outputs in their batch."""
        together = wide(hooks.run(inputs).output.detach()).reshape(len(found.outputs), -1)
        if not same_outputs(together.gather(1, found.targets), found.outputs):
            raise MixedSamplesError(
                "the model takes another path through its operations, and gives another output, for the samples in one batch than for "
                "each alone; such a model has no attribution per sample"
            )

    def _try_chunk(self, hooks: ModelHooks, *args: Any) -> Explained | None:
        """The chunk explained, or None if it does not fit into memory and a smaller one may."""
        try:
            return self._chunk(hooks, *args)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            chunks: Chunks = args[-2]
            if chunks.smallest:
                raise _does_not_fit("one input against one baseline", error) from error
        # Out here the traceback no longer holds on to the tensors of what failed.
        self._reference = None
        gc.collect()
        return None

    def _chunk(
        self,
        hooks: ModelHooks,
        inputs: Sequence[Tensor],
        here: slice,
        choose: Choose,
        own: Sequence[Tensor] | None,
        pairing: Pairing,
        chunks: Chunks,
        bar: tqdm[NoReturn],
    ) -> Explained:
        baselines = self._count(own)
        run = None
        repeats = 0
        for first in range(0, baselines, chunks.taped):
            count = min(chunks.taped, baselines - first)
            reference = self._references(hooks, len(inputs[0]), own, pairing, first, count)
            each = count if pairing == "aligned" else 1
            if repeats != each:
                repeats = each
                graph = hooks.run([tensor.repeat_interleave(repeats, 0) for tensor in inputs])
                audit(graph)
                separate(graph)
                adding_up = cuts(graph)
                outputs = wide(graph.output.detach()).reshape(len(graph.output), -1)[::repeats]
                targets = choose(outputs, here)
            pairs = Pairs(graph, reference, self._layouts, pairing)
            inexact: dict[str, set[int]] = {}
            try:
                found = pairs.inexact()
            except ControlFlowError as error:
                if pairing == "alone":
                    raise ControlFlowError(f"sample {here.start} against its baseline {first}: {error}") from None
                raise
            for entry, wrong in found:
                if entry.past:
                    adding_up = [replace(cut, whole=False) for cut in adding_up]
                    continue
                inexact.setdefault(str(entry), set()).update((wrong.nonzero()[:, 0] // repeats).tolist())
            moments = self._moments(pairs, reference, targets.repeat_interleave(repeats, 0), chunks, repeats, bar)
            theirs = wide(reference.output).reshape(len(reference.output), -1)
            if own is None and pairing == "grid":
                expected = theirs.sum(0).expand_as(outputs).gather(1, targets)
            else:
                expected = theirs.unflatten(0, (-1, count)).sum(1).gather(1, targets)
            ours = outputs.gather(1, targets)
            sums = [_sums(one.mean) for one in moments]
            part = Explained(
                moments, sums, graph.layers, ours, expected, targets, inexact, adding_up, _coarsest(reference)
            )
            run = part if run is None else _with_more_baselines(run, part)
        assert run is not None
        return replace(run, expected=run.expected / baselines)

    def _references(
        self, hooks: ModelHooks, samples: int, own: Sequence[Tensor] | None, pairing: Pairing, first: int, count: int
    ) -> Pass:
        """The reference pass for baselines ``first .. first + count`` of ``samples`` inputs."""
        if own is not None:
            self._reference = None  # the shared ones' tape would only take memory
            return hooks.run([tensor[:, first : first + count].flatten(0, 1) for tensor in own]).without_graph()
        if pairing in ("aligned", "alone"):
            rows = [tensor[first : first + count] for tensor in self._baselines]
            return hooks.run([tensor.repeat(samples, *[1] * (tensor.dim() - 1)) for tensor in rows]).without_graph()
        return self._shared_reference(hooks, first, count)

    def _shared_reference(self, hooks: ModelHooks, first: int, count: int) -> Pass:
        """The reference pass for some of the shared baselines; that for all of them is kept."""
        if count < len(self._baselines[0]):
            self._reference = None
            return hooks.run([tensor[first : first + count] for tensor in self._baselines]).without_graph()
        if self._reference is None:
            self._reference = hooks.run(self._baselines).without_graph()
        return self._reference

    def _moments(
        self, pairs: Pairs, reference: Pass, targets: Tensor, chunks: Chunks, repeats: int, bar: tqdm[NoReturn]
    ) -> list[Moments]:
        """Moments of every explained tensor over the baselines of one reference pass."""
        graph = pairs.inputs
        count = len(reference.output) if pairs.pairing == "grid" else len(reference.output) // pairs.samples
        by_output: list[list[Moments]] = []
        for chosen in targets.split(chunks.outputs, 1):
            cotangents = _one_hot(chosen, graph.output)
            total: list[Moments] | None = None
            for rows in torch.arange(count, device=targets.device).split(chunks.baselines):
                # The outputs of one baseline are neighbours: the kernels compute a multiplier once for all of them.
                found = pairs.multipliers(
                    cotangents.expand(len(rows), *cotangents.shape).flatten(0, 1),
                    rows.repeat_interleave(len(cotangents)),
                )
                part = []
                for m, x, r, layout in zip(
                    found, graph.explained, reference.explained, self._layouts.explained, strict=True
                ):
                    geometry = (layout.outer(x.shape), pairs.samples, pairs.pairing)
                    mean, m2 = ops.contribution(m.detach().unflatten(0, (len(rows), -1)), x, r, rows, *geometry)
                    part.append(_by_sample(Moments(len(rows), mean, m2), layout, repeats))
                total = part if total is None else [one + more for one, more in zip(total, part, strict=True)]
                bar.update(pairs.samples * len(rows) * len(cotangents))
            assert total is not None
            by_output.append(total)
        return [
            Moments(parts[0].count, torch.cat([part.mean for part in parts]), torch.cat([part.m2 for part in parts]))
            for parts in zip(*by_output, strict=True)
        ]

    def _count(self, own: Sequence[Tensor] | None) -> int:
        """The number of baselines that each input is compared with."""
        return len(self._baselines[0]) if own is None else own[0].shape[1]

    def _plan(self, inputs: int, outputs: int, own: Sequence[Tensor] | None, pairing: Pairing, budget: int) -> Chunks:
        aligned = pairing in ("aligned", "alone")
        warm = WARM if self._baselines[0].device.type == "cpu" else budget
        found = plan(self._costs, budget, warm, inputs, self._count(own), outputs, own is None, aligned)
        return replace(found, inputs=1, taped=1) if pairing == "alone" else found

    def _budget(self) -> int:
        # Half of what is free: torch's own workspaces and other programs take some.
        return self._max_memory or available_memory(self._baselines[0].device) // 2


def _does_not_fit(what: str, error: Exception) -> OutOfMemoryError:
    return OutOfMemoryError(f"{what} does not fit into memory: {error}")


def _coarsest(one: Pass) -> torch.dtype:
    """The least precise dtype of a pass's explained tensors and its output."""
    return max((t.dtype for t in (one.output, *one.explained)), key=lambda dtype: torch.finfo(dtype).eps)


def _one_hot(chosen: Tensor, output: Tensor) -> Tensor:
    """``[K, *output.shape]``: 1 at each row's chosen output, for ``chosen`` ``[rows, K]``."""
    hot = output.new_zeros(chosen.shape[1], len(output), output[0].numel())
    hot.scatter_(2, chosen.t().unsqueeze(2), 1)
    return hot.view(-1, *output.shape)


def _by_sample(moments: Moments, layout: Layout, repeats: int) -> Moments:
    """Moments ``[K, B, *features]`` from moments in a tensor's own layout; ``repeats`` rows of an aligned pass are one input's."""

    def rows(tensor: Tensor) -> Tensor:
        inside = replace(layout, dim=layout.dim + 1)
        split = inside.split(tensor).movedim(inside.dim + 1, 1).flatten(inside.dim + 1, inside.dim + 2)
        return split.squeeze(inside.dim + 1)

    mean, m2 = rows(moments.mean), rows(moments.m2)
    if repeats == 1:
        return Moments(moments.count, mean, m2)
    each = mean.unflatten(1, (-1, repeats))
    mean = each.mean(2)
    return Moments(repeats, mean, (each - mean.unsqueeze(2)).square().sum(2))


def _with_more_baselines(one: Explained, more: Explained) -> Explained:
    moments = [a + b for a, b in zip(one.moments, more.moments, strict=True)]
    sums = [_sums(both.mean) for both in moments]
    expected = one.expected + more.expected
    return replace(
        one, moments=moments, sums=sums, expected=expected, inexact=_union([one, more]), cuts=_cuts([one, more])
    )


def _joined(parts: Sequence[Explained]) -> Explained:
    """The parts for consecutive inputs as one."""
    moments = [
        Moments(same[0].count, torch.cat([m.mean for m in same], 1), torch.cat([m.m2 for m in same], 1))
        for same in zip(*(part.moments for part in parts), strict=True)
    ]
    sums = [torch.cat(same) for same in zip(*(part.sums for part in parts), strict=True)]
    outputs, expected, targets = (
        torch.cat([getattr(p, name) for p in parts]) for name in ("outputs", "expected", "targets")
    )
    return Explained(
        moments, sums, parts[0].layers, outputs, expected, targets, _union(parts), _cuts(parts), parts[0].precision
    )


def _sums(values: Tensor) -> Tensor:
    """``[B, K]``: each input's values ``[K, B, *features]`` summed, in float64."""
    return (values.double().flatten(2).sum(2) if values.dim() > 2 else values.double()).t()


def _cuts(parts: Sequence[Explained]) -> list[Cut]:
    """The layers that add up in all parts."""
    return [
        replace(same[0], whole=all(cut.whole for cut in same)) for same in zip(*(p.cuts for p in parts), strict=True)
    ]


def _union(parts: Sequence[Explained]) -> dict[str, set[int]]:
    union: dict[str, set[int]] = {}
    for part in parts:
        for title, rows in part.inexact.items():
            union.setdefault(title, set()).update(rows)
    return union
