"""What hides part of the computation is refused or reported, never wrong in silence."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checks import ADDITIVITY, additivity_gap, run, unchanged
from models import Body, Function, spread
from torch import Tensor, nn

from deepshap_ext import (
    AdditivityError,
    ControlFlowError,
    DeepExplainer,
    ExplanationError,
    UnsupportedOperationError,
)


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * grad


class _Vmapped(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * x.sigmoid()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * ctx.saved_tensors[0].sigmoid()


@torch.jit.script_if_tracing
def _plain_square(x: Tensor) -> Tensor:
    return x * x


def _scripted(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * x


def _no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        y = x * x.sigmoid()
    return x + y


def _inference_mode(x: Tensor) -> Tensor:
    with torch.inference_mode():
        y = x * 2
    return x + y.clone()


def _thread(x: Tensor) -> Tensor:
    results: list[Tensor] = []

    def work() -> None:
        torch.set_grad_enabled(True)
        results.append(torch.sigmoid(x) * x)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return results[0]


def _numpy(x: Tensor) -> Tensor:
    return x + torch.from_numpy(np.tanh(x.detach().numpy()))


def _array_protocol(x: Tensor) -> Tensor:
    return x + torch.as_tensor(np.asarray(x.detach()) * 2)


def _dlpack(x: Tensor) -> Tensor:
    return x + torch.from_dlpack(x.detach()).sigmoid()


def _list(x: Tensor) -> Tensor:
    return x + torch.tensor(x.tolist(), dtype=x.dtype)


def _data(x: Tensor) -> Tensor:
    return x * x.data


def _set_data(x: Tensor) -> Tensor:
    y = x * 1
    y.data = y.data * y.data
    return y


def _write_through_data(x: Tensor) -> Tensor:
    y = x * 1
    y.data.mul_(y.data)
    return y


def _write_through_detach(x: Tensor) -> Tensor:
    y = x.clone()
    y.detach().copy_(x.sigmoid())
    return y


def _requires_grad(x: Tensor) -> Tensor:
    y = x.detach().requires_grad_()
    return x + y.sigmoid()


def _new_leaf(x: Tensor) -> Tensor:
    return x + nn.Parameter(x.detach() * 2).tanh()


def _straight_through(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def _hard_sigmoid_gate(x: Tensor) -> Tensor:
    gate = x.sigmoid()
    return x * ((gate > 0.5).to(x) - gate.detach() + gate)


def _gradient(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad((y.sigmoid() * y).sum(), y)
    return x + gradient


def _own_gradient(x: Tensor) -> Tensor:
    with torch.enable_grad():
        y = x if x.requires_grad else x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((y.sigmoid() * y).sum(), y, create_graph=True)
    return x + gradient


def _jvp(x: Tensor) -> Tensor:
    return x + torch.func.jvp(torch.sin, (x,), (torch.ones_like(x),))[1]


def _hook(x: Tensor) -> Tensor:
    y = x * 1
    if y.requires_grad:
        y.register_hook(lambda grad: grad * 3)
    return y


HIDDEN: dict[str, Callable[[Tensor], Tensor]] = {
    "detach": lambda x: x + x.detach() * 3,
    "detach_product": lambda x: x * x.detach(),
    "no_grad": _no_grad,
    "inference_mode": _inference_mode,
    "mask": lambda x: x * (x > 0),
    "mask_as_float": lambda x: x + (x > 0).to(x.dtype),
    "where": lambda x: torch.where(x > 0, x, x * 0.1),
    "index_by_mask": lambda x: x.masked_fill(x < 0, 0.0),
    "set_by_mask": lambda x: x.clone().index_put_((x < 0,), torch.zeros((), dtype=x.dtype)),
    "sign": lambda x: x * torch.sign(x),
    "round": lambda x: x + x.round(),
    "floor": lambda x: x - x.floor(),
    "floor_divide": lambda x: x + x // 0.5,
    "remainder": lambda x: x + torch.remainder(x, 0.5),
    "argmax": lambda x: x + F.one_hot(x.argmax(1), 8).to(x),
    "argsort": lambda x: x.gather(1, x.argsort(1)),
    "topk": lambda x: x + torch.zeros_like(x).scatter(1, x.topk(2, 1).indices, 1.0),
    "sort": lambda x: x.sort(1).values * torch.arange(8).to(x),
    "median": lambda x: x - x.median(1, keepdim=True).values,
    "fmod": lambda x: torch.fmod(x, 0.3),
    "cumprod": lambda x: x.cumprod(1),
    "cummax": lambda x: x.cummax(1).values,
    "complex_modulus": lambda x: torch.fft.fft(x).abs(),
    "complex_product": lambda x: (torch.fft.fft(x) * torch.fft.fft(x).conj()).real,
    "complex_angle": lambda x: torch.fft.fft(x).angle(),
    "complex_parts": lambda x: torch.view_as_real(torch.fft.fft(x)).sum(2),
    "polar": lambda x: torch.polar(x.exp(), x).real,
    "hermitian": lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.linspace(0, 1, 5).to(x), 8),
    "heaviside": lambda x: x + torch.heaviside(x, torch.zeros((), dtype=x.dtype)),
    "bucketize": lambda x: x + torch.bucketize(x, torch.linspace(-1, 1, 9).to(x)).to(x),
    "long": lambda x: x + (x * 3).long().to(x),
    "embedding_of_argmax": lambda x: x + F.embedding(x.argmax(1), torch.eye(8).to(x)),
    "data": _data,
    "set_data": _set_data,
    "write_through_data": _write_through_data,
    "write_through_detach": _write_through_detach,
    "item": lambda x: x + x[0, 0].item(),
    "float": lambda x: x * float(x.sum()),
    "int": lambda x: x * int((x * 3).sum()),
    "numpy": _numpy,
    "array_protocol": _array_protocol,
    "dlpack": _dlpack,
    "tolist": _list,
    "requires_grad": _requires_grad,
    "new_leaf": _new_leaf,
    "straight_through": _straight_through,
    "hard_gate": _hard_sigmoid_gate,
    "gradient": _gradient,
    "own_gradient": _own_gradient,
    "jvp": _jvp,
    "autograd_function": lambda x: _Square.apply(x),
    "autograd_function_with_vmap": lambda x: _Vmapped.apply(x),
    "thread": _thread,
    "script": lambda x: torch.jit.script(_scripted)(x),
    "vmap": lambda x: torch.func.vmap(lambda row: torch.sigmoid(row) * row)(x),
    "vmap_linear": lambda x: torch.func.vmap(lambda row: row.flip(0) * 2)(x),
    "grad_hook": _hook,
    "control_flow": lambda x: x.relu() if x.sum() > 0 else x.sigmoid(),
    "loop_until": lambda x: _loop(x),
}


def _loop(x: Tensor) -> Tensor:
    while x.abs().max() > 1:
        x = x * 0.5
    return x


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("function", HIDDEN.values(), ids=HIDDEN.keys())
def test_right_or_refused(function: Callable[[Tensor], Tensor]) -> None:
    _right_or_refused(spread(Body(function)).double(), torch.randn(4, 6).double(), torch.randn(5, 6).double())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("function", HIDDEN.values(), ids=HIDDEN.keys())
def test_right_or_refused_on_the_models_input(function: Callable[[Tensor], Tensor]) -> None:
    _right_or_refused(Function(lambda x: function(x)), torch.randn(3, 8), torch.randn(2, 8))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("function", HIDDEN.values(), ids=HIDDEN.keys())
def test_right_or_refused_for_one_pair(function: Callable[[Tensor], Tensor]) -> None:
    """With one input and one baseline the probe must still see what a batch would show."""
    _right_or_refused(spread(Body(function)).double(), torch.randn(1, 6).double(), torch.randn(1, 6).double())


def _right_or_refused(model: nn.Module, x: Tensor, background: Tensor) -> None:
    outputs, baseline_outputs = run(model, x), run(model, background)
    for pairing in ("grid", "aligned"):
        with unchanged(model, x, background):
            try:
                found = DeepExplainer(model, background).attribute(x, pairing=pairing)
            except ExplanationError as error:
                assert len(str(error)) > 30
                continue
        gap = additivity_gap(found.values, outputs, baseline_outputs)
        assert gap <= 10 * ADDITIVITY[outputs.dtype], f"{pairing}: off by {gap:.3g} of the difference, in silence"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("mask", AdditivityError, r"takes different decisions for sample\(s\) "),
        ("thread", UnsupportedOperationError, r"another thread"),
        ("script", UnsupportedOperationError, r"TorchScript"),
        ("set_data", UnsupportedOperationError, r"data of a tensor that depends on the explained input"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_refusal_names_the_reason(name: str, error: type[Exception], message: str) -> None:
    model, x, background = spread(Body(HIDDEN[name])), torch.randn(4, 6), torch.randn(5, 6)
    with unchanged(model, x, background), pytest.raises(error, match=message):
        DeepExplainer(model, background).attribute(x)


def test_values_that_differ_between_inputs_and_baselines_are_named() -> None:
    """The scale is 1 for every row of one batch and 2 for every row of another: no probe on the background can tell."""
    model = Function(lambda x: x * (1.0 + int(x.detach().amin() > 1)))
    with pytest.raises(ControlFlowError, match=r"for the inputs and .* for the baselines"):
        DeepExplainer(model, torch.rand(3, 2)).attribute(torch.rand(2, 2) + 2)


def test_control_flow_that_differs_between_inputs_and_baselines_is_named() -> None:
    model = Function(lambda x: x.relu() if x.shape[0] and bool((x > 1).all()) else x.sigmoid())
    with pytest.raises(ControlFlowError, match=r"inputs|baselines"):
        DeepExplainer(model, torch.rand(3, 2)).attribute(torch.rand(2, 2) + 2)


def test_decisions_that_agree_are_exact() -> None:
    """A mask that is the same for the input and its baselines is a constant."""
    model = spread(Body(lambda x: x * (x.detach() > -100) + x.round() * 0)).double()
    x, background = torch.randn(3, 6).double(), torch.randn(4, 6).double()
    found = DeepExplainer(model, background).attribute(x)
    assert additivity_gap(found.values, run(model, x), run(model, background)) <= 1e-12


WITHOUT_RULE: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "svdvals": (lambda x: x + torch.linalg.svdvals(x.view(-1, 2, 4)).sum(1, keepdim=True), r"svdvals"),
    "eigvalsh": (lambda x: torch.linalg.eigvalsh(x.unsqueeze(1) * x.unsqueeze(2) + torch.eye(8).to(x)), r"eigvalsh"),
    "matrix_exp": (lambda x: torch.linalg.matrix_exp(torch.diag_embed(x)).sum(1), r"matrix_exp"),
    "igamma": (lambda x: torch.special.gammainc(torch.ones_like(x), x.exp()), r"gammainc"),
    "polygamma": (lambda x: torch.polygamma(2, x.exp()), r"polygamma"),
    "polygamma_in_place": (lambda x: x.exp().polygamma_(3), r"polygamma"),
}


@pytest.mark.parametrize(("function", "name"), WITHOUT_RULE.values(), ids=WITHOUT_RULE.keys())
def test_operation_without_a_rule_is_named_with_its_module(function: Callable[[Tensor], Tensor], name: str) -> None:
    inner = Function(function)
    model = spread(nn.Sequential(nn.Linear(6, 8), nn.ModuleDict({"inner": inner})["inner"], nn.Linear(8, 2))).double()
    x, background = torch.randn(3, 6).double(), torch.randn(4, 6).double()
    with unchanged(model, x, background), pytest.raises(UnsupportedOperationError) as raised:
        DeepExplainer(model, background).attribute(x)
        _right_or_refused(model, x, background)
    assert name in str(raised.value) and " in 1 " in str(raised.value)


def test_operation_without_a_rule_off_the_path_is_no_obstacle() -> None:
    class Off(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            torch.linalg.svdvals(x.unsqueeze(1) * x.unsqueeze(2))
            self.seen = torch.polygamma(2, x.exp())
            return x.relu()

    _right_or_refused(Off(), torch.randn(3, 4), torch.randn(2, 4))
    assert DeepExplainer(Off(), torch.randn(3, 4)).attribute(torch.randn(2, 4)).values.shape == (2, 4, 4)


def test_nets_are_not_refused_for_what_they_read_of_shapes() -> None:
    def function(x: Tensor) -> Tensor:
        assert x.dim() == 2 and x.shape[1] == 8 and len(x) == x.size(0) and x.numel() and x.dtype and x.device
        assert repr(x.shape) and not x.is_cuda and x.is_floating_point() and x.ndim == 2 and x.stride()
        return x.view(x.size(0), -1).relu() + torch.zeros(x.shape).to(x) + torch.ones_like(x) + x.new_zeros(8)

    _right_or_refused(spread(Body(function)), torch.randn(3, 6), torch.randn(2, 6))
    DeepExplainer(spread(Body(function)), torch.randn(3, 6)).attribute(torch.randn(2, 6))
