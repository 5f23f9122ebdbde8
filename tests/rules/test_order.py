"""Order statistics: complete where the order differs, shared among all that go past, and as torch computes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.shapley import shapley_values
from rules.adding_up import check
from rules.linear_samples import const
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

SPREAD = 20 * torch.arange(6)  # keeps the order
HOLES = torch.arange(6) == 2

SPELLINGS: dict[str, Callable[[Tensor], Any]] = {
    "sort": lambda h: h.sort(1).values,
    "sort, descending": lambda h: torch.sort(h, dim=1, descending=True)[0],
    "sort of an inner dimension": lambda h: torch.sort(h.view(-1, 2, 3), dim=1, stable=True).values,
    "sort in aten": lambda h: torch.ops.aten.sort.stable(h, stable=True, dim=1)[0],
    "sort, of many": lambda h: (h.repeat(1, 20) * const(120)).sort(1).values,
    "msort": lambda h: torch.msort(h.view(-1, 6).T).T,
    "topk": lambda h: h.topk(3, 1).values,
    "topk, smallest": lambda h: torch.topk(h, 2, dim=1, largest=False)[0],
    "topk, unsorted, in one order": lambda h: torch.topk(h + SPREAD, 2, sorted=False).values,
    "kthvalue": lambda h: h.kthvalue(2, 1, True).values,
    "kthvalue without a dimension kept": lambda h: torch.kthvalue(h, 5, 1)[0],
    "median": lambda h: h.median(1, keepdim=True).values + h.median(1).values.unsqueeze(1),
    "median of each": lambda h: torch.stack([row.median() for row in h]),
    "median filter": lambda h: h.unfold(1, 3, 1).median(-1).values,
    "quantile": lambda h: torch.quantile(h, 0.3, 1, True) + h.quantile(0.9, dim=1, keepdim=True),
    "quantile, several": lambda h: torch.quantile(h, torch.tensor([0.1, 0.5, 0.9]).double(), dim=1).T,
    "quantile of each": lambda h: torch.stack([row.quantile(0.7, keepdim=True) for row in h]),
    "quantile, not interpolated": lambda h: torch.cat(
        [h.quantile(0.3, 1, True, interpolation=how) for how in ("lower", "higher", "nearest", "midpoint")], 1
    ),
    "quantiles with the dimension kept": lambda h: torch.quantile(
        h.view(-1, 2, 3), torch.tensor([0.2, 0.6]).double(), 1, keepdim=True
    ).movedim(0, -1),
    "quantile of all": lambda h: torch.stack(
        [torch.quantile(row.view(2, 3), torch.tensor([0.3]).double()) for row in h]
    ),
    "nanmedian": lambda h: (h + SPREAD).masked_fill(HOLES, math.nan).nanmedian(1, keepdim=True).values,
    "nanmedian of each": lambda h: torch.stack([(row + SPREAD).masked_fill(HOLES, math.nan).nanmedian() for row in h]),
    "nanquantile": lambda h: torch.nanquantile((h + SPREAD).masked_fill(HOLES, math.nan), 0.3, 1, True),
    "nanquantile, several": lambda h: (
        torch.nanquantile(
            (h + SPREAD).masked_fill(HOLES, math.nan), torch.tensor([0.3, 1.0]).double(), dim=1, interpolation="higher"
        ).T
    ),
    "mode": lambda h: torch.mode(h + SPREAD, 1, True).values,
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_adds_up(name: str) -> None:
    check(SPELLINGS[name])


class Statistic(nn.Module):
    def __init__(self, rank: int) -> None:
        super().__init__()
        self.rank = rank

    def forward(self, x: Tensor) -> Tensor:
        return x.kthvalue(self.rank, 1, keepdim=True).values


@pytest.mark.parametrize("rank", [1, 2, 4, 7])
def test_multipliers_lie_between_0_and_1_and_near_the_shapley_values(rank: int) -> None:
    r, noise = torch.randn(2, 60, 7, dtype=torch.float64)
    model = Statistic(rank)
    for x in (noise, r + 0.3 * noise):
        found = DeepExplainer(model, r[:1]).attribute(x, baselines=r.unsqueeze(1)).values[..., 0]
        multipliers = found / (x - r)
        assert (multipliers >= 0).all() and (multipliers <= 1 + 1e-12).all()
        exact = torch.stack([shapley_values(model, *sides)[:, 0] for sides in zip(x, r, strict=True)])
        # What a selection by the input's order does.
        selected = torch.zeros_like(x).scatter(1, x.kthvalue(rank, 1, keepdim=True).indices, 1) * (x - r)
        ours, theirs = ((values - exact).norm(dim=1) / exact.norm(dim=1) for values in (found, selected))
        assert ours.median() <= theirs.median() and ours.mean() < 0.8 * theirs.mean()


def test_the_extreme_ones_are_routed_as_a_maximum() -> None:
    x, r = torch.randn(2, 20, 7, dtype=torch.float64)

    class Maximum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.amax(1, keepdim=True)

    values = [
        DeepExplainer(model, r[:1]).attribute(x, baselines=r.unsqueeze(1)).values for model in (Statistic(7), Maximum())
    ]
    torch.testing.assert_close(*values, rtol=1e-13, atol=1e-14)


def test_one_order_is_a_permutation() -> None:
    x, r = (torch.tensor([0.0, 3, 1, 2, 5]) + torch.rand(2, 5) / 2).double()
    weights = const(5)

    class Sorted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.sort(1).values * weights).sum(1, keepdim=True)

    values = DeepExplainer(Sorted(), r[None]).attribute(x[None]).values[0, :, 0]
    torch.testing.assert_close(values, weights[x.argsort().argsort()] * (x - r), rtol=1e-13, atol=1e-14)


def test_ties_and_infinities() -> None:
    r = torch.tensor([[1.0, 1, 1, 7], [0, 2, 2, 7]]).double()
    x = torch.tensor([[1.0, 2, 1, 3], [0, 2, 1, 3]]).double()

    class Largest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            left = x.masked_fill(torch.tensor([False, False, False, True]), -math.inf)
            return (left.topk(3, 1).values * const(3)).sum(1, keepdim=True)

    model = Largest()
    found = DeepExplainer(model, r[:1]).attribute(x, baselines=r.unsqueeze(1))
    assert found.values[:, 3].eq(0).all()
    torch.testing.assert_close(found.values.sum(1), model(x) - model(r), rtol=1e-13, atol=1e-14)
