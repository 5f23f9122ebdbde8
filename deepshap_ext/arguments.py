"""Checks of arguments that are one value, and how messages show what was given instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor


def shown(value: Any) -> str:
    """``value`` in a message: tensors and arrays by dtype and shape, anything else as it prints, cut short."""
    if isinstance(value, (Tensor, np.ndarray)):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        return f"{kind} of dtype {value.dtype} and shape {list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    """Check that the argument ``name`` is one of the ``choices``."""
    if not (isinstance(value, str) and value in choices):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}")


def flag(name: str, value: Any) -> None:
    """Check that the argument ``name`` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, got {shown(value)}")


def is_integer(value: Any) -> bool:
    """Whether ``value`` is one of Python's or numpy's integers, which bools are not."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def bytes_or_none(name: str, value: Any) -> int | None:
    """The argument ``name``, checked: a positive number of bytes, or None."""
    if value is None:
        return None
    if not is_integer(value):
        raise TypeError(f"{name} must be a positive number of bytes, an integer such as 2**30, got {shown(value)}")
    if value <= 0:
        raise ValueError(f"{name} must be a positive number of bytes, got {value}")
    return int(value)


def size_or_none(name: str, value: Any) -> int | None:
    """The argument ``name``, checked: a positive integer, or None."""
    if value is None:
        return None
    if not is_integer(value):
        raise TypeError(f"{name} must be None or a positive integer, got {shown(value)}")
    if value <= 0:
        raise ValueError(f"{name} must be None or a positive integer, got {value}")
    return int(value)


def positive_or_none(name: str, value: Any) -> float | None:
    """The argument ``name``, checked: a positive finite number, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name} must be a positive finite number, got {shown(value)}")
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name} must be a positive finite number, got {value}")
    return float(value)
