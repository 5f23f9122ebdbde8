"""Order statistics: complete where the order differs, near the Shapley values, in the time of a sort, and as torch computes them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.shapley import distances, shapley_values
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
    "topk and sort of nothing": lambda h: torch.cat([h, h.topk(0, 1).values, h[:, :0].sort(1).values], 1),
    "topk, unsorted": lambda h: torch.topk(h, 4, sorted=False).values.square().mean(1, keepdim=True),
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
    "sort of missing numbers": lambda h: h.masked_fill(HOLES, math.nan).sort(1).values[:, :5],
    "nanmedian": lambda h: h.masked_fill(HOLES, math.nan).nanmedian(1, keepdim=True).values,
    "nanmedian of none": lambda h: h + h.masked_fill(h == h, math.nan).nanmedian(1, True).values.nan_to_num(),
    "nanmedian of each": lambda h: torch.stack([row.masked_fill(HOLES, math.nan).nanmedian() for row in h]),
    "nanquantile": lambda h: torch.nanquantile(h.masked_fill(HOLES, math.nan), 0.3, 1, True),
    "nanquantile, several": lambda h: (
        torch.nanquantile(
            h.masked_fill(HOLES, math.nan), torch.tensor([0.3, 1.0]).double(), dim=1, interpolation="higher"
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


def explain(function: Callable[[Tensor], Tensor], x: Tensor, r: Tensor, **options: Any) -> Tensor:
    """``[pairs, elements]`` of a function with one output, each pair on its own."""

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    return DeepExplainer(Model(), r[:1], **options).attribute(x, baselines=r.unsqueeze(1)).values[..., 0]


@pytest.mark.parametrize("rank", [1, 2, 4, 7])
def test_multipliers_lie_between_0_and_1_and_near_the_shapley_values(rank: int) -> None:
    r, noise = torch.randn(2, 60, 7, dtype=torch.float64)
    model = Statistic(rank)
    for x in (noise, r + 0.3 * noise, 3 * noise + 1):
        found = explain(model, x, r)
        multipliers = found / (x - r)
        assert (multipliers >= 0).all() and (multipliers <= 1).all()
        far = distances(found, torch.stack([shapley_values(model, *sides)[:, 0] for sides in zip(x, r, strict=True)]))
        assert far.median() < 0.03 and far.quantile(0.9) < 0.15


def test_exact_where_at_most_one_element_falls() -> None:
    r, noise = torch.randn(2, 20, 7, dtype=torch.float64)
    x = r + noise.abs() * (1 - 2 * (torch.arange(7) == 3).double())
    weights = const(7)

    def weighted(x: Tensor) -> Tensor:
        return (x.sort(1).values * weights).sum(1, keepdim=True)

    exact = torch.stack([shapley_values(weighted, *sides)[:, 0] for sides in zip(x, r, strict=True)])
    torch.testing.assert_close(explain(weighted, x, r), exact, rtol=1e-12, atol=1e-13)


def test_a_maximum_is_nearer_than_by_routing() -> None:
    x, r = torch.randn(2, 40, 7, dtype=torch.float64)

    def maximum(x: Tensor) -> Tensor:
        return x.amax(1, keepdim=True)

    exact = explain(maximum, x, r, rules="shapley")
    ours, routed = (distances(explain(function, x, r), exact) for function in (Statistic(7), maximum))
    assert ours.median() < 0.01 < routed.median() and ours.max() < 0.2


SIDES = st.lists(st.tuples(*[st.integers(-3, 3) | st.floats(-1e3, 1e3)] * 3), min_size=1, max_size=9)


@given(SIDES)
@settings(max_examples=30)
def test_complete_bounded_and_finite_also_with_ties(sides: list[tuple[float, float, float]]) -> None:
    x, r, weights = torch.tensor(sides, dtype=torch.float64).T

    def weighted(x: Tensor) -> Tensor:
        return (x.sort(1).values * weights).sum(1, keepdim=True)

    found = explain(weighted, x[None], r[None])[0]
    terms = torch.stack([weights * x.sort().values, weights * r.sort().values])
    assert abs(found.sum() - (terms[0] - terms[1]).sum()) <= 1e-12 * (1 + terms.abs().sum())
    # The multipliers are means of the weights.
    ends = torch.stack([weights.min() * (x - r), weights.max() * (x - r)])
    slack = 1e-12 * ends.abs().amax(0)
    assert ((found >= ends.amin(0) - slack) & (found <= ends.amax(0) + slack)).all()


def test_elements_that_do_not_move_have_their_own_rank_multiplier() -> None:
    """The sums are equal on both sides, their summands are not."""
    x = torch.tensor([[1.0, 5, 4, 2], [0.0, 3, 0, 0]]).double().T.reshape(1, -1)
    moved = torch.tensor([[1.0, -2, 0.5, 3], [-1.0, 2, -0.5, -3]]).double().T.reshape(1, -1)
    weights = const(4)

    def of_sums(x: Tensor) -> Tensor:
        return (x.view(-1, 4, 2).sum(2).sort(1).values * weights).sum(1, keepdim=True)

    sums = x.view(4, 2).sum(1)
    expected = moved.view(4, 2) * weights[sums.argsort().argsort()].unsqueeze(1)
    torch.testing.assert_close(explain(of_sums, x, x - moved), expected.reshape(1, -1), rtol=1e-13, atol=1e-14)
    # Among ties each has one of their ranks.
    of_ties = explain(
        of_sums, torch.tensor([[0.0, 1, 2, -1, 2, -1, 3, -2]]).double(), torch.tensor([[1.0, 0] * 4]).double()
    )
    assert sorted((of_ties.view(4, 2)[:, 1] / torch.tensor([1.0, -1, -1, -2])).tolist()) == pytest.approx(
        sorted(weights.tolist())
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=lambda dtype: str(dtype)[6:])
def test_other_types_round_the_values_of_float64(dtype: torch.dtype) -> None:
    x, r = torch.randn(2, 8, 33).to(dtype)

    def extremes(x: Tensor) -> Tensor:
        return x.topk(3, 1).values.mean(1, keepdim=True) + x.sort(1).values[:, 5:20].mean(1, keepdim=True)

    exact = explain(extremes, x.double(), r.double())
    found = explain(extremes, x, r)
    torch.testing.assert_close(
        found.double(), exact, rtol=0, atol=4 * torch.finfo(dtype).eps * float(exact.abs().max())
    )


def test_20_000_elements_take_no_time() -> None:
    x, r = torch.randn(2, 1, 20_000, dtype=torch.float64)
    for function in (lambda x: x.sort(1).values[:, ::3].mean(1, keepdim=True), lambda x: x.median(1, True).values):
        explain(function, x, r)
        began = time.process_time()
        found = explain(function, x, r)
        assert time.process_time() - began < 2  # pairs of elements would take minutes
        torch.testing.assert_close(found.sum(1, keepdim=True), function(x) - function(r), rtol=1e-11, atol=1e-13)


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
