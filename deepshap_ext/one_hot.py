"""One-hot sequences ``[..., characters, length]``: tensors of any dtype, or packed as tangermeme's ``PackedSequence``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from .arguments import shown
from .arrays import as_tensor


def check_one_hot(
    name: str, X: Any, shape: Sequence[int | None], unknown: bool = False, warn: type[Warning] | None = None
) -> None:
    """Check that the argument ``name`` of a function has this shape, in which None is any size, and is one-hot in every position.

    ``unknown``: positions may also be zero, for an unknown character. ``warn``: the warning to give the function's caller instead of a
    ValueError.
    """

    def wrong(contract: str) -> None:
        message = f"{name} must {contract}, got {shown(X)}"
        if warn is None:
            raise ValueError(message)
        warnings.warn(message, warn, stacklevel=4)

    if not (_is_packed(X) or isinstance(X, Tensor)):
        raise ValueError(f"{name} must be a tensor, got {shown(X)}")
    if isinstance(X, Tensor) and as_tensor(name, X).is_complex():
        raise TypeError(f"{name} must be real, got {X.dtype}")
    if len(X.shape) != len(shape) or any(a not in (None, b) for a, b in zip(shape, X.shape, strict=True)):
        wrong(f"have shape [{', '.join(str(size or '...') for size in shape)}]")
    if _is_packed(X):
        one_hot = unknown or len(X.n_runs) == 0
    else:
        number = X.sum(-2)
        one_hot = bool(((X == 0) | (X == 1)).all() and ((number == 1) | (number == 0) & unknown).all())
    if not one_hot:
        wrong(f"be one-hot{' or zero' if unknown else ''} in every position")


def unpacked(X: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Sequences as a tensor."""
    tensor: Tensor = X.to_one_hot(dtype=dtype, device=device) if _is_packed(X) else X.to(device, dtype)
    return tensor


def packed_like(tensor: Tensor, *others: Any) -> Any:
    """The tensor, packed if any of the ``others`` is, unless its sequences are not one-hot, which cannot be packed."""
    for other in others:
        if _is_packed(other):
            with suppress(ValueError):
                return other.from_one_hot(tensor)
    return tensor


def _is_packed(X: Any) -> bool:
    return hasattr(X, "to_one_hot")
