"""A neuron of a layer as a model's output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..capture.dependence import tensors_in
from ..layers import model_and_layers

#: The error of a selector that gives no number, or several, a row.
ONE_NUMBER = "neuron_selector must select one number a row, got numbers of shape {}"


class UpTo(nn.Module):
    """The model up to a layer: its output is what the layer is given or returns (``at``), a tensor or a tuple of several.

    ``call``: which of the layer's runs in a forward pass; None where there is only one.
    """

    def __init__(self, model: nn.Module, layer: nn.Module, at: str, call: int | None) -> None:
        super().__init__()
        self.model = model
        # In a list, so that nn.Module does not register the layer, which is the model's, as a submodule once more.
        self._layers = model_and_layers((model, layer), at, call)[1]

    def forward(self, *args: Any, **kwargs: Any) -> Tensor | tuple[Tensor, ...]:
        (layer,) = self._layers
        seen: list[list[Tensor]] = []

        def see(module: nn.Module, args: Any, kwargs: Any, output: Any = None) -> None:
            value = (args, kwargs) if layer.at == "input" else output
            # Copied, because the model may write into them.
            seen.append([tensor.clone() for tensor in tensors_in(value)])

        register = layer.module.register_forward_pre_hook if layer.at == "input" else layer.module.register_forward_hook
        hook = register(see, with_kwargs=True)
        try:
            self.model(*args, **kwargs)
        finally:
            hook.remove()
        number = layer.call or 0
        if number >= len(seen) or (layer.call is None and len(seen) > 1):
            raise AssertionError(
                f"call must say which of the layer's {len(seen)} runs in a forward pass, got {layer.call}"
            )
        found = seen[number]
        return found[0] if len(found) == 1 else tuple(found)


def position(index: tuple[Any, ...]) -> Callable[[Tensor], Tensor]:
    """The explainer's target of a layer's numbers: from its tensor to the position ``[rows]`` of the neuron with this index in a row."""

    def choose(layer: Tensor) -> Tensor:
        numbers = torch.arange(layer[0].numel(), device=layer.device).view(layer[:1].shape)
        selected = _indexed(numbers, index)
        if selected.numel() != 1:
            raise AssertionError(ONE_NUMBER.format(list(selected.shape[1:])))
        return selected.flatten().expand(len(layer))

    return choose


@dataclass(frozen=True)
class Summed:
    """From a layer's tensor to the sum ``[rows]`` of the neurons that an index with slices selects."""

    index: tuple[Any, ...]

    def __call__(self, layer: Any) -> Tensor:
        return _indexed(one_tensor(layer), self.index).flatten(1).sum(1)


@dataclass(frozen=True)
class OfRows:
    """From a layer's tensor, or tuple of tensors, to the number ``[rows]`` that the user's function selects of each row.

    A function that gives one number for whatever it is given, such as the sum of all neurons, is called row by row.
    """

    selector: Callable[[Any], Any]

    def __call__(self, layer: Any) -> Any:
        found = self.selector(layer)
        parts = layer if isinstance(layer, tuple) else (layer,)
        rows = len(parts[0])
        if not isinstance(found, Tensor) or found.numel() != 1:
            return found
        if rows == 1:
            return found.reshape(1)
        each = [tuple(part[row : row + 1] for part in parts) for row in range(rows)]
        return torch.stack([self.selector(one if isinstance(layer, tuple) else one[0]).reshape(()) for one in each])


def one_tensor(layer: Any) -> Tensor:
    """A layer's tensor, which must be its only one."""
    if not isinstance(layer, Tensor):
        raise AssertionError(f"neuron_selector must be a function for a layer of {len(layer)} tensors, got an index")
    return layer


def _indexed(layer: Tensor, index: tuple[Any, ...]) -> Tensor:
    try:
        return layer[(slice(None), *index)]
    except (IndexError, TypeError):
        shape = list(layer.shape[1:])
        raise AssertionError(f"neuron_selector must be an index into a layer of shape {shape}, got {index}") from None
