"""Operations written with others: with such that have a rule, or whose backward has a batching rule where their own has none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import UnsupportedOperationError
from .registry import decomposition


@decomposition("unfold")
def _unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    if input.dim() == 0:
        return input.as_strided((size,), (1,))
    length, stride = input.shape[dimension], input.stride(dimension)
    if not 0 <= size <= length or step < 1:
        # Torch itself raises the error for such a size or step.
        return input.detach().unfold(dimension, size, step)
    shape, strides = list(input.shape), list(input.stride())
    shape[dimension], strides[dimension] = (length - size) // step + 1, stride * step
    return input.as_strided((*shape, size), (*strides, stride))


@decomposition("take")
def _take(input: Tensor, index: Tensor) -> Tensor:
    return input.reshape(-1).index_select(0, index.reshape(-1) % input.numel()).reshape(index.shape)


@decomposition("put")
def _put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    flat, place = input.reshape(-1), index.reshape(-1) % input.numel()
    values = source.reshape(-1)
    return (flat.index_add(0, place, values) if accumulate else flat.index_copy(0, place, values)).reshape(input.shape)


@decomposition("masked_scatter")
def _masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    shape = torch.broadcast_shapes(input.shape, mask.shape)
    input, mask = input.broadcast_to(shape), mask.broadcast_to(shape)
    if source.numel() == 0:
        return input.clone()
    # The n-th true element of the mask takes the n-th element of the source.
    order = (mask.reshape(-1).cumsum(0) - 1).clamp(0, source.numel() - 1)
    return torch.where(mask, source.reshape(-1).index_select(0, order).view(shape), input)


@decomposition("scatter_reduce")
def _scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    src = src[tuple(slice(size) for size in index.shape)]
    if reduce in ("sum", "mean"):
        start = input if include_self else input.scatter(dim, index, 0.0)
        total = start.scatter_add(dim, index, src)
        if reduce == "sum":
            return total
        ones = torch.ones_like(src, dtype=torch.int64)
        count = torch.full_like(input, int(include_self), dtype=torch.int64).scatter_add(dim, index, ones)
        return total / count.clamp(min=1)
    neutral = {"prod": 1.0, "amax": -math.inf, "amin": math.inf}[reduce]
    start = input if include_self else input.scatter(dim, index, neutral)
    number, largest = _numbered(index, dim)
    # In a new last dimension, all elements that go to each place of the result.
    entries = torch.full_like(input, neutral).unsqueeze(-1).repeat(*[1] * input.dim(), largest)
    if largest:
        dim, size = dim % input.dim(), input.shape[dim]
        flat = entries.movedim(-1, dim).flatten(dim, dim + 1).scatter(dim, number * size + index, src)
        entries = flat.unflatten(dim, (largest, size)).movedim(dim, -1)
    entries = torch.cat([start.unsqueeze(-1), entries], -1)
    return entries.prod(-1) if reduce == "prod" else entries.amax(-1) if reduce == "amax" else entries.amin(-1)


def _numbered(index: Tensor, dim: int) -> tuple[Tensor, int]:
    """For each index, how many equal ones stand before it along ``dim``; and how often the most frequent one occurs."""
    index = index.detach().movedim(dim, -1)
    ordered, places = index.sort(dim=-1, stable=True)
    numbers = torch.arange(index.shape[-1], device=index.device).expand_as(index)
    new = torch.cat([torch.ones_like(ordered[..., :1], dtype=torch.bool), ordered.diff(dim=-1) != 0], -1)
    first = numbers.masked_fill(new.logical_not(), 0).cummax(-1).values
    number = torch.zeros_like(index).scatter(-1, places, numbers - first)
    return number.movedim(-1, dim), int(number.max()) + 1 if number.numel() else 0


@decomposition("index_reduce")
def _index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    shape = [-1 if d == dim % input.dim() else 1 for d in range(input.dim())]
    return torch.scatter_reduce(
        input, dim, index.view(shape).expand_as(source), source, reduce, include_self=include_self
    )


# The conjugate bit of complex tensors makes negative views, whose backward has no batching rule.


@decomposition("conj_physical")
def _conj_physical(input: Tensor) -> Tensor:
    return torch.view_as_complex(torch.stack([input.real, -input.imag], -1)) if input.is_complex() else input.clone()


@decomposition("resolve_conj")
def _resolve_conj(input: Tensor) -> Tensor:
    return torch.conj_physical(input.conj()) if input.is_conj() else input


@decomposition("imag")
def _imag(input: Tensor) -> Tensor:
    parts = torch.view_as_real(input.conj() if input.is_conj() else input)[..., 1]
    return -parts if input.is_conj() else parts


def _register_nearest_exact(dims: int) -> None:
    name = f"_upsample_nearest_exact{dims}d"

    @decomposition(name)
    def nearest(input: Tensor, output_size: Any, scales: Any = None, *each: Any) -> Tensor:
        # aten's `vec` overload has a list of scales or None, the other one a scale a dimension.
        factors = list(scales) if isinstance(scales, Sequence) else [scales, *each, *[None] * dims][:dims]
        sizes = [None] * dims if output_size is None else output_size
        for dim, (size, factor) in enumerate(zip(sizes, factors, strict=True), 2):
            positions = torch.arange(input.shape[dim], dtype=torch.float64, device=input.device).view(1, 1, -1)
            if size is None:
                index = torch._C._nn._upsample_nearest_exact1d(positions, None, [factor])
            else:
                index = torch._C._nn._upsample_nearest_exact1d(positions, [size], factor)
            input = input.index_select(dim, index.view(-1).long())
        return input


for _dims in (1, 2, 3):
    _register_nearest_exact(_dims)


@decomposition("affine_grid_generator")
def _affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    dims = theta.shape[1]
    identity = torch.eye(dims, dims + 1, dtype=theta.dtype, device=theta.device).unsqueeze(0)
    points = torch.affine_grid_generator(identity, [1, *size[1:]], align_corners).reshape(1, -1, dims)
    grid = torch.cat([points, torch.ones_like(points[..., :1])], -1) @ theta.mT
    return grid.view(theta.shape[0], *size[2:], dims)


@decomposition("fft_ihfftn")
def _ihfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
    dims = [*range(-(input.dim() if s is None else len(s)), 0)] if dim is None else list(dim)
    sizes = [None] * len(dims) if s is None else list(s)
    last = torch.fft.ihfft(input, sizes[-1], dims[-1], norm)
    if len(dims) == 1:
        return last
    return torch.fft.ifftn(last, None if s is None else sizes[:-1], dims[:-1], norm)


@decomposition("fft_ihfft2")
def _ihfft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
    return torch.fft.ihfftn(input, s, dim, norm)


@decomposition("conv_tbc")
def _conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    return torch.conv1d(input.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad).permute(2, 0, 1)


@decomposition("pad_sequence")
def _pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Tensor:
    length, padded = max(len(sequence) for sequence in sequences), []
    for sequence in sequences:
        missing = length - len(sequence)
        ends = (0, missing) if padding_side == "right" else (missing, 0)
        padded.append(F.pad(sequence, (0, 0) * (sequence.dim() - 1) + ends, value=padding_value))
    return torch.stack(padded, 0 if batch_first else 1)


@decomposition("combinations")
def _combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    return input[torch.combinations(torch.arange(len(input), device=input.device), r, with_replacement)]


@decomposition("cartesian_prod")
def _cartesian_prod(*tensors: Tensor) -> Tensor:
    grids = torch.meshgrid(*tensors, indexing="ij")
    return torch.stack([grid.reshape(-1) for grid in grids], -1) if len(tensors) > 1 else tensors[0]


@decomposition("linalg_vander")
def _powers(x: Tensor, *, N: int | None = None) -> Tensor:
    return torch.stack([x**exponent for exponent in range(x.shape[-1] if N is None else N)], -1)


@decomposition("vander")
def _falling_powers(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    powers = torch.linalg.vander(x, N=len(x) if N is None else N)
    return powers if increasing else powers.flip(-1)


def _areas(y: Tensor, x: Tensor, dim: int) -> Tensor:
    """The area between each two neighbouring points along ``dim``, by the trapezoidal rule."""
    if x.dim() == 1:
        x = x.view(-1, *[1] * (y.dim() - 1 - dim % y.dim()))
        widths = x.diff(dim=0)
    else:
        widths = x.diff(dim=dim)
    last = y.shape[dim] - 1
    return (y.narrow(dim, 0, last) + y.narrow(dim, 1, last)) * widths / 2


@decomposition("trapezoid")
def _trapezoid(y: Tensor, x: Tensor, *, dim: int = -1) -> Tensor:
    return _areas(y, x, dim).sum(dim)


@decomposition("cumulative_trapezoid")
def _cumulative_trapezoid(y: Tensor, x: Tensor, *, dim: int = -1) -> Tensor:
    return _areas(y, x, dim).cumsum(dim)


@decomposition("linalg_vecdot")
def _vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    return (x.conj() * y).sum(dim)


@decomposition("linalg_cross")
def _cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    def turned(a: Tensor, b: Tensor) -> Tensor:
        return a.roll(-1, dim) * b.roll(-2, dim)

    return turned(input, other) - turned(other, input)


@decomposition("cross")
def _cross_of_first(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    # torch's default is the first dimension of length 3.
    return torch.linalg.cross(input, other, dim=input.shape.index(3) if dim is None else dim)


@decomposition("matrix_power")
def _matrix_power(input: Tensor, n: int) -> Tensor:
    if n < 0:
        return torch.linalg.matrix_power(torch.linalg.inv(input), -n)
    if n == 0:
        return torch.eye(input.shape[-1], dtype=input.dtype, device=input.device).expand_as(input)
    if n == 1:
        return input.clone()
    half = torch.linalg.matrix_power(input, n // 2)
    return half @ half @ input if n % 2 else half @ half


@decomposition("embedding")
def _embedding(one: Tensor, other: Tensor, *args: Any, **options: Any) -> Tensor:
    # torch.nn.functional has the indices first, torch the table.
    table, indices = (one, other) if one.is_floating_point() else (other, one)
    if options.get("max_norm") is not None:
        raise UnsupportedOperationError(
            "torch.nn.functional.embedding with max_norm has no rule for a table that depends on the explained input"
        )
    return table.index_select(0, indices.reshape(-1)).view(*indices.shape, -1)


@decomposition("embedding_bag")
def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Any = None,
    *,
    mode: str = "mean",
    per_sample_weights: Tensor | None = None,
    padding_idx: int | None = None,
    **options: Any,
) -> Tensor:
    if input.is_floating_point() or input.dim() != 2:
        raise UnsupportedOperationError(
            "torch.nn.functional.embedding_bag has a rule for bags of shape [batch, length]"
        )
    rows = F.embedding(input, weight, max_norm=options.get("max_norm"))
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    left_out = (torch.zeros_like(input) if padding_idx is None else input == padding_idx).bool()
    if mode == "max":
        most = rows.masked_fill(left_out.unsqueeze(-1), -math.inf).amax(1)
        return most.masked_fill(left_out.all(1, keepdim=True), 0)
    total = rows.masked_fill(left_out.unsqueeze(-1), 0).sum(1)
    return total / left_out.logical_not().sum(1, keepdim=True).clamp(min=1) if mode == "mean" else total


@decomposition("ldexp")
def _ldexp(input: Tensor, other: Tensor) -> Tensor:
    return input * torch.pow(2.0, other)


@decomposition("nan_to_num")
def _nan_to_num(
    input: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    limits = torch.finfo(input.dtype)
    finite = input.masked_fill(input.isnan(), 0.0 if nan is None else nan)
    finite = finite.masked_fill(input.isposinf(), limits.max if posinf is None else posinf)
    return finite.masked_fill(input.isneginf(), limits.min if neginf is None else neginf)


@decomposition("nanmean")
def _nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    present = input.isnan().logical_not()
    return input.nansum(dim, keepdim, dtype=dtype) / present.sum(dim, keepdim)


@decomposition("frac")
def _frac(input: Tensor) -> Tensor:
    return input - input.trunc()


def _register_remainder(name: str) -> None:
    @decomposition(name)
    def rest(input: Any, other: Any) -> Tensor:
        # How often `other` goes into `input` is a step, without a gradient. It is computed from torch's own remainder, because the quotient
        # may be rounded to the next whole number.
        x, y = (value.detach() if isinstance(value, Tensor) else value for value in (input, other))
        times = ((x - getattr(torch, name)(x, y)) / y).round()
        return input - times * other


_register_remainder("fmod")
_register_remainder("remainder")


@decomposition("aminmax")
def _aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    dims = () if dim is None else dim
    return torch.return_types.aminmax((input.amin(dims, keepdim), input.amax(dims, keepdim)))


@decomposition("std_mean")
def _std_mean(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(*args, **kwargs)
    return variance.sqrt(), mean
