"""The function mode that sees every operation of a forward pass, replaces those that have a rule, and tapes them."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._pytree import tree_map_only

from ..errors import ExplanationError, UnsupportedOperationError
from ..rules.attention import HELPERS
from ..rules.integrate import integrate
from ..rules.linear import DIVISIONS, FACTORS, IN_MEMORY_ORDER, LINEAR, METADATA, RANDOM, SHAPED_LIKE, STEPS
from ..rules.registry import DECOMPOSITIONS, Application, Options, Rule
from .dependence import Dependence, plain, tensors_in
from .draws import Draws
from .functions import Attempt, connected
from .names import Operation, is_of_torch, operation
from .tape import Entry, Factor, Tape
from .writes import Contents, declared, undeclared

_VALUE_READERS = frozenset("item tolist numpy __array__ __bool__ __float__ __int__ __complex__ __index__".split())


class Capture(TorchFunctionMode):
    """Runs a model's operations, tapes the non-linear ones and refuses what it cannot explain.

    Inside ``__torch_function__`` the mode is off; a composite is taken apart by running it again with the mode on.
    ``module_path`` names the module that is running, for messages.
    """

    def __init__(
        self,
        module_path: Callable[[], str],
        options: Options,
        rules: dict[Any, Rule],
        contents: Contents,
        draws: Draws,
    ) -> None:
        super().__init__()
        self.options = options
        self.rules = rules
        self._contents = contents
        self._draws = draws
        self.dependence = Dependence()
        self.tape = Tape()
        self.running = Running()
        self.without_rule: dict[Node, str] = {}
        self._made_by: dict[int, tuple[weakref.ref[Tensor], int, Tensor, str]] = {}
        self._module_path = module_path
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
        run = self._call if self._on else self._unfollowed
        result = run(operation(function), function, args, kwargs)
        self._contents.made(function, args, kwargs, result)
        return result

    def _call(self, called: Operation, function: Any, args: Any, kwargs: Any, opaque: bool = False) -> Any:
        """Run an operation; what is made of an ``opaque`` one's inside is its own."""
        dependent = self.dependence.of(list(tensors_in((args, kwargs))))
        self._before_writes(called, function, args, kwargs)
        if called.name in RANDOM and not _is_off(called, args, kwargs):
            return self._random(called, function, args, kwargs, dependent)
        if not dependent:
            return function(*args, **kwargs)
        active = [tensor for tensor in dependent if tensor.requires_grad] if torch.is_grad_enabled() else []
        wrapped = [tensor for tensor in dependent if plain(tensor) is not tensor and self.carries(tensor)]
        if wrapped and self._needs_rule(called, args, kwargs):
            self._refuse(called, "runs inside a transform of torch.func (vmap, grad, ...), where its rule cannot")
        if active and called.name in self.rules:
            return self._with_rule(called, function, args, kwargs)
        if active and self._needs_rule(called, args, kwargs):
            body = DECOMPOSITIONS.get(called.name) or (_body if is_of_torch(function) else self._users_body)(function)
            if body is not None:
                return self._taken_apart(called, body, args, kwargs)
            if self.options.on_unsupported == "integrate":
                return self._apply(called, integrate(function, args, kwargs, active, opaque=opaque), args, kwargs)
        return self._as_it_is(called, function, args, kwargs, dependent, active)

    def _unfollowed(self, called: Operation, function: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation that is a part of one with a rule, or of a hand-written Function."""
        self._before_writes(called, function, args, kwargs)
        if called.name in RANDOM and not _is_off(called, args, kwargs):
            return self._draws(called, function, args, kwargs)
        return function(*args, **kwargs)

    def _before_writes(self, called: Operation, function: Any, args: Any, kwargs: Any) -> None:
        """Keep what the operation writes into: for the pair pass, and for the user unless this pass itself has made it."""
        if called.name in METADATA:
            return
        for tensor in (*_written(called, function, args, kwargs), *undeclared(called, args, kwargs)):
            self.tape.before_write(tensor)
            self._contents.before_write(tensor)
        self._contents.before_operation(called, args, kwargs)

    @contextmanager
    def saved_tensors(self) -> Iterator[None]:
        """In this context the model may write into what autograd saves, as models that are not trained do.

        Nodes that are not a rule's are linear: one that saves its input, as gather does, wants no more than its shape. Of a factor that
        is written into, the value at the multiplication is kept.
        """
        shapes_only = self.options.on_unsupported != "gradient"
        # The graph holds on to what packs its tensors.
        dependence, tape = weakref.proxy(self.dependence), weakref.proxy(self.tape)

        def pack(tensor: Tensor) -> Tensor | Factor:
            return tensor.detach() if shapes_only and tensor in dependence else tape.factor(tensor)

        def unpack(packed: Tensor | Factor) -> Tensor:
            if isinstance(packed, Tensor):
                return packed
            if packed.kept[0]._version != packed.versions[0]:
                raise ExplanationError(
                    f"a tensor of shape {list(packed.kept[0].shape)} that the model multiplies by is modified in place where the "
                    f"modification cannot be followed"
                )
            return packed.kept[0]

        try:
            with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
                yield
        except RuntimeError as error:
            if "yet support saved tensor hooks" not in str(error):
                raise
            raise UnsupportedOperationError(
                "the model runs grad, vjp, jacrev or hessian, transforms of torch.func, which cannot be followed"
            ) from error

    def release(self) -> None:
        """Let go of the autograd graph and of storages; what the tape keeps stays."""
        self.dependence = Dependence()
        self.without_rule.clear()
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
        dependent = self.dependence.of(list(tensors_in((args, kwargs))))
        return opened(*args, **kwargs) if dependent else apply(*args, **kwargs)

    def unit(self, called: Operation, rule: Rule, run: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run what is no operation of torch's (a module, a function of the user's) as one operation under its rule."""
        carrying = [tensor for tensor in tensors_in((args, kwargs)) if self.carries(tensor)]
        if not carrying or not torch.is_grad_enabled():
            return run(*args, **kwargs)
        if any(plain(tensor) is not tensor for tensor in carrying):
            self._refuse(called, "runs inside a transform of torch.func (vmap, grad, ...), where its rule cannot")
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
        return isinstance(value, Tensor) and plain(value).requires_grad and value in self.dependence

    def inverse_of(self, value: Tensor) -> tuple[Tensor, str] | None:
        """See :class:`deepshap_ext.rules.registry.Context`."""
        made = self.made_by(value)
        return made if made and made[1] in ("rsqrt", "reciprocal") else None

    def made_by(self, value: Tensor) -> tuple[Tensor, str] | None:
        """The operand and the name of the ``rsqrt``, ``reciprocal`` or ``softmax`` whose unmodified result a tensor is."""
        made = self._made_by.get(id(value))
        if made is None or made[1] != value._version:
            return None
        return made[2:]

    def _as_it_is(
        self, called: Operation, function: Any, args: Any, kwargs: Any, dependent: list[Tensor], active: list[Tensor]
    ) -> Any:
        """Run an operation without a rule: linear, or constant while both sides agree, or refused."""
        if called.name == "set_data":
            self._refuse(called, "replaces the data of a tensor that depends on the explained input")
        written = _written(called, function, args, kwargs)
        step = called.name in STEPS
        if active and not step and called.name not in METADATA:
            operands = dependent if called.name not in SHAPED_LIKE else dependent[:1]
            self._join(called, [tensor for tensor in operands if not tensor.requires_grad])
        for tensor in written:
            self.tape.before_write(tensor)
        run = IN_MEMORY_ORDER.get(function, function)
        # A step in place keeps its node, whose gradient of 0 the walk over the graph refuses.
        with torch.set_grad_enabled(torch.is_grad_enabled() and (not step or bool(written))):
            # A model that is not trained reads values without detaching them first.
            result = run(*[arg.detach() for arg in args] if _reads_value(called) else args, **kwargs)
        if called.name in METADATA:
            return result
        if without_rule := bool(active) and self._needs_rule(called, args, kwargs):
            result = connected(result, active)
        made = [*tensors_in(result), *written]
        if without_rule:
            self._without_rule(called, made)
        if not made and result is not None and not isinstance(function, types.MethodWrapperType):
            if isinstance(result, np.ndarray) or type(result).__name__ == "PyCapsule":
                self._refuse(called, "takes the explained input out of torch, where it cannot be followed")
            self.tape.append(Entry(called.title, self._module_path(), [], value=result))
        random = next(filter(None, map(self.dependence.random, dependent)), None)
        self._mark(called, made, dependent, random)
        return result

    def _needs_rule(self, called: Operation, args: Any, kwargs: Any) -> bool:
        if called.name in LINEAR:
            return self._several_factors(called, args, kwargs)
        return called.name not in METADATA and called.name not in STEPS

    def _users_body(self, function: Any) -> Callable[..., Any] | None:
        """The body of a function of the user's that lets modes see it; None where it has come back to the mode from its body."""
        if not isinstance(function, types.FunctionType) or function in self._inside:
            return None

        def body(*args: Any, **kwargs: Any) -> Any:
            self._inside.append(function)
            try:
                return _without_overrides(function, {})(*args, **kwargs)
            finally:
                self._inside.pop()

        return body

    def _taken_apart(self, called: Operation, body: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run a composite's parts under the mode."""
        if called.name in DECOMPOSITIONS and kwargs.pop("out", None) is not None:
            self._refuse(called, "with out= is not supported: return the result instead")
        with self:
            try:
                result = body(*args, **kwargs)
            except UnsupportedOperationError as error:
                if called.name in DECOMPOSITIONS and f" in {self._module_path()}" not in str(error):
                    raise UnsupportedOperationError(f"{error} (in {self._module_path()})") from None
                raise
            return args[0].copy_(result) if called.in_place and called.name in DECOMPOSITIONS else result

    def _with_rule(self, called: Operation, function: Any, args: Any, kwargs: Any) -> Any:
        arguments = {("input" if key == "self" else key): value for key, value in kwargs.items() if key != "inplace"}
        if arguments.pop("out", None) is not None:
            self._refuse(called, "with out= is not supported: return the result instead")
        try:
            application = self.rules[called.name](self, *args, **arguments)
        except UnsupportedOperationError as error:
            self._refuse(called, str(error))
        if application is None:
            dependent = self.dependence.of(list(tensors_in((args, kwargs))))
            return self._as_it_is(called, function, args, kwargs, dependent, dependent)
        return self._apply(called, application, args, kwargs)

    def _apply(self, called: Operation, application: Application, args: Any, kwargs: Any) -> Any:
        """Run an operation under its rule."""
        target = args[0] if called.in_place or kwargs.get("inplace") else None
        dependent = self.dependence.of(list(tensors_in((args, kwargs))))
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
        self._join(called, others)
        entry = Entry(called.title, self._module_path(), [], application.multipliers, application.parameters)
        in_place = target is not None and target is application.operands[0]
        result = _Apply.apply(self, application, entry, in_place, *application.operands)  # type: ignore[no-untyped-call]
        if target is not None and not in_place:
            self.tape.before_write(target)
            result = target.copy_(result)
        self._mark(called, tensors_in(result), dependent)
        if called.name in ("rsqrt", "reciprocal", "softmax") and target is None:
            # The operand lives no longer than the result does.
            forget = partial(self._made_by.pop, id(result))
            self._made_by[id(result)] = (
                weakref.ref(result, forget),
                result._version,
                application.operands[0],
                called.name,
            )
        return application.rebuild(result) if application.rebuild else result

    def _random(self, called: Operation, function: Any, args: Any, kwargs: Any, dependent: list[Tensor]) -> Any:
        """A random tensor is followed like the input: harmless until it meets what is explained."""
        if any(tensor.requires_grad for tensor in dependent):
            self._refuse(
                called,
                "is random: pass training=self.training where it has that argument, or explain a model without it",
            )
        result = self._draws(called, function, args, kwargs)
        self._mark(called, (*tensors_in(result), *_written(called, function, args, kwargs)), dependent, called.title)
        return result

    def _join(self, called: Operation, passive: list[Tensor]) -> None:
        """Tensors that depend on the input and carry no gradient: constants only while they are the same on both sides."""
        for tensor in passive:
            if random := self.dependence.random(tensor):
                self._refuse(
                    called, f"takes the random result of {random}: what it adds to the output cannot be explained"
                )
        for explained in (True, False):
            kept = [tensor for tensor in passive if self.dependence.explained(tensor) == explained]
            if kept:
                self.tape.append(Entry(called.title, self._module_path(), kept, past=not explained))

    def _refuse(self, called: Operation, reason: str) -> NoReturn:
        raise UnsupportedOperationError(f"{called.title} in {self._module_path()} {reason}")

    def _without_rule(self, called: Operation, made: list[Tensor]) -> None:
        """Remember results that multipliers must not reach; the walk over the graph refuses them if they do."""
        reason = (
            f"{called.title} in {self._module_path()} has no rule: give it one with register_rule, replace it by operations that have one, "
            f"explain a layer behind it with (model, layer), or pass on_unsupported='integrate'"
        )
        for tensor in made:
            if tensor.grad_fn is not None:
                self.without_rule[tensor.grad_fn] = reason

    def _several_factors(self, called: Operation, args: Any, kwargs: Any) -> bool:
        """Whether a product was called with more than one factor, or a division with a divisor, that carries multipliers."""
        if called.name == "einsum":
            values = list(tensors_in(args))
        else:
            factors = FACTORS.get(called.name, {})
            values = [args[at] if at < len(args) else kwargs.get(keyword) for at, keyword in factors.items()]
        return sum(map(self.carries, values)) > 1 or (called.name in DIVISIONS and self.carries(values[1]))

    def _mark(
        self, called: Operation, made: Iterable[Tensor], dependent: Sequence[Tensor], random: str | None = None
    ) -> None:
        """What an operation made from dependent tensors depends on the input as they do."""
        explained = any(map(self.dependence.explained, dependent))
        for tensor in made:
            if tensor.layout != torch.strided:
                self._refuse(called, f"makes a tensor of layout {tensor.layout}: only dense tensors can be explained")
            self.dependence.mark(tensor, explained, random)


def _reads_value(called: Operation) -> bool:
    """Whether the call takes a tensor's value out of torch."""
    return called.title.rpartition(".")[2] in _VALUE_READERS


class Running:
    """The pairs whose multipliers are being computed. Nodes hold this and not the capture, which holds them."""

    pairs: Any = None


class _Apply(torch.autograd.Function):
    """An operation whose backward is its rule."""

    @staticmethod
    def forward(
        ctx: Any, capture: Capture, application: Application, entry: Entry, in_place: bool, *operands: Tensor
    ) -> Any:
        try:
            output, kept = application.forward(*operands)
        except UnsupportedOperationError as error:
            raise UnsupportedOperationError(f"{entry} {error}") from None
        # Autograd lets nobody write into a view that a Function returns.
        output = tree_map_only(Tensor, lambda tensor: tensor.clone() if tensor._is_view() else tensor, output)
        entry.kept = list(kept)
        capture.tape.append(entry)
        ctx.running, ctx.entry = capture.running, entry
        if in_place:
            # The first operand is what is written: for a view of it autograd takes the first gradient for the overwritten part's.
            capture.tape.before_write(operands[0])
            ctx.mark_dirty(operands[0])
            return operands[0].copy_(output)
        without = [t for t in tensors_in(output) if not (t.is_floating_point() or t.is_complex())]
        ctx.mark_non_differentiable(*without)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        if ctx.running.pairs is None:
            raise UnsupportedOperationError(
                f"the model differentiates through {ctx.entry} in its own forward pass: that has no rule"
            )
        multipliers = ctx.entry.multipliers(grads[0], ctx.running.pairs.sides(ctx.entry, grads))
        return (None, None, None, None, *multipliers)


def _written(called: Operation, function: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that the call writes into."""
    first = next(iter((*args, *kwargs.values())), None) if called.in_place or kwargs.get("inplace") else None
    return [*tensors_in(first), *tensors_in(kwargs.get("out")), *declared(function, args, kwargs)]


def _is_off(called: Operation, args: Any, kwargs: Any) -> bool:
    """Whether a dropout (or rrelu) was called as in eval mode."""
    position = {"rrelu": 3, "rrelu_with_noise": 4}.get(called.name, 2)
    name = "train" if "train" in kwargs else "training"
    if "dropout" not in called.name and "rrelu" not in called.name:
        return False
    training = kwargs.get(name, args[position] if len(args) > position else "dropout" in called.name)
    return not training or ("dropout" in called.name and kwargs.get("p", args[1] if len(args) > 1 else 0.5) == 0)


@cache
def _body(function: Any) -> Callable[..., Any] | None:
    """The body of one of torch's composite Python functions, without its own check for overrides; None for anything else.

    Calling the function itself under the mode would only come back to the mode.
    """
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    if not isinstance(function, types.FunctionType) or not function.__module__.startswith("torch."):
        return None
    return _without_overrides(function, HELPERS)


def _without_overrides(function: types.FunctionType, helpers: Mapping[str, Any]) -> types.FunctionType:
    """A copy of a function whose checks for overrides find none; ``helpers`` stand in for globals of these names."""
    blind = {name: (lambda *_: False) for name in function.__globals__ if name.startswith("has_torch_function")}
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **blind, **helpers},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def is_rules_own(written: type[torch.autograd.Function]) -> bool:
    """Whether an ``autograd.Function`` is the one that operations with a rule run in."""
    return written is _Apply


def is_rule(node: Node) -> bool:
    """Whether an autograd node was made by a rule."""
    return getattr(node, "_forward_cls", None) is _Apply
