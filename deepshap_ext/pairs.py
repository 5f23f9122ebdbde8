"""The pair pass: one vmapped backward over input-baseline pairs, through the graph of the input pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, _engine_run_backward, get_gradient_edge

from . import ops
from .batched import over_rows
from .capture.fold import fold
from .capture.graph import Cut, beside_cuts, led_past
from .capture.layout import Layout
from .capture.passes import Pass
from .capture.probe import Layouts
from .capture.tape import Entry
from .errors import ControlFlowError, ExplanationError

Pairing = Literal["grid", "aligned", "per_sample", "alone"]


class Pairs:
    """Inputs and baselines whose tapes belong together, and the baseline that each running cotangent belongs to.

    ``pairing``: ``grid``, every input with every one of ``R`` baselines; ``per_sample``, input ``b`` with its own rows
    ``b*R .. b*R+R-1`` of the baselines; ``aligned``, input ``b`` with baseline ``b``; ``alone``, likewise, of one row each, whose
    tensors need not be told apart by sample.
    """

    def __init__(self, inputs: Pass, baselines: Pass, layouts: Layouts, pairing: Pairing) -> None:
        alone = pairing == "alone"
        fold(inputs)
        self.inputs = inputs
        self.baselines = baselines
        self.layouts = layouts.by_row() if alone else layouts
        self.pairing: Pairing = "aligned" if alone else pairing
        self.samples = len(inputs.output)
        self.row: Tensor = torch.empty(0, device="cpu")
        #: How many cotangents run at once.
        self.cotangents = 1
        #: How far what was integrated is from adding up, by entry: the largest gap of any pair, in units of the explained output.
        self.gaps: dict[str, float] = {}

    def sides(self, entry: Entry, grads: Sequence[Tensor]) -> Sides:
        return Sides(self, entry, grads)

    def multipliers(self, chosen: Tensor, rows: Tensor) -> list[Tensor]:
        """Multipliers ``[V, *explained.shape]`` of every explained tensor, for the flattened outputs ``chosen`` ``[V, samples]`` on
        baselines ``rows`` ``[V]``."""
        self.inputs.record.running.pairs = self
        self.cotangents = len(rows)
        start: Any
        start, cotangents = _before_last_linear(self.inputs, chosen) or (self.inputs.output, self._one_hot(chosen))

        edges = tuple(self.inputs.edges)

        def one(cotangent: Tensor, row: Tensor) -> list[Tensor]:
            self.row = row
            # torch.autograd.grad without its checks, which take longer than a small backward: graph kept, no graph of its own, and what
            # does not lead to the output has no gradient.
            found = _engine_run_backward((start,), (cotangent,), True, False, edges, True, accumulate_grad=False)
            return [
                torch.zeros_like(tensor) if grad is None else grad
                for grad, tensor in zip(found, self.inputs.explained, strict=True)
            ]

        try:
            return over_rows(one, cotangents, rows)
        finally:
            self.inputs.record.running.pairs = None

    def _one_hot(self, chosen: Tensor) -> Tensor:
        """The cotangents ``[V, *output.shape]`` of the output that take one of its flattened elements a sample."""
        output = self.inputs.output
        zeros = output.new_zeros(*chosen.shape, output[0].numel())
        return zeros.scatter_(2, chosen.unsqueeze(2), 1).view(-1, *output.shape)

    def ambiguous(self) -> bool:
        """Whether layouts that fit equally well would compare an input with other parts of its baselines."""
        if not self.layouts.rowwise and not self.layouts.explained_certain:
            return True
        return any(
            not self._alike(x, r, candidates)
            for one, other in zip(self.inputs.tape.entries, self.baselines.tape.entries, strict=False)
            for x, r, candidates in zip(one.kept, other.kept, self.layouts.candidates(one), strict=False)
            if len(candidates) > 1
        )

    def _alike(self, x: Tensor, r: Tensor, candidates: Sequence[Layout | None]) -> bool:
        baselines = len(self.baselines.output)
        count = {"grid": baselines, "per_sample": baselines // self.samples, "aligned": 1}[self.pairing]
        for row in torch.arange(count, device=r.device).split(1):
            first, *others = (self.baseline(r, layout, row).expand_as(x) for layout in candidates)
            if not all(_equal_tensors(first, other) for other in others):
                return False
        return True

    def baseline(self, r: Tensor, layout: Layout | None, row: Tensor) -> Tensor:
        """Of a tensor of the baselines what the inputs are compared with where these meet baseline ``row`` ``[1]``; it broadcasts to the
        shape of theirs."""
        if layout is None or self.pairing == "aligned":
            return r
        dim = layout.dim
        split = layout.split(r)
        if self.pairing == "per_sample":
            own = split.unflatten(dim + 1, (self.samples, -1)).index_select(dim + 2, row)
            return own.flatten(dim, dim + 3)
        one = split.index_select(dim + 1, row)
        if layout.before > 1 or layout.after > 1:
            one = one.expand(*one.shape[: dim + 1], self.samples, *one.shape[dim + 2 :])
        return one.flatten(dim, dim + 2)

    def inexact(self) -> list[tuple[Entry, Tensor]]:
        """Operations whose gradient-free operands differ between an input and its baselines, with the inputs ``[samples]`` concerned; of
        those whose results reach the output other than through what is explained.

        Raises :class:`ControlFlowError` where the passes ran different operations.
        """
        found = []
        beside: set[Node] | None = None
        ours, theirs = self.inputs.tape, self.baselines.tape
        for entry in (ours.overwritten(), theirs.overwritten()):
            if entry is not None:
                raise ExplanationError(
                    f"{entry.called}: its input is modified in place where the modification cannot be followed"
                )
        for one, other in zip(ours.entries, theirs.entries, strict=False):
            layouts = self.layouts.of(one)
            self._check_same(one, other, layouts)
            if one.multipliers is None and one.kept:
                wrong = torch.zeros(self.samples, dtype=torch.bool, device=one.kept[0].device)
                for x, r, layout in zip(one.kept, other.kept, layouts, strict=True):
                    wrong |= self._differing(x, r, layout)
                if not wrong.any():
                    continue
                beside = beside_cuts(self.inputs) if beside is None else beside
                if not beside.isdisjoint(one.nodes):
                    found.append((one, wrong))
        if len(ours.entries) != len(theirs.entries):
            shorter, longer = sorted((ours.entries, theirs.entries), key=len)
            raise ControlFlowError(f"{longer[len(shorter)].called} runs for some inputs or baselines only")
        return found

    def differs(self, adding_up: list[Cut]) -> Tensor:
        """``[]``: whether :meth:`inexact` would find operands that keep attributions from adding up as these cuts say; no value is read."""
        beside = beside_cuts(self.inputs)
        wrong = [torch.zeros((), dtype=torch.bool, device=self.inputs.output.device)]
        for one, other in zip(self.inputs.tape.entries, self.baselines.tape.entries, strict=True):
            layouts = self.layouts.of(one)
            self._check_same(one, other, layouts)
            if one.multipliers is not None or beside.isdisjoint(one.nodes):
                continue
            if one.past and led_past(self.inputs, adding_up, one) == adding_up:
                continue
            for x, r, layout in zip(one.kept, other.kept, layouts, strict=True):
                wrong.append(self._differing(x, r, layout, unread=True).any())
        return torch.stack(wrong).any() if len(wrong) > 1 else wrong[0]

    def _check_same(self, one: Entry, other: Entry, layouts: Sequence[Layout | None]) -> None:
        if one.title != other.title or one.module != other.module:
            raise ControlFlowError(
                f"the model calls {one.called} for the inputs where it calls {other.called} for the baselines"
            )
        if len(one.kept) != len(layouts):
            raise ControlFlowError(f"{one.called} does not run for every input or baseline")
        if not _equal(one.value, other.value):
            raise ControlFlowError(
                f"{one} gives {one.value!r} for the inputs and {other.value!r} for the baselines: what the model does with it cannot be "
                f"explained"
            )
        for x, r, layout in zip(one.kept, other.kept, layouts, strict=True):
            if layout is None:
                alike = x.shape == r.shape
            else:
                for side, rows in ((x, self.samples), (r, self.baselines.output.shape[0])):
                    if side.dim() > layout.dim and side.shape[layout.dim] != rows * layout.before * layout.after:
                        raise ControlFlowError(
                            f"{one.called} has a number of elements that depends on the values of the input"
                        )
                alike = layout.per_sample(x.shape) == layout.per_sample(r.shape)
            if not alike:
                raise ControlFlowError(
                    f"{one.called} has shape {list(x.shape)} for the inputs and {list(r.shape)} for the baselines"
                )

    def _differing(self, x: Tensor, r: Tensor, layout: Layout | None, unread: bool = False) -> Tensor:
        """The inputs ``[samples]`` whose rows differ from any of their baselines' rows."""
        if layout is None:
            return _unequal(x[None], r[None], unread).expand(self.samples)
        x, r = layout.rows(x), layout.rows(r)
        if self.pairing == "grid":
            return _unequal(x, r[:1].expand_as(x), unread) | _unequal(r, r[:1].expand_as(r), unread).any()
        if self.pairing == "per_sample":
            r = r.unflatten(0, (self.samples, -1))
            return torch.stack([_unequal(x, r[:, j], unread) for j in range(r.shape[1])]).any(0)
        return _unequal(x, r, unread)


class Sides:
    """What a rule reads in the pair pass: the tensors that its operation kept, of the inputs and of the baselines.

    ``x`` and ``r`` are lists of them, with all rows of either side, wherever the batch lies; :meth:`pair` gives those that belong together.
    ``grads``: the multipliers of all outputs of the operation, in order.
    """

    def __init__(self, pairs: Pairs, entry: Entry, grads: Sequence[Tensor]) -> None:
        self.grads = grads
        self._entry = entry
        self._pairs = pairs
        self._layouts = pairs.layouts.of(entry)
        self.x: Sequence[Tensor] = entry.kept
        self.r: Sequence[Tensor] = pairs.baselines.tape.entries[entry.number].kept

    @property
    def scale(self) -> Tensor | None:
        """``[channels]``: what the multipliers of the output are still to be multiplied by (see :class:`deepshap_ext.Application`)."""
        return self._entry.taken

    @property
    def cotangents(self) -> int:
        """How many multipliers of the output are computed at once: all are of the shape of the one that the rule is given."""
        return self._pairs.cotangents

    def report_gap(self, gap: float) -> None:
        """Tell how far the multipliers of a pair are from adding up, in units of the explained output, where a rule cannot do better; where
        values do not add up, the message then names the operation with its largest ``gap``."""
        gaps, name = self._pairs.gaps, str(self._entry)
        gaps[name] = max(gap, gaps.get(name, 0.0))

    def rows(self) -> Tensor:
        """``[1]``: the row of the baselines that the running cotangent belongs to."""
        return self._pairs.row.unsqueeze(0)

    def geometry(self, position: int = 0) -> tuple[int, int, str]:
        """``(outer, batch, pairing)`` of kept tensor ``position``, as the native operations take it."""
        layout = self._layouts[position]
        if layout is None:
            return 1, 1, "aligned"
        return layout.outer(self.x[position].shape), self._pairs.samples, self._pairs.pairing

    def batch_dim(self, position: int = 0) -> int | None:
        """The dimension of kept tensor ``position`` that the samples are in; None where it has none."""
        layout = self._layouts[position]
        return None if layout is None else layout.dim

    def pair(self, position: int = 0) -> tuple[Tensor, Tensor]:
        """Kept tensor ``position`` of the inputs and of the running cotangent's baseline, of shapes that broadcast.

        For rules composed of torch operations: these run inside ``torch.func.vmap``, the baseline's row is a batched index.
        """
        x, r, layout = self.x[position], self.r[position], self._layouts[position]
        return x, self._pairs.baseline(r, layout, self.rows())

    def midpoint(self, position: int = 0) -> Tensor:
        """The mean of the two sides of kept tensor ``position``."""
        x, r = self.x[position], self.r[position]
        if x.is_complex():
            x, r = self.pair(position)
            return (x + r) / 2
        return ops.midpoint(x, r, self.rows(), *self.geometry(position)).squeeze(0)


def _before_last_linear(graph: Pass, chosen: Tensor) -> tuple[GradientEdge, Tensor] | None:
    """Where a model ends in a linear layer: the layer's input in the graph, and its cotangents for the outputs ``chosen`` ``[V, samples]``.

    That is a row of the weight for each; a one-hot cotangent of the output would take the outputs' number squared for all of them.
    """
    root = get_gradient_edge(graph.output).node
    if root.name() != "AddmmBackward0" or any(edge.node is root for edge in graph.edges):
        return None
    bias, (hidden, number), weight = root.next_functions
    if hidden is None or bias[0] is not None or weight[0] is not None:
        return None
    saved: Any = root
    rows = torch.embedding(saved._saved_mat2.t(), chosen)
    return GradientEdge(hidden, number), rows if saved._saved_alpha == 1 else saved._saved_alpha * rows


def _equal_tensors(one: Tensor, other: Tensor) -> bool:
    return not _unequal(one[None], other[None]).any()


def _unequal(x: Tensor, r: Tensor, unread: bool = False) -> Tensor:
    """The rows that differ by more than rounding, which may be another one in another batch; ``unread``: no value decides what is run."""
    x, r = (torch.view_as_real(side.resolve_conj()) if side.is_complex() else side for side in (x, r))
    x, r = x.reshape(len(x), -1), r.reshape(len(r), -1)
    same = x == r
    if x.is_floating_point():
        same |= x.isnan() & r.isnan()
        if unread or not same.all():
            same |= _rounded(x, r)
    return ~same.all(1)


def _rounded(x: Tensor, r: Tensor) -> Tensor:
    """Where ``x`` and ``r`` ``[rows, elements]`` differ by no more than the rounding of sums as large as the row's largest element.

    Whole numbers (categories, steps, masks) are no such sums. A sum of a thousand terms that cancel to a single element was seen to move by
    400 units of its rounding with the size of the batch; half precision rounds once what is summed in float32. What is left of a decision
    smaller than that, the check of additivity sees.
    """
    eps = torch.finfo(x.dtype).eps
    rounding = 4 * eps if eps > 1e-4 else 1024 * eps
    scale = torch.maximum(x.abs(), r.abs()).nan_to_num(0, 0, 0).amax(1, keepdim=True)
    whole = ((x == x.round()) & (r == r.round())).all(1, keepdim=True)
    return ((x - r).abs() <= rounding * scale) & ~whole


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_equal(a, b) for a, b in zip(one, other, strict=True))
    same = one == other
    return bool(same.all() if hasattr(same, "all") else same)
