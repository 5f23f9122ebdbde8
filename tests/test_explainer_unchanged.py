"""The user's model is left exactly as it was, whether it could be explained or not."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import additivity_gap, run, unchanged, values_of
from models import FunctionNet, ModuleNet, Tokens, digits, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, ExplanationError


class Stateful(nn.Module):
    """Counts its calls, caches activations, writes its buffers, draws attributes: what models do in forward."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.fc, self.norm, self.drop = nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Dropout()
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("cache", torch.zeros(4))
        self.register_buffer("late", None)
        self.count = 0
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.calls += 1
        with torch.no_grad():
            self.cache.copy_(self.fc.weight.sum(1))
        self.late = torch.ones(2)
        self.hidden = self.drop(self.norm(self.fc(x)))
        self.fc.seen = self.hidden.detach()
        return self.function(self.hidden)


def _messy(function: Any) -> Stateful:
    """A model in the middle of training: mixed modes, frozen parts, gradients, hooks."""
    model = Stateful(function)
    model.train()
    model.drop.eval()
    model.norm.eval()
    model.fc.bias.requires_grad_(False)
    model(torch.randn(4, 6)).sum().backward()
    model.fc.register_forward_hook(lambda module, args, output: output * 2)
    model.norm.register_forward_pre_hook(lambda module, args: None)
    model.drop.register_full_backward_hook(lambda module, *grads: None)
    model.fc.weight.register_hook(lambda grad: grad)
    return model


FUNCTIONS = {
    "right": torch.relu,
    "without_a_rule": lambda x: torch.polygamma(2, x.exp()),
    "mixing": lambda x: x - x.mean(0),
    "random": lambda x: F.dropout(x, training=True),
    "detached": lambda x: x.detach(),
    "broken": lambda x: torch.where(x > 0, x, 2 * x),
    "error": lambda x: x.view(-1, 3, 5),
    "scalar": lambda x: x.sum(),
    "control_flow": lambda x: x.relu() if x.sum() > 0 else x.tanh(),
}
RIGHT = FUNCTIONS["right"], FUNCTIONS["detached"]


@pytest.mark.parametrize("pairing", ["grid", "aligned"])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS.keys())
def test_a_model_in_training_is_left_as_it_was(function: Any, pairing: str) -> None:
    model = _messy(torch.relu)
    model.function = function
    x, background = torch.randn(3, 6), torch.randn(4, 6)
    with unchanged(model, x, background):
        try:
            DeepExplainer(model, background).attribute(x, pairing=pairing)
        except (ExplanationError, RuntimeError):
            assert function not in RIGHT
        else:
            assert function in RIGHT


def test_hooks_of_the_user_run_and_count() -> None:
    model = spread(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)))
    x, background = torch.randn(3, 6), torch.randn(4, 6)
    plain = values_of(model, x, background)
    model[1].register_forward_hook(lambda module, args, output: output * 2)
    doubled = values_of(model, x, background)
    torch.testing.assert_close(doubled[0], 2 * plain[0])


def test_a_hook_that_raises_leaves_nothing_behind() -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("mine")

    model = spread(ModuleNet()).train()
    model.relu2.register_forward_hook(fail)
    with unchanged(model), pytest.raises(RuntimeError, match="mine"):
        DeepExplainer(model, torch.ones(2, 1, 9, 9))


def test_gradients_and_training_go_on_as_before() -> None:
    model = spread(FunctionNet()).train()
    model(digits(4)).log().sum().backward()
    before = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    DeepExplainer(model, digits(3)).shap_values(digits(2))
    after = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert all(map(torch.equal, before, after)) and len(before) == 8
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(digits(4)).log().sum().backward()
    optimizer.step()


def test_layers_own_tensors_are_left() -> None:
    model = spread(Tokens(skip=True)).train()
    x, background = torch.randint(11, (3, 5)), torch.randint(11, (4, 5))
    with unchanged(model, x, background):
        DeepExplainer((model, model.encoder), background).attribute(x)


class Remembering(nn.Module):
    """A model whose output depends on what earlier calls left behind."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc, self.how = nn.Linear(6, 3), how
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("average", torch.zeros(3))
        self.count, self.cache = 0, None
        self.history: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        if self.how == "buffer":
            self.calls += 1
            return h.tanh() * self.calls
        if self.how == "attribute":
            self.count += 1
            return h.tanh() * self.count
        if self.how == "average":
            self.average.mul_(0.9).add_(h.detach().mean(0))
            return (h - self.average).tanh()
        if self.how == "cache":
            self.cache = h[:1].detach() if self.cache is None else self.cache
            return (h - self.cache).tanh()
        self.history.append(h)
        return (h + len(self.history)).tanh()


@pytest.mark.parametrize("how", ["buffer", "attribute", "average", "cache", "history"])
def test_models_that_remember_are_right_or_refused(how: str) -> None:
    """Right is what a first call on a fresh copy gives."""
    model = Remembering(how).double()
    x, background = torch.randn(3, 6).double(), torch.randn(4, 6).double()
    outputs, baseline_outputs = run(model, x), run(model, background)
    try:
        found = DeepExplainer(model, background).attribute(x)
    except ExplanationError:
        found = None
    assert model.count == 0 and model.calls == 0 and model.cache is None and not model.average.any()
    assert not model.average.requires_grad
    assert found is None or additivity_gap(found.values, outputs, baseline_outputs) <= 1e-11


def test_threads_that_share_a_model() -> None:
    model = spread(FunctionNet()).train()
    x, background = digits(3), digits(2)
    expected = DeepExplainer(model, background).attribute(x).values
    with unchanged(model, x, background), ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: DeepExplainer(model, background).attribute(x).values, range(8)):
            assert torch.equal(found, expected)


COPIES = """
import copy, pickle, torch
from torch import nn
from deepshap_ext import DeepExplainer
model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2), nn.Softmax(1))
explainer, x = DeepExplainer(model, torch.randn(3, 4)), torch.randn(2, 4)
values = explainer.attribute(x).values
for _ in range(5):
    for other in (copy.copy(explainer), copy.deepcopy(explainer), pickle.loads(pickle.dumps(explainer))):
        assert torch.equal(other.attribute(x).values, values)
        del other
"""


def test_explainers_can_be_copied_and_pickled() -> None:
    """In a process of its own: what a copy frees twice ends the process."""
    done = subprocess.run([sys.executable, "-c", COPIES], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


class Folding(nn.Module):
    """Computes something else in eval mode, as layers do that merge their weights then."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.folded = nn.Linear(6, 3), False

    def train(self, mode: bool = True) -> nn.Module:
        self.folded = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).relu() * (2 if self.folded else 1)


def test_a_train_of_the_models_own_is_the_users_to_call() -> None:
    model, background = nn.Sequential(Folding(), nn.Linear(3, 2)), torch.randn(4, 6)
    with (
        unchanged(model, background),
        pytest.raises(ExplanationError, match=r"0 \(Folding\) has a train\(\) of its own.*model\.eval\(\)"),
    ):
        DeepExplainer(model, background)
    model.eval()
    found = DeepExplainer(model, background).attribute(background)
    torch.testing.assert_close(found.output, model(background).detach())
