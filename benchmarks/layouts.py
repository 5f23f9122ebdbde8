"""Memory formats on the CPU: what multipliers gain by channels-last, and what explanations copy from one format to another.

    python benchmarks/layouts.py [names ...] [--repeats 5] [--copies]

First the transposed convolutions of a network, over a job's pairs: ``contiguous`` is what the rule does; ``channels-last`` has gradient and
weight in that layout; ``and back`` converts the gradient before and the result after, as a rule between operations of the other layout
must. The same for max-pooling, of one and of three outputs. Then, or with ``--copies`` only, explanations of networks in both formats: how
many tensors of 64 KiB and more are copied (into padding, too), how large they are together, and their share of the time. BPNet in
channels-last is of two dimensions, with convolutions of 1 x k.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
import torch.nn.functional as F
from networks import BPNet, Job, job
from results import machine
from timing import Contender, compare
from torch import Tensor, nn
from torch.profiler import ProfilerActivity

from deepshap_ext import Explainer, ops
from deepshap_ext.memory import keep_freed_memory

#: Channels, height and width, and the windows' size, stride and padding: a ResNet's, a VGG's, a small network's.
POOLED = [((64, 112, 112), (3, 2, 1)), ((128, 28, 28), (2, 2, 0)), ((32, 8, 8), (2, 2, 0))]

Work = Callable[[], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["resnet18", "resnet50", "bpnet", "chrombpnet"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--copies", action="store_true", help="count copies only")
    arguments = parser.parse_args()
    print(f"{machine(torch.device('cpu'))}\n")
    if not arguments.copies:
        time_convolutions(arguments.names, arguments.repeats)
        time_max_pooling(arguments.repeats)
    print("| | contiguous: copies | MiB | time | channels-last: copies | MiB | time |\n|---|---|---|---|---|---|---|")
    for name in arguments.names:
        cells = [cell for it in (job(name, False, torch.device("cpu")), in_channels_last(name)) for cell in copies(it)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def time_convolutions(names: list[str], repeats: int) -> None:
    device = torch.device("cpu")
    print("| | contiguous | channels-last | and back |\n|---|---|---|---|")
    for name in names:
        it = job(name, False, device)
        layers = convolutions(it.model, it.X[:1])
        # As many pairs as the planner takes of tensors of this size.
        sizes = [min(it.size.pairs, max(1, (16 << 20) // (4 * grad.numel()))) for _, grad in layers]
        contenders = [
            Contender(way, run([make(layer, grad, pairs) for (layer, grad), pairs in zip(layers, sizes, strict=True)]))
            for way, make in (("contiguous", contiguous), ("channels-last", channels_last), ("and back", and_back))
        ]
        rows = compare(contenders, repeats, device)
        print(f"| {it} | {' | '.join(f'{row.ratio(rows[0]):.2f}' for row in rows)} |", flush=True)
    print()


def time_max_pooling(repeats: int) -> None:
    print("| max-pooling | outputs | contiguous | channels-last | and back |\n|---|---|---|---|---|")
    keep_freed_memory(1 << 30)
    for size, windows in POOLED:
        for outputs in (1, 3):
            torch.manual_seed(0)
            rows = compare(pooling(size, windows, outputs), repeats, torch.device("cpu"))
            label = f"{windows[0]} x {windows[0]} of {' x '.join(map(str, size))}"
            print(f"| {label} | {outputs} | {' | '.join(f'{row.ratio(rows[0]):.2f}' for row in rows)} |", flush=True)
    print()


def pooling(size: Sequence[int], windows: Sequence[int], outputs: int) -> list[Contender]:
    """The native operation over the pairs of two inputs, as many as the planner takes of tensors of this size."""
    baselines = max(1, (16 << 20) // (4 * 2 * math.prod(size) * outputs))
    x, r = torch.randn(2, *size), torch.randn(baselines, *size)
    x_at, r_at = (F.max_pool2d(side, *windows, return_indices=True)[1] for side in (x, r))
    rows = torch.arange(baselines).repeat_interleave(outputs)
    grad = torch.randn(len(rows), *x_at.shape)
    last = [in_format(tensor) for tensor in (grad, x, r, x_at, r_at)]

    def run(g: Tensor, *sides: Tensor) -> Tensor:
        return ops.maxpool(g, *sides, rows, 2, 1, 2, "grid")

    return [
        Contender("contiguous", lambda: run(grad, x, r, x_at, r_at)),
        Contender("channels-last", lambda: run(*last)),
        Contender("and back", lambda: in_format(run(last[0].contiguous(), x, r, x_at, r_at))),
    ]


def in_format(tensor: Tensor) -> Tensor:
    """``[..., channels, height, width]`` with its channels side by side."""
    return tensor.movedim(-3, -1).contiguous().movedim(-1, -3)


def in_channels_last(name: str) -> Job:
    """The network's job with the network, and what it is given if that is images, in channels-last."""
    it = job(name, False, torch.device("cpu"))
    if isinstance(it.model, BPNet):
        it.model = InTwoDimensions(it.model)
    else:
        it.X, it.baselines = (one.contiguous(memory_format=torch.channels_last) for one in (it.X, it.baselines))
    it.model = it.model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return it


class InTwoDimensions(nn.Module):
    """A BPNet whose sequences are images of height 1."""

    def __init__(self, net: BPNet) -> None:
        super().__init__()
        self.net, self.motifs, self.dilated = net, flat(net.motifs), nn.ModuleList(map(flat, net.dilated))

    def forward(self, sequences: Tensor) -> Tensor:
        x = sequences.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        x = self.net.relu(self.motifs(x))
        for convolution, relu in zip(self.dilated, self.net.relus, strict=True):
            x = x + relu(convolution(x))
        return self.net.counts(x[:, :, 0, self.net.seen].mean(2))


def flat(of: Any) -> nn.Conv2d:
    """A convolution of one dimension in two."""
    sizes = [
        (least, *given) for least, given in ((1, of.kernel_size), (1, of.stride), (0, of.padding), (1, of.dilation))
    ]
    made = nn.Conv2d(of.in_channels, of.out_channels, *sizes)
    made.load_state_dict({"weight": of.weight.unsqueeze(2), "bias": of.bias})
    return made


def copies(it: Job) -> list[str]:
    """What an explanation copies: how many tensors, of how many MiB together, and their share of the time."""
    explainer = Explainer(it.model)

    def explain() -> None:
        explainer.attribute(it.X, it.target, baselines=it.baselines)

    explain()
    with torch.profiler.profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        explain()
    events = [event for event in profiler.events() if event.name == "aten::copy_"]
    sizes = [math.prod(event.input_shapes[0]) for event in events]
    large = [(size, event) for size, event in zip(sizes, events, strict=True) if size >= 1 << 14]
    time = sum(event.self_cpu_time_total for _, event in large)
    whole = sum(event.self_cpu_time_total for event in profiler.events())
    return [str(len(large)), f"{sum(size for size, _ in large) / (1 << 18):.0f}", f"{time / whole:.1%}"]


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
