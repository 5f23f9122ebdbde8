"""Hand-written ``autograd.Function``s: taken apart, integrated through their own backward, or refused with the cause."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from checks import explain
from models import Function
from torch import Tensor, nn

from deepshap_ext import AdditivityError, DeepExplainer, UnsupportedOperationError, register_rule

X, BACKGROUND = (torch.randn(n, 5, generator=torch.Generator().manual_seed(n)).double() for n in (3, 4))


class Net(nn.Module):
    """A linear layer, a function in a module ``act``, a linear layer."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.act, self.after = nn.Linear(5, 6), Function(function), nn.Linear(6, 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.act(self.before(x)))


class Gelu(torch.autograd.Function):
    """BLOOM's, in transformers."""

    @staticmethod
    def forward(ctx: Any, input: Tensor) -> Tensor:
        ctx.save_for_backward(input)
        return input * 0.5 * (1.0 + torch.tanh(0.79788456 * input * (1 + 0.044715 * input * input)))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise NotImplementedError


class Swish(torch.autograd.Function):
    """Memory-efficient; in the style without a ctx."""

    @staticmethod
    def forward(x: Tensor, beta: float = 1.0) -> tuple[Tensor, Tensor]:
        return x * torch.sigmoid(beta * x), x.argmax(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> Any:
        raise NotImplementedError


def scan(a: Tensor, x: Tensor) -> Tensor:
    h = x.clone()
    for step in range(1, h.shape[1]):
        h[:, step].add_(a[:, step] * h[:, step - 1])
    return h


class Scan(torch.autograd.Function):
    """A scan that works in place on a copy, as mambapy's does."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, x: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        h = scan(a, x)
        ctx.save_for_backward(a, h)
        ctx.shape, ctx.anything = h.shape, {"needed": ctx.needs_input_grad}
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise NotImplementedError


class Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return -ctx.factor * grad, None


class Written(torch.autograd.Function):
    """A function that writes into its argument."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x.mul_(2).exp_())
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise NotImplementedError


class Helped(torch.autograd.Function):
    """Saves something without a rule, for its backward alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(torch.polygamma(2, x.abs() + 1), torch.special.bessel_j1(x))
        return x.sin()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise NotImplementedError


gelu = Gelu.apply

APART: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "alias": (gelu, lambda x: x * 0.5 * (1.0 + torch.tanh(0.79788456 * x * (1 + 0.044715 * x * x)))),
    "setup_context": (lambda x: Swish.apply(x, 2.0)[0], lambda x: x * torch.sigmoid(2 * x)),
    "default argument": (lambda x: Swish.apply(x)[0], lambda x: x * torch.sigmoid(x)),
    "in place on a copy": (lambda x: Scan.apply(x.sigmoid(), x), lambda x: scan(x.sigmoid(), x)),
    "gradient reversal": (lambda x: Reversed.apply(x.sin(), 0.1), torch.sin),
    "in place": (lambda x: Written.apply(x + 0), lambda x: (2 * x).exp()),
    "saved only": (Helped.apply, torch.sin),
}


@pytest.mark.parametrize("on_unsupported", ["error", "integrate"])
@pytest.mark.parametrize("name", APART)
def test_what_has_rules_inside_is_taken_apart(name: str, on_unsupported: Any) -> None:
    written, plain = APART[name]
    found = explain(Net(written), X, BACKGROUND, on_unsupported=on_unsupported)
    expected = explain(Net(plain), X, BACKGROUND)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-10, atol=1e-13)


class Bessel(torch.autograd.Function):
    """Torch has no derivative of it; this class has."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.special.bessel_j0(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad * torch.special.bessel_j1(ctx.saved_tensors[0])


class Outer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return 2 * Bessel.apply(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -2 * grad * torch.special.bessel_j1(ctx.saved_tensors[0])


class _Cubed(torch.autograd.Function):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 3 * grad * ctx.saved_tensors[0] ** 2


class Numpy(_Cubed):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 3)


class Kernel(_Cubed):
    """Writes into memory, as a compiled kernel does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        x, out = x.contiguous(), torch.empty_like(x)
        source, target = (
            np.ctypeslib.as_array(ctypes.cast(t.data_ptr(), ctypes.POINTER(ctypes.c_double)), (t.numel(),))
            for t in (x, out)
        )
        target[:] = source**3
        return out + 0 * x


@torch.library.custom_op("deepshap_ext_tests::cube", mutates_args=())
def cube(x: Tensor) -> Tensor:
    return x**3


class Custom(_Cubed):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return cube(x)


OPAQUE: dict[str, tuple[type[torch.autograd.Function], str, Callable[[Tensor], Tensor]]] = {
    "no rule": (Bessel, r"calls torch\.special\.bessel_j0, which has no rule", torch.special.bessel_j0),
    "nested": (Outer, r"calls autograd\.Function Bessel, which calls torch\.special\.bessel_j0", lambda x: 2 * torch.special.bessel_j0(x)),
    "numpy": (Numpy, r"calls torch\.Tensor\.numpy, which takes the explained input out of torch", lambda x: x**3),
    "kernel": (Kernel, r"reads memory by torch\.Tensor\.data_ptr", lambda x: x**3),
    "custom operator": (Custom, r"calls torch\.ops\.deepshap_ext_tests\.cube, which has no rule", lambda x: x**3),
}  # fmt: skip


@pytest.mark.parametrize("name", OPAQUE)
def test_what_cannot_be_followed_inside_is_refused_with_the_cause(name: str) -> None:
    written, cause, _ = OPAQUE[name]
    for function in (written.apply, lambda x: written.apply(x)):
        with pytest.raises(UnsupportedOperationError) as caught:
            DeepExplainer(Net(function), BACKGROUND)
        assert caught.match(
            rf"autograd\.Function {written.__name__} in act {cause}.*register_rule\({written.__name__}, \.\.\.\)"
        )


@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("name", OPAQUE)
def test_what_cannot_be_followed_inside_is_integrated_through_its_backward(name: str, registered: bool) -> None:
    """Elementwise: the mean gradient is the divided difference."""
    written, _, plain = OPAQUE[name]
    model = Net(written.apply)
    if registered:
        with register_rule(written, "integrate"):
            found = explain(model, X, BACKGROUND, tolerance=1e-11)
    else:
        found = explain(model, X, BACKGROUND, tolerance=1e-11, on_unsupported="integrate")
    h_x, h_r = (model.before(t).detach() for t in (X, BACKGROUND))
    ratio = (plain(h_x)[:, None] - plain(h_r)) / (h_x[:, None] - h_r)
    multipliers = torch.einsum("kh,bjh,hf->bjfk", model.after.weight, ratio, model.before.weight)
    expected = (multipliers * (X[:, None] - BACKGROUND)[..., None]).mean(1)
    torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-12)


def test_its_own_gradient_is_used_where_that_is_asked_for() -> None:
    with pytest.warns(
        UserWarning, match=r"autograd\.Function Bessel in act calls torch\.special\.bessel_j0.*does not add up"
    ):
        explainer = DeepExplainer(Net(Bessel.apply), BACKGROUND, on_unsupported="gradient")
    with pytest.warns(UserWarning), pytest.raises(AdditivityError):
        explainer.attribute(X)


def test_a_function_that_writes_into_its_argument_first_is_refused() -> None:
    class Late(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.mark_dirty(x)
            return x.copy_(torch.from_numpy(x.mul_(2).detach().numpy()))

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return 2 * grad

    with pytest.raises(
        UnsupportedOperationError, match=r"Late in act calls .*numpy.* It has written into its argument by then"
    ):
        DeepExplainer(Net(lambda x: Late.apply(x + 0)), BACKGROUND, on_unsupported="integrate")


def test_a_random_function_is_refused() -> None:
    class Noisy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return torch.dropout(x, 0.5, True)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return grad

    with pytest.raises(UnsupportedOperationError, match=r"torch\.dropout in act .* is random, and reaches the output"):
        DeepExplainer(Net(Noisy.apply), BACKGROUND)


def test_an_operation_without_a_derivative_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedOperationError, match=r"torch\.special\.bessel_j0 in act has no rule"):
        DeepExplainer(Net(lambda x: x + torch.special.bessel_j0(x)), BACKGROUND)
