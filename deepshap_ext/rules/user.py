"""Rules of the user's own, for a function, a hand-written ``autograd.Function`` or every module of a class."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch._library.custom_ops import CustomOpDef
from torch.overrides import resolve_name

from ..arguments import shown
from ..capture.dependence import tensors_in
from ..capture.names import is_of_torch, operation
from ..capture.written import APPLY
from .integrate import integrate
from .linear import LINEAR, METADATA, RANDOM, REFUSED, STEPS
from .registry import DECOMPOSITIONS, RULES, Application, Context, Registered, Rule, register, unregister
from .rescale import rescale


class Registration:
    """A rule in force until ``remove()``, or until the end of a ``with`` block.

    Registrations for one target can be removed in any order, and more than once: the last one that is left is in force, and where none is
    left, the built-in rule.
    """

    def __init__(self, entry: Registered) -> None:
        self._entry = entry
        register(entry)

    def remove(self) -> None:
        """Take the rule out of force; a second call does nothing."""
        unregister(self._entry)

    def __enter__(self) -> Registration:
        return self

    def __exit__(self, *raised: object) -> None:
        self.remove()


def register_rule(
    target: Callable[..., Any] | type[nn.Module] | type[torch.autograd.Function],
    rule: Rule | Literal["integrate", "rescale"],
) -> Registration:
    """Explain a function, a hand-written ``autograd.Function``, or modules of a class, by a rule of one's own.

    Args:
        target: a function of torch or a ``torch.ops`` operation, in whatever spelling (``torch.sin`` stands for ``Tensor.sin_`` too); a
            Python function of the user's own, this very one, whatever the model calls it by; a subclass of
            ``torch.autograd.Function``; or a subclass of ``torch.nn.Module``, whose instances (not those of its subclasses) are then
            explained as one operation.
        rule: for a function ``rule(context, *args, **kwargs)``, for a module class ``rule(context, module, *args, **kwargs)``, with the
            call's own arguments. It returns an :class:`Application`: the operands that multipliers flow to, the forward with what to
            keep of it, and the multipliers; or None where the call needs no rule. ``"integrate"``: the mean gradient of the whole
            along the segment from the baseline to the input (integrated gradients, arXiv 1703.01365, by adaptive Gauss-Kronrod
            quadrature), which adds up where the whole is continuous. ``"rescale"``, for what takes one tensor that depends on the input,
            element by element, to one of its shape: ``(f(x) - f(r)) / (x - r)`` (DeepLIFT, arXiv 1704.02685, section 3.5.2), which
            adds up, jumps included; where the two sides are so near that this is rounding, the mean of both sides' derivatives by
            autograd, if there are any. A call that is no such one is an :class:`UnsupportedOperationError`.

    Returns:
        A :class:`Registration`. The rule is in force for every explainer until its ``remove()``, or inside it as a ``with`` block; for one
        target the last registration that is not removed. Rules that an explainer has of its own, ``DeepExplainer(..., rules={target:
        rule})``, stand over it.

    Raises:
        TypeError: the target is nothing that could be found in a model, or the rule none of these.

    The multipliers must satisfy ``sum_i m_i (a_i(x) - a_i(r)) = m_z (z(x) - z(r))`` over the operands ``a`` and the output ``z``: what
    is left over is what :class:`AdditivityError` reports.
    """
    return Registration(entry_of(target, rule))


def entry_of(target: Any, rule: Any, target_is: str = "target", rule_is: str = "rule") -> Registered:
    """The entry for the arguments of :func:`register_rule`, or a TypeError that calls them ``target_is`` and ``rule_is``."""
    key = _key(target, target_is)
    if isinstance(rule, str) and rule in _WHOLE:
        rule = _AsWhole(rule, key, target)
    elif not callable(rule):
        raise TypeError(f"{rule_is} must be a function, {' or '.join(map(repr, _WHOLE))}, got {shown(rule)}")
    return Registered(key, rule)


#: The rules that can be named for any function.
_WHOLE = {"integrate": integrate, "rescale": rescale}


@dataclass(frozen=True)
class _AsWhole:
    """The rule called ``name`` for a target: a function, an ``autograd.Function`` or a module class, each explained as one operation."""

    name: str
    key: Any
    target: Any

    def __call__(self, context: Context, *args: Any, **kwargs: Any) -> Application:
        operands = [tensor for tensor in tensors_in((args, kwargs)) if context.carries(tensor)]
        return _WHOLE[self.name](self._function, args, kwargs, operands, opaque=not isinstance(self.key, str))

    def __repr__(self) -> str:
        return repr(self.name)

    @property
    def _function(self) -> Callable[..., Any]:
        if not isinstance(self.key, type):
            return self.target
        return self.key.apply if issubclass(self.key, torch.autograd.Function) else _forward


def _forward(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Calls the module's own forward, which may have been replaced on the instance, without its hooks."""
    return module.forward(*args, **kwargs)


#: Names of torch's functions that compute values and that a function mode sees.
_SEEN = LINEAR | STEPS | REFUSED.keys() | RULES.keys() | DECOMPOSITIONS.keys()


def _key(target: Any, target_is: str) -> Any:
    """What calls of the target are found by, or a TypeError that says why none could be."""
    unreachable = functools.partial(_unreachable, target_is, target)
    if isinstance(target, types.MethodType):
        if target.__func__ is APPLY:
            return target.__self__
        raise unreachable(f"is a method of one object: pass the function itself, {target.__func__.__qualname__}")
    if isinstance(target, nn.Module):
        raise unreachable(f"is one module: pass its class, {type(target).__name__}")
    if isinstance(target, functools.partial):
        raise unreachable("is a functools.partial, which calls another function: pass that")
    if isinstance(target, CustomOpDef):
        target = target._opoverload
    if isinstance(target, type):
        if issubclass(target, (nn.Module, torch.autograd.Function)):
            return target
    elif callable(target) and is_of_torch(target):
        called = operation(target)
        if called.name in METADATA:
            raise unreachable(f"computes no values ({called.title}): it needs no rule")
        if called.name in RANDOM and called.name not in LINEAR:
            raise unreachable(f"is random ({called.title}): no rule can explain it")
        if called.name in _SEEN or not isinstance(called.name, str) or resolve_name(target) or "::" in called.name:
            return called.name
    if isinstance(target, types.FunctionType):
        if inspect.isgeneratorfunction(target) or inspect.iscoroutinefunction(target):
            raise unreachable("is a generator or a coroutine, which returns no tensors")
        return target
    if callable(target) and not isinstance(target, type):
        raise unreachable(
            "is compiled, or an object that is called: call it in a Python function or in a module, and pass that function or class"
        )
    raise unreachable("is none of these")


def _unreachable(target_is: str, target: Any, why: str) -> TypeError:
    return TypeError(
        f"{target_is} must be a function of torch, a Python function, or a subclass of torch.autograd.Function or of torch.nn.Module, got "
        f"{shown(target)}, which {why}"
    )
