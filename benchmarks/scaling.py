"""Time and memory as inputs, baselines, outputs and depth grow: both should be linear, memory no more than a chunk takes.

    python benchmarks/scaling.py [--device cpu] [--repeats 3] [--budget 256] [--results benchmarks/results]

One of the four doubles while the others stay; the explainer may take ``--budget`` MiB, and the peak that was measured stands beside it.
``x linear`` is the time per pair, output and layer, relative to the first of the series: 1 is linear, less is better.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from networks import in_precision, lively
from results import machine, save
from timing import Contender, additivity_error, compare, peak_memory
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

BASE = {"inputs": 8, "baselines": 16, "outputs": 1, "depth": 4}
FACTORS = (1, 2, 4, 8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--budget", type=int, default=256, help="MiB that the explainer may take")
    parser.add_argument("--results", type=Path, help="also write scaling.json into this folder")
    parser.add_argument("--peak", type=json.loads, help="print the peak memory of this job, and nothing else")
    arguments = parser.parse_args()
    device, budget = arguments.device, arguments.budget * 2**20
    in_precision("ieee")
    if arguments.peak:
        print(peak(arguments.peak, budget, device))
        return
    print(f"{machine(device)}; at most {arguments.budget} MiB\n")
    print("| | | time | x linear | peak memory | additivity error |\n|---|---|---|---|---|---|")
    measured = []
    for what in BASE:
        first = None
        for factor in FACTORS:
            size = {**BASE, what: BASE[what] * factor}
            work, error = job(size, budget, device)
            row = compare([Contender(what, work, error)], arguments.repeats, device)[0]
            if row.crash:
                raise RuntimeError(f"{size}: {row.crash}")
            first = first or row.median
            memory = peak_bytes(size, arguments.budget, device)
            linear = row.median / first / factor
            print(
                f"| {what} | {size[what]} | {row.time_text} | {linear:.2f} | {memory / 2**20:.0f} MiB | {row.error_text} |",
                flush=True,
            )
            measured.append({"what": what, **size, **row.record(), "linear": linear, "memory": memory})
    if arguments.results:
        print(f"\nwrote {save(arguments.results, 'scaling', device, measured)}")


def job(
    size: dict[str, int], budget: int, device: torch.device
) -> tuple[Callable[[], Tensor], Callable[[Tensor], float]]:
    """Explaining the first outputs of a convolutional network, and the additivity error of what that gives."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for number in range(size["depth"]):
        layers += [nn.Conv2d(16 if number else 3, 16, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, size["outputs"]))
    model = lively(model).eval().requires_grad_(False).to(device)
    X, baselines = (scale * torch.randn(size[rows], 3, 32, 32) for rows, scale in (("inputs", 1), ("baselines", 0.5)))
    X, baselines = X.to(device), baselines.to(device)
    explainer = DeepExplainer(model, baselines, max_memory=budget)
    with torch.no_grad():
        difference = model(X).double() - model(baselines).double().mean(0)

    def error(values: Tensor) -> float:
        return additivity_error(values.double().sum((1, 2, 3)), difference)

    return lambda: explainer.attribute(X).values, error


def peak(size: dict[str, int], budget: int, device: torch.device) -> int:
    job({**size, "inputs": 1, "baselines": 1}, budget, device)[0]()
    work, _ = job(size, budget, device)
    return peak_memory(work, device)


def peak_bytes(size: dict[str, int], budget: int, device: torch.device) -> int:
    """Bytes that the job takes at most; on a CPU measured in a process of its own, since memory that was freed before would not count."""
    if device.type == "cuda":
        return peak(size, budget * 2**20, device)
    command: list[Any] = [sys.executable, __file__, "--budget", str(budget), "--peak", json.dumps(size)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


if __name__ == "__main__":
    main()
