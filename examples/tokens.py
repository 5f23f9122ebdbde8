"""Which words make a review a good one? Explain token ids as they are, and print them with shap.plots.text.

    python examples/tokens.py [--picture out/tokens.png]

A small transformer learns how good reviews, generated ones, say that something is; `not` turns the word behind it around. The baseline is a
review of blanks, which it has met in training. shap.plots.text makes a page, not a picture: the example writes both, tokens.html beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import shap
import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

GOOD, BAD = "good great funny moving clever".split(), "bad boring dull weak silly".split()
THINGS = "plot acting ending film music".split()
BEFORE = {"not": -1, "hardly": -1, "very": 1.5, "really": 1.5, "quite": 0.5}
WORDS = np.array(["", "the", "was", "but", "and", *GOOD, *BAD, *THINGS, *BEFORE])
REVIEWS = [
    "the plot was very good and the music was really great",
    "the acting was clever but the ending was not funny",
    "the film was not bad and the music was really moving",
    "the plot was hardly dull but the acting was very weak",
]
LENGTH, MINUS = 11, "\N{MINUS SIGN}"


class Net(nn.Module):
    """How good reviews are, ``[N, 1]``, of token ids ``[N, 11]``."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.place = nn.Embedding(len(WORDS), 32), nn.Parameter(torch.randn(LENGTH, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0, batch_first=True, norm_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 1)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.word(ids) + self.place).mean(1))


def coded(text: str) -> list[int]:
    ids = [WORDS.tolist().index(word) for word in text.split()]
    return ids + [0] * (LENGTH - len(ids))


def reviews(number: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Token ids ``[number, 11]``, with blanks, and how good they say that it is, ``[number, 1]``."""
    ids, pick = [], random.choice
    for _ in range(number):
        clauses = [f"the {pick(THINGS)} was {pick(['', *BEFORE])} {pick(GOOD + BAD)}" for _ in range(2)]
        ids.append(coded(f" {pick(['but', 'and'])} ".join(clauses)))
    blank = random.random((number, LENGTH)) < pick([0, 0, 0.2, 0.5, 1], (number, 1))
    found = np.where(blank, 0, ids)
    worth = np.array([(word in GOOD) - (word in BAD) for word in WORDS.tolist()])
    times = np.array([BEFORE.get(word, 1) for word in WORDS.tolist()])
    scores = (worth[found[:, 1:]] * times[found[:, :-1]]).sum(1, keepdims=True)
    return torch.from_numpy(found), torch.from_numpy(scores).float()


def train(ids: Tensor, scores: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for _ in range(10):
        for rows in torch.randperm(len(ids)).split(64):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(ids[rows]), scores[rows]).backward()
            optimizer.step()
        schedule.step()
    return model.eval()


def draw(picture: Path, explanation: shap.Explanation) -> None:
    """A row a review: its words on the colours of their values, which are below them."""
    values, largest = explanation.values, np.abs(explanation.values).max()
    figure, axes = plt.subplots(figsize=(12, 3.6), layout="constrained")
    shades = axes.imshow(values, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto")
    for (row, place), value in np.ndenumerate(values):
        ink = "white" if abs(value) > 0.6 * largest else "black"
        axes.text(place, row - 0.12, explanation.data[row, place], ha="center", va="center", fontsize=13, color=ink)
        number = f"{value:+.2f}".replace("-", MINUS) if abs(value) > 0.05 else ""
        axes.text(place, row + 0.25, number, ha="center", va="center", fontsize=9, color=ink)
    axes.set_xticks([])
    answers = [f"{answer:+.1f}".replace("-", MINUS) for answer in explanation.base_values + values.sum(1)]
    axes.set_yticks(range(len(values)), answers, fontsize=13, fontweight="bold")
    axes.set_title("How good is it? A network's answers, and what each word has added to them", loc="left", fontsize=14)
    figure.colorbar(shades)
    figure.savefig(picture, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=Path("out/tokens.png"))
    picture = parser.parse_args().picture
    picture.parent.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    model = train(*reviews(10000, random))
    test, scores = reviews(1000, random)
    with torch.no_grad():
        print(f"mean error {(model(test) - scores).abs().mean():.2f}")

    ids = torch.tensor([coded(review) for review in REVIEWS])
    explanation = DeepExplainer(model, torch.zeros_like(ids[:1]))(ids, display_data=WORDS[ids])
    draw(picture, explanation)
    picture.with_suffix(".html").write_text(shap.plots.text(explanation, display=False, separator=" "))
    print(f"wrote {picture} and {picture.with_suffix('.html')}")


if __name__ == "__main__":
    main()
