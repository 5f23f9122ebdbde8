"""shap's and captum's plots take the Explanations as they are, without a warning."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from captum.attr import visualization
from models import Function, ModuleNet, Tokens, TwoInputs, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

matplotlib.use("Agg")
from matplotlib import pyplot as plt

pandas = pytest.importorskip("pandas")

COLUMNS = ["age", "weight", "town"]
FRAME = pandas.DataFrame({"age": [20.0, 50.0, 31.0], "weight": [60.0, 71.5, 80.0], "town": [0, 2, 1]})
SHOWN = FRAME.assign(town=["Rome", "Oslo", "Bern"])
WORDS = np.array("the a cat dog sat ran home away not well .".split())
IDS = torch.tensor([[0, 2, 4, 6, 10], [1, 3, 5, 7, 10], [0, 3, 8, 5, 9]])


@pytest.fixture(autouse=True)
def _closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


class Table(nn.Module):
    """Numbers and, in the last column, the codes of a category."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.town, self.head = nn.Embedding(3, 2), nn.Linear(4, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return 200 + 50 * torch.tanh(self.head(torch.cat([x[:, :2] / 50, self.town(x[:, 2].long())], 1)))


def _labels() -> list[str]:
    return [label.get_text() for axes in plt.gcf().axes for label in axes.get_yticklabels()]


@pytest.mark.parametrize(("outputs", "target"), [(1, None), (3, 1), (3, [0, 2, 1])])
def test_one_output_of_a_data_frame(shap: ModuleType, outputs: int, target: Any) -> None:
    found = DeepExplainer(Table(outputs), FRAME)(FRAME, target, display_data=SHOWN)
    assert found.values.shape == found.data.shape == found.display_data.shape == (3, 3)
    assert found.base_values.shape == (3,)
    assert list(found.feature_names) == COLUMNS
    shap.plots.beeswarm(found, show=False)
    assert set(COLUMNS) <= set(_labels())
    plt.close()
    shap.plots.waterfall(found[1], show=False)
    assert {"50 = age", "Oslo = town"} <= set(_labels())
    # shap writes f(x) and its number at two places that are less than a float32 can tell apart.
    assert len(set(plt.gcf().axes[-1].get_xticks())) == 2


def test_names_of_features_and_outputs(shap: ModuleType) -> None:
    explainer = DeepExplainer(Table(3), FRAME.to_numpy())
    found = explainer(FRAME.to_numpy(), feature_names=COLUMNS, output_names=["red", "green", "blue"])
    assert found.values.shape == (3, 3, 3) and found.base_values.shape == (3, 3)
    one = found[:, :, "green"]
    np.testing.assert_array_equal(one.values, explainer(FRAME, 1).values)
    assert list(one.feature_names) == COLUMNS
    shap.plots.bar(one, show=False)
    assert set(COLUMNS) <= set(_labels())


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (-1, "blue"),
        ([1, 1, 1, 1], "green"),
        ([1, 0, 1, 1], None),
        ([[1], [1], [1], [1]], "green"),
        ([[2, 0], [0, 1], [1, 0], [1, 2]], [["blue", "red"], ["red", "green"], ["green", "red"], ["green", "blue"]]),
    ],
)
def test_names_of_the_explained_outputs(shap: ModuleType, target: Any, names: Any) -> None:
    background, x = torch.randn(5, 3), torch.rand(4, 3)
    explainer = DeepExplainer(Table(3), background.abs() % 3)
    found = explainer(x, torch.tensor(target), output_names=["red", "green", "blue"])
    assert (found.output_names if names is None else np.array(found.output_names).tolist()) == names
    assert np.array(found[2].output_names).tolist() == (names[2] if isinstance(names, list) else names)


def test_as_many_samples_as_features(shap: ModuleType) -> None:
    """shap takes each sample's own names for an axis of the features then: it gets none."""
    found = DeepExplainer(Table(3), FRAME)(FRAME, [[2, 0], [0, 1], [1, 0]], output_names=["red", "green", "blue"])
    assert found[1, :, 0].values.shape == (3,)


def test_text_of_token_ids(shap: ModuleType) -> None:
    explainer = DeepExplainer(spread(Tokens()), IDS.flip(1))
    assert explainer(IDS, 0).data.tolist() == IDS.tolist()
    words = [[str(word) for word in WORDS[row]] for row in IDS]
    one, every = explainer(IDS, 0, display_data=words), explainer(IDS, display_data=words)
    assert one.values.shape == (3, 5) and every.values.shape == (3, 5, 4)
    assert one.data.tolist() == words
    for found in (one, one[0], every, every[1]):
        html = shap.plots.text(found, display=False)
        assert all(word in html for word in np.ravel(found.data))


@pytest.mark.parametrize("target", [None, 1, lambda outputs: outputs.topk(2).indices])
def test_images_are_drawn_with_the_names_of_their_outputs(shap: ModuleType, target: Any) -> None:
    model = Function(lambda self, x: self.net(x[:, :1] * x[:, 1:2] - x[:, 2:]), net=spread(ModuleNet()))
    x, background = torch.rand(2, 3, 9, 9), torch.rand(3, 3, 9, 9)
    explainer = DeepExplainer(model, background)
    names = list("ABCDE")
    found = explainer(x, target, output_names=names, channels_last=True)
    plain = explainer(x, target)
    np.testing.assert_array_equal(found.values, np.moveaxis(plain.values, 1, 3))
    np.testing.assert_array_equal(found.data, np.moveaxis(x.numpy(), 1, 3))
    shap.plots.image(found, show=False)
    titles = [axes.get_title() for axes in plt.gcf().axes]
    assert all(name in titles for name in np.ravel(found.output_names))
    map = found[0].values if target == 1 else found[0].values[..., 0]
    visualization.visualize_image_attr(map, found[0].data, "blended_heat_map", "all", use_pyplot=False)


def test_each_of_several_inputs_is_drawn(shap: ModuleType) -> None:
    x = [torch.randn(3, 2, 8), torch.randn(3, 4)]
    names = [None, ["a", "b", "c", "d"]]
    series, vector = DeepExplainer(spread(TwoInputs()), x)(x, 0, names, channels_last=True)
    assert series.values.shape == series.data.shape == (3, 8, 2) and series.feature_names is None
    assert vector.values.shape == (3, 4) and list(vector.feature_names) == names[1]
    shap.plots.waterfall(vector[0], show=False)


@pytest.mark.parametrize(
    ("model", "x", "options", "message"),
    [
        (Table(2), FRAME, {"feature_names": ["age"]}, r"feature_names must have 3 names for X, got \['age'\]"),
        (Table(2), FRAME, {"feature_names": "age"}, r"feature_names must have 3 names for X, got 'age'"),
        (Table(2), FRAME, {"output_names": ["yes"]}, r"output_names must have 2 names, got \['yes'\]"),
        (Table(2), FRAME, {"output_names": 2}, r"output_names must have 2 names, got 2"),
        (Table(2), FRAME, {"feature_names": 3}, r"feature_names must have 3 names for X, got 3"),
        (
            Function(lambda self, x: self.net(x).unflatten(1, (2, 1)), net=Table(2)),
            FRAME,
            {"output_names": ["no", "yes"]},
            r"output_names must be None for outputs of several dimensions, \[2, 1\], got \['no', 'yes'\]",
        ),
        (
            Table(2),
            FRAME,
            {"display_data": SHOWN[["town", "age", "weight"]]},
            r"display_data must have X's columns in its order, \['age', .*, got \['town', ",
        ),
        (
            Table(2),
            FRAME,
            {"display_data": SHOWN[:2]},
            r"display_data must have X's shape \[3, 3\], got shape \[2, 3\]",
        ),
        (Table(2), FRAME, {"channels_last": 1}, r"channels_last must be True or False, got 1"),
        (
            TwoInputs(),
            [torch.randn(3, 2, 8), torch.randn(3, 4)],
            {"feature_names": list("abcd")},
            r"feature_names must be a list of 2, each for one input or None, got \['a', 'b', 'c', 'd'\]",
        ),
    ],
)
def test_what_does_not_fit_is_named(model: nn.Module, x: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        DeepExplainer(model, x)(x, **options)


def test_a_parameter_is_displayed(shap: ModuleType) -> None:
    x = nn.Parameter(torch.rand(3, 3))
    found = DeepExplainer(Table(1), x)(x, display_data=x)
    np.testing.assert_array_equal(found.display_data.astype(np.float32), found.data)


def test_a_layer_has_no_names() -> None:
    model = spread(ModuleNet())
    images = torch.randn(2, 1, 9, 9)
    explainer = DeepExplainer((model, "fc1"), images)
    with pytest.raises(ValueError, match=r"feature_names and display_data must be None for a layer"):
        explainer(images, feature_names=list("abcdef"))
    assert explainer(images, output_names=list("ABCDE"))[:, :, "C"].values.shape == (2, 6)
    maps = DeepExplainer((model, "conv2"), images)(images, channels_last=True)
    assert maps.values.shape == (2, 3, 3, 4, 5) and maps.data is None
