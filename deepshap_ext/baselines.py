"""The baselines that inputs are compared with, and their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .arguments import shown
from .arrays import as_tensor
from .inputs import Columns, Given, check_columns, check_rows, given_tensors, like


@dataclass(frozen=True)
class Baselines:
    """Baselines ``[R, ...]`` that all inputs share, or each input's ``own`` ones ``[N, R, ...]``; ``weights``, ``[R]`` float64, positive,
    the largest 1, on the CPU.

    ``tensors`` are the model's inputs and behind them its further arguments that have a row a sample.
    """

    tensors: Sequence[Tensor]
    weights: Tensor
    own: bool

    @property
    def number(self) -> int:
        return self.weights.shape[0]

    @property
    def weigh_the_same(self) -> bool:
        return bool((self.weights == 1).all())

    @property
    def degrees_of_freedom(self) -> float:
        """One less than the effective number of baselines, ``(sum w)^2 / sum w^2`` (Kish, Survey Sampling, 1965)."""
        # (sum w)^2 - sum w^2 as a sum of positive products, which does not cancel.
        before = self.weights.cumsum(0) - self.weights
        return float(2 * (self.weights * before).sum() / self.weights.square().sum())

    def to(self, dtypes: Sequence[torch.dtype]) -> Baselines:
        """The tensors in these dtypes."""
        tensors = [tensor.to(dtype) for tensor, dtype in zip(self.tensors, dtypes, strict=True)]
        return Baselines(tensors, self.weights, self.own)

    def of(self, inputs: slice) -> Baselines:
        """The baselines of some of the inputs."""
        return Baselines([tensor[inputs] for tensor in self.tensors], self.weights, True) if self.own else self

    def repeated(self, copies: int) -> Baselines:
        """The baselines of a single input, for a batch in which it stands ``copies`` times."""
        return (
            Baselines([t.expand(copies, *t.shape[1:]) for t in self.tensors], self.weights, True) if self.own else self
        )

    def in_a_row(self) -> list[Tensor]:
        """``[rows, ...]``: the baselines of all inputs, one behind the other."""
        return [tensor.flatten(0, 1) if self.own else tensor for tensor in self.tensors]

    def with_rows(self, rows: Sequence[Tensor]) -> Baselines:
        """The baselines with further arguments ``[N, ...]`` of the model, of which each has its input's row; so each input has its own."""
        if not rows:
            return self
        samples = len(rows[0])
        own = self.tensors if self.own else [tensor.expand(samples, *tensor.shape) for tensor in self.tensors]
        theirs = [row.unsqueeze(1).expand(-1, self.number, *row.shape[1:]) for row in rows]
        return Baselines([*own, *theirs], self.weights, True)


def examples(baselines: Baselines, inputs: Sequence[Tensor], number: int) -> list[Tensor]:
    """``[rows, ...]``: the first baselines and behind them the first inputs, at most ``number`` of each."""
    some = [
        tensor[:number].flatten(0, 1)[:number] if baselines.own else tensor[:number] for tensor in baselines.tensors
    ]
    return [torch.cat([r, x[:number]]) for r, x in zip(some, inputs, strict=True)]


def check_baselines(
    given: Sequence[Given], weights: Any, inputs: Sequence[Tensor], columns: Columns, device: torch.device
) -> Baselines:
    """The arguments ``baselines`` and ``weights``, checked; ``inputs`` are X, where that was a data frame with its ``columns``."""
    dims = [one.tensor.dim() for one in given]
    own = dims == [one.dim() + 1 for one in inputs]
    if len(dims) == len(inputs) and not own and dims != [one.dim() for one in inputs]:
        shape = ", ".join(map(str, inputs[0].shape[1:]))
        raise ValueError(
            f"baselines must have shape [baselines, {shape}] or [samples, baselines, {shape}] (for several inputs all likewise), got "
            f"{' and '.join(str(list(one.tensor.shape)) for one in given)}"
        )
    check_rows("baselines", given)
    leading = ["samples", "baselines"] if own else ["baselines"]
    found = like("baselines", given, inputs, leading, "X")
    check_columns("X", given, columns)
    for one, x in zip(found, inputs, strict=True) if own else []:
        if len(one) != len(x) or one.shape[1] == 0 or one.shape[1] != found[0].shape[1]:
            raise ValueError(
                f"baselines must have shape [{len(x)}, baselines, ...] for {len(x)} samples, got {list(one.shape)}"
                + (": one sample is X[None]" if one.shape[1:] == x.shape else "")
            )
    number = found[0].shape[1 if own else 0]
    return Baselines([tensor.to(device) for tensor in found], check_weights(weights, number), own)


def weighted(name: str, value: Any, weights: Any) -> tuple[tuple[list[Given], bool], Any]:
    """What :func:`given_tensors` returns for an argument, and the weights, which may have come with the data (``shap.kmeans``)."""
    if type(value).__name__ == "DenseData" and hasattr(value, "weights"):
        if weights is not None:
            raise TypeError(
                f"weights must be None where {name} have their own, as those of shap.kmeans, got {shown(weights)}"
            )
        given, listed = given_tensors(name, value.data)
        names = [str(column) for column in value.group_names]
        # Where the data was no frame, shap calls the columns by their numbers.
        columns = None if names == [str(number) for number in range(len(names))] else names
        return ([Given(name, given[0].tensor, True, columns)], listed), value.weights
    return given_tensors(name, value), weights


def check_weights(weights: Any, number: int) -> Tensor:
    """``[number]`` float64, on the CPU: the argument ``weights``, all equal for None."""
    if weights is None:
        return torch.ones(number, dtype=torch.float64, device="cpu")
    if isinstance(weights, (list, tuple)):
        try:
            weights = torch.tensor(weights, dtype=torch.float64, device="cpu")
        except (TypeError, ValueError, OverflowError) as error:
            raise TypeError(f"weights must be a list of {number} numbers, got {shown(weights)}") from error
    found = as_tensor("weights", weights)
    if found.is_complex():
        raise TypeError(f"weights must be real, got {found.dtype}")
    found = found.to("cpu", torch.float64)
    if found.shape != (number,):
        raise ValueError(f"weights must have shape [{number}], one for each baseline, got {list(found.shape)}")
    wrong = ~(found.isfinite() & (found > 0))
    if wrong.any():
        raise ValueError(
            f"weights must be positive and finite, got {float(found[wrong][0])} at index {int(wrong.nonzero()[0])}: leave a baseline that "
            f"shall not count out"
        )
    # Only their ratios matter, and sums and squares of very large or small ones would overflow or vanish.
    return (found / found.max()).clamp_min(torch.finfo(found.dtype).tiny)
