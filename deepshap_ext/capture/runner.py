"""Running single operations of the model, with a rule or without, and recording what they leave behind."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import shown
from ..errors import UnsupportedOperationError
from ..rules.linear import IN_MEMORY_ORDER, RANDOM, SEVERAL_VIEWS, STEPS, single_views
from ..rules.registry import Application, Rule
from .applied import output_of, run_by_rule
from .calls import is_value, needs_rule, nodes_of, reads_value, written_by
from .codes import ROUNDINGS
from .dependence import tensors_in
from .draws import Draws
from .functions import connected
from .location import Location
from .memory_format import keep_format
from .names import Operation
from .parts import Parts
from .record import Record
from .step import Step, Watch
from .tape import Entry

#: Operations with a rule whose operand a later one may ask for.
_LOOKED_BACK_TO = ("rsqrt", "reciprocal", "softmax")


class Runner:
    """Runs one operation at a time; which way is for the capture to choose.

    ``dependent``, an argument of most methods, are the tensors in the call's arguments that were made from the input; ``active`` those of
    them that carry multipliers. ``draws``, ``parts_written`` and ``watch`` are the capture's.
    """

    def __init__(
        self, record: Record, location: Location, draws: Draws, parts_written: bool, watch: Watch | None
    ) -> None:
        self._record = record
        self._location = location
        self._draws = draws
        self._parts_written = parts_written
        self._watch = watch
        self._parts = Parts(on=not parts_written)

    def as_it_is(
        self,
        called: Operation,
        function: Any,
        args: Any,
        kwargs: Any,
        dependent: list[Tensor],
        active: list[Tensor],
        without_rule: bool,
    ) -> Any:
        """Run an operation without a rule: linear, or constant while both sides agree, or refused (``without_rule``)."""
        record = self._record
        written = written_by(called, function, args, kwargs)
        step = called.name in STEPS
        passive = [tensor for tensor in dependent if not tensor.requires_grad] if active and not step else []
        joins = record.join(called, passive) if passive else []
        run = IN_MEMORY_ORDER.get(function, function)
        if active and self._parts_written and called.name in SEVERAL_VIEWS:
            run = partial(single_views, function)
        # A model that is not trained reads values without detaching them first.
        given = [arg.detach() for arg in args] if reads_value(called) else args
        if step and not written:
            with torch.no_grad():
                result = run(*given, **kwargs)
        elif active and (part := self._parts.read(called.name, args, kwargs)) is not None:
            result = part
        else:
            # A step in place keeps its node, whose gradient of 0 the walk over the graph refuses.
            result = run(*given, **kwargs)
        if written:
            # What was written into may carry multipliers now.
            without_rule = bool(active) and needs_rule(called, args, kwargs, record.dependence)
        if without_rule:
            result = connected(result, active)
        made = [*tensors_in(result), *written]
        if active and self._watch is not None:
            self._watch(Step(called.name, run, args, kwargs, made, bool(written)))
        for entry in joins:
            entry.nodes = nodes_of(made, written)
        if without_rule:
            record.without_rule.update(dict.fromkeys(nodes_of(made, written), self._location.no_rule(called)))
        if is_value(function, result, made):
            self._check_stays(called, result)
            culprit = self._location.of(called)
            record.tape.append(Entry(called.title, self._location.module(), [], value=result, culprit=culprit))
        record.mark(called, made, dependent)
        if active:
            for tensor in made:
                keep_format(tensor)
        if active and called.name in ROUNDINGS and not written:
            record.origins.note(called.name, result, active[0])
        return result

    def random(
        self, called: Operation, function: Any, args: Any, kwargs: Any, dependent: list[Tensor], random: str
    ) -> Any:
        """Run what is random, or made from something random, without a rule: it is refused where it reaches the output. ``random`` says
        what is, for that message."""
        given = [arg.detach() for arg in args] if reads_value(called) else args
        draws = called.name in RANDOM
        result = self._draws(called, function, given, kwargs) if draws else function(*given, **kwargs)
        made = [*tensors_in(result), *written_by(called, function, args, kwargs)]
        if is_value(function, result, made):
            self._check_stays(called, result)
        self._record.mark(called, made, dependent, random)
        return result

    def with_rule(
        self, called: Operation, rule: Rule, function: Any, args: Any, kwargs: Any, dependent: list[Tensor]
    ) -> Any:
        """Run an operation under what its rule makes of the call; as it is, where the rule makes nothing of it."""
        record = self._record
        left_out = "inplace", "out"
        arguments = {("input" if key == "self" else key): kwargs[key] for key in kwargs if key not in left_out}
        given, named = record.tape.constants((args, arguments))
        try:
            application = rule(record, *given, **named)
        except UnsupportedOperationError as error:
            self._location.refuse(called, str(error))
        if application is None:
            without_rule = needs_rule(called, args, kwargs, record.dependence)
            return self.as_it_is(called, function, args, kwargs, dependent, dependent, without_rule)
        return self.apply(called, application, args, kwargs, dependent)

    def apply(
        self,
        called: Operation,
        application: Application,
        args: Any,
        kwargs: Any,
        dependent: list[Tensor] | None = None,
    ) -> Any:
        """Run an application; ``args`` and ``kwargs``: the call that it was made for. ``dependent`` is looked up if not given."""
        if not isinstance(application, Application):
            raise TypeError(f"the rule for {called.title} must return an Application or None, got {shown(application)}")
        record, location = self._record, self._location
        target = args[0] if called.in_place or kwargs.get("inplace") else None
        if dependent is None:
            dependent = record.dependence.of((args, kwargs))
        if any(operand.is_complex() for operand in application.operands):
            location.refuse(called, "has no rule for complex tensors")
        covered = {id(tensor) for tensor in application.stand_for or application.operands}
        others = [tensor for tensor in dependent if id(tensor) not in covered]
        for tensor in others:
            if tensor.requires_grad:
                location.refuse(
                    called,
                    f"has no rule for its argument of shape {list(tensor.shape)}, which depends on the explained input",
                )
        joins = record.join(called, others) if others else []
        entry = Entry(
            called.title,
            location.module(),
            [],
            application.multipliers,
            application.parameters,
            scale=application.scale,
            takes_scale=application.takes_scale,
        )
        if location.whole is not None:
            entry.culprit = f"{location.whole.title} in {location.module()}"
        in_place = target is not None and target is application.operands[0]
        result = run_by_rule(record.tape, record.running, application, entry, in_place, application.operands)
        if target is not None and not in_place:
            record.tape.before_write(target)
            result = target.copy_(result)
        made = tensors_in(result)
        for join in joins:
            join.nodes = nodes_of(made, [] if target is None else [target])
        if self._watch is not None:
            run = partial(output_of, application)
            step = Step(called.name, run, application.operands, {}, made, target is not None, application.roundoffs)
            self._watch(step)
        record.mark(called, made, dependent)
        if called.name in _LOOKED_BACK_TO and target is None:
            record.origins.note(called.name, result, application.operands[0], application.parameters)
        return application.rebuild(result) if application.rebuild else result

    def forget(self) -> None:
        """Let go of what is held for the operations to come: there are none."""
        self._parts.forget()

    def _check_stays(self, called: Operation, value: Any) -> None:
        if isinstance(value, np.ndarray) or type(value).__name__ == "PyCapsule":
            self._location.refuse(called, "takes the explained input out of torch, where it cannot be followed")
