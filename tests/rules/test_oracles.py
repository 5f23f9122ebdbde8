"""Every rule is what its formula says, number by number, and as near to the exact Shapley values as tests/rules/samples says.

Over the registry: a rule or a decomposition without a sample fails.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from reference.shapley import distances, of_pairs
from reference.units import multipliers, units, values
from rules.samples import SAMPLES
from rules.samples.sample import Sample, outputs
from torch import Tensor, nn

from deepshap_ext import DeepExplainer
from deepshap_ext.rules.registry import DECOMPOSITIONS, RULES, Options

#: Pairs for a median, and where every one of them is held to a number.
PAIRS, FEW = 20, 2


class Operation(nn.Module):
    def __init__(self, sample: Sample) -> None:
        super().__init__()
        self.sample = sample

    def forward(self, x: Tensor) -> Tensor:
        result = self.sample.op(x)
        # The option "centered" is for a model that ends in its softmax.
        plain = isinstance(result, Tensor) and result.dim() == 2 and not result.is_complex()
        return result if plain else outputs(result)


class Explained(NamedTuple):
    """``x``, ``r``: ``[pairs, *shape]``; ``values``: ``[pairs, *shape, outputs]``; ``called``: the rules and decompositions that ran."""

    x: Tensor
    r: Tensor
    values: Tensor
    called: set[str]


@functools.cache
def explained(name: str) -> Explained:
    """Random pairs, each input with its own baseline."""
    sample = SAMPLES[name]
    x, r = (
        side[: PAIRS if sample.distance else FEW]
        for side in sample.draw(*torch.randn(2, PAIRS, *sample.shape, dtype=torch.float64))
    )
    called: set[str] = set()
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        if sample.options.get("softmax") == "rescale":
            warnings.simplefilter("ignore")  # of values that do not add up
        for table in (RULES, DECOMPOSITIONS):
            for key, rule in table.items():
                patch.setitem(table, key, _noting(key, rule, called))
        explainer = DeepExplainer(Operation(sample), r[:1], **sample.options)
        found = explainer.attribute(x, baselines=r.unsqueeze(1), check_additivity=False).values
    assert isinstance(found, Tensor)
    return Explained(x, r, found, called)


def _noting(name: str, rule: Callable[..., Any], called: set[str]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        called.add(name)
        return rule(*args, **kwargs)

    return run


@pytest.mark.parametrize("name", SAMPLES)
def test_the_multipliers_are_those_of_the_formula(name: str) -> None:
    sample, found = SAMPLES[name], explained(name)
    assert name.partition(":")[0] in found.called
    for x, r, ours in zip(found.x[:FEW].numpy(), found.r[:FEW].numpy(), found.values.flatten(1, -2), strict=False):
        slowly = np.asarray(sample.slowly(units(x, r)), dtype=object).ravel()
        contributions = multipliers(slowly).T * (x - r).reshape(-1, 1)
        torch.testing.assert_close(ours, torch.from_numpy(contributions), rtol=1e-11, atol=1e-12)
        if sample.options.get("softmax") != "rescale":  # the oracle itself adds up
            of_x, of_r = values(slowly)
            np.testing.assert_allclose(contributions.sum(0), of_x - of_r, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_distance_to_the_exact_shapley_values(name: str) -> None:
    sample, found = SAMPLES[name], explained(name)
    features = tuple(range(2, found.x.dim()))
    exact = of_pairs(sample.worth or Operation(sample), found.x, found.r)
    far = distances(found.values.sum(features) if features else found.values, exact)
    if sample.distance == 0:
        assert far.max() < 1e-11
    else:
        assert far.median() <= sample.distance


@pytest.mark.parametrize("name", sorted(RULES | DECOMPOSITIONS))
def test_every_rule_has_a_sample(name: str) -> None:
    assert name in {key.partition(":")[0] for key in SAMPLES}


def test_every_choice_of_rules_has_a_sample() -> None:
    hints = typing.get_type_hints(Options)
    for field in dataclasses.fields(Options):
        if field.name not in ("on_unsupported", "own"):  # which choose between none of ours
            argument = {"maxima": "rules"}.get(field.name, field.name)
            taken = {sample.options.get(argument, field.default) for sample in SAMPLES.values()}
            assert taken == set(typing.get_args(hints[field.name]))
