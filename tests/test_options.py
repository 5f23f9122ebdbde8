"""The choices between rules, operations without a rule, and rules of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deepshap_ext
from deepshap_ext import (
    AdditivityError,
    Application,
    Attribution,
    DeepExplainer,
    ExplanationError,
    UnsupportedOperationError,
)


class Net(nn.Module):
    """A linear layer, a function, a linear layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.function, self.after = nn.Linear(5, 6), function, nn.Linear(6, 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self.before(x)))


def rows(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gap(found: Attribution) -> float:
    """How far the values are from adding up, relative to the largest output difference."""
    return float(found.convergence_delta.abs().max() / (found.output - found.expected_value).abs().max())


X, BACKGROUND = rows(3), rows(4, 2)

WITHOUT_A_RULE = {
    "polygamma": lambda h: torch.polygamma(2, h + 9) * h,
    "two arguments": lambda h: torch.special.gammainc(torch.ones_like(h), h.square() + 1),
    "of matrices": lambda h: torch.linalg.matrix_exp(torch.diag_embed(h) + 0.1).sum(1),
}


@pytest.mark.parametrize("function", WITHOUT_A_RULE.values(), ids=WITHOUT_A_RULE.keys())
def test_an_operation_without_a_rule_is_integrated(function: Any) -> None:
    with pytest.raises(UnsupportedOperationError, match="on_unsupported='integrate'"):
        DeepExplainer(Net(function), BACKGROUND)
    found = DeepExplainer(Net(function), BACKGROUND, on_unsupported="integrate").attribute(X)
    assert gap(found) < 1e-12


def test_an_integrated_function_has_its_mean_gradient() -> None:
    """For a single unit the value is the divided difference."""

    def function(h: Tensor) -> Tensor:
        return torch.polygamma(2, h + 9)

    model = Net(function)
    found = DeepExplainer(model, BACKGROUND, on_unsupported="integrate").attribute(X)
    h_x, h_r = (model.before(t).detach() for t in (X, BACKGROUND))
    ratio = (function(h_x)[:, None] - function(h_r)) / (h_x[:, None] - h_r)
    multipliers = torch.einsum("kh,bjh,hf->bjfk", model.after.weight, ratio, model.before.weight)
    expected = (multipliers * (X[:, None] - BACKGROUND)[..., None]).mean(1)
    torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-12)


def test_an_operation_without_a_rule_by_its_gradient() -> None:
    model = Net(WITHOUT_A_RULE["polygamma"])
    with pytest.warns(UserWarning, match="torch.polygamma in Net has no rule.*does not add up"):
        explainer = DeepExplainer(model, BACKGROUND, on_unsupported="gradient")
    with pytest.warns(UserWarning, match="has no rule"), pytest.raises(AdditivityError):
        explainer.attribute(X)
    with pytest.warns(UserWarning, match="has no rule"), pytest.warns(UserWarning, match="attributions do not add up"):
        assert explainer.attribute(X, check_additivity=False).values.isfinite().all()


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.out = nn.Linear(5, 6), nn.Linear(6, 4)
        self.double()

    def logits(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.hidden(x)))

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(self.logits(x), dim=1)


def test_softmax_by_rescale_is_each_probability_over_its_own_logit() -> None:
    model = Classifier()
    found = DeepExplainer(model, BACKGROUND, softmax="rescale").attribute(X)
    assert gap(found) < 1e-12

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model.logits(x)

    for baseline in BACKGROUND.split(1):
        pair = baseline.expand(len(X), 1, -1)
        logits = DeepExplainer(Logits(), BACKGROUND).attribute(X, baselines=pair)
        ratio = (model(X) - model(baseline)) / (model.logits(X) - model.logits(baseline))
        own = DeepExplainer(model, BACKGROUND, softmax="rescale").attribute(X, baselines=pair)
        torch.testing.assert_close(own.values, logits.values * ratio.detach()[:, None], rtol=1e-9, atol=1e-12)


def test_softmax_centred_explains_the_logits_less_their_mean() -> None:
    """Shrikumar et al., arXiv 1704.02685, section 3.6."""
    model = Classifier()
    found = DeepExplainer(model, BACKGROUND, softmax="centered").attribute(X)
    logits = model.logits(X).detach()
    torch.testing.assert_close(found.output, logits - logits.mean(1, keepdim=True))
    torch.testing.assert_close(found.values.sum(-1), torch.zeros_like(X), rtol=0, atol=1e-12)
    assert gap(found) < 1e-12
    with pytest.raises(ExplanationError, match="output is a softmax"):
        DeepExplainer(Net(torch.tanh), BACKGROUND, softmax="centered")


class Columns(Classifier):
    """Classes of the softmax lie along another dimension than the last."""

    def logits(self, x: Tensor) -> Tensor:
        return super().logits(x).view(-1, 2, 2)


def test_logits_are_centred_over_the_softmaxes_own_dimension() -> None:
    model = Columns()
    found = DeepExplainer(model, BACKGROUND, softmax="centered").attribute(X)
    logits = model.logits(X).detach()
    torch.testing.assert_close(found.output, logits - logits.mean(1, keepdim=True), rtol=1e-12, atol=1e-12)
    assert gap(found) < 1e-12


@pytest.mark.parametrize(
    "write",
    [lambda logits, p: logits.mul_(10), lambda logits, p: logits[:, 1].data.zero_(), lambda logits, p: p.mul_(2)],
)
def test_logits_that_were_written_into_are_not_centred(write: Any) -> None:
    def function(h: Tensor) -> Tensor:
        logits = h * 1
        p = torch.softmax(logits, 1)
        write(logits, p)
        return p

    net = Net(lambda h: h)
    net.after = nn.Identity()
    net.function = function
    with pytest.raises(ExplanationError, match=r"centered.*written into"):
        DeepExplainer(net, BACKGROUND, softmax="centered")


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_users_default_device_is_no_obstacle(device: str) -> None:
    class Orders(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            pooled = F.max_pool1d(x, 2)
            return torch.cat([x.quantile(0.3, 1, keepdim=True), x.cumprod(1), pooled, x.topk(2, 1).values], 1)

    model = nn.Sequential(nn.Linear(5, 4), nn.GELU(), Orders(), nn.Softmax(1)).double()
    expected = DeepExplainer(model, BACKGROUND, rules="shapley").attribute(X)
    torch.set_default_device(device)
    try:
        found = DeepExplainer(model, BACKGROUND, rules="shapley").attribute(X)
    finally:
        torch.set_default_device(None)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("option", ["rules", "softmax", "on_unsupported"])
def test_an_unknown_choice_is_named(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} must be one of .*, got 'nonsense'"):
        DeepExplainer(Net(torch.tanh), BACKGROUND, **{option: "nonsense"})


def cube(context: Any, input: Tensor) -> Application:
    """``x^3 - r^3 = (x^2 + x r + r^2) (x - r)``."""

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        x, r = sides.pair()
        return [grad * (x * x + x * r + r * r)]

    return Application([input], lambda x: (x**3, [x]), multipliers)


class Cube(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy() ** 3)


@pytest.mark.parametrize("pairing", ["grid", "aligned", "per_sample"])
def test_a_module_class_by_a_rule_of_ones_own(pairing: str) -> None:
    """What the module does inside is not looked at: this one leaves torch."""
    own = BACKGROUND.expand(len(X), -1, -1) if pairing == "per_sample" else None
    arguments: dict[str, Any] = {"pairing": "aligned"} if pairing == "aligned" else {"baselines": own}
    expected = DeepExplainer(Net(lambda h: h**3), BACKGROUND).attribute(X, **arguments).values
    model = Net(Cube())
    before = dict(model.function.__dict__)
    with deepshap_ext.register_rule(Cube, lambda context, module, input: cube(context, input)):
        found = DeepExplainer(model, BACKGROUND).attribute(X, **arguments)
    assert gap(found) < 1e-12
    torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-12)
    assert dict(model.function.__dict__) == before
    with pytest.raises(UnsupportedOperationError):
        DeepExplainer(model, BACKGROUND)


def test_a_function_by_a_rule_of_ones_own() -> None:
    """A registered rule applies to every spelling of its operation; once it is removed, the rule before it is back."""

    def halved(context: Any, input: Tensor) -> Application:
        return Application([input], lambda x: (torch.tanh(x), [x]), lambda grad, sides: [grad / 2])

    usual = DeepExplainer(Net(torch.tanh), BACKGROUND).shap_values(X)
    registration = deepshap_ext.register_rule(F.tanh, halved)
    try:
        linear = Net(lambda h: h / 2)
        expected = DeepExplainer(linear, BACKGROUND).shap_values(X)
        found = [
            DeepExplainer(Net(function), BACKGROUND, additivity_tolerance=1e9).shap_values(X)
            for function in (torch.tanh, Tensor.tanh, nn.Tanh())
        ]
    finally:
        registration.remove()
    for values in found:
        np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(DeepExplainer(Net(torch.tanh), BACKGROUND).shap_values(X), usual)


def test_a_target_that_is_no_function_is_named() -> None:
    with pytest.raises(
        TypeError, match=r"target must be a function of torch, a Python function, or a subclass of .*, got 'tanh'"
    ):
        deepshap_ext.register_rule("tanh", cube)  # type: ignore[arg-type]


class Squared(torch.autograd.Function):
    """An autograd function with a backward of its own and without a batching rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.scale = scale
        return scale * x * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return 2 * ctx.scale * ctx.saved_tensors[0] * grad, None


class Rounded(torch.autograd.Function):
    """A straight-through estimator."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def squared(x: Tensor) -> Tensor:
    return Squared.apply(x, 0.5)  # type: ignore[no-any-return]


def test_a_hand_written_function_by_a_rule_of_ones_own() -> None:
    def rule(context: Any, x: Tensor, scale: float) -> Application:
        def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
            return [2 * scale * grad * sides.midpoint()]

        return Application([x], lambda x: (scale * x * x, [x]), multipliers)

    expected = DeepExplainer(Net(lambda h: h * h / 2), BACKGROUND).attribute(X)
    with deepshap_ext.register_rule(Squared, rule):
        found = DeepExplainer(Net(squared), BACKGROUND).attribute(X)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-10, atol=1e-12)


class Module(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return squared(x)


@pytest.mark.parametrize("target", [None, Squared, Module])
@pytest.mark.parametrize("pairing", ["grid", "aligned"])
def test_what_has_no_rule_is_integrated_whole(target: Any, pairing: str) -> None:
    expected = DeepExplainer(Net(lambda h: h * h / 2), BACKGROUND).attribute(X)
    model = Net(Module())
    if target is None:
        found = DeepExplainer(model, BACKGROUND, on_unsupported="integrate").attribute(X, pairing=pairing)
    else:
        with deepshap_ext.register_rule(target, "integrate"):
            found = DeepExplainer(model, BACKGROUND).attribute(X, pairing=pairing)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-10, atol=1e-12)


def test_a_function_of_torch_is_integrated_where_its_rule_would_do_too() -> None:
    expected = DeepExplainer(Net(torch.tanh), BACKGROUND).attribute(X)
    with deepshap_ext.register_rule(torch.tanh, "integrate"):
        found = DeepExplainer(Net(torch.tanh), BACKGROUND, additivity_tolerance=1e-6).attribute(X)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-6, atol=1e-7)


def test_what_a_hand_written_function_makes_of_a_mask_is_followed() -> None:
    """A step that carries no gradient is exact only where both sides agree."""
    model = Net(lambda h: h * Rounded.apply((h > 0) * 3.0))
    with pytest.raises(
        deepshap_ext.AdditivityError, match=r"torch\.Tensor\.gt in Net \(.*\) takes different decisions"
    ):
        DeepExplainer(model, BACKGROUND).attribute(X)


def test_apply_is_autograds_own_again_afterwards() -> None:
    apply = torch.autograd.Function.__dict__["apply"].__func__
    code = apply.__code__
    with pytest.raises(UnsupportedOperationError):
        DeepExplainer(Net(lambda h: torch.polygamma(2, squared(h))), BACKGROUND)
    assert torch.autograd.Function.__dict__["apply"].__func__ is apply and apply.__code__ is code
    x = torch.tensor([3.0], requires_grad=True)
    squared(x).backward()
    assert x.grad == 3


def test_a_rule_that_is_none_is_named() -> None:
    with pytest.raises(
        TypeError, match="rule must be a function, 'integrate' or 'rescale', got array of dtype <U1 and shape"
    ):
        deepshap_ext.register_rule(nn.ReLU, np.array(["a", "b"]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rule must be a function, 'integrate' or 'rescale', got 3"):
        deepshap_ext.register_rule(torch.tanh, 3)  # type: ignore[arg-type]
