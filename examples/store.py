"""Three thousand DNA sequences explained into a store, and a picture of all of them drawn from it.

    python examples/store.py [--picture out/store.png] [--store out/sequences.zarr]

The network and the sequences are those of motif.py; each sequence is compared with ten shuffles of itself. A second run with the same store
finds everything done and only draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from motif import LENGTH, simulated, train

from deepshap_ext import Explainer
from deepshap_ext.scale import explain_to, summarize


def shuffles(x: np.ndarray, seeds: list[int]) -> np.ndarray:
    """Ten a sequence, ``[n, 10, 4, 60]``, which depend on its seed alone."""
    each = zip(x, map(np.random.default_rng, seeds), strict=True)
    return np.stack([[random.permutation(one, axis=1) for _ in range(10)] for one, random in each])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=Path("out/store.png"))
    parser.add_argument("--store", type=Path, default=Path("out/sequences.zarr"))
    arguments = parser.parse_args()
    for path in (arguments.picture, arguments.store):
        path.parent.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    model = train(*simulated(10000, random))
    sequences, _ = simulated(3000, random)
    group = explain_to(
        arguments.store,
        Explainer(model),
        sequences.numpy(),
        0,
        baselines=shuffles,
        axes=["letter", "position"],
        sum_over="letter",
        shard_size=500,
    )
    values = group["values"][:]
    mean = summarize(arguments.store)["values"].mean_absolute

    strongest = np.abs(values).argmax(1)
    order = np.lexsort((values[np.arange(len(values)), strongest] > 0, strongest))
    figure, (above, below) = plt.subplots(2, 1, figsize=(9, 5), layout="constrained", sharex=True, height_ratios=[1, 4])
    above.bar(np.arange(LENGTH), mean, color="#1b6ca8")
    above.set(ylabel="mean |value|", title=f"{len(values):,} sequences, by where their strongest letter is")
    above.spines[["top", "right"]].set_visible(False)
    limit = float(np.quantile(np.abs(values), 0.995))
    shades = below.imshow(values[order], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="none")
    below.set(xlabel="position", ylabel="sequence")
    figure.colorbar(shades, ax=below, label="value")
    figure.savefig(arguments.picture, dpi=80)
    print(f"wrote {arguments.picture} and {arguments.store}")


if __name__ == "__main__":
    main()
