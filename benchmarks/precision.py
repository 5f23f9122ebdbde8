"""What a lower precision costs: the values' distance to those in float64, relative to the largest, and their additivity error.

    python benchmarks/precision.py [names ...] [--device cpu] [--results benchmarks/results]

TF32, float32 with ten bits of mantissa in convolutions and matrix products, exists on a GPU only.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from networks import in_precision, job
from results import machine, save
from timing import additivity_error
from torch import Tensor

from deepshap_ext import DeepExplainer

NAMES = ("mlp", "resnet18", "bert", "bpnet")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--results", type=Path, help="also write precision.json into this folder")
    arguments = parser.parse_args()
    device = arguments.device
    print(f"{machine(device)}\n\n| | precision | distance to float64 | additivity error |\n|---|---|---|---|")
    measured = []
    for name in arguments.names or NAMES:
        in_precision("ieee")
        exact, _ = explain(name, torch.float64, device)
        kinds = [(str(dtype)[6:], dtype) for dtype in DTYPES] + (
            [("tf32", torch.float32)] if device.type == "cuda" else []
        )
        for kind, dtype in kinds:
            if kind == "tf32":
                in_precision("tf32")
            found, gap = explain(name, dtype, device)
            distance = float((found - exact).abs().max() / exact.abs().max())
            print(f"| {name} | {kind} | {distance:.0e} | {gap:.0e} |", flush=True)
            measured.append({"name": name, "precision": kind, "distance": distance, "error": gap})
        if arguments.results:
            save(arguments.results, "precision", device, measured)


def explain(name: str, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, float]:
    """Values in double, and the additivity error against the outputs that the model gives in ``dtype``."""
    it = job(name, False, device, inputs=2, baselines=4)
    it.model, it.X, it.baselines = it.model.to(dtype), it.X.to(dtype), it.baselines.to(dtype)
    explainer = DeepExplainer(it.model, it.baselines[0] if it.per_sample else it.baselines)
    own = {"baselines": it.baselines} if it.per_sample else {}
    values = explainer.attribute(it.X, target=0, check_additivity=False, **own).values.double()
    return values, additivity_error(values.flatten(1).sum(1), it.difference())


if __name__ == "__main__":
    main()
