"""Attributions of many samples into arrays of the user's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from ..arguments import shown
from ..arrays import as_array
from ..attribution import Attribution
from .job import Job


def attribute_into(out: Any, job: Job) -> Attribution:
    """All samples' attributions, their values written into ``out``: an array or a tensor of their shape, a memory map, an h5py dataset or
    what else slices can be written into; for several inputs, or layers, a list of such, nested as values are.

    Raises:
        ValueError: ``out`` has another shape.
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
        if tuple(getattr(one, "shape", ())) != (samples, *value.shape[1:]):
            raise ValueError(f"out must have shape {[samples, *value.shape[1:]]}, got {shown(one)}")
    for one, value in pairs:
        one[rows] = value if isinstance(one, Tensor) else as_array(value)


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
