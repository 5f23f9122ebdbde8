"""Whether a model is still what it was, at a glance: the same objects with the same attributes, and tensors where they were."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .state import State
from .writes import place


class Unchanged:
    """A model, as ``state`` has it, to be compared with itself later.

    What tensors hold may change, as training changes it, unless the model ``reads`` values of its own tensors in Python: then what is
    written into them counts. Whether a module is in training mode does not: models are explained in eval mode.
    """

    def __init__(self, model: nn.Module, state: State, reads: bool) -> None:
        self._state = state
        self._reads = reads
        self._forwards = {kind: kind.forward for kind in {type(module) for module in model.modules()}}
        self._tensors = [(tensor, self._describe(tensor)) for tensor in state.tensors]

    def __bool__(self) -> bool:
        for kind, forward in self._forwards.items():
            if kind.forward is not forward:
                return False
        for tensor, before in self._tensors:
            if self._describe(tensor) != before:
                return False
        return self._state.holds(ignoring=("training",))

    def _describe(self, tensor: Tensor) -> Any:
        version = tensor._version if self._reads and not tensor.is_inference() else 0
        return tensor.dtype, tensor.device, version, place(tensor)
