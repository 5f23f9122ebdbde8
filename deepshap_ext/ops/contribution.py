"""Multipliers to contributions, averaged over baselines."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .batching import empty_like_leading, register_vmap

_op = torch.ops.deepshap_ext.contribution.default


def contribution(
    multipliers: Tensor,
    x: Tensor,
    r: Tensor,
    rows: Tensor,
    weights: Tensor,
    outer: int,
    batch: int,
    pairing: str,
    with_multipliers: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Average the contributions, multiplier * (input - baseline), over the baselines; also their variance around the average.

        c[j, k] = multipliers[j, k] * (x - r[rows[j]])
        mean[k] = sum_j weights[j] c[j, k] / sum_j weights[j]
        variance[k] = sum_j weights[j] (c[j, k] - mean[k])^2 / sum_j weights[j]
        mean_multipliers[k] = sum_j weights[j] multipliers[j, k] / sum_j weights[j],   None unless `with_multipliers`

    The standard error of the mean over J baselines of equal weights is sqrt(variance / (J - 1)).

    Shapes: multipliers [J, K, *x.shape]; x (outer, batch, inner); r (outer, rows of r, inner); rows [J], int64; weights
    [J], float64 and positive; results [K, *x.shape], float32 for half types, else the operands' type.
    """
    shares = weights / weights.cumsum(0)
    mean, variance, mean_multipliers = _op(multipliers, x, r, shares, rows, outer, batch, pairing, with_multipliers)
    return mean, variance, mean_multipliers if with_multipliers else None


@torch.library.register_fake("deepshap_ext::contribution")
def _fake(
    multipliers: Tensor,
    x: Tensor,
    r: Tensor,
    shares: Tensor,
    rows: Tensor,
    outer: int,
    batch: int,
    pairing: str,
    with_multipliers: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.float64 if multipliers.dtype == torch.float64 else torch.float32
    mean = empty_like_leading(multipliers, x, r, outer, batch, leading=2, dtype=dtype)
    return mean, torch.empty_like(mean), torch.empty_like(mean) if with_multipliers else mean.new_empty(0)


def _batched(
    in_dims: Sequence[int | None], multipliers: Tensor, x: Tensor, r: Tensor, shares: Tensor, rows: Tensor, *rest: Any
) -> Any:
    """The vmapped dimension joins the outputs K, since J is averaged over; where rows are batched too, a loop."""
    if in_dims[4] is None:
        joined = multipliers.movedim(in_dims[0], 2)  # type: ignore[arg-type]
        size = joined.shape[2]
        outs = _op(joined.flatten(1, 2), x, r, shares, rows, *rest)
        return tuple(out.unflatten(0, (-1, size)).movedim(1, 0) for out in outs)
    size = rows.shape[in_dims[4]]
    parts = [multipliers] * size if in_dims[0] is None else list(multipliers.unbind(in_dims[0]))
    each = [_op(part, x, r, shares, row, *rest) for part, row in zip(parts, rows.unbind(in_dims[4]), strict=True)]
    return tuple(torch.stack(outs) for outs in zip(*each, strict=True))


register_vmap("contribution", ("multipliers", "x", "r", "shares", "rows"), _batched)
