"""Finding the batch in every tensor of a model, by running it on batches that differ in one row.

The elements that change are that row's footprint. A footprint that reaches other rows proves that the model mixes samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ControlFlowError, ExplanationError, MixedSamplesError
from ..memory import is_out_of_memory
from .hooks import ModelHooks, Pass
from .layout import BATCH_FIRST, Layout
from .tape import Entry

# One batch size alone cannot tell the batch from another dimension of the same length, and one row alone misses a flip of the batch.
_FEWER, _ROWS = 2, 3
_CHANGED = 0, 1


@dataclass(frozen=True)
class Layouts:
    """The layout of every kept tensor, by entry, and of the explained tensors; None where a tensor has no batch.

    No ``entries`` at all: which operations run, or on how many elements, depends on a sample's values, as in a mixture of experts. Then
    rows can only be compared one with one, alone in their batches.
    """

    entries: list[list[Layout | None]] | None
    explained: list[Layout]

    def of(self, entry: Entry) -> Sequence[Layout | None]:
        if self.entries is None:
            return [None] * len(entry.kept)
        return self.entries[entry.number] if entry.number < len(self.entries) else []


@dataclass
class _Place:
    """What is known of one tensor: what a message calls it, and the layouts that all footprints so far agree with."""

    title: str
    candidates: list[Layout | None]


def probe(hooks: ModelHooks, inputs: Sequence[Tensor]) -> Layouts:
    """Find the layouts of a model's tensors.

    ``inputs`` are the rows to try with; one row is repeated, and one of the repetitions replaced by another row. Integer inputs are
    replaced by other rows of themselves only, keyword arguments not at all.
    """
    smaller, base = (_of_any_size(hooks, inputs, count) for count in (_FEWER, _ROWS))
    both = _explained([smaller, base])
    try:
        _check_same_operations(smaller, base, "the number of samples in a batch")
        places = [_by_shape(title, *tensors) for title, tensors in _aligned([smaller, base])]
        _check_equal_rows(places, [smaller, base])
        del smaller  # a large model's would be in memory beside what follows
        # Rows as they come may have parts in common, whose places do not show; then all of a row is changed.
        for everywhere in (False, True):
            if everywhere and all(len(place.candidates) == 1 for place in places):
                break
            for row in _CHANGED:
                variant = hooks.run(_batch(hooks, inputs, _ROWS, row, everywhere)).without_graph()
                _check_same_operations(base, variant, "the values of its input")
                for place, (_, (before, after)) in zip(places, _aligned([base, variant]), strict=True):
                    _by_footprint(place, before, after, row)
                del variant, before, after
    except (ControlFlowError, MixedSamplesError):
        rows = _varied(hooks, inputs)
        if not all(_as_alone(hooks, some) for some in (rows, [tensor.flip(0) for tensor in rows])):
            raise
        shapes = [_by_shape("the explained input", *tensors) for tensors in both]
        return Layouts(None, [place.candidates[0] or BATCH_FIRST for place in shapes])
    found = iter([place.candidates[0] for place in places])
    entries = [[next(found) for _ in entry.kept] for entry in base.tape.entries]
    explained = [next(found) or BATCH_FIRST for _ in base.explained]
    return Layouts(entries, explained)


def _of_any_size(hooks: ModelHooks, inputs: Sequence[Tensor], count: int) -> Pass:
    """A pass over a batch of another size than the inputs'."""
    try:
        return hooks.run(_batch(hooks, inputs, count)).without_graph()
    except Exception as error:
        if isinstance(error, ExplanationError) or is_out_of_memory(error):
            raise
        # The model's own error, where there is one for the inputs too.
        hooks.run(inputs)
        raise ExplanationError(
            f"the model runs on a batch of {len(inputs[0])} samples but not on one of {count} ({error}): one that is made for a single "
            f"batch size (as by torch.export without dynamic_shapes) cannot be explained"
        ) from error


def _batch(
    hooks: ModelHooks, inputs: Sequence[Tensor], count: int, row: int | None = None, everywhere: bool = False
) -> list[Tensor]:
    """``count`` copies of the first row, of which ``row`` is replaced by a row that differs from it, or differs ``everywhere``."""
    equal = [tensor[:1].expand(count, *tensor.shape[1:]) for tensor in inputs]
    if row is None:
        return equal
    explained = hooks.call.explained(inputs)
    return [*(_replaced(tensor, count, row, everywhere) for tensor in explained), *equal[len(explained) :]]


def _varied(hooks: ModelHooks, inputs: Sequence[Tensor], count: int = 8) -> list[Tensor]:
    """Up to ``count`` of the rows, and as many made from them."""
    rows = [tensor[:count] for tensor in inputs]
    number = len(rows[0])
    explained = hooks.call.explained(inputs)
    made = [torch.cat([_replaced(t[row : row + 1], 1, 0) for row in range(number)]) for t in rows[: len(explained)]]
    return [torch.cat(both) for both in zip(rows, [*made, *rows[len(explained) :]], strict=True)]


def _as_alone(hooks: ModelHooks, rows: Sequence[Tensor]) -> bool:
    """Whether the model gives every row the same output in this batch as it gives it alone."""
    alone = [hooks.run([tensor[row : row + 1] for tensor in rows]).output.detach() for row in range(len(rows[0]))]
    return same_outputs(hooks.run(rows).output.detach(), torch.cat(alone))


def same_outputs(one: Tensor, other: Tensor) -> bool:
    """Whether the outputs of the same rows in other batches are equal up to rounding."""
    rounding = math.sqrt(torch.finfo(one.dtype).eps)
    return bool((one - other).abs().max() <= rounding * one.abs().max())


def _replaced(tensor: Tensor, count: int, row: int, everywhere: bool = False) -> Tensor:
    """``count`` copies of the first row, one of them replaced by a row that differs from it."""
    rows = tensor[:1].expand(count, *tensor.shape[1:]).clone()
    others = (tensor != tensor[:1]).reshape(len(tensor), -1).any(1).nonzero()
    if len(others):
        rows[row] = tensor[others[0, 0]]
    if tensor.is_floating_point() and (everywhere or not len(others)):
        generator = torch.Generator("cpu").manual_seed(0)
        noise = torch.randn(tensor.shape[1:], generator=generator, dtype=torch.float64, device="cpu").to(tensor)
        rows[row] += noise * (tensor[0].abs().amax() if tensor[0].any() else 1)
    elif not len(others):
        rows[row] = tensor[0].flatten().roll(1).view_as(tensor[0])
    return rows


def _check_same_operations(first: Pass, second: Pass, cause: str) -> None:
    entries = first.tape.entries, second.tape.entries
    for one, other in zip(*entries, strict=False):
        if one.title != other.title or one.module != other.module:
            raise ControlFlowError(f"the model's operations depend on {cause}: {one} in one case, {other} in another")
    shorter, longer = sorted(entries, key=len)
    if len(shorter) < len(longer):
        raise ControlFlowError(
            f"the model's operations depend on {cause}: {longer[len(shorter)]} runs in some cases only"
        )


def _aligned(passes: Sequence[Pass]) -> Iterator[tuple[str, list[Tensor]]]:
    """Every tensor that needs a layout, across passes of the same operations: kept tensors, explained tensors, the output."""
    for entries in zip(*(one.tape.entries for one in passes), strict=True):
        for tensors in zip(*(entry.kept for entry in entries), strict=True):
            yield str(entries[0]), list(tensors)
    for explained in _explained(passes):
        yield "the explained input", explained
    yield "the model's output", [one.output.detach() for one in passes]


def _explained(passes: Sequence[Pass]) -> list[list[Tensor]]:
    return [list(tensors) for tensors in zip(*(one.explained for one in passes), strict=True)]


def _by_shape(title: str, smaller: Tensor, larger: Tensor) -> _Place:
    """The layouts that fit the shapes of one tensor for the two batch sizes."""
    scaled = [dim for dim, (a, b) in enumerate(zip(smaller.shape, larger.shape, strict=False)) if a != b]
    if smaller.dim() != larger.dim() or len(scaled) > 1:
        raise MixedSamplesError(
            f"{title}: a batch of {_FEWER} gives shape {list(smaller.shape)}, a batch of {_ROWS} {list(larger.shape)}: the model combines "
            f"the samples of a batch"
        )
    if not scaled:
        # No batch, or no elements at all to tell.
        return _Place(title, [None])
    dim = scaled[0]
    length, rest = divmod(smaller.shape[dim], _FEWER)
    if rest or length * _ROWS != larger.shape[dim]:
        raise MixedSamplesError(
            f"{title}: dimension {dim} is {smaller.shape[dim]} long for {_FEWER} samples and {larger.shape[dim]} for {_ROWS}: the number "
            f"of its elements depends on the values of the input"
        )
    return _Place(title, [Layout(dim, n, length // n) for n in range(1, length + 1) if length % n == 0])


def _check_equal_rows(places: Sequence[_Place], passes: Sequence[Pass]) -> None:
    """Equal rows give equal integers; positions in the whole batch, as of the rows that an expert takes, are not a row's own."""
    for place, tensors in zip(places, (tensors for _, tensors in _aligned(passes)), strict=True):
        for tensor in tensors:
            if not tensor.is_floating_point():
                place.candidates = [
                    layout
                    for layout in place.candidates
                    if layout is None or bool((layout.rows(tensor) == layout.rows(tensor)[:1]).all())
                ]
        if not place.candidates:
            raise MixedSamplesError(
                f"{place.title}: integers that are not the same for every one of several equal samples"
            )


def _by_footprint(place: _Place, before: Tensor, after: Tensor, row: int) -> None:
    """Keep the layouts under which only this row has changed."""
    if before.shape != after.shape:
        raise ControlFlowError(
            f"{place.title}: shape {list(before.shape)} for one input, {list(after.shape)} for another"
        )
    changed = (before != after) & ~(before.isnan() & after.isnan())
    others = [index for index in range(_ROWS) if index != row]
    if not changed.any():
        return
    place.candidates = [
        layout for layout in place.candidates if layout is not None and not layout.rows(changed)[others].any()
    ]
    if not place.candidates:
        raise MixedSamplesError(
            f"{place.title}: changing one sample of a batch changes what is computed for others (batch statistics, a sum over the batch, "
            f"or samples in another order); such a model has no attribution per sample"
        )
