"""What the pair pass finds: contributions, multipliers, or what a function of the user's makes of them and of both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import ops
from .arguments import flag
from .arrays import wide
from .capture.layout import BATCH_FIRST, Layout
from .combination import Combination
from .moments import Each, Moments, OverBaselines, over_baselines
from .pairs import Pairs


@dataclass(frozen=True)
class Wanted:
    """What the user wants of the pairs.

    ``variance``: that of the values over the baselines. ``multipliers``: these too. ``combine``: a function that makes the values, in place
    of contributions. ``each``: numbers for each baseline instead of their mean. ``activations``: the explained tensors themselves.
    """

    variance: bool = False
    multipliers: bool = False
    combine: Combination | None = None
    each: bool = False
    activations: bool = False

    @property
    def by_pair(self) -> bool:
        """Whether the numbers of every single pair are needed."""
        return self.each or self.combine is not None


def check_wanted(wanted: Wanted, baselines: int) -> None:
    """Check the arguments of :meth:`deepshap_ext.Explainer.attribute` that ``wanted`` has, for so many baselines."""
    for name, value in (
        ("standard_error", wanted.variance),
        ("multipliers", wanted.multipliers),
        ("per_baseline", wanted.each),
        ("activations", wanted.activations),
    ):
        flag(name, value)
    if wanted.variance and wanted.each:
        raise ValueError("standard_error must be False with per_baseline=True: it is one over the baselines")
    if wanted.variance and baselines < 2:
        raise ValueError("standard_error=True needs two or more baselines, got 1")


def check_codes(wanted: Wanted, inputs: Sequence[Tensor]) -> None:
    """Refuse to give what explained integers do not have; ``inputs`` are the model's own, if they are explained."""
    codes = [tensor.dtype for tensor in inputs if not tensor.is_floating_point()]
    if codes and (wanted.multipliers or wanted.combine is not None):
        raise TypeError(
            f"{'multipliers must be False' if wanted.multipliers else 'combine must be None'} for inputs of {codes[0]}, codes that have "
            f"contributions but no multipliers: explain what the layer that looks them up returns, (model, layer) with at='output'"
        )


@dataclass(frozen=True)
class Found:
    """What was found of one explained tensor, for ``K`` outputs of ``B`` inputs.

    ``values`` ``[K, B, ...]``; ``totals`` and ``sizes`` ``[K, B]``, float64: the sums of its contributions and of their absolute values;
    ``multipliers`` ``[K, B, *features]``, if wanted.
    """

    values: OverBaselines
    totals: OverBaselines
    sizes: OverBaselines
    multipliers: OverBaselines | None

    def __add__(self, other: Found) -> Found:
        """The numbers over the baselines of both."""
        parts = zip(self._parts(), other._parts(), strict=True)
        return Found(*(None if one is None else one + more for one, more in parts))  # type: ignore[arg-type, operator]

    def map(self, function: Callable[[Tensor], Tensor]) -> Found:
        """``function`` of every tensor."""
        return Found(*(None if one is None else one.map(function) for one in self._parts()))  # type: ignore[arg-type]

    def of_first(self, number: int, weight: Tensor) -> Found:
        """The numbers over the first baselines, which have this total ``weight``, where the others had weight 0."""
        return Found(*(None if one is None else one.of_first(number, weight) for one in self._parts()))  # type: ignore[arg-type]

    def tensors(self) -> list[Tensor]:
        parts = [one for one in self._parts() if one is not None]
        return [tensor for one in parts for tensor in (one.value, one.variance) if tensor is not None]

    def _parts(self) -> tuple[OverBaselines | None, ...]:
        return self.values, self.totals, self.sizes, self.multipliers


def of_all_outputs(parts: Sequence[Found]) -> Found:
    """What was found for all outputs, from what was found for some of them each."""
    first, *others = parts
    stacks = iter(list(zip(*(part.tensors() for part in parts), strict=True)))
    return first.map(lambda tensor: torch.cat(next(stacks))) if others else first


@dataclass(frozen=True)
class Against:
    """The baselines of one backward: ``rows`` ``[J]`` of the reference pass, with ``weights`` ``[J]``.

    There are ``inputs`` inputs. In aligned pairs each is ``repeats`` consecutive rows of the input pass, with another baseline each: then
    there is a single row, and ``weights`` are ``[repeats]``.
    """

    rows: Tensor
    weights: Tensor
    inputs: int
    repeats: int = 1


def of_outputs(
    wanted: Wanted, pairs: Pairs, targets: Tensor, layouts: Sequence[Layout], against: Against
) -> list[Found]:
    """What the pair pass finds of every explained tensor, by their ``layouts``, for the flattened outputs ``targets`` ``[K, rows]``."""
    # The outputs of one baseline are neighbours: the kernels compute a multiplier once for all of them.
    number, rows = len(targets), against.rows
    if number == 1:
        multipliers = pairs.multipliers(targets.expand(len(rows), -1), rows)
    else:
        multipliers = pairs.multipliers(targets.repeat(len(rows), 1), rows.repeat_interleave(number))
    tensors = [
        _Tensor(m.detach(), x, r, layout)
        for m, x, r, layout in zip(multipliers, pairs.inputs.explained, pairs.baselines.explained, layouts, strict=True)
    ]
    if wanted.by_pair:
        found = _by_pair(wanted, tensors, pairs, against)
    else:
        found = [_averaged(wanted, tensor, pairs, against) for tensor in tensors]
    # Explained integers are float64 whatever the model computes in, so that different ones stay different; their values need not be.
    dtype = torch.promote_types(pairs.inputs.output.dtype, torch.float32)
    return [
        replace(one, values=one.values.map(lambda tensor: tensor.to(dtype))) if integers else one
        for one, integers in zip(found, pairs.inputs.integers, strict=True)
    ]


def sums(values: OverBaselines) -> tuple[OverBaselines, OverBaselines]:
    """The sums of contributions, and those of their absolute values, for every input and output; float64."""
    first = 3 if isinstance(values, Each) else 2
    flat = values.value.double().unsqueeze(-1).flatten(first)

    def of(summed: Tensor) -> OverBaselines:
        return Each(summed) if isinstance(values, Each) else Moments(values.weight, summed)

    return of(flat.sum(first)), of(flat.abs().sum(first))


def by_input(tensor: Tensor, layout: Layout, repeats: int, inputs: int) -> Tensor:
    """``[K, inputs, repeats, *features]`` from ``K`` tensors of this layout, of which each input has ``repeats`` consecutive rows.

    Rows behind ``inputs * repeats`` are left out.
    """
    if layout == BATCH_FIRST:
        return tensor[:, : inputs * repeats].unflatten(1, (inputs, repeats))
    inside = replace(layout, dim=layout.dim + 1)
    split = inside.split(tensor).movedim(inside.dim + 1, 1).flatten(inside.dim + 1, inside.dim + 2)
    return split.squeeze(inside.dim + 1)[:, : inputs * repeats].unflatten(1, (inputs, repeats))


@dataclass(frozen=True)
class _Tensor:
    """An explained tensor: its multipliers ``[J * K, *x.shape]`` and its values ``x`` and ``r`` on both sides."""

    multipliers: Tensor
    x: Tensor
    r: Tensor
    layout: Layout


def _averaged(wanted: Wanted, tensor: _Tensor, pairs: Pairs, against: Against) -> Found:
    """Contributions averaged over the baselines by the native operation, so that no tensor has all pairs."""
    x, layout = tensor.x, tensor.layout
    multipliers = tensor.multipliers.unflatten(0, (len(against.rows), -1))
    weights = (torch.ones_like(against.weights[:1]) if against.repeats > 1 else against.weights).to(x.device)
    geometry = (layout.outer(x.shape), pairs.samples, pairs.pairing)
    mean, variance, multiplier = ops.contribution(
        multipliers, x, tensor.r, against.rows, weights, *geometry, with_multipliers=wanted.multipliers
    )
    total = against.weights.sum()

    def over(mean: Tensor | None, variance: Tensor | None = None) -> OverBaselines | None:
        if mean is None:
            return None
        by_baseline = by_input(mean, layout, against.repeats, against.inputs)
        if against.repeats > 1:
            return over_baselines(by_baseline, against.weights, False, wanted.variance)
        spread = None if variance is None else by_input(variance, layout, 1, against.inputs).squeeze(2)
        return Moments(total, by_baseline.squeeze(2), spread)

    values = over(mean, variance if wanted.variance else None)
    assert values is not None
    return Found(values, *sums(values), over(multiplier))


def _by_pair(wanted: Wanted, tensors: Sequence[_Tensor], pairs: Pairs, against: Against) -> list[Found]:
    """Contributions, or what ``combine`` makes of both sides, from tensors that have all pairs."""
    sides = [_sides(tensor, pairs, against) for tensor in tensors]
    contributions = [m * (x - r) for m, x, r in sides]
    made = contributions if wanted.combine is None else wanted.combine(sides, pairs.inputs.layers)
    weights, each = against.weights, wanted.each
    return [
        Found(
            over_baselines(values, weights, each, wanted.variance),
            *sums(over_baselines(one, weights, each)),
            over_baselines(m, weights, each) if wanted.multipliers else None,
        )
        for values, one, (m, _, _) in zip(made, contributions, sides, strict=True)
    ]


def _sides(tensor: _Tensor, pairs: Pairs, against: Against) -> tuple[Tensor, Tensor, Tensor]:
    """Multipliers, inputs and baselines of every pair, ``[K, B, J, *features]`` each, in float32 at least."""
    rows, repeats, inputs = against.rows, against.repeats, against.inputs
    x, r, layout = wide(tensor.x), wide(tensor.r), tensor.layout
    by_row = by_input(wide(tensor.multipliers), layout, repeats, inputs).unflatten(0, (len(rows), -1))
    multipliers = by_row.movedim(0, 2).flatten(2, 3)
    number = len(pairs.baselines.output)
    if pairs.pairing == "aligned":
        baselines = by_input(r.expand_as(x)[None], layout, repeats, inputs)
    elif pairs.pairing == "per_sample":
        baselines = by_input(r[None], layout, number // pairs.samples, inputs)[:, :, rows]
    else:
        baselines = by_input(r[None], layout, number, 1)[:, :, rows]
    mine = by_input(x[None], layout, repeats, inputs)
    return multipliers, mine.expand_as(multipliers), baselines.expand_as(multipliers)
