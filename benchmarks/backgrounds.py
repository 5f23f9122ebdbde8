"""Which few baselines stand best for all training samples? Ten random ones, and ten centres of k-means with and without their weights.

    python benchmarks/backgrounds.py [--number 10]

MLPs trained on scikit-learn's wine, diabetes and breast cancer explain 30 test samples' predicted outputs. Prints how far expected value
and values are from those over all training samples: the absolute difference of the expected values (of random baselines the mean
over 20 draws), and the median over samples of |values - values over all| / |values over all|. Half a minute.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import shap
import torch
from quality import mlp
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from deepshap_ext import Attribution, Explainer

DATA = {"wine": load_wine, "diabetes": load_diabetes, "breast cancer": load_breast_cancer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=10, help="baselines")
    number = parser.parse_args().number
    print(f"| data | {number} baselines | expected value off by | values off by |\n|---|---|---|---|")
    for name, load in DATA.items():
        model, train, test = trained(load)
        explainer = Explainer(model)

        def explained(baselines: Tensor, weights: Tensor | None = None, explainer=explainer, test=test) -> Attribution:
            return explainer.attribute(test, lambda outputs: outputs.argmax(1), baselines=baselines, weights=weights)

        whole = explained(train)
        random = [explained(train[torch.randperm(len(train))[:number]]) for _ in range(20)]
        centres = shap.kmeans(train.numpy(), number)
        means, weights = torch.from_numpy(centres.data), torch.from_numpy(centres.weights)
        for title, found in (
            ("random training samples", random),
            ("centres of k-means, equal weights", [explained(means)]),
            ("centres of k-means, their weights", [explained(means, weights)]),
        ):
            off = torch.stack([(one.expected_value - whole.expected_value).abs().mean() for one in found]).mean()
            apart = torch.stack([(one.values - whole.values).norm(dim=1) / whole.values.norm(dim=1) for one in found])
            print(f"| {name} | {title} | {float(off):.2f} | {float(apart.median()):.2f} |", flush=True)


def trained(load) -> tuple[nn.Module, Tensor, Tensor]:
    """A net, all training samples and 30 test samples."""
    torch.manual_seed(0)
    data = load()
    x, y = torch.from_numpy(data.data).float(), torch.from_numpy(data.target)
    x = (x - x.mean(0)) / x.std(0)
    train, test, labels, _ = train_test_split(x, y, random_state=0)
    regression = y.is_floating_point()
    model = mlp(x.shape[1], 1 if regression else int(y.max()) + 1, nn.ReLU)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(200):
        out = model(train)
        loss = (
            nn.functional.mse_loss(out[:, 0], labels.float())
            if regression
            else nn.functional.cross_entropy(out, labels)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), train, test[:30]


if __name__ == "__main__":
    main()
