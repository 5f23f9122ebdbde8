"""Why this digit and not another? Explain a CNN and draw it with captum's visualization.

    python examples/image.py [--picture out/image.png]

The CNN is the one of digits.py. captum takes images with their channels last, which `channels_last=True` gives; so does shap.plots.image.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import torch
from captum.attr import visualization
from digits import digits, train
from matplotlib import pyplot as plt

from deepshap_ext import DeepExplainer

SHOWN = (3, 5, 8, 9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=Path("out/image.png"))
    picture = parser.parse_args().picture

    torch.set_num_threads(1)
    train_images, test_images, train_labels, test_labels = digits()
    model = train(train_images, train_labels)
    images = torch.stack([test_images[test_labels == digit][0] for digit in SHOWN])

    explainer = DeepExplainer(model, train_images[:100])
    explanation = explainer(
        images, lambda logits: logits.topk(2).indices, output_names=range(10), channels_last=True
    )  # values [images, height, width, channels, 2]: of the predicted digit and of the next

    figure, axes = plt.subplots(4, len(images), figsize=(8.2, 9.4), layout="constrained")
    figure.suptitle("Why this digit and not another? Red speaks for it, blue against it", fontsize=14)
    for column, one in zip(axes.T, explanation, strict=True):
        first, second = one.output_names
        maps = [one.values[..., 0], one.values[..., 0], one.values[..., 1], one.values[..., 0] - one.values[..., 1]]
        titles = ["an image", f"for {first}", f"for {second}", f"for {first} rather than {second}"]
        methods = ["original_image", "heat_map", "heat_map", "heat_map"]
        paper = (1 - one.data).repeat(3, axis=2)
        for panel, map, method, title in zip(column, maps, methods, titles, strict=True):
            where = {"plt_fig_axis": (figure, panel), "use_pyplot": False}
            visualization.visualize_image_attr(map, paper, method, "all", cmap="RdBu_r", title=title, **where)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=80)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
