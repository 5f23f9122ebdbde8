"""What comes before and around the work: import, the explainer, the first call, and each call's overhead.

    python benchmarks/startup.py [--repeats 5] [--device cpu] [--results benchmarks/results]

Import: seconds of ``import deepshap_ext`` in a fresh process that has imported torch. The rest on a tiny MLP, one input against one
baseline, so that nothing but overhead is left; the plain forward and backward of the pair is the least that a call can take.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from networks import Job, job
from results import machine, save
from timing import Contender, compare, seconds

from deepshap_ext import DeepExplainer

IMPORT = """
import time
import torch
started = time.perf_counter()
import deepshap_ext
print(time.perf_counter() - started)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--results", type=Path, help="also write startup.json into this folder")
    arguments = parser.parse_args()
    device = arguments.device
    print(f"{machine(device)}\n\n| | median |\n|---|---|")

    it = job("mlp", False, device, inputs=1, baselines=1)
    large = job("resnet50", False, device, inputs=1, baselines=1)
    explainer = DeepExplainer(it.model, it.baselines)
    first = [seconds(partial(first_call, it), device) for _ in range(arguments.repeats)]
    rows = compare(
        [
            Contender("a pair's plain forward and backward", partial(plain, it)),
            Contender("a call on one pair", lambda: explainer.attribute(it.X, target=0)),
            Contender(
                "a call on one pair, additivity unchecked",
                lambda: explainer.attribute(it.X, target=0, check_additivity="ignore"),
            ),
            Contender("an explainer", lambda: DeepExplainer(it.model, it.baselines)),
            Contender("an explainer of ResNet-50", lambda: DeepExplainer(large.model, large.baselines)),
        ],
        20 * arguments.repeats,
        device,
        warm_up=3,
    )
    measured = [{"name": "import, beyond torch's", "median": statistics.median(imports(arguments.repeats))}]
    measured.append({"name": "an explainer and its first call", "median": statistics.median(first)})
    measured += [{"name": row.name, "median": row.median, "crash": row.crash} for row in rows]
    for one in measured:
        print(f"| {one['name']} | {1e3 * one['median']:.2f} ms |")
    if arguments.results:
        print(f"\nwrote {save(arguments.results, 'startup', device, measured)}")


def imports(repeats: int) -> list[float]:
    """Seconds of the import in processes of their own; the first, which may compile bytecode, does not count."""
    runs = [
        subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True)
        for _ in range(repeats + 1)
    ]
    return [float(run.stdout) for run in runs[1:]]


def first_call(it: Job) -> None:
    DeepExplainer(it.model, it.baselines).attribute(it.X, target=0)


def plain(it: Job) -> None:
    X = it.X.clone().requires_grad_()
    torch.autograd.grad(it.model(X)[:, 0].sum(), X)


if __name__ == "__main__":
    main()
