"""Would convolutions' multipliers be faster in channels-last? The transposed convolutions of a network, over a job's pairs, on the CPU.

    python benchmarks/layouts.py [names ...] [--repeats 5]

``contiguous`` is what the rule does; ``channels-last`` has gradient and weight in that layout; ``and back`` converts the gradient
before and the result after, as a rule between operations of the other layout must.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
import torch.nn.functional as F
from networks import job
from results import machine
from timing import Contender, compare
from torch import Tensor, nn

Work = Callable[[], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["resnet18", "resnet50", "bpnet", "chrombpnet"])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device("cpu")
    print(f"{machine(device)}\n\n| | contiguous | channels-last | and back |\n|---|---|---|---|")
    for name in arguments.names:
        it = job(name, False, device)
        layers = convolutions(it.model, it.X[:1])
        # As many pairs as the planner takes of tensors of this size.
        sizes = [min(it.size.pairs, max(1, (16 << 20) // (4 * grad.numel()))) for _, grad in layers]
        contenders = [
            Contender(way, run([make(layer, grad, pairs) for (layer, grad), pairs in zip(layers, sizes, strict=True)]))
            for way, make in (("contiguous", contiguous), ("channels-last", channels_last), ("and back", and_back))
        ]
        rows = compare(contenders, arguments.repeats, device)
        print(f"| {it} | {' | '.join(f'{row.ratio(rows[0]):.2f}' for row in rows)} |", flush=True)


def convolutions(model: nn.Module, x: Tensor) -> list[tuple[nn.Module, Tensor]]:
    """The model's convolutions and the output of each for one input."""
    found: list[tuple[nn.Module, Tensor]] = []
    handles = [
        module.register_forward_hook(lambda layer, _, output: found.append((layer, output)))
        for module in model.modules()
        if isinstance(module, (nn.Conv1d, nn.Conv2d))
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


def contiguous(layer: Any, grad: Tensor, pairs: int) -> Work:
    weight, g = layer.weight.detach(), grad.expand(pairs, *grad.shape[1:]).contiguous()
    transpose = F.conv_transpose2d if g.dim() == 4 else F.conv_transpose1d
    return lambda: transpose(g, weight, None, layer.stride, layer.padding, 0, layer.groups, layer.dilation)


def channels_last(layer: Any, grad: Tensor, pairs: int) -> Work:
    weight, g, options = in_two_dimensions(layer, grad, pairs)
    weight, g = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (weight, g))
    return lambda: F.conv_transpose2d(g, weight, *options)


def and_back(layer: Any, grad: Tensor, pairs: int) -> Work:
    weight, g, options = in_two_dimensions(layer, grad, pairs)
    weight = weight.contiguous(memory_format=torch.channels_last)

    def work() -> Tensor:
        return F.conv_transpose2d(g.contiguous(memory_format=torch.channels_last), weight, *options).contiguous()

    return work


def in_two_dimensions(layer: Any, grad: Tensor, pairs: int) -> tuple[Tensor, Tensor, tuple[Any, ...]]:
    weight, g = layer.weight.detach(), grad.expand(pairs, *grad.shape[1:]).contiguous()
    stride, padding, dilation = layer.stride, layer.padding, layer.dilation
    if g.dim() == 3:
        weight, g = weight.unsqueeze(2), g.unsqueeze(2)
        stride, padding, dilation = (1, *stride), (0, *padding), (1, *dilation)
    return weight, g, (None, stride, padding, 0, layer.groups, dilation)


def run(works: list[Work]) -> Callable[[], None]:
    def work() -> None:
        for one in works:
            one()

    return work


if __name__ == "__main__":
    main()
