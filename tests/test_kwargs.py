"""Keyword arguments of the model: constants, and rows that hold for a sample and for its baselines."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepshap_ext import DeepExplainer


class Masked(nn.Module):
    """Self-attention over positions that a mask leaves in, with a temperature."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 2)
        self.double()

    def forward(self, x: Tensor, *, mask: Tensor, temperature: float = 1.0, shift: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        scores = (q @ k.mT / temperature).masked_fill(~mask.unsqueeze(1), -torch.inf)
        hidden = torch.softmax(scores, -1) @ v
        weights = mask.to(x.dtype)
        pooled = (torch.tanh(hidden) * weights.unsqueeze(-1)).sum(1) / weights.sum(1, keepdim=True)
        return self.head(pooled if shift is None else pooled + shift)


X = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
BACKGROUND = torch.randn(4, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
MASK = torch.arange(5) < torch.tensor([[5], [3], [2]])
ALL = torch.ones(4, 5, dtype=torch.bool)


class Bound(nn.Module):
    """The model with one sample's mask built in."""

    def __init__(self, model: nn.Module, **kwargs: Any) -> None:
        super().__init__()
        self.model, self.kwargs = model, kwargs

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, **self.kwargs)


def one_by_one() -> Tensor:
    model = Masked()
    return torch.cat(
        [
            DeepExplainer(Bound(model, mask=MASK[row : row + 1], temperature=2.0), BACKGROUND)
            .attribute(X[row : row + 1])
            .values
            for row in range(3)
        ]
    )


@pytest.mark.parametrize("pairing", ["grid", "aligned"])
@pytest.mark.parametrize("max_memory", [None, 1])
def test_a_samples_mask_holds_for_its_baselines(pairing: str, max_memory: int | None) -> None:
    explainer = DeepExplainer(
        Masked(), BACKGROUND, kwargs={"temperature": 2.0}, sample_kwargs={"mask": ALL}, max_memory=max_memory
    )
    found = explainer.attribute(X, pairing=pairing, sample_kwargs={"mask": MASK})
    torch.testing.assert_close(found.values, one_by_one(), rtol=1e-12, atol=1e-14)
    assert not found.values[2, 2:].any(), "masked positions have no part in the output"


def test_shap_values_and_own_baselines_take_rows_too(shap: ModuleType) -> None:
    explainer = DeepExplainer(Masked(), BACKGROUND, kwargs={"temperature": 2.0}, sample_kwargs={"mask": ALL})
    expected = one_by_one()
    values = explainer.shap_values(X, sample_kwargs={"mask": MASK})
    torch.testing.assert_close(torch.from_numpy(values), expected, rtol=1e-12, atol=1e-14)
    own = BACKGROUND.expand(3, *BACKGROUND.shape)
    found = explainer.attribute(X, baselines=own, sample_kwargs={"mask": MASK.numpy()})
    torch.testing.assert_close(found.values, expected, rtol=1e-12, atol=1e-14)
    explanation = explainer(X, sample_kwargs={"mask": MASK})
    assert isinstance(explanation, shap.Explanation) and explanation.values.shape == (3, 5, 4, 2)


def test_constants_are_passed_on_as_they_are_and_not_written_into() -> None:
    class Writes(nn.Module):
        def forward(self, x: Tensor, *, scale: Tensor, double: bool) -> Tensor:
            scale *= 3
            return (x * scale).sum(1) * (2 if double else 1)

    scale = torch.tensor([1.0, 2.0, 3.0])
    explainer = DeepExplainer(Writes(), torch.zeros(2, 3), kwargs={"scale": scale, "double": True})
    torch.testing.assert_close(explainer.attribute(torch.ones(1, 3)).values[0, :, 0], torch.tensor([6.0, 12.0, 18.0]))
    assert torch.equal(scale, torch.tensor([1.0, 2.0, 3.0]))


def test_what_a_row_adds_to_both_sides_cancels() -> None:
    model = Masked()
    shift = torch.randn(4, 4, dtype=torch.float64)
    explainer = DeepExplainer(model, BACKGROUND, sample_kwargs={"mask": ALL, "shift": shift})
    shifted = explainer.attribute(X, sample_kwargs={"shift": shift[:3], "mask": MASK})
    plain = DeepExplainer(model, BACKGROUND, sample_kwargs={"mask": ALL}).attribute(X, sample_kwargs={"mask": MASK})
    torch.testing.assert_close(shifted.values, plain.values, rtol=1e-12, atol=1e-14)
    assert (shifted.output - plain.output).abs().max() > 0.1


@pytest.mark.parametrize(
    ("made_with", "given", "error", "message"),
    [
        ({}, {"mask": MASK}, ValueError, r"must have the names that the explainer was made with, \[\], got \['mask'\]"),
        ({"mask": ALL}, None, ValueError, r"made with, \['mask'\], got \[\]"),
        ({"mask": ALL}, {"mask": ALL}, ValueError, r"sample_kwargs\['mask'\] must have shape \[3, ...\] for 3 samples"),
        (
            {"mask": ALL},
            {"mask": [1, 2, 3]},
            TypeError,
            r"\['mask'\] must be a tensor or .* got \[1, 2, 3\]: pass torch\.tensor",
        ),
        ({"mask": MASK}, None, ValueError, r"sample_kwargs\['mask'\] must have shape \[4, ...\] for 4 samples"),
        ([ALL], None, TypeError, "sample_kwargs must be a dict"),
        (3, None, TypeError, "sample_kwargs must be a dict of the model's keyword arguments by name, got 3"),
        ({1: ALL}, None, TypeError, "sample_kwargs must be a dict of the model's keyword arguments by name"),
        ({"mask": ALL}, 3, TypeError, "sample_kwargs must be a dict of the model's keyword arguments by name, got 3"),
        ({"mask": ALL.to("meta")}, None, ValueError, r"sample_kwargs\['mask'\] is on the meta device"),
        ({"mask": ALL.to_sparse()}, None, TypeError, r"sample_kwargs\['mask'\] must be a dense tensor"),
        ({"mask": "all"}, None, TypeError, r"sample_kwargs\['mask'\] must be a torch tensor or a numpy array, got str"),
        (
            {"mask": ALL / 0 * 0},
            None,
            ValueError,
            r"sample_kwargs\['mask'\] must not hold NaN, got one at index \[0, 0\]",
        ),
        (
            {"x": ALL},
            None,
            ValueError,
            "kwargs and sample_kwargs leave no argument for the inputs: the model takes x, and they name x$",
        ),
    ],
)
def test_bad_keyword_arguments_are_named(made_with: Any, given: Any, error: type[Exception], message: str) -> None:
    constants = {"mask": ALL[:1]} if not made_with else {}
    with pytest.raises(error, match=message):
        DeepExplainer(Masked(), BACKGROUND, kwargs=constants, sample_kwargs=made_with).attribute(X, sample_kwargs=given)


def test_an_argument_is_constant_or_has_rows_but_not_both() -> None:
    with pytest.raises(ValueError, match="must not name the same argument, got mask in both"):
        DeepExplainer(Masked(), BACKGROUND, kwargs={"mask": ALL[:1]}, sample_kwargs={"mask": ALL})
    with pytest.raises(TypeError, match="kwargs must be a dict of the model's keyword arguments"):
        DeepExplainer(Masked(), BACKGROUND, kwargs=3)
    with pytest.raises(
        ValueError,
        match=r"^kwargs and sample_kwargs leave no argument for the inputs: the model takes x, and they name x$",
    ):
        DeepExplainer(Masked(), BACKGROUND, kwargs={"x": BACKGROUND})
    with pytest.raises(ValueError, match=r"^kwargs\['mask'\] is on the meta device"):
        DeepExplainer(Masked(), BACKGROUND, kwargs={"mask": ALL.to("meta")})


def test_rows_that_are_arrays_take_the_models_dtype_and_infinities_are_taken() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 5)

        def forward(self, x: Tensor, *, bias: Tensor) -> Tensor:
            return torch.softmax(self.linear(x) + bias, 1)

    model, x, background = Added(), torch.randn(3, 5), torch.randn(4, 5)
    bias = torch.zeros(3, 5).masked_fill(~MASK, -torch.inf)
    explainer = DeepExplainer(model, background, sample_kwargs={"bias": np.zeros((4, 5))})
    found = explainer.attribute(x, sample_kwargs={"bias": bias.double().numpy()})
    assert found.values.dtype == torch.float32
    assert torch.equal(found.values, explainer.attribute(x, sample_kwargs={"bias": bias}).values)


def test_base_values_of_an_explanation_are_those_under_the_samples_rows(shap: ModuleType) -> None:
    explainer = DeepExplainer(Masked(), BACKGROUND, sample_kwargs={"mask": ALL})
    explanation = explainer(X, sample_kwargs={"mask": MASK})
    total = explanation.values.sum((1, 2)) + explanation.base_values
    np.testing.assert_allclose(total, Masked()(X, mask=MASK).detach().numpy(), rtol=1e-12)
