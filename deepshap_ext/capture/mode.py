"""The function mode that sees every operation of a forward pass, replaces those that have a rule, and tapes them."""

from __future__ import annotations

import types
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

from ..arguments import shown
from ..errors import OF_INTEGERS, ExplanationError, UnsupportedOperationError
from ..memory import is_out_of_memory
from ..rules.formats import has_channels_last, with_channels_last
from ..rules.integrate import integrate
from ..rules.linear import (
    DIVISIONS,
    FACTORS,
    IN_MEMORY_ORDER,
    LINEAR,
    METADATA,
    RANDOM,
    REFUSED_AT_ONCE,
    SEVERAL_VIEWS,
    SHAPED_LIKE,
    STEPS,
    single_views,
)
from ..rules.lookup import ELEMENTWISE, converted, is_integer
from ..rules.registry import DECOMPOSITIONS, Application, Options, Rule
from . import source
from .applied import Running, output_of, run_by_rule
from .calls import body_of, is_off, is_value, nodes_of, reads_value, without_overrides, written_by
from .codes import CONVERSIONS, DECIDED, ROUNDINGS, Codes, keeps_codes
from .dependence import Dependence, is_wrapped, plain, tensors_in
from .detach import ALIASES, SET_GRAD_MODE, as_identity
from .draws import Draws
from .functions import Attempt, connected
from .names import Operation, is_of_torch, operation
from .parts import Parts
from .saved import saved_tensors
from .step import Step, Watch
from .tape import Entry, Tape
from .writes import Contents, only_makes, undeclared

#: Hooks that a model gives its tensors as it runs, to clip gradients or to look at them: they are training's backward's.
WATCHING = frozenset("register_hook register_post_accumulate_grad_hook".split())

#: Where rules cannot run.
TRANSFORMS = "a transform of torch.func (vmap, grad, ...)"


class Capture(TorchFunctionMode):
    """Runs a model's operations, tapes the non-linear ones and refuses what it cannot explain.

    Inside ``__torch_function__`` the mode is off; a composite is taken apart by running it again with the mode on.
    ``module_path`` names the module that is running, for messages. ``parts_written``: the model writes into the parts of a split, which
    autograd allows only where these are views by themselves. ``watch`` is shown every operation on a tensor that carries multipliers.
    """

    def __init__(
        self,
        module_path: Callable[[], str],
        options: Options,
        rules: dict[Any, Rule],
        contents: Contents,
        draws: Draws,
        parts_written: bool = False,
        watch: Watch | None = None,
    ) -> None:
        super().__init__()
        self._watch = watch
        self.options = options
        self.rules = rules
        self._contents = contents
        self._draws = draws
        self.dependence = Dependence()
        self.codes = Codes()
        self.tape = Tape()
        self.running = Running()
        self.without_rule: dict[Node, str] = {}
        #: Where in the graph something that carries multipliers past the explained layer meets what is explained.
        self.meetings: dict[Node, str] = {}
        self._made_by: dict[int, _Made] = {}
        self._module_path = module_path
        self._parts_written = parts_written
        self.parts = Parts(on=not parts_written)
        #: The operation whose decomposition of this package runs: what that detaches is to be without a gradient.
        self._whole: Operation | None = None
        self._on = True
        #: Functions of the user's that let modes see them, while their bodies run.
        self._inside: list[Any] = []
        self._below: list[int] = []

    def __enter__(self) -> Capture:
        self._below.append(torch._C._len_torch_function_stack())
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *raised: object) -> None:
        # Torch takes a mode off for a moment in some of its functions: what interrupts one there may leave it off, or others on.
        below = self._below.pop()
        while torch._C._len_torch_function_stack() > below:
            torch._C._pop_torch_function_stack()

    def __torch_function__(self, function: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        called = operation(function)
        if called.name in WATCHING:
            return RemovableHandle(OrderedDict())
        given = tensors_in((args, kwargs))
        run = partial(self._call, given=given) if self._on else self._unfollowed
        result = run(called, function, args, kwargs)
        self._contents.made(function, given, result)
        return result

    def _call(
        self,
        called: Operation,
        function: Any,
        args: Any,
        kwargs: Any,
        given: list[Tensor] | None = None,
        opaque: bool = False,
    ) -> Any:
        """Run an operation; what is made of an ``opaque`` one's inside is its own. ``given``: the tensors in its arguments, if known."""
        if function is SET_GRAD_MODE:
            # The model's torch.no_grad changes nothing that it computes.
            return None
        identity = as_identity(function) if self._whole is None else function
        if called.name in METADATA:
            return (identity if identity is not function and self.carries(args[0]) else function)(*args, **kwargs)
        if called.name in SHAPED_LIKE:
            given = tensors_in(args[:1])
        elif given is None:
            given = tensors_in((args, kwargs))
        dependent = self.dependence.among(given)
        self._before_writes(called, function, args, kwargs)
        if called.name in RANDOM and not is_off(called, args, kwargs):
            return self._random(called, function, args, kwargs, dependent, f"{self._place(called)} is random")
        if not dependent:
            # What is written through an alias without a gradient is to reach the tensor itself.
            alias = called.name in ALIASES and not (called.in_place or args[0].requires_grad)
            return (identity if alias else function)(*args, **kwargs)
        if self.dependence.has_random and (random := self._made_random(called, dependent)):
            return self._random(called, function, args, kwargs, dependent, random)
        if called.name == "set_data":
            self._refuse(called, "replaces the data of a tensor that depends on the explained input")
        active = [tensor for tensor in dependent if tensor.requires_grad]
        if active and called.name in REFUSED_AT_ONCE:
            self._refuse(called, REFUSED_AT_ONCE[called.name])
        if active and kwargs.get("out") is not None:
            return self._into(called, function, args, kwargs)
        if active:
            function = identity
        wrapped = [tensor for tensor in dependent if is_wrapped(tensor) and self.carries(tensor)]
        if wrapped and self._needs_rule(called, args, kwargs):
            self._refuse(called, f"runs inside {TRANSFORMS}, where its rule cannot")
        if called.name in CONVERSIONS and (numbers := self._numbers(*args[:1])) is not None:
            return self._converted(called, function, args, kwargs, dependent, active, numbers)
        if self.codes and keeps_codes(called.name):
            if any(tensor in self.codes for tensor in dependent):
                result = self._coded(called, function, args, kwargs, dependent)
                if result is not DECIDED:
                    return result
            elif any(plain(tensor) in self.codes for tensor in dependent):
                self._refuse(called, f"runs inside {TRANSFORMS}, where explained integers cannot be followed")
        if active and called.name in self.rules:
            return self._with_rule(called, function, args, kwargs, dependent)
        without_rule = bool(active) and self._needs_rule(called, args, kwargs)
        if without_rule:
            body = DECOMPOSITIONS.get(called.name) or (body_of if is_of_torch(function) else self._users_body)(function)
            if body is not None:
                return self._taken_apart(called, body, args, kwargs, ours=called.name in DECOMPOSITIONS)
            if self.options.on_unsupported == "integrate":
                given, named = self._constants((args, kwargs))
                return self._apply(called, integrate(function, given, named, active, opaque=opaque), args, kwargs)
        return self._as_it_is(called, function, args, kwargs, dependent, active, without_rule)

    def _numbers(self, value: Any = None) -> Tensor | None:
        """What carries multipliers to a tensor that is converted: itself, or what it was rounded from."""
        if not isinstance(value, Tensor):
            return None
        made = None if value.requires_grad else self.made_by(value)
        if made and made.name in ROUNDINGS:
            return made.operand
        return value if value.requires_grad else None

    def _converted(
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
        without_rule = bool(active) and self._needs_rule(called, args, kwargs)
        result = self._as_it_is(called, function, args, kwargs, dependent, active, without_rule)
        if is_integer(result):
            self.codes[result] = self._apply(called, converted(numbers, result), (), {})
        return result

    def _coded(self, called: Operation, function: Any, args: Any, kwargs: Any, dependent: list[Tensor]) -> Any:
        """Run an operation on explained integers, and the same on their twins; numbers that it makes are the twins'."""
        if body := self.codes.taken_apart(called.name, args, kwargs):
            return self._taken_apart(called, body, args, kwargs, ours=True)
        if called.name in ELEMENTWISE and written_by(called, function, args, kwargs):
            self._refuse(called, "is explained for explained integers where it makes new ones, not in place")
        looked_up = self.codes.looked_up(called.name, function, args, kwargs, self._constants)
        if looked_up is not None:
            result, application = looked_up
            moved = self._apply(called, application, args, kwargs)
        elif called.name in CONVERSIONS:
            result = function(*args, **kwargs)
            if not (isinstance(result, Tensor) and args and args[0] in self.codes):
                return DECIDED
            if result.dtype == torch.bool != args[0].dtype:
                return DECIDED
            moved = self.codes[args[0]].clone()
        else:
            return self._on_twins(called, function, args, kwargs, dependent)
        return tree_map(partial(self._with_twin, called, dependent), result, moved)

    def _on_twins(self, called: Operation, function: Any, args: Any, kwargs: Any, dependent: list[Tensor]) -> Any:
        """Run an operation on explained integers and the same on their twins."""
        written = written_by(called, function, args, kwargs)
        integers = [tensor for tensor in written if is_integer(tensor)]
        for tensor in integers:
            self.codes.written(tensor)
        twins, named = self.codes.arguments(called.name, args, kwargs)
        try:
            moved = self._call(called, function, twins, named)
        except ExplanationError:
            raise
        except Exception as error:
            # Torch takes no numbers there.
            if is_out_of_memory(error):
                raise
            return DECIDED
        if written and not integers:
            return moved
        result = function(*args, **kwargs)
        self._mark(called, integers, dependent)
        return tree_map(partial(self._with_twin, called, dependent), result, moved)

    def _with_twin(self, called: Operation, dependent: list[Tensor], result: Any, twin: Any) -> Any:
        """Integers with this twin; or the twin, where they are numbers."""
        if not isinstance(result, Tensor):
            return result
        if result.is_floating_point():
            result = twin = twin.to(result.dtype)
        else:
            known = result in self.codes and self.codes[result] is twin
            if result.element_size() < 4 and not (known or twin._is_view()):
                # Small integers wrap around.
                twin = self._apply(called, converted(twin, result), (), {})
            if not torch.equal(twin.detach().to(result.dtype), result):
                self._refuse(called, "makes integers beyond 2**53 of explained ones: take remainders before it")
            self.codes[result] = twin
        self._mark(called, [result, twin], dependent)
        return result

    def _unfollowed(self, called: Operation, function: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation that is a part of one with a rule, or of a hand-written Function."""
        self._before_writes(called, function, args, kwargs)
        if called.name in RANDOM and not is_off(called, args, kwargs):
            return self._draws(called, function, args, kwargs)
        return function(*args, **kwargs)

    def _before_writes(self, called: Operation, function: Any, args: Any, kwargs: Any) -> None:
        """Keep what the operation writes into: for the pair pass, and for the user unless this pass itself has made it."""
        if called.name in METADATA:
            return
        if only_makes(called, function, kwargs):
            return
        for tensor in (*written_by(called, function, args, kwargs), *undeclared(called, args, kwargs)):
            self.tape.before_write(tensor)
            self._contents.before_write(tensor)
        self._contents.before_operation(called, args, kwargs)

    def saved_tensors(self) -> AbstractContextManager[None]:
        """See :func:`deepshap_ext.capture.saved.saved_tensors`."""
        return saved_tensors(self.dependence, self.tape, self.options.on_unsupported != "gradient")

    def release(self) -> None:
        """Let go of the autograd graph and of storages; what the tape keeps stays."""
        self.parts.forget()
        self.dependence = Dependence()
        self.codes = Codes()
        self.without_rule.clear()
        self.meetings.clear()
        self._made_by.clear()
        self.tape.release()

    def module_path(self) -> str:
        """The dotted name of the module that is running."""
        return self._module_path()

    def sees(self) -> bool:
        """Whether an operation that the model would call now would come here: not in an operation's own inside."""
        return self._on and self in _get_current_function_mode_stack()

    def function(
        self, written: type[torch.autograd.Function], apply: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """Run a hand-written ``autograd.Function``: by its rule; or as the operations that it is made of; or, where these cannot be
        followed, as one operation without a rule, whose gradient its own backward gives."""
        called = operation(written)

        def opened(*args: Any, **kwargs: Any) -> Any:
            attempt = Attempt(self, written, args, kwargs)
            if attempt.run():
                return attempt.result
            with self.paused():
                result = self._call(called, apply, args, kwargs, opaque=True)
            attempt.blame()
            return result

        if rule := self.rules.get(written):
            return self.unit(called, rule, opened, args, kwargs)
        return opened(*args, **kwargs) if self.dependence.of((args, kwargs)) else apply(*args, **kwargs)

    def unit(self, called: Operation, rule: Rule, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run what is no operation of torch's (a module, a function of the user's) as one operation under its rule."""
        dependent = self.dependence.of((args, kwargs))
        carrying = [tensor for tensor in dependent if self.carries(tensor)]
        random = self.dependence.has_random and any(self.dependence[tensor].random for tensor in dependent)
        if random or not carrying:
            return run(*args, **kwargs)
        if any(plain(tensor) is not tensor for tensor in carrying):
            self._refuse(called, f"runs inside {TRANSFORMS}, where its rule cannot")
        with self.paused():
            try:
                application = rule(self, *args, **kwargs)
            except UnsupportedOperationError as error:
                self._refuse(called, str(error))
            if application is not None:
                return self._apply(called, application, (args, kwargs), {})
        return run(*args, **kwargs)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Operations of this block are the explainer's own."""
        self._on = False
        try:
            yield
        finally:
            self._on = True

    def carries(self, value: Any) -> bool:
        """See :class:`deepshap_ext.rules.registry.Context`, which the capture is for the rules."""
        if not isinstance(value, Tensor):
            return False
        # Constants do not require a gradient: most need no more than this look.
        return (plain(value) if is_wrapped(value) else value).requires_grad and value in self.dependence

    def inverse_of(self, value: Tensor) -> tuple[Tensor, str] | None:
        """See :class:`deepshap_ext.rules.registry.Context`."""
        made = self.made_by(value)
        return (made.operand, made.name) if made and made.name in ("rsqrt", "reciprocal") else None

    def made_by(self, value: Tensor) -> _Made | None:
        """The ``rsqrt``, ``reciprocal``, ``softmax`` or rounding that made a tensor, while neither this nor the operand was modified."""
        made = self._made_by.get(id(value))
        return made if made and made.versions == (value._version, made.operand._version) else None

    def script(self, function: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run a TorchScript function as one operation."""
        if not self._on:
            return call(function, *args, **kwargs)
        called = Operation(f"torch.jit.{function.name}", f"the TorchScript function {function.name}", False)
        with self.paused():
            return self._call(called, partial(call, function), args, kwargs, opaque=True)

    def _as_it_is(
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
        written = written_by(called, function, args, kwargs)
        step = called.name in STEPS
        passive = [tensor for tensor in dependent if not tensor.requires_grad] if active and not step else []
        joins = self._join(called, passive) if passive else []
        run = IN_MEMORY_ORDER.get(function, function)
        if active and self._parts_written and called.name in SEVERAL_VIEWS:
            run = partial(single_views, function)
        # A model that is not trained reads values without detaching them first.
        given = [arg.detach() for arg in args] if reads_value(called) else args
        if step and not written:
            with torch.no_grad():
                result = run(*given, **kwargs)
        elif active and (part := self.parts.read(called.name, args, kwargs)) is not None:
            result = part
        else:
            # A step in place keeps its node, whose gradient of 0 the walk over the graph refuses.
            result = run(*given, **kwargs)
        if written:
            # What was written into may carry multipliers now.
            without_rule = bool(active) and self._needs_rule(called, args, kwargs)
        if without_rule:
            result = connected(result, active)
        made = [*tensors_in(result), *written]
        if active and self._watch is not None:
            self._watch(Step(called.name, run, args, kwargs, made, bool(written)))
        for entry in joins:
            entry.nodes = nodes_of(made, written)
        if without_rule:
            self.without_rule.update(dict.fromkeys(nodes_of(made, written), self._no_rule(called)))
        if is_value(function, result, made):
            self._check_stays(called, result)
            culprit = self._place(called)
            self.tape.append(Entry(called.title, self._module_path(), [], value=result, culprit=culprit))
        self._mark(called, made, dependent)
        if active:
            for tensor in made:
                _keep_format(tensor)
        if active and called.name in ROUNDINGS and not written:
            self._remember(called, result, active[0])
        return result

    def _needs_rule(self, called: Operation, args: Any, kwargs: Any) -> bool:
        if called.name in LINEAR:
            return self._several_factors(called, args, kwargs)
        return called.name not in STEPS

    def _users_body(self, function: Any) -> Callable[..., Any] | None:
        """The body of a function of the user's that lets modes see it; None where it has come back to the mode from its body."""
        if not isinstance(function, types.FunctionType) or function in self._inside:
            return None

        def body(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(function)
            try:
                return without_overrides(function, {})(*args, **kwargs)
            finally:
                self._inside.pop()

        return body

    def _taken_apart(self, called: Operation, body: Callable[..., Any], args: Any, kwargs: Any, ours: bool) -> Any:
        """Run a composite's parts under the mode; ``ours``: the parts are this package's, and not the function's own."""
        if not ours:
            with self:
                return body(*args, **kwargs)
        outer, self._whole = self._whole, self._whole or called
        try:
            with self:
                result = body(*args, **{key: value for key, value in kwargs.items() if key != "out"})
                return args[0].copy_(result) if called.in_place else result
        except UnsupportedOperationError as error:
            if f" in {self._module_path()}" not in str(error):
                raise UnsupportedOperationError(f"{error} (in {self._module_path()})") from None
            raise
        finally:
            self._whole = outer

    def _with_rule(self, called: Operation, function: Any, args: Any, kwargs: Any, dependent: list[Tensor]) -> Any:
        left_out = "inplace", "out"
        arguments = {("input" if key == "self" else key): kwargs[key] for key in kwargs if key not in left_out}
        given, named = self._constants((args, arguments))
        try:
            application = self.rules[called.name](self, *given, **named)
        except UnsupportedOperationError as error:
            self._refuse(called, str(error))
        if application is None:
            without_rule = self._needs_rule(called, args, kwargs)
            return self._as_it_is(called, function, args, kwargs, dependent, dependent, without_rule)
        return self._apply(called, application, args, kwargs, dependent)

    def _constants(self, value: Any) -> Any:
        """A call's arguments as a rule may keep them: the model may write into its constants."""
        if isinstance(value, Tensor):
            kept = value.requires_grad or value.layout != torch.strided
            return value if kept else self.tape.constant(value)
        if type(value) in (list, tuple):
            return type(value)(map(self._constants, value))
        if isinstance(value, dict):
            return {key: self._constants(item) for key, item in value.items()}
        return value

    def _into(self, called: Operation, function: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation without its ``out=``, which autograd does not allow, and copy the result there."""
        out = kwargs["out"]
        rest = {key: value for key, value in kwargs.items() if key != "out"}
        with self:
            result = getattr(function, "overloadpacket", function)(*args, **rest)
            for given, part in zip(tensors_in(out), tensors_in(result), strict=True):
                if given.numel() == 0:
                    given.resize_(part.shape)
                if given.shape != part.shape:
                    self._refuse(
                        called, f"has a result of shape {list(part.shape)}, but out= of shape {list(given.shape)}"
                    )
                given.copy_(part)
        return out if isinstance(out, Tensor) else type(result)(out)

    def _apply(
        self,
        called: Operation,
        application: Application,
        args: Any,
        kwargs: Any,
        dependent: list[Tensor] | None = None,
    ) -> Any:
        """Run an operation under its rule; ``dependent``: those of its arguments that are, where that is known."""
        if not isinstance(application, Application):
            raise TypeError(f"the rule for {called.title} must return an Application or None, got {shown(application)}")
        target = args[0] if called.in_place or kwargs.get("inplace") else None
        if dependent is None:
            dependent = self.dependence.of((args, kwargs))
        if any(operand.is_complex() for operand in application.operands):
            self._refuse(called, "has no rule for complex tensors")
        covered = {id(tensor) for tensor in application.stand_for or application.operands}
        others = [tensor for tensor in dependent if id(tensor) not in covered]
        for tensor in others:
            if tensor.requires_grad:
                self._refuse(
                    called,
                    f"has no rule for its argument of shape {list(tensor.shape)}, which depends on the explained input",
                )
        joins = self._join(called, others) if others else []
        entry = Entry(
            called.title,
            self._module_path(),
            [],
            application.multipliers,
            application.parameters,
            scale=application.scale,
            takes_scale=application.takes_scale,
        )
        if self._whole is not None:
            entry.culprit = f"{self._whole.title} in {self._module_path()}"
        in_place = target is not None and target is application.operands[0]
        result = run_by_rule(self.tape, self.running, application, entry, in_place, application.operands)
        if target is not None and not in_place:
            self.tape.before_write(target)
            result = target.copy_(result)
        made = tensors_in(result)
        for join in joins:
            join.nodes = nodes_of(made, [] if target is None else [target])
        if self._watch is not None:
            run = partial(output_of, application)
            step = Step(called.name, run, application.operands, {}, made, target is not None, application.roundoffs)
            self._watch(step)
        self._mark(called, made, dependent)
        if called.name in ("rsqrt", "reciprocal", "softmax") and target is None:
            self._remember(called, result, application.operands[0], application.parameters)
        return application.rebuild(result) if application.rebuild else result

    def _remember(self, called: Operation, result: Tensor, operand: Tensor, parameters: tuple[Any, ...] = ()) -> None:
        """Keep what a tensor was made from, for later operations; the operand lives no longer than the result does."""
        forget = partial(self._made_by.pop, id(result))
        versions = result._version, operand._version
        self._made_by[id(result)] = _Made(weakref.ref(result, forget), versions, operand, called.name, parameters)

    def _random(
        self, called: Operation, function: Any, args: Any, kwargs: Any, dependent: list[Tensor], random: str
    ) -> Any:
        """Run what is random, or made from something random, without a rule: it is refused where it reaches the output."""
        given = [arg.detach() for arg in args] if reads_value(called) else args
        draws = called.name in RANDOM
        result = self._draws(called, function, given, kwargs) if draws else function(*given, **kwargs)
        made = [*tensors_in(result), *written_by(called, function, args, kwargs)]
        if is_value(function, result, made):
            self._check_stays(called, result)
        self._mark(called, made, dependent, random)
        return result

    def _made_random(self, called: Operation, dependent: list[Tensor]) -> str | None:
        """What made the first of the operands that are random so."""
        return next(filter(None, (self.dependence[tensor].random for tensor in dependent)), None)

    def _join(self, called: Operation, passive: list[Tensor]) -> list[Entry]:
        """Tensors that depend on the input and carry no gradient: constants only while they are the same on both sides."""
        groups: dict[tuple[bool, str | None], list[Tensor]] = {}
        for tensor in passive:
            mark = self.dependence[tensor]
            groups.setdefault((mark.explained, mark.decision), []).append(tensor)
        entries = []
        for (explained, decision), kept in groups.items():
            culprit = decision if explained else self._place(called)
            if explained and not decision and self._of_integers(kept):
                culprit = self._place(called, OF_INTEGERS)
            entry = Entry(called.title, self._module_path(), kept, past=not explained, culprit=culprit)
            self.tape.append(entry)
            entries.append(entry)
        return entries

    def _of_integers(self, tensors: Sequence[Tensor]) -> bool:
        """Whether integers among these are explained as inputs of their own, not only as columns of numbers."""
        return bool(self.codes.inputs) and any(tensor in self.codes for tensor in tensors)

    def _place(self, called: Operation, of: str = "") -> str:
        """The operation, what it is of, its module and the line of the model's source: for the few that a message may have to name."""
        line = source.line()
        return f"{(self._whole or called).title}{of} in {self._module_path()}" + (f" ({line})" if line else "")

    def _refuse(self, called: Operation, reason: str) -> NoReturn:
        raise UnsupportedOperationError(f"{called.title} in {self._module_path()} {reason}")

    def _no_rule(self, called: Operation) -> str:
        """Why multipliers must not reach the operation's results; the walk over the graph refuses them if they do."""
        where, script = f"{called.title} in {self._module_path()}", str(called.name).startswith("torch.jit.")
        if script:
            return (
                f"{where} cannot be followed: run it as Python, with PYTORCH_JIT=0 in the environment, or call the function that it is "
                f"made from"
            )
        return (
            f"{where} has no rule: give it one with register_rule, replace it by operations that have one, "
            f"explain a layer behind it with (model, layer), or pass on_unsupported='integrate'"
        )

    def _check_stays(self, called: Operation, result: Any) -> None:
        if isinstance(result, np.ndarray) or type(result).__name__ == "PyCapsule":
            self._refuse(called, "takes the explained input out of torch, where it cannot be followed")

    def _several_factors(self, called: Operation, args: Any, kwargs: Any) -> bool:
        """Whether a product was called with more than one factor, or a division with a divisor, that carries multipliers; or with a sparse
        factor, which autograd's backward for batches does not take."""
        if called.name == "einsum":
            values = tensors_in(args)
        else:
            factors = FACTORS.get(called.name)
            if factors is None:
                return False
            values = [args[at] if at < len(args) else kwargs.get(keyword) for at, keyword in factors.items()]
        for value in values:
            if isinstance(value, Tensor) and value.layout is not torch.strided:
                return True
        return sum(map(self.carries, values)) > 1 or (called.name in DIVISIONS and self.carries(values[1]))

    def _mark(
        self, called: Operation, made: Sequence[Tensor], dependent: Sequence[Tensor], random: str | None = None
    ) -> None:
        """What an operation made from dependent tensors depends on the input as they do."""
        marks = [self.dependence[tensor] for tensor in dependent]
        explained = sum([mark.explained for mark in marks])
        if 0 < explained < len(marks):
            past = [t for t, mark in zip(dependent, marks, strict=True) if t.requires_grad and not mark.explained]
            if past:
                self.meetings.update(dict.fromkeys(nodes_of(made, made), self._place(called)))
        decision = None
        for tensor in made:
            if tensor.layout is not torch.strided:
                self._refuse(called, f"makes a tensor of layout {tensor.layout}: only dense tensors can be explained")
            passive = not tensor.requires_grad
            if passive and decision is None:
                if self._of_integers(dependent):
                    decision = self._place(called, OF_INTEGERS)
                elif any(self.carries(tensor) or tensor in self.codes for tensor in dependent):
                    decision = self._place(called)
                else:
                    decision = next((mark.decision for mark in marks if mark.decision), None)
            self.dependence.mark(tensor, explained > 0, random, decision if passive else None)


def _keep_format(tensor: Tensor) -> None:
    """Have the gradients of a channels-last tensor, which come from several operations, in that memory format before they go on."""
    node = tensor.grad_fn
    if node is None or tensor._is_view() or tensor.is_nested or plain(tensor) is not tensor:
        return
    if has_channels_last(tensor):
        node.register_prehook(partial(_in_channels_last, tensor.output_nr))


def _in_channels_last(number: int, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple(
        with_channels_last(grad) if position == number and grad is not None else grad
        for position, grad in enumerate(grads)
    )


@dataclass(frozen=True)
class _Made:
    """An operation that later ones look back to; ``versions`` are its result's and its operand's when it ran."""

    result: weakref.ref[Tensor]
    versions: tuple[int, int]
    operand: Tensor
    name: str
    parameters: tuple[Any, ...]
