"""The engines of an explainer, one for each way that it calls its model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .capture.model_call import Call, Layer
from .engine import Engine
from .failures import as_the_model_takes, model_errors
from .inputs import dtypes_of
from .keywords import Further, check_args, check_sample_kwargs, names_of_inputs
from .outputs import Select
from .rules.registry import Options

#: How many engines an explainer keeps.
_KEPT = 8

#: The rows that the model is to run on, ``[rows, ...]`` each, by the argument that they came in; for messages.
RunOn = Callable[[], Mapping[str, Sequence[Tensor]]]


class Engines:
    """Makes engines, and keeps the last few: each has probed the model, which takes longer than a small explanation.

    ``constants``: the argument ``kwargs``; the others as :class:`Call` and :class:`Engine` have them.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[Layer],
        select: Select,
        constants: Mapping[str | int, Any],
        options: Options,
        max_memory: int | None,
        batch_size: int | None,
    ) -> None:
        self._model, self._layers, self._select, self._options = model, layers, select, options
        self._max_memory, self._batch_size = max_memory, batch_size
        self._constants = constants
        #: The constants by the device that their tensors were moved to.
        self._moved: dict[torch.device, dict[str | int, Any]] = {}
        self._kept: dict[Any, Engine] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Engines are found by the identity of constants, which their copies do not have.
        return {**vars(self), "_moved": {}, "_kept": {}}

    def with_memory(self, max_memory: int | None) -> Engines:
        """A copy, without the engines that are kept, that makes engines with this ``max_memory``."""
        other = copy.copy(self)
        other._max_memory = max_memory
        return other

    def further(self, args: Any, sample_kwargs: Any, samples: int, device: torch.device) -> Further:
        """The model's further arguments: those of the explainer, and ``args`` and ``sample_kwargs`` of a call, checked, on the device."""
        if device not in self._moved:
            self._moved[device] = {
                name: value.to(device) if isinstance(value, Tensor) else value
                for name, value in self._constants.items()
            }
        constants = self._moved[device]
        if isinstance(args, tuple) and not args and sample_kwargs is None:
            return Further(constants, {})
        dtype = next(iter(dtypes_of(self._model)), torch.get_default_dtype())
        positional = check_args(args, samples, dtype, device)
        by_name = check_sample_kwargs(sample_kwargs, self._constants, samples, dtype, device)
        return Further({**constants, **positional.constants}, {**positional.rows, **by_name})

    def engine(
        self, further: Further, inputs: Sequence[Tensor], examples: Callable[[], Sequence[Tensor]], run_on: RunOn
    ) -> Engine:
        """The engine for these further arguments and for tensors like ``inputs``, which are the model's and behind them ``further.rows``.

        A new one probes the model on ``examples()``, some rows of what it is to be ``run_on()``.
        """
        key = (
            tuple((name, _identity(value)) for name, value in further.constants.items()),
            tuple(further.rows),
            tuple((tensor.shape[1:], tensor.dtype, tensor.device) for tensor in inputs),
        )
        engine = self._kept.pop(key, None)
        if engine is None:
            engine = self._new(further, len(inputs) - len(further.rows), examples(), run_on)
            # Over a copy of the keys, and with a default: another thread may add or remove engines meanwhile.
            for old in list(self._kept)[: 1 - _KEPT]:
                self._kept.pop(old, None)
        self._kept[key] = engine
        return engine

    def _new(self, further: Further, inputs: int, examples: Sequence[Tensor], run_on: RunOn) -> Engine:
        names = names_of_inputs(self._model, inputs, [*further.constants, *further.rows])
        call = Call(self._layers, self._select, further.constants, tuple(further.rows), names)
        dtypes = as_the_model_takes(self._model, call, self._options, examples)

        def taken(tensors: Sequence[Tensor]) -> list[Tensor]:
            return [tensor.to(dtype) for tensor, dtype in zip(tensors, dtypes, strict=True)]

        with model_errors(
            self._model, call, self._options, lambda: {name: taken(rows) for name, rows in run_on().items()}
        ):
            return Engine(self._model, call, taken(examples), self._options, self._max_memory, self._batch_size)


def _identity(value: Any) -> Any:
    """What tells a constant from others for as long as an engine holds it."""
    return (type(value), value) if isinstance(value, (bool, int, float, str, type(None))) else id(value)
