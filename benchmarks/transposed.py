"""The multipliers of convolutions, by torch's transposed convolution and as the rule computes them.

    python benchmarks/transposed.py [--repeats 7] [--device cpu] [--precision ieee]

Layers are of kinds that networks have: a first layer, blocks, patches, heads. Each explains about as many pairs as the planner takes on a
CPU, 64 times as many on a GPU. In TF32 what both compute is not compared.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from functools import partial

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
import torch.nn.functional as F
from networks import PRECISIONS, in_precision
from results import machine
from timing import Contender, compare
from torch import Tensor, nn

from deepshap_ext.memory import WARM
from deepshap_ext.rules.convolution import transposed_convolution

#: A convolution and the size of what it reads.
LAYERS: Sequence[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Conv1d(4, 64, 21, padding=10), (2114,)),
    (nn.Conv1d(64, 64, 3, padding=2, dilation=2), (2114,)),
    (nn.Conv1d(64, 64, 3, padding=64, dilation=64), (2114,)),
    (nn.Conv1d(512, 512, 3, padding=64, dilation=64), (2114,)),
    (nn.Conv1d(64, 1, 75), (1074,)),
    (nn.Conv2d(3, 384, 16, 16), (224, 224)),
    (nn.Conv2d(96, 192, 2, 2), (56, 56)),
    (nn.Conv2d(3, 64, 7, 2, 3), (64, 64)),
    (nn.Conv2d(3, 64, 7, 2, 3), (224, 224)),
    (nn.Conv2d(512, 1024, 1, 2), (8, 8)),
    (nn.Conv2d(64, 64, 3, padding=1), (32, 32)),
    (nn.Conv2d(64, 2, 3, padding=1), (64, 64)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--precision", choices=PRECISIONS, default="ieee", help="of a GPU's float32")
    arguments = parser.parse_args()
    device = arguments.device
    in_precision(arguments.precision)
    memory = WARM if device.type == "cpu" else 64 * WARM
    print(f"{machine(device)}\n\n| | transposed convolution | the rule | ratio |\n|---|---|---|---|")
    for layer, size in LAYERS:
        layer = layer.to(device)
        x = torch.randn(1, layer.in_channels, *size, device=device)
        with torch.no_grad():
            y = layer(x)
        grad = torch.randn(max(1, memory // (4 * max(x.numel(), y.numel()))), *y.shape[1:], device=device)
        weight = layer.weight.detach()
        dims = len(size)
        padding, stride, dilation = layer.padding, layer.stride, layer.dilation
        geometry = zip(size, y.shape[2:], stride, padding, dilation, layer.kernel_size, strict=True)
        left_over = [n - ((g - 1) * s - 2 * p + d * (k - 1) + 1) for n, g, s, p, d, k in geometry]
        transpose = (F.conv_transpose1d, F.conv_transpose2d)[dims - 1]
        torchs = partial(transpose, grad, weight, None, stride, padding, left_over, 1, dilation)
        ours = partial(transposed_convolution, grad, weight, size, stride, padding, 1, dilation)
        expected = torchs()

        def error(found: Tensor, expected: Tensor = expected) -> float:
            return float((found - expected).abs().max() / expected.abs().max())

        rows = compare([Contender("torch", torchs), Contender("rule", ours, error)], arguments.repeats, device)
        if not (arguments.precision == "tf32" or (rows[1].error is not None and rows[1].error < 1e-5)):
            raise RuntimeError(f"{layer}: the rule is off by {rows[1].error}: {rows[1].crash}")
        print(
            f"| {layer} of {list(size)} | {rows[0].time_text} | {rows[1].time_text} | {rows[1].ratio(rows[0]):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
