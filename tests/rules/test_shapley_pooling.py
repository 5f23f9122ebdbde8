"""``rules="shapley"``: a pooling's multipliers are its exact Shapley values, over all coalitions of its elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference.shapley import shapley_values
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

POOLINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "windows apart": lambda x: F.max_pool2d(x, 2),
    "overlapping, padded": lambda x: F.max_pool2d(x, 3, stride=2, padding=1),
    "dilated": lambda x: F.max_pool2d(x, 2, stride=1, dilation=2),
    "ceil": lambda x: F.max_pool2d(x, 2, ceil_mode=True),
    "with indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "one dimension": lambda x: F.max_pool1d(x.flatten(2), 5, stride=3, padding=2),
    "three dimensions": lambda x: F.max_pool3d(x.unflatten(2, (3, 1)), (2, 1, 3), stride=1),
    "adaptive": lambda x: F.adaptive_max_pool2d(x, (2, 3)),
    "amax": lambda x: x.amax((2, 3)),
    "cummax": lambda x: x.cummax(2).values,
    "maximum": lambda x: torch.maximum(x[..., :2], x[..., 2:]),
}


class Pooled(nn.Module):
    def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x.unflatten(1, (1, 3, 4))).flatten(1)
        return pooled @ torch.arange(1.0, pooled.shape[1] + 1, dtype=x.dtype)


@pytest.mark.parametrize("pool", POOLINGS.values(), ids=POOLINGS.keys())
def test_a_pooling_has_its_exact_shapley_values(pool: Callable[[Tensor], Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, background = (torch.randn(n, 12, generator=generator, dtype=torch.float64) for n in (2, 3))
    x[0, :4] = background[0, :4]
    model = Pooled(pool)
    found = DeepExplainer(model, background, rules="shapley").attribute(x)
    for row, values in zip(x, found.values[..., 0], strict=True):
        exact = torch.stack([shapley_values(model, row, baseline) for baseline in background]).mean(0)
        torch.testing.assert_close(values, exact, rtol=1e-10, atol=1e-12)
    options: dict[str, Any] = {"pairing": "aligned"}
    aligned = DeepExplainer(model, background, rules="shapley").attribute(x, **options)
    torch.testing.assert_close(found.values, aligned.values, rtol=1e-12, atol=1e-13)
