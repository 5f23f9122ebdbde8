"""What does accuracy cost? The dial's distance to exact Shapley values by what it takes, beside other estimators on the same nets.

    python benchmarks/dial.py [names ...] [--plot docs/images/dial.png]
    python benchmarks/dial.py --time

Explains the predicted class (or the regression) of samples against a baseline each, for the nets of benchmarks/quality.py, of 10 or 12
players, and for larger ones. Exact values are those of all coalitions, or the mean of many antithetic permutations. For budgets of ``3 k``
forward-equivalents a sample, k from 1 to 256, prints the median of |values - exact| / |exact| for

- the dial, ``passes=k``; k = 1 is DeepSHAP,
- antithetic permutation sampling, which takes players - 1 forward passes a permutation,
- shap.KernelExplainer, ``nsamples=3 k``,
- captum.attr.IntegratedGradients, ``n_steps=3 k / 2``, where a forward and a backward pass count as 2,

and how many of the dial's values, over four seeds, are within two of their standard errors. The plot has the means over the small and over
the larger nets. ``--time`` prints what a leg of a chain takes. Five minutes; docs/quality.md reads the tables.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import captum.attr
import numpy as np
import quality
import shap
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from timing import Contender, compare
from torch import Tensor, nn

from deepshap_ext import Attribution, Explainer

SAMPLES = 12
#: Of the random orders, for how far standard errors hold.
SEEDS = 4
WITHIN = "share within two standard errors"
PASSES = [1, 4, 8, 16, 32, 64, 128, 256]
PERMUTATIONS = 600


def pixels() -> tuple[Tensor, Tensor]:
    X, y = load_digits(return_X_y=True)
    return torch.tensor(X).float() / 16, torch.tensor(y)


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


LARGER = {
    "MLP, ReLU, 30 features (breast cancer)": quality.Net(
        lambda: quality.mlp(30, 2, nn.ReLU), quality.table(load_breast_cancer, 30), 3e-3
    ),
    "MLP, ReLU, 64 pixels (digits)": quality.Net(lambda: quality.mlp(64, 10, nn.ReLU), pixels),
    "CNN, ReLU, max-pool, 64 pixels (digits)": quality.Net(cnn, pixels, maxima=True),
    "transformer, 64 pixels (digits)": quality.Net(lambda: quality.Transformer(64, 10), pixels, 3e-3),
}


@dataclass(frozen=True)
class Case:
    """A model, samples and a baseline for each, ``[N, players]``, and the explained outputs ``[N]``."""

    model: nn.Module
    X: Tensor
    baselines: Tensor
    target: Tensor

    @torch.no_grad()
    def worth(self, sample: int, inside: Tensor) -> Tensor:
        """The sample's output where its players ``inside`` ``[m, players]`` are in."""
        points = torch.where(inside, self.X[sample], self.baselines[sample])
        return torch.cat([self.model(rows)[:, self.target[sample]] for rows in points.split(20000)])


def case(net: quality.Net) -> Case:
    model, train, test, _ = quality.trained(net, 0)
    X, baselines = test[:SAMPLES], train[:SAMPLES]
    with torch.no_grad():
        return Case(model.requires_grad_(False), X, baselines, model(X).argmax(1))


def truth(case: Case) -> Tensor | None:
    players = case.X.shape[1]
    if players <= 12:
        sides = zip(case.X, case.baselines, case.target, strict=True)
        return torch.cat([quality.exact(case.model, x[None], r[None], t[None]) for x, r, t in sides])
    return permutations(case, PERMUTATIONS * (players - 1), 1)


def dial(case: Case, passes: int, **options: Any) -> Attribution:
    return Explainer(case.model).attribute(
        case.X, case.target.tolist(), baselines=case.baselines.unsqueeze(1), passes=passes, **options
    )


def permutations(case: Case, budget: int, seed: int = 0) -> Tensor | None:
    """Means over as many antithetic pairs as the budget of forward passes has."""
    generator, players = torch.Generator().manual_seed(seed), case.X.shape[1]
    pairs = budget // (2 * (players - 1))
    if not pairs:
        return None
    total = torch.zeros(case.X.shape, dtype=torch.float64)
    for sample in range(len(case.X)):
        for _ in range(pairs):
            order = torch.rand(players, generator=generator).argsort()
            for one in (order, order.flip(0)):
                inside = one.argsort() < torch.arange(players + 1).unsqueeze(1)
                total[sample, one] += case.worth(sample, inside).double().diff()
    return total / (2 * pairs)


def kernel(case: Case, budget: int) -> Tensor | None:
    players = case.X.shape[1]
    if budget < 2 * players:
        return None
    values = []
    for sample in range(len(case.X)):
        np.random.seed(0)
        game = shap.KernelExplainer(
            lambda inside, sample=sample: case.worth(sample, torch.from_numpy(inside) > 0.5).numpy(),
            np.zeros((1, players)),
        )
        values.append(game.shap_values(np.ones((1, players)), nsamples=budget, l1_reg=0, silent=True)[0])
    return torch.tensor(np.array(values))


def integrated_gradients(case: Case, budget: int) -> Tensor:
    method = captum.attr.IntegratedGradients(case.model)
    return method.attribute(case.X, case.baselines, target=case.target, n_steps=max(1, budget // 2))


METHODS: dict[str, Callable[[Case, int], Tensor | None]] = {
    "deepshap_ext, passes=k": lambda case, budget: dial(case, budget // 3).values,
    "permutation sampling": permutations,
    "shap KernelExplainer": kernel,
    "captum IntegratedGradients": integrated_gradients,
}


def distance(values: Tensor, exact: Tensor) -> float:
    return float(((values.detach().double() - exact).norm(dim=1) / exact.norm(dim=1)).median())


def row(name: str, cells: list[float | None]) -> str:
    return f"| {name} | {' | '.join('' if cell is None else f'{cell:.3f}' for cell in cells)} |"


def distances(title: str, net: quality.Net) -> dict[str, list[float | None]]:
    """Prints and returns each method's distances, and how far the dial's standard errors hold."""
    of = case(net)
    exact = truth(of)
    assert exact is not None
    found: dict[str, list[float | None]] = {}
    for name, method in METHODS.items():
        values = [method(of, 3 * passes) for passes in PASSES]
        found[name] = [None if one is None else distance(one, exact) for one in values]
        print(row(f"{title if name == next(iter(METHODS)) else ''} | {name}", found[name]), flush=True)
    # With one baseline there are standard errors from 8 passes on.
    within: list[float | None] = [None, None]
    for passes in PASSES[2:]:
        # Of exact values there is no error but rounding.
        rounding = 1e-5 * exact.norm(dim=1, keepdim=True)
        shares = []
        for seed in range(SEEDS):
            one = dial(of, passes, seed=seed, standard_error=True)
            shares.append(float(((one.values - exact).abs() <= 2 * one.standard_error + rounding).double().mean()))
        within.append(float(np.mean(shares)))
    found[WITHIN] = within
    print(row(f" | {WITHIN}", within), flush=True)
    return found


def means(nets: list[dict[str, list[float | None]]], method: str) -> list[float | None]:
    """Means over the nets, for the budgets that the method has values for on all of them."""
    columns = zip(*(net[method] for net in nets), strict=True)
    return [None if None in column else sum(column) / len(column) for column in columns]


def plot(groups: dict[str, list[dict[str, list[float | None]]]], path: str) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(groups), figsize=(10, 4), sharey=True, squeeze=False, layout="constrained")
    for ax, (title, nets) in zip(axes[0], groups.items(), strict=True):
        for name in METHODS:
            found = [(3 * k, mean) for k, mean in zip(PASSES, means(nets, name), strict=True) if mean is not None]
            ax.plot(*zip(*found, strict=True), "o-" if name.startswith("deepshap") else ".--", label=name)
        ax.set(title=title, xlabel="forward-equivalents a sample and baseline", xscale="log", yscale="log")
        ax.grid(True, which="both", alpha=0.3)
    axes[0, 0].set_ylabel("distance to exact Shapley values")
    axes[0, -1].legend()
    figure.savefig(path, dpi=110)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0, activation="gelu", batch_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(128, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x).mean(1))


def convolutions() -> nn.Module:
    layers: list[nn.Module] = []
    for channels, more in ((3, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(channels, more, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


def wide_mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(256, 1024),
        nn.ReLU(),
        nn.Linear(1024, 1024),
        nn.ReLU(),
        nn.Linear(1024, 1024),
        nn.ReLU(),
        nn.Linear(1024, 2),
    )


#: Model, shape of a sample, number of samples.
TIMED = {
    "MLP, 3 layers of 1,024": (wide_mlp, (256,), 128),
    "CNN, 3 x 32 x 32": (convolutions, (3, 32, 32), 32),
    "transformer, 2 layers, 64 tokens of 128": (Encoder, (64, 128), 8),
}


def time() -> None:
    """What a leg takes: the time of the dial less that of DeepSHAP, which it begins with, by the number of legs."""
    print(
        "| net | legs a chain | a leg, in forward passes of a row | in forward and backward passes of a row |\n|---|---|---|---|"
    )
    for name, (make, shape, number) in TIMED.items():
        torch.manual_seed(0)
        model, X, baselines = make().eval().requires_grad_(False), torch.randn(number, *shape), torch.randn(4, *shape)
        rows, explainer = torch.randn(8 * number, *shape), Explainer(model)

        @torch.no_grad()
        def forward(model: nn.Module = model, rows: Tensor = rows) -> None:
            model(rows)

        def both(model: nn.Module = model, rows: Tensor = rows) -> None:
            x = rows.clone().requires_grad_()
            torch.autograd.grad(model(x)[:, 0].sum(), x)

        def legs(
            passes: int,
            each: int | None,
            explainer: Explainer = explainer,
            X: Tensor = X,
            baselines: Tensor = baselines,
        ) -> None:
            explainer.attribute(X, 0, baselines=baselines, passes=passes, legs=each)

        works = [forward, both, lambda: legs(1, None), lambda: legs(8, 2), lambda: legs(8, 4)]
        found = compare([Contender("", work) for work in works], 9, torch.device("cpu"))
        once, twice, deepshap, *chains = (np.array(one.seconds) for one in found)
        for each, seconds in zip((2, 4), chains, strict=True):
            leg = (seconds - deepshap) / (8 * 4 * number)
            forwards, gradients = (np.median(leg / (one / len(rows))) for one in (once, twice))
            print(f"| {name} | {each} | {forwards:.1f} | {gradients:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="nets whose name contains one of these; all by default")
    parser.add_argument("--plot", metavar="PATH", help="draw the means as well")
    parser.add_argument("--time", action="store_true", help="what a leg takes instead")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if arguments.time:
        time()
        return
    print(f"| net | method | {' | '.join(f'k = {k}' for k in PASSES)} |\n|---|---{'|---' * len(PASSES)}|")
    groups: dict[str, list[dict[str, list[float | None]]]] = {}
    for group, nets in (("10 or 12 players", quality.NETS), ("30 or 64 players", LARGER)):
        chosen = {title: net for title, net in nets.items() if any(name in title for name in arguments.names or [""])}
        if chosen:
            groups[group] = [distances(title, net) for title, net in chosen.items()]
            for name in (*METHODS, WITHIN):
                print(row(f"mean over all of {group} | {name}", means(groups[group], name)), flush=True)
    if arguments.plot:
        plot(groups, arguments.plot)


if __name__ == "__main__":
    main()
