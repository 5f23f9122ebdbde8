"""Explain a small CNN on handwritten digits, all ten classes of it, and set the result beside shap's.

    python examples/digits.py [--images 100] [--folder out]

Trains on scikit-learn's digits (1,797 real images of 8 x 8 pixels), explains test images against 100 training images, prints what it
measured and writes `digits.png` and `digits.npz`. The network is one that shap's handlers get right: ReLU and max-pooling are modules,
each is used once, and no two pooling windows overlap. Values should agree; what differs is the time and the rounding.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import deepshap_ext

REQUIRED_ACCURACY = 0.97
BASELINES = 100
BLOCK = 10
ROWS_SHOWN = 5
TRUE, PREDICTED, OUTLINE = "#1a9641", "#e68a00", "0.35"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50, help="how many test images to explain")
    parser.add_argument("--folder", type=Path, default=Path("out"), help="where the picture and the values go")
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # so small a model gains little from more, and its times are steadier
    train_images, test_images, train_labels, test_labels = digits()
    started = time.perf_counter()
    model = train(train_images, train_labels)
    seconds = time.perf_counter() - started
    accuracy = float((outputs(model, test_images).argmax(1) == test_labels).float().mean())
    print(f"digits: {len(train_images)} training and {len(test_images)} test images of 8 x 8 pixels")
    print(f"model:  CNN, trained in {seconds:.1f} s, test accuracy {accuracy:.2%}")
    assert accuracy >= REQUIRED_ACCURACY, f"test accuracy must be at least {REQUIRED_ACCURACY:.0%}, got {accuracy:.2%}"

    images, labels = test_images[: arguments.images], test_labels[: arguments.images]
    baselines = train_images[:BASELINES]
    print(f"job:    {len(images)} test images against {len(baselines)} baselines, all 10 classes, one thread\n")
    runs = [Run("deepshap_ext", deepshap_ext.DeepExplainer, model, baselines)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shap's handlers use hooks that torch advises against
        try:
            import shap

            runs.append(Run(f"shap {shap.__version__}", shap.DeepExplainer, model, baselines))
        except ImportError:
            print("shap is not installed (it needs Python 3.11): nothing to compare with\n")
        for block in images.split(BLOCK):
            for run in runs:
                run(block)
    expected = outputs(model, baselines).mean(0)
    report(runs, outputs(model, images) - expected)

    arguments.folder.mkdir(parents=True, exist_ok=True)
    picture, archive = arguments.folder / "digits.png", arguments.folder / "digits.npz"
    draw(picture, images, labels, outputs(model, images), expected, runs[0].values)
    arrays = {"images": images, "labels": labels, "baselines": baselines, "outputs": outputs(model, images)}
    np.savez_compressed(archive, values=runs[0].values, **{name: tensor.numpy() for name, tensor in arrays.items()})
    print(f"\nwrote {picture} and {archive}")


def digits() -> list[Tensor]:
    """Training images [1347, 1, 8, 8] in [0, 1], test images [450, 1, 8, 8], and their labels."""
    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    parts = train_test_split(images, data.target, test_size=0.25, random_state=0, stratify=data.target)
    return [torch.from_numpy(part) for part in parts]


def train(images: Tensor, labels: Tensor, epochs: int = 15, batch: int = 64) -> nn.Module:
    """A CNN with ten logits, in eval mode."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    steps = epochs * (-(-len(images) // batch))
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(batch):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def outputs(model: nn.Module, images: Tensor) -> Tensor:
    return model(images)


class Run:
    """One explainer's values [N, 1, 8, 8, 10] and the seconds they took, block by block of images."""

    def __init__(self, name: str, explainer: Callable[[nn.Module, Tensor], Any], model: nn.Module, baselines: Tensor):
        self.name = name
        explainer(model, baselines[:2]).shap_values(baselines[:1])  # not timed: first calls load and compile
        self.seconds = 0.0
        self.blocks: list[np.ndarray] = []
        with self.timed():
            self.explainer = explainer(model, baselines)

    def __call__(self, images: Tensor) -> None:
        with self.timed():
            self.blocks.append(self.explainer.shap_values(images))

    @contextmanager
    def timed(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - started

    @property
    def values(self) -> np.ndarray:
        return np.concatenate(self.blocks)

    def gap(self, difference: Tensor) -> float:
        """How far values are, at most, from adding up to the output differences [N, 10]."""
        return float(np.abs(self.values.sum((1, 2, 3), dtype=np.float64) - difference.numpy()).max())


def report(runs: list[Run], difference: Tensor) -> None:
    print(f"{'':14}{'time':>10}{'additivity error':>20}")
    for run in runs:
        print(f"{run.name:14}{run.seconds:>8.2f} s{run.gap(difference):>20.1e}")
    print(
        f"additivity error: the largest |sum of values - output difference|; differences are up to {difference.abs().max():.1f}"
    )
    for theirs in runs[1:]:
        largest = float(np.abs(theirs.values).max())
        apart = float(np.abs(runs[0].values - theirs.values).max())
        agree = "agree" if apart <= 1e-4 * largest else "do NOT agree"
        print(f"values {agree}: at most {apart:.1e} apart, where the largest is {largest:.2f}")
        print(f"deepshap_ext took 1/{theirs.seconds / runs[0].seconds:.1f} of shap's time")


def shown(labels: Tensor, outputs: Tensor) -> list[int]:
    """Which images to show: clear ones of other digits above one that the model gets wrong, if there is one."""
    wrong = (labels != outputs.argmax(1)).nonzero()[:, 0].tolist()[:1]
    clearest: dict[int, int] = {}
    for row in outputs.max(1).values.sort(descending=True).indices.tolist():
        if labels[row] == outputs[row].argmax() and all(labels[row] != labels[other] for other in wrong):
            clearest.setdefault(int(labels[row]), row)
    return [clearest[label] for label in sorted(clearest)[::2]][: ROWS_SHOWN - len(wrong)] + wrong


def draw(path: Path, images: Tensor, labels: Tensor, outputs: Tensor, expected: Tensor, values: np.ndarray) -> None:
    """A row a digit: the image, then its attributions to each class; a scale a row."""
    predicted = outputs.argmax(1)
    rows = shown(labels, outputs)
    height = 1.40 * len(rows) + 1.15
    figure, axes = plt.subplots(len(rows), 12, figsize=(14.4, height), width_ratios=[1.2, *[1] * 10, 0.14])
    figure.subplots_adjust(
        left=0.03, right=0.962, top=1 - 0.80 / height, bottom=0.62 / height, wspace=0.10, hspace=0.40
    )
    gap = 0.0
    ink = images.numpy()[:, 0]
    for line, (row, panels) in enumerate(zip(rows, axes, strict=True)):
        panels[0].imshow(ink[row], cmap="gray_r", vmin=0, vmax=1)
        limit = float(np.abs(values[row]).max())
        for target, panel in enumerate(panels[1:11]):
            shades = panel.imshow(values[row, 0, :, :, target], cmap="RdBu_r", vmin=-limit, vmax=limit)
            outline(panel, ink[row] > 0.5)
            total, change = (
                values[row, ..., target].sum(dtype=np.float64),
                float(outputs[row, target] - expected[target]),
            )
            panel.set_xlabel(f"{total:+.2f}".replace("-", "\N{MINUS SIGN}"), fontsize=9, labelpad=3)
            gap = max(gap, abs(total - change))
            if line == 0:
                panel.set_title(f"class {target}", fontsize=11, pad=7)
            is_true, is_predicted = target == int(labels[row]), target == int(predicted[row])
            frame(panel, TRUE if is_true else PREDICTED if is_predicted else None)
        frame(panels[0], None)
        name = f"{labels[row]}" + (f", taken for {predicted[row]}" if labels[row] != predicted[row] else "")
        panels[0].set_ylabel(f"a {name}", fontsize=11)
        panels[0].set_anchor("W")
        if line == 0:
            panels[0].set_title("input", fontsize=11, pad=7)
        bar = figure.colorbar(shades, cax=panels[11])
        bar.set_ticks([-limit, 0, limit], labels=[f"\N{MINUS SIGN}{limit:.1f}", "0", f"+{limit:.1f}"], fontsize=8)
        bar.outline.set_linewidth(0.4)
    top, bottom, left, right = 1 - 0.26 / height, 0.20 / height, 0.012, 0.985
    figure.text(left, top, "What speaks for and against each digit", fontsize=15, fontweight="bold", va="center")
    subtitle = f"DeepSHAP values of a CNN's ten logits against {BASELINES} training images; one scale a row"
    figure.text(right, top, subtitle, fontsize=11, va="center", ha="right")
    keys = [
        Patch(color=plt.get_cmap("RdBu_r")(0.88), label="raises the logit"),
        Patch(color=plt.get_cmap("RdBu_r")(0.12), label="lowers it"),
        Patch(facecolor="none", edgecolor=TRUE, linewidth=2.5, label="true class"),
        Patch(facecolor="none", edgecolor=PREDICTED, linewidth=2.5, label="predicted, where wrong"),
        Line2D([], [], color=OUTLINE, linewidth=1, label="outline of the ink"),
    ]
    figure.legend(handles=keys, loc="center left", bbox_to_anchor=(0.004, bottom), ncols=5, frameon=False, fontsize=10)
    note = f"below each map: its sum = logit \N{MINUS SIGN} mean logit of the baselines (to {gap:.0e})"
    figure.text(right, bottom, note, fontsize=10, ha="right", va="center")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def frame(panel: Axes, color: str | None) -> None:
    panel.set_xticks([])
    panel.set_yticks([])
    for spine in panel.spines.values():
        spine.set_color(color or "0.75")
        spine.set_linewidth(2.5 if color else 0.5)


def outline(panel: Axes, ink: np.ndarray) -> None:
    """Draw the borders between pixels with ink and pixels without."""
    padded = np.pad(ink, 1)
    for down, across in zip(*np.nonzero(padded[1:, 1:] != padded[:-1, 1:]), strict=True):
        panel.plot(
            [across - 0.5, across + 0.5], [down - 0.5] * 2, color=OUTLINE, linewidth=0.8, solid_capstyle="projecting"
        )
    for down, across in zip(*np.nonzero(padded[1:, 1:] != padded[1:, :-1]), strict=True):
        panel.plot(
            [across - 0.5] * 2, [down - 0.5, down + 0.5], color=OUTLINE, linewidth=0.8, solid_capstyle="projecting"
        )


if __name__ == "__main__":
    main()
