"""``"rescale"``: the quotient of the differences for an elementwise function of the user's own, however near its two sides are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from checks import explain
from models import Function
from torch import Tensor, nn

from deepshap_ext import AdditivityError, DeepExplainer, UnsupportedOperationError, register_rule

X, BACKGROUND = (torch.randn(n, 5, generator=torch.Generator().manual_seed(n)).double() for n in (3, 4))


def swish(h: Tensor) -> Tensor:
    return h * torch.sigmoid(1.75 * h)


class Swish(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(1.75))

    def forward(self, h: Tensor) -> Tensor:
        return h * torch.sigmoid(self.slope.detach() * h)


class SwishFunction(torch.autograd.Function):
    """A function whose backward can run once only, and has no batching rule."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, slope: float) -> Tensor:
        ctx.save_for_backward(h)
        ctx.slope = slope
        return h * torch.sigmoid(slope * h)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        s = torch.sigmoid(ctx.slope * ctx.saved_tensors[0])
        return grad * (s + ctx.slope * ctx.saved_tensors[0] * s * (1 - s)), None


@torch.library.custom_op("deepshap_ext_tests::swish", mutates_args=())
def swish_op(h: Tensor) -> Tensor:
    return swish(h)


TARGETS: dict[str, tuple[Any, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "module": (Swish, Swish().double(), swish),
    "function": (swish, lambda h: swish(h), swish),
    "autograd.Function": (SwishFunction, lambda h: SwishFunction.apply(h, 1.75), swish),
    "custom operation without a derivative": (swish_op, lambda h: swish_op(h), swish),
    "function of torch": (torch.special.zeta, lambda h: torch.special.zeta(h.exp() + 2, 1.5), None),
    "function of torch that has a rule": (torch.tanh, torch.tanh, torch.tanh),
    "function of torch in place": (torch.tanh_, lambda h: h.mul(1).tanh_(), torch.tanh),
}


class Net(nn.Module):
    """linear, the function, linear."""

    def __init__(self, function: Callable[[Tensor], Tensor], scale: float = 2.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.function, self.after = nn.Linear(5, 6), function, nn.Linear(6, 3)
        with torch.no_grad():
            self.before.weight.mul_(scale)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self.before(x)))


def expected(model: Net, function: Callable[[Tensor], Tensor], x: Tensor, background: Tensor) -> Tensor:
    """By the formula, in which no difference here is small."""
    h_x, h_r = (model.before(rows).detach() for rows in (x, background))
    quotient = (function(h_x)[:, None] - function(h_r)) / (h_x[:, None] - h_r)
    multipliers = torch.einsum("kh,bjh,hf->bjfk", model.after.weight, quotient, model.before.weight)
    return (multipliers * (x[:, None] - background)[..., None]).mean(1).detach()


@pytest.mark.parametrize("pairing", ["grid", "aligned", "own"])
@pytest.mark.parametrize("name", TARGETS)
def test_it_is_the_quotient_of_the_differences(name: str, pairing: str) -> None:
    target, call, function = TARGETS[name]
    model = Net(call)
    options: dict[str, Any] = {"pairing": pairing}
    if pairing == "own":
        options = {"baselines": BACKGROUND.expand(len(X), -1, -1)}
    with register_rule(target, "rescale"):
        explain(model, X, BACKGROUND)
        found = DeepExplainer(model, BACKGROUND).attribute(X, **options).values
    torch.testing.assert_close(found, expected(model, function or call, X, BACKGROUND), rtol=1e-9, atol=1e-11)


def test_samples_need_not_come_first() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act = Swish()

        def forward(self, x: Tensor) -> Tensor:
            h = self.act(3 * x.transpose(0, 1))
            return (h * self.act(h.flatten(0, 1)).view_as(h)).transpose(0, 1).flatten(1)

    x, background = torch.randn(3, 4, 5).double(), torch.randn(2, 4, 5).double()
    plain = explain(Turned().double(), x, background).values
    with register_rule(Swish, "rescale"):
        found = explain(Turned().double(), x, background).values
    torch.testing.assert_close(found, plain, rtol=1e-8, atol=1e-9)


def multipliers(function: Callable[[Tensor], Tensor], x: Tensor, r: Tensor) -> Tensor:
    """Of each of the pairs: ``x`` and ``r`` are sums, of ``x + 0`` and of ``0 + r``, whose parts differ by more than they do."""

    def model(parts: Tensor) -> Tensor:
        return function(parts.sum(2)).float().sum(1)

    given, baseline = (torch.stack(parts, 1)[None] for parts in ((x, 0 * x), (0 * r, r)))
    explainer = DeepExplainer(Function(model), baseline, rules={function: "rescale"})
    values = explainer.attribute(given, 0, check_additivity="ignore").values
    return values[0, :, 0] / x


def pairs(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Equal, as near as one unit in the last place, and up to 10 apart."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(size=600) * 2).to(dtype)
    apart = torch.from_numpy(rng.choice([-1, 1], 600) * 10 ** rng.uniform(np.log10(torch.finfo(dtype).eps), 1, 600))
    return x, torch.where(torch.arange(600) % 20 == 0, x, (x + apart).to(dtype))


# With their steepest slopes.
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Any], Any], float]] = {
    "swish": (lambda h: h * torch.sigmoid(1.75 * h), lambda h: h / (1 + mpmath.exp(-mpmath.mpf(1.75) * h)), 1.1),
    "gaussian": (lambda h: torch.exp(-h * h), lambda h: mpmath.exp(-h * h), 0.86),
    "sine": (lambda h: torch.sin(3 * h), lambda h: mpmath.sin(3 * h), 3),
    "bent": (lambda h: torch.where(h > 0, h, h / 4), lambda h: h if h > 0 else h / 4, 1),
    "root of the size": (lambda h: h.abs().sqrt(), lambda h: mpmath.sqrt(abs(h)), 5),
}
ACCURACY = {torch.float64: 1e-9, torch.float32: 5e-4, torch.float16: 0.1, torch.bfloat16: 0.25}


@pytest.mark.parametrize("dtype", ACCURACY)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_multipliers_are_no_noise_however_near_the_sides_are(name: str, dtype: torch.dtype) -> None:
    function, exactly, steepest = FUNCTIONS[name]
    x, r = pairs(dtype)
    found = multipliers(function, x, r)
    with mpmath.workprec(400):
        for a, b, ours in zip(x.tolist(), r.tolist(), found.tolist(), strict=True):
            one, other = mpmath.mpf(a), mpmath.mpf(b)
            if a == b:
                one, other = one * (1 + mpmath.mpf(2) ** -150), one * (1 - mpmath.mpf(2) ** -150)
            exact = (exactly(one) - exactly(other)) / (one - other)
            assert abs(ours - exact) <= ACCURACY[dtype] * steepest, (a, b, ours, float(exact))


def test_what_cancels_inside_is_no_noise_either() -> None:
    """At 1e-3 the cosine is rounded to 2e-4 of what it differs from 1 by."""
    x = torch.full((40,), 1e-3) * (1 + torch.linspace(0, 1, 40))
    r = x * (1 + torch.logspace(-7, -5, 40))
    found = multipliers(lambda h: 1 - torch.cos(h), x, r)
    torch.testing.assert_close(found, ((x.double() + r) / 2).sin().float(), rtol=1e-2, atol=0)


def rounded(h: Tensor) -> Tensor:
    return h + h.round()


def outside_of_torch(h: Tensor) -> Tensor:
    return torch.from_numpy(np.cbrt(h.detach().numpy()))


def root(h: Tensor) -> Tensor:
    """The function's derivative is infinite at 0, and NaN below."""
    return h.clamp_min(0).sqrt()


@pytest.mark.parametrize(("function", "at_zero"), [(rounded, 1.0), (outside_of_torch, 0.0), (root, 0.0)])
def test_what_jumps_or_has_no_derivative_adds_up(function: Callable[[Tensor], Tensor], at_zero: float) -> None:
    """Where the sides are equal it has the derivative, or 0 where there is no finite one."""
    background = torch.cat([torch.zeros(1, 5).double(), BACKGROUND])
    with register_rule(function, "rescale"):
        explain(Function(lambda x: function(x)), torch.cat([X, background]), background)
        # The sums are 0 on both sides, and what is added is 1 and -1.
        parts = torch.tensor([[1.0, -1.0]]).double()
        found = DeepExplainer(Function(lambda x: function(x.sum(1))), torch.zeros(1, 2).double()).attribute(parts, 0)
    assert found.values[0].tolist() == [at_zero, -at_zero]


def test_a_derivative_is_of_what_autograd_saved_before_the_function_wrote_into_it() -> None:
    def written(h: Tensor) -> Tensor:
        return h.exp().mul_(2).add_(h.detach())

    x = torch.linspace(-1, 1, 10).double() + 3
    found = multipliers(written, x, x * (1 + 1e-14))
    torch.testing.assert_close(found, 2 * x.exp() + 1, rtol=1e-10, atol=0)


def added(h: Tensor, other: Tensor) -> Tensor:
    return h + other


def constant_beside(h: Tensor, *, factor: Tensor) -> Tensor:
    return (factor * h).tanh()


def test_constants_may_be_beside_it() -> None:
    factor = torch.arange(1.0, 6).double()
    model = Function(lambda x: constant_beside(x, factor=factor))
    expected = explain(model, X, BACKGROUND).values
    with register_rule(constant_beside, "rescale"):
        torch.testing.assert_close(explain(model, X, BACKGROUND).values, expected, rtol=1e-9, atol=1e-11)


class Act(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda h: h.sum(1), r"must return a real .* of its argument's shape \[2, 5\], got tensor of .* shape \[2\]$"),
        (lambda h: (h, h), r"must return .* tensor of its argument's shape \[2, 5\], got \(tensor"),
        (lambda h: h.round().long(), r"must return a real floating-point tensor .* got tensor of dtype torch\.int64"),
        (lambda h: h.relu_(), r"writes into its argument, which the model may read elsewhere: call it with a clone$"),
    ],
)
def test_what_cannot_be_rescaled_is_refused_by_name(function: Any, message: str) -> None:
    model = Function(lambda self, x: self.act(2 * x).sum(), act=Act(function))
    with pytest.raises(UnsupportedOperationError, match=f"^Act in act is rescaled.*{message}"):
        DeepExplainer(model, BACKGROUND, rules={Act: "rescale"})


def test_two_operands_are_refused_by_their_shapes() -> None:
    match = r"is rescaled, for which one of its arguments must depend .*, got 2 of shapes \[2, 5\], \[2, 1\]$"
    for target, call in ((added, added), (torch.add, torch.add)):
        model = Function(lambda x, call=call: call(x.exp(), x.sum(1, keepdim=True)))
        with pytest.raises(UnsupportedOperationError, match=rf"add(ed)? in Function {match}"):
            DeepExplainer(model, BACKGROUND, rules={target: "rescale"})


def test_what_is_not_elementwise_does_not_add_up() -> None:
    """Places that are equal on both sides have no share in what the others do to them."""

    def centred(h: Tensor) -> Tensor:
        return h - h.mean(1, keepdim=True)

    x = torch.cat([BACKGROUND[:1, :2], X[:1, 2:]], 1)
    explainer = DeepExplainer(Function(lambda x: centred(x)), BACKGROUND[:1], rules={centred: "rescale"})
    with pytest.raises(AdditivityError):
        explainer.attribute(x)
