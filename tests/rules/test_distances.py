"""Where there is a choice of rules, ours add up and are nearer to the exact Shapley values than what peers do by element.

benchmarks/rule_distances.py prints by how much, and against more of what could have been chosen.
"""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from reference.shapley import distances, of_pairs
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

PAIRS = 30


class Operation(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def explain(function, x, r, **options):
    """[pairs, players, outputs], each pair on its own; a player that is a vector has the sum of its elements' values."""
    explainer = DeepExplainer(Operation(function), r[:1], **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that do not add up
        values = explainer.attribute(x, baselines=r.unsqueeze(1), check_additivity=False).values
    features = tuple(range(2, x.dim()))
    return values.sum(features) if features else values


def by_element(function, x, r):
    """The rescale rule where each output has an operand in its own place, otherwise the gradient: what peers do."""
    difference = function(x) - function(r)
    if x.dim() == 2 and difference.shape == x.shape:
        return torch.diag_embed(difference)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda one: function(one.unsqueeze(0)).squeeze(0)))(x)
    values = jacobian.movedim(1, -1) * (x - r).unsqueeze(-1)
    return values.sum(2) if x.dim() == 3 else values


def attention(x):
    query, key, value = x @ PROJECTIONS
    return F.scaled_dot_product_attention(query, key, value).flatten(1)


PROJECTIONS = torch.randn(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

LSTM, GRU = (cell(4, 2, dtype=torch.float64).requires_grad_(False) for cell in (nn.LSTMCell, nn.GRUCell))

#: name: function of [pairs, *shape], shape, scales of x and of r.
CASES = {
    "softmax": (lambda x: torch.softmax(x, 1), (6,), (2, 2)),
    "softmax, wide": (lambda x: torch.softmax(x, 1), (6,), (8, 8)),
    "log-softmax": (lambda x: torch.log_softmax(x, 1), (6,), (2, 2)),
    "logsumexp": (lambda x: torch.logsumexp(x, 1, keepdim=True), (6,), (2, 2)),
    "layer norm": (lambda x: F.layer_norm(x, x.shape[1:]), (7,), (1, 1)),
    "layer norm, other scale": (lambda x: F.layer_norm(x, x.shape[1:]), (7,), (3, 0.3)),
    "rms norm": (lambda x: F.rms_norm(x, x.shape[1:], eps=1e-6), (7,), (1, 2)),
    "rms norm by hand": (lambda x: x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6), (7,), (1, 2)),
    "group norm": (lambda x: F.group_norm(x, 2), (8,), (1, 2)),
    "L2 normalize": (lambda x: F.normalize(x, dim=1), (7,), (1, 2)),
    "product": (lambda x: (x[:, 0] * x[:, 1]).unsqueeze(1), (2,), (1, 1)),
    "matmul": (lambda x: (x[:, :2] @ x[:, 2:].mT).flatten(1), (4, 3), (1, 1)),
    "division": (lambda x: (x[:, 0] / (1 + x[:, 1].abs())).unsqueeze(1), (2,), (1, 1)),
    "attention": (attention, (5, 4), (1, 1)),
    "max": (lambda x: x.amax(1, keepdim=True), (8,), (1, 1)),
    "max-pooling": (lambda x: F.max_pool1d(x.unsqueeze(1), 3, stride=2).flatten(1), (7,), (1, 1)),
    "median": (lambda x: x.median(1, keepdim=True).values, (7,), (1, 1)),
    "sort": (lambda x: x.sort(1).values, (7,), (1, 1)),
    "topk": (lambda x: x.topk(2, 1).values, (7,), (3, 1)),
    "instance norm": (lambda x: F.instance_norm(x.unflatten(1, (2, 4))).flatten(1), (8,), (1, 2)),
    "local response norm": (lambda x: F.local_response_norm(x.unsqueeze(2), 3, alpha=1).flatten(1), (7,), (3, 1)),
    "standardized by hand": (lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True), (7,), (3, 1)),
    "norm": (lambda x: x.norm(dim=1, keepdim=True), (7,), (1, 2)),
    "std": (lambda x: x.std(1, keepdim=True), (7,), (1, 2)),
    "var": (lambda x: x.var(1, keepdim=True), (7,), (1, 2)),
    "cosine similarity": (lambda x: F.cosine_similarity(x[:, :4], x[:, 4:])[:, None], (8,), (1, 2)),
    "distance": (lambda x: F.pairwise_distance(x[:, :4], x[:, 4:], keepdim=True), (8,), (1, 2)),
    "product of five": (lambda x: x.prod(1, keepdim=True), (5,), (1, 1)),
    "sum of products of three": (lambda x: torch.einsum("bi,bi,bi->b", *x.unbind(1))[:, None], (3, 4), (1, 1)),
    "glu": (lambda x: F.glu(x), (6,), (1, 1)),
    "lstm cell": (lambda x: torch.cat(LSTM(x[:, :4], (x[:, 4:6], x[:, 6:])), 1), (8,), (1, 1)),
    "gru cell": (lambda x: GRU(x[:, :4], x[:, 4:]), (6,), (1, 1)),
}


def case(name):
    function, shape, (of_x, of_r) = CASES[name]
    x, r = torch.randn(2, PAIRS, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return function, x * of_x, r * of_r


@pytest.mark.parametrize("name", CASES)
def test_nearer_than_by_element(name):
    function, x, r = case(name)
    exact = of_pairs(function, x, r)
    ours = distances(explain(function, x, r), exact)
    theirs = distances(by_element(function, x, r), exact)
    assert ours.median() < theirs.median()
    assert ours.quantile(0.9) < theirs.quantile(0.9)


@pytest.mark.parametrize("name", ["softmax", "softmax, wide", "attention"])
def test_nearer_than_the_option_that_shap_has(name):
    function, x, r = case(name)
    exact = of_pairs(function, x, r)
    ours, shaps = (distances(explain(function, x, r, softmax=softmax), exact) for softmax in ("logmean", "rescale"))
    assert ours.median() < shaps.median()


@pytest.mark.parametrize("shift", [-30.0, 5.0])
def test_softmax_and_logsumexp_are_blind_to_a_shift(shift):
    for function, moved in (
        (lambda x: torch.softmax(x, 1), 0.0),
        (lambda x: torch.log_softmax(x, 1), 0.0),
        (lambda x: torch.logsumexp(x, 1, keepdim=True), shift),
    ):
        _, x, r = case("softmax")
        there, here = explain(function, x + shift, r), explain(function, x, r)
        # The multipliers stay: what is added to every entry adds to the sum what it adds to the output.
        ratio = (x - r + shift) / (x - r)
        torch.testing.assert_close(there, here * ratio.unsqueeze(2), rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(there.sum(1) - here.sum(1), torch.full_like(here.sum(1), moved))
