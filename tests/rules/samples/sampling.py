"""Images sampled at places that depend on the input."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from reference import rules as slow
from reference.units import Unit
from torch import Tensor

from deepshap_ext.rules.sampling import reflected

from .sample import Sample, aten


def _piecewise(function: Callable[[float], float], a: Unit) -> Unit:
    x, r = function(a.x), function(a.r)
    return Unit(x, r, (x - r) / (a.x - a.r) * a.m)


def samples() -> dict[str, Sample]:
    """Images two elements wide, of ones and of the input, at one place: the last elements of the input, one a dimension."""

    def place(x: Tensor, dims: int) -> Tensor:
        return x[:, -dims:].view(-1, *[1] * dims, dims)

    def image(x: Tensor, dims: int) -> Tensor:
        return x[:, : 2**dims].view(-1, 1, *[2] * dims)

    def slowly(dims: int) -> Callable[[np.ndarray], list[Any]]:
        def run(a: np.ndarray) -> list[Any]:
            # Corners of the image are at the places -1 and 1.
            weights = [
                [_piecewise(lambda p, e=e: max(0.0, 1 - abs((p + 1) / 2 - e)), p) for e in (0, 1)] for p in a[-dims:]
            ]
            corners = itertools.product(range(2), repeat=dims)
            # The last dimension of an image is the first of a place.
            return [
                sum(
                    slow.product([b, *(w[e] for w, e in zip(weights[::-1], at, strict=True))])
                    for b, at in zip(a, corners, strict=False)
                )
            ]

        return run

    def of(operation: Callable[..., Tensor], dims: int) -> Sample:
        return Sample(
            (2**dims + dims,),
            lambda x: operation(image(x, dims), place(x, dims), 0, 0, True).flatten(1),
            slowly(dims),
            0.3,
            lambda x, r: (x / 3, r / 3),
        )

    def triangle(p: float) -> float:
        return 1 - abs((p + 1) % 4 - 2)

    return {
        "grid_sampler": of(torch.grid_sampler, 2),
        "grid_sampler_2d": of(torch.grid_sampler_2d, 2),
        "grid_sampler_3d": of(aten.grid_sampler_3d, 3),
        "reflected": Sample(
            (4,), lambda x: reflected(3 * x, -1, 1), lambda a: [_piecewise(triangle, 3 * p) for p in a]
        ),
    }
