"""Values that do not add up are an error that says how far they are from it, and where."""

import re
from typing import Any

import pytest
import torch
from checks import unchanged
from faults import broken
from models import Function
from torch import Tensor

from deepshap_ext import AdditivityError, DeepExplainer, ExplanationError


def _broken(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, 2 * x)


def test_the_samples_with_other_decisions_are_named() -> None:
    model = Function(_broken)
    background = torch.rand(3, 2) + 0.1
    x = torch.tensor([[0.5, 0.5], [0.5, -0.5], [0.1, 0.3], [-1.0, 2.0]])
    explainer = DeepExplainer(model, background)
    with pytest.raises(AdditivityError, match=r"sample\(s\) 1, 3 and for their baselines"):
        explainer.attribute(x)
    with pytest.warns(UserWarning, match=r"sample\(s\) 1, 3 and for their baselines"):
        found = explainer.attribute(x, check_additivity=False)
    gap = found.convergence_delta.abs().amax(1)
    assert gap[[0, 2]].max() < 1e-6
    assert explainer.attribute(x[[0, 2]]).values.shape == (2, 2, 2)


def test_the_samples_are_named_by_their_place_in_the_batch_when_chunked() -> None:
    model = Function(_broken)
    explainer = DeepExplainer(model, torch.rand(3, 2) + 0.1, max_memory=1)
    with pytest.raises(AdditivityError, match=r"sample\(s\) 1, 3 and for their baselines"):
        explainer.attribute(torch.tensor([[0.5, 0.5], [0.5, -0.5], [0.1, 0.3], [-1.0, 2.0]]))


@pytest.mark.parametrize(("tolerance", "allowed"), [(None, "1e-05"), (1e-30, "1e-30")])
def test_additivity_error_says_how_far_and_which_sample(tolerance: float | None, allowed: str) -> None:
    model, x, background = Function(torch.tanh), torch.randn(5, 1), torch.randn(4, 1)
    explainer = DeepExplainer(model, background, additivity_tolerance=tolerance)
    message = (
        rf"sample (\d), output 0 is off by (\S+), (\S+) of its output difference (\S+), where (\S+) is allowed: {allowed} of the "
        rf"difference \(additivity_tolerance=\) and (\S+) for the rounding of the passes"
    )
    with broken("tanh", 1.01):
        with unchanged(model, x, background), pytest.raises(AdditivityError, match=message) as raised:
            explainer.attribute(x)
        with pytest.warns(UserWarning, match=message):
            found = explainer.attribute(x, check_additivity=False)
        loose = DeepExplainer(model, background, additivity_tolerance=0.5)
        assert torch.equal(loose.attribute(x).values, found.values)
    numbers = re.search(message, str(raised.value))
    assert numbers is not None
    sample, (gap, relative, difference, bound, rounding) = int(numbers[1]), map(float, numbers.groups()[1:])
    assert gap == pytest.approx(float(found.convergence_delta[sample].abs()), rel=1e-2)
    assert difference == pytest.approx(float((found.output - found.expected_value)[sample].abs()), rel=1e-2)
    assert relative == pytest.approx(gap / difference, rel=2e-2) == pytest.approx(0.01, rel=2e-2)
    assert bound == pytest.approx(float(allowed) * difference + rounding, rel=2e-2) and rounding < 1e-4


def test_of_several_wrong_samples_the_worst_is_named() -> None:
    model, background = Function(lambda x: x.tanh() + x.sin()), torch.zeros(1, 1)
    x = torch.tensor([[0.1], [3.0], [0.2]])  # tanh has half of the difference, then nearly all, then half
    explainer = DeepExplainer(model, background)
    with (
        broken("tanh", 1.01),
        pytest.raises(AdditivityError, match=r"sample 1, output 0 is off by 0.00995, 0.0087\d* of its"),
    ):
        explainer.attribute(x)


def test_additivity_error_is_an_assertion_error() -> None:
    explainer = DeepExplainer(Function(_broken), torch.rand(3, 2))
    for kind in (AdditivityError, AssertionError, ExplanationError, RuntimeError):
        with pytest.raises(kind, match="the attributions do not add up"):
            explainer.shap_values(-torch.rand(2, 2))


def test_additivity_error_is_shaps_too(shap: Any) -> None:
    from shap.utils._exceptions import ExplainerError

    explainer = DeepExplainer(Function(_broken), torch.rand(3, 2))
    with pytest.raises(ExplainerError, match="the attributions do not add up") as raised:
        explainer.shap_values(-torch.rand(2, 2))
    assert isinstance(raised.value, AdditivityError) and type(raised.value).__name__ == "AdditivityError"


def test_check_additivity_off_warns_and_returns() -> None:
    explainer = DeepExplainer(Function(_broken), torch.rand(3, 2))
    with pytest.warns(UserWarning, match="the attributions do not add up"):
        values = explainer.shap_values(-torch.rand(2, 2), check_additivity=False)
    assert values.shape == (2, 2, 2)
