"""The cost of every divided difference in the op `rescale`, beside torch's forward of the function, as a markdown table.

    python benchmarks/functions.py [--threads 1] [--device cpu] [names ...]

8 inputs and 8 baselines of 4096 features; ns per element of grad (inputs x baselines x outputs), medians. With K outputs a
multiplier is computed once and used K times. torch's forward runs on as many elements as there are pairs.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from results import machine
from timing import Contender, compare
from torch import Tensor

from deepshap_ext import _C, ops

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from reference.divided_differences import ORACLES

INPUTS, BASELINES, FEATURES = 8, 8, 4096
FORWARDS: dict[str, Callable[..., Tensor]] = {
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "elu": torch.ops.aten.elu.default,
}


def forward(name: str) -> Callable[..., Tensor]:
    return FORWARDS.get(name) or getattr(torch, name, None) or getattr(F, name)


def values(name: str, parameters: tuple[float, ...], rows: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Normal values, or others that lie in the function's domain."""
    normal = torch.randn(rows, FEATURES, dtype=dtype)
    choices = [normal, 0.9 * torch.rand(rows, FEATURES, dtype=dtype) + 0.05, 1.1 + normal.abs()]
    inside = (choice for choice in choices if all(ORACLES[name].domain(v, *parameters) for v in choice[0].tolist()))
    return next(inside).to(device)


def measure(name: str, dtype: torch.dtype, device: torch.device, repeats: int) -> list[float]:
    """ns per element of torch's forward, and of rescale for 1 and for 10 outputs."""
    parameters = ORACLES[name].parameters[0]
    x, r = (values(name, parameters, rows, dtype, device) for rows in (INPUTS, BASELINES))
    pairs = x.repeat(BASELINES, 1)
    work, elements = [partial(forward(name), pairs, *parameters)], [pairs.numel()]
    for outputs in (1, 10):
        rows = torch.arange(BASELINES, device=device).repeat_interleave(outputs)
        grad = torch.randn(len(rows), *x.shape, dtype=dtype, device=device)
        work.append(partial(ops.rescale, grad, x, r, rows, name, parameters, 1, INPUTS, "grid"))
        elements.append(grad.numel())
    timed = compare([Contender(name, each) for each in work], repeats, device, warm_up=2)
    for row in timed:
        if row.crash:
            raise RuntimeError(f"{name}: {row.crash}")
    return [1e9 * row.median / count for row, count in zip(timed, elements, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="functions; all by default")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f"{machine(arguments.device)}; ns per element\n")
    print("| function | float32: forward | K=1 | K=10 | float64: forward | K=1 | K=10 |\n|---|---|---|---|---|---|---|")
    for name in arguments.names or _C.elementwise_functions():
        cells = [
            f"{cost:.2f}"
            for dtype in (torch.float32, torch.float64)
            for cost in measure(name, dtype, arguments.device, arguments.repeats)
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
