"""Sorting and selecting by value: linear in the selected elements, exact while the input and its baseline select alike."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .registry import decomposition


@decomposition("sort")
def _sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Any:
    indices = torch.argsort(input, dim=dim, descending=descending, stable=stable)
    return torch.return_types.sort((input.gather(dim, indices), indices))


@decomposition("msort")
def _msort(input: Tensor) -> Tensor:
    return torch.sort(input, 0).values


@decomposition("topk")
def _topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    indices = torch.topk(input.detach(), k, dim, largest, sorted).indices
    return torch.return_types.topk((input.gather(dim, indices), indices))


@decomposition("kthvalue")
def _kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    indices = torch.kthvalue(input.detach(), k, dim, True).indices
    values = input.gather(dim, indices)
    return torch.return_types.kthvalue((values, indices) if keepdim else (values.squeeze(dim), indices.squeeze(dim)))


@decomposition("median")
def _median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    if dim is None:
        flat = input.reshape(-1)
        return flat.gather(0, torch.median(flat.detach(), 0, True).indices).squeeze(0)
    indices = torch.median(input.detach(), dim, True).indices
    values = input.gather(dim, indices)
    return torch.return_types.median((values, indices) if keepdim else (values.squeeze(dim), indices.squeeze(dim)))


@decomposition("cummax")
def _cummax(input: Tensor, dim: int) -> Any:
    indices = torch.cummax(input.detach(), dim).indices
    return torch.return_types.cummax((input.gather(dim, indices), indices))


@decomposition("cummin")
def _cummin(input: Tensor, dim: int) -> Any:
    indices = torch.cummin(input.detach(), dim).indices
    return torch.return_types.cummin((input.gather(dim, indices), indices))
