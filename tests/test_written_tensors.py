"""What a model's forward pass writes into is explained as written, and is afterwards as it was before."""

import copy
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import assert_same, unchanged
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, ExplanationError, register_rule


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _under_no_grad(write: Callable[[Any], object]) -> Callable[[Any], None]:
    def written(self: Any) -> None:
        with torch.no_grad():
            write(self)

    return written


OUTSIDE = numbers(4, 3)

#: Each lets ``self.w`` be its former positive part, under another name.
WRITES: dict[str, Callable[[Any], Any]] = {
    "data": lambda self: self.w.data.clamp_(min=0),
    "set data": lambda self: setattr(self.w, "data", self.w.data.clamp(min=0)),
    "detach": lambda self: self.w.detach().clamp_(min=0),
    "view": _under_no_grad(lambda self: self.w.view(-1).clamp_(min=0)),
    "no_grad": _under_no_grad(lambda self: self.w.clamp_(min=0)),
    "copy": _under_no_grad(lambda self: self.w.copy_(self.w.relu())),
    "setitem": _under_no_grad(lambda self: self.w.__setitem__(self.w < 0, 0.0)),
    "out": _under_no_grad(lambda self: torch.clamp(self.w, min=0, out=self.w)),
    "set_": _under_no_grad(lambda self: self.w.set_(self.w.clamp(min=0))),
    "functional": _under_no_grad(lambda self: F.relu(self.w, inplace=True)),
    "foreach": _under_no_grad(lambda self: torch._foreach_clamp_min_([self.w], 0.0)),
    "overload": _under_no_grad(lambda self: torch.ops.aten.relu_.default(self.w)),
    "numpy": lambda self: self.w.detach().numpy().clip(0, out=self.w.detach().numpy()),
    "rows in turn": _under_no_grad(lambda self: [row.relu_() for row in self.w.unbind()]),
    "new parameter": lambda self: setattr(self, "w", nn.Parameter(self.w.detach().clamp(min=0))),
    "resized": _under_no_grad(lambda self: (self.w.relu_(), self.w.resize_(8, 3), self.w.resize_(4, 3))),
    "swapped": lambda self: torch.utils.swap_tensors(self.w, nn.Parameter(self.w.detach().clamp(min=0), False)),
    "init": lambda self: nn.init.constant_(self.w, 1.0).mul_(self.kept.clamp(min=0)),
}


class Writing(nn.Module):
    def __init__(self, write: Callable[[Any], Any]) -> None:
        super().__init__()
        self.w, self.write = nn.Parameter(numbers(4, 3)), write
        self.bias = nn.Parameter(numbers(3))
        self.register_buffer("kept", self.w.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        self.write(self)
        return torch.tanh(x @ self.w + self.bias)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_weights_are_explained_as_written_and_left_as_they_were(write: Callable[[Any], Any]) -> None:
    model, x, background = Writing(write), numbers(3, 4), numbers(5, 4)
    plain = Writing(lambda self: None)
    plain.load_state_dict(model.state_dict())
    plain.w.data.clamp_(min=0)
    model.w.grad = torch.ones_like(model.w)
    version, memory = model.w._version, model.w.data_ptr()
    with unchanged(model, x, background):
        found = DeepExplainer(model, background).attribute(x)
    assert (model.w._version, model.w.data_ptr()) == (version, memory)
    assert_same(found.values, DeepExplainer(plain, background).attribute(x).values, 1e-12)


def _turned(self: Any) -> None:
    self.kept.transpose_(0, 1)
    self.w.data.add_(self.kept.mT if self.kept.shape[0] == 3 else 100.0)


@pytest.mark.parametrize("write", [_under_no_grad(lambda self: self.w.set_(self.w + self.kept)), _turned])
def test_every_pass_begins_with_the_weights_as_they_were(write: Callable[[Any], Any]) -> None:
    model, x, background = Writing(write), numbers(3, 4), numbers(5, 4)
    plain = Writing(lambda self: None)
    plain.load_state_dict({**model.state_dict(), "w": model.w + model.kept})
    with unchanged(model):
        found = DeepExplainer(model, background).attribute(x)
    assert_same(found.values, DeepExplainer(plain, background).attribute(x).values, 1e-12)


@pytest.mark.parametrize("fails", ["in the forward pass", "later"])
def test_weights_are_left_as_they_were_by_a_model_that_is_refused(fails: str) -> None:
    model, x, background = Writing(WRITES["data"]), numbers(3, 4), numbers(5, 4)
    model.register_forward_hook(lambda module, args, out: out[:, 7] if fails == "in the forward pass" else out.sign())
    with unchanged(model, x, background), pytest.raises((IndexError, ExplanationError)):
        DeepExplainer(model, background).attribute(x)


class Holder:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _everywhere(tensors: list[Tensor]) -> nn.Module:
    """Writes into tensors that it has in attributes, containers, an object, a module of nobody's, a closure and a global."""
    plain, listed, queued, held, owned, closed = tensors

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plain, self.listed, self.queue = plain, [{"a": (listed,)}], deque([queued])
            self.held, self.unregistered = Holder(held), [nn.Linear(4, 4).double()]
            self.unregistered[0].weight = nn.Parameter(owned)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                written = (self.plain, self.listed[0]["a"][0], self.queue[0], self.held.tensor, closed, OUTSIDE)
                for tensor in (*written, self.unregistered[0].weight):
                    tensor[0] += 1
            return torch.tanh(self.unregistered[0](x * self.plain[0]) @ OUTSIDE)

    return Model()


def test_tensors_that_are_no_parameters_are_left_as_they_were() -> None:
    tensors = [numbers(4, 4) for _ in range(6)]
    tensors[0].requires_grad_(True)
    model, x, background = _everywhere(tensors), numbers(3, 4), numbers(5, 4)
    every = [*tensors, model.unregistered[0].weight, OUTSIDE]
    before = [(tensor.detach().clone(), tensor._version, tensor.requires_grad) for tensor in every]
    with unchanged(model, x, background):
        found = DeepExplainer(model, background).attribute(x)
    for tensor, (content, version, requires_grad) in zip(every, before, strict=True):
        assert torch.equal(tensor, content) and tensor._version == version and tensor.requires_grad == requires_grad
        assert tensor.grad is None
    with torch.no_grad():
        expected, of_background = copy.copy(model)(x), None
        for tensor, (content, _, _) in zip(every, before, strict=True):
            tensor.copy_(content)
        of_background = model(background)
    torch.testing.assert_close(found.output, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.values.sum(1), expected - of_background.mean(0), rtol=1e-10, atol=1e-10)


def test_keyword_arguments_are_left_as_they_were() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor, *, scale: Tensor, state: dict[str, Any]) -> Tensor:
            scale.mul_(2)
            state["all"][0].add_(1)
            state["calls"] = state.get("calls", 0) + 1
            state["all"].append(x)
            return torch.tanh(x * scale * state["all"][0])

    scale, held = numbers(4), numbers(4).requires_grad_(False)
    state, before = {"all": [held]}, (scale.clone(), held.clone())
    x, background = numbers(3, 4), numbers(5, 4)
    DeepExplainer(Model(), background, kwargs={"scale": scale, "state": state}).attribute(x)
    assert torch.equal(scale, before[0]) and torch.equal(held, before[1])
    assert state == {"all": [held]} and state["all"][0] is held


def test_an_output_in_a_tensor_of_the_models_own() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3).double()
            self.register_buffer("out", torch.zeros(9, 3, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            self.out = self.out.detach()
            self.out[: len(x)] = self.linear(x).tanh()
            return self.out[: len(x)]

    model, x, background = Model(), numbers(3, 4), numbers(5, 4)
    with unchanged(model, x, background):
        found = DeepExplainer(model, background).attribute(x)
    plain = nn.Sequential(copy.deepcopy(model.linear), nn.Tanh())
    assert_same(found.values, DeepExplainer(plain, background).attribute(x).values, 1e-12)


@pytest.mark.parametrize("bag", [False, True])
def test_an_embedding_that_renormalizes(bag: bool) -> None:
    made = nn.EmbeddingBag if bag else nn.Embedding
    embedding = made(10, 4, max_norm=0.5, dtype=torch.float64)
    head = nn.Linear(4 if bag else 12, 2, dtype=torch.float64)
    model = nn.Sequential(embedding, nn.Flatten(), head, nn.Tanh())
    x, background = torch.randint(10, (2, 3)), torch.randint(10, (5, 3))
    with unchanged(model):
        found = DeepExplainer((model, head), background).attribute(x)
    normed = copy.deepcopy(model)
    normed[0].max_norm = None
    normed[0].weight.data.renorm_(2, 0, 0.5)
    assert_same(found.values, DeepExplainer((normed, normed[2]), background).attribute(x).values, 1e-6)


def test_statistics_that_a_model_updates_in_eval_mode() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.linear = nn.BatchNorm1d(4).double(), nn.Linear(4, 3).double()

        def forward(self, x: Tensor) -> Tensor:
            norm = self.norm
            F.batch_norm(torch.ones(6, 4, dtype=x.dtype), norm.running_mean, norm.running_var, training=True)
            return self.linear(norm(x)).tanh()

    model, x, background = Model(), numbers(3, 4), numbers(5, 4)
    once = copy.deepcopy(model).eval()
    once.norm.running_mean.add_(0.1)
    once.norm.running_var.mul_(0.9)
    with unchanged(model, x, background):
        found = DeepExplainer(model, background).attribute(x)
    plain = nn.Sequential(once.norm, once.linear, nn.Tanh())
    assert_same(found.values, DeepExplainer(plain, background).attribute(x).values, 1e-12)


def test_operations_that_declare_what_they_write() -> None:
    @torch.library.custom_op("deepshap_ext_test::count", mutates_args={"counts"})
    def count(x: Tensor, counts: Tensor) -> None:
        counts.add_(1)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.counts = torch.zeros(3, dtype=torch.float64)

        def forward(self, x: Tensor) -> Tensor:
            count(torch.ones(1), self.counts)
            torch.ops.deepshap_ext_test.count(torch.ones(1), counts=self.counts)
            return torch.tanh(x * self.counts)

    model, x, background = Model(), numbers(3, 3), numbers(5, 3)
    found = DeepExplainer(model, background).attribute(x)
    assert not model.counts.any()
    torch.testing.assert_close(found.output, torch.tanh(2 * x))


class _Counting(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: Tensor) -> Tensor:
        counts.add_(1)
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return 2 * grad, None


class _Filling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        result = torch.empty_like(x)
        result.fill_(1)
        return result.mul_(2 * x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return 2 * grad


def test_what_a_pass_makes_and_fills_stays() -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scale = torch.empty(3, dtype=x.dtype)
            scale.fill_(3)
            scale[1] = 4
            added = torch.empty(0, dtype=x.dtype)
            torch.add(scale, 1, out=added)
            grown = torch.ones(1, dtype=x.dtype)
            grown.resize_(3).fill_(2)
            SEEN[:] = [scale, added, grown, _Filling.apply(x)]
            return SEEN[-1] * scale

    x, background = numbers(3, 3), numbers(5, 3)
    with register_rule(_Filling, "integrate"):
        found = DeepExplainer(Model(), background).attribute(x)
    assert [seen.tolist() for seen in SEEN[:3]] == [[3, 4, 3], [4, 5, 4], [2, 2, 2]]
    factors = torch.diag(torch.tensor([6.0, 8, 6], dtype=x.dtype))
    assert_same(found.values, (x - background.mean(0)).unsqueeze(2) * factors, 1e-12)


SEEN: list[Tensor] = []


class Counting(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.register_buffer("counts", torch.zeros(3, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "function":
            return _Counting.apply(x, self.counts)
        self.counts += 1
        return x * self.counts.clamp(max=1) * 2


@pytest.mark.parametrize("how", ["function", "module"])
def test_what_runs_under_a_rule_of_the_users(how: str) -> None:
    model = nn.Sequential(nn.Tanh(), Counting(how))
    x, background = numbers(3, 3), numbers(5, 3)
    with register_rule(_Counting if how == "function" else Counting, "integrate"), unchanged(model, x, background):
        found = DeepExplainer(model, background).attribute(x, target=0)
    assert_same(found.values, 2 * (x.tanh() - background.tanh().mean(0)) * torch.tensor([1.0, 0, 0]), 1e-9)


def test_a_model_made_in_inference_mode() -> None:
    torch.manual_seed(1)
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)).double().eval()
        model.scale = [numbers(4)]
        model.register_forward_pre_hook(lambda module, args: (args[0] * module.scale[0],))
    x, background = numbers(3, 4), numbers(5, 4)
    parameters = [(parameter, parameter.clone()) for parameter in model.parameters()]
    found = DeepExplainer(model, background).attribute(x)
    for parameter, (same, content) in zip(model.parameters(), parameters, strict=True):
        assert parameter is same and torch.equal(parameter, content) and parameter.is_inference()
    plain = copy.deepcopy(nn.Sequential(*model))
    scale = model.scale[0].clone()
    plain.register_forward_pre_hook(lambda module, args: (args[0] * scale,))
    assert_same(found.values, DeepExplainer(plain, background).attribute(x).values, 1e-12)
    with torch.inference_mode():
        assert_same(DeepExplainer(model, background).attribute(x).values, found.values, 1e-12)
