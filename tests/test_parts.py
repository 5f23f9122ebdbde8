"""Parts of one tensor that a model reads by their numbers: values are those of copies, and gradients are put together once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import assert_same, explain
from models import Function
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from deepshap_ext import DeepExplainer

Read = Callable[[Tensor, int, int], Tensor]

pytestmark = pytest.mark.usefixtures("in_float64")


def copied(x: Tensor, dim: int, index: int) -> Tensor:
    return x.index_select(dim, torch.tensor([index % x.shape[dim]])).squeeze(dim)


def indexed(x: Tensor, dim: int, index: int) -> Tensor:
    return x[(slice(None),) * dim + (index,)]


READS: dict[str, Read] = {
    "by an index": indexed,
    "by an index behind an ellipsis": lambda x, dim, index: x[(..., index, *[slice(None)] * (x.dim() - dim - 1))],
    "by a negative index": lambda x, dim, index: indexed(x, dim, index - x.shape[dim]),
    "by select": lambda x, dim, index: x.select(dim, index),
    "by select from the last dimension": lambda x, dim, index: torch.select(x, dim - x.dim(), index),
    "by keywords": lambda x, dim, index: torch.select(x, dim=dim, index=index),
}


def attention(read: Read, x: Tensor) -> Tensor:
    packed = x.view(-1, 3, 2, 6).permute(1, 0, 2, 3).exp()
    q, k, v = (read(packed, 0, number) for number in range(3))
    return ((q @ k.mT).softmax(-1) @ v).flatten(1)


def some(read: Read, x: Tensor) -> Tensor:
    x = x.view(-1, 9, 4).tanh()
    return torch.cat([read(x, 2, 1) * read(x, 2, 3), read(x, 1, 5)], 1)


def twice(read: Read, x: Tensor) -> Tensor:
    x = x.view(-1, 2, 18).tanh()
    return read(x, 1, 0) * read(x, 1, 0).exp() + read(x, 1, 1)


def written_into(read: Read, x: Tensor) -> Tensor:
    x = x.view(-1, 2, 18).tanh()
    one, other = read(x, 1, 0).clone() if read is copied else read(x, 1, 0), read(x, 1, 1)
    one *= 2
    return one * other.exp()


def written_between(read: Read, x: Tensor) -> Tensor:
    x = x.view(-1, 2, 18).tanh()
    one = read(x, 1, 0) * 3
    x += 1
    return one * read(x, 1, 1).exp() + read(x, 1, 0)


#: Of a sample's ``[3, 12]``.
SLICES: dict[str, list[Any]] = {
    "halves": [(..., slice(6)), (..., slice(6, None))],
    "thirds": [(slice(None), slice(4)), (slice(None), slice(4, 8)), (..., slice(-4, 20))],
    "rows": [(slice(1), ...), (slice(1, 2), ...), (slice(2, 3),)],
    "of several sizes": [(..., slice(4, None)), (..., slice(4)), (..., slice(2, 6)), (..., slice(None, None, 3))],
    "one of four": [(..., slice(3, 6))],
    "the same twice": [(..., slice(6)), (..., slice(6)), (..., slice(6, None))],
    "empty, and all": [(..., slice(3, 3)), (..., slice(0, 12))],
    "with another index": [(1, slice(6, None)), (slice(2), slice(6)), (None, slice(None), 2)],
}


@pytest.mark.parametrize("name", SLICES)
def test_values_of_slices_are_those_of_copies(name: str) -> None:
    def sliced(x: Tensor) -> list[Tensor]:
        return [x[(slice(None), *index)] if index[0] is not Ellipsis else x[index] for index in SLICES[name]]

    def copies(x: Tensor) -> list[Tensor]:
        places = torch.arange(36).view(3, 12)
        chosen = [places[index] for index in SLICES[name]]
        return [x.flatten(1).index_select(1, one.flatten()).unflatten(1, one.shape) for one in chosen if one.numel()]

    def model(x: Tensor, read: Callable[[Tensor], list[Tensor]]) -> Tensor:
        parts = read(x.view(-1, 3, 12).tanh())
        return torch.cat([part.exp().flatten(1) for part in parts], 1)

    x, background = torch.randn(3, 36), torch.randn(4, 36)
    found = explain(Function(lambda x: model(x, sliced)), x, background).values
    assert_same(found, explain(Function(lambda x: model(x, copies)), x, background).values)


@pytest.mark.parametrize("read", READS)
@pytest.mark.parametrize("model", [attention, some, twice, written_into, written_between])
def test_values_are_those_of_copies(model: Callable[[Read, Tensor], Tensor], read: str) -> None:
    x, background = torch.randn(3, 36), torch.randn(4, 36)
    found = explain(Function(lambda x: model(READS[read], x)), x, background).values
    assert_same(found, explain(Function(lambda x: model(copied, x)), x, background).values)


def test_a_part_written_into_changes_the_whole() -> None:
    def model(x: Tensor, copies: bool) -> Tensor:
        x = x.view(-1, 2, 18).tanh()
        if copies:
            return torch.stack([x[:, 0] ** 2, x[:, 1]], 1).exp().flatten(1)
        one, other = x[:, 0], x[:, 1]
        one *= one.clone()
        return torch.stack([x[:, 0], other], 1).exp().flatten(1)

    x, background = torch.randn(3, 36), torch.randn(4, 36)
    found = explain(Function(lambda x: model(x, False)), x, background).values
    assert_same(found, explain(Function(lambda x: model(x, True)), x, background).values)


def test_a_slice_written_into_changes_the_whole() -> None:
    def model(x: Tensor) -> Tensor:
        x = x.tanh()
        x[:, :18] += 1
        x[..., 18:] *= 2
        return x.exp()

    x, background = torch.randn(3, 36), torch.randn(4, 36)
    factors = 1 + (torch.arange(36) >= 18)
    expected = explain(Function(lambda x: (x.tanh() * factors + 2 - factors).exp()), x, background).values
    assert_same(explain(Function(model), x, background).values, expected)


def rotated(x: Tensor) -> Tensor:
    """A rotary embedding's halves."""
    x = x.tanh()
    return torch.cat([-x[..., 18:], x[..., :18]], 1).exp()


@pytest.mark.parametrize("function", [lambda x: attention(indexed, x), rotated], ids=["attention", "rotated"])
def test_no_part_is_filled_up_with_zeros(function: Callable[[Tensor], Tensor]) -> None:
    x, explainer = torch.randn(3, 36), DeepExplainer(Function(function), torch.randn(4, 36))
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        explainer.attribute(x, 0)
    ran: set[Any] = {event.name for event in profiler.events()}
    assert "deepshap_ext::rescale" in ran and ran.isdisjoint({"aten::select_backward", "aten::slice_backward"})
