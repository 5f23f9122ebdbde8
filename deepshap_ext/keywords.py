"""Further arguments of the model as the user passes them: constants, and those with a row a sample."""

from __future__ import annotations

import inspect
from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .arguments import shown
from .arrays import as_tensor


def check_kwargs(constants: Any) -> dict[str | int, Any]:
    """The model's constant keyword arguments."""
    _check_names("kwargs", constants)
    for name, value in (constants or {}).items():
        if isinstance(value, Tensor) and value.is_meta:
            raise ValueError(f"kwargs[{name!r}] is on the meta device and has no values")
    return dict(constants or {})


def check_sample_kwargs(
    values: Any, constants: Container[str | int], samples: int, dtype: torch.dtype, device: torch.device
) -> dict[str | int, Tensor]:
    """A tensor ``[samples, ...]`` by name, on the model's device; arrays of floats become ``dtype``."""
    _check_names("sample_kwargs", values)
    both = sorted(name for name in values or () if name in constants)
    if both:
        raise ValueError(f"kwargs and sample_kwargs must not name the same argument, got {', '.join(both)} in both")
    rows: dict[str | int, Tensor] = {}
    for name, value in (values or {}).items():
        label = f"sample_kwargs[{name!r}]"
        if isinstance(value, (list, tuple, int, float)):
            raise TypeError(
                f"{label} must be a tensor or a numpy array, got {shown(value)}: pass torch.tensor(...) of it"
            )
        rows[name] = _by_row(label, value, samples, dtype, device)
    return rows


def check_args(
    values: Any, samples: int, dtype: torch.dtype, device: torch.device
) -> tuple[dict[str | int, Any], dict[str | int, Tensor]]:
    """The model's positional arguments behind its inputs, by number: constants, and tensors and arrays ``[samples, ...]``."""
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"args must be a tuple of the model's arguments behind its inputs, got {shown(values)}")
    constants: dict[str | int, Any] = {}
    rows: dict[str | int, Tensor] = {}
    for number, value in enumerate(values):
        if isinstance(value, (Tensor, np.ndarray)) and value.ndim > 0:
            rows[number] = _by_row(f"args[{number}]", value, samples, dtype, device)
        else:
            constants[number] = value
    return constants, rows


def _by_row(label: str, value: Any, samples: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor ``[samples, ...]``. Infinities are taken: an additive attention mask has them."""
    row = as_tensor(label, value)
    if not isinstance(value, Tensor) and row.is_floating_point():
        row = row.to(dtype)
    if row.dim() == 0 or len(row) != samples:
        raise ValueError(f"{label} must have shape [{samples}, ...] for {samples} samples, got {list(row.shape)}")
    if row.is_floating_point() and row.isnan().any():
        raise ValueError(f"{label} must not hold NaN, got one at index {row.isnan().nonzero()[0].tolist()}")
    return row.to(device)


def _check_names(name: str, value: Any) -> None:
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
        raise TypeError(f"{name} must be a dict of the model's keyword arguments by name, got {shown(value)}")


def signature_of(model: nn.Module) -> inspect.Signature | None:
    """What the model's forward takes; None for one that does not say, as functions written in C."""
    try:
        return inspect.signature(model.forward)
    except ValueError:
        return None


def names_of_inputs(model: nn.Module, inputs: int, further: Sequence[str | int]) -> list[str]:
    """By which names the model takes its inputs where keyword arguments stand before them; none where these come behind."""
    keywords = [key for key in further if isinstance(key, str)]
    signature = signature_of(model)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [name for name, one in signature.parameters.items() if one.kind in kinds] if signature else []
    if set(keywords).isdisjoint(positional[:inputs]):
        return []
    left = [name for name in positional if name not in keywords]
    if len(left) < inputs:
        raise ValueError(
            f"kwargs and sample_kwargs leave no argument for the inputs: the model takes {', '.join(positional)}, and they name "
            f"{', '.join(keywords)}"
        )
    if len(keywords) < len(further):
        raise ValueError(
            f"args must be empty where kwargs or sample_kwargs name an argument before the inputs: pass all by name, got "
            f"{', '.join(keywords)} and {len(further) - len(keywords)} args"
        )
    return left[:inputs]
