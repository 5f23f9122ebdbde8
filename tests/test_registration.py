"""Whose rule applies to what: a rule belongs to what it was registered for, and to nothing else of that name."""

from __future__ import annotations

import functools
import itertools
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import explain, unchanged
from models import Function
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function_unary

from deepshap_ext import Application, DeepExplainer, Explainer, UnsupportedOperationError, register_rule

X, BACKGROUND = (torch.randn(n, 5, generator=torch.Generator().manual_seed(n)).double() for n in (3, 4))


def multiplied(factor: float) -> Callable[..., Application]:
    """A rule that is wrong on purpose: the multiplier by which it is recognised."""
    return lambda context, *args: Application(
        list(args[-1:]), lambda x: (x.clone(), []), lambda grad, sides: [factor * grad]
    )


def explainer_of(function: Callable[[Tensor], Tensor], **options: Any) -> DeepExplainer:
    model = function if isinstance(function, nn.Module) else Function(function)
    return DeepExplainer(model, torch.zeros(2, 5).double(), additivity_tolerance=1e9, **options)


def factor_by(explainer: DeepExplainer) -> float:
    """By what the function's multipliers are multiplied under such a rule."""
    values = explainer.attribute(torch.ones(1, 5).double()).values
    return round(float(values.diagonal(dim1=1, dim2=2).mean()), 9)


def factor_of(function: Callable[[Tensor], Tensor], **options: Any) -> float:
    return factor_by(explainer_of(function, **options))


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        raise NotImplementedError


class Module(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**3


def plain(x: Tensor) -> Tensor:
    return x**3


TARGETS: dict[str, tuple[Any, Callable[[Tensor], Tensor]]] = {
    "function of torch": (torch.sqrt, torch.sqrt),
    "function": (plain, lambda x: plain(x)),
    "autograd.Function": (Cube, Cube.apply),
    "module": (Module, nn.Sequential(Module())),
}


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 1, 0, 2, 2)])
@pytest.mark.parametrize("name", TARGETS)
def test_each_registration_stands_for_itself(name: str, order: tuple[int, ...]) -> None:
    target, call = TARGETS[name]
    own = factor_of(call)
    registrations = [register_rule(target, multiplied(factor)) for factor in (2, 3, 4)]
    left = dict(enumerate((2.0, 3.0, 4.0)))
    assert factor_of(call) == 4
    for number in order:
        registrations[number].remove()
        left.pop(number, None)
        assert factor_of(call) == (list(left.values())[-1] if left else own)


def test_a_registration_removed_twice_leaves_the_next_one() -> None:
    first = register_rule(torch.sqrt, multiplied(2))
    first.remove()
    with register_rule(torch.sqrt, multiplied(3)):
        first.remove()
        assert factor_of(torch.sqrt) == 3


def test_registering_in_another_thread_leaves_a_running_explanation_alone() -> None:
    """The rules that are in force when an explanation begins are in force to its end."""
    stop, errors = threading.Event(), []

    def register() -> None:
        try:
            while not stop.is_set():
                with register_rule(torch.sqrt, multiplied(2)), register_rule(plain, multiplied(2)):
                    pass
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=register)
    thread.start()
    try:
        model = Function(lambda x: plain(x).exp())
        found = {round(float(explain_once(model)), 6) for _ in range(20)}
    finally:
        stop.set()
        thread.join()
    assert errors == []
    # By both built-in rules, one registered rule or both.
    assert found <= {round(float(value), 6) for value in possible(model)}


def explain_once(model: nn.Module) -> Tensor:
    explainer = DeepExplainer(model, torch.zeros(2, 5).double(), additivity_tolerance=1e9)
    return explainer.attribute(torch.ones(1, 5).double(), check_additivity=True).values.sum()


def possible(model: nn.Module) -> list[Tensor]:
    found = [explain_once(model)]
    with register_rule(torch.sqrt, multiplied(2)):
        found.append(explain_once(model))
        with register_rule(plain, multiplied(2)):
            found.append(explain_once(model))
    with register_rule(plain, multiplied(2)):
        found.append(explain_once(model))
    return found


def square(x: Tensor) -> Tensor:
    """Of this name only."""
    return x**3


def dispatching(x: Tensor) -> Tensor:
    if has_torch_function_unary(x):
        return handle_torch_function(dispatching, (x,), x)  # type: ignore[no-any-return]
    return x**3


dispatching.__name__ = "square"


@functools.wraps(torch.nn.functional.relu)
def wrapped(x: Tensor) -> Tensor:
    if has_torch_function_unary(x):
        return handle_torch_function(wrapped, (x,), x)  # type: ignore[no-any-return]
    return x**3


@torch.library.custom_op("deepshap_ext_tests::square", mutates_args=())
def custom(x: Tensor) -> Tensor:
    return x**3


@pytest.mark.parametrize("target", [square, dispatching, wrapped, custom])
def test_a_function_of_the_users_is_not_torchs_of_its_name(target: Any) -> None:
    with register_rule(target, multiplied(2)):
        assert factor_of(torch.square) == factor_of(torch.relu) == 1
        assert factor_of(lambda x: target(x)) == 2


@pytest.mark.parametrize("function", [dispatching, wrapped])
def test_a_function_that_modes_see_is_what_it_computes(function: Callable[[Tensor], Tensor]) -> None:
    expected = DeepExplainer(Function(lambda x: x**3), BACKGROUND).attribute(X).values
    torch.testing.assert_close(DeepExplainer(Function(function), BACKGROUND).attribute(X).values, expected)


def test_a_function_whose_body_comes_back_to_the_mode_is_refused_by_name() -> None:
    def again(x: Tensor) -> Tensor:
        if torch.overrides.has_torch_function_unary(x):
            return handle_torch_function(again, (x,), x)  # type: ignore[no-any-return]
        return x**3

    with pytest.raises(UnsupportedOperationError, match=r"again in Function has no rule"):
        DeepExplainer(Function(again), BACKGROUND)
    with register_rule(again, multiplied(2)):
        assert factor_of(again) == 2


def test_a_lambda_and_a_closure_are_found() -> None:
    power = torch.tensor(3.0).double()

    def closure(x: Tensor, *, exponent: Tensor = power) -> Tensor:
        return torch.polygamma(2, x.abs() + 1) + 0 * power

    in_a_variable = lambda x: torch.polygamma(2, x.abs() + 1)  # noqa: E731
    for function in (closure, in_a_variable):
        code = function.__code__
        model = Function(lambda x, function=function: function(x + 1))
        with pytest.raises(UnsupportedOperationError, match="polygamma"):
            DeepExplainer(model, BACKGROUND)
        with register_rule(function, "integrate"):
            explain(model, X, BACKGROUND, tolerance=1e-11)
        assert function.__code__ is code


def test_a_function_that_has_a_rule_runs_as_it_is_on_other_threads() -> None:
    seen: list[Tensor] = []

    def call(x: Tensor) -> Tensor:
        other = threading.Thread(target=lambda: seen.append(plain(torch.full((2,), 2.0))))
        other.start()
        other.join()
        return plain(x)

    with register_rule(plain, multiplied(2)):
        assert factor_of(call) == 2
    assert seen and all(one.tolist() == [8, 8] for one in seen)


def test_a_rule_registered_later_is_in_force() -> None:
    explainer = DeepExplainer(Function(torch.sqrt), torch.zeros(2, 5).double(), additivity_tolerance=1e9)
    one = torch.ones(1, 5).double()
    before = explainer.attribute(one).values
    with register_rule(torch.sqrt, multiplied(2)):
        assert torch.equal(explainer.attribute(one).values[0], 2 * torch.eye(5).double())
    assert torch.equal(explainer.attribute(one).values, before)


def generator(x: Tensor) -> Any:
    yield x


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (nn.ReLU(), r"is one module: pass its class, ReLU"),
        (functools.partial(torch.relu), r"is a functools\.partial, which calls another function: pass that"),
        (print, r"is compiled, or an object that is called"),
        (torch.ones(2), r"got tensor of dtype torch\.float32 and shape \[2\], which is none of these"),
        ("tanh", r"got 'tanh', which is none of these"),
        (Tensor.size, r"computes no values \(torch\.Tensor\.size\)"),
        (torch.bernoulli, r"is random \(torch\.bernoulli\)"),
        (Module().forward, r"is a method of one object: pass the function itself, Module\.forward"),
        (generator, r"is a generator"),
        (int, r"which is none of these"),
    ],
)
def test_what_no_rule_can_reach_is_refused(target: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"target must be a function of torch.*{message}"):
        register_rule(target, "integrate")


def test_a_rule_that_returns_something_else_is_named() -> None:
    with (
        register_rule(plain, lambda context, x: x),
        pytest.raises(
            TypeError, match=r"^the rule for .*plain must return an Application or None, got tensor of dtype"
        ),
    ):
        explainer_of(plain)


class Third(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**3


def _cubed(**parts: Any) -> Callable[..., Application]:
    """A rule of ``x**3`` with these parts of its application replaced."""
    whole: dict[str, Any] = {
        "forward": lambda x: (x**3, [x]),
        "multipliers": lambda grad, sides: [
            grad * sum(a * b for a, b in itertools.combinations_with_replacement(sides.pair(), 2))
        ],
    }
    return lambda context, module, x: Application(**{"operands": [x], **whole, **parts})


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"operands": [3]}, r"operands must be a list of tensors, got \[3\]"),
        ({"forward": None}, "forward must be a function, got None"),
        ({"multipliers": 3}, "multipliers must be a function, got 3"),
        (
            {"forward": lambda x: x**3},
            "forward must return its result, a tensor or a tuple of tensors, and a list of ten",
        ),
        (
            {"forward": lambda x: (x**3, x)},
            "forward must return its result, a tensor or a tuple of tensors, and a list",
        ),
        ({"forward": lambda x: (3, [x])}, "forward must return its result, a tensor or a tuple of tensors, and a list"),
        (
            {"multipliers": lambda grad, sides: grad},
            "multipliers must return a list of 1, a tensor of each operand's sha",
        ),
        (
            {"multipliers": lambda grad, sides: [grad, grad]},
            "multipliers must return a list of 1, a tensor of each opera",
        ),
        ({"multipliers": lambda grad, sides: [3.0]}, r"multipliers must return a list of 1, .* got \[3\.0\]"),
    ],
)
def test_parts_of_a_rule_that_are_something_else_are_named(parts: dict[str, Any], message: str) -> None:
    model = nn.Sequential(nn.Linear(5, 3), Third(), nn.Linear(3, 1)).double()
    found = Explainer(model, rules={Third: _cubed()}).attribute(X, 0, baselines=BACKGROUND)
    assert float(found.convergence_delta.abs().max()) < 1e-9
    with unchanged(model), pytest.raises(TypeError, match=f"^the rule for Third: {message}"):
        Explainer(model, rules={Third: _cubed(**parts)}).attribute(X, 0, baselines=BACKGROUND)


def test_an_error_of_a_rules_own_multipliers_is_raised_as_it_is() -> None:
    def fails(grad: Tensor, sides: Any) -> list[Tensor]:
        raise KeyError("mine")

    def rule(context: Any, module: nn.Module, x: Tensor) -> Application:
        return Application([x], lambda x: (x**3, [x]), fails)

    explainer = Explainer(nn.Sequential(nn.Linear(4, 3), nn.SiLU(), nn.Linear(3, 1)), rules={nn.SiLU: rule})
    with pytest.raises(KeyError, match="mine"):
        explainer.attribute(torch.randn(2, 4), 0, baselines=torch.randn(3, 4))


def test_a_functions_apply_stands_for_the_function() -> None:
    with register_rule(Cube.apply, multiplied(2)):
        assert factor_of(Cube.apply) == 2


def test_a_rule_in_a_transform_of_torch_func_is_refused() -> None:
    with (
        register_rule(plain, multiplied(2)),
        pytest.raises(UnsupportedOperationError, match=r"plain in Function runs inside"),
    ):
        DeepExplainer(Function(lambda x: torch.func.vmap(plain)(x)), BACKGROUND)


@pytest.mark.parametrize("name", TARGETS)
def test_a_mapping_holds_for_one_explainer(name: str) -> None:
    target, call = TARGETS[name]
    model = call if isinstance(call, nn.Module) else Function(call)
    plain = explainer_of(model)
    own = factor_by(plain)
    twice, thrice = (explainer_of(model, rules={target: multiplied(factor)}) for factor in (2, 3))
    assert [factor_by(one) for one in (twice, plain, thrice, twice)] == [2, own, 3, 2]
    with register_rule(target, multiplied(4)):
        assert [factor_by(one) for one in (thrice, plain, twice, explainer_of(model))] == [3, 4, 2, 4]
    assert [factor_by(one) for one in (twice, plain, thrice)] == [2, own, 3]


def test_what_a_mapping_does_not_name_is_as_registered() -> None:
    with register_rule(torch.sqrt, multiplied(5)), register_rule(plain, multiplied(7)):
        assert factor_of(lambda x: torch.sqrt(plain(x)), rules={torch.sqrt: multiplied(2)}) == 14


@pytest.mark.parametrize("rule", ["integrate", "rescale"])
def test_a_mapping_names_rules_as_a_registration_does(rule: Any) -> None:
    expected = DeepExplainer(Function(lambda x: x**3), BACKGROUND).attribute(X).values
    model = nn.Sequential(Module())
    for target in (Module, torch.pow):
        found = explain(model, X, BACKGROUND, rules={target: rule}).values
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_a_mapping_of_maxima_alone_is_its_string() -> None:
    model = nn.Sequential(nn.MaxPool1d(3, 2), nn.Tanh()).double()
    x, background = X[:, None], BACKGROUND[:, None]
    routed, shared = (DeepExplainer(model, background, rules=rules) for rules in ({}, {"maxima": "shapley"}))
    assert repr(routed) == repr(DeepExplainer(model, background))
    assert repr(shared) == repr(DeepExplainer(model, background, rules="shapley"))
    expected = DeepExplainer(model, background, rules="shapley").attribute(x).values
    assert torch.equal(shared.attribute(x).values, expected)
    assert not torch.allclose(routed.attribute(x).values, expected)
    both = DeepExplainer(model, background, rules={nn.Tanh: "rescale", "maxima": "shapley"})
    torch.testing.assert_close(both.attribute(x).values, expected, rtol=1e-9, atol=1e-11)


def test_equal_mappings_share_what_was_found_out_about_the_model() -> None:
    runs = []

    class Counted(Module):
        def forward(self, x: Tensor) -> Tensor:
            runs.append(len(x))
            return super().forward(x)

    rule = multiplied(2)
    model = nn.Sequential(Counted(), Module())
    for options, known in [
        ({"rules": {Module: rule}}, False),
        ({"rules": {Module: rule}}, True),
        ({"rules": {Module: multiplied(2)}}, False),
        ({"rules": {Module: "rescale", torch.erf: "integrate"}}, False),
        ({"rules": {Module: "rescale", torch.erf: "integrate"}}, True),
        ({"rules": {Module: "integrate", torch.erf: "integrate"}}, False),
        ({}, False),
        ({"rules": {}}, True),
    ]:
        runs.clear()
        explainer_of(model, **options)
        assert (not runs) == known, options


def test_an_explainer_with_rules_of_its_own_is_shown_and_pickled() -> None:
    model = nn.Sequential(Module())
    explainer = DeepExplainer(model, BACKGROUND, rules={Module: "rescale", torch.sqrt: plain})
    assert "rules={Module: 'rescale', sqrt: plain, 'maxima': 'deeplift'}, softmax='logmean'" in repr(explainer)
    found = pickle.loads(pickle.dumps(DeepExplainer(model, BACKGROUND, rules={Module: "rescale"}))).attribute(X)
    assert torch.equal(found.values, explainer.attribute(X).values)


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        (
            {"maximum": "shapley"},
            TypeError,
            "a key of rules other than 'maxima' must be a function of torch, .*got 'maximum'",
        ),
        ({nn.ReLU(): "rescale"}, TypeError, "a key of rules .*is one module: pass its class, ReLU"),
        ({torch.bernoulli: "rescale"}, TypeError, r"a key of rules .* is random \(torch\.bernoulli\)"),
        ({nn.ReLU: 3}, TypeError, r"rules\[ReLU\] must be a function, 'integrate' or 'rescale', got 3"),
        (
            {torch.erf: "shapley"},
            TypeError,
            r"rules\[erf\] must be a function, 'integrate' or 'rescale', got 'shapley'",
        ),
        ({"maxima": "rescale"}, ValueError, r"rules\['maxima'\] must be one of 'deeplift', 'shapley', got 'rescale'"),
        (
            {torch.sin: "rescale", Tensor.sin_: "rescale"},
            ValueError,
            "rules must have one rule an operation, got sin_ twice, in two spell",
        ),
        (
            [(torch.sin, "rescale")],
            ValueError,
            r"rules must be one of .*, or a mapping of functions and classes .*, got \[\(",
        ),
    ],
)
def test_a_mapping_is_checked_as_a_registration_is(rules: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        DeepExplainer(Function(torch.sqrt), BACKGROUND, rules=rules)
