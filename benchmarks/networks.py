"""The networks that the benchmarks explain, in plain torch, and the jobs: inputs, baselines and outputs for each.

Written so that the peers' module hooks see what they can: every activation, softmax and pooling is a module, used once, and nothing
works in place. Weights are random; a time does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Size:
    """How much to explain.

    ``step``: inputs that those who run every pair forward are given at once, so that the pairs fit into memory. captum unbinds its outputs;
    torch 2.11's backward of that, unlike 2.13's, takes a time quadratic in their number: two minutes for the MLP's 100,000 at once.
    """

    inputs: int
    baselines: int
    step: int
    shape: tuple[int, ...]

    @property
    def pairs(self) -> int:
        return self.inputs * self.baselines


@dataclass(frozen=True)
class Network:
    """A model and what is explained of it.

    ``small`` is for two CPU cores, ``full`` for a GPU. ``target``: the explained output; None for all. ``sequences``: inputs are one-hot
    sequences and each has its own baselines, shuffles of itself, as in genomics; else both are normal.
    """

    title: str
    build: Callable[[], nn.Module]
    small: Size
    full: Size
    target: int | None = 0
    sequences: bool = False


@dataclass
class Job:
    """``baselines``: ``[R, *features]``, or ``[B, R, *features]`` where each input has its own. ``max_memory``: bytes that deepshap_ext may
    take."""

    name: str
    network: Network
    size: Size
    model: nn.Module
    X: Tensor
    baselines: Tensor
    max_memory: int | None = None

    @property
    def target(self) -> int | None:
        return self.network.target

    @property
    def per_sample(self) -> bool:
        return self.network.sequences

    def __str__(self) -> str:
        outputs = "all outputs" if self.target is None else "one output"
        whose = " of its own" if self.per_sample else ""
        shape = " x ".join(map(str, self.X.shape[1:]))
        many = f"{len(self.X)} inputs x {self.size.baselines} baselines{whose} of {shape}"
        tf32 = ", TF32" if self.X.is_cuda and torch.backends.cudnn.conv.fp32_precision == "tf32" else ""
        return f"{self.network.title}: {many}, {outputs}{tf32}"

    def pairs(self, inputs: slice) -> tuple[Tensor, Tensor]:
        """Some of the inputs and their baselines, a row a pair."""
        X = self.X[inputs]
        rows = (
            self.baselines[inputs].flatten(0, 1)
            if self.per_sample
            else self.baselines.repeat(len(X), *[1] * (X.dim() - 1))
        )
        return X.repeat_interleave(self.size.baselines, 0), rows

    def steps(self) -> list[slice]:
        return [slice(first, first + self.size.step) for first in range(0, len(self.X), self.size.step)]

    @torch.no_grad()
    def difference(self) -> Tensor:
        """What values must add up to: the explained outputs less their mean over the baselines, ``[B]`` or ``[B, K]``."""
        rows = self.baselines.flatten(0, 1) if self.per_sample else self.baselines
        theirs = torch.cat([self.model(part).double() for part in rows.split(64)])
        ours = torch.cat([self.model(part).double() for part in self.X.split(64)])
        theirs = theirs.unflatten(0, (len(self.X), -1)).mean(1) if self.per_sample else theirs.mean(0)
        return ours - theirs if self.target is None else (ours - theirs)[:, self.target]

    def sums(self, values: Tensor) -> Tensor:
        """Sums over the features, ``[B]`` or ``[B, K]``, of values ``[B, *features]`` or ``[B, *features, K]``."""
        return values.double().flatten(1, self.X.dim() - 1).sum(1)


def job(name: str, full: bool, device: torch.device, **size: Any) -> Job:
    """The named network with random weights, inputs and baselines; ``size`` overrides fields of the table's."""
    torch.manual_seed(0)
    network = NETWORKS[name]
    chosen = replace(network.full if full else network.small, **size)
    if network.sequences:
        X = one_hot(chosen.inputs, *chosen.shape)
        baselines = torch.stack([shuffled(x, chosen.baselines) for x in X])
    else:
        # Baselines of another contrast: outputs of deep random networks hardly differ otherwise.
        X, baselines = torch.randn(chosen.inputs, *chosen.shape), torch.randn(chosen.baselines, *chosen.shape) / 2
    model = lively(network.build()).eval().requires_grad_(False).to(device)
    return Job(name, network, chosen, model, X.to(device), baselines.to(device))


#: What a GPU's convolutions and matrix products of float32 numbers take of their mantissas: all, or the ten bits of TF32, which is
#: torch's default for convolutions.
PRECISIONS = ("ieee", "tf32")


def in_precision(precision: str) -> None:
    torch.backends.cudnn.conv.fp32_precision = precision
    torch.backends.cuda.matmul.fp32_precision = precision


def lively(model: nn.Module) -> nn.Module:
    """Keeps the signal's size from layer to layer and makes batch norms do something, so that outputs differ by more than rounding."""
    for module in model.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d)):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for module in model.modules():
        if isinstance(module, Residual):
            nn.init.constant_(module.body[-1].weight, 0.2)
    return model


# --- images and tables -------------------------------------------------------------------------------------------------


def digits_cnn() -> nn.Module:
    """The network of examples/digits.py."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def mlp(depth: int = 2, width: int = 128) -> nn.Module:
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [nn.Linear(width if number else 30, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 1))


class Residual(nn.Module):
    """``relu(body(x) + skip(x))``"""

    def __init__(self, body: nn.Sequential, skip: nn.Module) -> None:
        super().__init__()
        self.body, self.skip, self.relu = body, skip, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.skip(x))


def normed(inside: int, outside: int, size: int, stride: int = 1) -> list[nn.Module]:
    """A convolution and its batch norm."""
    return [nn.Conv2d(inside, outside, size, stride, size // 2, bias=False), nn.BatchNorm2d(outside)]


def resnet(blocks: tuple[int, ...], bottleneck: bool, outputs: int = 1000) -> nn.Module:
    """arXiv 1512.03385, table 1; bottlenecks stride in their 3 x 3 convolution, as torchvision's do."""
    layers = [*normed(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inside = 64
    for stage, count in enumerate(blocks):
        width = 64 * 2**stage
        outside = 4 * width if bottleneck else width
        for number in range(count):
            stride = 2 if stage and not number else 1
            if bottleneck:
                body = [
                    *normed(inside, width, 1), nn.ReLU(),
                    *normed(width, width, 3, stride), nn.ReLU(),
                    *normed(width, outside, 1),
                ]  # fmt: skip
            else:
                body = [*normed(inside, width, 3, stride), nn.ReLU(), *normed(width, width, 3)]
            same = stride == 1 and inside == outside
            skip = nn.Identity() if same else nn.Sequential(*normed(inside, outside, 1, stride))
            layers.append(Residual(nn.Sequential(*body), skip))
            inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, outputs))


# --- transformers ------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.into, self.softmax, self.out = nn.Linear(width, 3 * width), nn.Softmax(dim=-1), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.into(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        weights = self.softmax(q @ k.transpose(2, 3) / q.shape[-1] ** 0.5)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Encoder(nn.Module):
    """Attention, then two layers with GELU; the norms before each (ViT) or behind each and its skip connection (BERT)."""

    def __init__(self, width: int, heads: int, before: bool) -> None:
        super().__init__()
        self.before = before
        self.attention = Attention(width, heads)
        self.wide = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        if self.before:
            x = x + self.attention(self.norm1(x))
            return x + self.wide(self.norm2(x))
        x = self.norm1(x + self.attention(x))
        return self.norm2(x + self.wide(x))


class ViT(nn.Module):
    """arXiv 2010.11929, of the "small" shape."""

    def __init__(self, width: int = 384, heads: int = 6, depth: int = 12, patch: int = 16, size: int = 224) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.positions = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width))
        self.encoders = nn.Sequential(*[Encoder(width, heads, before=True) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        return self.head(self.norm(self.encoders(x))[:, 0])


class Bert(nn.Module):
    """arXiv 1908.08962, of the "mini" shape, from word embeddings on."""

    def __init__(self, width: int = 256, heads: int = 4, depth: int = 4, length: int = 128) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(1, length, width))
        self.norm = nn.LayerNorm(width)
        self.encoders = nn.Sequential(*[Encoder(width, heads, before=False) for _ in range(depth)])
        self.head = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.encoders(self.norm(words + self.positions))[:, 0])


# --- series ------------------------------------------------------------------------------------------------------------


class Recurrent(nn.Module):
    """A recurrent layer over ``[rows, steps, features]`` and a linear layer on its last output."""

    def __init__(self, layer: Callable[..., nn.Module], features: int = 16, width: int = 64, **options: Any) -> None:
        super().__init__()
        self.layer = layer(features, width, batch_first=True, **options)
        self.head = nn.Linear(2 * width if options.get("bidirectional") else width, 1)

    def forward(self, series: Tensor) -> Tensor:
        return self.head(self.layer(series)[0][:, -1])


# --- genomics ----------------------------------------------------------------------------------------------------------


class BPNet(nn.Module):
    """Avsec et al. 2021 (doi 10.1038/s41588-021-00782-6) in the shape of bpnet-lite, up to the logarithm of the counts.

    A wide convolution, ``layers`` dilated convolutions of width 3 with skip connections, dilations 2, 4, 8, ..., and the mean over
    the positions that predict ``profile`` base pairs. With 512 filters and 8 layers, ChromBPNet without its bias model.
    """

    def __init__(self, filters: int, layers: int, length: int = 2114, profile: int = 1000) -> None:
        super().__init__()
        self.motifs, self.relu = nn.Conv1d(4, filters, 21, padding=10), nn.ReLU()
        nn.init.constant_(
            self.motifs.bias, -2
        )  # rare matches, as of trained motifs, so that a shuffled sequence differs
        self.dilated = nn.ModuleList(
            nn.Conv1d(filters, filters, 3, padding=2**layer, dilation=2**layer) for layer in range(1, layers + 1)
        )
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(layers))
        # Rare matches, as of trained motifs, and nothing that drowns them: a shuffled sequence's output differs.
        nn.init.constant_(self.motifs.bias, -2)
        for convolution in self.dilated:
            nn.init.zeros_(convolution.bias)
        margin = (length - profile) // 2 - 37  # the profile's head, a convolution of width 75, reads 37 more a side
        self.seen = slice(margin, length - margin)
        self.counts = nn.Linear(filters, 1)

    def forward(self, sequences: Tensor) -> Tensor:
        x = self.relu(self.motifs(sequences))
        for convolution, relu in zip(self.dilated, self.relus, strict=True):
            x = x + relu(convolution(x))
        return self.counts(x[:, :, self.seen].mean(2))


def one_hot(rows: int, letters: int, length: int) -> Tensor:
    """Random sequences with a motif repeated in the middle, so that a shuffled one's output differs."""
    sequences = torch.randint(letters, (rows, length))
    sequences[:, length // 2 - 250 : length // 2 + 250] = torch.randint(letters, (25,)).repeat(20)
    return nn.functional.one_hot(sequences, letters).transpose(1, 2).float()


def shuffled(sequence: Tensor, count: int) -> Tensor:
    """``[count, letters, length]``: a one-hot sequence with its positions in random orders."""
    return torch.stack([sequence[:, torch.randperm(sequence.shape[1])] for _ in range(count)])


SMALL_IMAGES, IMAGES, WORDS, SERIES, BASE_PAIRS = (3, 64, 64), (3, 224, 224), (128, 256), (100, 16), (4, 2114)


def recurrent(title: str, layer: Callable[..., nn.Module], **options: Any) -> Network:
    small, full = Size(32, 20, 32, SERIES), Size(256, 50, 64, SERIES)
    return Network(title, lambda: Recurrent(layer, **options), small=small, full=full)


NETWORKS = {
    "digits": Network(
        "CNN for digits",
        digits_cnn,
        small=Size(20, 100, 20, (1, 8, 8)),
        full=Size(100, 100, 20, (1, 8, 8)),
        target=None,
    ),
    "mlp": Network("MLP 30-128-128-1", mlp, small=Size(1000, 100, 1000, (30,)), full=Size(1000, 100, 20, (30,))),
    "resnet18": Network(
        "ResNet-18",
        lambda: resnet((2, 2, 2, 2), bottleneck=False),
        small=Size(4, 16, 4, SMALL_IMAGES),
        full=Size(32, 50, 8, IMAGES),
    ),
    "resnet50": Network(
        "ResNet-50",
        lambda: resnet((3, 4, 6, 3), bottleneck=True),
        small=Size(2, 16, 2, SMALL_IMAGES),
        full=Size(32, 50, 2, IMAGES),
    ),
    "vit": Network("ViT-S/16", ViT, small=Size(4, 8, 4, IMAGES), full=Size(32, 50, 2, IMAGES)),
    "bert": Network("BERT-mini", Bert, small=Size(4, 16, 4, WORDS), full=Size(32, 50, 8, WORDS)),
    "lstm": recurrent("LSTM 16-64", nn.LSTM),
    "gru": recurrent("GRU 16-64", nn.GRU),
    "rnn": recurrent("RNN 16-64", nn.RNN),
    "lstm-bidirectional": recurrent("LSTM 16-64, bidirectional", nn.LSTM, bidirectional=True),
    "gru-2": recurrent("GRU 16-64, 2 layers", nn.GRU, num_layers=2),
    "bpnet": Network(
        "BPNet, 64 filters",
        lambda: BPNet(64, layers=9),
        small=Size(4, 20, 4, BASE_PAIRS),
        full=Size(1000, 20, 40, BASE_PAIRS),
        sequences=True,
    ),
    "chrombpnet": Network(
        "ChromBPNet, 512 filters",
        lambda: BPNet(512, layers=8),
        small=Size(2, 8, 2, BASE_PAIRS),
        full=Size(100, 20, 5, BASE_PAIRS),
        sequences=True,
    ),
}
