"""What a network must cost at least, and what deepshap_ext adds to it.

    python benchmarks/floor.py [names ...] [--full] [--precision ieee] [--repeats 7] [--device cpu] [--profile]
                               [--results benchmarks/results]

Two floors, neither of which explains anything:

- the pairs' floor: the plain forward of every input-baseline pair and the backward for the inputs alone, parameters frozen. Any
  implementation that runs the model on pairs pays this before its first rule, and for both sides of each pair: twice. All inputs at once or
  one at a time, whichever is faster.
- the grid's floor: inputs and baselines run forward once, and one vmapped backward runs over the pairs, as in deepshap_ext, with rules
  that cost nothing: an activation hands its gradient on as it is, a pool copies it to its window, a batch norm is one affine map, a
  convolution its transpose; what is left (softmax, layer norm, products) has torch's own gradient. As many pairs at once as is fastest
  of three choices: all, 256 and 32. Shared baselines run anew in every call, as in deepshap_ext, which explains the model as it is; the
  floor "kept" is without them.

Each output costs a backward more. What the vmapped backward returns is compared with a plain backward of the same free rules.
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from networks import NETWORKS, PRECISIONS, Job, in_precision, job
from results import machine, save
from timing import Contender, additivity_error, compare
from torch import Tensor, nn

from deepshap_ext import Explainer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; all by default")
    parser.add_argument("--full", action="store_true", help="the sizes for a GPU")
    parser.add_argument("--precision", choices=PRECISIONS, default="ieee", help="of a GPU's float32")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="start no new round of a network after that long"
    )
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--profile", action="store_true", help="say where deepshap_ext's time goes, and nothing else")
    parser.add_argument("--results", type=Path, help="also write floor.json into this folder")
    arguments = parser.parse_args()

    in_precision(arguments.precision)
    print(f"{machine(arguments.device)}\n")
    if not arguments.profile:
        print("| | pairs' floor | grid's | kept | deepshap_ext | / pairs' | / grid's | / kept | additivity error |")
        print("|---|---|---|---|---|---|---|---|---|")
    measured = []
    for name in arguments.names or NETWORKS:
        if arguments.profile:
            profile(job(name, arguments.full, arguments.device))
            continue
        # In a process of its own: what one network leaves to the allocator and the garbage collector is not the next one's.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            line, record = process.submit(measure, name, arguments).result()
        print(line, flush=True)
        measured.append(record)
        if arguments.results:
            save(arguments.results, "floor", arguments.device, measured)


def measure(name: str, arguments: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    """A network's line of the table, and its record."""
    in_precision(arguments.precision)
    it = job(name, arguments.full, arguments.device)
    rows = compare(contenders(it), arguments.repeats, arguments.device, seconds_at_most=arguments.seconds)
    *floors, ours = rows
    cells = [row.time_text for row in rows] + [f"{ours.ratio(floor):.2f}" for floor in floors]
    record = {"name": name, "job": str(it), "rows": [row.record() for row in rows]}
    return f"| {it} | {' | '.join(cells)} | {ours.error_text} |", record


def contenders(it: Job) -> list[Contender]:
    explainer = explain(it)
    difference = it.difference()
    free = free_rules(copy.deepcopy(it.model))

    def unlike_plain(found: Tensor) -> float:
        plain = pairs_floor(it, free, it.size.step)
        return float((found - plain).abs().max() / plain.abs().max())

    steps = fastest(partial(pairs_floor, it, it.model), (it.size.step, 1), it)
    pairs = fastest(partial(grid_floor, it, free), (it.size.step * it.size.baselines * 10, 256, 32), it)
    return [
        Contender("pairs' floor", partial(pairs_floor, it, it.model, steps)),
        Contender("grid's floor", partial(grid_floor, it, free, pairs), unlike_plain),
        Contender("grid's floor, kept", partial(grid_floor, it, free, pairs, keep=True)),
        Contender("deepshap_ext", explainer, lambda values: additivity_error(it.sums(values), difference)),
    ]


def pairs_floor(it: Job, model: nn.Module, step: int) -> Tensor:
    """The mean over baselines of the plain gradients, ``[B, *features]`` or ``[B, *features, K]``; the pairs of ``step`` inputs run forward
    at once."""
    parts = []
    for here in replace(it, size=replace(it.size, step=step)).steps():
        pairs = it.pairs(here)[0].requires_grad_()
        y = model(pairs).sum(0)
        chosen = y.unbind() if it.target is None else [y[it.target]]
        found = [torch.autograd.grad(one, pairs, retain_graph=one is not chosen[-1])[0] for one in chosen]
        parts.append(torch.stack(found, -1).unflatten(0, (-1, it.size.baselines)).mean(1))
    return by_target(torch.cat(parts), it)


def grid_floor(it: Job, model: nn.Module, pairs: int, keep: bool = False) -> Tensor:
    """The same; inputs and baselines run forward once, and the backward is vmapped over baselines and outputs, ``pairs`` at a time.

    ``keep``: shared baselines have run before.
    """
    parts = []
    with torch.no_grad():
        if not (it.per_sample or keep):
            model(it.baselines)
    for here in it.steps():
        if it.per_sample:
            with torch.no_grad():
                model(it.baselines[here].flatten(0, 1))
        X = it.X[here].clone().requires_grad_()
        y = model(X)
        outputs = list(range(y.shape[1])) if it.target is None else [it.target]
        hot = torch.zeros(len(outputs), *y.shape, device=y.device)
        for k, output in enumerate(outputs):
            hot[k, :, output] = 1
        backward = torch.func.vmap(lambda v, y=y, X=X: torch.autograd.grad(y, X, v, retain_graph=True)[0])
        sums = torch.zeros(len(outputs), *X.shape, device=X.device)
        for some in torch.arange(it.size.baselines).split(max(1, pairs // (len(X) * len(outputs)))):
            sums += backward(hot.repeat(len(some), 1, 1)).unflatten(0, (len(some), -1)).sum(0)
        parts.append((sums / it.size.baselines).movedim(0, -1))
    return by_target(torch.cat(parts), it)


def fastest(work: Callable[[int], Any], choices: Sequence[int], it: Job) -> int:
    """The choice, of how much is done at once, that takes the least time."""
    timed = compare([Contender(str(choice), partial(work, choice)) for choice in choices], 1, it.X.device)
    return min(zip(choices, timed, strict=True), key=lambda pair: pair[1].median)[0]


def by_target(gradients: Tensor, it: Job) -> Tensor:
    return gradients if it.target is None else gradients[..., 0]


class Affine(nn.Module):
    """``x * scale + shift``, a batch norm with running statistics."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        self.scale, self.shift = (nn.Buffer(tensor.view(-1, 1, 1)) for tensor in (scale, shift))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


class Free(nn.Module):
    """A module whose gradient is handed on as it is, or copied to its windows where it pools."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.module(x)
        return HandOn.apply(x, y)


class HandOn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        ctx.sizes = None if x.shape == y.shape else x.shape[2:]
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        if ctx.sizes is None:
            return grad, None
        *leading, height, width = grad.shape
        down, across = ctx.sizes[0] // height, ctx.sizes[1] // width
        copies = grad.view(*leading, height, 1, width, 1).expand(*leading, height, down, width, across)
        return copies.reshape(*leading, height * down, width * across), None


class Transposed(nn.Module):
    """A convolution whose backward is its transpose: autograd's own batching rule copies the input for every pair."""

    def __init__(self, module: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.module(x)
        return Transpose.apply(x, y, self.module)


class Transpose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, module: nn.Conv1d | nn.Conv2d) -> Tensor:
        ctx.module, ctx.sizes = module, x.shape[2:]
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        of = ctx.module
        reached = [
            (g - 1) * s - 2 * p + d * (k - 1) + 1
            for g, s, p, d, k in zip(grad.shape[2:], of.stride, of.padding, of.dilation, of.kernel_size, strict=True)
        ]
        rest = [size - end for size, end in zip(ctx.sizes, reached, strict=True)]
        transpose = {1: nn.functional.conv_transpose1d, 2: nn.functional.conv_transpose2d}[len(rest)]
        return transpose(grad, of.weight, None, of.stride, of.padding, rest, of.groups, of.dilation), None, None


def free_rules(model: nn.Module) -> nn.Module:
    """The model with its convolutions, batch norms, activations and pools replaced."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            model.set_submodule(name, Affine(module))
        elif isinstance(module, (nn.Conv1d, nn.Conv2d)):
            model.set_submodule(name, Transposed(module))
        elif isinstance(module, (nn.ReLU, nn.GELU, nn.Tanh, nn.MaxPool2d)):
            model.set_submodule(name, Free(module))
    return model


def explain(it: Job) -> Any:
    """A call of deepshap_ext on the job, its explainer made already: values ``[B, *features]`` or ``[B, *features, K]``."""
    explainer = Explainer(it.model)
    return lambda: explainer.attribute(it.X, it.target, baselines=it.baselines).values


def profile(it: Job) -> None:
    from torch.profiler import ProfilerActivity

    work = explain(it)
    work()
    on_gpu = it.X.is_cuda
    with torch.profiler.profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])], record_shapes=False
    ) as profiler:
        for _ in range(3):
            work()
    print(it)
    order = "self_cuda_time_total" if on_gpu else "self_cpu_time_total"
    print(profiler.key_averages().table(sort_by=order, row_limit=25, max_name_column_width=50))


if __name__ == "__main__":
    main()
