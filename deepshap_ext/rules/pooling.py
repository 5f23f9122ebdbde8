"""Max-pooling: each window's reference difference goes to the place of the larger side's maximum.

The routing is shap's for non-overlapping windows (``shap.DeepExplainer``'s PyTorch handler); contributions add where windows overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from .registry import Application, Context, decomposition, rule


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

    def bound(return_by_default: bool) -> Callable[..., Application]:
        def windowed(
            _: Context,
            input: Tensor,
            kernel_size: Any,
            stride: Any = None,
            padding: Any = 0,
            dilation: Any = 1,
            ceil_mode: bool = False,
            return_indices: bool = return_by_default,
        ) -> Application:
            def run(x: Tensor) -> tuple[Tensor, Tensor]:
                return pool(x, kernel_size, stride or None, padding, dilation, ceil_mode)

            return maxpool(input, run, dims, return_indices)

        return windowed

    rule(f"max_pool{dims}d_with_indices")(bound(True))
    rule(f"max_pool{dims}d")(bound(False))

    adaptive: Callable[..., tuple[Tensor, Tensor]] = getattr(F, f"adaptive_max_pool{dims}d_with_indices")

    @rule(f"adaptive_max_pool{dims}d", f"adaptive_max_pool{dims}d_with_indices")
    def adaptively(_: Context, input: Tensor, output_size: Any, return_indices: bool = False) -> Application:
        return maxpool(input, lambda x: adaptive(x, output_size), dims, return_indices)


for _dims in (1, 2, 3):
    _register(_dims)


def _largest(input: Tensor, dim: Any, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Maxima over some dimensions and their flat positions in them: one window of max-pooling."""
    dims = range(input.dim()) if dim is None or dim == () else [dim] if isinstance(dim, int) else dim
    dims = sorted(d % input.dim() for d in dims)
    last = input.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))
    values, indices = F.max_pool1d(last.reshape(-1, 1, last.shape[-1]), last.shape[-1], return_indices=True)
    shape = [1 if d in dims else n for d, n in enumerate(input.shape) if keepdim or d not in dims]
    return values.reshape(shape), indices.reshape(shape)


@decomposition("amax")
def _amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    return _largest(input, dim, keepdim)[0]


@decomposition("amin")
def _amin(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    return -_largest(-input, dim, keepdim)[0]


@decomposition("max")
def _max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    if isinstance(dim, Tensor) or other is not None:
        return torch.maximum(input, dim if other is None else other)
    values, indices = _largest(input, dim, keepdim)
    return values if dim is None else torch.return_types.max((values, indices))


@decomposition("min")
def _min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None) -> Any:
    if isinstance(dim, Tensor) or other is not None:
        return torch.minimum(input, dim if other is None else other)
    values, indices = _largest(-input, dim, keepdim)
    return -values if dim is None else torch.return_types.min((-values, indices))


@decomposition("maximum", "fmax")
def _maximum(input: Tensor, other: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(input, other), -1).amax(-1)


@decomposition("minimum", "fmin")
def _minimum(input: Tensor, other: Tensor) -> Tensor:
    return -torch.maximum(-input, -other)
