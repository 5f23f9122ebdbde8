"""Channels-last models: the same values, and gradients that keep the format."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from checks import assert_same, explain
from models import spread
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from deepshap_ext import DeepExplainer


class Residual(nn.Module):
    """Convolutions of kernels 1 x 1 with a stride, patches, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.body, self.points = nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(8, 16, 1, 2)
        self.patches, self.head = nn.Conv2d(16, 24, 2, 2), nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        x = F.relu(self.body(x) + self.points(x))
        return self.head(self.patches(x)[:, :, 0].mean(2))


class Sequences(nn.Module):
    """Sequences as images of height 1, through dilated convolutions with skip connections (BPNet)."""

    def __init__(self, dilations: int = 4) -> None:
        super().__init__()
        self.motifs = nn.Conv2d(4, 16, (1, 5), padding=(0, 2))
        self.dilated = nn.ModuleList(
            nn.Conv2d(16, 16, (1, 3), padding=(0, 2**n), dilation=(1, 2**n)) for n in range(1, dilations + 1)
        )
        self.head = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.motifs(x))
        for convolution in self.dilated:
            x = x + F.relu(convolution(x))
        return self.head(x[:, :, 0, 10:-10].mean(2))


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.gelu(self.first(x)), 2)
        return self.head(F.avg_pool2d(x + self.second(F.pad(x, [1, 1, 1, 1])), 3).flatten(1))


class PooledSequences(nn.Module):
    """Sequences as images of height 1, pooled between convolutions."""

    def __init__(self, pools: int = 2) -> None:
        super().__init__()
        self.motifs, self.head = nn.Conv2d(4, 16, (1, 5), padding=(0, 2)), nn.Linear(16, 2)
        self.further = nn.ModuleList(nn.Conv2d(16, 16, (1, 3), padding=(0, 1)) for _ in range(pools))

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.motifs(x))
        for convolution in self.further:
            x = F.gelu(convolution(F.max_pool2d(x, (1, 3), 1, (0, 1))))
        return self.head(x[:, :, 0].mean(2))


class Volumes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv3d(2, 6, 3), nn.Conv3d(6, 8, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(F.gelu(self.first(x)), 2)
        return self.head(F.adaptive_max_pool3d(F.gelu(self.second(x)), 1).flatten(1))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (Residual, (3, 8, 8)),
    "odd sizes": (Residual, (3, 7, 7)),
    "sequences": (Sequences, (4, 1, 40)),
    "pooled": (Pooled, (3, 8, 8)),
    "pooled sequences": (PooledSequences, (4, 1, 40)),
    "volumes": (Volumes, (2, 6, 8, 7)),
}


@pytest.mark.parametrize("name", MODELS)
def test_values_do_not_depend_on_the_format(name: str) -> None:
    torch.manual_seed(0)
    make, size = MODELS[name]
    model = spread(make()).double()
    x, background = torch.randn(3, *size).double(), torch.randn(4, *size).double()
    expected = explain(model, x, background).values
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    model, x, background = (one.to(memory_format=last) for one in (model, x, background))
    assert_same(explain(model, x, background).values, expected)
    assert_same(explain(model, x, background.contiguous()).values, expected)


def copied(model: nn.Module, x: Tensor, background: Tensor, least: int) -> int:
    """How many tensors of at least so many elements an explanation copies, within native operations too."""
    explainer = DeepExplainer(model, background)
    explainer.attribute(x, 0)
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as profiler:
        explainer.attribute(x, 0)
    return sum(event.name == "aten::copy_" and math.prod(event.input_shapes[0]) >= least for event in profiler.events())


def test_gradients_are_brought_into_the_format_once() -> None:
    """Of further layers nothing is copied but the padding of the two widest dilations."""
    x, background = torch.randn(1, 4, 1, 200), torch.randn(20, 4, 1, 200)
    found = []
    for dilations in (1, 3, 5):
        model = spread(Sequences(dilations)).to(memory_format=torch.channels_last)
        inputs = [one.to(memory_format=torch.channels_last) for one in (x, background)]
        found.append(copied(model, *inputs, 20 * 16 * 200))
    assert found[0] == found[1] == found[2] - 2 <= 3


def test_max_pooling_copies_no_gradients() -> None:
    x, background = torch.randn(1, 4, 1, 200), torch.randn(20, 4, 1, 200)
    found = []
    for pools in (0, 1, 3):
        model = spread(PooledSequences(pools)).to(memory_format=torch.channels_last)
        inputs = [one.to(memory_format=torch.channels_last) for one in (x, background)]
        found.append(copied(model, *inputs, 20 * 16 * 200))
    assert found[0] == found[1] == found[2]
