"""The additivity check: whether the values of an explanation add up to the difference of the model's outputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .arguments import shown
from .arrays import all_finite
from .capture.graph import Cut
from .errors import additivity_error, integrals_at_fault, integrate_instead
from .explained import Explained
from .found import Found
from .rounding import Rounding, tf32

#: What to do where values do not add up: raise, warn, or not look.
Check = Literal[True, False, "ignore"]

#: By dtype, how far the values for one output of one sample may be from adding up to its output difference, relative to that difference.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-2}
#: How many standard errors of rounding are allowed on top of that.
STANDARD_ERRORS = 6.0

#: The number that messages give to the first sample.
_first: ContextVar[int] = ContextVar("first", default=0)


@contextmanager
def numbered_from(first: int) -> Iterator[None]:
    """In this context messages number the samples from ``first`` on: they are the rows from there on of a larger X."""
    token = _first.set(first)
    try:
        yield
    finally:
        _first.reset(token)


def check_choice(check: Any) -> Check:
    """The argument ``check_additivity``, checked."""
    if isinstance(check, (bool, np.bool_)):
        return bool(check)
    if not isinstance(check, str):
        raise TypeError(f"check_additivity must be True, False or 'ignore', got {shown(check)}")
    if check != "ignore":
        raise ValueError(f"check_additivity must be True, False or 'ignore', got {shown(check)}")
    return "ignore"


class Balance:
    """What the values of an explanation add up to and what they should add up to, for ``N`` inputs and ``K`` outputs each.

    ``outputs``, ``expected`` and ``difference``, ``[N, K]`` float64: the explained outputs, their mean over the baselines, and
    ``outputs - expected``.
    """

    def __init__(self, explained: Explained) -> None:
        self.explained = explained
        self.outputs, self.expected = explained.outputs.double(), explained.expected
        self.difference = self.outputs - self.expected
        self._gaps: dict[tuple[int, ...], Tensor] = {}

    def gaps(self, cut: Cut) -> Tensor:
        """``[N, K]`` float64: the gap of additivity of a cut, the sum of its layers' values less the output difference."""
        layers = tuple(cut.layers)
        if layers not in self._gaps:
            weights = self.explained.weights
            totals = [found.totals.mean(weights).t() for found in _found(self.explained, cut)]
            self._gaps[layers] = _summed(totals) - self.difference
        return self._gaps[layers]


def check_sums(balance: Balance, check: Check, tolerance: float | None, layers: int | None, rounding: Rounding) -> None:
    """Raise or warn, as ``check`` says, where values do not add up; warn of layers whose values cannot, because they are bypassed.

    ``tolerance``: as the user gave it. ``layers``: how many layers are explained; 0 for the model's own inputs, None for a single layer.
    """
    explained = balance.explained
    if check == "ignore" or _adds_up(balance, tolerance):
        return
    problems = _not_finite(balance)
    if not problems:
        problems = [
            f"{title} takes different decisions for sample(s) {_listing(rows)} and for their baselines, and what these add to the "
            f"output belongs to no input: {integrate_instead(title)}"
            for title, rows in explained.inexact.items()
        ]
    # Only a layer can be bypassed: whatever the model computes comes from its own inputs.
    partial = [cut for cut in explained.cuts if not cut.whole] if layers != 0 else []
    if partial:
        numbers = ", ".join(str(layer) for cut in partial for layer in cut.layers)
        which = f"layer(s) {numbers} of the list" if layers else "the explained layer"
        past = "; ".join(dict.fromkeys(cut.past for cut in partial if cut.past))
        named = (
            f" ({past} brings in what does not go through it; sample_kwargs hold a mask, say, constant)" if past else ""
        )
        warnings.warn(
            f"something leads from the model's inputs past {which} to the output{named}: the attributions there are right, but they "
            f"are not all there is and do not add up to the output difference",
            stacklevel=5,
        )
    if not problems:
        whole = [cut for cut in explained.cuts if cut.whole or layers == 0]
        problems = [gap for cut in whole for gap in _gap(balance, cut, tolerance, rounding)]
        problems += integrals_at_fault(explained.integrals) if problems else []
    if not problems:
        return
    message = "; ".join(problems)
    if check:
        raise additivity_error(
            f"the attributions do not add up: {message}. check_additivity=False returns them all the same"
        )
    warnings.warn(f"the attributions do not add up: {message}", stacklevel=5)


def gaps_of_pairs(explained: Explained, cut: Cut) -> Tensor:
    """``[N, R, K]`` float64: the gaps of a cut for each baseline, of an explanation that kept the values for each."""
    totals = torch.stack([found.totals.value for found in _found(explained, cut)]).sum(0)
    outputs = explained.outputs.t().unsqueeze(2).double()
    return (totals - (outputs - explained.baseline_outputs.value)).movedim(0, 2)


def _adds_up(balance: Balance, tolerance: float | None) -> bool:
    """A quick first look, which most explanations pass: nothing is bypassed or inexact, and all gaps are finite and within bounds."""
    explained = balance.explained
    if explained.inexact or not all(cut.whole for cut in explained.cuts):
        return False
    return all(
        float((balance.gaps(cut).abs() - _allowed(balance, cut, tolerance)).max()) <= 0 for cut in explained.cuts
    )


def _found(explained: Explained, cut: Cut) -> list[Found]:
    """What was found of a cut's layers' tensors."""
    return [found for layer in cut.layers for found in explained.found[explained.layers[layer]]]


def _not_finite(balance: Balance) -> list[str]:
    """The problem, if any, that explained outputs are not finite, and whose."""
    if all_finite(balance.difference):
        return []
    samples, baselines = (
        set((~tensor.isfinite()).any(1).nonzero()[:, 0].tolist()) for tensor in (balance.outputs, balance.expected)
    )
    whose = []
    if samples:
        whose.append(f"sample(s) {_listing(samples)}")
    if baselines:
        of_some = f" of sample(s) {_listing(baselines)}" if len(baselines) < len(balance.expected) else ""
        whose.append(f"the baselines{of_some}")
    return [f"the model's output is not finite for {' and '.join(whose)}"] if whose else []


def _gap(balance: Balance, cut: Cut, tolerance: float | None, rounding: Rounding) -> list[str]:
    """The problem, if any, that a gap is larger than is allowed: of the largest such gap, relative to what is allowed.

    Each output of each sample is compared with its own difference. Where a gap is larger than the tolerance and the rounding of the outputs
    and values allow, the sample runs again to estimate what its passes round, and that is allowed too.
    """
    explained, difference = balance.explained, balance.difference.abs()
    gap, allowed = balance.gaps(cut).abs(), _allowed(balance, cut, tolerance)
    if (gap <= allowed).all():
        return []
    tolerance = TOLERANCES[_precision(explained)] if tolerance is None else tolerance
    excess = _excess(gap, allowed)
    suspects = excess.amax(1).argsort(descending=True, stable=True)[: int((excess > 0).any(1).sum())]
    looked_at = 0
    while looked_at < len(suspects):
        # Few at first, since the rest need not run again once one is found to be wrong.
        rows = suspects[looked_at : 2 * looked_at + 4]
        looked_at += len(rows)
        errors = rounding.standard_errors(rows, explained.targets[rows], excess[rows] > 0, cut.layers)
        allowed[rows] += STANDARD_ERRORS * errors
        remaining = _excess(gap[rows], allowed[rows])
        if remaining.any():
            place, column = divmod(int(remaining.argmax()), remaining.shape[1])
            sample = int(rows[place])
            off, apart, bound = (float(tensor[sample, column]) for tensor in (gap, difference, allowed))
            return [
                f"sample {_first.get() + sample}, output {int(explained.targets[sample, column])} is off by {off:.3g}, "
                f"{off / max(apart, 1e-300):.3g} of its output difference {apart:.3g}, where {bound:.3g} is allowed: {tolerance:.3g} of "
                f"the difference (additivity_tolerance=) and {bound - tolerance * apart:.3g} for the rounding of the passes"
            ]
    return []


def _precision(explained: Explained) -> torch.dtype:
    """The dtype that the tolerance and the rounding of outputs and values go by."""
    dtype = explained.precision
    if dtype == torch.float32 and explained.outputs.device.type == "cuda" and _tf32():
        # TensorFloat-32 has as many mantissa bits as half precision.
        return torch.float16
    return dtype


def _allowed(balance: Balance, cut: Cut, tolerance: float | None) -> Tensor:
    """``[N, K]`` float64: the largest gap of a cut that is allowed before the rounding of the passes is estimated."""
    dtype = _precision(balance.explained)
    rounded = torch.maximum(balance.outputs.abs(), balance.expected.abs()) + _total_size(balance.explained, cut)
    share = TOLERANCES[dtype] if tolerance is None else tolerance
    return torch.add(4 * torch.finfo(dtype).eps * rounded, balance.difference.abs(), alpha=share)


def _total_size(explained: Explained, cut: Cut) -> Tensor:
    """``[N, K]`` float64: the sum of the absolute values of a cut's layers."""
    return _summed([found.sizes.mean(explained.weights).t() for found in _found(explained, cut)])


def _summed(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack([*tensors]).sum(0)


def _excess(gap: Tensor, allowed: Tensor) -> Tensor:
    """``gap / allowed`` where the gap is larger than allowed, otherwise 0; infinite where the gap is not finite."""
    return torch.where(gap.isfinite() & (gap <= allowed), 0, (gap / allowed).nan_to_num(torch.inf, torch.inf))


def _tf32() -> bool:
    """Whether float32 products may be computed in TensorFloat-32 on the GPU, as convolutions are by default."""
    backends: Any = torch.backends
    return tf32(backends.cudnn.conv) or tf32(backends.cuda.matmul)


def _listing(rows: set[int]) -> str:
    """The numbers of these samples, of more than five the first five."""
    shown = [_first.get() + row for row in sorted(rows)]
    return ", ".join(map(str, shown[:5])) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
