"""Whether an input pass and a reference pass ran the same operations, on the same values wherever no multiplier passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node

from .capture.graph import Cut, beside_cuts, led_past
from .capture.layout import Layout
from .capture.tape import Entry
from .errors import ControlFlowError, ExplanationError
from .pairs import Pairs


def differing_operands(pairs: Pairs) -> list[tuple[Entry, Tensor]]:
    """Operations with operands that carry no gradient and differ between an input and its baselines, with which inputs ``[samples]``.

    Those are left out whose results reach the output only through the explained tensors. Raises :class:`ControlFlowError` where the
    passes ran different operations.
    """
    found = []
    beside: set[Node] | None = None
    ours, theirs = pairs.inputs.tape, pairs.baselines.tape
    for entry in (ours.overwritten(), theirs.overwritten()):
        if entry is not None:
            raise ExplanationError(
                f"{entry.called}: its input is modified in place where the modification cannot be followed"
            )
    for one, other in zip(ours.entries, theirs.entries, strict=False):
        layouts = pairs.layouts.of(one)
        _check_same(pairs, one, other, layouts)
        if one.multipliers is None and one.kept:
            wrong = torch.zeros(pairs.samples, dtype=torch.bool, device=one.kept[0].device)
            for x, r, layout in zip(one.kept, other.kept, layouts, strict=True):
                wrong |= _inputs_differing(pairs, x, r, layout)
            if not wrong.any():
                continue
            beside = beside_cuts(pairs.inputs) if beside is None else beside
            if not beside.isdisjoint(one.nodes):
                found.append((one, wrong))
    if len(ours.entries) != len(theirs.entries):
        shorter, longer = sorted((ours.entries, theirs.entries), key=len)
        raise ControlFlowError(f"{longer[len(shorter)].called} runs for some inputs or baselines only")
    return found


def operands_differ(pairs: Pairs, adding_up: list[Cut]) -> list[Tensor]:
    """``[]`` each: whether :func:`differing_operands` would find these operands, which keep the cuts from adding up; no value is read."""
    beside = beside_cuts(pairs.inputs)
    wrong = []
    for one, other in zip(pairs.inputs.tape.entries, pairs.baselines.tape.entries, strict=True):
        layouts = pairs.layouts.of(one)
        _check_same(pairs, one, other, layouts)
        if one.multipliers is not None or beside.isdisjoint(one.nodes):
            continue
        if one.past and led_past(pairs.inputs, adding_up, one) == adding_up:
            continue
        for x, r, layout in zip(one.kept, other.kept, layouts, strict=True):
            wrong.append(_inputs_differing(pairs, x, r, layout, unread=True).any())
    return [torch.stack(wrong).any()] if wrong else []


def layouts_ambiguous(pairs: Pairs) -> bool:
    """Whether layouts that fit equally well would compare an input with other parts of its baselines."""
    if not pairs.layouts.rowwise and not pairs.layouts.explained_certain:
        return True
    return any(
        not _pair_alike(pairs, x, r, candidates)
        for one, other in zip(pairs.inputs.tape.entries, pairs.baselines.tape.entries, strict=False)
        for x, r, candidates in zip(one.kept, other.kept, pairs.layouts.candidates(one), strict=False)
        if len(candidates) > 1
    )


def _check_same(pairs: Pairs, one: Entry, other: Entry, layouts: Sequence[Layout | None]) -> None:
    """Raise :class:`ControlFlowError` where an entry of the inputs' tape is another operation than that of the baselines' tape."""
    if one.title != other.title or one.module != other.module:
        raise ControlFlowError(
            f"the model calls {one.called} for the inputs where it calls {other.called} for the baselines"
        )
    if len(one.kept) != len(layouts):
        raise ControlFlowError(f"{one.called} does not run for every input or baseline")
    if not _same_value(one.value, other.value):
        raise ControlFlowError(
            f"{one} gives {one.value!r} for the inputs and {other.value!r} for the baselines: what the model does with it cannot be "
            f"explained"
        )
    for x, r, layout in zip(one.kept, other.kept, layouts, strict=True):
        if layout is None:
            alike = x.shape == r.shape
        else:
            for side, rows in ((x, pairs.samples), (r, pairs.baselines.output.shape[0])):
                if side.dim() > layout.dim and side.shape[layout.dim] != rows * layout.before * layout.after:
                    raise ControlFlowError(
                        f"{one.called} has a number of elements that depends on the values of the input"
                    )
            alike = layout.per_sample(x.shape) == layout.per_sample(r.shape)
        if not alike:
            raise ControlFlowError(
                f"{one.called} has shape {list(x.shape)} for the inputs and {list(r.shape)} for the baselines"
            )


def _inputs_differing(pairs: Pairs, x: Tensor, r: Tensor, layout: Layout | None, unread: bool = False) -> Tensor:
    """``[samples]``: which inputs have rows in ``x`` that differ from the rows of any of their baselines in ``r``."""
    if layout is None:
        return _differing_rows(x[None], r[None], unread).expand(pairs.samples)
    x, r = layout.rows(x), layout.rows(r)
    if pairs.pairing == "grid":
        return _differing_rows(x, r[:1].expand_as(x), unread) | _differing_rows(r, r[:1].expand_as(r), unread).any()
    if pairs.pairing == "per_sample":
        r = r.unflatten(0, (pairs.samples, -1))
        return torch.stack([_differing_rows(x, r[:, j], unread) for j in range(r.shape[1])]).any(0)
    return _differing_rows(x, r, unread)


def _pair_alike(pairs: Pairs, x: Tensor, r: Tensor, candidates: Sequence[Layout | None]) -> bool:
    """Whether all candidates pair the inputs with the same elements of ``r``, so that it does not matter which is right."""
    baselines = len(pairs.baselines.output)
    count = {"grid": baselines, "per_sample": baselines // pairs.samples, "aligned": 1}[pairs.pairing]
    for row in torch.arange(count, device=r.device).split(1):
        first, *others = (pairs.baseline(r, layout, row).expand_as(x) for layout in candidates)
        if any(_differing_rows(first[None], other[None]).any() for other in others):
            return False
    return True


def _differing_rows(x: Tensor, r: Tensor, unread: bool = False) -> Tensor:
    """``[rows]``: which rows of ``x`` and ``r`` differ by more than rounding, which can depend on the size of the batch.

    ``unread``: which operations run must not depend on values, so that they can be traced.
    """
    x, r = (torch.view_as_real(side.resolve_conj()) if side.is_complex() else side for side in (x, r))
    x, r = x.reshape(len(x), -1), r.reshape(len(r), -1)
    same = x == r
    if x.is_floating_point():
        same |= x.isnan() & r.isnan()
        if unread or not same.all():
            same |= _within_rounding(x, r)
    return ~same.all(1)


def _within_rounding(x: Tensor, r: Tensor) -> Tensor:
    """Where ``x`` and ``r`` ``[rows, elements]`` differ by no more than the rounding of sums as large as the row's largest element.

    Rows of whole numbers (categories, steps, masks) are no such sums: there any difference counts. The bound is 1024 units of rounding,
    since a sum of a thousand terms that cancel was seen to move by 400 with the size of the batch; half precision is summed in float32 and
    rounded once, so it needs fewer. A decision that makes a smaller difference than this is left to the additivity check.
    """
    eps = torch.finfo(x.dtype).eps
    rounding = 4 * eps if eps > 1e-4 else 1024 * eps
    scale = torch.maximum(x.abs(), r.abs()).nan_to_num(0, 0, 0).amax(1, keepdim=True)
    whole = ((x == x.round()) & (r == r.round())).all(1, keepdim=True)
    return ((x - r).abs() <= rounding * scale) & ~whole


def _same_value(one: Any, other: Any) -> bool:
    """Whether Python read the same from both sides: a number, a tuple or list of them, or an array."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_same_value(a, b) for a, b in zip(one, other, strict=True))
    same = one == other
    return bool(same.all() if hasattr(same, "all") else same)
