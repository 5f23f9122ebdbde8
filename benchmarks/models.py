"""Unmodified Hugging Face models with random weights: are they explained, and do the values add up?

    python benchmarks/models.py [names ...]

Small configurations, 3 inputs x 4 baselines, float32; images, token embeddings or sound in, five elements of the last hidden state out.
Prints the largest |sum of values - output difference| relative to the largest difference (about 1e-7 to 1e-6 is rounding), or the
error's first line.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
import transformers
from timing import additivity_error

from deepshap_ext import DeepExplainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from architectures import ARCHITECTURES, explainable, hidden


def explain(name: str) -> tuple[float, float]:
    """(additivity error, seconds)"""
    torch.manual_seed(0)
    model, shape = explainable(name)
    X, baselines = torch.randn(3, *shape), torch.randn(4, *shape)
    started = time.perf_counter()
    values = DeepExplainer(model, baselines, output=hidden).attribute(X, check_additivity=False).values
    seconds = time.perf_counter() - started
    with torch.no_grad():
        difference = hidden(model(X)) - hidden(model(baselines)).mean(0)
    return additivity_error(values.flatten(1, -2).sum(1, dtype=torch.float64), difference), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="of the configurations, without 'Config'; all by default")
    names = parser.parse_args().names or list(ARCHITECTURES)
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    print("| model | additivity error | time |\n|---|---|---|")
    for name in names:
        try:
            error, seconds = explain(name)
            print(f"| {name} | {error:.0e} | {seconds:.1f} s |", flush=True)
        except Exception as error:
            print(f"| {name} | {type(error).__name__}: {str(error).splitlines()[0][:150]} | |", flush=True)


if __name__ == "__main__":
    main()
