"""The largest error of every divided difference against mpmath, over adversarial pairs, as a markdown table.

    python benchmarks/accuracy.py [--pairs 5000] [names ...]

Errors are in ulps of the result, and of the larger term for x g(x) (gelu, silu, mish), as tests/reference defines them.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from deepshap_ext import _C

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from reference.divided_differences import ORACLES, adversarial_pairs, divided_difference, error_in_ulp


def worst(name: str, dtype: type, count: int, seed: int = 1) -> tuple[float, int, tuple]:
    """(largest error, number of pairs, (parameters, x, r) of the worst pair) of a function over its sets of parameters."""
    sets = ORACLES[name].parameters
    found, total, where = -1.0, 0, ()
    for parameters in sets:
        pairs = adversarial_pairs(name, parameters, dtype, -(-count // len(sets)), seed)
        total += len(pairs)
        computed = _C.divided_difference(name, pairs[:, 0], pairs[:, 1], list(parameters))
        for (x, r), m in zip(pairs.tolist(), computed.tolist(), strict=True):
            exact, size = divided_difference(name, x, r, parameters, dtype)
            error = error_in_ulp(m, exact, size, dtype)
            if error > found:
                found, where = error, (parameters, x, r)
    return found, total, where


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="functions; all by default")
    parser.add_argument("--pairs", type=int, default=5000, help="pairs a function and dtype")
    arguments = parser.parse_args()
    print("| function | dtype | pairs | max ulp | parameters | worst pair |\n|---|---|---|---|---|---|")
    for name in arguments.names or _C.elementwise_functions():
        for dtype in (np.float64, np.float32):
            error, count, (parameters, x, r) = worst(name, dtype, arguments.pairs)
            print(
                f"| {name} | {np.dtype(dtype).name} | {count} | {error:.2f} | {parameters or ''} | ({x!r}, {r!r}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
