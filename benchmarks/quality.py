"""How good are the values? Small trained nets, whose exact Shapley values over the same baselines can be had from all coalitions.

    python benchmarks/quality.py [names ...]

Nets of 10 or 12 features, each trained three times on scikit-learn's data; the predicted class (or the regression) of 12 test
samples is explained against 12 training samples. The exact value of a feature weighs what it adds to every coalition of the others, where
a feature outside the coalition has the baseline's value; the mean over the baselines is what every method here estimates. Prints, for
each net and method,

- the median over all samples of |values - exact| / |exact| (Euclidean norms),
- the median over all samples of Spearman's rank correlation with the exact values,
- the largest |sum of values - output difference| relative to the largest difference,

or the first line of the error. Two minutes; docs/quality.md reads the table.
"""

from __future__ import annotations

import argparse
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass

os.environ.setdefault("OMP_NUM_THREADS", "1")

import captum.attr
import shap
import torch
import torch.nn.functional as F
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.model_selection import train_test_split
from timing import additivity_error, crash
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

SEEDS, SAMPLES, BASELINES = 3, 12, 12


def mlp(features: int, outputs: int, activation: Callable[[], nn.Module], last: nn.Module | None = None) -> nn.Module:
    layers = [nn.Linear(features, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, outputs)]
    return nn.Sequential(*layers, *([] if last is None else [last]))


def cnn(pool: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 4, 3)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        pool,
        nn.Conv2d(16, 32, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


class Residual(nn.Module):
    """Written with functions, as ResNets are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(16) for _ in range(2))
        self.head = nn.Linear(16 * 12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norms[0](self.stem(x.view(-1, 1, 4, 3))))
        return self.head(F.relu(x + self.norms[1](self.conv(x))).flatten(1))


class Recurrent(nn.Module):
    """An LSTM that reads an image's rows."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 24, batch_first=True), nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x.view(-1, 4, 3))[0][:, -1])


class Transformer(nn.Module):
    """A token for each feature, two layers of attention, the mean of the tokens."""

    def __init__(self, features: int, outputs: int, width: int = 16) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(features, width)) for _ in range(2))
        layer = nn.TransformerEncoderLayer(width, 4, 32, dropout=0, activation=F.gelu, batch_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x.unsqueeze(2) * self.weight + self.bias).mean(1))


def table(load: Callable[..., tuple], features: int) -> Callable[[], tuple[Tensor, Tensor]]:
    def data() -> tuple[Tensor, Tensor]:
        X, y = load(return_X_y=True)
        X, y = torch.tensor(X[:, :features]).float(), torch.tensor(y)
        X = (X - X.mean(0)) / X.std(0)
        return X, ((y - y.mean()) / y.std()).float() if y.is_floating_point() else y

    return data


def small_digits() -> tuple[Tensor, Tensor]:
    X, y = load_digits(return_X_y=True)
    return F.adaptive_avg_pool2d(torch.tensor(X).float().view(-1, 1, 8, 8) / 16, (4, 3)).flatten(1), torch.tensor(y)


@dataclass(frozen=True)
class Net:
    make: Callable[[], nn.Module]
    data: Callable[[], tuple[Tensor, Tensor]]
    rate: float = 1e-2
    maxima: bool = False


NETS = {
    "MLP, softplus (breast cancer)": Net(lambda: mlp(10, 2, nn.Softplus), table(load_breast_cancer, 10)),
    "MLP, ReLU (diabetes)": Net(lambda: mlp(10, 1, nn.ReLU), table(load_diabetes, 10), 1e-3),
    "MLP, SiLU, softmax (wine)": Net(lambda: mlp(12, 3, nn.SiLU, nn.Softmax(1)), table(load_wine, 12)),
    "MLP, SiLU (wine)": Net(lambda: mlp(12, 3, nn.SiLU), table(load_wine, 12)),
    "CNN, ReLU, max-pool (digits)": Net(lambda: cnn(nn.MaxPool2d(2, stride=1)), small_digits, maxima=True),
    "CNN, ReLU, average-pool (digits)": Net(lambda: cnn(nn.AvgPool2d(2, stride=1)), small_digits),
    "CNN, residual, functions (digits)": Net(Residual, small_digits),
    "LSTM (digits)": Net(Recurrent, small_digits),
    "transformer (breast cancer)": Net(lambda: Transformer(10, 2), table(load_breast_cancer, 10), 3e-3),
}


def trained(net: Net, seed: int) -> tuple[nn.Module, Tensor, Tensor, float]:
    """The model, training and test samples, and its score on the test samples: accuracy or R²."""
    torch.manual_seed(seed)
    X, y = net.data()
    train, test, labels, expected = train_test_split(X, y, test_size=0.25, random_state=seed)
    model = net.make()
    softmax = isinstance(model, nn.Sequential) and isinstance(model[-1], nn.Softmax)
    optimizer = torch.optim.AdamW(model.parameters(), net.rate, weight_decay=1e-2)
    for _ in range(20):
        for rows in torch.randperm(len(train)).split(64):
            optimizer.zero_grad()
            out = model(train[rows])
            if y.is_floating_point():
                loss = F.mse_loss(out[:, 0], labels[rows])
            else:
                loss = F.nll_loss(out.log(), labels[rows]) if softmax else F.cross_entropy(out, labels[rows])
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        out = model(test)
    if y.is_floating_point():
        return model, train, test, float(1 - (out[:, 0] - expected).var() / expected.var())
    return model, train, test, float((out.argmax(1) == expected).float().mean())


@torch.no_grad()
def exact(model: nn.Module, X: Tensor, baselines: Tensor, target: Tensor) -> Tensor:
    """Shapley values ``[N, n]`` of the mean game over the baselines, from its 2^n coalitions."""
    n = X.shape[1]
    inside = torch.arange(2**n).unsqueeze(1) >> torch.arange(n) & 1 == 1
    size = inside.sum(1, keepdim=True)
    factorial = torch.tensor([math.factorial(k) / math.factorial(n) for k in range(n + 1)], dtype=torch.float64)
    joined = factorial[(size - 1).clamp_min(0)] * torch.tensor([math.factorial(k) for k in range(n + 1)])[n - size]
    left = factorial[size] * torch.tensor([math.factorial(k) for k in range(n + 1)])[(n - size - 1).clamp_min(0)]
    weights = torch.where(inside, joined, -left)
    values = []
    for x, t in zip(X, target.tolist(), strict=True):
        worth = torch.zeros(2**n, dtype=torch.float64)
        for r in baselines:
            worth += model(torch.where(inside, x, r))[:, t]
        values.append(weights.T @ worth / len(baselines))
    return torch.stack(values)


def ours(model: nn.Module, X: Tensor, baselines: Tensor, target: Tensor) -> Tensor:
    return DeepExplainer(model, baselines).attribute(X, target).values


def ours_shapley(model: nn.Module, X: Tensor, baselines: Tensor, target: Tensor) -> Tensor:
    return DeepExplainer(model, baselines, rules="shapley").attribute(X, target).values


def shap_deep(model: nn.Module, X: Tensor, baselines: Tensor, target: Tensor) -> Tensor:
    values = torch.as_tensor(shap.DeepExplainer(model, baselines).shap_values(X, check_additivity=False))
    return values[torch.arange(len(X)), :, target]


def captum_deep(model: nn.Module, X: Tensor, baselines: Tensor, target: Tensor) -> Tensor:
    return captum.attr.DeepLiftShap(model).attribute(X, baselines, target=target)


def integrated_gradients(steps: int) -> Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]:
    def explain(model: nn.Module, X: Tensor, baselines: Tensor, target: Tensor) -> Tensor:
        method = captum.attr.IntegratedGradients(model)
        sides = [baseline.unsqueeze(0).expand_as(X) for baseline in baselines]
        return torch.stack([method.attribute(X, side, target=target, n_steps=steps) for side in sides]).mean(0)

    return explain


def input_times_gradient(model: nn.Module, X: Tensor, baselines: Tensor, target: Tensor) -> Tensor:
    x = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).gather(1, target.unsqueeze(1)).sum(), x)
    return gradient * (X - baselines.mean(0))


MAXIMA = 'deepshap_ext, rules="shapley"'  # differs only where a net has maxima
METHODS = {
    "deepshap_ext": ours,
    MAXIMA: ours_shapley,
    "shap DeepExplainer": shap_deep,
    "captum DeepLiftShap": captum_deep,
    "captum IntegratedGradients, 50 steps": integrated_gradients(50),
    "captum IntegratedGradients, 2 steps": integrated_gradients(2),
    "(x - r) x gradient": input_times_gradient,
}


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation of each row."""
    ranks = [t.argsort(1).argsort(1).double() for t in (a, b)]
    a, b = (t - t.mean(1, keepdim=True) for t in ranks)
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


def compare(net: Net) -> tuple[str, dict[str, str]]:
    """How good the nets are, and each method's three cells, or its error."""
    methods = {name: method for name, method in METHODS.items() if net.maxima or name != MAXIMA}
    distances, ranks, gaps = ({name: [] for name in methods} for _ in range(3))
    crashes: dict[str, str] = {}
    scores = []
    for seed in range(SEEDS):
        model, train, test, score = trained(net, seed)
        scores.append(score)
        X, baselines = test[:SAMPLES], train[:BASELINES]
        with torch.no_grad():
            outputs = model(X)
            target = outputs.argmax(1)
            difference = outputs.gather(1, target.unsqueeze(1))[:, 0] - model(baselines).mean(0)[target]
        truth = exact(model, X, baselines, target)
        assert additivity_error(truth.sum(1), difference) < 1e-5
        for name, method in methods.items():
            try:
                values = method(model, X, baselines, target).detach().double()
            except Exception as error:
                crashes[name] = crash(error)
                continue
            distances[name].append((values - truth).norm(dim=1) / truth.norm(dim=1))
            ranks[name].append(rank_correlation(values, truth))
            gaps[name].append(additivity_error(values.sum(1), difference))
    cells = {
        name: f"{crashes[name]} | | "
        if name in crashes
        else f"{torch.cat(distances[name]).median():.3f} | {torch.cat(ranks[name]).median():.3f} | {max(gaps[name]):.0e}"
        for name in methods
    }
    measure = "R²" if outputs.shape[1] == 1 else "accuracy"
    return f"{measure} {sum(scores) / SEEDS:.2f}", cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="nets whose name contains one of these; all by default")
    names = parser.parse_args().names
    warnings.simplefilter("ignore")
    print("| net | method | distance | rank correlation | additivity error |\n|---|---|---|---|---|")
    for title, net in NETS.items():
        if names and not any(name in title for name in names):
            continue
        score, cells = compare(net)
        for row, (name, cell) in enumerate(cells.items()):
            print(f"| {f'{title}, {score}' if row == 0 else ''} | {name} | {cell} |", flush=True)


if __name__ == "__main__":
    main()
