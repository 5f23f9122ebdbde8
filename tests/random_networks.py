"""Random networks of ordinary scale, each with the shape of one sample; benchmarks/verdict.py runs them by the thousand."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Attending(nn.Module):
    """A block of a transformer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class Mean(nn.Module):
    """The mean over some dimensions."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.dims = dims

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.dims)


class Residual(nn.Module):
    """A block of a ResNet."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


class Last(nn.Module):
    """The last state of an LSTM."""

    def __init__(self, features: int, width: int, layers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features, width, layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0][:, -1]


def _one_of(*values: int) -> int:
    return values[int(torch.randint(len(values), ()))]


def transformer() -> tuple[nn.Module, tuple[int, ...]]:
    heads = _one_of(1, 2, 4)
    width = 8 * heads * _one_of(1, 2)
    blocks = [Attending(width, heads) for _ in range(_one_of(1, 2, 4, 8))]
    return nn.Sequential(*blocks, nn.LayerNorm(width), Mean(1), nn.Linear(width, 3)), (_one_of(3, 6, 10), width)


def resnet() -> tuple[nn.Module, tuple[int, ...]]:
    channels = _one_of(4, 8, 16)
    first = nn.Conv2d(3, channels, 3), nn.ReLU(), nn.MaxPool2d(2)
    blocks = [Residual(channels) for _ in range(_one_of(1, 2, 4, 6))]
    return nn.Sequential(*first, *blocks, Mean(2, 3), nn.Linear(channels, 3)), (3, _one_of(8, 12), 12)


def lstm() -> tuple[nn.Module, tuple[int, ...]]:
    width = _one_of(4, 8, 16)
    return nn.Sequential(Last(5, width, _one_of(1, 2)), nn.Linear(width, 3)), (_one_of(4, 8, 20), 5)


NETWORKS = {"transformers": transformer, "ResNets": resnet, "LSTMs": lstm}


def drawn(kind: str, seed: int, apart: float | None = None) -> tuple[nn.Module, Tensor, Tensor]:
    """A network in eval mode, samples and baselines: one or several of each, ``apart`` or, for None, far from each other or close."""
    torch.manual_seed(seed)
    model, shape = NETWORKS[kind]()
    baselines = torch.randn((1, 3, 8)[seed % 3], *shape)
    apart = 10.0 ** -_one_of(0, 2, 4) if apart is None else apart
    samples = baselines[:1] + apart * torch.randn((1, 4)[seed % 2], *shape)
    return model.eval(), samples, baselines
