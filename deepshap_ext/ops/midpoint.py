"""The mean of the two sides."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .batching import register_vmap

_op = torch.ops.deepshap_ext.midpoint.default


def midpoint(x: Tensor, r: Tensor, rows: Tensor, outer: int, batch: int, pairing: str) -> Tensor:
    """The mean of x and of the row of r that it is paired with, for each cotangent: where a bilinear map takes its derivative.

        out[v] = (x + r) / 2,   rounded once

    Shapes: x (outer, batch, inner); r (outer, rows of r, inner); rows [V], int64; the result [V, *x.shape].
    """
    return _op(x, r, rows, outer, batch, pairing)


@torch.library.register_fake("deepshap_ext::midpoint")
def _fake(x: Tensor, r: Tensor, rows: Tensor, outer: int, batch: int, pairing: str) -> Tensor:
    return x.new_empty((rows.shape[0], *x.shape))


def _batched(in_dims: Sequence[int | None], x: Tensor, r: Tensor, rows: Tensor, *rest: Any) -> tuple[Tensor]:
    if in_dims[0] is not None:
        raise ValueError(f"midpoint: vmap goes over rows only, but x is batched in dimension {in_dims[0]}")
    rows = rows.movedim(in_dims[2], 0)  # type: ignore[arg-type]
    return (_op(x, r, rows.flatten(), *rest).unflatten(0, rows.shape),)


register_vmap("midpoint", ("x", "r", "rows"), _batched)
