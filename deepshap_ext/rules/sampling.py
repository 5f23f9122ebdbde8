"""Images that are sampled at places computed from the input, as a spatial transformer does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from .differences import piecewise
from .registry import Application, Context, decomposition, rule

#: Torch's numbers for the kinds of interpolation and of padding.
_LINEAR, _NEAREST, _CUBIC = range(3)
_ZEROS, _BORDER, _REFLECTION = range(3)


@decomposition("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def _grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """The product of the image with the weights of its rows, columns (and layers), which are continuous functions of the places."""
    if interpolation_mode == _NEAREST:
        grid = grid.detach()  # which element is the nearest one is a decision
    cubic, sizes = interpolation_mode == _CUBIC, input.shape[2:]
    weights = []
    for dim, size in enumerate(sizes):
        place = grid.flatten(1, -2)[..., len(sizes) - 1 - dim]
        place = (place + 1) / 2 * (size - 1) if align_corners else ((place + 1) * size - 1) / 2
        low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        margin = 3 if cubic and padding_mode != _ZEROS else 0
        elements = torch.arange(-margin, size + margin, dtype=grid.dtype, device=grid.device)
        if padding_mode == _BORDER:
            # Beyond these places all that a sample is made of is the border.
            place = place.clamp(-2, size + 1) if cubic else place.clamp(0, size - 1)
            index = elements.clamp(0, size - 1)
        elif padding_mode == _REFLECTION:
            place = reflected(place, low, high) if cubic else reflected(place, low, high).clamp(0, size - 1)
            index = reflected(elements, low, high).clamp(0, size - 1)
        if margin:
            input = input.index_select(2 + dim, index.round().long())
        weights.append(_WEIGHTS[interpolation_mode](place.unsqueeze(-1), elements))
    dims = "xyz"[: len(sizes)]
    sampled = torch.einsum(f"nc{dims},{','.join(f'np{dim}' for dim in dims)}->ncp", input, *weights)
    return sampled.unflatten(-1, grid.shape[1:-1])


def _linear(place: Tensor, elements: Tensor) -> Tensor:
    return (1 - (place - elements).abs()).relu()


def _nearest(place: Tensor, elements: Tensor) -> Tensor:
    return (place.round() == elements).to(place.dtype)


def _cubic(place: Tensor, elements: Tensor) -> Tensor:
    """With torch's ``a = -0.75``."""
    distance, a = (place - elements).abs(), -0.75
    near, far = distance.clamp(max=1), distance.clamp(1, 2)  # each of the two pieces is 0 at 1
    return ((a + 2) * near - (a + 3)) * near.square() + 1 + a * (((far - 5) * far + 8) * far - 4)


#: The weights ``[..., elements]`` of an image's elements in samples at the places ``[..., 1]``.
_WEIGHTS = {_LINEAR: _linear, _NEAREST: _nearest, _CUBIC: _cubic}


def reflected(place: Tensor, low: float, high: float) -> Tensor:
    """The places, reflected at ``low`` and ``high`` as often as needed to lie between them."""
    if has_torch_function_unary(place):
        return handle_torch_function(reflected, (place,), place, low, high)
    span = high - low
    return low + span - ((place - low).remainder(2 * span) - span).abs() if span else torch.full_like(place, low)


@rule("reflected")
def _reflected(_: Context, place: Tensor, low: float, high: float) -> Application:
    def slope(place: Tensor) -> Tensor:
        span = high - low
        return torch.where((place - low).remainder(2 * span) < span, 1.0, -1.0).to(place.dtype)

    def forward(place: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        return reflected(place, low, high), [place]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        return [grad * piecewise(lambda place: reflected(place, low, high), slope, *sides.pair())]

    return Application([place], forward, multipliers, parameters=(low, high))
