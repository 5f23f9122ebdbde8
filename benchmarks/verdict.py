"""How the check of additivity decides: alarms about right values, and the smallest fault in a rule that it finds.

    python benchmarks/verdict.py [--networks 1000] [--first 0] [--faults 5]

Random networks of ordinary scale (tests/random_networks.py), float32 and right values: every error of additivity would be a false alarm.
"beyond 1e-5": outputs whose gap is more than that of their own difference, so that the rounding of the passes must account for it. Then
for some of the networks, in float32 and float64, with samples far from the baselines, the multipliers of one rule at a time are
multiplied by ``1 + fault``, the fault being 1e-1, 1e-2, ... until the verdict is that the values are right: the smallest fault found, its
median over networks and over those rules that a tenth of some output's difference passes through, and the largest.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from deepshap_ext import AdditivityError, DeepExplainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from faults import broken, rules_of
from random_networks import NETWORKS, drawn


def alarms(kind: str, seeds: range) -> tuple[int, int, int]:
    """(alarms, outputs beyond 1e-5 of their own difference, outputs)"""
    raised = beyond = outputs = 0
    for seed in seeds:
        model, X, baselines = drawn(kind, seed)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            found = DeepExplainer(model, baselines).attribute(X, check_additivity=False)
        gap, difference = found.convergence_delta.abs(), (found.output - found.expected_value).abs()
        beyond += int((gap > 1e-5 * difference).sum())
        outputs += gap.numel()
        raised += any("do not add up" in str(warning.message) for warning in said)
    return raised, beyond, outputs


def smallest_faults(kind: str, seeds: range, dtype: torch.dtype) -> list[float]:
    """For each rule of each network the smallest fault found, 1 where none is."""
    smallest = []
    for seed in seeds:
        model, X, baselines = drawn(kind, seed, apart=1.0)
        explainer = DeepExplainer(model.to(dtype), baselines.to(dtype))
        X = X.to(dtype)
        for name in rules_of(explainer, X):
            with broken(name, 1.1):
                found = explainer.attribute(X, check_additivity="ignore")
            gap = (found.convergence_delta / (found.output - found.expected_value)).abs().max()
            fault = 1.0
            while gap > 0.01 and _raises(explainer, X, name, fault / 10):
                fault /= 10
            if gap > 0.01:
                smallest.append(fault)
    return smallest


def _raises(explainer: DeepExplainer, X: torch.Tensor, name: str, fault: float) -> bool:
    try:
        with broken(name, 1 + fault):
            explainer.attribute(X)
    except AdditivityError:
        return True
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="the first network's seed")
    parser.add_argument("--faults", type=int, default=5, help="networks of each kind whose rules are broken")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print("| networks | alarms | outputs beyond 1e-5 |\n|---|---|---|")
    for kind in NETWORKS:
        raised, beyond, outputs = alarms(kind, range(arguments.first, arguments.first + arguments.networks))
        print(f"| {arguments.networks} {kind} | {raised} | {beyond} of {outputs} |", flush=True)
    print("\n| rules of | precision | smallest fault found, median | largest |\n|---|---|---|---|")
    for kind in NETWORKS:
        for dtype in (torch.float32, torch.float64):
            found = smallest_faults(kind, range(arguments.faults), dtype)
            print(f"| {kind} | {str(dtype)[6:]} | {statistics.median(found):.1e} | {max(found):.1e} |", flush=True)


if __name__ == "__main__":
    main()
