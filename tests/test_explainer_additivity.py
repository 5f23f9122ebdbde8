"""Values that do not add up are an error that says how far they are from it, and where."""

from typing import Any

import pytest
import torch
from checks import unchanged
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
    """The model itself rounds away what its output is made of."""
    model, x, background = Function(lambda x: (x.tanh() + 1e6) - 1e6), torch.randn(5, 3), torch.randn(4, 3)
    explainer = DeepExplainer(model, background, additivity_tolerance=tolerance)
    with pytest.warns(UserWarning, match="the attributions do not add up"):
        found = explainer.attribute(x, check_additivity=False)
    gap = found.convergence_delta.abs()
    sample, output = divmod(int(gap.argmax()), 3)
    message = rf"sample {sample}, output {output} is off by {float(gap.max()):.3g},.* largest output difference .* {allowed} is"
    with unchanged(model, x, background), pytest.raises(AdditivityError, match=message):
        explainer.attribute(x)
    loose = DeepExplainer(model, background, additivity_tolerance=0.5)
    assert torch.equal(loose.attribute(x).values, found.values)


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
