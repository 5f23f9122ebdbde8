"""Graphs as Python functions: these do what the graphs do."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from deepshap_ext.lowered import _FUNCTIONS, function_of


def products(x: Tensor, y: Tensor) -> Tensor:
    return torch.addmm(y[0], x, y.t()) @ y - torch.bmm(x.unsqueeze(1), y.expand(6, 4, 4)).squeeze(1)


def elementwise(x: Tensor, y: Tensor) -> Tensor:
    smooth = (
        (x.exp() + 1).sqrt().rsqrt() * x.tanh().sigmoid() / (x.square() + 2)
        - x.sin() * x.cos()
        + x.erf()
        - x.abs().neg()
    )
    masks = [x > y[0], x >= y[1], x < y[2], x <= y[3], x == y[0], x != y[1]]
    return torch.where(torch.stack(masks).all(0), smooth, torch.relu(x)) + torch.add(x, y[0], alpha=3)


def rearranged(x: Tensor, y: Tensor) -> Tensor:
    parts = torch.cat([x.permute(1, 0).transpose(0, 1), x.repeat(2, 1)]).view(2, 9, 4)
    chosen = parts.index_select(0, torch.tensor([1, 0])).gather(2, torch.zeros(2, 9, 1, dtype=torch.int64))
    return torch.stack([parts.select(0, 1), chosen.expand(2, 9, 4).clone().select(0, 0)]).cumsum(1).tril()


def sums(x: Tensor, y: Tensor) -> Tensor:
    return x.sum() + x.sum(0) + x.sum([0, 1], keepdim=True) + x.mean(1, keepdim=True) + x.to(torch.float64).sum(1, True)


def layers(x: Tensor, y: Tensor) -> Tensor:
    looked_up = F.embedding(torch.tensor([3, 0]), y)
    convolved = F.conv1d(x.view(2, 3, 4), x.view(2, 3, 4), padding=1, stride=2)
    return torch.cat([looked_up.flatten(), convolved.flatten(), F.layer_norm(x, (4,)).flatten()])


@pytest.mark.parametrize("computed", [products, elementwise, rearranged, sums, layers])
def test_what_the_graph_gives(computed) -> None:  # type: ignore[no-untyped-def]
    x, y = torch.randn(6, 4), torch.randn(4, 4)
    graph = make_fx(computed)(x, y)
    others = torch.randn(6, 4), torch.randn(4, 4)
    expected, found = graph(*others), function_of(graph)(*others)
    assert found.dtype == expected.dtype and found.stride() == expected.stride() and torch.equal(found, expected)


def test_a_copy_in_the_same_dtype_is_a_copy() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    graph.output(graph.call_function(torch.ops.aten._to_copy.default, (x,), {"dtype": torch.float32}))
    given = torch.randn(3)
    found = function_of(GraphModule(nn.Module(), graph))(given)
    assert torch.equal(found, given) and found.data_ptr() != given.data_ptr()


def test_weights_are_read_when_it_runs() -> None:
    layer = nn.Linear(4, 3)
    graph = make_fx(lambda x: layer(x))(torch.randn(2, 4))
    run, x = function_of(graph), torch.randn(2, 4)
    with torch.no_grad():
        layer.weight.mul_(2)
        assert torch.equal(run(x), layer(x))


def test_every_function_of_the_table_is_in_one_of_these() -> None:
    x, y = torch.randn(6, 4), torch.randn(4, 4)
    nodes = (
        node for one in (products, elementwise, rearranged, sums, layers) for node in make_fx(one)(x, y).graph.nodes
    )
    assert set(_FUNCTIONS) <= {node.target for node in nodes}
