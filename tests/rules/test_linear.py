"""Linear operations: every one adds up, and its vmapped backward is a plain loop over pairs."""

from typing import Any

import pytest
import torch
from checks import ADDITIVITY, additivity_gap, assert_same, run
from rules.linear_samples import SAMPLES, Sample
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from deepshap_ext import DeepExplainer
from deepshap_ext.capture.detach import AsIdentity
from deepshap_ext.capture.names import operation
from deepshap_ext.rules.linear import LINEAR

_INPUTS, _BASELINES, _OUTPUTS = 3, 2, 2


class Around(nn.Module):
    """tanh, the operation, tanh, a linear layer: so that multipliers differ from pair to pair on both sides of it."""

    def __init__(self, sample: Sample) -> None:
        super().__init__()
        self.sample = sample
        features = sample.back(sample.op(torch.zeros(2, *sample.shape, dtype=torch.float64))).flatten().shape[0] // 2
        self.head = nn.Linear(features, _OUTPUTS, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.sample.op(torch.tanh(x)))
        return self.head(self.sample.back(y).reshape(len(x), -1).to(x))  # some samples change the type or the device


def by_loop(model: Around, x: Tensor, background: Tensor) -> Tensor:
    """Contributions ``[B, *features, K]``: one backward a pair and output, without vmap."""
    sample, weight = model.sample, model.head.weight.detach()
    found = torch.zeros(*x.shape, _OUTPUTS, dtype=torch.float64)
    for b, k in [(b, k) for b in range(len(x)) for k in range(_OUTPUTS)]:
        for r in background:
            h_x, h_r = torch.tanh(x[b : b + 1]).requires_grad_(), torch.tanh(r[None])
            with AsIdentity():
                y_x = sample.op(h_x)
            y_r = sample.op(h_r).detach()
            z_x, z_r = y_x.detach().tanh(), y_r.tanh()
            same = y_x.detach() == y_r
            slope = torch.where(same, 1 - z_x * z_x, (z_x - z_r) / torch.where(same, 1, y_x.detach() - y_r))
            like = y_r.clone().requires_grad_()
            (m_z,) = torch.autograd.grad(sample.back(like).reshape(1, -1).to(weight), like, weight[k : k + 1])
            (m_h,) = torch.autograd.grad(y_x, h_x, m_z * slope)
            found[b, ..., k] += (m_h * (h_x - h_r)).detach()[0] / len(background)
    return found


@pytest.mark.parametrize("name", SAMPLES)
def test_adds_up_and_equals_a_loop_over_pairs(name: str) -> None:
    sample = SAMPLES[name]
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    made = sample.op(torch.zeros(1, *sample.shape, dtype=torch.float64, requires_grad=True))
    if made.grad_fn is not None and made.grad_fn.name() == "torch::autograd::NotImplemented":
        pytest.skip("this version of torch has no derivative for it")
    model = Around(sample)
    x, background = (torch.randn(n, *sample.shape, dtype=torch.float64) for n in (_INPUTS, _BASELINES))
    explainer = DeepExplainer(model, background, additivity_tolerance=sample.tolerance)
    found, aligned = explainer.attribute(x), explainer.attribute(x, pairing="aligned")
    gap = additivity_gap(found.values, run(model, x), run(model, background))
    assert gap <= (sample.tolerance or ADDITIVITY[torch.float64])
    assert_same(found.values, aligned.values, sample.tolerance)
    assert_same(found.values, by_loop(model, x, background), sample.tolerance or 1e-10)


class _Calls(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(operation(function).name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_calls_what_it_is_a_sample_of(name: str) -> None:
    sample = SAMPLES[name]
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with _Calls() as calls:
        sample.op(torch.randn(2, *sample.shape, dtype=torch.float64))
    assert name.split(":")[0] in calls.names


def test_every_linear_operation_has_a_sample() -> None:
    assert LINEAR - {name.split(":")[0] for name in SAMPLES} == set()
