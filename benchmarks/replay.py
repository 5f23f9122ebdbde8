"""Explanations that are traced and replayed, or compiled, against the same run eagerly.

    python benchmarks/replay.py [NETWORK ...] [--compiled] [--full] [--precision ieee] [--repeats 5] [--device cpu]
                                [--results benchmarks/results]

Ratios are medians over interleaved rounds. The first call's cost is on top of an eager call's: seconds of tracing, and of compiling.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Code that an earlier run has compiled would make first calls look shorter.
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"

import torch
from networks import NETWORKS, PRECISIONS, Job, in_precision, job
from results import machine, save
from timing import Contender, compare

from deepshap_ext import Attribution, Explainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["small", *NETWORKS])
    parser.add_argument("--compiled", action="store_true", help="also through torch.compile")
    parser.add_argument("--full", action="store_true", help="the sizes for a GPU")
    parser.add_argument("--precision", choices=PRECISIONS, default="ieee", help="of a GPU's float32")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--results", type=Path, help="also write replay.json into this folder")
    arguments = parser.parse_args()
    if arguments.device.type == "cpu":
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    in_precision(arguments.precision)
    print(f"{machine(arguments.device)}\n")
    print("| | | a call | eager / it | first call | apart from eager |\n|---|---|---|---|---|---|")
    found = []
    for name in arguments.networks:
        # The small one: what a call costs beside the work.
        size = {"inputs": 10, "baselines": 20} if name == "small" else {}
        it = job("mlp" if name == "small" else name, arguments.full, arguments.device, **size)
        found.append({"name": name, **measured(it, arguments.compiled, arguments.repeats, arguments.device)})
    if arguments.results:
        print(f"\nwrote {save(arguments.results, 'replay', arguments.device, found)}")


def measured(it: Job, compiled: bool, repeats: int, device: torch.device) -> dict[str, Any]:
    """Time one network eagerly, replayed and compiled, and print its rows; the record of the results."""
    explainers = {"eager": Explainer(it.model), "replay": Explainer(it.model, compile="replay")}
    if compiled:
        explainers["compiled"] = Explainer(it.model, compile=True)
    expected = explained(it, explainers["eager"])
    firsts = {name: first_calls(it, explainer) for name, explainer in explainers.items()}
    contenders = [
        Contender(name, partial(explained, it, one), partial(apart, expected)) for name, one in explainers.items()
    ]
    rows = compare(contenders, repeats, device)
    for row in rows:
        first = "" if row.name == "eager" else f"{firsts[row.name] - row.median:.1f} s"
        print(
            f"| {it} | {row.name} | {row.time_text} | {rows[0].ratio(row):.2f} | {first} | {row.error_text} |",
            flush=True,
        )
    return {"job": str(it), "first": firsts, "rows": [row.record() for row in rows]}


def first_calls(it: Job, explainer: Explainer) -> float:
    """Seconds of the first two calls: one traces, and in the other what is compiled first runs, and is made then."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch")
        started = time.perf_counter()
        for _ in range(2):
            explained(it, explainer)
        return time.perf_counter() - started


def explained(it: Job, explainer: Explainer) -> Attribution:
    return explainer.attribute(it.X, it.target, baselines=it.baselines)


def apart(expected: Attribution, found: Attribution) -> float:
    """The largest difference of values, in units of the largest value."""
    return float((found.values - expected.values).abs().max() / expected.values.abs().max())


if __name__ == "__main__":
    main()
