"""Keyword arguments of the model as the user passes them: constants, and those with a row a sample."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import shown
from .arrays import as_tensor


def check_kwargs(constants: Any, by_row: Any, device: torch.device) -> dict[str, Any]:
    """The model's constant keyword arguments, tensors among them on its device."""
    _check_names("kwargs", constants)
    _check_names("sample_kwargs", by_row)
    both = sorted(set(constants or ()) & set(by_row or ()))
    if both:
        raise ValueError(f"kwargs and sample_kwargs must not name the same argument, got {', '.join(both)} in both")
    moved = {}
    for name, value in (constants or {}).items():
        if isinstance(value, Tensor) and value.is_meta:
            raise ValueError(f"kwargs[{name!r}] is on the meta device and has no values")
        moved[name] = value.to(device) if isinstance(value, Tensor) else value
    return moved


def check_sample_kwargs(
    values: Any, names: Sequence[str], samples: int, dtype: torch.dtype, device: torch.device
) -> list[Tensor]:
    """A tensor ``[samples, ...]`` for each name, in their order, on the model's device; arrays of floats become ``dtype``.

    Infinities are taken: an additive attention mask has them.
    """
    _check_names("sample_kwargs", values)
    if set(values or ()) != set(names):
        raise ValueError(
            f"sample_kwargs must have the names that the explainer was made with, {list(names)}, got {list(values or ())}"
        )
    rows = []
    for name in names:
        label, value = f"sample_kwargs[{name!r}]", values[name]
        if isinstance(value, (list, tuple, int, float)):
            raise TypeError(
                f"{label} must be a tensor or a numpy array, got {shown(value)}: pass torch.tensor(...) of it"
            )
        row = as_tensor(label, value)
        if not isinstance(value, Tensor) and row.is_floating_point():
            row = row.to(dtype)
        if row.dim() == 0 or len(row) != samples:
            raise ValueError(f"{label} must have shape [{samples}, ...] for {samples} samples, got {list(row.shape)}")
        if row.is_floating_point() and row.isnan().any():
            raise ValueError(f"{label} must not hold NaN, got one at index {row.isnan().nonzero()[0].tolist()}")
        rows.append(row.to(device))
    return rows


def _check_names(name: str, value: Any) -> None:
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
        raise TypeError(f"{name} must be a dict of the model's keyword arguments by name, got {shown(value)}")


def signature_of(model: nn.Module) -> inspect.Signature | None:
    """What the model's forward takes; None for one that does not say, as functions written in C."""
    try:
        return inspect.signature(model.forward)
    except ValueError:
        return None


def names_of_inputs(model: nn.Module, inputs: int, keywords: Sequence[str]) -> list[str]:
    """By which names the model takes its inputs where keyword arguments stand before them; none where these come behind."""
    signature = signature_of(model)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [name for name, one in signature.parameters.items() if one.kind in kinds] if signature else []
    if set(keywords).isdisjoint(positional[:inputs]):
        return []
    left = [name for name in positional if name not in keywords]
    if len(left) < inputs:
        raise ValueError(
            f"kwargs and sample_kwargs leave no argument for data: the model takes {', '.join(positional)}, and they name "
            f"{', '.join(keywords)}"
        )
    return left[:inputs]
