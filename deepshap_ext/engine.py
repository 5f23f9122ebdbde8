"""Runs a model as it is called: probed once for where the batch lies in its tensors and what it costs, within the memory there is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from .arrays import wide
from .baselines import Baselines
from .capture.hooks import ModelHooks, Pass
from .capture.model_call import Call
from .capture.probe import Layouts, probe
from .errors import ExplanationError
from .memory import HEAP, WARM, available_memory, does_not_fit, is_out_of_memory, within_memory
from .planner import Chunks, Costs, Limits, Measurement, Work, plan
from .rules.registry import Options, registered

Result = TypeVar("Result")


@dataclass
class Probed:
    """What a probe found out about a model as it is called.

    ``least_rows``: 2 for a model that cannot run on a single row, as where ``squeeze()`` drops the batch dimension; None until a single row
    was tried.
    """

    layouts: Layouts
    costs: Costs
    least_rows: int | None = None


#: What probes found, by model and by what it depends on (:meth:`Engine._known_by`).
_PROBED: WeakKeyDictionary[nn.Module, dict[Any, Probed]] = WeakKeyDictionary()


class Engine:
    """Runs a model, as ``call`` calls it, on rows of inputs or baselines: checked tensors on one device.

    Rows are tensors ``[rows, ...]``: the model's inputs, and behind them its further arguments that have a row a sample. ``examples`` are
    some rows: all others have their shapes, dtypes and device. ``batch_size``: how many rows or pairs may run at once; None: any number.
    """

    def __init__(
        self,
        model: nn.Module,
        call: Call,
        examples: Sequence[Tensor],
        options: Options,
        max_memory: int | None,
        batch_size: int | None,
    ) -> None:
        self.model = model
        self.call = call
        self.options = options
        self._max_memory = max_memory
        self._batch_size = sys.maxsize if batch_size is None else batch_size
        self.device = examples[0].device
        self.dtypes = [tensor.dtype for tensor in examples]
        #: Whether the model's output when its operations are followed was compared with its output by itself.
        self.compared = False
        self.probed: Probed
        known, key = _PROBED.setdefault(model, {}), self._known_by(examples)
        if key not in known:
            with within_memory("a batch of three rows"), self.hooks() as hooks:
                self.probe(hooks, examples)
                known[key] = self.probed
        self.probed = known[key]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of one sample's output."""
        return self.probed.layouts.output

    def hooks(self) -> ModelHooks:
        """The context in which the model can be run."""
        return ModelHooks(self.model, self.call, self.options)

    def probe(self, hooks: ModelHooks, examples: Sequence[Tensor]) -> None:
        """Probe the model on ``examples`` and measure what it costs, as it runs now."""
        measurement = Measurement(hooks)
        layouts = probe(hooks, examples, measurement.run)
        self.probed = Probed(layouts, measurement.costs())

    def _known_by(self, examples: Sequence[Tensor]) -> Any:
        """What a probe's findings depend on; that the model still runs the same operations is checked whenever it runs."""
        call = self.call
        names = {module: name for name, module in self.model.named_modules()}
        return (
            tuple((names[layer.module], layer.at, layer.call) for layer in call.layers),
            call.select,
            tuple((name, _described(value)) for name, value in call.constants.items()),
            (*call.by_row, *call.names),
            self.options,
            registered(),
            tuple((tensor.shape[1:], tensor.dtype, tensor.device) for tensor in examples),
            tuple(
                (name, type(module), *((key, _described(value)) for key, value in vars(module).items()))
                for name, module in self.model.named_modules()
            ),
        )

    def run(self, hooks: ModelHooks, rows: Sequence[Tensor]) -> Pass:
        """A pass over these rows, or over copies of a single one; its outputs must have the shape that they had when it was probed."""
        copies = self.copies(hooks, rows)
        found = hooks.run([tensor.expand(copies, *tensor.shape[1:]) for tensor in rows] if copies > 1 else rows)
        if found.output.shape[1:] != self.output_shape:
            raise ExplanationError(
                f"the model had outputs of shape {list(self.output_shape)} when the explainer was made, and has outputs of shape "
                f"{list(found.output.shape[1:])} now: make an explainer for the model as it is"
            )
        return found

    def copies(self, hooks: ModelHooks, rows: Sequence[Tensor]) -> int:
        """How often the rows must stand in a batch: twice if it is a single row and the model needs two."""
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

    def expected(self, baselines: Baselines) -> Tensor:
        """Mean of the model's output over shared baselines, of the shape of one sample's output, for the model as it is now."""
        weights = baselines.weights

        def summed(here: slice, outputs: Tensor) -> tuple[Tensor, torch.dtype]:
            return torch.tensordot(weights[here].to(outputs.device), outputs.double(), 1), outputs.dtype

        sums, dtypes = zip(*self._forward(baselines.tensors, summed), strict=True)
        return _finite((torch.stack(sums).sum(0) / weights.sum()).to(dtypes[0]))

    def outputs(self, rows: Sequence[Tensor], targets: Tensor) -> Tensor:
        """``[rows, K]``: the model's flattened outputs ``targets`` ``[rows, K]`` for these rows."""
        return torch.cat(
            self._forward(rows, lambda here, outputs: outputs.reshape(len(outputs), -1).gather(1, targets[here]))
        )

    def _forward(self, rows: Sequence[Tensor], take: Callable[[slice, Tensor], Result]) -> list[Result]:
        """``take(rows, outputs)`` of the model's outputs, in float32 at least, for slices of the rows that fit into memory."""
        number = len(rows[0])
        step = self.plan(Work(1, number, 1, True, False, False), self.budget()).taped
        while True:
            try:
                with self.hooks() as hooks:
                    found = []
                    for first in range(0, number, step):
                        here = slice(first, min(number, first + step))
                        output = self.run(hooks, [tensor[here] for tensor in rows]).output.detach()
                        found.append(take(here, wide(output[: here.stop - first])))
                return found
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if step == 1:
                    raise does_not_fit("one row", error) from error
            step = (step + 1) // 2

    def plan(self, work: Work, budget: int) -> Chunks:
        """How much of the work is done at once."""
        warm = WARM if self.device.type == "cpu" else budget
        return plan(self.probed.costs, Limits(budget, warm, self._batch_size), work)

    def budget(self, work: Work | None = None) -> int:
        """Bytes that may be used, for this work."""
        if self._max_memory is None:
            if work is not None and self.plan(work, WARM).do(work):
                # For small work: to ask the system how much memory is free takes longer than the work itself.
                return WARM
            # Half of what is free: torch's own workspaces and other programs take some.
            return available_memory(self.device) // 2
        return max(1, self._max_memory // HEAP) if self.device.type == "cpu" else self._max_memory


def _finite(expected: Tensor) -> Tensor:
    """The expected value; an error where it is not finite."""
    if not (finite := expected.isfinite()).all():
        raise ExplanationError(
            f"the model's output is not finite for the baselines, in {int((~finite).sum())} of {expected.numel()} outputs: each must be a "
            f"row that the model can be run on, which one of padding alone may not be"
        )
    return expected


def _described(value: Any) -> Any:
    """What of a constant a model's operations may depend on: a simple value itself, of a tensor its shape and dtype, else the type."""
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype
    return value if isinstance(value, (bool, int, float, str, type(None))) else type(value)
