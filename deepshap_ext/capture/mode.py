"""The function mode that sees every operation of a forward pass and chooses the way in which each is run."""

from __future__ import annotations

import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils.hooks import RemovableHandle

from ..errors import UnsupportedOperationError
from ..rules.integrate import integrate
from ..rules.linear import METADATA, RANDOM, REFUSED_AT_ONCE, SHAPED_LIKE
from ..rules.registry import DECOMPOSITIONS, Options, Rule
from .calls import body_of, is_off, needs_rule, stable_sort, without_overrides, written_by
from .codes import CONVERSIONS, DECIDED, keeps_codes
from .dependence import is_wrapped, plain, tensors_in
from .detach import ALIASES, SET_GRAD_MODE, as_identity
from .draws import Draws
from .integers import Integers
from .location import Location
from .names import Operation, is_of_torch, operation
from .record import Record
from .runner import Runner
from .saved import saved_tensors
from .step import Watch
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
    What a pass leaves behind is its ``record``; nothing of that holds the capture.
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
        self.rules = rules
        self.location = Location(module_path)
        self.record = Record(options, self.location)
        self.runner = Runner(self.record, self.location, draws, parts_written, watch)
        self._integers = Integers(self.record, self.location, self.runner)
        self._contents = contents
        self._draws = draws
        #: Whether operations are the model's: not within :meth:`paused`.
        self.is_on = True
        #: Functions of the user's that let modes see them, while their bodies run.
        self._inside: list[Any] = []
        #: How many modes were in force when this one was entered, each time that it was.
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
        run = partial(self.call, given=given) if self.is_on else self._unfollowed
        result = run(called, function, args, kwargs)
        self._contents.made(function, given, result)
        return result

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Operations of this block are the explainer's own."""
        self.is_on = False
        try:
            yield
        finally:
            self.is_on = True

    def sees(self) -> bool:
        """Whether an operation that the model would call now would come here: not in an operation's own inside."""
        return self.is_on and self in _get_current_function_mode_stack()

    def saved_tensors(self) -> AbstractContextManager[None]:
        """See :func:`deepshap_ext.capture.saved.saved_tensors`."""
        record = self.record
        return saved_tensors(record.dependence, record.tape, record.options.on_unsupported != "gradient")

    def call(
        self,
        called: Operation,
        function: Any,
        args: Any,
        kwargs: Any,
        given: list[Tensor] | None = None,
        opaque: bool = False,
    ) -> Any:
        """Run an operation. ``given``: the tensors in its arguments, if known. ``opaque``: it may do what no function mode
        sees, as a hand-written Function or a script may."""
        if function is SET_GRAD_MODE:
            # The model's torch.no_grad changes nothing that it computes.
            return None
        record, refuse = self.record, self.location.refuse
        dependence = record.dependence
        # To multipliers detaching is the identity; only decompositions of this package detach what is to be without a gradient.
        identity = as_identity(function) if self.location.whole is None else function
        if called.name in METADATA:
            detaches = identity is not function and dependence.carries(args[0])
            return (identity if detaches else function)(*args, **kwargs)
        if called.name in SHAPED_LIKE:
            given = tensors_in(args[:1])
        elif given is None:
            given = tensors_in((args, kwargs))
        dependent = dependence.among(given)
        self._before_writes(called, function, args, kwargs)
        if called.name in RANDOM and not is_off(called, args, kwargs):
            random = f"{self.location.of(called)} is random"
            return self.runner.random(called, function, args, kwargs, dependent, random)
        if not dependent:
            if called.name in ("sort", "argsort"):
                return stable_sort(function, args, kwargs)
            # What is written through an alias without a gradient is to reach the tensor itself.
            alias = called.name in ALIASES and not (called.in_place or args[0].requires_grad)
            return (identity if alias else function)(*args, **kwargs)
        if dependence.has_random and (made_random := dependence.random_among(dependent)):
            return self.runner.random(called, function, args, kwargs, dependent, made_random)
        if called.name == "set_data":
            refuse(called, "replaces the data of a tensor that depends on the explained input")
        active = [tensor for tensor in dependent if tensor.requires_grad]
        if active and called.name in REFUSED_AT_ONCE:
            refuse(called, REFUSED_AT_ONCE[called.name])
        if active and kwargs.get("out") is not None:
            return self._into(called, function, args, kwargs)
        if active:
            function = identity
        wrapped = [tensor for tensor in dependent if is_wrapped(tensor) and dependence.carries(tensor)]
        if wrapped and needs_rule(called, args, kwargs, dependence):
            refuse(called, f"runs inside {TRANSFORMS}, where its rule cannot")
        if called.name in CONVERSIONS and (numbers := self._integers.numbers(*args[:1])) is not None:
            return self._integers.converted(called, function, args, kwargs, dependent, active, numbers)
        if record.codes and keeps_codes(called.name):
            if any(tensor in record.codes for tensor in dependent):
                if body := record.codes.taken_apart(called.name, args, kwargs):
                    return self._decomposed(called, body, args, kwargs)
                result = self._integers.run(called, function, args, kwargs, dependent, self.call)
                if result is not DECIDED:
                    return result
            elif any(plain(tensor) in record.codes for tensor in dependent):
                refuse(called, f"runs inside {TRANSFORMS}, where explained integers cannot be followed")
        if active and called.name in self.rules:
            return self.runner.with_rule(called, self.rules[called.name], function, args, kwargs, dependent)
        without_rule = bool(active) and needs_rule(called, args, kwargs, dependence)
        if without_rule:
            if parts := DECOMPOSITIONS.get(called.name):
                return self._decomposed(called, parts, args, kwargs)
            body = (body_of if is_of_torch(function) else self._users_body)(function)
            if body is not None:
                with self:
                    return body(*args, **kwargs)
            if record.options.on_unsupported == "integrate":
                constant, named = record.tape.constants((args, kwargs))
                application = integrate(function, constant, named, active, opaque=opaque)
                return self.runner.apply(called, application, args, kwargs)
        return self.runner.as_it_is(called, function, args, kwargs, dependent, active, without_rule)

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
            self.record.tape.before_write(tensor)
            self._contents.before_write(tensor)
        self._contents.before_operation(called, args, kwargs)

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

    def _decomposed(self, called: Operation, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run the parts that this package decomposes an operation into, under the mode."""
        location = self.location
        outer, location.whole = location.whole, location.whole or called
        try:
            with self:
                result = body(*args, **{key: value for key, value in kwargs.items() if key != "out"})
                return args[0].copy_(result) if called.in_place else result
        except UnsupportedOperationError as error:
            if f" in {location.module()}" not in str(error):
                raise UnsupportedOperationError(f"{error} (in {location.module()})") from None
            raise
        finally:
            location.whole = outer

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
                    self.location.refuse(
                        called, f"has a result of shape {list(part.shape)}, but out= of shape {list(given.shape)}"
                    )
                given.copy_(part)
        return out if isinstance(out, Tensor) else type(result)(out)
