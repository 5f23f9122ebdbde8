"""captum's classes: where captum is right the same values, in its forms; where it is wrong we add up."""

import inspect
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import captum.attr as theirs
import captum.metrics as metrics
import pytest
import torch
import torch.nn.functional as F
from captum.attr import visualization
from checks import unchanged
from torch import Tensor, nn

import deepshap_ext.captum as ours
from deepshap_ext import Explainer, ExplanationError, MixedSamplesError, UnsupportedOperationError

NAMES = ours.__all__
SHAP = [name for name in NAMES if name.endswith("Shap")]


def rows(number: int, *features: int, seed: int = 1) -> Tensor:
    return torch.randn(number, *features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Net(nn.Module):
    """Two inputs, arguments behind them, and a layer of two tensors; no activation follows another, where captum is wrong."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(4, 6), nn.Linear(3, 6)
        self.branches = Branches()
        self.relu, self.middle, self.sigmoid, self.last = nn.ReLU(), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 3)
        self.double()

    def forward(self, x: Tensor, y: Tensor, scale: Any = 1, shift: Any = 0) -> Tensor:
        one, two = self.branches(self.one(x), self.two(y) * scale)
        return self.last(self.sigmoid(self.middle(self.relu(one + two)))) + shift


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tanh, self.elu = nn.Tanh(), nn.ELU()

    def forward(self, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        return self.tanh(one), self.elu(two)


def images() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.MaxPool2d(2)
    second = nn.Conv2d(4, 3, 2), nn.Softplus(), nn.Conv2d(3, 3, 1), nn.MaxPool2d(2)
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(3, 5), nn.LeakyReLU(), nn.Linear(5, 2)).double()


NET, X, Y = Net(), rows(4, 4), rows(4, 3, seed=2)
BASELINES = rows(5, 4, seed=3), rows(5, 3, seed=4)
OWN = rows(4, 4, seed=5), rows(4, 3, seed=6)
IMAGES, PIXELS, BLANKS = images(), rows(3, 2, 8, 8), rows(4, 2, 8, 8, seed=2)


def captums(name: str, *args: Any, **options: Any) -> Callable[..., Any]:
    """``attribute`` of captum's class of this name."""
    method = getattr(theirs, name)(*args, **options)

    def attribute(*args: Any, **kwargs: Any) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return method.attribute(*args, **kwargs)

    return attribute


def assert_same(one: Any, other: Any) -> None:
    """Equal to 1e-10 of the largest, in the same form."""
    assert type(one) is type(other)
    if isinstance(one, tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b)
    else:
        assert one.shape == other.shape and one.dtype == other.dtype
        assert not one.requires_grad
        assert (one - other.detach()).abs().max() <= 1e-10 * max(float(other.detach().abs().max()), 1e-3)


def baselines_for(name: str) -> Any:
    return BASELINES if name in SHAP else OWN


@pytest.mark.parametrize("method", ["__init__", "attribute"])
@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_captums(name: str, method: str) -> None:
    def arguments(module: Any) -> list[tuple[Any, ...]]:
        extra = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
        parameters = inspect.signature(getattr(getattr(module, name), method)).parameters.values()
        return [(one.name, one.kind, one.default) for one in parameters if one.kind not in extra]

    assert arguments(ours) == arguments(theirs)


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_of_captums_family(name: str) -> None:
    def family(module: Any) -> list[str]:
        bases = inspect.getmro(getattr(module, name))
        return [one.__name__ for one in bases if one.__module__.startswith("captum.attr._utils")]

    own = getattr(ours, name)
    assert set(family(ours)) == set(family(theirs))
    for other in SHAP[:2]:
        assert issubclass(own, getattr(ours, other)) == issubclass(getattr(theirs, name), getattr(theirs, other))


def pairs(x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of inputs and baselines, those of an input one behind the other."""
    return x.repeat_interleave(len(r), 0), r.repeat(len(x), *[1] * (r.dim() - 1))


@pytest.mark.parametrize("multiply", [True, False])
@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap"])
def test_values_of_inputs_equal_captums(name: str, delta: bool, multiply: bool) -> None:
    for model, x, baselines in (
        (NET, (X, Y), baselines_for(name)),
        (IMAGES, PIXELS, BLANKS[: 4 if name in SHAP else 3]),
    ):
        given = {"target": 1, "return_convergence_delta": delta}
        with unchanged(model):
            found = getattr(ours, name)(model, multiply).attribute(x, baselines, **given)
        expected = captums(name, model, multiply)(x, baselines, **given)
        if delta and not multiply:
            # captum's is then the sum of the multipliers less the difference.
            found, expected = found[0], expected[0]
        assert_same(found, expected)


# At the input of an activation captum takes its gradient, and values do not add up.
@pytest.mark.parametrize(("layer", "inside"), [("one", 0), ("branches", 0), ("branches", 1), ("relu", 0), ("last", 1)])
@pytest.mark.parametrize("multiply", [True, False])
@pytest.mark.parametrize("name", ["LayerDeepLift", "LayerDeepLiftShap"])
def test_values_of_layers_equal_captums(name: str, multiply: bool, layer: str, inside: int) -> None:
    module, at_input = getattr(NET, layer), bool(inside)
    given = {"target": 1, "attribute_to_layer_input": at_input}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "something leads from the model's inputs past")
        found = getattr(ours, name)(NET, module, multiply).attribute((X, Y), baselines_for(name), **given)
        named = getattr(ours, name)(NET, layer, multiply).attribute((X, Y), baselines_for(name), **given)
    assert_same(found, captums(name, NET, module, multiply)((X, Y), baselines_for(name), **given))
    assert_same(named, found)


@pytest.mark.parametrize("name", ["LayerDeepLift", "LayerDeepLiftShap"])
def test_the_layer_may_be_set(name: str) -> None:
    """The layer may be set after the explainer was made, as captum's TCAV does."""
    found, expected = (getattr(module, name)(NET, None, False) for module in (ours, theirs))
    for layer in (NET.relu, NET.one, NET.relu):
        found.layer = expected.layer = layer
        given = {"inputs": (X, Y), "baselines": baselines_for(name), "target": 1}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "(something leads from the model's inputs past|Setting forward)")
            assert_same(found.attribute(**given), expected.attribute(**given))


NEURONS = {
    "index": ("last", 1),
    "tuple": ("relu", (4,)),
    "slice": ("relu", (slice(1, 4),)),
    "function": ("last", lambda layer: layer[:, 0] - layer[:, 2]),
    "function of two": ("branches", lambda layers: layers[0][:, 1] + layers[1][:, 2]),
}


@pytest.mark.parametrize("neuron", NEURONS.values(), ids=NEURONS)
@pytest.mark.parametrize("at_input", [True, False])
@pytest.mark.parametrize("name", ["NeuronDeepLift", "NeuronDeepLiftShap"])
def test_values_for_neurons_equal_captums(name: str, at_input: bool, neuron: tuple[str, Any]) -> None:
    layer, selector = getattr(NET, neuron[0]), neuron[1]
    given = {"attribute_to_neuron_input": at_input}
    with unchanged(NET):
        found = getattr(ours, name)(NET, layer).attribute((X, Y), selector, baselines_for(name), **given)
    assert_same(found, captums(name, NET, layer)((X, Y), selector, baselines_for(name), **given))


class Functions(nn.Module):
    """Where captum is wrong, or raises an error: functions, one module twice, windows that overlap, activations in a row, softmax."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.relu, self.pool = nn.Conv1d(2, 4, 3), nn.ReLU(), nn.MaxPool1d(3, 2)
        self.linear, self.softmax = nn.Linear(16, 3), nn.Softmax(1)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = F.elu(self.pool(self.relu(self.conv(x))))
        return self.softmax(self.relu(self.linear(x.flatten(1))))


@pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap", "LayerDeepLift", "LayerDeepLiftShap"])
def test_values_add_up_where_captums_do_not(name: str) -> None:
    model, x, r = Functions(), rows(3, 2, 11), rows(4, 2, 11, seed=2)
    own, (many, theirs_of_many) = r[:3], pairs(x, r)
    layer = [model.pool] if name.startswith("Layer") else []
    explainer = getattr(ours, name)(model, *layer)
    values, delta = explainer.attribute(x, r if name in SHAP else own, 2, return_convergence_delta=True)
    difference = model(many) - model(theirs_of_many) if name in SHAP else model(x) - model(own)
    assert delta.shape == (12 if name in SHAP else 3,)
    assert delta.abs().max() <= 1e-12 * difference[:, 2].abs().max()
    expected = difference[:, 2].view(3, -1).mean(1)
    assert (values.flatten(1).sum(1) - expected).abs().max() <= 1e-12 * expected.abs().max()


@pytest.mark.parametrize("name", ["DeepLiftShap", "LayerDeepLiftShap"])
def test_deltas_of_pairs_are_in_captums_order(name: str) -> None:
    class Polygamma(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.polygamma(2, x + 9)

    model = nn.Sequential(nn.Linear(4, 3), Polygamma(), nn.Linear(3, 1)).double()
    layer = [model[0]] if name.startswith("Layer") else []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*(polygamma|do not add up)")
        # Its gradient does not add up, so that every pair has a delta of its own.
        shap, single = (
            getattr(ours, one)(model, *layer, on_unsupported="gradient") for one in (name, name.removesuffix("Shap"))
        )
        values, delta = shap.attribute(X, BASELINES[0], return_convergence_delta=True)
        of_pairs, expected = single.attribute(*pairs(X, BASELINES[0]), return_convergence_delta=True)
    assert delta.unique().numel() == 20
    assert (delta - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert_same(values, of_pairs.view(4, 5, -1).mean(1))


@pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap", "LayerDeepLift"])
def test_compute_convergence_delta(name: str) -> None:
    layer = [NET.relu] if name.startswith("Layer") else []
    model = getattr(ours, name)(NET, *layer)
    attributions = rows(4, 4, seed=7), rows(4, 3, seed=8)
    for start in (OWN, (BASELINES[0][:1], 0.5), None):
        given = {"attributions": attributions, "start_point": start, "end_point": (X, Y), "target": [0, 1, 2, 0]}
        method = getattr(theirs, name)(NET, *layer)
        assert_same(model.compute_convergence_delta(**given), method.compute_convergence_delta(**given))
    with pytest.raises(AssertionError, match=r"attributions must have 4 rows as end_point, got \[3, 3\]"):
        model.compute_convergence_delta(tuple(one[:3] for one in attributions), OWN, (X, Y), 0)


FORMS = {
    "none": (None, (torch.zeros_like(X), torch.zeros_like(Y))),
    "numbers": ((0, 0.25), (torch.zeros_like(X), torch.full_like(Y, 0.25))),
    "a row": ((OWN[0][:1], OWN[1][:1]), (OWN[0][:1].expand_as(X), OWN[1][:1].expand_as(Y))),
    "a row and a number": ((OWN[0][:1], 2), (OWN[0][:1].expand_as(X), torch.full_like(Y, 2))),
    "one's own and a number": ((OWN[0], 2), (OWN[0], torch.full_like(Y, 2))),
    "one's own and a row": ((OWN[0], OWN[1][:1]), (OWN[0], OWN[1][:1].expand_as(Y))),
}


@pytest.mark.parametrize(("form", "meant"), FORMS.values(), ids=FORMS)
def test_forms_of_baselines(form: Any, meant: tuple[Tensor, Tensor]) -> None:
    explainer = ours.DeepLift(NET)
    assert_same(explainer.attribute((X, Y), form, 0), explainer.attribute((X, Y), meant, 0))
    assert_same(explainer.attribute((X, Y), form, 0), captums("DeepLift", NET)((X, Y), form, 0))


def test_a_function_gives_the_baselines() -> None:
    explainer = ours.DeepLiftShap(NET)
    expected = explainer.attribute((X, Y), BASELINES, 0)
    assert_same(explainer.attribute((X, Y), lambda: BASELINES, 0), expected)
    flipped = ours.DeepLiftShap(IMAGES)
    assert_same(
        flipped.attribute(PIXELS, lambda pixels: pixels.flip(0), 0), flipped.attribute(PIXELS, PIXELS.flip(0), 0)
    )


def test_a_single_input_has_a_single_result_and_a_tuple_a_tuple() -> None:
    explainer = ours.DeepLift(IMAGES)
    found = explainer.attribute(PIXELS, target=0)
    assert isinstance(found, Tensor)
    assert_same(explainer.attribute((PIXELS,), target=0), (found,))
    assert_same(explainer.attribute((PIXELS,), (0,), target=0), (found,))


@pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap"])
@pytest.mark.parametrize("target", [1, torch.tensor(1), torch.tensor([1]), [1, 0, 2, 1], torch.tensor([1, 0, 2, 1])])
def test_targets_are_captums(name: str, target: Any) -> None:
    found = getattr(ours, name)(NET).attribute((X, Y), baselines_for(name), target)
    assert_same(found, captums(name, NET)((X, Y), baselines_for(name), target))


@pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap"])
@pytest.mark.parametrize("target", [(1, 0), [(1, 0), (0, 2), (1, 1)]])
def test_targets_in_several_dimensions(name: str, target: Any) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Unflatten(1, (2, 3))).double()
    found = getattr(ours, name)(model).attribute(X[:3], BASELINES[0][:3], target)
    assert_same(found, captums(name, model)(X[:3], BASELINES[0][:3], target))


@pytest.mark.parametrize("target", [1, (1,), torch.tensor([1]), [(1,), (0,), (2,)]])
def test_a_target_leaves_dimensions_of_size_one_out(target: Any) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Unflatten(1, (3, 1, 1))).double()
    found = ours.DeepLift(model).attribute(X[:3], BASELINES[0][:3], target)
    assert_same(found, captums("DeepLift", model)(X[:3], BASELINES[0][:3], target))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_single_output_needs_no_target(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 1), nn.Tanh(), nn.Flatten(0), nn.Unflatten(0, (-1, *shape))).double()
    found, delta = ours.DeepLift(model).attribute(X, return_convergence_delta=True)
    assert delta.shape == (4,)
    assert_same(found, captums("DeepLift", model)(X))


@pytest.mark.parametrize("further", [2.0, (2.0,), torch.tensor(2.0), (rows(4, 1, seed=9), 3), rows(4, 6, seed=9)])
@pytest.mark.parametrize("name", NAMES)
def test_additional_forward_args(name: str, further: Any) -> None:
    layer = [] if name in ("DeepLift", "DeepLiftShap") else [NET.middle]
    which = {"neuron_selector": 2} if name.startswith("Neuron") else {"target": 1}
    given = {"baselines": baselines_for(name), "additional_forward_args": further, **which}
    found = getattr(ours, name)(NET, *layer).attribute((X, Y), **given)
    # captum's classes for distributions take a tuple only.
    given["additional_forward_args"] = further if isinstance(further, tuple) else (further,)
    assert_same(found, captums(name, NET, *layer)((X, Y), **given))


CUSTOM = {
    "multipliers": lambda multipliers: tuple(m.abs() for m in multipliers),
    "and inputs": lambda multipliers, inputs: tuple(m * x for m, x in zip(multipliers, inputs, strict=True)),
    "and baselines": lambda multipliers, inputs, baselines: tuple(
        m * (x - r).abs() for m, x, r in zip(multipliers, inputs, baselines, strict=True)
    ),
}


@pytest.mark.parametrize("custom", CUSTOM.values(), ids=CUSTOM)
@pytest.mark.parametrize("name", NAMES)
def test_custom_attribution_functions(name: str, custom: Any) -> None:
    layer = [] if name in ("DeepLift", "DeepLiftShap") else [NET.last if name.startswith("Neuron") else NET.branches]
    which = {"neuron_selector": 2} if name.startswith("Neuron") else {"target": 1}
    given = {"baselines": baselines_for(name), "custom_attribution_func": custom, **which}
    found = getattr(ours, name)(NET, *layer).attribute((X, Y), **given)
    assert_same(found, captums(name, NET, *layer)((X, Y), **given))


def test_custom_functions_are_given_tuples_of_a_single_tensor() -> None:
    def custom(multipliers: Any, inputs: Any) -> Any:
        assert isinstance(multipliers, tuple) and isinstance(inputs, tuple)
        return tuple(m.sum((2, 3)) for m in multipliers)

    found = ours.DeepLiftShap(IMAGES).attribute(PIXELS, BLANKS, 0, custom_attribution_func=custom)
    assert found.shape == (3, 2)


def second_neuron(layer: Tensor) -> Tensor:
    return layer[:, 1]


@pytest.mark.parametrize("selector", [2, (slice(1, 3),), second_neuron], ids=["index", "slice", "function"])
def test_an_explainer_of_neurons_is_pickled(selector: Any) -> None:
    explainer = ours.NeuronDeepLift(NET, NET.middle)
    expected = explainer.attribute((X, Y), selector)
    assert_same(pickle.loads(pickle.dumps(explainer)).attribute((X, Y), selector), expected)


@pytest.mark.parametrize("name", ["NeuronDeepLift", "NeuronDeepLiftShap"])
@pytest.mark.parametrize("layer", ["middle", "branches"])
def test_a_selector_may_return_one_number_for_all_that_it_is_given(name: str, layer: str) -> None:
    def total(neurons: Any) -> Tensor:
        return sum(one[:, 1:4].sum() for one in (neurons if isinstance(neurons, tuple) else (neurons,)))

    given = (X, Y), total, baselines_for(name)
    found = getattr(ours, name)(NET, getattr(NET, layer)).attribute(*given)
    assert_same(found, captums(name, NET, getattr(NET, layer))(*given))


def test_what_is_behind_a_neuron_does_not_matter() -> None:
    model = nn.Sequential(NET.one, nn.Tanh(), Called(lambda x: torch.polygamma(2, x + x.mean(0))))
    found = ours.NeuronDeepLift(model, model[1]).attribute(X, 2, OWN[0])
    assert_same(found, ours.DeepLift(model[:2]).attribute(X, OWN[0], 2))


def test_the_network_before_a_layer_is_found_out_about_once_for_all_its_neurons() -> None:
    runs: list[int] = []
    model = nn.Sequential(NET.one, Called(lambda x: (runs.append(len(x)), x.tanh())[1]))
    explainer = ours.NeuronDeepLift(model, model[1])
    counts = []
    for neuron in (2, 2, (3,), -1):
        runs.clear()
        explainer.attribute(X, neuron)
        counts.append(len(runs))
    assert counts[0] > counts[1] == counts[2] == counts[3]


class Inside(nn.Module):
    """A layer that is used twice, and written into after it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.double()

    def forward(self, x: Tensor, *, bias: Any = 0) -> Tensor:
        x = self.linear(x).relu_() + bias
        return self.linear(x).relu_()


@pytest.mark.parametrize("call", [0, 1])
def test_a_neuron_of_one_call_of_a_layer_before_it_is_written_into(call: int) -> None:
    model = Inside()
    found = ours.NeuronDeepLift(model, model.linear, call=call, kwargs={"bias": 1.0}).attribute(X, 2, OWN[0])

    def neuron(x: Tensor) -> Tensor:
        return model.linear(model.linear(x).relu() + 1 if call else x)[:, 2]

    with torch.no_grad():
        difference = neuron(X) - neuron(OWN[0])
    assert (found.sum(1) - difference).abs().max() <= 1e-12


def test_a_neuron_needs_its_layer_once() -> None:
    model = Inside()
    with unchanged(model), pytest.raises(AssertionError, match="call must say which of the layer's 2 runs"):
        ours.NeuronDeepLift(model, model.linear).attribute(X, 2)


@pytest.mark.parametrize("name", ["DeepLift", "NeuronDeepLift"])
def test_results_and_inputs_carry_no_gradient_and_nothing_changes(name: str) -> None:
    x, r = X.clone().requires_grad_(), OWN[0].clone().requires_grad_()
    layer, which = ([NET.one], {"neuron_selector": 0}) if name != "DeepLift" else ([], {"target": 0})
    with unchanged(NET, x, r):
        found = getattr(ours, name)(NET, *layer).attribute((x, Y), baselines=(r, 0), **which)
    assert not any(one.requires_grad for one in found)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["DeepLift", "DeepLiftShap", "NeuronDeepLift"])
def test_values_have_the_inputs_dtype(name: str, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    layer, which = ([model[0]], {"neuron_selector": 0}) if name == "NeuronDeepLift" else ([], {"target": 0})
    found = getattr(ours, name)(model, *layer).attribute(X.to(dtype), baselines=BASELINES[0][:4].to(dtype), **which)
    assert found.dtype == dtype


def test_integers_are_codes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Tanh(), nn.Linear(15, 2)).double()
    codes = torch.randint(7, (3, 5))
    values, delta = ours.DeepLift(model).attribute(codes, 6, 0, return_convergence_delta=True)
    assert values.shape == codes.shape and values.dtype == torch.float64
    assert delta.abs().max() <= 1e-12
    with pytest.raises(AssertionError, match=r"multiply_by_inputs must be True for inputs of torch.int64"):
        ours.DeepLift(model, False).attribute(codes, 6, 0)
    with pytest.raises(AssertionError, match=r"custom_attribution_func must be None for inputs of torch.int64"):
        ours.DeepLift(model).attribute(codes, 6, 0, custom_attribution_func=CUSTOM["multipliers"])


ERRORS: dict[str, tuple[str, dict[str, Any], str]] = {
    "inputs": ("DeepLift", {"inputs": [X, Y]}, "inputs must be a tensor or a tuple of tensors, got"),
    "not finite": ("DeepLift", {"inputs": (X / 0, Y)}, r"inputs\[0\] must be finite"),
    "number of baselines": ("DeepLift", {"baselines": 0}, r"baselines must be one for each of the 2 input\(s\), got 1"),
    "rows of baselines": (
        "DeepLift",
        {"baselines": (X[:2], 0)},
        r"baselines must be a number or of shape \[4, 4\] or \[1, 4\], got",
    ),
    "lists of baselines": ("DeepLift", {"baselines": ([0.0], 0)}, "baselines must be a number or of shape"),
    "dtype of baselines": (
        "DeepLift",
        {"baselines": (X.int(), 0)},
        r"baselines\[0\] must be of inputs' dtype torch.float64, got torch.int32",
    ),
    "distribution of numbers": (
        "DeepLiftShap",
        {"baselines": (0, 1)},
        "baselines must be a tensor or a tuple of tensors, got 0",
    ),
    "distribution of nothing": (
        "DeepLiftShap",
        {"baselines": None},
        "baselines must be a tensor or a tuple of tensors, got None",
    ),
    "number of distributions": ("DeepLiftShap", {"baselines": X}, "baselines must be one for each of the 2"),
    "no target": ("DeepLift", {"target": None}, r"target must be an index into outputs of shape \[3\], got None"),
    "target": ("DeepLift", {"target": 3}, r"target must be an index into outputs of shape \[3\], got 3"),
    "targets": (
        "DeepLift",
        {"target": [0, 1]},
        "target must be one index, or a list of one a sample for 4 samples, got 2",
    ),
    "arguments": (
        "DeepLift",
        {"additional_forward_args": X[:3]},
        r"additional_forward_args\[0\] must have shape \[4, ...\]",
    ),
    "custom": (
        "DeepLift",
        {"custom_attribution_func": lambda: 0},
        "custom_attribution_func must be a function of one to three",
    ),
    "made": (
        "DeepLift",
        {"custom_attribution_func": lambda m: m[0]},
        "custom_attribution_func must return tensors as it is given them",
    ),
    "neuron": (
        "NeuronDeepLift",
        {"neuron_selector": 6},
        r"neuron_selector must be an index into a layer of shape \[6\], got \(6,\)",
    ),
    "neurons": (
        "NeuronDeepLift",
        {"neuron_selector": (0, 0)},
        r"neuron_selector must be an index into a layer of shape \[6\]",
    ),
    "several": (
        "NeuronDeepLiftShap",
        {"neuron_selector": lambda layer: layer},
        r"select one number a row, got numbers of shape \[6\]",
    ),
    "no inputs": ("DeepLift", {"inputs": ()}, r"inputs must be a tensor or a tuple of tensors, got \(\)"),
    "a number": ("DeepLift", {"inputs": torch.tensor(1.0)}, r"inputs must have shape \[N, \.\.\.\], got a single"),
    "whether": ("DeepLift", {"return_convergence_delta": "no"}, "return_convergence_delta must be True or False, got"),
    "which side": ("NeuronDeepLift", {"attribute_to_neuron_input": 1}, "attribute_to_neuron_input must be True or"),
    "outputs": (
        "DeepLift",
        {"target": torch.tensor([[0], [1], [2], [0]])},
        r"target must be one output for all samples, or one a sample, \[N\], got .*shape \[4, 1\]",
    ),
    "rows": (
        "NeuronDeepLift",
        {"neuron_selector": (slice(1, 3), 0)},
        r"neuron_selector must be an index into a layer of shape \[6\]",
    ),
}


@pytest.mark.parametrize(("name", "wrong", "message"), ERRORS.values(), ids=ERRORS)
def test_wrong_arguments_are_assertion_errors(name: str, wrong: dict[str, Any], message: str) -> None:
    layer, which = ([NET.relu], {"neuron_selector": 0}) if name.startswith("Neuron") else ([], {"target": 0})
    explainer = getattr(ours, name)(NET, *layer)
    with unchanged(NET), pytest.raises(AssertionError, match=message):
        explainer.attribute(**{"inputs": (X, Y), "baselines": baselines_for(name), **which, **wrong})


def test_an_index_needs_a_layer_of_one_tensor() -> None:
    with pytest.raises(AssertionError, match="neuron_selector must be a function for a layer of 2 tensors, got"):
        ours.NeuronDeepLift(NET, NET.branches).attribute((X, Y), 0)


def test_a_layer_is_one_module() -> None:
    with pytest.raises(AssertionError, match=r"layer must be a module of the model, or its name, got \[ReLU\(\)\]"):
        ours.LayerDeepLift(NET, [NET.relu])


def test_nothing_is_computed_as_a_future() -> None:
    with pytest.raises(NotImplementedError, match="attribute_future is not implemented for DeepLift"):
        ours.DeepLift(NET).attribute_future()


class Called(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _fails(x: Tensor) -> Tensor:
    assert x.shape[1] == 3, "three columns"
    return x


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda x: torch.polygamma(2, x), UnsupportedOperationError, "polygamma"),
        (lambda x: x - x.mean(0), MixedSamplesError, "sample"),
        (lambda x: x @ torch.ones(3, 3), ExplanationError, "the model does not run on inputs "),
        (_fails, AssertionError, "three columns"),
    ],
)
def test_what_the_model_does_wrong_is_raised(function: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as raised:
        ours.DeepLift(Called(function)).attribute(X, target=0)
    assert type(raised.value) is error


def test_advice_is_about_captums_classes() -> None:
    with pytest.raises(
        UnsupportedOperationError, match=r"explain a layer behind it with LayerDeepLift\(model, layer\)"
    ):
        ours.DeepLift(Called(lambda x: torch.polygamma(2, x))).attribute(X, target=0)
    model, tokens = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 1)), torch.tensor([[1, 2]])
    with pytest.raises(ExplanationError, match="explain what it returns with attribute_to_layer_input=False"):
        ours.LayerDeepLift(model, model[0]).attribute(tokens, attribute_to_layer_input=True)
    with pytest.raises(AssertionError, match=r"looks them up returns, with LayerDeepLift\(model, layer\)"):
        ours.DeepLift(model, multiply_by_inputs=False).attribute(tokens)
    assert ours.LayerDeepLift(model, model[0]).attribute(tokens).shape == (1, 2, 4)


def test_values_that_do_not_add_up_are_a_warning() -> None:
    explainer = ours.DeepLift(Called(lambda x: torch.polygamma(2, x + 9)), on_unsupported="gradient")
    with pytest.warns(UserWarning, match="polygamma"), pytest.warns(UserWarning, match="attributions do not add up"):
        explainer.attribute(X, target=0)


def test_options_are_the_explainers() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)).double()
    found = ours.DeepLiftShap(model, softmax="centered").attribute(X, BASELINES[0], 1)
    expected = Explainer(model, softmax="centered").attribute(X, 1, baselines=BASELINES[0])
    assert torch.equal(found, expected.values)
    for name in NAMES:
        layer = [] if name in ("DeepLift", "DeepLiftShap") else [model[0]]
        assert getattr(ours, name)(model, *layer, max_memory=2**30).multiplies_by_inputs


@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
@pytest.mark.parametrize("name", ["DeepLift", "LayerDeepLift", "NeuronDeepLift"])
def test_captums_noise_tunnel_takes_the_classes(name: str, kind: str) -> None:
    layer, which = ([NET.middle], {"neuron_selector": 1}) if name.startswith("Neuron") else ([], {"target": 2})
    layer = [NET.relu] if name.startswith("Layer") else layer
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Setting forward")
        found, expected = (
            (torch.manual_seed(0), theirs.NoiseTunnel(getattr(module, name)(NET, *layer)))[1].attribute(
                (X, Y), nt_type=kind, nt_samples=3, stdevs=0.1, baselines=OWN, **which
            )
            for module in (ours, theirs)
        )
    assert_same(found, expected)


def test_captums_metrics_take_the_classes() -> None:
    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.randn_like(inputs)
        return noise, inputs - noise

    explainer = ours.DeepLift(IMAGES)
    values = explainer.attribute(PIXELS, target=1)
    assert metrics.infidelity(IMAGES, perturb, PIXELS, values, target=1, n_perturb_samples=2).shape == (3,)
    found = metrics.sensitivity_max(explainer.attribute, PIXELS, target=1, n_perturb_samples=2)
    assert found.shape == (3,) and (found > 0).all()


def test_captums_visualization_takes_the_values() -> None:
    values = ours.DeepLiftShap(IMAGES).attribute(PIXELS, BLANKS, 0)
    shown = values[0].permute(1, 2, 0).numpy()
    figure, _ = visualization.visualize_image_attr(shown, use_pyplot=False)
    assert figure.axes


def test_a_layer_in_the_size_of_the_image() -> None:
    values = ours.LayerDeepLift(IMAGES, IMAGES[0]).attribute(PIXELS, target=0)
    assert ours.LayerDeepLift.interpolate(values, (8, 8)).shape == (3, 4, 8, 8)


WITHOUT = """
import sys
sys.modules["captum"] = None
import torch
from torch import nn
from deepshap_ext import captum

torch.manual_seed(0)
model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2))
x, r = torch.randn(3, 2, 5), torch.randn(4, 2, 5)
for name in captum.__all__:
    inside = [] if name.startswith("Deep") else [model[1]]
    explainer = getattr(captum, name)(model, *inside)
    assert explainer.multiplies_by_inputs and explainer.forward_func is model
    if name.startswith("Neuron"):
        assert not explainer.has_convergence_delta()
        assert explainer.attribute(x, (1, 2), r[:3]).shape == x.shape
        continue
    assert explainer.has_convergence_delta()
    baselines = r if name.endswith("Shap") else r[:3]
    values, delta = explainer.attribute(x, baselines, 1, return_convergence_delta=True)
    assert len(delta) == (12 if name.endswith("Shap") else 3) and delta.abs().max() < 1e-5
    assert explainer.compute_convergence_delta(values, 0, x, 1).shape == (3,)
assert captum.LayerDeepLift.interpolate(x, 10).shape == (3, 2, 10)
assert not any(one.startswith("captum.") for one in sys.modules)
"""


def test_captum_is_not_needed() -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
