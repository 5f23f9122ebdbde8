"""What is taken of the pairs of inputs and baselines: their contributions, multipliers, or what a function makes of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from . import ops
from .arguments import flag
from .capture.layout import BATCH_FIRST, Layout
from .combination import Combination
from .moments import Each, Moments, OverBaselines, over_baselines
from .pairs import Pairs
from .rules.normalization import wide


@dataclass(frozen=True)
class Wanted:
    """What is asked for: the ``variance`` of values over the baselines; ``multipliers`` beside the values; values that ``combine``, a
    function of the user's, makes in place of contributions; numbers for each baseline instead of their mean (``each``); the explained
    tensors themselves (``activations``).
    """

    variance: bool = False
    multipliers: bool = False
    combine: Combination | None = None
    each: bool = False
    activations: bool = False

    @property
    def by_pair(self) -> bool:
        """Whether every pair's own numbers are needed."""
        return self.each or self.combine is not None


def check_wanted(wanted: Wanted, baselines: int) -> None:
    """The arguments of a call that it is made of."""
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
    """Nothing is wanted that ``inputs``, which are explained themselves, do not have where they are integers."""
    codes = [tensor.dtype for tensor in inputs if not tensor.is_floating_point()]
    if codes and (wanted.multipliers or wanted.combine is not None):
        raise TypeError(
            f"{'multipliers must be False' if wanted.multipliers else 'combine must be None'} for inputs of {codes[0]}, codes that have "
            f"contributions but no multipliers: explain what the layer that looks them up returns, (model, layer) with at='output'"
        )


@dataclass(frozen=True)
class Found:
    """Of one explained tensor, for ``K`` outputs of ``B`` inputs: its ``values`` ``[K, B, ...]``; the sums ``[K, B]`` of its contributions
    (``totals``) and of their absolute values (``sizes``), in float64; and the ``multipliers``, if wanted."""

    values: OverBaselines
    totals: OverBaselines
    sizes: OverBaselines
    multipliers: OverBaselines | None

    def __add__(self, other: Found) -> Found:
        """Over the baselines of both."""
        parts = zip(self._parts(), other._parts(), strict=True)
        return Found(*(None if one is None else one + more for one, more in parts))  # type: ignore[arg-type, operator]

    def map(self, function: Callable[[Tensor], Tensor]) -> Found:
        """``function`` of every tensor."""
        return Found(*(None if one is None else one.map(function) for one in self._parts()))  # type: ignore[arg-type]

    def of_first(self, number: int, weight: Tensor) -> Found:
        """Over the first baselines, of this total weight, where the others had none."""
        return Found(*(None if one is None else one.of_first(number, weight) for one in self._parts()))  # type: ignore[arg-type]

    def tensors(self) -> list[Tensor]:
        parts = [one for one in self._parts() if one is not None]
        return [tensor for one in parts for tensor in (one.value, one.variance) if tensor is not None]

    def _parts(self) -> tuple[OverBaselines | None, ...]:
        return self.values, self.totals, self.sizes, self.multipliers


def of_all_outputs(parts: Sequence[Found]) -> Found:
    """What was found for some outputs and for others."""
    first, *others = parts
    stacks = iter(list(zip(*(part.tensors() for part in parts), strict=True)))
    return first.map(lambda tensor: torch.cat(next(stacks))) if others else first


def of_outputs(
    wanted: Wanted,
    pairs: Pairs,
    chosen: Tensor,
    rows: Tensor,
    weights: Tensor,
    layouts: Sequence[Layout],
    repeats: int,
    inputs: int,
) -> list[Found]:
    """What is found of every explained tensor for flattened outputs ``chosen`` ``[K, samples]``; the rest as :func:`of_pairs` takes it."""
    # The outputs of one baseline are neighbours: the kernels compute a multiplier once for all of them.
    number = len(chosen)
    if number == 1:
        found = pairs.multipliers(chosen.expand(len(rows), -1), rows)
    else:
        found = pairs.multipliers(chosen.repeat(len(rows), 1), rows.repeat_interleave(number))
    made = [multipliers.detach() for multipliers in found]
    return of_pairs(wanted, made, pairs, rows, weights, layouts, repeats, inputs)


def of_pairs(
    wanted: Wanted,
    multipliers: Sequence[Tensor],
    pairs: Pairs,
    rows: Tensor,
    weights: Tensor,
    layouts: Sequence[Layout],
    repeats: int,
    inputs: int,
) -> list[Found]:
    """What ``multipliers`` ``[J * K, *explained.shape]`` of every explained tensor give, for the first ``inputs`` inputs.

    ``rows`` ``[J]``: the baselines that they belong to. In aligned pairs there is one row, and ``repeats`` consecutive rows of the tensors
    are one input's, each with another baseline. ``weights``: of the baselines, ``[J]`` or ``[repeats]``.
    """
    tensors = list(zip(multipliers, pairs.inputs.explained, pairs.baselines.explained, layouts, strict=True))
    if not wanted.by_pair:
        found = [_averaged(wanted, *one, pairs, rows, weights, repeats, inputs) for one in tensors]
    else:
        sides = [_sides(*one, pairs, rows, repeats, inputs) for one in tensors]
        contributions = [m * (x - r) for m, x, r in sides]
        made = contributions if wanted.combine is None else wanted.combine(sides, pairs.inputs.layers)
        found = [
            _by_pair(wanted, values, each, m, weights)
            for values, each, (m, _, _) in zip(made, contributions, sides, strict=True)
        ]
    # Integers are float64 whatever the model computes in, so that they can be told apart; their values need not be.
    dtype = torch.promote_types(pairs.inputs.output.dtype, torch.float32)
    return [
        replace(one, values=one.values.map(lambda tensor: tensor.to(dtype))) if integers else one
        for one, integers in zip(found, pairs.inputs.integers, strict=True)
    ]


def _averaged(
    wanted: Wanted,
    m: Tensor,
    x: Tensor,
    r: Tensor,
    layout: Layout,
    pairs: Pairs,
    rows: Tensor,
    weights: Tensor,
    repeats: int,
    inputs: int,
) -> Found:
    geometry = (layout.outer(x.shape), pairs.samples, pairs.pairing)
    mine = torch.ones_like(weights[:1]) if repeats > 1 else weights
    mean, variance, multiplier = ops.contribution(
        m.unflatten(0, (len(rows), -1)), x, r, rows, mine.to(x.device), *geometry, with_multipliers=wanted.multipliers
    )
    total = weights.sum()

    def over(tensor: Tensor | None, spread: Tensor | None = None) -> OverBaselines | None:
        if tensor is None:
            return None
        if repeats > 1:
            return over_baselines(by_input(tensor, layout, repeats, inputs), weights, False, wanted.variance)
        variance = None if spread is None else by_input(spread, layout, 1, inputs).squeeze(2)
        return Moments(total, by_input(tensor, layout, 1, inputs).squeeze(2), variance)

    values = over(mean, variance if wanted.variance else None)
    assert values is not None
    return Found(values, *sums(values), over(multiplier))


def sums(values: OverBaselines) -> tuple[OverBaselines, OverBaselines]:
    """The contributions' own sums, and those of their absolute values."""

    first = 3 if isinstance(values, Each) else 2
    flat = values.value.double().unsqueeze(-1).flatten(first)

    def of(summed: Tensor) -> OverBaselines:
        return Each(summed) if isinstance(values, Each) else Moments(values.weight, summed)

    return of(flat.sum(first)), of(flat.abs().sum(first))


def _by_pair(wanted: Wanted, values: Tensor, contributions: Tensor, m: Tensor, weights: Tensor) -> Found:
    each = wanted.each
    return Found(
        over_baselines(values, weights, each, wanted.variance),
        *sums(over_baselines(contributions, weights, each)),
        over_baselines(m, weights, each) if wanted.multipliers else None,
    )


def _sides(
    m: Tensor, x: Tensor, r: Tensor, layout: Layout, pairs: Pairs, rows: Tensor, repeats: int, inputs: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Multipliers, inputs and baselines of every pair, ``[K, B, J, *features]`` each, in float32 at least."""

    multipliers = by_input(wide(m), layout, repeats, inputs).unflatten(0, (len(rows), -1)).movedim(0, 2).flatten(2, 3)
    number = len(pairs.baselines.output)
    if pairs.pairing == "aligned":
        baselines = by_input(wide(r).expand_as(x)[None], layout, repeats, inputs)
    elif pairs.pairing == "per_sample":
        baselines = by_input(wide(r)[None], layout, number // pairs.samples, inputs)[:, :, rows]
    else:
        baselines = by_input(wide(r)[None], layout, number, 1)[:, :, rows]
    mine = by_input(wide(x)[None], layout, repeats, inputs)
    return multipliers, mine.expand_as(multipliers), baselines.expand_as(multipliers)


def by_input(tensor: Tensor, layout: Layout, repeats: int, inputs: int) -> Tensor:
    """``[K, inputs, repeats, *features]`` from ``K`` tensors of this layout, whose first ``inputs * repeats`` rows are the inputs'."""
    if layout == BATCH_FIRST:
        return tensor[:, : inputs * repeats].unflatten(1, (inputs, repeats))
    inside = replace(layout, dim=layout.dim + 1)
    split = inside.split(tensor).movedim(inside.dim + 1, 1).flatten(inside.dim + 1, inside.dim + 2)
    return split.squeeze(inside.dim + 1)[:, : inputs * repeats].unflatten(1, (inputs, repeats))
