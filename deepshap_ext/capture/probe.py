"""Finding the batch in every tensor of a model, by running it on batches that differ in one row.

The elements that change are that row's footprint. A footprint that reaches other rows proves that the model mixes samples.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ControlFlowError, ExplanationError, MixedSamplesError
from ..memory import is_out_of_memory
from .forward import Pass
from .hooks import ModelHooks
from .layout import BATCH_FIRST, Layout
from .tape import Entry

# One batch size alone cannot tell the batch from another dimension of the same length, and one row alone misses a flip of the batch.
_FEWER, _ROWS = 2, 3
_CHANGED = 0, 1


@dataclass
class Place:
    """What is known of one tensor: what a message calls it, its shape a sample, and the layouts that all footprints so far agree with."""

    title: str
    shape: tuple[int, ...]
    candidates: list[Layout | None]

    def fits(self, tensor: Tensor, rows: int) -> bool:
        """Whether a tensor is of this shape for so many samples."""
        layout = self.candidates[0]
        if layout is None:
            return tensor.shape == self.shape
        if tensor.dim() != len(self.shape) or layout.per_sample(tensor.shape) != self.shape:
            return False
        return tensor.shape[layout.dim] == layout.before * rows * layout.after


class Layouts:
    """The layouts of every kept tensor, by entry, of the explained tensors and of the output; None where a tensor has no batch.

    ``rowwise``: which operations run, or on how many elements, depends on a sample's values, as in a mixture of experts. Then rows can
    only be compared one with one, alone in their batches. ``tried``: whether the model ran on a batch of rows that differ.
    """

    def __init__(self, kept: Sequence[int], places: list[Place], rowwise: bool = False, tried: bool = True) -> None:
        self._starts = [0, *itertools.accumulate(kept)]
        self._places = places
        self.rowwise = rowwise
        self.tried = tried

    @property
    def certain(self) -> bool:
        """Whether one layout is left for every tensor."""
        return self.tried and all(len(place.candidates) == 1 for place in self._places)

    @property
    def explained(self) -> list[Layout]:
        """Of every explained tensor the first candidate."""
        return [place.candidates[0] or BATCH_FIRST for place in self._places[self._starts[-1] : -1]]

    @property
    def explained_certain(self) -> bool:
        """Whether one layout is left for every explained tensor."""
        return all(len(place.candidates) == 1 for place in self._places[self._starts[-1] : -1])

    @property
    def output(self) -> tuple[int, ...]:
        """The shape of one sample's output."""
        return self._places[-1].shape[1:]

    def candidates(self, entry: Entry) -> list[list[Layout | None]]:
        """The layouts that are left for each of an entry's kept tensors; none for an entry that the probe has not seen."""
        if self.rowwise:
            return [[None]] * len(entry.kept)
        number = entry.number
        places = self._places[self._starts[number] : self._starts[number + 1]] if number + 1 < len(self._starts) else []
        return [place.candidates for place in places]

    def of(self, entry: Entry) -> Sequence[Layout | None]:
        """The first of an entry's candidates."""
        return [candidates[0] for candidates in self.candidates(entry)]

    def by_row(self) -> Layouts:
        """What is left of them where rows are compared one with one."""
        return Layouts([], self._places[self._starts[-1] :], rowwise=True)

    def fit(self, one: Pass) -> bool:
        """Whether a pass ran the operations of the probe, on tensors of the same shapes a sample."""
        if [len(entry.kept) for entry in one.tape.entries] != [b - a for a, b in itertools.pairwise(self._starts)]:
            return False
        tensors = [*(tensor for entry in one.tape.entries for tensor in entry.kept), *one.explained, one.output]
        rows = one.output.shape[0]
        return all(place.fits(tensor, rows) for place, tensor in zip(self._places, tensors, strict=True))

    def narrow(self, hooks: ModelHooks, inputs: Sequence[Tensor], base: Pass | None = None) -> None:
        """Tell apart what is left by batches of the first of these rows with one of the others put among them; ``base`` is the pass over
        the first row alone, repeated."""
        base = base or hooks.run(_batch(inputs, _ROWS)).without_graph()
        for other in _others(hooks, inputs):
            if self.certain:
                return
            if all(_try(hooks, self._places, base, inputs, row, other) for row in _CHANGED):
                self.tried = True


def probe(hooks: ModelHooks, inputs: Sequence[Tensor], run: Callable[[Sequence[Tensor]], Pass]) -> Layouts:
    """Find the layouts of a model's tensors.

    ``inputs`` are the rows to try with; one row is repeated, and one of the repetitions replaced by another row. Integer inputs are
    replaced by other rows of themselves only, keyword arguments not at all. ``run`` gives the pass over a batch, without its graph.
    """
    smaller, base = (_of_any_size(hooks, inputs, count, run) for count in (_FEWER, _ROWS))
    kept = [len(entry.kept) for entry in base.tape.entries]
    explained = _explained([smaller, base])
    outputs = [one.output.detach() for one in (smaller, base)]
    try:
        _check_same_operations(smaller, base, "the number of samples in a batch")
        layouts = Layouts(
            kept, [_by_shape(title, *tensors) for title, tensors in _aligned([smaller, base])], tried=False
        )
        _check_equal_rows(layouts._places, [smaller, base])
        del smaller  # a large model's would be in memory beside what follows
        layouts.narrow(hooks, inputs, base)
    except (ControlFlowError, MixedSamplesError):
        rows = _varied(hooks, inputs)
        if not all(_as_alone(hooks, some) for some in (rows, [tensor.flip(0) for tensor in rows])):
            raise
        shapes = [_by_shape("the explained input", *tensors) for tensors in (*explained, outputs)]
        return Layouts([], shapes, rowwise=True)
    return layouts


def _of_any_size(
    hooks: ModelHooks, inputs: Sequence[Tensor], count: int, run: Callable[[Sequence[Tensor]], Pass]
) -> Pass:
    """A pass over a batch of another size than the inputs'."""
    try:
        return run(_batch(inputs, count))
    except Exception as error:
        if isinstance(error, ExplanationError) or is_out_of_memory(error):
            raise
        # The model's own error, where there is one for the inputs too.
        hooks.run(inputs)
        if _runs(hooks, _batch(inputs, count)):
            raise  # what only the way back calls, such as the multipliers of a user's rule
        raise ExplanationError(
            f"the model runs on a batch of {len(inputs[0])} samples but not on one of {count} ({error}): one that is made for a single "
            f"batch size (as by torch.export without dynamic_shapes) cannot be explained"
        ) from error


def _runs(hooks: ModelHooks, inputs: Sequence[Tensor]) -> bool:
    try:
        hooks.run(inputs)
    except Exception:
        return False
    return True


def _try(
    hooks: ModelHooks, places: Sequence[Place], base: Pass, inputs: Sequence[Tensor], row: int, other: Sequence[Tensor]
) -> bool:
    """Keep the layouts under which only ``row`` has changed where it is replaced by ``other``; False if the model does not run on that."""
    batch = _batch(inputs, _ROWS)
    for number, replacing in enumerate(other):
        batch[number] = batch[number].clone()
        batch[number][row] = replacing[0]
    try:
        variant = hooks.run(batch).without_graph()
    except Exception as error:
        if isinstance(error, ExplanationError) or is_out_of_memory(error):
            raise
        # The row was made up: category codes out of range, say.
        return False
    _check_same_operations(base, variant, "the values of its input")
    for place, (_, (before, after)) in zip(places, _aligned([base, variant]), strict=True):
        _by_footprint(place, before, after, row)
    return True


def _batch(inputs: Sequence[Tensor], count: int) -> list[Tensor]:
    """``count`` copies of the first row."""
    return [tensor[:1].expand(count, *tensor.shape[1:]) for tensor in inputs]


def _others(hooks: ModelHooks, inputs: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Rows that differ from the first, one tensor an explained input."""
    explained = hooks.call.explained(inputs)
    rows = [_unlike_first(tensor) for tensor in explained]
    yield [of[:1] if len(of) else _changed(tensor, 1) for tensor, of in zip(explained, rows, strict=True)]
    # Two rows of the data may agree in places, which then leave no footprint; and what is made up may be out of a code's range.
    yield [_farthest(tensor) for tensor in explained]
    for size in (1, 2**-8):
        yield [
            _changed(tensor, size) if tensor.is_floating_point() or not len(of) else of[:1]
            for tensor, of in zip(explained, rows, strict=True)
        ]


def _unlike_first(tensor: Tensor) -> Tensor:
    """Those of the first thousand rows that differ from the first."""
    tensor = tensor[:1000]
    return tensor[(tensor != tensor[:1]).reshape(len(tensor), -1).any(1)]


def _farthest(tensor: Tensor) -> Tensor:
    """In every place what is farthest from the first row among the first thousand rows."""
    tensor = tensor[:1000]
    return tensor.gather(0, (tensor.double() - tensor[:1].double()).abs().argmax(0, keepdim=True))


def _changed(tensor: Tensor, size: float) -> Tensor:
    """The first row, changed everywhere by about its largest element, or for a small ``size`` by that part of each element, upwards, which
    leaves codes as they are; integers in another order."""
    first = tensor[:1]
    if not tensor.is_floating_point():
        return first.flatten().roll(1).view_as(first)
    generator = torch.Generator("cpu").manual_seed(0)
    noise = torch.randn(tensor.shape[1:], generator=generator, dtype=torch.float64, device="cpu").to(tensor)
    if size == 1:
        return first + noise * (first.abs().amax() if first.any() else 1)
    return first + size * noise.abs().clamp(0.25, 1) * first.abs().clamp_min(size)


def _varied(hooks: ModelHooks, inputs: Sequence[Tensor], count: int = 8) -> list[Tensor]:
    """Up to ``count`` of the rows, and as many made from them."""
    rows = [tensor[:count] for tensor in inputs]
    number = len(rows[0])
    explained = hooks.call.explained(inputs)
    made = [torch.cat([_changed(t[row : row + 1], 1) for row in range(number)]) for t in rows[: len(explained)]]
    return [torch.cat(both) for both in zip(rows, [*made, *rows[len(explained) :]], strict=True)]


def _as_alone(hooks: ModelHooks, rows: Sequence[Tensor]) -> bool:
    """Whether the model gives every row the same output in this batch as it gives it alone."""
    alone = [hooks.run([tensor[row : row + 1] for tensor in rows]).output.detach() for row in range(len(rows[0]))]
    return same_outputs(hooks.run(rows).output.detach(), torch.cat(alone))


def same_outputs(one: Tensor, other: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether the outputs of the same rows in other batches are equal up to rounding, in their own dtype or a less precise one."""
    apart = (one - other).abs().masked_fill((one == other) | (one.isnan() & other.isnan()), 0)
    size = one.abs().masked_fill(~one.isfinite(), 0)
    return bool(apart.max() <= math.sqrt(torch.finfo(dtype or one.dtype).eps) * size.max())


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


def _by_shape(title: str, smaller: Tensor, larger: Tensor) -> Place:
    """The layouts that fit the shapes of one tensor for the two batch sizes."""
    scaled = [dim for dim, (a, b) in enumerate(zip(smaller.shape, larger.shape, strict=False)) if a != b]
    if smaller.dim() != larger.dim() or len(scaled) > 1:
        raise MixedSamplesError(
            f"{title}: a batch of {_FEWER} gives shape {list(smaller.shape)}, a batch of {_ROWS} {list(larger.shape)}: the model combines "
            f"the samples of a batch"
        )
    if not scaled:
        # No batch, or no elements at all to tell.
        return Place(title, tuple(smaller.shape), [None])
    dim = scaled[0]
    length, rest = divmod(smaller.shape[dim], _FEWER)
    if rest or length * _ROWS != larger.shape[dim]:
        raise MixedSamplesError(
            f"{title}: dimension {dim} is {smaller.shape[dim]} long for {_FEWER} samples and {larger.shape[dim]} for {_ROWS}: the number "
            f"of its elements depends on the values of the input"
        )
    layouts = [Layout(dim, n, length // n) for n in range(1, length + 1) if length % n == 0]
    return Place(title, layouts[0].per_sample(larger.shape), [*layouts])


def _check_equal_rows(places: Sequence[Place], passes: Sequence[Pass]) -> None:
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


def _by_footprint(place: Place, before: Tensor, after: Tensor, row: int) -> None:
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
