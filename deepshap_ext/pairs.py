"""The pair pass: one vmapped backward over input-baseline pairs, through the graph of the input pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, _engine_run_backward, get_gradient_edge

from . import ops
from .batched import over_rows
from .capture.fold import fold
from .capture.hooks import Pass
from .capture.layout import Layout
from .capture.probe import Layouts
from .capture.tape import Entry

Pairing = Literal["grid", "aligned", "per_sample", "alone"]


class Pairs:
    """An input pass and a reference pass whose operations correspond, and how their rows are paired.

    ``pairing``: ``grid``, every input with every one of ``R`` baselines; ``per_sample``, input ``b`` with its own rows
    ``b*R .. b*R+R-1`` of the baselines; ``aligned``, input ``b`` with baseline ``b``; ``alone``, aligned with a single row on each side, so
    that no layout is needed.
    """

    def __init__(self, inputs: Pass, baselines: Pass, layouts: Layouts, pairing: Pairing) -> None:
        alone = pairing == "alone"
        fold(inputs)
        self.inputs = inputs
        self.baselines = baselines
        self.layouts = layouts.by_row() if alone else layouts
        self.pairing: Pairing = "aligned" if alone else pairing
        self.samples = len(inputs.output)
        #: The row of the baselines that the running cotangent belongs to, ``[]``; batched inside of the vmapped backward.
        self.row: Tensor = torch.empty(0, device="cpu")
        #: How many cotangents run at once.
        self.cotangents = 1
        #: By operation that was integrated, the largest gap of a pair's integral from adding up, in units of the explained output.
        self.gaps: dict[str, float] = {}

    def sides(self, entry: Entry, grads: Sequence[Tensor]) -> Sides:
        return Sides(self, entry, grads)

    def multipliers(self, chosen: Tensor, rows: Tensor) -> list[Tensor]:
        """Multipliers ``[V, *explained.shape]`` of every explained tensor, for ``V`` cotangents at once.

        Each has a flattened output for every sample, ``chosen`` ``[V, samples]``, and a row of the baselines, ``rows`` ``[V]``.
        """
        self.inputs.capture.running.pairs = self
        self.cotangents = len(rows)
        start: Any
        start, cotangents = _before_last_linear(self.inputs, chosen) or (self.inputs.output, self._one_hot(chosen))

        edges = tuple(self.inputs.edges)

        def one(cotangent: Tensor, row: Tensor) -> list[Tensor]:
            self.row = row
            # What torch.autograd.grad(start, edges, cotangent, retain_graph=True, allow_unused=True) calls, without its checks, which take
            # longer than a small backward.
            found = _engine_run_backward((start,), (cotangent,), True, False, edges, True, accumulate_grad=False)
            return [
                torch.zeros_like(tensor) if grad is None else grad
                for grad, tensor in zip(found, self.inputs.explained, strict=True)
            ]

        try:
            return over_rows(one, cotangents, rows)
        finally:
            self.inputs.capture.running.pairs = None

    def baseline(self, r: Tensor, layout: Layout | None, row: Tensor) -> Tensor:
        """The rows of ``r``, a tensor of the baselines, that the inputs are paired with in the cotangent of baseline ``row`` ``[1]``.

        The result broadcasts to the shape of the inputs' tensor.
        """
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

    def _one_hot(self, chosen: Tensor) -> Tensor:
        """Cotangents ``[V, *output.shape]`` of the output: 1 at each sample's flattened output ``chosen`` ``[V, samples]``, otherwise 0."""
        output = self.inputs.output
        zeros = output.new_zeros(*chosen.shape, output[0].numel())
        return zeros.scatter_(2, chosen.unsqueeze(2), 1).view(-1, *output.shape)


class Sides:
    """What a rule reads in the pair pass: the tensors that its operation kept, of the inputs and of the baselines.

    ``x`` and ``r``: lists of these tensors, with all rows of either side, wherever the batch lies in them; :meth:`pair` gives the two
    tensors whose rows belong together. ``grads``: the multipliers of all outputs of the operation, in order.
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
        """How many cotangents are computed at once; a rule runs inside ``torch.func.vmap`` and is given the multipliers of one."""
        return self._pairs.cotangents

    def report_gap(self, gap: float) -> None:
        """Report how far a pair's multipliers are from adding up, in units of the explained output, where the rule cannot do better.

        If values do not add up, the message names the operation with its largest ``gap``.
        """
        gaps, name = self._pairs.gaps, str(self._entry)
        gaps[name] = max(gap, gaps.get(name, 0.0))

    def rows(self) -> Tensor:
        """``[1]``, int64: the row of the baselines that the running cotangent belongs to, as the native operations take it."""
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
    """For a model that ends in a linear layer, where its backward can start: the layer's input in the graph, and the cotangents there.

    Such a cotangent is a row of the weight for each output ``chosen`` ``[V, samples]``. One-hot cotangents of the output would take memory
    by the square of the number of outputs where all are explained.
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
