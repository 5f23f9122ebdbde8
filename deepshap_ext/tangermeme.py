"""tangermeme's ``deep_lift_shap`` over :class:`deepshap_ext.Explainer`: its arguments, what it returns and what it warns of.

tangermeme itself is needed for dinucleotide shuffles only, the references that are drawn where none are given.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from .arguments import flag, shown, size_or_none
from .explainer import Explainer
from .one_hot import check_one_hot, packed_like, unpacked
from .rules.hooked import Hook
from .tangermeme_arguments import (
    check_args,
    check_drawn,
    check_model,
    device_of,
    dtype_of,
    integer,
    rules,
    threshold,
)

__all__ = ["deep_lift_shap", "hypothetical_attributions"]

try:
    from tangermeme.ersatz import dinucleotide_shuffle
    from tangermeme.results import AttributionReferencesResult
    from tangermeme.utils import TangermemeWarning
except ImportError as error:
    _missing, TangermemeWarning = error, UserWarning

    def dinucleotide_shuffle(*args: Any, **kwargs: Any) -> Tensor:
        raise ImportError(
            "references must be given, a tensor or a function, where tangermeme is not installed, whose dinucleotide_shuffle draws them"
        ) from _missing

    class AttributionReferencesResult(NamedTuple):  # type: ignore[no-redef]
        """What :func:`deep_lift_shap` returns with ``return_references=True``."""

        attributions: Tensor
        references: Tensor


#: How many numbers the references of one call of the explainer have, where ``batch_size`` alone would allow fewer: sequences are explained
#: several a call, because every call takes some milliseconds, whatever it computes.
_NUMBERS_AT_ONCE = 2**22


def hypothetical_attributions(multipliers: tuple[Tensor], X: tuple[Tensor], references: tuple[Tensor]) -> tuple[Tensor]:
    """What each character would contribute where another one is: ``m[c] - sum_b m[b] r[b]`` in every position.

    The multipliers are taken to be those of this sequence there, too. For the character that is there this is the position's contribution,
    ``sum_b m[b] (x[b] - r[b])``. TF-MoDISco (arXiv 1811.00416) takes these numbers beside the contributions.

    Args:
        multipliers: a tuple of one tensor ``[pairs, characters, length]``; X and references likewise.
        X: one-hot sequences.
        references: those that the multipliers belong to.

    Returns:
        A tuple of one tensor of that shape, in X's dtype. This function may be the ``combine`` of
        :meth:`deepshap_ext.Explainer.attribute` for a list of one input.

    Raises:
        ValueError: an argument is no tuple of one tensor, or the shapes differ.
    """
    for name, value in (("multipliers", multipliers), ("X", X), ("references", references)):
        if not (isinstance(value, tuple) and len(value) == 1 and isinstance(value[0], Tensor)):
            raise ValueError(f"{name} must be a tuple of one tensor, got {shown(value)}")
        if value[0].shape != multipliers[0].shape:
            raise ValueError(
                f"{name} must have the shape of multipliers, {list(multipliers[0].shape)}, got {list(value[0].shape)}"
            )
        if value[0].dim() < 2:
            raise ValueError(f"{name} must have shape [pairs, characters, ...], got {list(value[0].shape)}")
    (m,), (x,), (r,) = multipliers, X, references
    return ((m - (m * r).sum(1, keepdim=True)).to(x.dtype),)


def deep_lift_shap(
    model: nn.Module,
    X: Any,
    args: Sequence[Tensor] | None = None,
    target: int = 0,
    batch_size: int | None = 32,
    references: Any = dinucleotide_shuffle,
    n_shuffles: int = 20,
    return_references: bool = False,
    hypothetical: bool = False,
    warning_threshold: float = 0.001,
    additional_nonlinear_ops: Mapping[type[nn.Module], Hook] | None = None,
    print_convergence_deltas: bool = False,
    raw_outputs: bool = False,
    only_warn: bool = False,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    random_state: int | None = None,
    verbose: bool = False,
) -> Any:
    """What the characters of one-hot sequences contribute to an output of a model, against references of each sequence's own.

    Args:
        model: returns ``[batch, outputs]``, maybe with dimensions of size 1 behind. Explained in eval mode on the device, and put back.
        X: sequences ``[N, characters, length]`` of any dtype; or a ``PackedSequence`` of tangermeme's.
        args: the model's further arguments, tensors ``[N, ...]``, which are converted to ``dtype``.
        target: the output to explain.
        batch_size: how many pairs of a sequence and a reference are computed at once; None: as many as the memory allows.
        references: ``[N, n, characters, length]``, zero where a character is unknown; or a ``PackedSequence``; or a function
            ``references(X, n=1)``, with ``random_state=`` where that is given, that returns ``[len(X), 1, characters, length]``.
        n_shuffles: how many references a function draws for each sequence.
        return_references: return the references as well.
        hypothetical: return what every character would contribute in each position: :func:`hypothetical_attributions`.
        warning_threshold: warn where a pair's convergence delta, ``|sum(contributions) - (output - reference output)|``, is above it.
        additional_nonlinear_ops: rules by class of module, hooks ``hook(module, grad_input, grad_output)``, for this call.
        print_convergence_deltas: print them.
        raw_outputs: return the multipliers of every pair.
        only_warn: warn of X and references that are not one-hot or have another shape, rather than raise.
        dtype: of X and of the result; the model runs under autocast if it is half or bfloat16. None: that of the model's parameters.
        device: where to compute. None: on a GPU if there is one.
        random_state: seed; reference ``k`` of every sequence is drawn with ``random_state + k``. None: other references every time.
        verbose: show a progress bar.

    Returns:
        A tensor like X, on the CPU, of the contributions of the characters that are there, and 0 for others. All characters' with
        ``hypothetical``; multipliers ``[N, n, characters, length]`` with ``raw_outputs``. With ``return_references`` an
        ``AttributionReferencesResult``, of this and the references.

    Raises:
        ValueError, TypeError: an argument, what references returned or the model's output are not as described.
        IndexError: the model has no output ``target``, or args have too few rows.
        ExplanationError: the model cannot be explained; its subclasses say why.
    """
    check_model(model)
    for name, value in (
        ("return_references", return_references),
        ("hypothetical", hypothetical),
        ("print_convergence_deltas", print_convergence_deltas),
        ("raw_outputs", raw_outputs),
        ("only_warn", only_warn),
        ("verbose", verbose),
    ):
        flag(name, value)
    target, batch_size = integer("target", target), size_or_none("batch_size", batch_size)
    random_state = None if random_state is None else integer("random_state", random_state)
    warning_threshold, ops = threshold(warning_threshold), rules(additional_nonlinear_ops)
    drawn = callable(references)
    warn = TangermemeWarning if only_warn else None
    check_one_hot("X", X, (None, None, None), warn=warn)
    if not drawn:
        check_one_hot("references", references, (X.shape[0], None, *X.shape[1:]), unknown=True, warn=warn)
    sequences, number = X.shape[0], integer("n_shuffles", n_shuffles) if drawn else references.shape[1]
    if sequences < 1 or number < 1:
        raise ValueError(f"X must be one or more sequences with one or more references, got {sequences} with {number}")
    args = check_args(args, sequences)
    device, dtype = device_of(device), dtype_of(dtype, model)

    found, kept, deltas, differences = [], [], [], []
    step = max(1, (batch_size or 0) // number, _NUMBERS_AT_ONCE // (number * math.prod(X.shape[1:])))
    with ExitStack() as stack:
        stack.enter_context(_on(device, model))
        bar = stack.enter_context(tqdm(total=sequences * number, unit="pair")) if verbose else None
        called = _Autocast(model, device, dtype) if dtype in (torch.half, torch.bfloat16) else model
        explainer = Explainer(called, rules=ops, on_unsupported="integrate", batch_size=batch_size)
        for first in range(0, sequences, step):
            some = slice(first, min(first + step, sequences))
            x = unpacked(X[some], device, dtype)
            r = _draw(references, x.cpu(), number, random_state) if drawn else unpacked(references[some], device, dtype)
            explained = explainer.attribute(
                [x],
                _column(target),
                baselines=[r.to(device, dtype)],
                args=[arg[some].to(device, dtype) for arg in args],
                combine=_multipliers if raw_outputs else hypothetical_attributions,
                per_baseline=True,
                check_additivity="ignore",
            )
            values = explained.values[0] if raw_outputs else explained.values[0].mean(1)
            found.append((values if raw_outputs or hypothetical else values * x).to("cpu", dtype))
            deltas.append(explained.convergence_delta.abs().flatten())
            differences.append((explained.output.unsqueeze(1) - explained.expected_value).abs().flatten())
            if print_convergence_deltas:
                print(*deltas[-1].split(batch_size), sep="\n")
            if return_references:
                kept.append(r.to("cpu", dtype))
            if bar is not None:
                bar.update(len(deltas[-1]))
    _warn(torch.cat(deltas), torch.cat(differences), warning_threshold)
    attributions = torch.cat(found)
    if not return_references:
        return attributions
    return AttributionReferencesResult(attributions, packed_like(torch.cat(kept), references, X))


with suppress(ImportError):
    from tangermeme.utils import _accepts_packed

    # tangermeme's functions that take an attribution function decode packed sequences for it, unless it is marked so.
    _accepts_packed(deep_lift_shap)


def _multipliers(multipliers: tuple[Tensor], X: tuple[Tensor], references: tuple[Tensor]) -> tuple[Tensor]:
    return multipliers


def _column(target: int) -> Callable[[Tensor], Tensor]:
    """The target, as :class:`Explainer` takes it, of outputs ``[n, outputs]`` and maybe dimensions of size 1 behind."""

    def choose(outputs: Tensor) -> Tensor:
        number, *others = outputs.shape[1:]
        if math.prod(others) != 1:
            raise ValueError(
                f"model must return [batch, outputs], got {['batch', number, *others]}: sum or slice the others in a model around it"
            )
        if not -number <= target < number:
            raise IndexError(f"target must be an index into {number} outputs, got {target}")
        return torch.full((len(outputs),), target % number, device=outputs.device)

    return choose


def _draw(references: Callable[..., Tensor], x: Tensor, number: int, random_state: int | None) -> Tensor:
    """``[n, number, characters, length]``: the references that tangermeme draws for ``x`` ``[n, characters, length]``."""
    rows = x.repeat_interleave(number, 0)
    if random_state is None:
        drawn = check_drawn(references(rows, n=1), rows.shape)
    else:
        seeds = [random_state + k for k in range(number)] * len(x)
        if references is dinucleotide_shuffle:
            drawn = references(rows, n=1, random_state=seeds)
        else:
            drawn = torch.cat(
                [
                    check_drawn(references(row, n=1, random_state=seed), row.shape)
                    for row, seed in zip(rows.split(1), seeds, strict=True)
                ]
            )
    return drawn[:, 0].unflatten(0, (len(x), number))


def _warn(deltas: Tensor, differences: Tensor, threshold: float) -> None:
    """Warn where pairs' convergence deltas are above the threshold, or their mean above a hundredth of the output differences' mean."""
    high = ~(deltas <= threshold)
    relative = float(deltas.mean() / differences.mean().clamp_min(1e-12))
    problems = []
    if high.any():
        problems.append(
            f"{int(high.sum())} of {len(deltas)} are above {threshold:.3g}, up to {float(deltas.max()):.3g}"
        )
    if not relative <= 0.01:
        problems.append(f"they are {relative:.1%} of the output differences")
    if problems:
        warnings.warn(
            f"Convergence deltas too high: {'; '.join(problems)}. deepshap_ext.Explainer raises an error that says why",
            RuntimeWarning,
            stacklevel=3,
        )


class _Autocast(nn.Module):
    """The model under ``torch.autocast``: in half precision where torch finds that safe."""

    def __init__(self, model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.device, self.dtype = model, device, dtype

    def forward(self, *inputs: Tensor) -> Any:
        with torch.autocast(self.device.type, self.dtype):
            return self.model(*inputs)


@contextmanager
def _on(device: torch.device, model: nn.Module) -> Iterator[None]:
    """In this context the model is on this device, and afterwards where it was before."""
    before = next((tensor.device for tensor in chain(model.parameters(), model.buffers())), device)
    model.to(device)
    try:
        yield
    finally:
        model.to(before)
