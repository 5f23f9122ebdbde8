"""The mean gradient of a function along the segment from a baseline to an input, by adaptive quadrature.

Gauss-Kronrod pairs of 7 and 15 nodes (QUADPACK: Piessens, de Doncker-Kapenga, Ueberhuber and Kahaner 1983, routine QK15) on subintervals,
which are split until the integral is right. Unlike in general quadrature, whether it is right is known: over every subinterval the
multipliers must add up to the difference of the function's values at its ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# The non-negative nodes in [-1, 1], with their weights in the rule of 15 nodes and in that of 7, which has every other node.
_HALF = (
    (0.000000000000000000000000000000000, 0.209482141084727828012999174891714, 0.417959183673469387755102040816327),
    (0.207784955007898467600689403773245, 0.204432940075298892414161999234649, 0.0),
    (0.405845151377397166906606412076961, 0.190350578064785409913256402421014, 0.381830050505118944950369775488975),
    (0.586087235467691130294144691693013, 0.169004726639267902826583426598550, 0.0),
    (0.741531185599394439863864773280788, 0.140653259715525918745189590510238, 0.279705391489276667901467771423780),
    (0.864864423359769072789712788640926, 0.104790010322250183839876322541518, 0.0),
    (0.949107912342758524526189684047851, 0.063092092629978553290700663189204, 0.129484966168869693270611432679082),
    (0.991455371120812639206854697526329, 0.022935322010529224963732008058970, 0.0),
)
#: Nodes in [0, 1], in order, and their weights in both rules.
NODES = tuple(
    ((1 + sign * node) / 2, kronrod / 2, gauss / 2)
    for sign, half in ((-1, _HALF[:0:-1]), (1, _HALF))
    for node, kronrod, gauss in half
)

#: The most subintervals of one segment that are computed, with 15 gradients each and one more for each split.
LIMIT = 256


@dataclass(frozen=True)
class Rows:
    """Where the samples are in a tensor: ``(outer, batch, inner)`` in row-major order, in dimension ``dim``; None where there is none.

    Each sample has its own subintervals.
    """

    outer: int
    batch: int
    dim: int | None = None

    def total(self, tensor: Tensor) -> Tensor:
        """``[V, batch]``: the sum of each sample's elements of a tensor ``[V, ...]``."""
        return tensor.reshape(len(tensor), self.outer, self.batch, -1).sum((1, 3), dtype=torch.float64)

    def spread(self, values: Tensor, like: Tensor) -> Tensor:
        """Values ``[V, batch]``, one a sample, over the elements of a tensor ``[V, ...]``."""
        split = like.reshape(len(like), self.outer, self.batch, -1)
        return values[:, None, :, None].to(like.dtype).expand_as(split).reshape(like.shape)

    def fold(self, tensor: Tensor) -> Tensor:
        """A tensor ``[V, ...]`` as one of ``V * batch`` samples."""
        shape = list(tensor.shape[1:])
        shape[self.dim or 0] *= len(tensor)
        return tensor.reshape(len(tensor), self.outer, self.batch, -1).movedim(0, 1).reshape(shape)

    def unfold(self, tensor: Tensor, number: int) -> Tensor:
        """The tensor ``[V, ...]`` that was folded, for ``number`` ``V``."""
        shape = list(tensor.shape)
        shape[self.dim or 0] //= number
        return tensor.reshape(self.outer, number, self.batch, -1).movedim(1, 0).reshape(number, *shape)


@dataclass(frozen=True)
class Segment:
    """A function's operands and outputs at both ends, each ``[V, ...]``, and the multipliers ``grads`` of its outputs.

    ``outputs(*points)`` gives the function's outputs, ``gradients(grads, *points)`` these and the gradients for its operands; ``rows`` and
    ``output_rows`` say where samples are in the operands and in the outputs.
    """

    outputs: Callable[..., Sequence[Tensor]]
    gradients: Callable[..., tuple[Sequence[Tensor], Sequence[Tensor]]]
    grads: Sequence[Tensor]
    x: Sequence[Tensor]
    r: Sequence[Tensor]
    f_x: Sequence[Tensor]
    f_r: Sequence[Tensor]
    rows: Sequence[Rows]
    output_rows: Sequence[Rows]


def mean_gradient(segment: Segment) -> tuple[list[Tensor], float]:
    """The operands' multipliers, and the largest gap of a sample between what they add up to and the difference of the function's values.

    A subinterval is done when its multipliers add up to rounding and the two rules agree to the square root of that; or when splitting it
    further is of no use, since at a jump no split makes them add up.
    """
    return _Quadrature(segment).run()


class _Quadrature:
    """The quadrature of a segment, for all samples of all pairs at once: tensors ``[V, batch]``, float64, have a number for each.

    Here the function is the sum of its outputs times their multipliers ``grads``, for each sample, and its slope the derivative of that sum
    by the place in [0, 1] along the segment.
    """

    def __init__(self, segment: Segment) -> None:
        self._segment = segment
        # In half precision the nodes of a small subinterval would fall on the same number.
        wide = [torch.promote_types(x.dtype, torch.float32) for x in segment.x]
        self._start = [r.to(dtype).expand_as(x) for x, r, dtype in zip(segment.x, segment.r, wide, strict=True)]
        self._steps = [x.to(dtype) - r for x, r, dtype in zip(segment.x, self._start, wide, strict=True)]
        absolute = [g.abs() for g in segment.grads]
        values = [a.abs() + b.abs() for a, b in zip(segment.f_x, segment.f_r, strict=True)]
        self._size = self._value(absolute, values)
        self._rounding = 2 * max(torch.finfo(tensor.dtype).eps for tensor in (*segment.x, *segment.f_x))

    def run(self) -> tuple[list[Tensor], float]:
        at_r, at_x = (self._value(self._segment.grads, f) for f in (self._segment.f_r, self._segment.f_x))
        zero = torch.zeros_like(at_x)
        # A queue of subintervals for each sample, first in, first out, of 7 numbers each: its two ends, the function at both, the slope at
        # both (NaN if not known), and the gap of the subinterval that it was split from.
        first = torch.stack([zero, zero + 1, at_r, at_x, zero + math.nan, zero + math.nan, zero + math.inf])
        queue = first[..., None].expand(*[-1] * 3, LIMIT).clone()
        taken, filled = zero.long(), zero.long() + 1
        totals = [torch.zeros_like(step) for step in self._steps]
        while (left := taken < filled).any():
            head = taken.clamp(max=LIMIT - 1)
            a, b, f_a, f_b, *slopes, before = queue.gather(3, head.expand(7, *head.shape)[..., None]).squeeze(3)
            found = self._rules(a, b)
            excess = found.adding_up - (f_b - f_a)
            gap = excess.abs()
            rounding = self._rounding * (self._size + found.size)
            # The last split gained little: the function rounds more than its result shows.
            noise = (gap > before / 4) & (gap <= 32 * rounding)
            done = ~(gap > rounding) | noise
            # Multipliers that add up by chance are found out because the two rules disagree.
            done &= ~(found.apart > math.sqrt(self._rounding) * (self._size + found.size))
            # The last split gained next to nothing, and the gap is larger than changes of the slope can explain: the function jumps.
            seen = torch.cat([found.slopes, torch.stack(slopes)])
            change = seen.nan_to_num(-math.inf).amax(0) - seen.nan_to_num(math.inf).amin(0)
            done |= (gap > 0.9 * before) & (gap > rounding) & (b - a < 1e-4) & (gap > change * (b - a))
            done |= filled + 2 > LIMIT
            for total, part, rows in zip(totals, found.parts, self._segment.rows, strict=True):
                total += torch.where(rows.spread(left & done, part).bool(), part, 0)
            taken += left
            if (split := left & ~done).any():
                c = self._split_at(a, b, found, slopes, excess)
                outputs, gradients = self._segment.gradients(self._segment.grads, *self._points(c))
                f_c, slope = self._value(self._segment.grads, outputs), self._adding_up(gradients)
                for half in ([a, c, f_a, f_c, slopes[0], slope, gap], [c, b, f_c, f_b, slope, slopes[1], gap]):
                    place = filled.clamp(max=LIMIT - 1).expand(7, *filled.shape)[..., None]
                    old = queue.gather(3, place)
                    queue.scatter_(3, place, torch.where(split[..., None], torch.stack(half)[..., None], old))
                    filled += split
        gap = self._adding_up(totals) - (at_x - at_r)
        parts = [total.to(x.dtype) for total, x in zip(totals, self._segment.x, strict=True)]
        return parts, float(gap.abs().nan_to_num(math.inf).max())

    def _rules(self, a: Tensor, b: Tensor) -> _Subinterval:
        """Both rules on one subinterval ``[a, b]`` for each sample."""
        places, values, slopes = [], [], []
        size, apart = torch.zeros_like(a), torch.zeros_like(a)
        parts = [torch.zeros_like(step) for step in self._steps]
        differences = [torch.zeros_like(step) for step in self._steps]
        for node, kronrod, gauss in NODES:
            place = a + node * (b - a)
            outputs, gradients = self._segment.gradients(self._segment.grads, *self._points(place))
            places.append(place)
            values.append(self._value(self._segment.grads, outputs))
            slopes.append(self._adding_up(gradients))
            for rows, part, difference, step, gradient in zip(
                self._segment.rows, parts, differences, self._steps, gradients, strict=True
            ):
                part += rows.spread(kronrod * (b - a), step) * gradient
                difference += rows.spread((kronrod - gauss) * (b - a), step) * gradient
                size += kronrod * (b - a) * rows.total((gradient * step).abs())
        for rows, difference, step in zip(self._segment.rows, differences, self._steps, strict=True):
            apart += rows.total((difference * step).abs())
        return _Subinterval(
            parts, self._adding_up(parts), size, apart, torch.stack(places), torch.stack(values), torch.stack(slopes)
        )

    def _split_at(self, a: Tensor, b: Tensor, found: _Subinterval, slopes: Sequence[Tensor], excess: Tensor) -> Tensor:
        """Where to split each subinterval: at a kink if there is one, otherwise in the middle.

        Two neighbouring nodes between which the slope changes far more than elsewhere have a kink between them, about where their tangents
        meet. Where the function is curved that point misses the kink by a little, and in a subinterval of the next round the kink lies
        between an end and the first node: the slope at that end, one of ``slopes``, is not what the nodes extrapolate to. This difference,
        and ``excess``, by which the multipliers are more than they should add up to, tell how far from the end the kink is.
        """
        changes, places = found.slopes.diff(dim=0), found.places
        largest, at = changes.abs().max(0)
        f, g, s, t, x, y = (
            table.gather(0, number[None])[0]
            for table in (found.values, found.slopes, places)
            for number in (at, at + 1)
        )
        meet = x + (g - f - t * (y - x)) / (s - t)
        inside = (meet > x) & (meet < y) & (3 * largest > changes.abs().sum(0))
        c = torch.where(inside, meet, (a + b) / 2)
        bends = changes / places.diff(dim=0)
        for end, slope, first, sign in ((a, slopes[0], 0, 1), (b, slopes[1], -1, -1)):
            change = found.slopes[first] - bends[first] * (places[first] - end) - slope
            kink = end + sign * excess / change
            close = ((kink - end).abs() < (places[first] - end).abs()) & (kink > a) & (kink < b)
            c = torch.where(close & (change.abs() > largest), kink, c)
        return c

    def _points(self, place: Tensor) -> list[Tensor]:
        """The operands at a place in [0, 1] along the segment for each sample."""
        return [
            (start + rows.spread(place, step) * step).to(x.dtype)
            for start, rows, step, x in zip(self._start, self._segment.rows, self._steps, self._segment.x, strict=True)
        ]

    def _value(self, grads: Sequence[Tensor], outputs: Sequence[Tensor]) -> Tensor:
        """The function for each sample: its outputs times their multipliers, summed."""
        parts = [
            rows.total(grad * output)
            for rows, grad, output in zip(self._segment.output_rows, grads, outputs, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def _adding_up(self, gradients: Sequence[Tensor]) -> Tensor:
        """Gradients, or multipliers, of the operands times the steps from baseline to input, summed for each sample."""
        parts = [
            rows.total(gradient * step)
            for rows, gradient, step in zip(self._segment.rows, gradients, self._steps, strict=True)
        ]
        return torch.stack(parts).sum(0)


@dataclass(frozen=True)
class _Subinterval:
    """Both rules on one subinterval for each sample.

    ``parts``: its parts of the operands' multipliers; ``adding_up``: what these add up to; ``size``: the sum of the magnitudes; ``apart``:
    how far the two rules are apart. ``places``, ``values``, ``slopes`` ``[15, V, batch]``: the nodes, and the function and its slope there.
    """

    parts: list[Tensor]
    adding_up: Tensor
    size: Tensor
    apart: Tensor
    places: Tensor
    values: Tensor
    slopes: Tensor
