"""Which baselines, and how many? Values from few of them beside those from all training samples.

    python examples/baselines.py [--picture out/baselines.png]

A network learns scikit-learn's 569 breast cancer samples of 30 measurements. Test samples are explained against some training samples,
against centres of k-means, and against the mean of all; the picture shows how far values are from those against all training samples, and
how far their standard error says that they may be.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import shap
import torch
from matplotlib import pyplot as plt
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from deepshap_ext import Explainer

NUMBERS, DRAWS = (2, 5, 10, 20, 50, 100, 200), 20


def samples() -> list[Tensor]:
    """Training samples [426, 30], 30 test samples, and the labels of the training samples."""
    data = load_breast_cancer()
    x = torch.from_numpy(data.data).float()
    x = (x - x.mean(0)) / x.std(0)
    train, test, labels, _ = train_test_split(x, torch.from_numpy(data.target).float(), test_size=0.25, random_state=0)
    return [train, test[:30], labels]


def fitted(x: Tensor, labels: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], labels).backward()
        optimizer.step()
    return model.eval()


def distance(values: Tensor, whole: Tensor) -> float:
    """The median over samples of |values - whole| / |whole|."""
    return float(((values - whole).norm(dim=1) / whole.norm(dim=1)).median())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=Path("out/baselines.png"))
    picture = parser.parse_args().picture
    picture.parent.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    train, test, labels = samples()
    explainer = Explainer(fitted(train, labels))
    whole = explainer.attribute(test, 0, baselines=train).values
    curves: dict[str, list[float]] = {"training samples": [], "what their standard error says": []}
    curves |= {"centres of k-means with their weights": [], "the same centres, equal weights": []}
    for number in NUMBERS:
        drawn = [
            explainer.attribute(test, 0, baselines=train[torch.randperm(len(train))[:number]], standard_error=True)
            for _ in range(DRAWS)
        ]
        centres = shap.kmeans(train.numpy(), number)
        equal = torch.from_numpy(centres.data).float()
        for name, found in (
            ("training samples", [distance(one.values, whole) for one in drawn]),
            ("what their standard error says", [distance(whole + one.standard_error, whole) for one in drawn]),
            (
                "centres of k-means with their weights",
                [distance(explainer.attribute(test, 0, baselines=centres).values, whole)],
            ),
            (
                "the same centres, equal weights",
                [distance(explainer.attribute(test, 0, baselines=equal).values, whole)],
            ),
        ):
            curves[name].append(sum(found) / len(found))
    mean = distance(explainer.attribute(test, 0, baselines=train.mean(0, keepdim=True)).values, whole)

    print(f"{'baselines':40}" + "".join(f"{number:>7}" for number in NUMBERS))
    for name, curve in curves.items():
        print(f"{name:40}" + "".join(f"{value:>7.2f}" for value in curve))
    print(f"{'the mean of all, one baseline':40}{mean:>7.2f}")

    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    for (name, curve), style in zip(curves.items(), ("o-", "--", "s-", "s:"), strict=True):
        axes.loglog(NUMBERS, curve, style, label=name, color={"s": "#e07b39"}.get(style[0], "#1b6ca8"), markersize=5)
    axes.axhline(mean, color="0.5", linewidth=1)
    axes.text(NUMBERS[-1], mean * 1.06, "the mean of all, one baseline", color="0.4", ha="right", fontsize=9)
    axes.set(xlabel="baselines", ylabel="distance to values against all 426", xticks=NUMBERS, xticklabels=NUMBERS)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(picture, dpi=80)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
