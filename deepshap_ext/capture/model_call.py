"""How a model is called, and what of it is explained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn


@dataclass(frozen=True)
class Layer:
    """The tensors that a module is given (``at`` ``"input"``) or returns (``"output"``), in one of its calls in a forward pass.

    ``call``: which one, counted from 0; None where there is only one. The model itself at its input stands for the model's own inputs.
    """

    module: nn.Module
    at: Literal["input", "output"] = "input"
    call: int | None = None

    def is_inputs_of(self, model: nn.Module) -> bool:
        return self.module is model and self.at == "input" and not self.call


@dataclass(frozen=True)
class Call:
    """How the model is called and what is taken from it.

    ``layers``: explain these tensors instead of the model's inputs. ``select`` takes the model's output to the tensor ``[rows, ...]`` that
    is explained. ``constants``: further arguments that are the same in every call, by name, or by number where they are positional ones
    behind the inputs. ``by_row``: names and numbers of those that have a row a sample; they come behind the model's inputs wherever
    these are passed on. ``names``: of the inputs, where keyword arguments take the places before them.
    """

    layers: Sequence[Layer]
    select: Callable[[Any], Tensor]
    constants: Mapping[str | int, Any]
    by_row: Sequence[str | int]
    names: Sequence[str] = ()

    def __call__(self, model: nn.Module, inputs: Sequence[Tensor], others: Mapping[str | int, Any]) -> Any:
        """What the model returns; ``others`` are its further arguments."""
        keywords = {key: value for key, value in others.items() if isinstance(key, str)}
        if self.names:
            return model(**dict(zip(self.names, inputs, strict=True)), **keywords)
        positions = sorted(key for key in others if isinstance(key, int))
        return model(*inputs, *(others[position] for position in positions), **keywords)

    def explained(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The model's inputs, without the further arguments behind them."""
        return inputs[: len(inputs) - len(self.by_row)]

    def explains_inputs_of(self, model: nn.Module) -> bool:
        """Whether the model's own inputs are explained: instead of layers, or as one of them."""
        return not self.layers or any(layer.is_inputs_of(model) for layer in self.layers)
