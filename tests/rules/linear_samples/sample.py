"""What a sample of a linear operation is, and the constants that samples take."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Sample(NamedTuple):
    """A call of a linear operation on a batch.

    ``op`` takes a float64 tensor ``[B, *shape]`` to a real tensor, in which the batch may lie anywhere; ``back`` takes a tensor of that
    shape to ``[B, ...]``. ``tolerance``: how far values may miss their sum where the operation rounds to a shorter type; None elsewhere.
    """

    shape: tuple[int, ...]
    op: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor] = lambda y: y
    tolerance: float | None = None


def const(*shape: int) -> Tensor:
    """Numbers that look random, the same ones for the same shape."""
    n = torch.Size(shape).numel()
    return (torch.arange(n, dtype=torch.float64) * 2.3 + len(shape)).sin().reshape(shape) + 0.1


def at(*indices: int) -> Tensor:
    """Positions, as indexing and scattering take them."""
    return torch.tensor(indices)


def mask(*shape: int) -> Tensor:
    """Some true and some false, the same ones for the same shape."""
    return const(*shape) > 0


def written(x: Tensor, write: Callable[[Tensor], Any]) -> Tensor:
    """A copy of ``x`` into which ``write`` has written in place."""
    y = x.clone()
    write(y)
    return y


def real(z: Tensor) -> Tensor:
    """Real and imaginary parts of complex rows, ``[B, numbers]``."""
    return torch.view_as_real(z).flatten(1)


def each_row(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function that takes one row without a batch dimension, such as ``torch.dot``, for all rows of a batch."""
    return torch.vmap(function)


def batch_first(y: Tensor) -> Tensor:
    """``y`` with its first two dimensions exchanged, for operations that leave the batch second."""
    return y.transpose(0, 1)
