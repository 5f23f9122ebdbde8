"""The rule for a function, operation or module without one of its own: its mean gradient on the segment from baseline to input.

These are integrated gradients (arXiv 1703.01365, section 3) of that function alone, and complete where it is continuous.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ..capture.writes import Contents
from ..errors import UnsupportedOperationError
from ..memory import is_out_of_memory
from ..ops.batching import in_front
from .prod import nodes
from .registry import Application
from .segment import Rows, Segment, mean_gradient
from .whole import Whole


def integrate(
    function: Callable[..., Any], args: Any, kwargs: Any, operands: Sequence[Tensor], opaque: bool = False
) -> Application:
    """The application of any function that returns tensors, in whatever tuples, lists and dicts.

    ``operands``: the tensors in its arguments that carry multipliers. ``opaque``: it may do what has no batching rule, so that its pairs
    run as one batch or one by one.
    """
    unique = list({id(operand): operand for operand in operands}.values())
    integrated = _Integrated(Whole(function, args, kwargs, unique), opaque)
    return Application(unique, integrated.forward, integrated.multipliers, rebuild=integrated.rebuild)


#: What a function may return beside tensors.
_PLAIN = (bool, int, float, str, torch.dtype, torch.device, torch.Size, type(None))


class _Integrated:
    """One call of a function, which can be repeated with other operands."""

    def __init__(self, whole: Whole, opaque: bool) -> None:
        self.opaque = opaque
        self._whole = whole
        self._rebuild: Callable[[Sequence[Tensor]], Any] = tuple

    def forward(self, *values: Tensor) -> tuple[Any, Sequence[Tensor]]:
        result = self._whole.on_copies(values, "is integrated", may_write=not self.opaque)
        items, structure = tree_flatten(result)
        tensors = [item for item in items if isinstance(item, Tensor)]
        explained = [tensor for tensor in tensors if tensor.is_floating_point()]
        # An object of another type may hide tensors from this function.
        others = [item for item in items if not isinstance(item, (Tensor, *_PLAIN))]
        others += [tensor.dtype for tensor in tensors if tensor.is_complex()]
        if others or not explained:
            found = type(others[0]).__name__ if others else "none"
            raise UnsupportedOperationError(
                f"is integrated, for which it must return real floating-point tensors, in tuples, lists and dicts, but there is {found} in "
                f"what it returns"
            )

        def rebuild(outputs: Sequence[Tensor]) -> Any:
            following = iter(outputs)
            return tree_unflatten([next(following) if isinstance(item, Tensor) else item for item in items], structure)

        single = isinstance(result, Tensor)
        self._rebuild = (lambda output: output) if single else rebuild
        return result if single else tuple(tensors), [*values, *explained]

    def rebuild(self, outputs: Any) -> Any:
        """What the function returned, put together from the tensors in it."""
        return self._rebuild(outputs)

    def multipliers(self, _: Tensor, sides: Any) -> list[Tensor]:
        grads = [grad for grad in sides.grads if grad is not None and grad.is_floating_point()]
        pairs = [sides.pair(position) for position in range(len(self._whole.operands) + len(grads))]
        shapes = [sides.geometry(position) for position in range(len(pairs))]
        rows = [Rows(outer, batch, sides.batch_dim(position)) for position, (outer, batch, _) in enumerate(shapes)]
        if len({one.batch for one in rows}) > 1:
            rows = [Rows(1, 1)] * len(rows)
        x, r = [x for x, _ in pairs], [r.expand_as(x) for x, r in pairs]
        return list(_MeanGradient.apply(self, sides.report_gap, rows, *grads, *x, *r))  # type: ignore[no-untyped-call]

    def outputs(self, *points: Tensor) -> tuple[Tensor, ...]:
        """The floating-point tensors that the function returns at one pair's points."""
        # The capture, which would see the function write into other arguments than the operands, is not on here.
        contents = Contents()
        for tensor in self._whole.constants() if self.opaque else ():
            contents.before_write(tensor)
        try:
            items, _ = tree_flatten(self._whole([point.clone() for point in points]))
        finally:
            contents.put_back()
        return tuple(item for item in items if isinstance(item, Tensor) and item.is_floating_point())

    def gradients(self, grads: Sequence[Tensor], *points: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """:meth:`outputs`, and the gradients of the points for the multipliers ``grads`` of the outputs."""
        if not self.opaque:
            values, pull_back, *_ = torch.func.vjp(self.outputs, *points)
            return values, pull_back(tuple(grads))
        with torch.enable_grad():
            leaves = [point.detach().requires_grad_() for point in points]
            outputs = self.outputs(*leaves)
            active = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if output.requires_grad]
            if not active:
                return outputs, [torch.zeros_like(leaf) for leaf in leaves]
            ends, cotangents = [output for output, _ in active], [grad for _, grad in active]
            found = torch.autograd.grad(ends, leaves, cotangents, materialize_grads=True, allow_unused=True)
        return [output.detach() for output in outputs], found


class _MeanGradient(torch.autograd.Function):
    """The mean gradient; under vmap once for all pairs, because how a segment is divided depends on values, which vmap hides."""

    @staticmethod
    def forward(
        integrated: _Integrated, report: Callable[[float], None], rows: Sequence[Rows], *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        found = _MeanGradient._of_pairs(integrated, report, rows, [tensor.unsqueeze(0) for tensor in tensors])
        return tuple(part.squeeze(0) for part in found)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, integrated: Any, report: Any, rows: Any, *tensors: Tensor) -> tuple[Any, Any]:
        pairs = [in_front(tensor, dim, info.batch_size) for tensor, dim in zip(tensors, in_dims[3:], strict=True)]
        found = _MeanGradient._of_pairs(integrated, report, rows, pairs)
        return tuple(found), (0,) * len(found)

    @staticmethod
    def _of_pairs(
        integrated: _Integrated, report: Callable[[float], None], rows: Sequence[Rows], tensors: Sequence[Tensor]
    ) -> list[Tensor]:
        """The operands' multipliers ``[V, ...]``.

        ``tensors`` ``[V, ...]``: the outputs' multipliers, then operands and outputs for the inputs, then those for the baselines.
        """
        grads, x, r = _parted(tensors, len(tensors) - 2 * len(rows), len(rows))
        operands = len(rows) - len(grads)
        run = _Pairs(integrated, rows[:operands], rows[operands:], len(x[0]))
        if integrated.opaque and not run.can_be_folded(r[:operands], r[operands:]):
            run.one_by_one = True
        found, gap = mean_gradient(
            Segment(
                run.outputs,
                run.gradients,
                grads,
                x[:operands],
                r[:operands],
                x[operands:],
                r[operands:],
                rows[:operands],
                rows[operands:],
            )
        )
        report(gap)
        return found


def _parted(tensors: Sequence[Tensor], *numbers: int) -> list[Sequence[Tensor]]:
    """The tensors in consecutive parts: so many in each, and in the last part the rest."""
    starts = [sum(numbers[:number]) for number in range(len(numbers) + 1)]
    return [tensors[first:last] for first, last in zip(starts, [*starts[1:], len(tensors)], strict=True)]


class _Pairs:
    """Runs a function on the operands ``[V, ...]`` of ``V`` pairs.

    Operations of torch are vmapped. An opaque function, which may have no batching rule, runs on the pairs as so many more samples of one
    batch (they are folded); or, where it depends on the batch that it was called with, one by one.
    """

    def __init__(self, integrated: _Integrated, rows: Sequence[Rows], output_rows: Sequence[Rows], number: int) -> None:
        self.one_by_one = False
        self._integrated, self._rows, self._output_rows, self._number = integrated, rows, output_rows, number

    def can_be_folded(self, points: Sequence[Tensor], values: Sequence[Tensor]) -> bool:
        """Whether the function, run on the pairs as one batch, gives the known ``values`` at these points."""
        if self._number == 1 or any(rows.dim is None for rows in (*self._rows, *self._output_rows)):
            return False
        try:
            found = self.outputs(*points)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            return False
        return all(
            one.shape == other.shape
            and torch.allclose(one, other, rtol=0, atol=tolerance * float(other.abs().max()), equal_nan=True)
            for one, other in zip(found, values, strict=True)
            for tolerance in [torch.finfo(other.dtype).eps ** 0.5]
        )

    def outputs(self, *points: Tensor) -> Sequence[Tensor]:
        if self._folds:
            found = self._integrated.outputs(*_each(Rows.fold, self._rows, points))
            return [rows.unfold(one, self._number) for rows, one in zip(self._output_rows, found, strict=True)]
        return self._batched(self._integrated.outputs)(*points)

    def gradients(self, grads: Sequence[Tensor], *points: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        if self._folds:
            outputs, found = self._integrated.gradients(
                _each(Rows.fold, self._output_rows, grads), *_each(Rows.fold, self._rows, points)
            )
            return (
                [rows.unfold(one, self._number) for rows, one in zip(self._output_rows, outputs, strict=True)],
                [rows.unfold(one, self._number) for rows, one in zip(self._rows, found, strict=True)],
            )
        return self._batched(self._integrated.gradients)(tuple(grads), *points)

    @property
    def _folds(self) -> bool:
        return self._integrated.opaque and not self.one_by_one

    def _batched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not self._integrated.opaque:
            return torch.func.vmap(function)

        def looped(*args: Any) -> Any:
            found = [function(*tree_map(lambda one: one[number], args)) for number in range(self._number)]  # noqa: B023
            return tree_map(lambda *parts: torch.stack(parts), *found)

        return looped


def _each(function: Callable[..., Tensor], rows: Sequence[Rows], tensors: Sequence[Tensor]) -> list[Tensor]:
    """A method of :class:`Rows` for each of them with its tensor."""
    return [function(one, tensor) for one, tensor in zip(rows, tensors, strict=True)]


def multilinear(function: Callable[..., Any], args: Any, operands: Sequence[Tensor], factors: int) -> Application:
    """The application of a product of ``factors`` factors, linear in each: their exact Shapley values.

    These are the mean of its derivative along the segment, since the product is its own multilinear extension (Owen, Management Science 18,
    1972). The derivative is a polynomial of a degree below ``factors``, which half as many Gauss-Legendre nodes integrate exactly; for two
    factors that is one node, the midpoint.
    """
    unique = list({id(operand): operand for operand in operands}.values())

    def run(*values: Tensor) -> Tensor:
        given = {id(operand): value for operand, value in zip(unique, values, strict=True)}
        result: Tensor = function(*tree_map(lambda item: given.get(id(item), item), args))
        return result

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        pairs = [sides.pair(position) for position in range(len(unique))]
        totals: list[Tensor] = []
        for place, weight in nodes(factors):
            points = [(r + place * (x - r)).expand_as(x) for x, r in pairs]
            parts = [weight * part for part in torch.func.vjp(run, *points)[1](grad)]
            totals = [total + part for total, part in zip(totals, parts, strict=True)] if totals else parts
        return totals

    return Application(unique, lambda *values: (run(*values), values), multipliers)
