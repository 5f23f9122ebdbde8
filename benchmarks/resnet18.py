"""A ResNet-18 explained: deepshap_ext, captum and shap against the floor of one plain forward and backward over all pairs.

    python benchmarks/resnet18.py [--inputs 4] [--baselines 16] [--size 64] [--repeats 7] [--device cpu] [--json] [--profile]

The model is Hugging Face's ResNetForImageClassification in ResNet-18's shape, unmodified, with random weights. The floor is the plain
forward of all input-baseline pairs and the backward for the inputs alone, parameters frozen: what any explainer that runs every pair
must at least do, without its rules and without the other side of each pair.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from timing import Contender, additivity_error, compare, machine, record, table
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification

from deepshap_ext import DeepExplainer

TARGET = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=4)
    parser.add_argument("--baselines", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="height and width of the inputs")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--json", action="store_true", help="also write out/resnet18.json")
    parser.add_argument("--profile", action="store_true", help="say where deepshap_ext's time goes, and nothing else")
    arguments = parser.parse_args()

    device = arguments.device
    torch.manual_seed(0)
    model = resnet18().to(device)
    X, baselines = (
        torch.randn(n, 3, *[arguments.size] * 2).to(device) for n in (arguments.inputs, arguments.baselines)
    )
    explainer = DeepExplainer(model, baselines)
    if arguments.profile:
        profile(explainer, X)
        return
    with torch.no_grad():
        difference = model(X).logits[:, TARGET] - model(baselines).logits[:, TARGET].mean()

    contenders = [
        Contender("floor", lambda: floor(model, X, baselines)),
        Contender("deepshap_ext", lambda: explainer.attribute(X, target=TARGET).values, gap(difference)),
        Contender("deepshap_ext, new explainer", lambda: fresh(model, X, baselines), gap(difference)),
        # Copies: shap leaves its hooks behind when it raises, and the model would fail the others after that.
        Contender("captum DeepLiftShap", captum(copy.deepcopy(model), X, baselines), gap(difference)),
        Contender("shap DeepExplainer", shap(copy.deepcopy(model), X, baselines), gap(difference)),
    ]
    print(f"ResNet-18 shape, {len(X)} inputs x {len(baselines)} baselines of {list(X.shape[1:])}, one output")
    print(f"{machine(device)}; {arguments.repeats} interleaved repeats\n")
    rows = compare(contenders, arguments.repeats, device)
    print(table(rows, "additivity error, relative"))
    if arguments.json:
        path = Path("out") / "resnet18.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(record(rows, device), indent=1))
        print(f"\nwrote {path}")


def resnet18(labels: int = 10) -> nn.Module:
    config = ResNetConfig(
        depths=[2, 2, 2, 2],
        hidden_sizes=[64, 128, 256, 512],
        embedding_size=64,
        layer_type="basic",
        num_labels=labels,
    )
    return ResNetForImageClassification(config).eval().requires_grad_(False)


class Logits(nn.Module):
    """The model as captum and shap want it: a tensor out of a tensor."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, X: Tensor) -> Tensor:
        return self.model(X).logits


def floor(model: nn.Module, X: Tensor, baselines: Tensor) -> Tensor:
    """The gradient of the output, for every pair: forward and backward on inputs x baselines rows."""
    pairs = X.repeat_interleave(len(baselines), 0).requires_grad_()
    return torch.autograd.grad(model(pairs).logits[:, TARGET].sum(), pairs)[0]


def fresh(model: nn.Module, X: Tensor, baselines: Tensor) -> Any:
    return DeepExplainer(model, baselines).attribute(X, target=TARGET).values


def captum(model: nn.Module, X: Tensor, baselines: Tensor) -> Any:
    from captum.attr import DeepLiftShap

    explainer = DeepLiftShap(Logits(model))
    return lambda: explainer.attribute(X, baselines, target=TARGET).detach()


def shap(model: nn.Module, X: Tensor, baselines: Tensor) -> Any:
    def work() -> Tensor:
        # shap explains all outputs or those that rank first: a model of one output is the same job.
        explainer = DeepExplainer(First(model), baselines)
        return torch.from_numpy(explainer.shap_values(X, check_additivity=False))[..., 0]

    from shap import DeepExplainer

    return work


class First(Logits):
    def forward(self, X: Tensor) -> Tensor:
        return super().forward(X)[:, TARGET : TARGET + 1]


def gap(difference: Tensor) -> Any:
    return lambda values: additivity_error(values.flatten(1).sum(1, dtype=torch.float64).cpu(), difference.cpu())


def profile(explainer: DeepExplainer, X: Tensor) -> None:
    from torch.profiler import ProfilerActivity

    explainer.attribute(X, target=TARGET)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if X.is_cuda else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(3):
            explainer.attribute(X, target=TARGET)
    print(
        profiler.key_averages().table(
            sort_by="self_cuda_time_total" if X.is_cuda else "self_cpu_time_total", row_limit=25
        )
    )


if __name__ == "__main__":
    main()
