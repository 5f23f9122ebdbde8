"""The table of rules: how each operation passes multipliers on.

A rule is a function that takes an operation's own arguments and returns an :class:`Application`, or None where the operation is
linear as it was called (a product with a constant, say). Its first parameter is a :class:`Context`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

from torch import Tensor


@dataclass(frozen=True)
class Registered:
    """A rule of the user's for a key: a canonical name, or the function, ``autograd.Function`` or module class itself."""

    key: Any
    rule: Rule = field(hash=False)

    def __str__(self) -> str:
        return f"{name_of(self.key)}: {name_of(self.rule)}"


def name_of(value: Any) -> str:
    """What a message calls a function, a class or a canonical name."""
    return getattr(value, "__name__", str(value))


@dataclass(frozen=True)
class Options:
    """One explainer's choices; see :class:`deepshap_ext.DeepExplainer`. ``own``: the rules that it alone has."""

    maxima: Literal["deeplift", "shapley"] = "deeplift"
    softmax: Literal["logmean", "rescale", "centered"] = "logmean"
    on_unsupported: Literal["error", "gradient", "integrate"] = "error"
    own: tuple[Registered, ...] = ()

    def __str__(self) -> str:
        """As the explainer's arguments."""
        rules = repr(self.maxima)
        if self.own:
            rules = f"{{{', '.join(map(str, self.own))}, 'maxima': {rules}}}"
        return f"rules={rules}, softmax={self.softmax!r}, on_unsupported={self.on_unsupported!r}"


class Context(Protocol):
    """What a rule may ask about the tensors of a call; ``options`` are the user's choices: ``maxima``, ``softmax``, ``on_unsupported``."""

    options: Options

    def carries(self, value: Any) -> bool:
        """Whether multipliers flow to the value: a tensor made from the input that carries a gradient."""

    def inverse_of(self, value: Tensor) -> tuple[Tensor, str] | None:
        """The tensor ``v`` and the operation, ``rsqrt`` or ``reciprocal``, that a tensor was made from; None if it was not."""


@dataclass(frozen=True)
class Roundoff:
    """Rounding errors inside an operation, by what they do to its result where neither its size nor that of the operands shows it.

    Args:
        size: one number an element of the result in row-major order, in units of the result's roundoff.
        shared: along this dimension of ``size`` they are one error, as that of a line's mean is; None: each element has its own.
    """

    size: Tensor
    shared: int | None = None


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
        rebuild: makes what the model is to be given of an output that is a flat tuple of tensors.
        roundoffs: ``roundoffs(*operands)`` returns rounding errors of the operation that its operands do not show; see :class:`Roundoff`.
        scale: one number a channel (dimension 1): the multipliers of the only operand are ``grad`` times these. Where that operand is the
            result of an application that ``takes_scale``, and nothing else reads it, that one is told (``sides.scale``) and multiplies by
            it, and ``grad`` is handed on to it as it is.
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


Rule = Callable[..., Application | None]
AnyRule = TypeVar("AnyRule", bound=Rule)

#: The built-in rules.
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[AnyRule], AnyRule]:
    """Register a rule for operations, by their canonical names (:func:`deepshap_ext.capture.names.operation`)."""

    def register(function: AnyRule) -> AnyRule:
        for name in names:
            RULES[name] = function
        return function

    return register


DECOMPOSITIONS: dict[str, Callable[..., Any]] = {}


def decomposition(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function of the same arguments that computes the operation from others, each with its own rule."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            DECOMPOSITIONS[name] = function
        return function

    return register


#: Replaced as a whole at every change, so that other threads may read it at any time.
_registered: tuple[Registered, ...] = ()
_CHANGING = threading.Lock()


def register(entry: Registered) -> None:
    """Put a rule in force, over all that there are for its key."""
    global _registered
    with _CHANGING:
        _registered = (*_registered, entry)


def unregister(entry: Registered) -> None:
    """Take this very entry away, if it is still there."""
    global _registered
    with _CHANGING:
        _registered = tuple(other for other in _registered if other is not entry)


def registered() -> tuple[Registered, ...]:
    """All rules that the user has registered for every explainer, in that order."""
    return _registered


def in_force(options: Options) -> dict[Any, Rule]:
    """An explainer's rule for each key as things are now: its own, or else the last one registered, or else the built-in one."""
    return {**RULES, **{entry.key: entry.rule for entry in (*_registered, *options.own)}}
