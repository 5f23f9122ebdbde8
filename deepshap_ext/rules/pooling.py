"""Max-pooling: each window's reference difference goes to the place of the larger side's maximum.

The routing is shap's for non-overlapping windows (``shap.DeepExplainer``'s PyTorch handler); contributions add where windows overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from .. import ops
from .registry import Application, Carries, rule


def maxpool(
    input: Tensor, pool: Callable[[Tensor], tuple[Tensor, Tensor]], dims: int, return_indices: bool
) -> Application:
    """The application of a pooling over the last ``dims`` dimensions; ``pool`` gives the maxima and their flat positions."""

    def forward(x: Tensor) -> tuple[Any, Sequence[Tensor]]:
        values, indices = pool(x)
        return ((values, indices) if return_indices else values), [x, indices]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        (x, x_indices), (r, r_indices) = sides.x, sides.r
        out = ops.maxpool(grad.unsqueeze(0), x, r, x_indices, r_indices, sides.rows(), dims, *sides.geometry())
        return [out.squeeze(0)]

    return Application([input], forward, multipliers)


def _register(dims: int) -> None:
    pool: Callable[..., tuple[Tensor, Tensor]] = getattr(F, f"max_pool{dims}d_with_indices")

    def with_indices(
        _: Carries,
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = True,
    ) -> Application:
        def run(x: Tensor) -> tuple[Tensor, Tensor]:
            return pool(x, kernel_size, stride or None, padding, dilation, ceil_mode)

        return maxpool(input, run, dims, return_indices)

    def plain(*args: Any, return_indices: bool = False, **kwargs: Any) -> Application:
        return with_indices(*args, return_indices=return_indices, **kwargs)

    rule(f"max_pool{dims}d_with_indices")(with_indices)
    rule(f"max_pool{dims}d")(plain)


for _dims in (1, 2, 3):
    _register(_dims)
