"""The function mode that sees every operation of a forward pass, replaces those that have a rule, and tapes them."""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from ..errors import ExplanationError, UnsupportedOperationError
from ..rules.attention import HELPERS
from ..rules.integrate import integrate
from ..rules.linear import DIVISIONS, FACTORS, IN_MEMORY_ORDER, LINEAR, METADATA, RANDOM, SHAPED_LIKE, STEPS
from ..rules.registry import DECOMPOSITIONS, RULES, Application, Options, Rule
from .dependence import Dependence, plain, tensors_in
from .names import Operation, operation
from .step import Step, Watch
from .tape import Entry, Factor, Tape

_VALUE_READERS = frozenset("item tolist numpy __array__ __bool__ __float__ __int__ __complex__ __index__".split())


class Capture(TorchFunctionMode):
    """Runs a model's operations, tapes the non-linear ones and refuses what it cannot explain.

    Inside ``__torch_function__`` the mode is off; a composite is taken apart by running it again with the mode on.
    ``module_path`` names the module that is running, for messages. ``watch`` is shown every operation on a tensor that carries multipliers.
    """

    def __init__(self, module_path: Callable[[], str], options: Options, watch: Watch | None = None) -> None:
        super().__init__()
        self._watch = watch
        self.options = options
        self.dependence = Dependence()
        self.tape = Tape()
        self.running = Running()
        self.without_rule: dict[Node, str] = {}
        self._made_by: dict[int, tuple[weakref.ref[Tensor], int, Tensor, str]] = {}
        self._module_path = module_path
        self._on = True

    def __torch_function__(self, function: Any, types_: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._on:
            return function(*args, **kwargs)
        return self._call(operation(function), function, args, kwargs)

    def _call(self, called: Operation, function: Any, args: Any, kwargs: Any, opaque: bool = False) -> Any:
        """Run an operation; what is made of an ``opaque`` one's inside is its own."""
        dependent = self.dependence.of(list(tensors_in((args, kwargs))))
        if called.name in RANDOM and not _is_off(called, args, kwargs):
            return self._random(called, function, args, kwargs, dependent)
        written = _written(called, args, kwargs)
        if called.name not in METADATA and any(isinstance(tensor, nn.Parameter) for tensor in written):
            self._refuse(
                called, "writes into a parameter of the model, which is not to be changed: run the model once before"
            )
        if not dependent:
            for tensor in written:
                self.tape.before_write(tensor)
            return function(*args, **kwargs)
        active = [tensor for tensor in dependent if tensor.requires_grad] if torch.is_grad_enabled() else []
        wrapped = [tensor for tensor in dependent if plain(tensor) is not tensor and self.carries(tensor)]
        if wrapped and self._needs_rule(called, args, kwargs):
            self._refuse(called, "runs inside a transform of torch.func (vmap, grad, ...), where its rule cannot")
        if active and called.name in RULES:
            return self._with_rule(called, function, args, kwargs)
        if active and self._needs_rule(called, args, kwargs):
            body = DECOMPOSITIONS.get(called.name) or _body(function)
            if body is not None:
                return self._taken_apart(called, body, args, kwargs)
            if self.options.on_unsupported == "integrate":
                return self._apply(called, integrate(function, args, kwargs, active, opaque=opaque), args, kwargs)
        return self._as_it_is(called, function, args, kwargs, dependent, active)

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

    def function(
        self, written: type[torch.autograd.Function], apply: Callable[..., Any], args: Any, kwargs: Any
    ) -> Any:
        """Run a hand-written ``autograd.Function`` as one operation."""
        if not self._on:
            return apply(*args, **kwargs)
        with self.paused():
            return self._call(operation(written), apply, args, kwargs, opaque=True)

    def module(self, rule: Rule, module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Run a module as one operation under its class's rule."""
        dependent = self.dependence.of(list(tensors_in((args, kwargs))))
        if not self._on or not torch.is_grad_enabled() or not any(tensor.requires_grad for tensor in dependent):
            return forward(*args, **kwargs)
        called = Operation(type(module).__name__, type(module).__name__, False)
        with self.paused():
            application = rule(self, module, *args, **kwargs)
            if application is not None:
                return self._apply(called, application, args, {})
        return forward(*args, **kwargs)

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
        written = _written(called, args, kwargs)
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
        made = [*tensors_in(result), *written]
        if active and self._watch is not None:
            self._watch(Step(called.name, run, args, kwargs, made, bool(written)))
        if active and self._needs_rule(called, args, kwargs):
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
            application = RULES[called.name](self, *args, **arguments)
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
        if self._watch is not None:
            run, operands, made = partial(_output, application), application.operands, list(tensors_in(result))
            self._watch(Step(called.name, run, operands, {}, made, target is not None, application.roundoffs))
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
        return result

    def _random(self, called: Operation, function: Any, args: Any, kwargs: Any, dependent: list[Tensor]) -> Any:
        """A random tensor is followed like the input: harmless until it meets what is explained."""
        if any(tensor.requires_grad for tensor in dependent):
            self._refuse(
                called,
                "is random: pass training=self.training where it has that argument, or explain a model without it",
            )
        result = function(*args, **kwargs)
        self._mark(called, (*tensors_in(result), *_written(called, args, kwargs)), dependent, called.title)
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
        output, kept = application.forward(*operands)
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
        multipliers = ctx.entry.multipliers(grads[0], ctx.running.pairs.sides(ctx.entry))
        return (None, None, None, None, *multipliers)


def _output(application: Application, *operands: Tensor) -> Any:
    return application.forward(*operands)[0]


def _written(called: Operation, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that the call writes into."""
    in_place = called.in_place or bool(kwargs.get("inplace"))
    return [*tensors_in(args[0] if in_place else None), *tensors_in(kwargs.get("out"))]


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
    blind = {name: (lambda *_: False) for name in function.__globals__ if name.startswith("has_torch_function")}
    copy = types.FunctionType(
        function.__code__,
        {**function.__globals__, **blind, **HELPERS},
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
