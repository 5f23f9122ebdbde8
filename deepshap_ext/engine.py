"""What is known of a model before it is explained: where the batch lies in its tensors and what it costs; and its runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .capture.hooks import Call, ModelHooks, Pass
from .capture.probe import Layouts, probe
from .errors import ExplanationError, OutOfMemoryError
from .memory import HEAP, WARM, available_memory, is_out_of_memory
from .pairs import Pairing
from .planner import Chunks, Costs, Measurement, plan
from .rules.normalization import wide
from .rules.registry import Options, registered


@dataclass
class Probed:
    """What was found out about a model as it is called.

    ``least_rows``: 2 for a model that loses the batch dimension of a single row, as ``squeeze()`` does; None until one was tried.
    """

    layouts: Layouts
    costs: Costs
    least_rows: int | None = None


#: By model, and by how it is called.
_PROBED: WeakKeyDictionary[nn.Module, dict[Any, Probed]] = WeakKeyDictionary()


class Engine:
    """Runs a model on inputs and baselines that are tensors on one device, already checked.

    Inputs, and baselines likewise, are the model's inputs and behind them its keyword arguments that have a row a sample.
    """

    def __init__(
        self, model: nn.Module, call: Call, baselines: Sequence[Tensor], options: Options, max_memory: int | None
    ) -> None:
        self._model = model
        self._call = call
        self._options = options
        self.baselines = list(baselines)
        self._max_memory = max_memory
        #: Whether what the model gives when it is followed was compared with its own output.
        self.compared = False
        self.probed: Probed
        known, key = _PROBED.setdefault(model, {}), self._known_by()
        if key not in known:
            with within_memory("a batch of three rows"), self.hooks() as hooks:
                self.probe(hooks)
                known[key] = self.probed
        self.probed = known[key]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of one sample's output."""
        return self.probed.layouts.output

    def hooks(self) -> ModelHooks:
        """The context in which the model can be run."""
        return ModelHooks(self._model, self._call, self._options)

    def probe(self, hooks: ModelHooks) -> None:
        """Find out about the model, as it runs now."""
        measurement = Measurement(hooks)
        layouts = probe(hooks, self.baselines, measurement.run)
        self.probed = Probed(layouts, measurement.costs())

    def _known_by(self) -> Any:
        """What a probe's findings hold for. That the model runs the same operations is checked again whenever it runs."""
        call = self._call
        names = {module: name for name, module in self._model.named_modules()}
        return (
            tuple((names[layer.module], layer.at, layer.call) for layer in call.layers),
            call.select,
            tuple((name, _described(value)) for name, value in call.constants.items()),
            (*call.by_row, *call.names),
            self._options,
            registered(),
            tuple((tensor.shape[1:], tensor.dtype, tensor.device) for tensor in self.baselines),
            tuple(
                (name, type(module), *((key, _described(value)) for key, value in vars(module).items()))
                for name, module in self._model.named_modules()
            ),
        )

    def run(self, hooks: ModelHooks, rows: Sequence[Tensor]) -> Pass:
        """A pass over as many of these rows as the model needs, which must give the outputs that the explainer was made for."""
        copies = self.copies(hooks, rows)
        found = hooks.run([tensor.expand(copies, *tensor.shape[1:]) for tensor in rows] if copies > 1 else rows)
        if found.output.shape[1:] != self.output_shape:
            raise ExplanationError(
                f"the model had outputs of shape {list(self.output_shape)} when the explainer was made, and has outputs of shape "
                f"{list(found.output.shape[1:])} now: make an explainer for the model as it is"
            )
        return found

    def copies(self, hooks: ModelHooks, rows: Sequence[Tensor]) -> int:
        """How often rows must be in a batch: twice for a single one where the model needs two."""
        return self._least_rows(hooks, rows) if len(rows[0]) == 1 else 1

    def _least_rows(self, hooks: ModelHooks, row: Sequence[Tensor]) -> int:
        probed = self.probed
        if probed.least_rows is None:
            try:
                one = hooks.run(row)
                probed.least_rows = 1 if probed.layouts.rowwise or probed.layouts.fit(one) else 2
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                probed.least_rows = 2
        return probed.least_rows

    def expected(self) -> Tensor:
        """Mean of the model's output over the baselines, of the shape of one sample's output, for the model as it is now."""
        number = len(self.baselines[0])
        step = self.plan(1, 1, None, "grid", self.budget()).taped
        while True:
            try:
                with self.hooks() as hooks:
                    parts = [
                        [tensor[first : first + step] for tensor in self.baselines] for first in range(0, number, step)
                    ]
                    # Sums over baselines must not round.
                    sums = [wide(self.run(hooks, rows).output.detach())[: len(rows[0])].sum(0) for rows in parts]
                return _finite(torch.stack(sums).sum(0) / number)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if step == 1:
                    raise does_not_fit("one baseline", error) from error
            step = (step + 1) // 2

    def baselines_of(self, own: Sequence[Tensor] | None) -> int:
        """The number of baselines that each input is compared with, ``own`` ones ``[B, R, ...]`` or those that all share."""
        return len(self.baselines[0]) if own is None else own[0].shape[1]

    def plan(self, inputs: int, outputs: int, own: Sequence[Tensor] | None, pairing: Pairing, budget: int) -> Chunks:
        """How much of ``inputs`` inputs with ``outputs`` explained outputs each is done at once."""
        if pairing == "alone":
            inputs = 1
        aligned = pairing in ("aligned", "alone")
        warm = WARM if self.baselines[0].device.type == "cpu" else budget
        return plan(
            self.probed.costs,
            budget,
            warm,
            inputs,
            1 if pairing == "alone" else self.baselines_of(own),
            outputs,
            own is None,
            aligned,
        )

    def budget(self) -> int:
        """Bytes that may be used."""
        device = self.baselines[0].device
        if self._max_memory is None:
            # Half of what is free: torch's own workspaces and other programs take some.
            return available_memory(device) // 2
        return max(1, self._max_memory // HEAP) if device.type == "cpu" else self._max_memory


def _finite(expected: Tensor) -> Tensor:
    if not (finite := expected.isfinite()).all():
        raise ExplanationError(
            f"the model's output is not finite for the baselines, in {int((~finite).sum())} of {expected.numel()} outputs: each must be a "
            f"row that the model can be run on, which one of padding alone may not be"
        )
    return expected


def _described(value: Any) -> Any:
    """A constant that a model may decide by: itself if it is simple, its shape and dtype if it is a tensor."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    return value if isinstance(value, (bool, int, float, str, type(None))) else type(value)


def does_not_fit(what: str, error: Exception) -> OutOfMemoryError:
    return OutOfMemoryError(f"{what} does not fit into memory: {error}")


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Running out of memory in this context is an :class:`OutOfMemoryError`, which names what did not fit."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise does_not_fit(what, error) from error
        raise
