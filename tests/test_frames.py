"""Data frames as the background and as samples: their numbers, and what is no number by its column's name."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from checks import unchanged
from models import Skip, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, Explainer

pandas = pytest.importorskip("pandas")

X, BACKGROUND = torch.randn(2, 6), torch.randn(3, 6)
FRAME = pandas.DataFrame(BACKGROUND.numpy(), columns=list("abcdef"))


def net() -> nn.Module:
    torch.manual_seed(0)
    return spread(Skip())


KINDS: dict[str, Callable[[Tensor], Any]] = {
    "plain": lambda t: pandas.DataFrame(t.numpy()),
    "float64": lambda t: pandas.DataFrame(t.double().numpy()),
    "nullable": lambda t: pandas.DataFrame(t.numpy()).astype("Float64"),
    "sparse": lambda t: pandas.DataFrame(t.numpy()).astype(pandas.SparseDtype(np.float32, 0)),
    "columns_of_one_name": lambda t: pandas.DataFrame(t.numpy(), columns=list("aabbcc")),
}


@pytest.mark.parametrize("convert", KINDS.values(), ids=KINDS.keys())
def test_values_are_those_of_the_numbers(convert: Callable[[Tensor], Any]) -> None:
    model = net()
    expected = DeepExplainer(model, BACKGROUND).attribute(X, 1)
    found = DeepExplainer(model, convert(BACKGROUND)).attribute(convert(X), 1)
    assert torch.equal(found.values, expected.values)


def test_frames_of_bools_integers_and_floats() -> None:
    frame = FRAME.assign(e=[True, False, True], f=pandas.array([1, 2, 3], dtype="Int64"))
    numbers = torch.tensor(frame.astype(float).to_numpy())
    model = net()
    assert torch.equal(
        DeepExplainer(model, frame).attribute(frame).values, DeepExplainer(model, numbers).attribute(numbers).values
    )


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "strings": (lambda: FRAME.assign(c="a"), TypeError, "must hold numbers, got column 'c' of dtype"),
    "objects": (lambda: FRAME.assign(c=FRAME.c.astype(object)), TypeError, "got column 'c' of dtype object"),
    "dates": (lambda: FRAME.assign(c=pandas.Timestamp(0)), TypeError, "got column 'c' of dtype datetime64"),
    "complex": (lambda: FRAME.assign(c=1j), TypeError, "got column 'c' of dtype complex128"),
    "categories": (
        lambda: FRAME.assign(c=pandas.Series(list("xyx"), dtype="category")),
        TypeError,
        "got column 'c' of dtype category: leave it out, or encode",
    ),
    "intervals": (lambda: FRAME.assign(c=pandas.interval_range(0, 3)), TypeError, "got column 'c' of dtype interval"),
    "missing": (
        lambda: FRAME.assign(b=[0, None, 1]),
        ValueError,
        "got 1 missing in column 'b', the first in row 1: fill",
    ),
    "missing_nullable": (lambda: FRAME.assign(b=pandas.array([1, 2, None])), ValueError, "got 1 missing in column 'b'"),
    "series": (lambda: FRAME.iloc[0], TypeError, r"got a Series: for one row of a frame pass frame\.iloc\[\[row\]\]"),
}


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_by_name(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    model, data = net(), make()
    with unchanged(model), pytest.raises(error, match=message) as raised:
        DeepExplainer(model, data)
    assert str(raised.value).startswith("data")


def test_targets_are_a_column() -> None:
    explainer, frame = DeepExplainer(net(), FRAME), FRAME.assign(label=[2, 0, 1])
    expected = explainer.attribute(FRAME, [2, 0, 1]).values
    assert torch.equal(explainer.attribute(FRAME, frame.label).values, expected)
    parts = [found.values for _, found in explainer.iterate(FRAME, frame.label.set_axis([7, 5, 3]), rows=2)]
    torch.testing.assert_close(torch.cat(parts), expected)
    with pytest.raises(TypeError, match="target must hold integers, got array of dtype float32"):
        explainer.attribute(FRAME, frame.a)


def test_a_frame_of_integers_for_a_model_of_numbers() -> None:
    model, frame = net(), pandas.DataFrame(np.arange(18).reshape(3, 6))
    expected = DeepExplainer(model, frame.astype(float)).shap_values(frame.astype(float))
    np.testing.assert_allclose(DeepExplainer(model, frame).shap_values(frame), expected)


def test_columns_are_those_of_the_background() -> None:
    explainer = DeepExplainer(net(), FRAME)
    with pytest.raises(
        ValueError, match=r"^X must have the background's columns in its order, \['a', .* got \['f', 'e'"
    ):
        explainer.shap_values(FRAME[FRAME.columns[::-1]])
    with pytest.raises(ValueError, match=r"pass X\[list\(background\.columns\)\]$"):
        explainer.shap_values(FRAME[FRAME.columns[::-1]])
    with pytest.raises(ValueError, match=r"got \['A', 'b', 'c', 'd', 'e', 'f'\]$"):
        explainer.shap_values(FRAME.rename(columns={"a": "A"}))


@pytest.mark.parametrize("explainer", [Explainer(net()), DeepExplainer(net(), FRAME), DeepExplainer(net(), BACKGROUND)])
def test_columns_of_baselines_are_those_of_x(explainer: Any) -> None:
    shap = pytest.importorskip("shap")
    other = FRAME[FRAME.columns[::-1]]
    for baselines in (other, shap.kmeans(other, 2)):
        with pytest.raises(
            ValueError, match=r"^baselines must have X's columns in its order, \['a', .* got \['f', 'e'"
        ):
            explainer.attribute(FRAME, baselines=baselines)
    assert explainer.attribute(FRAME, baselines=FRAME).values.shape == (3, 6, 3)


def test_centres_of_an_array_have_no_columns(shap: ModuleType) -> None:
    explainer = DeepExplainer(net(), shap.kmeans(BACKGROUND.numpy(), 2))
    assert explainer(FRAME).feature_names == list("abcdef")
    assert explainer(X).feature_names is None
    with pytest.raises(TypeError, match=r"^data\[1\] must be .* got DenseData: pass its centres, data\[1\]\.data, and"):
        DeepExplainer(net(), [BACKGROUND, shap.kmeans(BACKGROUND.numpy(), 2)])


def test_shaps_maskers_and_explanations_hold_an_array(shap: ModuleType) -> None:
    for value in (
        shap.maskers.Independent(BACKGROUND.numpy()),
        shap.Explanation(BACKGROUND.numpy(), data=BACKGROUND.numpy()),
    ):
        with pytest.raises(TypeError, match=r"got (Independent|Explanation): pass data\.data$"):
            DeepExplainer(net(), value)
        assert DeepExplainer(net(), value.data).shap_values(X).shape == (2, 6, 3)


def test_an_explanation_keeps_the_names_of_columns(shap: ModuleType) -> None:
    model, numbers = net(), BACKGROUND.numpy()
    assert DeepExplainer(model, BACKGROUND)(FRAME).feature_names == list("abcdef")
    assert DeepExplainer(model, FRAME)(numbers).feature_names == list("abcdef")
    assert DeepExplainer(model, BACKGROUND)(numbers).feature_names is None
    explanation = DeepExplainer(model, FRAME)(FRAME.astype({"a": "Float64"}))
    np.testing.assert_array_equal(explanation.data, numbers)
