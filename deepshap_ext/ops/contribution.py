"""Multipliers to contributions, averaged over baselines."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .batching import empty_like_leading, register_vmap

_op = torch.ops.deepshap_ext.contribution.default


def contribution(
    multipliers: Tensor, x: Tensor, r: Tensor, rows: Tensor, outer: int, batch: int, pairing: str
) -> tuple[Tensor, Tensor]:
    """Average multiplier * (input - baseline) over the baselines, with the spread around the average.

        phi[k] = mean_j c[j, k],   m2[k] = sum_j (c[j, k] - phi[k])^2,   c[j, k] = multipliers[j, k] * (x - r[rows[j]])

    The standard error of phi over J baselines is sqrt(m2 / (J * (J - 1))).

    Shapes: multipliers [J, K, *x.shape]; x (outer, batch, inner); r (outer, rows of r, inner); rows [J], int64; results
    [K, *x.shape], float32 for half types, else the operands' type.
    """
    return _op(multipliers, x, r, rows, outer, batch, pairing)


@torch.library.register_fake("deepshap_ext::contribution")
def _fake(
    multipliers: Tensor, x: Tensor, r: Tensor, rows: Tensor, outer: int, batch: int, pairing: str
) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if multipliers.dtype == torch.float64 else torch.float32
    mean = empty_like_leading(multipliers, x, r, outer, batch, leading=2, dtype=dtype)
    return mean, torch.empty_like(mean)


def _batched(in_dims: Sequence[int | None], multipliers: Tensor, x: Tensor, r: Tensor, rows: Tensor, *rest: Any) -> Any:
    """Baselines are summed over, so a vmapped dimension joins the outputs; where rows are batched too, a loop."""
    if in_dims[3] is None:
        joined = multipliers.movedim(in_dims[0], 2)  # type: ignore[arg-type]
        size = joined.shape[2]
        outs = _op(joined.flatten(1, 2), x, r, rows, *rest)
        return tuple(out.unflatten(0, (-1, size)).movedim(1, 0) for out in outs)
    size = rows.shape[in_dims[3]]
    parts = [multipliers] * size if in_dims[0] is None else list(multipliers.unbind(in_dims[0]))
    pairs = [_op(part, x, r, row, *rest) for part, row in zip(parts, rows.unbind(in_dims[3]), strict=True)]
    return tuple(torch.stack(outs) for outs in zip(*pairs, strict=True))


register_vmap("contribution", ("multipliers", "x", "r", "rows"), _batched)
