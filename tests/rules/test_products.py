"""Products, quotients, distances, norms and maxima of input-dependent tensors: additive, whatever the pairing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from models import Function
from reference.shapley import shapley_values
from rules.adding_up import check
from rules.linear_samples import const, written
from torch import Tensor

from deepshap_ext import DeepExplainer, Explainer

W, P = const(6, 6), const(6).abs() + 0.5
Z = torch.zeros((), dtype=torch.float64)
INDEX = torch.tensor([0, 0, 3, 3, 3, 1])

OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "conv, weights from the input": lambda h: _grouped(F.conv1d, h),
    "conv_transpose, weights from the input": lambda h: _grouped(F.conv_transpose1d, h),
    "linear, weights from the input": lambda h: F.linear(W, h.tanh()).T,
    "bilinear": lambda h: F.bilinear(h, h.tanh(), torch.stack([W, W.T])),
    "einsum": lambda h: torch.einsum("bi,bj,ij->bi", h, h.tanh(), W),
    "baddbmm": lambda h: torch.baddbmm(Z, batch1=h[..., None], batch2=h.tanh()[:, None], beta=0.5, alpha=0.3),
    "addcmul": lambda h: torch.addcmul(h, tensor1=h, tensor2=h.tanh(), value=2),
    "addcdiv": lambda h: torch.addcdiv(h, tensor1=h, tensor2=h.exp(), value=2),
    "lerp": lambda h: torch.lerp(h, h.sin(), h.sigmoid()),
    "vecdot": lambda h: torch.linalg.vecdot(h, h.tanh())[:, None],
    "quotient of one sign": lambda h: h.tanh() / (2 + h.sigmoid()),
    "quotient of both signs": lambda h: h.tanh() / (h + 5) + h / (h.sin() - 2),
    "divisor alone": lambda h: 2 / (h.square() + 1),
    "prod": lambda h: h.prod(1, keepdim=True),
    "cumprod": lambda h: h.cumprod(1),
    "prod and cumprod of one number": lambda h: torch.stack([row[0].prod(0) + row[1].cumprod(0) for row in h])[:, None],
    "prod and cumprod of none": lambda h: torch.cat([h * h[:, :0].prod(1, True), h[:, :0].cumprod(1)], 1),
    "cumprod of an inner dimension": lambda h: torch.cumprod(h.view(-1, 3, 2), -2, dtype=torch.float64).flatten(1),
    "cosine_similarity": lambda h: F.cosine_similarity(h @ W, h.tanh())[:, None],
    "cdist": lambda h: torch.cdist(h[..., None], h.sin()[..., None]).flatten(1),
    "cdist, p=1": lambda h: torch.cdist(h[..., None], h.sin()[..., None], p=1).flatten(1),
    "pairwise_distance": lambda h: F.pairwise_distance(h, h.tanh())[:, None],
    "normalize": lambda h: F.normalize(h),
    "normalize, largest": lambda h: F.normalize(h, p=math.inf),
    "vector_norm": lambda h: torch.linalg.vector_norm(x=h, dim=-1)[:, None],
    "norm, p=1": lambda h: h.norm(p=1, dim=1, keepdim=True),
    "norm by hand": lambda h: h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6),
    "standardized by hand": lambda h: (h - h.mean(1, keepdim=True)) / h.std(1, keepdim=True),
    "var": lambda h: torch.var(h, 1, keepdim=True) * h,
    "var_mean": lambda h: torch.cat(torch.var_mean(h, 1, keepdim=True), 1),
    "layer_norm": lambda h: F.layer_norm(h, (6,), W[0], W[1]),
    "rms_norm": lambda h: F.rms_norm(h, (6,), W[0]),
    "group_norm": lambda h: F.group_norm(h[..., None] * W[0, :3], 3).flatten(1),
    "instance_norm": lambda h: F.instance_norm(h[..., None] * W[0, :3].tanh() + h[..., None]).flatten(1),
    "local_response_norm": lambda h: F.local_response_norm(h[..., None], 2).flatten(1),
    "logsumexp": lambda h: torch.logsumexp(h[..., None] * W, (1, 2))[:, None],
    "softmax in another dtype": lambda h: F.softmax(h, 1, dtype=torch.float64) * torch.softmax(2 * h, 1, torch.float64),
    "softmin": lambda h: F.softmin(h, 1) * h,
    "glu": lambda h: F.glu(h),
    "norm of any order": lambda h: torch.cat(
        [torch.linalg.vector_norm(h, order, 1, True) for order in (0, 0.5, 1, 3, math.inf, -math.inf, -1)], 1
    ),
    "cdist of any order": lambda h: (
        torch.cdist(h.view(-1, 2, 3), W[:4, :3], p=3) + torch.cdist(h.view(-1, 2, 3), W[:4, :3], math.inf)
    ),
    "pairwise_distance, p=1": lambda h: F.pairwise_distance(h, h.tanh(), p=1, keepdim=True),
    "prod of one dimension": lambda h: torch.prod(h.view(-1, 2, 3), 1, keepdim=True, dtype=torch.float64),
    "einsum of one letter": lambda h: torch.einsum("bi,bi,bi,i->b", h, h.tanh(), h.cos(), P),
    "complex product": lambda h: torch.view_as_real(torch.fft.rfft(h) * torch.fft.rfft(h.sin())),
    "power spectrum": lambda h: (torch.fft.rfft(h) * torch.fft.rfft(h).conj()).real,
    "complex times real": lambda h: (torch.fft.fft(h) * h.sin()).imag,
    "prelu": lambda h: F.prelu(h.view(-1, 2, 3), P[:2]),
    "prelu, slopes from the input": lambda h: torch.cat([F.prelu(row.unsqueeze(0), row.sin()) for row in h.unbind()]),
    "complex modulus": lambda h: torch.fft.rfft(h).abs(),
    "scatter_reduce, sum": lambda h: _scattered(h, "sum"),
    "scatter_reduce, mean": lambda h: _scattered(h, "mean", False),
    "scatter_reduce, largest": lambda h: _scattered(h, "amax"),
    "scatter_reduce, smallest without self": lambda h: _scattered(h, "amin", False),
    "scatter_reduce, largest from the end": lambda h: h.view(-1, 2, 3).scatter_reduce(
        -1, INDEX[:2].expand(len(h), 2, 2), h.view(-1, 2, 3).sin(), "amax"
    ),
    "scatter_reduce, product": lambda h: _scattered(h, "prod"),
    "scatter_reduce, some of the source": lambda h: h.scatter_reduce(
        0, torch.arange(len(h))[:, None].expand(-1, 2), h.sin(), "amax"
    ),
    "scatter_reduce in place": lambda h: written(
        h, lambda y: y.scatter_reduce_(1, INDEX[:3].expand(len(h), 3), h.sin(), "amax")
    ),
    "index_reduce, mean": lambda h: h.index_reduce(1, INDEX[:3], h[:, :3].sin(), "mean"),
    "index_reduce, largest": lambda h: h.index_reduce(1, INDEX[:3], h[:, :3].sin(), "amax", include_self=False),
    "index_reduce, product": lambda h: torch.index_reduce(h, 1, INDEX[:3], h[:, :3].sin(), "prod"),
    "logcumsumexp": lambda h: torch.logcumsumexp(h, 1) + h.view(-1, 2, 3).logcumsumexp(-1).flatten(1),
    "embedding": lambda h: _embedded(h, F.embedding) + _embedded(h, lambda i, table: torch.embedding(table, i)),
    "embedding_bag": lambda h: _embedded(h, F.embedding_bag) + _embedded(h, lambda *a: F.embedding_bag(*a, mode="sum")),
    "embedding_bag, largest but padding": lambda h: _embedded(
        h, lambda *a: F.embedding_bag(*a, mode="max", padding_idx=0)
    ),
    "embedding_bag, weighted": lambda h: F.embedding_bag(
        torch.arange(6).expand(len(h), 6).contiguous(), W, mode="sum", per_sample_weights=h
    ),
    "fractional max-pooling": lambda h: F.fractional_max_pool2d(_image(h), 2, (3, 3), _random_samples=_samples(h)),
    "fractional max-pooling, with indices": lambda h: (
        F.fractional_max_pool2d(
            _image(h), 2, output_ratio=(0.5, 0.5), return_indices=True, _random_samples=_samples(h)
        )[0]
        + torch.ops.aten.fractional_max_pool2d(_image(h), [2, 2], [3, 3], _samples(h))[0]
    ),
    "pooling with indices": lambda h: (
        F.max_pool1d_with_indices(h, 2, 2)[0]
        + F.max_pool1d(h, 2, return_indices=True)[0]
        + F.adaptive_max_pool1d(h, 3)
        + F.adaptive_max_pool1d(h, 3, True)[0]
        + F.adaptive_max_pool1d_with_indices(h, 3)[0]
        + torch.ops.aten.adaptive_max_pool1d(h, [3])[0]
    ),
    "max": lambda h: h.max(1).values[:, None],
    "max of two": lambda h: torch.max(input=h, other=h.sin()),
    "min": lambda h: h.min(1)[0][:, None],
    "minimum": lambda h: torch.minimum(h, h.cos()),
    "amin": lambda h: h.amin((1,))[:, None],
    "clamps": lambda h: h.clamp_min(0.2) + h.clamp(max=0.5) + h.clamp(-0.1, 0.1),
}


def _grouped(convolve: Callable[..., Tensor], h: Tensor) -> Tensor:
    """Each sample's row convolved with weights made from it: samples are groups."""
    return convolve(h.reshape(1, -1, 6), h.tanh()[:, None, :3].contiguous(), groups=h.shape[0]).reshape(h.shape[0], -1)


def _scattered(h: Tensor, reduce: str, include_self: bool = True) -> Tensor:
    return h.scatter_reduce(1, INDEX.expand(len(h), 6), h.sin(), reduce, include_self=include_self)


def _image(h: Tensor) -> Tensor:
    return (h.unsqueeze(1) * h.sin().unsqueeze(2)).unsqueeze(1)


def _samples(h: Tensor) -> Tensor:
    return torch.full((len(h), 1, 2), 0.4, dtype=h.dtype)


def _embedded(h: Tensor, embed: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Rows of a table whose columns are the samples."""
    return embed(torch.tensor([[0, 2, 0], [1, 1, 5]]), h.T.contiguous()).movedim(-1, 0)


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_adds_up_whatever_the_pairing(operation: Callable[[Tensor], Tensor]) -> None:
    check(operation)


@pytest.mark.parametrize("product", [lambda x: x.prod(1, keepdim=True), lambda x: x.cumprod(1)[:, 299::100]])
def test_a_product_of_600_factors_takes_no_time(product: Callable[[Tensor], Tensor]) -> None:
    """All but five factors are the same on both sides: they scale the Shapley values of the product of these five."""
    generator = torch.Generator().manual_seed(0)
    x = 1 + 0.1 * torch.randn(1, 600, generator=generator, dtype=torch.float64)
    r, others, players = x.clone(), x.clone(), [3, 40, 170, 171, 298]
    r[:, players] = 1 + torch.randn(1, 5, generator=generator, dtype=torch.float64)
    others[:, players] = 1
    explainer = DeepExplainer(Function(product), r)
    explainer.attribute(x, target=0)
    began = time.process_time()
    found = explainer.attribute(x).values
    assert (
        time.process_time() - began < 3
    )  # product after product, at all nodes of the quadrature, would take half a minute
    exact = shapley_values(lambda five: five.prod(1, keepdim=True), x[0, players], r[0, players])
    torch.testing.assert_close(found[:, players], exact * product(others).unsqueeze(1), rtol=1e-10, atol=1e-13)
    assert not found.index_fill(1, torch.tensor(players), 0).any()


def test_many_cumulative_sums_of_exponentials_have_the_values_of_each() -> None:
    generator = torch.Generator().manual_seed(0)
    x, r = (torch.randn(2, 150, generator=generator, dtype=torch.float64) for _ in range(2))

    def masked(x: Tensor) -> Tensor:
        return x.masked_fill(torch.arange(150) < 2, -math.inf)

    def each(x: Tensor) -> Tensor:
        return torch.stack([masked(x)[:, : n + 1].logsumexp(1) for n in range(2, 150, 7)], 1)

    at_once, one_by_one = (
        DeepExplainer(Function(model), r).attribute(x).values
        for model in (lambda x: masked(x).logcumsumexp(1)[:, 2::7], each)
    )
    torch.testing.assert_close(at_once, one_by_one, rtol=1e-11, atol=1e-13)


def test_2_000_cumulative_sums_of_exponentials_take_no_matrix_a_sample() -> None:
    """A pass over 40 baselines would take 40 matrices of 2,000 x 2,000."""
    explainer = Explainer(Function(lambda x: x.logcumsumexp(1)[:, -1]), max_memory=50 << 20)
    x, r = torch.randn(1, 2000), torch.randn(40, 2000)
    explainer.attribute(x, baselines=r[:2])
    began = time.process_time()
    explainer.attribute(x, baselines=r)
    assert time.process_time() - began < 10


EXPERTS, HALVES = torch.randn(3, 8, 8), torch.tensor([4, 8], dtype=torch.int32)
#: Products of groups of eight rows, and the same one by one.
GROUPS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "rows": (
        lambda h: F.grouped_mm(h, EXPERTS, offs=torch.tensor([2, 2, 8], dtype=torch.int32), out_dtype=h.dtype),
        lambda h: torch.cat([h[:2] @ EXPERTS[0], h[2:] @ EXPERTS[2]]),
    ),
    "rows but the last ones": (
        lambda h: F.grouped_mm(h, EXPERTS, offs=torch.tensor([2, 2, 6], dtype=torch.int32))[:6],
        lambda h: torch.cat([h[:2] @ EXPERTS[0], h[2:6] @ EXPERTS[2]]),
    ),
    "columns": (
        lambda h: F.grouped_mm(h.view(2, 4, 8), h.sin(), offs=HALVES),
        lambda h: torch.cat([h[:4] @ h.sin()[:, :4], h[4:] @ h.sin()[:, 4:]], 1),
    ),
    "what is summed over": (
        lambda h: F.grouped_mm(h, h.sin(), offs=HALVES).sum(0),
        lambda h: h @ h.sin(),
    ),
    "matrices": (lambda h: F.grouped_mm(h.view(2, 4, 8), EXPERTS[:2]), lambda h: h.view(2, 4, 8) @ EXPERTS[:2]),
}


@pytest.mark.parametrize("name", GROUPS)
def test_products_of_groups(name: str) -> None:
    grouped, one_by_one = (
        lambda x, op=op: torch.stack([op(rows.tanh()).square().sum() for rows in x]) for op in GROUPS[name]
    )
    generator = torch.Generator().manual_seed(0)
    x, r = (torch.randn(n, 8, 8, generator=generator) for n in (2, 3))
    found, expected = (DeepExplainer(Function(model), r).attribute(x) for model in (grouped, one_by_one))
    torch.testing.assert_close(found.output, expected.output)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-5, atol=1e-5)
