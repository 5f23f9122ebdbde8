"""Which outputs ``target`` names, in every form that it takes; anything else is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from models import Function

from deepshap_ext import DeepExplainer

X = torch.randn(4, 6)


def explainer(*shape: int) -> DeepExplainer:
    """An explainer of a model whose outputs have this shape for each sample, six elements in all."""
    torch.manual_seed(0)
    weights = torch.randn(6, 6)
    return DeepExplainer(Function(lambda x: (x @ weights).tanh().view(-1, *shape)), torch.randn(3, 6))


def expected(rows: Any, *shape: int) -> torch.Tensor:
    """The values of flattened outputs ``[N]`` or ``[N, K]``, taken from those of all outputs."""
    values = explainer(*shape).attribute(X).values.flatten(2)
    rows = torch.tensor(rows)
    if rows.dim() == 1:
        return values[torch.arange(4), :, rows]
    return torch.stack([values[torch.arange(4), :, column] for column in rows.t()], -1)


ONE_DIMENSION: list[tuple[Any, Any]] = [
    (2, [2] * 4),
    (-1, [5] * 4),
    (np.int8(3), [3] * 4),
    (torch.tensor(3), [3] * 4),
    ((4,), [4] * 4),
    ([0, 5, 2, 2], [0, 5, 2, 2]),
    ([0, -1, 2, -6], [0, 5, 2, 0]),
    (np.array([0, 5, 2, 2], np.uint8), [0, 5, 2, 2]),
    (torch.tensor([0, 5, -4, 2]), [0, 5, 2, 2]),
    ([torch.tensor(1), np.int64(2), 3, 0], [1, 2, 3, 0]),
    ([(0,), (5,), (2,), (-1,)], [0, 5, 2, 5]),
    (torch.tensor([[0], [5], [2], [2]]), [[0], [5], [2], [2]]),
    (np.array([[0, 1], [5, 5], [2, -1], [2, 0]]), [[0, 1], [5, 5], [2, 5], [2, 0]]),
    ([[0, 1, 2]] * 4, [[0, 1, 2]] * 4),
]


@pytest.mark.parametrize(("target", "rows"), ONE_DIMENSION, ids=repr)
@pytest.mark.parametrize("max_memory", [None, 1])
def test_outputs_of_one_dimension(target: Any, rows: Any, max_memory: int | None) -> None:
    found = explainer(6).attribute(X, target)
    torch.testing.assert_close(found.values, expected(rows, 6), rtol=1e-6, atol=1e-7)
    assert found.output.shape == found.expected_value.shape == found.convergence_delta.shape == np.shape(rows)


SEVERAL_DIMENSIONS: list[tuple[Any, Any]] = [
    ((1, 2), [5] * 4),
    ((-1, -3), [3] * 4),
    ((np.int64(0), torch.tensor(1)), [1] * 4),
    ([(0, 0), (1, 2), (0, -1), (1, 0)], [0, 5, 2, 3]),
    ([[(0, 0), (1, 2)]] * 4, [[0, 5]] * 4),
]


@pytest.mark.parametrize(("target", "rows"), SEVERAL_DIMENSIONS, ids=repr)
def test_outputs_of_several_dimensions(target: Any, rows: Any) -> None:
    found = explainer(2, 3).attribute(X, target)
    torch.testing.assert_close(found.values, expected(rows, 2, 3), rtol=1e-6, atol=1e-7)


def test_one_sample_with_a_list_of_one() -> None:
    one = explainer(6)
    assert one.attribute(X[:1], [2]).values.shape == (1, 6)
    assert one.attribute(X[:1], [[2, 3]]).values.shape == (1, 6, 2)
    assert one.attribute(X[:1], [[2]], standard_error=True).standard_error.shape == (1, 6, 1)


REFUSED: list[tuple[tuple[int, ...], Any, type[Exception], str]] = [
    ((6,), 6, ValueError, r"^target must be an index into outputs of shape \[6\], got 6$"),
    ((6,), -7, ValueError, r"^target must be an index into outputs of shape \[6\], got -7$"),
    ((6,), [0, 1, 9, 2], ValueError, r"^target\[2\] must be an index into outputs of shape \[6\], got 9$"),
    ((6,), [[0, 1], [0, 9], [0, 0], [0, 0]], ValueError, r"^target\[1\]\[1\] must be an index .* got 9$"),
    ((6,), [0, 1], ValueError, r"^target must be one index, or a list of one a sample for 4 samples, got 2$"),
    ((6,), [], ValueError, r"^target must be one index, or a list of one a sample for 4 samples, got 0$"),
    ((6,), (0, 1, 2, 3), ValueError, r"outputs of shape \[6\], got \(0, 1, 2, 3\): one a sample is a list$"),
    ((6,), 1.0, TypeError, r"^target must be an index .* an integer or a tuple of integers, got 1\.0$"),
    ((6,), True, TypeError, r"^target must be an index .* got True$"),
    ((6,), "cat", TypeError, r"^target must be an index .* got 'cat'$"),
    ((6,), slice(2), TypeError, r"^target must be an index .* got slice\(None, 2, None\)$"),
    ((6,), Ellipsis, TypeError, r"^target must be an index .* got Ellipsis$"),
    ((6,), torch.tensor(True), TypeError, r"got tensor of dtype torch\.bool and shape \[\]$"),
    ((6,), np.array(1.0), TypeError, r"got array of dtype float64 and shape \[\]$"),
    ((6,), torch.zeros(4), TypeError, r"^target must hold integers, got tensor of dtype torch\.float32 and shape \[4\]$"),
    ((6,), np.ones(4, bool), TypeError, r"^target must hold integers, got array of dtype bool and shape \[4\]$"),
    ((6,), ["a"] * 4, TypeError, r"^target\[0\] must be an index .* got 'a'$"),
    ((6,), [0, 1, True, 0], TypeError, r"^target\[2\] must be an index .* got True$"),
    ((6,), [0, 1, None, 0], TypeError, r"^target\[2\] must be an index .* got None$"),
    ((6,), [0, 1, [2], 0], ValueError, r"^target must have the same number of indices for every sample, got \[0, 1, \[2\], 0\]$"),
    ((6,), [[0, 1], [0], [0], [0]], ValueError, r"^target must have the same number of indices for every sample"),
    ((6,), [[]] * 4, ValueError, r"^target must have the same number of indices for every sample"),
    ((6,), torch.zeros(4, 1, 1, dtype=torch.int64), TypeError, r"^target\[0\]\[0\] must be an index .* got \[0\]$"),
    ((2, 3), 2, ValueError, r"outputs of shape \[2, 3\], got 2: a tuple of 2 integers$"),
    ((2, 3), (0, 3), ValueError, r"^target must be an index into outputs of shape \[2, 3\], got \(0, 3\)$"),
    ((2, 3), (0, None), TypeError, r"^target must be an index .* got None$"),
    ((2, 3), (0, slice(None)), TypeError, r"^target must be an index .* got slice"),
    ((2, 3), [(0, 0), (0, 1), (2, 0), (0, 0)], ValueError, r"^target\[2\] must be an index .* got \(2, 0\)$"),
    ((2, 3), torch.zeros(4, 2, dtype=torch.int64), ValueError, r"^target\[0\]\[0\] .* got 0: a tuple of 2 integers$"),
    ((1, 6), 1, ValueError, r"outputs of shape \[1, 6\], got 1: a tuple of 2 integers$"),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "target", "error", "message"), REFUSED, ids=repr)
def test_refused_by_name(shape: tuple[int, ...], target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        explainer(*shape).attribute(X, target)


def test_ranked_outputs_must_be_an_integer_and_an_order() -> None:
    one = explainer(6)
    values, indices = one.shap_values(X, ranked_outputs=np.int64(2))
    assert values.shape == (4, 6, 2) and indices.shape == (4, 2)
    with pytest.raises(ValueError, match=r"^output_rank_order must be one of .* got array of dtype"):
        one.shap_values(X, ranked_outputs=1, output_rank_order=np.array(["max", "min"]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^ranked_outputs must be None or an integer, got \[1\]"):
        one.shap_values(X, ranked_outputs=[1])  # type: ignore[arg-type]
