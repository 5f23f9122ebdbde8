"""The tensors of the explained layers, as hooks see them in a forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ..errors import ExplanationError, UnsupportedOperationError
from .dependence import tensors_in
from .mode import Capture
from .model_call import Layer


class SeenLayers:
    """What these layers are given or return in a pass: the tensors, which become what is explained, and their places in its graph.

    ``names``: of the model's modules.
    """

    def __init__(self, model: nn.Module, layers: Sequence[Layer], names: Mapping[nn.Module, str]) -> None:
        self._model = model
        self._layers = layers
        self._names = names
        #: The capture of the pass that runs; None between passes, where nothing is looked at.
        self._capture: Capture | None = None
        #: Of each layer's calls so far, the tensors and their places in the graph, or None where it is not the call asked for.
        self._seen: list[list[tuple[list[Tensor], list[GradientEdge]] | None]] = [[] for _ in layers]

    def register(self) -> None:
        """Give the layers the hooks that look at their tensors."""
        for number, layer in enumerate(self._layers):
            if layer.is_inputs_of(self._model):
                continue
            if layer.at == "input":
                layer.module.register_forward_pre_hook(partial(self._see_inputs, number), with_kwargs=True)
            else:
                layer.module.register_forward_hook(partial(self._see_outputs, number))

    def begin(self, capture: Capture) -> None:
        """Forget the pass before, and look at what this one captures."""
        self.forget()
        self._capture = capture

    def end(self) -> None:
        """Look no longer; what was seen stays."""
        self._capture = None

    def forget(self) -> None:
        self.end()
        for seen in self._seen:
            seen.clear()

    def _see_inputs(self, number: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._see(number, (args, kwargs))

    def _see_outputs(self, number: int, module: nn.Module, args: Any, output: Any) -> None:
        self._see(number, output)

    def _see(self, number: int, value: Any) -> None:
        if self._capture is None:
            return
        seen = self._seen[number]
        if len(seen) != (self._layers[number].call or 0):
            seen.append(None)
            return
        with self._capture.paused():
            # A tensor that the layer is given twice, as query and key, is one.
            tensors = [
                tensor
                for tensor in {id(tensor): tensor for tensor in tensors_in(value)}.values()
                if tensor.is_floating_point() and tensor in self._capture.record.dependence
            ]
            for tensor in tensors:
                if random := self._capture.record.dependence[tensor].random:
                    raise UnsupportedOperationError(
                        f"{random}, and reaches the explained layer: explain a layer before it, or a model without it"
                    )
                self._capture.record.dependence.mark(tensor, explained=True)
                if not tensor.requires_grad:
                    # This tensor carries no gradient (it comes from an embedding, say): made a leaf itself, it is explained with all that
                    # reads it, a skip connection included.
                    tensor.requires_grad_(True)
            # The edge stands for the tensor as it is now, whatever is written into it later. Infinities become finite: a mask of -inf that
            # is the same on both sides then differs by 0, not by NaN.
            now = [tensor.detach().nan_to_num(torch.nan) for tensor in tensors]
            seen.append((now, [get_gradient_edge(tensor) for tensor in tensors]))

    def found(self, leaves: Sequence[Tensor]) -> tuple[list[Tensor], list[GradientEdge], list[slice]]:
        """What is explained, its places in the graph, and which of it are each layer's; ``leaves`` are the model's own inputs."""
        tensors: list[Tensor] = []
        edges: list[GradientEdge] = []
        layers = []
        # Nothing but the model's own inputs is explained where there are no layers.
        for layer, seen in zip(self._layers or [Layer(self._model)], self._seen or [[]], strict=True):
            if layer.is_inputs_of(self._model):
                layers.append(slice(len(tensors), len(tensors) + len(leaves)))
                tensors += [leaf.detach() for leaf in leaves]
                edges += [get_gradient_edge(leaf) for leaf in leaves]
                continue
            name, number, call = self._names[layer.module], len(seen), layer.call
            if not number:
                raise ExplanationError(f"layer {name!r} did not run in the model's forward pass")
            if call is None and number > 1:
                raise ExplanationError(f"layer {name!r} runs {number} times in one forward pass: say which with call=")
            if call is not None and call >= number:
                raise ExplanationError(
                    f"layer {name!r} runs {number} time(s) in one forward pass: there is no call {call}"
                )
            found = seen[call or 0]
            if found is None or not found[0]:
                way = (
                    "; of a layer that is given integers, as an embedding is, explain what it returns with at='output'"
                )
                raise ExplanationError(
                    f"layer {name!r} has no floating-point {layer.at} tensor that depends on the model's inputs"
                    + (way if layer.at == "input" else "")
                )
            layers.append(slice(len(tensors), len(tensors) + len(found[0])))
            tensors += found[0]
            edges += found[1]
        return tensors, edges, layers
