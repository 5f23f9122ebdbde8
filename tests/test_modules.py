"""Every class in torch.nn: explained as it is, or refused with the reason."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from checks import as_list, assert_same, explain, unchanged
from models import Function, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, ExplanationError, UnsupportedOperationError


class Case(NamedTuple):
    """A module, the shapes of one sample's inputs, and how to call it where ``module(*inputs)`` is not what is meant."""

    make: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    call: Callable[..., Any] = lambda module, *inputs: module(*inputs)


class Called(nn.Module):
    """The module, called, its result with all but the samples flattened."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.module, self.call = case.make(), case.call

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(self.module, *inputs).flatten(1)


def one(module: Callable[[], nn.Module], *shape: int, call: Callable[..., Any] | None = None) -> Case:
    """One input."""
    return Case(module, (shape,), call or (lambda module, x: module(x)))


def two(module: Callable[[], nn.Module], *shape: int, call: Callable[..., Any] | None = None) -> Case:
    """Two inputs of one shape."""
    return Case(module, (shape, shape), call or (lambda module, a, b: module(a, b)))


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64 if any(isinstance(n, float) for n in numbers) else torch.int64)


def against(*numbers: float) -> Callable[..., Any]:
    """A loss of the input against the same target for every sample, one number a sample."""
    return lambda module, x: module(x, row(*numbers).expand(len(x), -1)).view(len(x), -1)


def label(module: nn.Module, x: Tensor) -> Tensor:
    return module(x, torch.full((len(x),), 1)).view(len(x), -1)


def unpooled(dims: int) -> Callable[..., Any]:
    """The values of a pooled grid put back to places that are the same for every sample."""

    def call(module: nn.Module, x: Tensor) -> Tensor:
        places = torch.arange(0, 4**dims, 2**dims).view(1, 1, *[2] * dims)
        return module(x, places.expand_as(x))

    return call


def first(module: nn.Module, x: Tensor) -> Tensor:
    return module(x)[0]


def lazily(module: nn.Module, *shape: int) -> nn.Module:
    """With the parameters that its first call makes."""
    with torch.no_grad():
        module(torch.zeros(2, *shape))
    return module


def _dims() -> dict[str, Case]:
    """The families that have a class for one, two and three dimensions."""
    cases = {}
    for d in (1, 2, 3):
        size, pads = [4] * d, tuple(range(1, 2 * d + 1))
        small = tuple([1, 2] * d)
        of: dict[str, Callable[[], nn.Module]] = {
            "Conv{}d": lambda d=d: getattr(nn, f"Conv{d}d")(2, 4, 3, stride=2, padding=1, groups=2),
            "ConvTranspose{}d": lambda d=d: getattr(nn, f"ConvTranspose{d}d")(2, 2, 3, 2, 1, 1, dilation=2),
            "LazyConv{}d": lambda d=d, s=size: lazily(getattr(nn, f"LazyConv{d}d")(3, 2), 2, *s),
            "LazyConvTranspose{}d": lambda d=d, s=size: lazily(getattr(nn, f"LazyConvTranspose{d}d")(1, 2), 2, *s),
            "BatchNorm{}d": lambda d=d: getattr(nn, f"BatchNorm{d}d")(2),
            "LazyBatchNorm{}d": lambda d=d, s=size: lazily(getattr(nn, f"LazyBatchNorm{d}d")(), 2, *s),
            "InstanceNorm{}d": lambda d=d: getattr(nn, f"InstanceNorm{d}d")(2, affine=True),
            "LazyInstanceNorm{}d": lambda d=d, s=size: lazily(getattr(nn, f"LazyInstanceNorm{d}d")(), 2, *s),
            "Dropout{}d": lambda d=d: getattr(nn, f"Dropout{d}d")(),
            "MaxPool{}d": lambda d=d: getattr(nn, f"MaxPool{d}d")(3, 1, 1),
            "AvgPool{}d": lambda d=d: getattr(nn, f"AvgPool{d}d")(3, 2, 1, count_include_pad=False),
            "LPPool{}d": lambda d=d: getattr(nn, f"LPPool{d}d")(2, 2),
            "AdaptiveMaxPool{}d": lambda d=d: getattr(nn, f"AdaptiveMaxPool{d}d")(3),
            "AdaptiveAvgPool{}d": lambda d=d: getattr(nn, f"AdaptiveAvgPool{d}d")(3),
            "ReflectionPad{}d": lambda d=d, p=small: getattr(nn, f"ReflectionPad{d}d")(p),
            "ReplicationPad{}d": lambda d=d, p=small: getattr(nn, f"ReplicationPad{d}d")(p),
            "CircularPad{}d": lambda d=d, p=small: getattr(nn, f"CircularPad{d}d")(p),
            "ZeroPad{}d": lambda d=d, p=pads: getattr(nn, f"ZeroPad{d}d")(p),
            "ConstantPad{}d": lambda d=d, p=pads: getattr(nn, f"ConstantPad{d}d")(p, 2.5),
        }
        cases |= {name.format(d): one(make, 2, *size) for name, make in of.items()}
        cases[f"MaxUnpool{d}d"] = one(lambda d=d: getattr(nn, f"MaxUnpool{d}d")(2), 2, *[2] * d, call=unpooled(d))
    return cases


def _activations() -> dict[str, Case]:
    names = """CELU ELU GELU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid Mish ReLU ReLU6 RReLU SELU Sigmoid SiLU
    Softplus Softshrink Softsign Tanh Tanhshrink Dropout AlphaDropout FeatureAlphaDropout Identity"""
    return {name: one(getattr(nn, name), 2, 5) for name in names.split()}


CASES = {
    **_activations(),
    **_dims(),
    "Threshold": one(lambda: nn.Threshold(0.1, -2), 5),
    "PReLU": one(lambda: nn.PReLU(3, 0.3), 3, 4),
    "GLU": one(lambda: nn.GLU(1), 6, 2),
    "Softmax": one(lambda: nn.Softmax(1), 5),
    "Softmax2d": one(nn.Softmax2d, 3, 2, 2),
    "Softmin": one(lambda: nn.Softmin(1), 5),
    "LogSoftmax": one(lambda: nn.LogSoftmax(1), 5),
    "Linear": one(lambda: nn.Linear(4, 3), 2, 4),
    "LazyLinear": one(lambda: lazily(nn.LazyLinear(3), 4), 4),
    "Bilinear": two(lambda: nn.Bilinear(4, 4, 3), 4),
    "GroupNorm": one(lambda: nn.GroupNorm(2, 4), 4, 3),
    "LayerNorm": one(lambda: nn.LayerNorm((3, 4)), 3, 4),
    "RMSNorm": one(lambda: nn.RMSNorm(5), 2, 5),
    "LocalResponseNorm": one(lambda: nn.LocalResponseNorm(3, alpha=0.5), 5, 2),
    "SyncBatchNorm": one(lambda: nn.SyncBatchNorm(3), 3, 4),
    "Flatten": one(nn.Flatten, 2, 3),
    "Unflatten": one(lambda: nn.Unflatten(1, (2, 3)), 6),
    "Fold": one(lambda: nn.Fold((4, 4), 2), 8, 9),
    "Unfold": one(lambda: nn.Unfold(2), 2, 4, 4),
    "PixelShuffle": one(lambda: nn.PixelShuffle(2), 4, 2, 3),
    "PixelUnshuffle": one(lambda: nn.PixelUnshuffle(2), 1, 4, 4),
    "ChannelShuffle": one(lambda: nn.ChannelShuffle(2), 4, 2, 2),
    "Upsample": one(lambda: nn.Upsample(scale_factor=1.5, mode="bicubic"), 1, 4, 4),
    "UpsamplingBilinear2d": one(lambda: nn.UpsamplingBilinear2d(scale_factor=2), 1, 3, 3),
    "UpsamplingNearest2d": one(lambda: nn.UpsamplingNearest2d(scale_factor=2), 1, 3, 3),
    "CosineSimilarity": two(lambda: nn.CosineSimilarity(1), 4, call=lambda m, a, b: m(a, b).unsqueeze(1)),
    "PairwiseDistance": two(nn.PairwiseDistance, 4, call=lambda m, a, b: m(a, b).unsqueeze(1)),
    "Embedding": one(
        lambda: nn.Embedding(5, 3), 4, call=lambda m, x: m(torch.arange(4).expand(len(x), -1)) * x.unsqueeze(2)
    ),
    "EmbeddingBag": one(
        lambda: nn.EmbeddingBag(5, 3, mode="sum"),
        4,
        call=lambda m, x: m(torch.arange(4).expand(len(x), -1), per_sample_weights=x),
    ),
    "RNN": one(lambda: nn.RNN(3, 4, batch_first=True), 3, 3, call=first),
    "GRU": one(lambda: nn.GRU(3, 4, batch_first=True), 3, 3, call=first),
    "LSTM": one(lambda: nn.LSTM(3, 4, batch_first=True), 3, 3, call=first),
    "RNNCell": one(lambda: nn.RNNCell(3, 4), 3),
    "GRUCell": one(lambda: nn.GRUCell(3, 4), 3),
    "LSTMCell": one(lambda: nn.LSTMCell(3, 4), 3, call=first),
    "MultiheadAttention": one(
        lambda: nn.MultiheadAttention(4, 2, batch_first=True), 3, 4, call=lambda m, x: m(x, x, x)[0]
    ),
    "Transformer": two(lambda: nn.Transformer(4, 2, 1, 1, 6, batch_first=True), 3, 4),
    "TransformerEncoder": one(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), 2), 3, 4
    ),
    "TransformerEncoderLayer": one(lambda: nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), 3, 4),
    "TransformerDecoder": two(
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(4, 2, 6, batch_first=True), 2), 3, 4
    ),
    "TransformerDecoderLayer": two(lambda: nn.TransformerDecoderLayer(4, 2, 6, batch_first=True), 3, 4),
    "Sequential": one(lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh()), 4),
    "ModuleList": one(lambda: nn.ModuleList([nn.Linear(4, 3), nn.Tanh()]), 4, call=lambda m, x: m[1](m[0](x))),
    "ModuleDict": one(
        lambda: nn.ModuleDict({"a": nn.Linear(4, 3), "b": nn.Tanh()}), 4, call=lambda m, x: m["b"](m["a"](x))
    ),
    "ParameterList": one(
        lambda: nn.ParameterList([torch.ones(4, 3), torch.ones(3)]), 4, call=lambda m, x: (x @ m[0]).tanh() * m[1]
    ),
    "ParameterDict": one(
        lambda: nn.ParameterDict({"w": torch.ones(4, 3)}), 4, call=lambda m, x: (x @ m["w"]).sigmoid()
    ),
    "DataParallel": one(lambda: nn.DataParallel(nn.Sequential(nn.Linear(4, 3), nn.Tanh())), 4),
}

#: Losses without a reduction, one number or more a sample.
LOSSES = {
    "L1Loss": two(lambda: nn.L1Loss(reduction="none"), 4),
    "MSELoss": two(lambda: nn.MSELoss(reduction="none"), 4),
    "HuberLoss": two(lambda: nn.HuberLoss("none", 0.7), 4),
    "SmoothL1Loss": two(lambda: nn.SmoothL1Loss(reduction="none", beta=0.7), 4),
    "BCELoss": one(
        lambda: nn.BCELoss(reduction="none"), 4, call=lambda m, x: against(0.0, 1.0, 0.3, 0.9)(m, x.sigmoid())
    ),
    "BCEWithLogitsLoss": one(lambda: nn.BCEWithLogitsLoss(reduction="none"), 4, call=against(0.0, 1.0, 0.3, 0.9)),
    "CrossEntropyLoss": one(lambda: nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1), 4, call=label),
    "NLLLoss": one(lambda: nn.NLLLoss(reduction="none"), 4, call=lambda m, x: label(m, x.log_softmax(1))),
    "KLDivLoss": one(lambda: nn.KLDivLoss(reduction="none"), 4, call=against(0.1, 0.2, 0.3, 0.4)),
    "GaussianNLLLoss": two(
        lambda: nn.GaussianNLLLoss(reduction="none"), 4, call=lambda m, a, b: m(a, torch.ones_like(a), b.exp())
    ),
    "PoissonNLLLoss": one(lambda: nn.PoissonNLLLoss(reduction="none"), 4, call=against(1.0, 2.0, 0.0, 3.0)),
    "HingeEmbeddingLoss": one(lambda: nn.HingeEmbeddingLoss(reduction="none"), 4, call=against(1.0, -1.0, 1.0, -1.0)),
    "CosineEmbeddingLoss": two(
        lambda: nn.CosineEmbeddingLoss(reduction="none"),
        4,
        call=lambda m, a, b: m(a, b, -torch.ones(len(a))).unsqueeze(1),
    ),
    "MarginRankingLoss": two(
        lambda: nn.MarginRankingLoss(0.3, reduction="none"), 4, call=lambda m, a, b: m(a, b, torch.ones(len(a), 4))
    ),
    "TripletMarginLoss": two(
        lambda: nn.TripletMarginLoss(reduction="none"), 4, call=lambda m, a, b: m(a, b, a.flip(1)).unsqueeze(1)
    ),
    "TripletMarginWithDistanceLoss": two(
        lambda: nn.TripletMarginWithDistanceLoss(reduction="none"),
        4,
        call=lambda m, a, b: m(a, b, a.flip(1)).unsqueeze(1),
    ),
    "SoftMarginLoss": one(lambda: nn.SoftMarginLoss(reduction="none"), 4, call=against(1.0, -1.0, 1.0, -1.0)),
    "MultiLabelSoftMarginLoss": one(
        lambda: nn.MultiLabelSoftMarginLoss(reduction="none"), 4, call=against(1.0, 0.0, 1.0, 0.0)
    ),
    "MultiMarginLoss": one(lambda: nn.MultiMarginLoss(reduction="none"), 4, call=label),
    "MultiLabelMarginLoss": one(lambda: nn.MultiLabelMarginLoss(reduction="none"), 4, call=against(1, 3, -1, 0)),
    "AdaptiveLogSoftmaxWithLoss": one(
        lambda: nn.AdaptiveLogSoftmaxWithLoss(4, 6, [2, 4], div_value=1.0), 4, call=lambda m, x: m.log_prob(x)
    ),
    "LinearCrossEntropyLoss": one(lambda: nn.LinearCrossEntropyLoss(4, 5, reduction="none"), 4, call=label),
}

#: Not to be explained: the case, and what the error says.
REFUSED: dict[str, tuple[Case, str]] = {
    "FractionalMaxPool2d": (one(lambda: nn.FractionalMaxPool2d(2, 2), 2, 4, 4), r"fractional_max_pool2d.* is random"),
    "FractionalMaxPool3d": (
        one(lambda: nn.FractionalMaxPool3d(2, 2), 2, 4, 4, 4),
        r"fractional_max_pool3d.* is random",
    ),
    "CrossMapLRN2d": (
        one(lambda: nn.CrossMapLRN2d(3), 5, 2, 2),
        r"autograd\.Function CrossMapLRN2d in module cannot be taken apart.*register_rule\(CrossMapLRN2d",
    ),
    "CTCLoss": (
        one(
            lambda: nn.CTCLoss(reduction="none"),
            5,
            4,
            call=lambda m, x: m(
                x.transpose(0, 1), torch.ones(len(x), 2).long(), *(torch.full((len(x),), n) for n in (5, 2))
            ).unsqueeze(1),
        ),
        r"ctc_loss in module has no rule",
    ),
}

#: What others are made from, or another name for one of them.
ABSTRACT = {"Module", "Container", "RNNBase", "RNNCellBase", "NLLLoss2d"}


def inputs(case: Case, samples: int, dtype: torch.dtype = torch.float64) -> Any:
    found = [torch.randn(samples, *shape, dtype=dtype) for shape in case.shapes]
    return found if len(found) > 1 else found[0]


def test_every_class_is_here() -> None:
    classes = {name for name, value in vars(nn).items() if inspect.isclass(value) and issubclass(value, nn.Module)}
    assert classes - {*CASES, *LOSSES, *REFUSED, *ABSTRACT} == set()


@pytest.mark.parametrize("name", [name for name in CASES | LOSSES if hasattr(nn, name)])
def test_every_class_is_explained(name: str) -> None:
    case = (CASES | LOSSES)[name]
    model = spread(Called(case)).double()
    x, background = inputs(case, 3), inputs(case, 4)
    values = explain(model, x, background, tolerance=1e-11).values
    aligned = DeepExplainer(model, background).attribute(x, pairing="aligned").values
    assert_same(as_list(aligned), as_list(values), 1e-11)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_explained_is_refused(name: str) -> None:
    case, message = REFUSED[name]
    model, background = Called(case).double(), inputs(case, 3)
    with unchanged(model, *as_list(background)), pytest.raises(UnsupportedOperationError, match=message):
        DeepExplainer(model, background)


@pytest.mark.parametrize("name", ["BatchNorm1d", "BatchNorm2d", "InstanceNorm2d", "SyncBatchNorm"])
def test_norms_without_running_statistics(name: str) -> None:
    """Statistics of a batch mix its samples, those of one sample do not."""
    d = 2 if "2d" in name else 1
    norm = getattr(nn, name)(3, track_running_stats=False)
    model, background = Called(Case(lambda: norm, ())).double(), torch.randn(4, 3, *[4] * d).double()
    if name.startswith("Instance"):
        explain(model, torch.randn(2, 3, 4, 4).double(), background, tolerance=1e-11)
        return
    with pytest.raises(UnsupportedOperationError, match="batch statistics, which mix the samples of a batch"):
        DeepExplainer(model, background)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_loss_over_the_batch_is_refused(reduction: str) -> None:
    model = Function(lambda self, x: self.loss(x.tanh(), torch.ones_like(x)), loss=nn.MSELoss(reduction=reduction))
    with pytest.raises(ExplanationError, match=r"output must have shape \[2, \.\.\.\] for 2 samples, got \[\]"):
        DeepExplainer(model, torch.randn(3, 4))


def test_uninitialized_lazy_modules_are_refused_before_they_are_filled() -> None:
    model, background = nn.Sequential(nn.LazyLinear(3), nn.ReLU()), torch.randn(4, 5)
    with pytest.raises(ValueError, match=r"model\.0\.weight is not initialized: call the model once on a batch"):
        DeepExplainer(model, background)
    assert isinstance(model[0], nn.LazyLinear) and isinstance(model[0].weight, nn.UninitializedParameter)
    model(background)
    explain(model, torch.randn(2, 5), background)
