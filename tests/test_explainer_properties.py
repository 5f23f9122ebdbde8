"""Random small nets: they add up, and pairing, chunks, neighbours and spelling make no difference."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import assert_same, explain
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

FAST = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class _Linear(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


def _scatter(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[..., ::2] = x[..., 1::2].tanh()
    y[..., 1::2] += x[..., ::2].relu()
    return y


def _in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y *= 0.5
    F.relu_(y[..., :2])
    y += x.sigmoid()
    return y


#: Each from ``[N, 3, 4]`` to ``[N, 3, 4]``.
LAYERS: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "linear": lambda: _Linear(4),
    "conv": lambda: nn.Conv1d(3, 3, 3, padding=1),
    "batch_norm": lambda: nn.BatchNorm1d(3).eval(),
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
    "relu_function": lambda: F.relu,
    "hardtanh": lambda: F.hardtanh,
    "silu": lambda: F.silu,
    "max_pool": lambda: nn.MaxPool1d(3, 1, 1),
    "dilated_pool": lambda: lambda x: F.pad(F.max_pool1d(x, 2, 1, dilation=2), (1, 1)),
    "softmax": lambda: lambda x: x.softmax(2),
    "softmax_over_channels": lambda: lambda x: torch.log_softmax(x, 1) * 0.3,
    "gate": lambda: lambda x: x * torch.sigmoid(x.flip(2)),
    "square": lambda: lambda x: x.tanh() ** 2,
    "exp": lambda: lambda x: (x.tanh()).exp(),
    "product_of_sums": lambda: lambda x: x * x.mean((1, 2), keepdim=True).tanh(),
    "cumsum": lambda: lambda x: x.cumsum(2) / 2,
    "scatter": lambda: _scatter,
    "in_place": lambda: _in_place,
    "transposed": lambda: lambda x: x.permute(1, 0, 2).relu().permute(1, 0, 2) + x,
    "folded": lambda: lambda x: (x.reshape(-1, 4).softmax(1) * x.reshape(-1, 4)).view_as(x),
    "sequence_first": lambda: lambda x: x.transpose(0, 1).reshape(-1, 4).tanh().view(3, -1, 4).transpose(0, 1),
    "constant": lambda: lambda x: x * torch.linspace(-1, 2, 4).to(x) - 0.3,
}


class Net(nn.Module):
    """Layers in a row, some with a skip past them, some the same module again."""

    def __init__(self, plan: Sequence[tuple[str, bool]], seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleList()
        self.plan: list[tuple[Callable[[Tensor], Tensor], bool]] = []
        made: dict[str, Callable[[Tensor], Tensor]] = {}
        for name, skip in plan:
            layer = made.setdefault(name, LAYERS[name]())
            if isinstance(layer, nn.Module):
                self.layers.append(layer)
            self.plan.append((layer, skip))
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer, skip in self.plan:
            x = layer(x) + x if skip else layer(x)
        return self.head(x.flatten(1))


NETS = st.lists(st.tuples(st.sampled_from(sorted(LAYERS)), st.booleans()), min_size=1, max_size=6)


def _sample(plan: Any, seed: int, samples: int, baselines: int) -> tuple[nn.Module, Tensor, Tensor]:
    model = Net(plan, seed).double()
    return model, torch.randn(samples, 3, 4).double() * 2, torch.randn(baselines, 3, 4).double()


@FAST
@given(NETS, st.integers(0, 99), st.integers(1, 3), st.integers(1, 3))
def test_random_nets_add_up(plan: Any, seed: int, samples: int, baselines: int) -> None:
    explain(*_sample(plan, seed, samples, baselines), tolerance=1e-9, additivity_tolerance=1e-9)


@FAST
@given(NETS, st.integers(0, 99), st.integers(1, 3), st.integers(1, 3), st.integers(1, 20_000))
def test_random_nets_do_not_depend_on_how_they_are_explained(
    plan: Any, seed: int, samples: int, baselines: int, max_memory: int
) -> None:
    model, x, background = _sample(plan, seed, samples, baselines)
    options: dict[str, Any] = {"additivity_tolerance": 1e-9}
    explainer = DeepExplainer(model, background, **options)
    grid = explainer.attribute(x).values
    own = background.expand(samples, *background.shape)
    row = slice(samples - 1, samples)
    scale = float(grid.abs().max())
    for other, expected in (
        (explainer.attribute(x, pairing="aligned").values, grid),
        (explainer.attribute(x, baselines=own).values, grid),
        (DeepExplainer(model, background, max_memory=max_memory, **options).attribute(x).values, grid),
        (explainer.attribute(x[row]).values, grid[row]),
        (explainer.attribute(torch.cat([x + 1, x])).values[samples:], grid),
        (explainer.attribute(x, 1).values.unsqueeze(-1), grid[..., 1:]),
    ):
        assert float((other - expected).abs().max()) <= 1e-13 * scale


@FAST
@given(NETS, st.integers(0, 99))
def test_the_input_itself_as_the_baseline_gives_zero(plan: Any, seed: int) -> None:
    model, x, _ = _sample(plan, seed, 1, 1)
    assert not DeepExplainer(model, x).attribute(x).values.any()


@FAST
@given(NETS, st.integers(0, 99), st.floats(0.1, 10))
def test_values_are_linear_in_the_outputs(plan: Any, seed: int, scale: float) -> None:
    """Multipliers obey the chain rule: what is linear behind the net is linear in the values."""
    model, x, background = _sample(plan, seed, 2, 2)
    values = explain(model, x, background, tolerance=1e-9, additivity_tolerance=1e-9).values
    options = {"output": lambda y: scale * (y[:, :1] - 2 * y[:, 1:]) + 3, "additivity_tolerance": 1e-9}
    found = DeepExplainer(model, background, **options).attribute(x).values
    assert_same(found, scale * (values[..., :1] - 2 * values[..., 1:]), 1e-11)


@pytest.mark.parametrize("name", sorted(LAYERS))
def test_each_layer_alone(name: str) -> None:
    model, x, background = _sample([(name, False), ("gelu", True), (name, True)], 0, 3, 4)
    explain(model, x, background)
