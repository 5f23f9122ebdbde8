"""What a small call costs, where next to nothing is to be computed: eagerly, replayed, and with captum.

    python benchmarks/calls.py [--calls 300] [--results benchmarks/results]

The fastest of many calls, ten in a row by turns: whatever else the machine does makes calls slower, and none faster. An MLP of 10 features
and two hidden layers of 32 units.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from results import machine, save
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, Explainer

#: How many calls of one kind are timed before those of the next.
IN_A_ROW = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--results", type=Path, help="also write calls.json into this folder")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.manual_seed(0)
    device = torch.device("cpu")
    print(f"{machine(device)}\n\n| | ms | eager / it |\n|---|---|---|")
    found: list[dict[str, Any]] = []

    def note(name: str, fastest: float, eager: float | None = None) -> None:
        ratio = None if eager is None else eager / fastest
        print(f"| {name} | {fastest * 1e3:.3f} | {'' if ratio is None else f'{ratio:.2f}'} |")
        found.append({"name": name, "fastest": fastest, "eager over it": ratio})

    for inputs, baselines in ((1, 1), (10, 20)):
        times = fastest(calls(mlp(), torch.randn(inputs, 10), torch.randn(baselines, 10)), arguments.calls)
        for name, best in times.items():
            note(f"{inputs} x {baselines}, {name}", best, times["eager"])
    known, background = mlp(), torch.randn(20, 10)
    making = {
        "an explainer of a new model": new_explainer,
        "an explainer of a known model": partial(DeepExplainer, known, background),
    }
    for name, best in fastest(making, arguments.calls // IN_A_ROW).items():
        note(name, best)
    if arguments.results:
        save(arguments.results, "calls", device, found)


def mlp() -> nn.Module:
    layers = (nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))
    return nn.Sequential(*layers).eval()


def calls(model: nn.Module, X: Tensor, baselines: Tensor) -> dict[str, Callable[[], Any]]:
    """Explanations of all pairs, by name."""
    eager, replayed = Explainer(model), Explainer(model, compile="replay")
    found: dict[str, Callable[[], Any]] = {
        "eager": partial(eager.attribute, X, baselines=baselines),
        "replayed": partial(replayed.attribute, X, baselines=baselines),
    }
    try:
        from captum.attr import DeepLiftShap
    except ImportError:
        return found
    if len(baselines) > 1:
        found["captum"] = partial(DeepLiftShap(model).attribute, X, baselines)
    else:
        from captum.attr import DeepLift

        found["captum"] = partial(DeepLift(model).attribute, X, baselines)
    return found


def new_explainer() -> DeepExplainer:
    return DeepExplainer(mlp(), torch.randn(20, 10))


def fastest(works: dict[str, Callable[[], Any]], number: int) -> dict[str, float]:
    """Seconds of the fastest of so many calls of each, some in a row by turns."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(number // IN_A_ROW):
        for name, work in works.items():
            for _ in range(IN_A_ROW):
                started = time.perf_counter()
                work()
                best[name] = min(best[name], time.perf_counter() - started)
    return best


if __name__ == "__main__":
    main()
