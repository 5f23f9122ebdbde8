"""shap's DeepExplainer: where it is right the same values, indexes and shapes; where it is wrong we add up."""

import sys
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checks import additivity_gap, as_list, run, unchanged
from models import FunctionNet, ModuleNet, Skip, Tokens, TwoInputs, digits, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer


def _shap_values(shap: ModuleType, model: Any, background: Any, x: Any, **options: Any) -> tuple[Any, np.ndarray]:
    """shap's values and its expected value; shap puts the model into eval mode and leaves hooks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        explainer = shap.DeepExplainer(model, background)
        return explainer.shap_values(x, **options), np.asarray(explainer.expected_value)


def _assert_equal(ours: Any, theirs: Any) -> None:
    assert isinstance(ours, list) == isinstance(theirs, list)
    for one, other in zip(as_list(ours), as_list(theirs), strict=True):
        assert isinstance(one, np.ndarray)
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 1e-4 * np.abs(other).max()


def _perceptron(outputs: int) -> nn.Module:
    return spread(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, outputs)))


MODELS = {
    "images": (lambda: spread(ModuleNet(softmax=False)), digits),
    "vectors": (lambda: _perceptron(3), lambda n: torch.randn(n, 6)),
    "one_output": (lambda: _perceptron(1), lambda n: torch.randn(n, 6)),
    "one_feature": (
        lambda: spread(nn.Sequential(nn.Linear(1, 4), nn.ELU(), nn.Linear(4, 2))),
        lambda n: torch.randn(n, 1),
    ),
    "pools_1d": (
        lambda: spread(
            nn.Sequential(nn.Conv1d(2, 3, 2), nn.MaxPool1d(2), nn.Softplus(), nn.Flatten(), nn.Linear(9, 2))
        ),
        lambda n: torch.randn(n, 2, 7),
    ),
    "pools_3d": (
        lambda: spread(
            nn.Sequential(nn.Conv3d(1, 2, 2), nn.MaxPool3d(2), nn.Sigmoid(), nn.Flatten(), nn.Linear(16, 2))
        ),
        lambda n: torch.randn(n, 1, 5, 5, 5),
    ),
    "batch_norm": (
        lambda: spread(
            nn.Sequential(
                nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 2)
            )
        ),
        digits,
    ),
    "two_inputs": (lambda: spread(TwoInputs()), lambda n: [torch.randn(n, 2, 8), torch.randn(n, 4)]),
    "two_inputs_one_output": (lambda: spread(TwoInputs(1)), lambda n: [torch.randn(n, 2, 8), torch.randn(n, 4)]),
    "skip": (lambda: spread(Skip()), lambda n: torch.randn(n, 6)),
}


@pytest.mark.parametrize(("build", "sample"), MODELS.values(), ids=MODELS.keys())
def test_equal_to_shap(shap: ModuleType, build: Any, sample: Any) -> None:
    model, x, background = build(), sample(3), sample(5)
    with unchanged(model, *as_list(x), *as_list(background)):
        explainer = DeepExplainer(model, background)
        ours = explainer.shap_values(x)
    theirs, expected = _shap_values(shap, model, background, x)
    _assert_equal(ours, theirs)
    _assert_equal(explainer.expected_value, expected)


@pytest.mark.parametrize("order", ["max", "min", "max_abs"])
@pytest.mark.parametrize("ranked", [1, 2, 5])
@pytest.mark.parametrize("inputs", [1, 2])
def test_ranked_outputs_equal_shap(shap: ModuleType, order: str, ranked: int, inputs: int) -> None:
    build, sample = MODELS["two_inputs"] if inputs == 2 else MODELS["images"]
    model, x, background = build(), sample(4), sample(3)
    ranked = min(ranked, 3) if inputs == 2 else ranked
    ours, indexes = DeepExplainer(model, background).shap_values(x, ranked_outputs=ranked, output_rank_order=order)
    # shap's own additivity check does not know which outputs it has explained.
    options = {"ranked_outputs": ranked, "output_rank_order": order, "check_additivity": False}
    (theirs, their_indexes), _ = _shap_values(shap, model, background, x, **options)
    _assert_equal(ours, theirs)
    assert isinstance(indexes, Tensor) and indexes.dtype == their_indexes.dtype
    assert torch.equal(indexes, their_indexes)


def test_ranked_outputs_of_one_output_equal_shap(shap: ModuleType) -> None:
    model, x, background = _perceptron(1), torch.randn(3, 6), torch.randn(4, 6)
    ours, indexes = DeepExplainer(model, background).shap_values(x, ranked_outputs=1)
    (theirs, their_indexes), _ = _shap_values(shap, model, background, x, ranked_outputs=1)
    _assert_equal(ours, theirs)
    assert indexes.tolist() == their_indexes.tolist()


class Blocks(nn.Module):
    """shap sees the inputs of a container, but those of a module without children inside its own backward hook."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 3, 2), nn.Linear(48, 3)
        self.block = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.block(self.conv(x)))


@pytest.mark.parametrize(
    ("build", "layer", "sample"),
    [
        (lambda: spread(ModuleNet(softmax=False)), "conv2", digits),
        (lambda: spread(ModuleNet(softmax=False)), "fc2", digits),
        (lambda: spread(ModuleNet(softmax=False)), "conv1", digits),
        (lambda: spread(Skip()), "layer", lambda n: torch.randn(n, 6)),
        (lambda: spread(Blocks()), "block", digits),
        (lambda: spread(Skip()), "head", lambda n: torch.randn(n, 6)),
        (lambda: spread(TwoInputs()), "head", lambda n: [torch.randn(n, 2, 8), torch.randn(n, 4)]),
        (lambda: _perceptron(1), "2", lambda n: torch.randn(n, 6)),
    ],
    ids=["conv2", "fc2", "conv1", "skip", "block", "behind_skip", "two_inputs", "one_output"],
)
def test_layer_equal_to_shap(shap: ModuleType, build: Any, layer: str, sample: Any) -> None:
    model, x, background = build(), sample(3), sample(4)
    explained = model.get_submodule(layer)
    with unchanged(model, *as_list(x), *as_list(background)):
        explainer = DeepExplainer((model, explained), background)
        ours = explainer.shap_values(x)
    theirs, expected = _shap_values(shap, (model, explained), background, x)
    _assert_equal(as_list(ours)[0], as_list(theirs)[0])
    _assert_equal(explainer.expected_value, expected)


@pytest.mark.parametrize(
    "layer", ["conv1", "pool1", "relu1", "dropout1", "conv2", "pool2", "fc1", "relu3", "fc2", "softmax"]
)
def test_layer_adds_up(layer: str) -> None:
    """shap's values do not add up where the layer itself is not linear."""
    model, x, background = spread(ModuleNet()), digits(3), digits(4)
    values = DeepExplainer((model, model.get_submodule(layer)), background).shap_values(x)
    assert additivity_gap(values, run(model, x), run(model, background)) <= 1e-5


class _Overlapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.relu, self.fc = nn.Conv2d(1, 2, 3), nn.MaxPool2d(3, 2), nn.ReLU(), nn.Linear(18, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.pool(self.conv(x))).flatten(1))


class _Functional(_Overlapping):
    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(F.max_pool2d(self.conv(x), 3, 2)).flatten(1))


class _Reused(_Overlapping):
    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.fc(self.relu(F.avg_pool2d(self.relu(self.conv(x)), 3, 2)).flatten(1)) + 1)


@pytest.mark.parametrize("net", [_Overlapping, _Functional, _Reused, FunctionNet])
def test_adds_up_where_shap_does_not(shap: ModuleType, net: type[nn.Module]) -> None:
    model, x, background = spread(net(), 3), digits(4), digits(5)
    values = DeepExplainer(model, background).shap_values(x)
    outputs, baseline_outputs = run(model, x), run(model, background)
    assert additivity_gap(values, outputs, baseline_outputs) <= 1e-5
    try:
        theirs, _ = _shap_values(shap, model, background, x, check_additivity=False)
    except RuntimeError:
        return  # shap refuses modules that are used twice where it does not compute them wrongly
    assert additivity_gap(theirs, outputs, baseline_outputs) > 1e-3


def test_call_returns_an_explanation_with_base_values_and_data(shap: ModuleType) -> None:
    model, x, background = spread(ModuleNet()), digits(3), digits(4)
    explainer = DeepExplainer(model, background)
    with unchanged(model, x, background):
        explanation = explainer(x)
    assert isinstance(explanation, shap.Explanation)
    assert np.array_equal(explanation.values, explainer.shap_values(x))
    assert explanation.base_values.shape == (3, 5)
    assert np.array_equal(explanation.base_values[1], explainer.expected_value)
    assert np.array_equal(explanation.data, x.numpy())
    total = explanation.values.sum((1, 2, 3)) + explanation.base_values
    assert np.allclose(total, run(model, x).numpy(), atol=1e-6)


def test_explanation_can_be_sliced(shap: ModuleType) -> None:
    explainer = DeepExplainer(_perceptron(3), torch.randn(4, 6))
    one = explainer(torch.randn(5, 6))[2, :, 1]
    assert one.values.shape == (6,) and one.data.shape == (6,) and np.shape(one.base_values) == ()


def test_explanation_of_a_numpy_array(shap: ModuleType) -> None:
    x = np.random.randn(3, 6)
    explainer = DeepExplainer(_perceptron(2), np.random.randn(4, 6))
    explanation = explainer(x)
    assert explanation.values.shape == (3, 6, 2)
    assert np.array_equal(explanation.data, x)


def test_explanation_of_several_inputs(shap: ModuleType) -> None:
    build, sample = MODELS["two_inputs"]
    explanations = DeepExplainer(build(), sample(4))(sample(3))
    assert [each.values.shape for each in explanations] == [(3, 2, 8, 3), (3, 4, 3)]
    assert [each.data.shape for each in explanations] == [(3, 2, 8), (3, 4)]
    assert [each.base_values.shape for each in explanations] == [(3, 3), (3, 3)]


def test_explanation_of_a_layer(shap: ModuleType) -> None:
    """The values are those of the layer's inputs and not of X, so that the Explanation has no data."""
    model = spread(Tokens())
    x, background = torch.randint(11, (3, 5)), torch.randint(11, (4, 5))
    explainer = DeepExplainer((model, model.encoder), background)
    explanation = explainer(x)
    assert explanation.values.shape == (3, 5, 6, 4) and explanation.base_values.shape == (3, 4)
    assert explanation.data is None


def test_call_without_shap_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = DeepExplainer(_perceptron(2), torch.randn(4, 6))
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ImportError, match=r"pip install shap, or use shap_values"):
        explainer(torch.randn(2, 6))


def test_shap_values_without_shap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", None)
    assert DeepExplainer(_perceptron(2), torch.randn(4, 6)).shap_values(torch.randn(2, 6)).shape == (2, 6, 2)
