"""Max-pooling and maxima: each window's difference is routed to the larger side's maximum, or spread by the entries' Shapley values.

For windows that do not overlap the routing is that of shap's DeepExplainer for PyTorch; where windows overlap, contributions add.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from .. import ops
from ..errors import UnsupportedOperationError
from .convolution import each
from .formats import has_channels_last, with_channels_last
from .registry import Application, Context, decomposition, rule


def maxpool(
    context: Context,
    input: Tensor,
    pool: Callable[[Tensor], tuple[Tensor, Tensor]],
    dims: int,
    return_indices: bool,
    windows: Callable[[int, int, int], Tensor],
) -> Application:
    """The application of a pooling over the last ``dims`` dimensions.

    ``pool(x)`` returns the maxima and their flat positions. ``windows(dim, size, count)`` returns, for one of the dimensions, the positions
    ``[count, entries]`` of each window's entries, out of range where a window has fewer.
    """
    if context.options.maxima == "shapley":
        return _by_shapley(input, pool(input.detach()), dims, return_indices, windows)
    return _routed(input, pool, dims, return_indices)


def _routed(
    input: Tensor, pool: Callable[[Tensor], tuple[Tensor, Tensor]], dims: int, return_indices: bool
) -> Application:
    def forward(x: Tensor) -> tuple[Any, Sequence[Tensor]]:
        values, indices = pool(x)
        # In the memory format of the values, which their gradients have too: otherwise the native operation would copy them for
        # every chunk of pairs.
        last = x.dim() == dims + 2 and has_channels_last(x) and values.stride(1) == 1
        kept = [with_channels_last(side) if last else side.contiguous() for side in (x, indices)]
        return ((values, indices) if return_indices else values), kept

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        (x, x_indices), (r, r_indices) = sides.x, sides.r
        out = ops.maxpool(grad.unsqueeze(0), x, r, x_indices, r_indices, sides.rows(), dims, *sides.geometry())
        return [out.squeeze(0)]

    return Application([input], forward, multipliers)


def _by_shapley(
    input: Tensor,
    result: tuple[Tensor, Tensor],
    dims: int,
    return_indices: bool,
    windows: Callable[[int, int, int], Tensor],
) -> Application:
    """The entries of all windows are gathered, so that autograd's backward of that adds the multipliers of overlapping windows."""
    shape = input.shape[-dims:]
    index = torch.zeros(1, 1, dtype=torch.int64, device="cpu")
    inside = torch.ones(1, 1, dtype=torch.bool, device="cpu")
    for dim, (size, count) in enumerate(zip(shape, result[0].shape[-dims:], strict=True)):
        places = windows(dim, size, count)
        valid = (places >= 0) & (places < size)
        # The windows over the earlier dimensions, each with every window along this one, and likewise their entries.
        index = (index[:, None, :, None] * size + places[None, :, None]).flatten(2).flatten(0, 1)
        inside = (inside[:, None, :, None] & valid[None, :, None]).flatten(2).flatten(0, 1)
    flat = F.pad(input.flatten(-dims), (0, 1), value=-math.inf)
    index = torch.where(inside, index, flat.shape[-1] - 1).to(input.device)
    entries = flat.index_select(-1, index.flatten()).unflatten(-1, index.shape)

    def forward(x: Tensor) -> tuple[Any, Sequence[Tensor]]:
        return (result if return_indices else result[0]), [x]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        return _shapley(grad.flatten(-dims), sides)

    return Application([entries], forward, multipliers, stand_for=[input])


def _register(dims: int) -> None:
    pool: Callable[..., tuple[Tensor, Tensor]] = getattr(F, f"max_pool{dims}d_with_indices")
    adaptive: Callable[..., tuple[Tensor, Tensor]] = getattr(F, f"adaptive_max_pool{dims}d_with_indices")

    def bound(with_indices: bool) -> Callable[..., Application]:
        def windowed(
            context: Context,
            input: Tensor,
            kernel_size: Any,
            stride: Any = None,
            padding: Any = 0,
            dilation: Any = 1,
            ceil_mode: bool = False,
            return_indices: bool = False,
        ) -> Application:
            kernels, edges, spreads = (each(value, dims) for value in (kernel_size, padding, dilation))
            steps = each(stride, dims) if stride else kernels

            def run(x: Tensor) -> tuple[Tensor, Tensor]:
                return pool(x, kernels, steps, edges, spreads, ceil_mode)

            def windows(dim: int, size: int, count: int) -> Tensor:
                starts = torch.arange(count, device="cpu") * steps[dim] - edges[dim]
                return starts[:, None] + torch.arange(kernels[dim], device="cpu") * spreads[dim]

            return maxpool(context, input, run, dims, with_indices or return_indices, windows)

        return windowed

    rule(f"max_pool{dims}d_with_indices")(bound(True))
    rule(f"max_pool{dims}d")(bound(False))

    # aten's function always returns the indices; torch.nn.functional's says with return_indices whether it should.
    @rule(f"adaptive_max_pool{dims}d")
    def adaptively(context: Context, input: Tensor, output_size: Any, return_indices: bool = True) -> Application:
        def windows(dim: int, size: int, count: int) -> Tensor:
            numbers = torch.arange(count, device="cpu")
            starts, ends = numbers * size // count, -(-(numbers + 1) * size // count)
            places = starts[:, None] + torch.arange(int((ends - starts).max()), device="cpu")
            return torch.where(places < ends[:, None], places, -1)

        return maxpool(context, input, lambda x: adaptive(x, output_size), dims, return_indices, windows)

    @rule(f"adaptive_max_pool{dims}d_with_indices")
    def adaptively_with_indices(context: Context, input: Tensor, output_size: Any, **_: bool) -> Application:
        return adaptively(context, input, output_size)


for _dims in (1, 2, 3):
    _register(_dims)


def _register_fractional(dims: int) -> None:
    name = f"fractional_max_pool{dims}d"
    pool: Callable[..., tuple[Tensor, Tensor]] = getattr(F, f"{name}_with_indices")

    def bound(with_indices: bool) -> Callable[..., Application]:
        def fractional(
            context: Context,
            input: Tensor,
            kernel_size: Any,
            output_size: Any = None,
            output_ratio: Any = None,
            return_indices: bool = False,
            _random_samples: Tensor | None = None,
        ) -> Application:
            if isinstance(output_ratio, Tensor):
                # aten's signature has the random samples third, and returns both results.
                output_ratio, return_indices, _random_samples = None, True, output_ratio
            if _random_samples is None:
                raise UnsupportedOperationError("is random: give it _random_samples, or explain a model without it")
            if context.options.maxima == "shapley":
                raise UnsupportedOperationError("has no Shapley values: its windows differ from sample to sample")

            def run(x: Tensor) -> tuple[Tensor, Tensor]:
                return pool(x, kernel_size, output_size, output_ratio, _random_samples=_random_samples)

            return _routed(input, run, dims, with_indices or return_indices)

        return fractional

    rule(f"{name}_with_indices")(bound(True))
    rule(name)(bound(False))


_register_fractional(2)
_register_fractional(3)


def _largest(input: Tensor, dim: Any, keepdim: bool) -> tuple[Tensor, Tensor]:
    """Maxima over some dimensions and their flat positions, by max-pooling with one window over all of them."""
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


def running_maxima(input: Tensor) -> tuple[Tensor, Tensor]:
    """``[rows, n]`` to the maxima of the first elements of each row, one more in each column, and their positions."""
    if has_torch_function_unary(input):
        return handle_torch_function(running_maxima, (input,), input)
    values, indices = input.cummax(1)
    return values, indices


@rule("running_maxima")
def _running_maxima(context: Context, input: Tensor) -> Application:
    def windows(_: int, size: int, count: int) -> Tensor:
        places = torch.arange(size, device="cpu")
        return torch.where(places <= torch.arange(count, device="cpu")[:, None], places, -1)

    return maxpool(context, input, running_maxima, 1, True, windows)


@decomposition("cummax")
def _cummax(input: Tensor, dim: int) -> Any:
    if input.dim() == 0:
        return torch.return_types.cummax((input.clone(), torch.zeros_like(input, dtype=torch.int64)))
    last = input.movedim(dim, -1)
    found = running_maxima(last.reshape(-1, last.shape[-1]))
    values, indices = (one.view(last.shape).movedim(-1, dim) for one in found)
    return torch.return_types.cummax((values, indices))


@decomposition("cummin")
def _cummin(input: Tensor, dim: int) -> Any:
    values, indices = torch.cummax(-input, dim)
    return torch.return_types.cummin((-values, indices))


def _register_maximum(name: str) -> None:
    @rule(name)
    def maximum(_: Context, input: Tensor, other: Tensor) -> Application:
        """For two tensors the exact Shapley values, whatever ``rules`` says: they cost no more than routing."""
        both = torch.stack(torch.broadcast_tensors(input, other), -1)

        def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
            return getattr(torch, name)(*x.unbind(-1)), [x]

        return Application([both], forward, _shapley, stand_for=[input, other])


def _shapley(grad: Tensor, sides: Any) -> list[Tensor]:
    """Multipliers of entries ``[..., entries]`` of windows, for those ``[...]`` of their maxima."""
    return [ops.shapley_max(grad.unsqueeze(0), sides.x[0], sides.r[0], sides.rows(), *sides.geometry()).squeeze(0)]


_register_maximum("maximum")
_register_maximum("fmax")


@decomposition("minimum")
def _minimum(input: Tensor, other: Tensor) -> Tensor:
    return -torch.maximum(-input, -other)


@decomposition("fmin")
def _fmin(input: Tensor, other: Tensor) -> Tensor:
    return -torch.fmax(-input, -other)
