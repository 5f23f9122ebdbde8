"""Explain a network on a table of numbers and categories with shap's beeswarm and waterfall plots.

    python examples/tabular.py [--picture out/tabular.png]

The table is scikit-learn's of 442 diabetes patients and their disease's progression a year later. Sex and age group are categories, columns
of integer codes that the network looks up in embeddings: a code's value is that of all that was looked up for it.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import shap
import torch
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

SEXES = ["1", "2"]  # the data set does not say which is which
AGES = ["under 30", "30 to 39", "40 to 49", "50 to 59", "60 or more"]
NUMBERS = {"bmi": "body mass index", "bp": "blood pressure", "s2": "LDL", "s3": "HDL"}
NUMBERS |= {"s4": "cholesterol / HDL", "s5": "log triglycerides", "s6": "blood sugar"}


class Net(nn.Module):
    """Disease progression ``[N, 1]`` of rows ``[N, 9]``: codes of sex and age group, then numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.sex, self.age, self.scale = nn.Embedding(2, 2), nn.Embedding(5, 3), nn.BatchNorm1d(7, momentum=None)
        self.body = nn.Sequential(nn.Linear(12, 32), nn.GELU(), nn.Dropout(0.3), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(torch.cat([self.sex(x[:, 0].long()), self.age(x[:, 1].long()), self.scale(x[:, 2:])], 1))


def patients() -> list[Any]:
    """Tables of training and test patients, with codes of sex and age group, and their progressions, scores from 0.25 to 3.46."""
    data, progression = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
    table = pd.DataFrame({"sex": data.sex.astype(int) - 1, "age group": np.digitize(data.age, [30, 40, 50, 60])})
    table = table.join(data[list(NUMBERS)].rename(columns=NUMBERS))
    return train_test_split(table, progression.to_numpy(np.float32) / 100, test_size=0.25, random_state=0)


def train(x: Tensor, progression: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.1)
    for _ in range(60):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x[rows])[:, 0], progression[rows]).backward()
            optimizer.step()
    return model.eval()


def drawn(title: str, plot: Callable[..., Any], explanation: shap.Explanation) -> Image.Image:
    """One of shap's plots, which set the size of the whole figure."""
    plot(explanation, max_display=9, show=False)
    plt.title(title, fontsize=15, loc="left", pad=32)
    plt.gcf().set_size_inches(8, 6)
    file = io.BytesIO()
    plt.savefig(file, dpi=80, bbox_inches="tight")
    plt.close()
    return Image.open(file).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=Path("out/tabular.png"))
    picture = parser.parse_args().picture
    picture.parent.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    train_table, table, train_progression, progression = patients()
    model = train(torch.tensor(train_table.to_numpy(np.float32)), torch.from_numpy(train_progression))

    words = table.astype(object)
    words["sex"], words["age group"] = np.array(SEXES)[table["sex"]], np.array(AGES)[table["age group"]]
    explanation = DeepExplainer(model, train_table)(table, display_data=words)

    predicted = explanation.values.sum(1) + explanation.base_values
    fit = 1 - np.square(predicted - progression).sum() / np.square(progression - progression.mean()).sum()
    print(f"{len(table)} test patients, R^2 {fit:.2f}")
    swarm = drawn(f"What moves the predicted progression of {len(table)} patients", shap.plots.beeswarm, explanation)
    fall = drawn("The patient with the highest prediction", shap.plots.waterfall, explanation[int(predicted.argmax())])
    both = Image.new("RGB", (swarm.width + 30 + fall.width, max(swarm.height, fall.height)), "white")
    both.paste(swarm, (0, 0))
    both.paste(fall, (swarm.width + 30, 0))
    both.quantize(128).save(picture)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
