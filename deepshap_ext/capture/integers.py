"""Running operations on explained integers, and the same on their twins, which carry the multipliers (:class:`.codes.Codes`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from ..errors import ExplanationError
from ..memory import is_out_of_memory
from ..rules.lookup import ELEMENTWISE, converted, is_integer
from .calls import needs_rule, written_by
from .codes import CONVERSIONS, DECIDED, ROUNDINGS
from .location import Location
from .names import Operation
from .record import Record
from .runner import Runner

#: Runs an operation under the capture: takes the operation, the function, and the call's arguments.
Run = Callable[[Operation, Any, Any, Any], Any]


class Integers:
    """Operations that make integers of numbers that carry multipliers, or have such integers among their arguments."""

    def __init__(self, record: Record, location: Location, runner: Runner) -> None:
        self._record = record
        self._location = location
        self._runner = runner

    def numbers(self, value: Any = None) -> Tensor | None:
        """What carries multipliers to a tensor that is converted: itself, or what it was rounded from."""
        if not isinstance(value, Tensor):
            return None
        origin = None if value.requires_grad else self._record.origins.of(value)
        if origin and origin.name in ROUNDINGS:
            return origin.operand
        return value if value.requires_grad else None

    def converted(
        self,
        called: Operation,
        function: Any,
        args: Any,
        kwargs: Any,
        dependent: list[Tensor],
        active: list[Tensor],
        numbers: Tensor,
    ) -> Any:
        """Convert numbers to another dtype; integers made of them are codes, whose twin carries the multipliers on."""
        without_rule = bool(active) and needs_rule(called, args, kwargs, self._record.dependence)
        result = self._runner.as_it_is(called, function, args, kwargs, dependent, active, without_rule)
        if is_integer(result):
            self._record.codes[result] = self._runner.apply(called, converted(numbers, result), (), {})
        return result

    def run(
        self, called: Operation, function: Any, args: Any, kwargs: Any, dependent: list[Tensor], on_numbers: Run
    ) -> Any:
        """Run an operation on explained integers, and the same on their twins (``on_numbers``), of which numbers that it makes are made.

        Gives :data:`DECIDED` where integers only decide in the operation, which then is still to be run like any other.
        """
        codes = self._record.codes
        if called.name in ELEMENTWISE and written_by(called, function, args, kwargs):
            self._location.refuse(called, "is explained for explained integers where it makes new ones, not in place")
        looked_up = codes.looked_up(called.name, function, args, kwargs, self._record.tape.constants)
        if looked_up is not None:
            result, application = looked_up
            moved = self._runner.apply(called, application, args, kwargs)
        elif called.name in CONVERSIONS:
            result = function(*args, **kwargs)
            if not (isinstance(result, Tensor) and args and args[0] in codes):
                return DECIDED
            if result.dtype == torch.bool != args[0].dtype:
                return DECIDED
            moved = codes[args[0]].clone()
        else:
            return self._on_twins(called, function, args, kwargs, dependent, on_numbers)
        return tree_map(partial(self._with_twin, called, dependent), result, moved)

    def _on_twins(
        self, called: Operation, function: Any, args: Any, kwargs: Any, dependent: list[Tensor], on_numbers: Run
    ) -> Any:
        """Run an operation that moves integers about, and the same on their twins."""
        codes = self._record.codes
        written = written_by(called, function, args, kwargs)
        integers = [tensor for tensor in written if is_integer(tensor)]
        for tensor in integers:
            codes.written(tensor)
        twins, named = codes.arguments(called.name, args, kwargs)
        try:
            moved = on_numbers(called, function, twins, named)
        except ExplanationError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # Torch takes only integers in their place: they are an index, say.
            return DECIDED
        if written and not integers:
            return moved
        result = function(*args, **kwargs)
        self._record.mark(called, integers, dependent)
        return tree_map(partial(self._with_twin, called, dependent), result, moved)

    def _with_twin(self, called: Operation, dependent: list[Tensor], result: Any, twin: Any) -> Any:
        """Integers with this twin; or the twin, where they are numbers."""
        if not isinstance(result, Tensor):
            return result
        codes = self._record.codes
        if result.is_floating_point():
            result = twin = twin.to(result.dtype)
        else:
            known = result in codes and codes[result] is twin
            if result.element_size() < 4 and not (known or twin._is_view()):
                # Small integers wrap around.
                twin = self._runner.apply(called, converted(twin, result), (), {})
            if not torch.equal(twin.detach().to(result.dtype), result):
                self._location.refuse(
                    called, "makes integers beyond 2**53 of explained ones: take remainders before it"
                )
            codes[result] = twin
        self._record.mark(called, [result, twin], dependent)
        return result
