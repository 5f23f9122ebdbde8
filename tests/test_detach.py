"""Detaching stops a gradient and changes no value: a model that detaches is explained as the function that it computes."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import ADDITIVITY, explain, run
from models import Body, Function, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, ExplanationError
from deepshap_ext.capture.detach import AsIdentity


def _no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        y = x * x.sigmoid()
    return x + y


def _set_grad_enabled(x: Tensor) -> Tensor:
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    y = x * x.sigmoid()
    torch.set_grad_enabled(before)
    return x + y


@torch.no_grad()
def _decorated(x: Tensor) -> Tensor:
    return x + x * x.sigmoid()


def _inference_mode(x: Tensor) -> Tensor:
    with torch.inference_mode():
        y = x * x.sigmoid()
    return x + y


def _safe_softmax(x: Tensor) -> Tensor:
    e = (x - x.max(-1, keepdim=True).values.detach()).exp()
    return e / e.sum(-1, keepdim=True)


def _instance_statistics(x: Tensor) -> Tensor:
    """Detached statistics, as RevIN and the transformers package's PatchTST take them."""
    with torch.no_grad():
        mean, std = x.mean(1, keepdim=True), (x.var(1, keepdim=True, unbiased=False) + 1e-3).sqrt()
    return ((x - mean) / std).tanh() * std + mean


def _routing(x: Tensor, detach: bool = True) -> Tensor:
    """Dynamic routing between capsules (arXiv 1710.09829): its first steps are detached."""
    votes = x.view(-1, 4, 2).unsqueeze(2) * torch.linspace(0.5, 1.5, 3, dtype=x.dtype).view(1, 1, 3, 1)
    frozen = votes.detach() if detach else votes
    logits = torch.zeros_like(votes[..., :1])
    for step in range(3):
        seen = votes if step == 2 else frozen
        s = (logits.softmax(2) * seen).sum(1, keepdim=True)
        v = s * (s.square().sum(-1, keepdim=True) / (1 + s.square().sum(-1, keepdim=True)))
        logits = logits + (seen * v).sum(-1, keepdim=True)
    return nn.functional.pad(v.flatten(1), (0, 2))


def _straight_through(x: Tensor) -> Tensor:
    return x + (x.tanh() - x).detach()


def _write_through(alias: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        y = x * 1
        alias(y).mul_(y.sigmoid())
        return y

    return function


def _buffer_through(alias: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def function(x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        alias(y)[:, ::2] = x[:, ::2].tanh()
        return y.sigmoid()

    return function


def _buffer(x: Tensor) -> Tensor:
    return torch.where(torch.arange(x.shape[1]) % 2 == 0, x.tanh(), 0).sigmoid()


def _detach_in_place(x: Tensor) -> Tensor:
    y = x.tanh()
    y.detach_()
    return x * y


def _leaf(x: Tensor) -> Tensor:
    y = x.tanh().detach().requires_grad_()
    y.requires_grad = True
    return x * y


def _copied(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x + copy.deepcopy({"state": x.tanh()})["state"]


def _parts(split: Callable[[Tensor], Any], last: bool = False) -> Callable[[Tensor], Tensor]:
    """Writes into one part of a tensor and reads all, as autograd allows only for views of their own."""

    def function(x: Tensor) -> Tensor:
        with torch.no_grad():
            y = x * 1
            first, *_, other = split(y)
            (other if last else first).mul_(2).sigmoid_()
            return torch.cat([first.flatten(1), other.flatten(1), y], 1)[:, :8]

    return function


def _whole_after_parts(x: Tensor) -> Tensor:
    y = x * 1
    first, second = y.chunk(2, 1)
    y.mul_(x.tanh())
    return torch.cat([second, first], 1)


def _half(x: Tensor) -> Tensor:
    """The function of `_parts` for two halves, without writing."""
    y = torch.cat([(x[:, :4] * 2).sigmoid(), x[:, 4:]], 1)
    return torch.cat([y[:, :4], y[:, 4:], y], 1)[:, :8]


def _out(x: Tensor) -> Tensor:
    y = torch.empty(x.shape, dtype=x.dtype)
    torch.add(x, x.tanh(), out=y)
    torch.mul(x, y.sigmoid(), out=y)
    return torch.tanh(y, out=y)


def _out_of_two(x: Tensor) -> Tensor:
    values, indices = torch.empty(len(x), dtype=x.dtype), torch.empty(len(x), dtype=torch.int64)
    found = torch.max(x, 1, out=(values, indices))
    assert found.values is values and found.indices is indices
    return x - values.unsqueeze(1)


#: A function that detaches, and the same without.
SAME: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "detach": (lambda x: x + x.detach() * 3, lambda x: 4 * x),
    "product": (lambda x: x * x.detach(), lambda x: x * x),
    "data": (lambda x: x * x.data, lambda x: x * x),
    "aten": (lambda x: x * torch.ops.aten.detach.default(x), lambda x: x * x),
    "detached copy": (lambda x: x * torch.detach_copy(x).mul_(2), lambda x: x * (2 * x)),
    "detach in place": (_detach_in_place, lambda x: x * x.tanh()),
    "leaf": (_leaf, lambda x: x * x.tanh()),
    "deepcopy": (_copied, lambda x: x + x.tanh()),
    "no_grad": (_no_grad, lambda x: x + x * x.sigmoid()),
    "decorated": (_decorated, lambda x: x + x * x.sigmoid()),
    "set_grad_enabled": (_set_grad_enabled, lambda x: x + x * x.sigmoid()),
    "inference_mode": (_inference_mode, lambda x: x + x * x.sigmoid()),
    "straight through": (_straight_through, lambda x: x + (x.tanh() - x)),
    "routing": (_routing, lambda x: _routing(x, detach=False)),
    "write through a buffer's data": (_buffer_through(lambda y: y.data), _buffer),
    "write through a detached buffer": (_buffer_through(lambda y: y.detach()), _buffer),
    "write through data": (_write_through(lambda y: y.data), lambda x: x * x.sigmoid()),
    "write through detach": (_write_through(lambda y: y.detach()), lambda x: x * x.sigmoid()),
    "halves": (_parts(lambda y: y.chunk(2, 1)), _half),
    "split": (_parts(lambda y: torch.split(y, 4, 1)), _half),
    "whole after parts": (_whole_after_parts, lambda x: (x * x.tanh()).roll(4, 1)),
    "out": (_out, lambda x: (x * (x + x.tanh()).sigmoid()).tanh()),
    "out of two": (_out_of_two, lambda x: x - x.max(1, keepdim=True).values),
}


@pytest.mark.parametrize(("detaching", "plain"), SAME.values(), ids=SAME.keys())
def test_what_detaches_is_explained_as_what_does_not(
    detaching: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor]
) -> None:
    x, background = torch.randn(3, 6).double(), torch.randn(4, 6).double()
    model = spread(Body(detaching)).double()
    found = explain(model, x, background)
    model.function = plain
    expected = explain(model, x, background)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-12, atol=1e-12)


ADDING_UP: dict[str, Callable[[Tensor], Tensor]] = {
    "safe softmax": _safe_softmax,
    "instance statistics": _instance_statistics,
    "unbind": _parts(lambda y: y.view(-1, 2, 4).unbind(1)),
    "unbind columns": _parts(lambda y: y.view(-1, 4, 2).unbind(2), last=True),
    "iterated": _parts(lambda y: list(y.view(-1, 2, 2, 2).transpose(0, 1)), last=True),
    "sections": _parts(lambda y: y.split([3, 0, 5], 1), last=True),
    "tensor_split": _parts(lambda y: y.tensor_split([2, 5], 1)),
    "hsplit": _parts(lambda y: torch.hsplit(y, 4)),
}


@pytest.mark.parametrize("function", ADDING_UP.values(), ids=ADDING_UP.keys())
@pytest.mark.parametrize("pairing", ["grid", "aligned"])
def test_what_detaches_adds_up(function: Callable[[Tensor], Tensor], pairing: str) -> None:
    model, x, background = spread(Body(function)).double(), torch.randn(3, 6).double(), torch.randn(4, 6).double()
    found = DeepExplainer(model, background).attribute(x, pairing=pairing)
    difference = run(model, x) - run(model, background).mean(0)
    assert found.convergence_delta.abs().max() <= ADDITIVITY[torch.float64] * difference.abs().max()
    torch.testing.assert_close(found.output, run(model, x), rtol=1e-12, atol=1e-12)


def test_no_grad_is_the_users_again_afterwards() -> None:
    def broken(x: Tensor) -> Tensor:
        torch.set_grad_enabled(False)
        torch.inference_mode().__enter__()
        raise ValueError("broken")

    with pytest.raises(ExplanationError, match="broken"):
        DeepExplainer(Function(broken), torch.randn(2, 3))
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    x = torch.randn(3, requires_grad=True)
    with torch.no_grad():
        assert not (x * 2).requires_grad
    with torch.inference_mode():
        assert (x * 2).is_inference()


def test_out_of_another_shape_is_refused() -> None:
    model = spread(Body(lambda x: torch.add(x, 1, out=torch.empty(len(x), 9).double()))).double()
    with pytest.raises(
        ExplanationError, match=r"torch\.add in Body has a result of shape .*8\], but out= of shape .*9\]"
    ):
        DeepExplainer(model, torch.randn(2, 6).double())


def test_values_still_do_not_leave_torch() -> None:
    model = Function(lambda x: x + torch.from_numpy(x.detach().tanh().numpy()))
    with pytest.raises(ExplanationError, match=r"takes the explained input out of torch"):
        DeepExplainer(model, torch.randn(2, 3))


def test_a_function_is_run_without_detaching_anything() -> None:
    x = torch.randn(3, dtype=torch.float64)

    def function(x: Tensor) -> Tensor:
        with AsIdentity():
            with torch.no_grad():
                y = x.sin()
            return _no_grad(y.detach() * y.data)

    jacobian = torch.func.jacrev(function)(x)
    expected = torch.func.jacrev(lambda x: x.sin().square() * (1 + x.sin().square().sigmoid()))(x)
    torch.testing.assert_close(jacobian, expected)
    assert not torch.func.jacrev(lambda x: x.detach() * 2)(x).any()
