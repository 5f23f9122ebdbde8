"""Which letters of a DNA sequence does a network read? Contributions and hypothetical contributions, drawn with tangermeme.plot.

    pip install --no-deps tangermeme
    python examples/motif.py [--picture out/motif.png]

A small CNN learns the activity of simulated sequences, which two motifs raise and one lowers. One is explained against its own shuffles.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from tangermeme.plot import plot_logo
from torch import Tensor, nn

from deepshap_ext import Explainer

LENGTH = 60
#: Regular expressions of single letters and choices, and what each adds to the activity.
MOTIFS = {"[AT]GATA[AG]G": 1.0, "TGA[CG]TCA": 1.0, "CA[CG][CG]TG": -1.0}

#: In the sequence that is shown, by where they start.
PLANTED = {8: "AGATAAG", 27: "TGACTCA", 46: "CACCTG"}


def simulated(number: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """One-hot sequences ``[number, 4, 60]`` with up to three motifs each, and their activities ``[number]``."""
    letters = random.integers(4, size=(number, LENGTH))
    activity = random.normal(0, 0.1, number)
    for row in range(number):
        for third, (motif, effect) in enumerate(random.permutation(list(MOTIFS.items()))):
            if random.random() < 0.5:
                choices = [
                    ["ACGT".index(letter) for letter in one.strip("[]")] for one in re.findall(r"\[\w+\]|\w", motif)
                ]
                start = 20 * third + random.integers(20 - len(choices))
                letters[row, start : start + len(choices)] = [random.choice(some) for some in choices]
                activity[row] += float(effect)
    one_hot = nn.functional.one_hot(torch.from_numpy(letters), 4).mT.float()
    return one_hot, torch.from_numpy(activity).float()


def train(x: Tensor, activity: Tensor) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(4, 32, 9, padding=4),
        nn.GELU(),
        nn.MaxPool1d(4),
        nn.Conv1d(32, 32, 3),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(32 * 13, 32),
        nn.GELU(),
        nn.Linear(32, 1),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(8):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x[rows])[:, 0], activity[rows]).backward()
            optimizer.step()
    return model.eval()


def hypothetical(multipliers: Tensor, x: Tensor, baselines: Tensor) -> Tensor:
    """``[pairs, 4, L]``: what each letter, not just the one that is there, would contribute if the multipliers stayed as they are."""
    return multipliers - (multipliers * baselines).sum(1, keepdim=True)


def draw(picture: Path, x: Tensor, values: Tensor, every_letter: Tensor, change: float) -> None:
    """Logos of one sequence ``[4, 60]``: its values, and what every letter would contribute."""
    summed = values.sum(0, keepdim=True) * x
    logos = {
        f"values * x: at the letters that are there, {(values * x).sum():.2f} of the {change:.2f} to explain": values
        * x,
        f"values.sum(1, keepdim=True) * x: contributions, all of the {summed.sum():.2f}": summed,
        "hypothetical contributions: what each letter would have in its place": every_letter,
    }
    figure, panels = plt.subplots(len(logos), 1, figsize=(12, 7.2), layout="constrained", sharex=True)
    for panel, (title, logo) in zip(panels, logos.items(), strict=True):
        low, high = (float((sign * logo).clamp(min=0).sum(0).max()) for sign in (-1, 1))
        plot_logo(logo, ax=panel, ylim=(-1.15 * low, 1.15 * high))
        panel.set_title(title, loc="left", fontsize=12)
        panel.spines[["top", "right"]].set_visible(False)
        for start, motif in PLANTED.items():
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
        print(f"correlation on test sequences {np.corrcoef(model(test)[:, 0], activity)[0, 1]:.2f}")

    letters = random.integers(4, size=LENGTH)
    for start, motif in PLANTED.items():
        letters[start : start + len(motif)] = ["ACGT".index(letter) for letter in motif]
    x = nn.functional.one_hot(torch.from_numpy(letters), 4).mT.float()[None]
    shuffles = torch.stack([x[0][:, torch.randperm(LENGTH)] for _ in range(100)])
    explainer = Explainer(model)
    found = explainer.attribute(x, 0, baselines=shuffles)
    every_letter = explainer.attribute(x, 0, baselines=shuffles, combine=hypothetical).values
    draw(picture, x[0], found.values[0], every_letter[0], float(found.output[0] - found.expected_value[0]))
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
