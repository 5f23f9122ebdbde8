"""The tables of rules: how each operation passes multipliers on.

A rule is a function ``rule(context, *args, **kwargs)`` of a :class:`Context` and of an operation's own arguments. It returns an
:class:`Application`, or None where the operation is linear as it was called, as a product with a constant is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from torch import Tensor


@dataclass(frozen=True)
class Application:
    """A rule applied to one call.

    Args:
        operands: the tensors that multipliers flow to.
        forward: ``forward(*operands)`` returns ``(output, kept)``: the operation's own result, a tensor or a flat tuple of them, and the
            tensors that the multipliers are computed from.
        multipliers: ``multipliers(grad, sides)`` returns one multiplier an operand, of its shape, or None for 0. ``grad`` is the multiplier
            of the (first) output, of its shape; ``sides``, a :class:`Sides`, has ``kept`` of the input and of the baseline, and the
            multipliers of all outputs. It runs inside ``torch.func.vmap``.
        parameters: the call's constants, which must be the same for inputs and baselines.
        stand_for: the call's own tensors, where the operands were made from them (converted to another dtype, say).
        rebuild: ``rebuild(output)`` makes the call's result from an output that is a flat tuple of tensors.
        roundoffs: ``roundoffs(*operands)`` returns rounding errors of the operation that its operands do not show; see :class:`Roundoff`.
        scale: one number a channel (dimension 1): the multipliers of the only operand are ``grad`` times these. If that operand is the
            result of an application that ``takes_scale``, and nothing else reads it, then ``grad`` is passed on as it is, and that
            application multiplies by ``sides.scale``.
        takes_scale: see ``scale``.
    """

    operands: Sequence[Tensor]
    forward: Callable[..., tuple[Any, Sequence[Tensor]]]
    multipliers: Callable[..., Sequence[Tensor | None]]
    parameters: tuple[Any, ...] = ()
    stand_for: Sequence[Tensor] = ()
    rebuild: Callable[[Any], Any] | None = None
    roundoffs: Callable[..., Sequence[Roundoff]] | None = None
    scale: Tensor | None = None
    takes_scale: bool = False


class Context(Protocol):
    """What a rule may ask about the tensors of a call; ``options`` are the user's choices: ``maxima``, ``softmax``, ``on_unsupported``."""

    options: Options

    def carries(self, value: Any) -> bool:
        """Whether multipliers flow to the value: it is a tensor that was made from the input and carries a gradient."""

    def inverse_of(self, value: Tensor) -> tuple[Tensor, str] | None:
        """The tensor ``v`` and the operation, ``rsqrt`` or ``reciprocal``, that the value was made by; None if it was made otherwise."""


@dataclass(frozen=True)
class Roundoff:
    """Rounding errors inside an operation that are larger than the sizes of its result and operands show.

    Args:
        size: how much the errors change the result, one number an element in row-major order, in units of the result's roundoff.
        shared: the dimension of ``size`` along which all elements have the same error, as that of a line's mean; None: each has its own.
    """

    size: Tensor
    shared: int | None = None


Rule = Callable[..., Application | None]
AnyRule = TypeVar("AnyRule", bound=Rule)

#: The built-in rules, by the canonical names of operations.
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Register a rule for operations, by their canonical names (:func:`deepshap_ext.capture.names.operation`)."""

    def register(function: AnyRule) -> AnyRule:
        for name in names:
            RULES[name] = function
        return function

    return register


#: Functions that compute operations from others, by the canonical names of operations.
DECOMPOSITIONS: dict[str, Callable[..., Any]] = {}


def decomposition(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of the same arguments that computes the operation from others, each with its own rule."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            DECOMPOSITIONS[name] = function
        return function

    return register


@dataclass(frozen=True)
class Options:
    """One explainer's choices between rules; see :class:`deepshap_ext.Explainer`. ``own``: the rules that only this explainer has."""

    maxima: Literal["deeplift", "shapley"] = "deeplift"
    softmax: Literal["logmean", "rescale", "centered"] = "logmean"
    on_unsupported: Literal["error", "gradient", "integrate"] = "error"
    own: tuple[Registered, ...] = ()

    def __str__(self) -> str:
        """The choices as arguments of the explainer, for its repr."""
        rules = repr(self.maxima)
        if self.own:
            rules = f"{{{', '.join(map(str, self.own))}, 'maxima': {rules}}}"
        return f"rules={rules}, softmax={self.softmax!r}, on_unsupported={self.on_unsupported!r}"


@dataclass(frozen=True)
class Registered:
    """A rule of the user's. ``key``: the canonical name of an operation, or the function, ``autograd.Function`` or module class itself."""

    key: Any
    rule: Rule = field(hash=False)

    def __str__(self) -> str:
        return f"{name_of(self.key)}: {name_of(self.rule)}"


def name_of(value: Any) -> str:
    """What a message calls a function, a class or a canonical name."""
    return getattr(value, "__name__", str(value))


#: The user's rules for every explainer, in the order of registration. Each change makes a new tuple, so that other threads may read it.
_registered: tuple[Registered, ...] = ()
_CHANGING = threading.Lock()


def register(entry: Registered) -> None:
    """Put a rule in force, before all others that are registered for its key."""
    global _registered
    with _CHANGING:
        _registered = (*_registered, entry)


def unregister(entry: Registered) -> None:
    """Take this entry, by identity, out of force, if it is still in force."""
    global _registered
    with _CHANGING:
        _registered = tuple(other for other in _registered if other is not entry)


def registered() -> tuple[Registered, ...]:
    """All rules that the user has registered for every explainer, in the order of registration."""
    return _registered
