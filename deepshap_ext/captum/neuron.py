"""A neuron of a layer as a model's output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..capture.dependence import tensors_in
from ..layers import model_and_layers


class UpTo(nn.Module):
    """The model with what a layer is given or returns as its output: a tensor, or a tuple of several."""

    def __init__(self, model: nn.Module, layer: nn.Module, at: str, call: int | None) -> None:
        super().__init__()
        self.model = model
        # In a list, which does not make it a module of this one: it is one of the model's.
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


def neuron(index: tuple[Any, ...]) -> Callable[[Any], Tensor]:
    """From a layer's tensor to the neuron ``[rows]``, or the sum of those that slices select."""

    def select(layer: Any) -> Tensor:
        if not isinstance(layer, Tensor):
            raise AssertionError(f"neuron_selector must be a function for a layer of {len(layer)} tensors, got {index}")
        try:
            selected = layer[(slice(None), *index)]
        except (IndexError, TypeError):
            shape = list(layer.shape[1:])
            raise AssertionError(
                f"neuron_selector must be an index into a layer of shape {shape}, got {index}"
            ) from None
        return selected.flatten(1).sum(1) if any(isinstance(one, slice) for one in index) else selected

    return select
