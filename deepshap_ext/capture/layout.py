"""Where the batch lies in a tensor inside a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Dimension ``dim`` of a tensor is ``before * batch * after`` long: samples come apart as ``[.., before, batch, after, ..]``.

    ``before`` is 1 for ``[B*heads, S, D]``, ``after`` is 1 for ``[S*B, D]``, both are 1 where the batch has a dimension of its own.
    """

    dim: int
    before: int = 1
    after: int = 1

    def outer(self, shape: Sequence[int]) -> int:
        """Number of blocks before the batch: the tensor is ``(outer, batch, inner)`` in row-major order."""
        return math.prod(shape[: self.dim]) * self.before

    def per_sample(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape with the batch taken out."""
        return (*shape[: self.dim], self.before * self.after, *shape[self.dim + 1 :])

    def split(self, tensor: Tensor) -> Tensor:
        """View of the tensor with the batch as a dimension of its own, at ``dim + 1``."""
        return tensor.unflatten(self.dim, (self.before, -1, self.after))

    def rows(self, tensor: Tensor) -> Tensor:
        """View ``[batch, ...]`` of the tensor, one row a sample, in row-major order of what is left."""
        return self.split(tensor).movedim(self.dim + 1, 0)


BATCH_FIRST = Layout(0)
