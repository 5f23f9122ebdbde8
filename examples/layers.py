"""One difference told at three depths: what a CNN's input, and what its first layers find, have to do with its answer.

    python examples/layers.py [--picture out/layers.png]

The CNN is the one of digits.py. The values of every layer add up to the same difference from the baselines.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import torch
from digits import digits, train
from matplotlib import pyplot as plt

from deepshap_ext import Explainer

SHOWN = [2, 4, 7]
#: Names of the CNN's modules: the model itself, that is the pixels, and the ReLU before each pooling, whose output has all channels.
LAYERS = {"": "pixels, 8 x 8", "3": "second layer, 8 x 8", "6": "third layer, 4 x 4"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=Path("out/layers.png"))
    picture = parser.parse_args().picture
    picture.parent.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    train_images, test_images, train_labels, test_labels = digits()
    model = train(train_images, train_labels)
    images = torch.stack([test_images[test_labels == digit][0] for digit in SHOWN])
    explainer = Explainer((model, list(LAYERS)), at=["input", "output", "output"])
    found = explainer.attribute(images, target=SHOWN, baselines=train_images[:100])

    figure, axes = plt.subplots(len(SHOWN), 4, figsize=(8.6, 6.4), layout="constrained")
    for row, panels in enumerate(axes):
        panels[0].imshow(images[row, 0], cmap="gray_r")
        panels[0].set_ylabel(f"logit {SHOWN[row]}", fontsize=11)
        for panel, values in zip(panels[1:], found.values, strict=True):
            at_places = values[row].sum(0)  # over the channels
            limit = float(at_places.abs().max())
            panel.imshow(at_places, cmap="RdBu_r", vmin=-limit, vmax=limit)
            panel.set_xlabel(f"sum {values[row].sum():+.2f}")
    for panel, title in zip(axes[0], ["image", *LAYERS.values()], strict=True):
        panel.set_title(title, fontsize=11)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
    figure.savefig(picture, dpi=80)
    print(f"wrote {picture}; additivity error {max(float(one.abs().max()) for one in found.convergence_delta):.0e}")


if __name__ == "__main__":
    main()
