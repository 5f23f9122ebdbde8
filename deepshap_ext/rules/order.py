"""Order statistics: the values of a sort. Positions (``argsort``, the indices of ``topk``) are exact while both sides choose alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from .registry import Application, Context, decomposition, rule

_BLOCK = 64


def order_statistics(input: Tensor, ranks: Sequence[int]) -> Tensor:
    """``[..., n]`` to ``[..., len(ranks)]``: the elements at these ranks of the last dimension in ascending order."""
    if has_torch_function_unary(input):
        return handle_torch_function(order_statistics, (input,), input, ranks)
    values = input.sort(-1).values
    return values if list(ranks) == [*range(input.shape[-1])] else values[..., list(ranks)]


@rule("order_statistics")
def _order_statistics(_: Context, input: Tensor, ranks: Sequence[int]) -> Application:
    """The difference of a statistic goes, in equal parts, to all elements that go past it.

    Of elements with ``x_i >= o(x)`` and ``r_i <= o(r)``, where ``o(x) >= o(r)``, and the other way round otherwise, there is at least one:
    too few are smaller on one side, and too many on the other. Each has a multiplier ``(o(x) - o(r)) / (x_i - r_i)`` in [0, 1], and so has
    their mean. Of a maximum it is the one element that max-pooling routes to.
    """

    def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        values = order_statistics(x, ranks)
        return values, [x, values]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        x, r = (side.unsqueeze(-2) for side in sides.pair(0))
        equal = x == r
        found = torch.zeros_like(input)
        # In blocks of ranks, so that memory grows as the elements do and not as their square.
        blocks = zip(*(tensor.unsqueeze(-1).split(_BLOCK, -2) for tensor in (grad, *sides.pair(1))), strict=True)
        for g, o_x, o_r in blocks:
            past = torch.where(o_x >= o_r, (x >= o_x) & (r <= o_r), (x <= o_x) & (r >= o_r))
            share = torch.where(past, torch.where(equal, 1, (o_x - o_r) / (x - r)), 0)
            found = found + (g * share / past.sum(-1, keepdim=True)).sum(-2)
        return [found]

    return Application([input], forward, multipliers)


def _along(input: Tensor, dim: int, ranks: Sequence[int]) -> Tensor:
    return order_statistics(input.movedim(dim, -1), ranks).movedim(-1, dim)


@decomposition("sort")
def _sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Any:
    if input.dim() == 0:
        return torch.return_types.sort((input.clone(), torch.zeros_like(input, dtype=torch.int64)))
    indices = torch.argsort(input.detach(), dim=dim, descending=descending, stable=stable)
    values = _along(input, dim, range(input.shape[dim]))
    return torch.return_types.sort((values.flip(dim) if descending else values, indices))


@decomposition("msort")
def _msort(input: Tensor) -> Tensor:
    return torch.sort(input, 0).values


@decomposition("topk")
def _topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    indices = torch.topk(input.detach(), k, dim, largest, sorted).indices
    if not sorted or input.dim() == 0:
        # Their order is not that of the values.
        return torch.return_types.topk((input.gather(dim, indices), indices))
    n = input.shape[dim]
    values = _along(input, dim, range(n - 1, n - 1 - k, -1) if largest else range(k))
    return torch.return_types.topk((values, indices))


@decomposition("kthvalue")
def _kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    indices = torch.kthvalue(input.detach(), k, dim, keepdim).indices
    return torch.return_types.kthvalue((_one(input, dim, keepdim, k - 1), indices))


def _one(input: Tensor, dim: int, keepdim: bool, rank: int) -> Tensor:
    if input.dim() == 0:
        return input.clone()
    value = _along(input, dim, [rank])
    return value if keepdim else value.squeeze(dim)


@decomposition("median")
def _median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    if dim is None:
        return _one(input.reshape(-1), 0, False, (input.numel() - 1) // 2)
    size = input.shape[dim] if input.dim() else 1
    indices = torch.median(input.detach(), dim, keepdim).indices
    return torch.return_types.median((_one(input, dim, keepdim, (size - 1) // 2), indices))


def _selected(input: Tensor, indices: Tensor, dim: int, keepdim: bool) -> tuple[Tensor, Tensor]:
    """The elements at these places, which are right while both sides choose alike."""
    values = input.gather(dim, indices)
    return (values, indices) if keepdim else (values.squeeze(dim), indices.squeeze(dim))


@decomposition("nanmedian")
def _nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    if dim is None:
        flat = input.reshape(-1)
        return _selected(flat, torch.nanmedian(flat.detach(), 0, True).indices, 0, False)[0]
    indices = torch.nanmedian(input.detach(), dim, True).indices
    return torch.return_types.nanmedian(_selected(input, indices, dim, keepdim))


@decomposition("mode")
def _mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    indices = torch.mode(input.detach(), dim, True).indices
    return torch.return_types.mode(_selected(input, indices, dim, keepdim))


@decomposition("cummax")
def _cummax(input: Tensor, dim: int) -> Any:
    indices = torch.cummax(input.detach(), dim).indices
    return torch.return_types.cummax((input.gather(dim, indices), indices))


@decomposition("cummin")
def _cummin(input: Tensor, dim: int) -> Any:
    indices = torch.cummin(input.detach(), dim).indices
    return torch.return_types.cummin((input.gather(dim, indices), indices))


def _neighbours(positions: Tensor, interpolation: str) -> tuple[Tensor, Tensor, Any]:
    """The ranks below and above fractional ones, and how much of the one above counts."""
    if interpolation in ("lower", "higher", "nearest"):
        rank = {"lower": torch.floor, "higher": torch.ceil, "nearest": torch.round}[interpolation](positions).long()
        return rank, rank, 0
    below = positions.floor()
    return below.long(), positions.ceil().long(), 0.5 if interpolation == "midpoint" else positions - below


def _quantiles(low: Tensor, high: Tensor, share: Any, q: Any, dim: int | None, keepdim: bool, dims: int) -> Tensor:
    """Of quantiles ``[..., number of q]`` the tensor that torch returns: with q's dimension in front, or without one."""
    values = low + share * (high - low)
    if keepdim:
        values = values.view(*[1] * dims, -1) if dim is None else values.unsqueeze(-2).movedim(-2, dim % dims)
    several = isinstance(q, Tensor) and q.dim() > 0
    return values.movedim(-1, 0) if several else values.squeeze(-1)


@decomposition("quantile")
def _quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    entries = input.reshape(-1) if dim is None else input.movedim(dim, -1)
    positions = torch.as_tensor(q, dtype=input.dtype, device=input.device).reshape(-1) * (entries.shape[-1] - 1)
    below, above, share = _neighbours(positions, interpolation)
    values = order_statistics(entries, below.tolist() + above.tolist())
    low, high = values.chunk(2, -1)
    return _quantiles(low, high, share, q, dim, keepdim, input.dim())


@decomposition("nanquantile")
def _nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    entries = input.reshape(-1) if dim is None else input.movedim(dim, -1)
    count = entries.isnan().logical_not().sum(-1, keepdim=True)
    positions = torch.as_tensor(q, dtype=input.dtype, device=input.device).reshape(-1) * (count - 1).clamp(min=0)
    below, above, share = _neighbours(positions, interpolation)
    places = entries.detach().argsort(-1)  # what is not a number comes last
    low, high = (entries.gather(-1, places.gather(-1, ranks)) for ranks in (below, above))
    return _quantiles(low, high, share, q, dim, keepdim, input.dim())
