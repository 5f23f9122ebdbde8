"""The model's arguments besides its inputs (``kwargs``, ``sample_kwargs``, ``args``) as the user passes them, checked."""

from __future__ import annotations

import inspect
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .arguments import shown
from .arrays import as_tensor


@dataclass(frozen=True)
class Further:
    """The model's arguments besides its inputs, by name, or by number where they are positional ones behind the inputs.

    ``constants`` are the same for all samples; ``rows`` are tensors ``[N, ...]`` with a row a sample.
    """

    constants: dict[str | int, Any]
    rows: dict[str | int, Tensor]


def check_kwargs(constants: Any) -> dict[str | int, Any]:
    """The argument ``kwargs``: keyword arguments that are the same for all samples."""
    check_names("kwargs", constants)
    for name, value in (constants or {}).items():
        if isinstance(value, Tensor) and value.is_meta:
            raise ValueError(f"kwargs[{name!r}] is on the meta device and has no values")
    return dict(constants or {})


def check_sample_kwargs(
    values: Any, constants: Container[str | int], samples: int, dtype: torch.dtype, device: torch.device
) -> dict[str | int, Tensor]:
    """The argument ``sample_kwargs``: a tensor ``[samples, ...]`` by name, on ``device``; arrays of floats become ``dtype``."""
    check_names("sample_kwargs", values)
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


def check_args(values: Any, samples: int, dtype: torch.dtype, device: torch.device) -> Further:
    """The argument ``args``, by number: tensors and arrays ``[samples, ...]`` have a row a sample, anything else is a constant."""
    check_is_tuple(values)
    found = Further({}, {})
    for number, value in enumerate(values):
        if isinstance(value, (Tensor, np.ndarray)) and value.ndim > 0:
            found.rows[number] = _by_row(f"args[{number}]", value, samples, dtype, device)
        else:
            found.constants[number] = value
    return found


def check_is_tuple(args: Any) -> None:
    """Check that the argument ``args`` is a tuple or a list."""
    if not isinstance(args, (list, tuple)):
        raise TypeError(f"args must be a tuple of the model's arguments behind its inputs, got {shown(args)}")


def _by_row(label: str, value: Any, samples: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor ``[samples, ...]``. Infinities are allowed, since an additive attention mask has them."""
    row = as_tensor(label, value)
    if not isinstance(value, Tensor) and row.is_floating_point():
        row = row.to(dtype)
    if row.dim() == 0 or len(row) != samples:
        raise ValueError(f"{label} must have shape [{samples}, ...] for {samples} samples, got {list(row.shape)}")
    if row.is_floating_point() and row.isnan().any():
        raise ValueError(f"{label} must not hold NaN, got one at index {row.isnan().nonzero()[0].tolist()}")
    return row.to(device)


def check_names(name: str, value: Any) -> None:
    """Check that the argument ``name`` is None or a dict by the names of arguments."""
    if value is not None and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
        raise TypeError(f"{name} must be a dict of the model's keyword arguments by name, got {shown(value)}")


def signature_of(model: nn.Module) -> inspect.Signature | None:
    """The signature of the model's forward; None where there is none to inspect, as for a function written in C."""
    try:
        return inspect.signature(model.forward)
    except ValueError:
        return None


def names_of_inputs(model: nn.Module, inputs: int, further: Sequence[str | int]) -> list[str]:
    """The names that the model's ``inputs`` are passed by: where one of the ``further`` arguments takes a place before them; else none."""
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
