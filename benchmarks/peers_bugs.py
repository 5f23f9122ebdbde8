"""Small models as people write them, explained by deepshap_ext, shap and captum: do the values add up?

    python benchmarks/peers_bugs.py

Prints the largest |sum of values - (output - mean output of the baselines)| over samples, relative to the largest such difference:
about 1e-7 is rounding, 0.1 is a tenth of what was to be explained. The second table asks whether a sample's values depend on the other
samples of its batch, the third whether the model still runs forward and backward after it was explained.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from timing import additivity_error
from torch import Tensor, nn

SAMPLES, BASELINES, CHANNELS, SIZE = 8, 10, 3, 12
Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]


class Image(nn.Module):
    """A convolution, ``middle``, and four outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(CHANNELS, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU()
        self.last = nn.LazyLinear(4)

    def middle(self, x: Tensor) -> Tensor:
        return self.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)).flatten(1))


class ModulesUsedOnce(Image):
    """ReLU as a module, used once"""


class OverlappingMaxPool(Image):
    """max-pooling 3 x 3, stride 2"""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.pool(self.second(self.relu(x)))


class ModulesInARow(Image):
    """ReLU and max-pooling 2 x 2, modules in a row"""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2)

    def middle(self, x: Tensor) -> Tensor:
        return self.pool(self.relu(x))


class FunctionalReLU(Image):
    """F.relu"""

    def middle(self, x: Tensor) -> Tensor:
        return F.relu(x)


class ReusedModule(Image):
    """one ReLU module used twice"""

    def middle(self, x: Tensor) -> Tensor:
        return self.relu(self.second(self.relu(x)))


class InPlaceResidual(Image):
    """a residual block: y = conv(x); y += x"""

    def __init__(self) -> None:
        super().__init__()
        self.final = nn.ReLU()

    def middle(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        y = self.second(x)
        y += x
        return self.final(y)


class Gate(Image):
    """x * sigmoid(conv(x))"""

    def __init__(self) -> None:
        super().__init__()
        self.sigmoid = nn.Sigmoid()

    def middle(self, x: Tensor) -> Tensor:
        return x * self.sigmoid(self.second(x))


class SoftmaxOutput(Image):
    """softmax module at the end"""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.softmax(4 * super().forward(x))


MODELS = (
    ModulesUsedOnce,
    ModulesInARow,
    OverlappingMaxPool,
    FunctionalReLU,
    ReusedModule,
    InPlaceResidual,
    Gate,
    SoftmaxOutput,
)


def with_deepshap_ext(model: nn.Module, X: Tensor, baselines: Tensor) -> Tensor:
    from deepshap_ext import DeepExplainer

    return torch.from_numpy(DeepExplainer(model, baselines).shap_values(X))


def with_shap(model: nn.Module, X: Tensor, baselines: Tensor) -> Tensor:
    from shap import DeepExplainer

    return torch.from_numpy(DeepExplainer(model, baselines).shap_values(X, check_additivity=False))


def with_captum(model: nn.Module, X: Tensor, baselines: Tensor) -> Tensor:
    from captum.attr import DeepLiftShap

    explainer = DeepLiftShap(model)
    return torch.stack([explainer.attribute(X, baselines, target=k).detach() for k in range(4)], -1)


EXPLAINERS: dict[str, Explain] = {"deepshap_ext": with_deepshap_ext, "shap": with_shap, "captum": with_captum}


def built(kind: type[Image]) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model, X, baselines = kind().eval(), *(torch.randn(n, CHANNELS, SIZE, SIZE) for n in (SAMPLES, BASELINES))
    with torch.no_grad():
        model(X)  # gives the lazy layer its size
    return model, X, baselines


def additivity(explain: Explain, kind: type[Image]) -> float:
    model, X, baselines = built(kind)
    with torch.no_grad():
        difference = model(X) - model(baselines).mean(0)
    return additivity_error(explain(model, X, baselines).flatten(1, -2).sum(1, dtype=torch.float64), difference)


def influence(explain: Explain, kind: type[Image]) -> float:
    """How far the first sample's values move when it is explained among others, relative to the largest of them."""
    model, X, baselines = built(kind)
    alone, among = explain(model, X[:1], baselines)[0], explain(model, X, baselines)[0]
    return float((alone - among).abs().max() / alone.abs().max())


def usable(explain: Explain, kind: type[Image]) -> str:
    """Whether the model runs as before once it was explained, or explaining it failed."""
    model, X, baselines = built(kind)
    with contextlib.suppress(Exception):
        explain(model, X, baselines)
    model(X).sum().backward()
    return "yes"


def measured(measure: Callable[[Explain, type[Image]], float | str], explain: Explain, kind: type[Image]) -> str:
    try:
        result = measure(explain, kind)
        return result if isinstance(result, str) else f"{result:.0e}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:60]}..."


def table(title: str, measure: Callable[[Explain, type[Image]], float | str], kinds: Sequence[type[Image]]) -> None:
    print(f"| {title} | {' | '.join(EXPLAINERS)} |\n|---|---|---|---|")
    for kind in kinds:
        cells = [measured(measure, explain, kind) for explain in EXPLAINERS.values()]
        print(f"| {kind.__doc__} | {' | '.join(cells)} |", flush=True)
    print()


def main() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table("additivity error", additivity, MODELS)
        table("a sample's values alone, and in a batch: apart by", influence, [SoftmaxOutput])
        table("the model runs as before, after it was explained", usable, [ModulesUsedOnce, InPlaceResidual])


if __name__ == "__main__":
    main()
