"""Which letters of a DNA sequence does a network read? Contributions and hypothetical contributions, drawn with tangermeme.plot.

    pip install --no-deps tangermeme
    python examples/motif.py [--picture out/motif.png]

A small CNN learns the activity of simulated sequences, which two motifs raise and one lowers. One is explained against its own shuffles.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from tangermeme.plot import plot_logo
from torch import Tensor, nn
from torch.nn.functional import one_hot

from deepshap_ext import Explainer

LENGTH = 60
#: What each motif adds to the activity, and letters that stand for two.
MOTIFS = {"WGATARG": 1, "TGASTCA": 1, "CASSTG": -1}
EITHER = {"W": "AT", "R": "AG", "S": "CG"}
#: Motifs in the sequence that is shown, by where they start.
SHOWN = {8: "AGATAAG", 27: "TGACTCA", 46: "CACCTG"}


def codes(motif: str, random: np.random.Generator) -> list[int]:
    return ["ACGT".index(random.choice(list(EITHER.get(letter, letter)))) for letter in motif]


def simulated(number: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One-hot sequences ``[number, 4, 60]`` with up to three motifs each, one in each third, and their activities ``[number, 1]``."""
    letters, activity = random.integers(4, size=(number, LENGTH)), random.normal(0, 0.1, (number, 1))
    for row in range(number):
        for third, motif in enumerate(random.permutation(list(MOTIFS)).tolist()):
            if random.random() < 0.5:
                start = 20 * third + random.integers(20 - len(motif))
                letters[row, start : start + len(motif)] = codes(motif, random)
                activity[row] += MOTIFS[motif]
    return one_hot(torch.from_numpy(letters), 4).mT.float(), torch.from_numpy(activity).float()


def train(x: Tensor, activity: Tensor) -> nn.Module:
    torch.manual_seed(0)
    first, second = nn.Conv1d(4, 32, 9, padding=4), nn.Conv1d(32, 32, 3)
    head = nn.Sequential(nn.Flatten(), nn.Linear(32 * 13, 32), nn.GELU(), nn.Linear(32, 1))
    model = nn.Sequential(first, nn.GELU(), nn.MaxPool1d(4), second, nn.GELU(), head)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(8):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x[rows]), activity[rows]).backward()
            optimizer.step()
    return model.eval()


def hypothetical(multipliers: Tensor, x: Tensor, baselines: Tensor) -> Tensor:
    """``[pairs, 4, L]``: what each letter, not just the one that is there, would contribute if the multipliers stayed as they are."""
    return multipliers - (multipliers * baselines).sum(1, keepdim=True)


def draw(picture: Path, x: Tensor, values: Tensor, every_letter: Tensor, change: float) -> None:
    """Logos of one sequence ``[4, 60]``: its values, and what every letter would contribute."""
    summed = values.sum(0, keepdim=True) * x
    there = values * x
    logos = {
        f"values * x: at the letters that are there, {there.sum():.2f} of the {change:.2f} to explain": there,
        f"values.sum(1, keepdim=True) * x: contributions, all of the {summed.sum():.2f}": summed,
        "hypothetical contributions: what each letter would have in its place": every_letter,
    }
    figure, panels = plt.subplots(len(logos), 1, figsize=(12, 7.2), layout="constrained", sharex=True)
    for panel, (title, logo) in zip(panels, logos.items(), strict=True):
        low, high = (float((sign * logo).clamp(min=0).sum(0).max()) for sign in (-1, 1))
        plot_logo(logo, ax=panel, ylim=(-1.15 * low, 1.15 * high))
        panel.set_title(title, loc="left", fontsize=12)
        panel.spines[["top", "right"]].set_visible(False)
        for start, motif in SHOWN.items():
            panel.axvspan(start, start + len(motif), color="0.95", zorder=0)
    figure.savefig(picture, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=Path("out/motif.png"))
    picture = parser.parse_args().picture
    picture.parent.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    model = train(*simulated(10000, random))
    test, activity = simulated(1000, random)
    with torch.no_grad():
        print(f"correlation on test sequences {np.corrcoef(model(test).T, activity.T)[0, 1]:.2f}")

    letters = random.integers(4, size=LENGTH)
    for start, motif in SHOWN.items():
        letters[start : start + len(motif)] = codes(motif, random)
    x = one_hot(torch.from_numpy(letters), 4).mT.float()[None]
    shuffles = torch.stack([x[0][:, torch.randperm(LENGTH)] for _ in range(100)])
    explainer = Explainer(model)
    found = explainer.attribute(x, 0, baselines=shuffles)
    every_letter = explainer.attribute(x, 0, baselines=shuffles, combine=hypothetical).values
    draw(picture, x[0], found.values[0], every_letter[0], float(found.output[0] - found.expected_value[0]))
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
