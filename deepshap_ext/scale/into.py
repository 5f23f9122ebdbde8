"""Attributions of many samples into arrays of the user's."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import shown
from ..arrays import as_array
from ..attribution import Attribution
from .job import Job
from .sources import leading


def attribute_into(out: Any, job: Job) -> Attribution:
    """All samples' attributions, their values written into ``out``: an array or a tensor of their shape, a memory map, an h5py dataset or
    what else slices can be written into; for several inputs, or layers, a list of such, nested as values are.

    Raises:
        ValueError, TypeError: ``out`` has another shape, or cannot hold the values.
    """
    if job.options.get("activations"):
        raise ValueError("activations must be False with out")
    rest: list[Attribution] = []
    for rows, part in job.parts():
        _write(out, part.values, rows, len(job))
        rest.append(replace(part, values=None))
    others = {field.name: _joined([getattr(part, field.name) for part in rest]) for field in fields(Attribution)}
    return Attribution(**{**others, "values": out})


def _write(out: Any, values: Any, rows: slice, samples: int) -> None:
    pairs = list(_pairs(out, values))
    for one, value in pairs:
        if leading(one) != (samples, *value.shape[1:]):
            raise ValueError(f"out must have shape {[samples, *value.shape[1:]]}, got {shown(one)}")
        _check_holds(one, value)
    for one, value in pairs:
        try:
            one[rows] = value if isinstance(one, Tensor) else as_array(value)
        except (OSError, ValueError) as error:
            raise ValueError(f"out must be open for writing, got {shown(one)}: {error}") from error


def _check_holds(out: Any, values: Tensor) -> None:
    """Check that an array or a tensor can be written into, and holds such numbers."""
    if isinstance(out, Tensor):
        if out.requires_grad:
            raise ValueError("out must be a tensor that requires no gradient: pass out.detach()")
        if out.is_meta or any(size > 1 and stride == 0 for size, stride in zip(out.shape, out.stride(), strict=True)):
            raise ValueError(
                "out must have memory of its own for each element, got a tensor on the meta device or an expanded one"
            )
        number, most = out.is_floating_point(), torch.finfo(out.dtype).max if out.is_floating_point() else 0
    else:
        if isinstance(out, np.ndarray) and not out.flags.writeable:
            raise ValueError("out must be an array that can be written to, got a read-only one")
        dtype: Any = getattr(out, "dtype", None)
        plain = isinstance(dtype, np.dtype) and dtype.kind in "fiub"
        number = not plain or dtype.kind == "f"
        most = float(np.finfo(dtype).max) if plain and number else math.inf
    if not number:
        raise TypeError(f"out must hold floating-point numbers, got dtype {out.dtype}")
    if (largest := float(values.abs().amax())) > most:
        raise ValueError(f"out must be wide enough for the values: {out.dtype} holds no {largest:.3g}")


def _pairs(out: Any, values: Any) -> Iterator[tuple[Any, Tensor]]:
    """Each tensor of nested tuples with what is at its place in ``out``."""
    if not isinstance(values, tuple):
        yield out, values
        return
    if not isinstance(out, (list, tuple)) or len(out) != len(values):
        raise ValueError(f"out must be a list of {len(values)} arrays, got {shown(out)}")
    for one, value in zip(out, values, strict=True):
        yield from _pairs(one, value)


def _joined(parts: list[Any]) -> Any:
    """Nested tuples of tensors, one behind the other."""
    if isinstance(parts[0], tuple):
        return tuple(_joined(list(each)) for each in zip(*parts, strict=True))
    return None if parts[0] is None else torch.cat(parts)
