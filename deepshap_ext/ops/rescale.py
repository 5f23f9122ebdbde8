"""The rescale rule of an elementwise function."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .batching import empty_like_leading, register_vmap

_op = torch.ops.deepshap_ext.rescale.default


def rescale(
    grad: Tensor,
    x: Tensor,
    r: Tensor,
    rows: Tensor,
    function: str,
    parameters: Sequence[float],
    outer: int,
    batch: int,
    pairing: str,
) -> Tensor:
    """Multiply by the divided difference of an elementwise function (DeepLIFT, arXiv 1704.02685, section 3.5.2).

        out[v] = grad[v] * f[x, r],   f[x, r] = (f(x) - f(r)) / (x - r),   f[x, x] = f'(x)

    Shapes: grad and the result [V, *x.shape]; x (outer, batch, inner); r (outer, rows of r, inner); rows [V], int64: the
    baseline of each cotangent. `function` is a name of `csrc/math/elementwise.h` and `parameters` what it takes.
    """
    return _op(grad, x, r, rows, function, parameters, outer, batch, pairing)


@torch.library.register_fake("deepshap_ext::rescale")
def _fake(
    grad: Tensor,
    x: Tensor,
    r: Tensor,
    rows: Tensor,
    function: str,
    parameters: Any,
    outer: int,
    batch: int,
    pairing: str,
) -> Tensor:
    return empty_like_leading(grad, x, r, outer, batch)


register_vmap("rescale", ("grad", "x", "r", "rows"))
