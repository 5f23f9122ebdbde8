"""What carries no gradient is constant while both sides agree; where they do not, the operation that decided is named."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import ADDITIVITY, explain, run
from models import Body, spread
from torch import Tensor, nn

from deepshap_ext import AdditivityError, DeepExplainer, Explainer, UnsupportedOperationError


class Net(nn.Module):
    """Explained between two layers; ``gate`` is a module with a path."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.before, self.encoder, self.after = nn.Linear(6, 8), nn.ModuleDict({"gate": gate}), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.before(x).tanh()
        gate = self.encoder["gate"](h)
        gate = gate.to(h.dtype).unsqueeze(0).squeeze(0)  # operations that do not decide
        return self.after(h * gate.clone().mul_(2) + 1)


class Gate(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, h: Tensor) -> Tensor:
        return self.function(h * 3)


DECIDING: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "round": (lambda h: h.round(), r"torch\.Tensor\.round"),
    "comparison": (lambda h: ~(h > 0), r"torch\.Tensor\.gt"),
    "sign": (lambda h: torch.sign(h) + 1, r"torch\.sign"),
    "codes compared": (lambda h: h.long() > 0, r"torch\.Tensor\.gt"),
    "argmax": (lambda h: F.one_hot(h.argmax(1), 8), r"torch\.Tensor\.argmax"),
    "indices": (lambda h: torch.cummax(h, 1).indices, r"torch\.cummax"),
    "topk": (lambda h: torch.zeros_like(h).scatter(1, h.topk(2, 1).indices, 1.0), r"torch\.Tensor\.topk"),
    "pooled": (lambda h: F.max_pool1d(h, 2, return_indices=True)[1].repeat(1, 2), r"max_pool1d"),
    "in place": (lambda h: torch.zeros_like(h).copy_(h > 0), r"torch\.Tensor\.gt"),
}


@pytest.mark.parametrize(("function", "title"), DECIDING.values(), ids=DECIDING.keys())
def test_what_decided_is_named(function: Callable[[Tensor], Tensor], title: str) -> None:
    model = spread(Net(Gate(function)), 3).double()
    line = inspect.getsourcelines(function)[1]
    message = rf"{title}\S* in encoder\.gate \(test_decisions\.py:{line}\) takes different decisions for sample\(s\) "
    with pytest.raises(AdditivityError, match=message) as raised:
        DeepExplainer(model, torch.randn(5, 6).double()).attribute(torch.randn(9, 6).double())
    assert str(raised.value).count("takes different decisions") == 1


def test_each_decision_is_named_once() -> None:
    def both(h: Tensor) -> Tensor:
        high, low = h > 0.1, h < -0.1
        return h * high + h.tanh() * high + torch.where(low, h, 2 * h)

    model = spread(Body(both)).double()
    with pytest.raises(AdditivityError) as raised:
        DeepExplainer(model, torch.randn(5, 6).double()).attribute(torch.randn(9, 6).double())
    assert [part.partition(" takes")[0].rpartition(": ")[2] for part in str(raised.value).split("; ")] == [
        f"torch.Tensor.{name} in Body (test_decisions.py:{inspect.getsourcelines(both)[1] + 1})"
        for name in ("gt", "lt")
    ]


def test_decisions_that_reach_nothing_are_no_obstacle() -> None:
    def dead(h: Tensor) -> Tensor:
        unused = h * (h > 0)
        unused[:, 1:].add_(h[:, 1:].round())
        return h.tanh()

    explain(spread(Body(dead)).double(), torch.randn(9, 6).double(), torch.randn(5, 6).double())


def test_a_decision_written_into_a_view_reaches_what_it_is_a_view_of() -> None:
    def written(h: Tensor) -> Tensor:
        h = h * 1
        h[:, 1:].add_(h[:, 1:].round())
        return h

    model = spread(Body(written), 3).double()
    with pytest.raises(AdditivityError, match=r"torch\.Tensor\.round in Body"):
        DeepExplainer(model, torch.randn(5, 6).double()).attribute(torch.randn(9, 6).double())


class Branches(nn.Module):
    """Categories in a column, embedded and run through a branch of their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed, self.wide = nn.Embedding(4, 8), nn.Linear(5, 1)
        self.deep = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.wide(x[:, 1:]) + self.deep(self.embed(x[:, 0].long()))


@pytest.mark.parametrize("width", [4, 100, 256, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_no_decision(width: int, dtype: torch.dtype) -> None:
    """A branch that is the same on both sides is rounded otherwise in a batch of another size."""
    model = Branches(width).to(dtype)
    x, background = (torch.cat([torch.ones(n, 1), torch.randn(n, 5)], 1).to(dtype) for n in (3, 50))
    explain(model, x, background)


@pytest.mark.parametrize("apart", [1e-2, 1.0, 1e4])
def test_what_is_small_beside_other_rows_is_a_decision_all_the_same(apart: float) -> None:
    model = spread(Body(lambda h: h + apart * (h > 0))).double()
    with pytest.raises(AdditivityError, match=r"torch\.Tensor\.gt in Body .* takes different decisions"):
        DeepExplainer(model, torch.randn(5, 6).double()).attribute(torch.randn(9, 6).double())


def test_whole_numbers_are_not_rounded() -> None:
    """Large categories that are neighbours are two."""

    model = spread(Body(lambda h: h - (1e5 + (h > 0)).float()))
    with pytest.raises(AdditivityError, match=r"torch\.Tensor\.gt in Body .* takes different decisions"):
        DeepExplainer(model, torch.randn(5, 6)).attribute(torch.randn(9, 6))


class Mixed(nn.Module):
    """Numbers and a category; with ``skip`` the numbers also lead around the perceptron, through ``encoder``."""

    def __init__(self, skip: str = "") -> None:
        super().__init__()
        self.embed, self.encoder = nn.Embedding(4, 2), nn.Linear(3, 1)
        self.mlp, self.skip = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1)), skip

    def forward(self, numeric: Tensor, category: Tensor) -> Tensor:
        embedded = self.embed(category)
        found = self.mlp(torch.cat([numeric, embedded], 1))
        if self.skip == "numbers":
            return found * self.encoder(numeric)
        if self.skip == "category":
            return found + embedded.sum(1, keepdim=True)
        return found


def _mixed(number: int) -> list[Tensor]:
    return [torch.randn(number, 3).double(), torch.arange(number) % 4]


@pytest.mark.parametrize("frozen", [False, True])
def test_what_lies_before_a_layer_leads_past_nothing(frozen: bool) -> None:
    model = Mixed().double().requires_grad_(not frozen)
    x, background = _mixed(5), _mixed(20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = DeepExplainer((model, model.mlp), background).attribute(x)
    difference = run(model, x) - run(model, background).mean(0)
    assert found.convergence_delta.abs().max() <= ADDITIVITY[torch.float64] * difference.abs().max()


@pytest.mark.parametrize(("skip", "title"), [("numbers", r"torch\.Tensor\.mul"), ("category", r"torch\.Tensor\.add")])
def test_what_leads_past_a_layer_is_named(skip: str, title: str) -> None:
    model = Mixed(skip).double()
    explainer = DeepExplainer((model, model.mlp), _mixed(20))
    with pytest.warns(
        UserWarning, match=rf"past the explained layer .*\({title} in Mixed \(test_decisions\.py:\d+\) brings in"
    ):
        explainer.attribute(_mixed(5))


def test_one_of_the_parts_of_a_split_leads_past_a_layer() -> None:
    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            left, right = x.tanh().chunk(2, 1)
            return self.layer(left) + right[:, :2]

    model = Halves().double()
    explainer = DeepExplainer((model, model.layer), torch.randn(4, 6).double())
    with pytest.warns(UserWarning, match=r"past the explained layer"):
        explainer.attribute(torch.randn(3, 6).double())


UNFOLLOWED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "unique": (lambda x: x + torch.unique(x).sum(), r"torch\.functional\.unique in Body|torch\.unique in Body"),
    "consecutive": (lambda x: x + x.unique_consecutive().sum(), r"unique_consecutive in Body"),
    "forward mode": (lambda x: _dual(x), r"_make_dual in Body .*forward_ad"),
    "jvp": (lambda x: torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),))[1], r"in Body .*torch\.func\.jvp"),
}


def _dual(x: Tensor) -> Tensor:
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        return torch.autograd.forward_ad.unpack_dual(dual.sin()).tangent


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize(("function", "message"), UNFOLLOWED.values(), ids=UNFOLLOWED.keys())
def test_what_autograd_does_not_follow_is_refused_by_name(function: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(UnsupportedOperationError, match=message):
        DeepExplainer(spread(Body(function)), torch.randn(3, 6))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_functions_are_named() -> None:
    scripted = torch.jit.script(_gelu)
    traced = torch.jit.trace(lambda x: torch.sigmoid(x) * x, torch.ones(2, 8))
    background = torch.randn(3, 6)
    for function, name in ((scripted, "_gelu"), (traced, "_lambda")):
        call = torch._C.ScriptFunction.__call__
        message = rf"the TorchScript function \S*{name} in Body cannot be followed: .*PYTORCH_JIT=0"
        with pytest.raises(UnsupportedOperationError, match=message):
            DeepExplainer(spread(Body(function)), background)
        assert torch._C.ScriptFunction.__call__ is call
        # Where it reaches nothing, or decides alike on both sides, it is no obstacle.
        explain(spread(Body(lambda x, f=function: (f(x), x.tanh())[1])), torch.randn(2, 6), background)
    model = spread(Body(lambda x: x * scripted((x > 0).to(x))))
    with pytest.raises(AdditivityError, match=r"torch\.Tensor\.gt in Body"):
        DeepExplainer(model, background).attribute(torch.randn(4, 6))


def _gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + torch.erf(x / 1.41421))


def test_what_decides_in_the_output_selector_is_integrated_by_that_function() -> None:
    def select(output: Tensor) -> Tensor:
        return torch.where(output > 0, output**3, output).sum(1)

    model = nn.Linear(4, 3).double()
    x, baselines = torch.randn(5, 4).double(), torch.randn(3, 4).double()
    advice = r"register_rule\(the function of output=, 'integrate'\)"
    with pytest.raises(AdditivityError, match=advice):
        Explainer(model, output=select).attribute(x, 0, baselines=baselines)
    found = Explainer(model, output=select, rules={select: "integrate"}).attribute(x, 0, baselines=baselines)
    assert float(found.convergence_delta.abs().max()) < 1e-9
