"""How near each native operation comes to a copy: bytes it must move over its time, against the measured bandwidth of a copy.

    python benchmarks/kernels.py [ops ...] [--device cpu] [--repeats 7] [--small] [--results benchmarks/results]

Bytes are what an ideal kernel moves: each operand read once and each result written once, shared baselines from cache. The copy is
``Tensor.clone`` of the operation's largest tensor, ``grad`` mostly, which allocates its result as the operations do; ``of a copy`` is
the ratio of the two bandwidths, above 1 where operands come from cache. Three outputs a baseline, and in the larger size of float32
also one, as where a model has one: each pair then needs a multiplier of its own. Each result is compared with torch's arithmetic on the
expanded pairs.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
import torch
import torch.nn.functional as F
from results import machine, save
from timing import Contender, compare
from torch import Tensor

from deepshap_ext import ops
from deepshap_ext.memory import keep_freed_memory

#: Elements of grad: in a cache, and as large as a chunk (16 MiB in float32: deepshap_ext.memory.WARM); on a GPU both are larger.
SIZES = {"cpu": (2**18, 2**22), "cuda": (2**22, 2**26)}
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12, torch.float16: 1e-2, torch.bfloat16: 5e-2}
PAIRINGS = ("grid", "aligned", "per_sample")
BATCH, BASELINES, SIDE, WINDOW = 8, 8, 32, 2


@dataclass
class Operands:
    """A batch of ``[BATCH, channels, SIDE, SIDE]`` and its baselines, in one pairing."""

    grad: Tensor
    x: Tensor
    r: Tensor
    rows: Tensor
    pairing: str
    outputs: int

    @property
    def geometry(self) -> tuple[int, int, str]:
        return 1, BATCH, self.pairing

    def of_row(self, r: Tensor, row: int) -> Tensor:
        """The baselines of cotangents on ``row``, a row an input."""
        if self.pairing == "grid":
            return r[row : row + 1].expand(BATCH, *r.shape[1:])
        return r if self.pairing == "aligned" else r.unflatten(0, (BATCH, -1))[:, row]


def operands(elements: int, dtype: torch.dtype, pairing: str, outputs: int, device: torch.device) -> Operands:
    rows = torch.arange(1 if pairing == "aligned" else BASELINES).repeat_interleave(outputs)
    channels = max(1, elements // (len(rows) * BATCH * SIDE * SIDE))
    shape = (channels, SIDE, SIDE)
    reference = {"grid": BASELINES, "aligned": BATCH, "per_sample": BATCH * BASELINES}[pairing]
    grad, x, r = (
        torch.randn(*leading, *shape, device=device).to(dtype)
        for leading in ((len(rows), BATCH), (BATCH,), (reference,))
    )
    return Operands(grad, x, r, rows.to(device), pairing, outputs)


# --- each operation: its call, and what the first cotangent's result should be -------------------------------------------------

Case = tuple[Callable[[], Tensor | tuple[Tensor, ...]], Callable[[], Tensor], Sequence[Tensor]]


def rescale(o: Operands) -> Case:
    """relu, whose rule has hardly any arithmetic."""

    def expected() -> Tensor:
        x, r = o.x.double(), o.of_row(o.r, 0).double()
        slope = torch.where(x == r, (x > 0).double(), (x.relu() - r.relu()) / (x - r))
        return o.grad[0].double() * slope

    return lambda: ops.rescale(o.grad, o.x, o.r, o.rows, "relu", (), *o.geometry), expected, (o.grad, o.x, o.r)


def smooth(function: str, o: Operands) -> Case:
    """A function whose formula for pairs is a hundred operations and more: gelu has the most."""
    parameters, derivative = SMOOTH[function]

    def expected() -> Tensor:
        # The mean of the derivative between the sides, by Gauss and Legendre.
        x, r = o.x.double(), o.of_row(o.r, 0).double()
        slope = torch.zeros_like(x)
        for node, weight in zip(*np.polynomial.legendre.leggauss(48), strict=True):
            slope += weight / 2 * derivative((x + r) / 2 + (x - r) / 2 * node)
        return o.grad[0].double() * slope

    def call() -> Tensor:
        return ops.rescale(o.grad, o.x, o.r, o.rows, function, parameters, *o.geometry)

    return call, expected, (o.grad, o.x, o.r)


def _gelu_derivative(t: Tensor) -> Tensor:
    return torch.special.ndtr(t) + t * (t * t / -2).exp() / (2 * torch.pi) ** 0.5


#: Name, parameters and derivative.
SMOOTH: dict[str, tuple[Sequence[float], Callable[[Tensor], Tensor]]] = {
    "gelu": ((), _gelu_derivative),
    "silu": ((), lambda t: t.sigmoid() * (1 + t * (-t).sigmoid())),
    "tanh": ((), lambda t: 1 - t.tanh().square()),
    "sigmoid": ((), lambda t: t.sigmoid() * (-t).sigmoid()),
    "softplus": ((1.0, 20.0), torch.sigmoid),
}


def product(o: Operands) -> Case:
    b_x, b_r = torch.randn_like(o.x), torch.randn_like(o.r)

    def expected() -> Tensor:
        return o.grad[0].double() * (b_x.double() + o.of_row(b_r, 0).double()) / 2

    return (
        lambda: ops.product(o.grad, o.x, o.r, b_x, b_r, o.rows, *o.geometry),
        expected,
        (o.grad, o.x, o.r, b_x, b_r),
    )


def maxpool(o: Operands) -> Case:
    pooled = partial(F.max_pool2d, kernel_size=WINDOW, return_indices=True)
    # Windows of float16 and bfloat16 have many ties; the indices are those of torch.
    (x_max, x_at), (r_max, r_at) = pooled(o.x), pooled(o.r)
    grad = o.grad[..., ::WINDOW, ::WINDOW].contiguous()

    def expected() -> Tensor:
        r, r_index, r_top = (o.of_row(side, 0) for side in (o.r, r_at, r_max))
        flat_x, flat_r = o.x.double().flatten(2), r.double().flatten(2)
        change = (x_max.double() - r_top.double()).flatten(2)
        at = torch.where(change >= 0, x_at.flatten(2), r_index.flatten(2))
        below = flat_x.gather(2, at) - flat_r.gather(2, at)
        same = (x_at == r_index).flatten(2) | (below == 0)
        weight = torch.where(same, 1.0, change / torch.where(same, 1.0, below))
        found = torch.zeros_like(flat_x).scatter_add_(2, at, weight * grad[0].double().flatten(2))
        return found.view_as(o.x)

    return (
        lambda: ops.maxpool(grad, o.x, o.r, x_at, r_at, o.rows, 2, *o.geometry),
        expected,
        (grad, o.x, o.r, x_at, r_at),
    )


def shapley_max(o: Operands) -> Case:
    """Windows of 9 entries in the last dimension."""
    x, r, grad = (side.flatten(-2)[..., :1017].unflatten(-1, (113, 9)).contiguous() for side in (o.x, o.r, o.grad))
    grad = grad[..., 0].contiguous()

    def expected() -> Tensor:
        # Multipliers add up, window by window, to the difference of the maxima.
        return grad[0].double() * (x.double().amax(-1) - o.of_row(r, 0).double().amax(-1))

    def call() -> Tensor:
        return ops.shapley_max(grad, x, r, o.rows, *o.geometry)

    return call, expected, (grad, x, r)


def softmax(o: Operands) -> Case:
    x, r = (side.log_softmax(3) for side in (o.x, o.r))

    def expected() -> Tensor:
        log_x, log_r = x.double(), o.of_row(r, 0).double()
        apart = log_x - log_r
        mean = torch.where(apart == 0, log_x.exp(), log_r.exp() * apart.expm1() / torch.where(apart == 0, 1.0, apart))
        g = o.grad[0].double()
        return mean * (g - (g * mean).sum(3, keepdim=True) / mean.sum(3, keepdim=True))

    return lambda: ops.softmax(o.grad, x, r, o.rows, 3, False, *o.geometry), expected, (o.grad, x, r)


def norm(o: Operands) -> Case:
    """Layer norm over the channels' pixels."""
    scale = torch.linspace(0.5, 1.5, SIDE * SIDE, device=o.x.device).to(torch.promote_types(o.x.dtype, torch.float32))
    scale = scale.unsqueeze(0)

    def expected() -> Tensor:
        sides = [side.double().flatten(2) for side in (o.x, o.of_row(o.r, 0))]
        u = [side - side.mean(2, keepdim=True) for side in sides]
        sigma = [(line.square().mean(2, keepdim=True) + 1e-5).sqrt() for line in u]
        z = (u[0] / sigma[0] + u[1] / sigma[1]) / 2
        mean_u, mean_sigma = (u[0] + u[1]) / 2, (sigma[0] + sigma[1]) / 2
        g = o.grad[0].double().flatten(2) * scale
        m = (g - mean_u / mean_sigma * (g * z).mean(2, keepdim=True)) / mean_sigma
        return (m - m.mean(2, keepdim=True)).view_as(o.x)

    return lambda: ops.norm(o.grad, o.x, o.r, scale, o.rows, 1e-5, True, *o.geometry), expected, (o.grad, o.x, o.r)


def lstm(o: Operands) -> Case:
    """One step of 32 units, of a cell that is the same on both sides, and its product with the weight."""
    x, r = (_lstm_step(torch.randn(len(t), t[0].numel() // 32, 128, device=t.device).to(t.dtype)) for t in (o.x, o.r))
    grad = o.grad.reshape(len(o.grad), 1, BATCH, -1, 32)
    state, weight = torch.zeros_like(grad[:, 0]), torch.randn(128, 32, device=grad.device).to(grad.dtype)

    def expected() -> Tensor:
        # Multipliers add up, unit by unit, to the difference of the hidden states.
        return grad[0, 0].double() * (_lstm_hidden(x) - _lstm_hidden(o.of_row(r, 0)))

    def call() -> tuple[Tensor, ...]:
        return ops.recurrence(grad, state, x[None], r[None], weight, o.rows, "lstm", *o.geometry)

    return call, expected, (grad, x, r, state, weight)


def _lstm_step(gates: Tensor) -> Tensor:
    """What is kept of a step: its gates, the cell and the next one."""
    i, f, g, _ = gates.chunk(4, -1)
    cell = torch.full_like(i, 0.5)
    return torch.cat([gates, cell, f.sigmoid() * cell + i.sigmoid() * g.tanh()], -1)


def _lstm_hidden(kept: Tensor) -> Tensor:
    *_, o, _, following = kept.double().chunk(6, -1)
    return o.sigmoid() * following.tanh()


def midpoint(o: Operands) -> Case:
    rows = o.rows

    def expected() -> Tensor:
        return (o.x.double() + o.of_row(o.r, 0).double()) / 2

    return lambda: ops.midpoint(o.x, o.r, rows, *o.geometry), expected, (o.x, o.r)


def contribution(o: Operands) -> Case:
    multipliers, rows = o.grad.unflatten(0, (-1, o.outputs)), o.rows[:: o.outputs]

    def expected() -> Tensor:
        each = [
            multipliers[j, 0].double() * (o.x.double() - o.of_row(o.r, int(row)).double())
            for j, row in enumerate(rows.tolist())
        ]
        return torch.stack(each).mean(0)

    weights = torch.ones(len(rows), dtype=torch.float64, device=o.x.device)

    def call() -> tuple[Tensor, ...]:
        return ops.contribution(multipliers, o.x, o.r, rows, weights, *o.geometry)[:2]

    return call, expected, (o.grad, o.x, o.r)


CASES: dict[str, Callable[[Operands], Case]] = {
    "rescale": rescale,
    **{f"rescale ({name})": partial(smooth, name) for name in SMOOTH},
    "product": product,
    "maxpool": maxpool,
    "shapley_max": shapley_max,
    "softmax": softmax,
    "norm": norm,
    "recurrence (lstm)": lstm,
    "midpoint": midpoint,
    "contribution": contribution,
}
#: Measured in float32 alone: in other types they go as gelu does.
AS_GELU = {f"rescale ({name})" for name in SMOOTH if name != "gelu"}
#: These give multipliers of several operands for one output: what they should come to is their sum times the difference of the sides.
SUMMED = {
    "shapley_max": lambda m, x, r: (m * (x - r)).sum(-1),
    "recurrence (lstm)": lambda m, x, r: sum((m[0] * (x - r)[..., : m.shape[-1]]).chunk(4, -1)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="operations; all by default")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--small", action="store_true", help="the smaller size and float32 alone")
    parser.add_argument("--results", type=Path, help="also write kernels.json into this folder")
    arguments = parser.parse_args()
    device = arguments.device
    keep_freed_memory(1 << 30)  # as explanations do: fresh pages would be half of what is measured
    print(
        f"{machine(device)}\n\n| | pairing | dtype | outputs | grad | time | bandwidth | of a copy | error |\n|{'---|' * 9}"
    )
    measured = []
    for name in arguments.names or CASES:
        for pairing in PAIRINGS:
            for dtype, elements, outputs in sizes(name, device, arguments.small):
                torch.manual_seed(0)
                found = measure(name, operands(elements, dtype, pairing, outputs, device), arguments.repeats, device)
                cells = [
                    *(name, pairing, str(dtype)[6:], str(outputs)),
                    f"{found['grad'] / 2**20:.1f} MiB",
                    f"{1e3 * found['median']:.3f} ms",
                    f"{found['bandwidth'] / 1e9:.1f} GB/s",
                    f"{found['of_copy']:.2f}",
                    f"{found['error']:.0e}",
                ]
                print(f"| {' | '.join(cells)} |", flush=True)
                one = {"op": name, "pairing": pairing, "dtype": str(dtype)[6:], "outputs": outputs, **found}
                measured.append(one)
                if arguments.results:
                    save(arguments.results, "kernels", device, measured)


def sizes(name: str, device: torch.device, small: bool) -> Iterator[tuple[torch.dtype, int, int]]:
    """Type, elements of grad and outputs a baseline of each measurement."""
    within, beyond = SIZES[device.type]
    if small:
        yield torch.float32, within, 3
        return
    yield torch.float32, beyond, 1
    for dtype in [torch.float32] if name in AS_GELU else TOLERANCES:
        for elements in [beyond] if name in AS_GELU else (within, beyond):
            yield dtype, elements, 3


def measure(name: str, o: Operands, repeats: int, device: torch.device) -> dict[str, float]:
    call, expected, reads = CASES[name](o)
    outs = call()
    writes = outs if isinstance(outs, tuple) else (outs,)

    def error(result: Tensor | tuple[Tensor, ...]) -> float:
        first = (result[0] if isinstance(result, tuple) else result)[0].double()
        if name in SUMMED:
            first = SUMMED[name](first, reads[1].double(), o.of_row(reads[2], 0).double())
        wanted = expected()
        return float((first - wanted).abs().max() / wanted.abs().max())

    # One kernel is over sooner than a GPU is told of it.
    calls = 20 if device.type == "cuda" else 1
    copied, ours = compare(
        [
            Contender("copy", partial(again, o.grad.clone, calls)),
            Contender(name, partial(again, call, calls), error),
        ],
        repeats,
        device,
        warm_up=2,
    )
    for row in (copied, ours):
        if row.crash:
            raise RuntimeError(f"{row.name}: {row.crash}")
    moved = sum(size(tensor) for tensor in (*reads, *writes))
    # Both bandwidths in the same round: what loads the machine loads both.
    of_copy = moved / (2 * size(o.grad)) / ours.ratio(copied)
    assert ours.error is not None
    if not ours.error < TOLERANCES[o.grad.dtype]:
        raise RuntimeError(f"{name}, {o.pairing}, {o.grad.dtype}: off by {ours.error:.0e} of the largest value")
    return {
        "grad": size(o.grad),
        "moved": moved,
        "median": ours.median / calls,
        "bandwidth": moved * calls / ours.median,
        "copy": 2 * size(o.grad) * calls / copied.median,
        "of_copy": of_copy,
        "error": ours.error,
    }


def again(call: Callable[[], Any], calls: int) -> Any:
    for _ in range(calls):
        result = call()
    return result


def size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


if __name__ == "__main__":
    main()
