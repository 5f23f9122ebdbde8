"""Decompositions of operations whose index is explained integers; with any other index these operations are linear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..errors import UnsupportedOperationError
from .registry import DECOMPOSITIONS


def _scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    dim %= input.dim()
    written = src[tuple(map(slice, index.shape))].unsqueeze(-1)
    return input + (_places(input, dim, index) * written).sum(dim).movedim(-1, dim)


def _scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None, reduce: str | None = None
) -> Tensor:
    dim, src = dim % input.dim(), value if src is None else src
    if reduce is not None or (isinstance(src, Tensor) and index.shape[dim] > 1):
        raise UnsupportedOperationError(
            "torch.scatter with explained integers as its index has a rule for one number that it writes: write torch.scatter_add"
        )
    written = _places(input, dim, index).amax(dim).movedim(-1, dim)
    return input * (1 - written) + written * (src[tuple(map(slice, index.shape))] if isinstance(src, Tensor) else src)


def _places(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """``[*index.shape, size of dim]``: 1 at the place along ``dim`` of the input that each element of the index points to, otherwise 0."""
    if input.movedim(dim, 0).shape[1:] != index.movedim(dim, 0).shape[1:]:
        raise UnsupportedOperationError(
            f"torch.scatter with explained integers as its index has a rule for an index as long as the tensor but in dimension {dim}, got "
            f"{list(index.shape)} for {list(input.shape)}"
        )
    return F.one_hot(index, input.shape[dim]).to(input.dtype)


def at_integers(name: str) -> Callable[..., Any] | None:
    """The decomposition of the operation of this name for an explained index; None where it needs none."""
    if name == "embedding_bag":
        return DECOMPOSITIONS[name]
    return {"scatter": _scatter, "scatter_add": _scatter_add}.get(name)
