"""Rules of the user's own, for a function or for every module of a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from ..capture.dependence import tensors_in
from ..capture.names import operation
from .integrate import integrate
from .registry import MODULE_RULES, RULES, Application, Context, Rule


class Registration:
    """A rule in force until ``remove()``, or until the end of a ``with`` block; then the rule before it is back."""

    def __init__(self, table: dict[Any, Rule], key: Any, rule: Rule) -> None:
        self._table, self._key, self._before = table, key, table.get(key)
        table[key] = rule

    def remove(self) -> None:
        if self._before is None:
            self._table.pop(self._key, None)
        else:
            self._table[self._key] = self._before

    def __enter__(self) -> Registration:
        return self

    def __exit__(self, *raised: object) -> None:
        self.remove()


def register_rule(
    target: Callable[..., Any] | type[nn.Module] | type[torch.autograd.Function], rule: Rule | Literal["integrate"]
) -> Registration:
    """Explain a function, a hand-written ``autograd.Function``, or modules of a class, by a rule of one's own.

    Args:
        target: a function of torch or a ``torch.ops`` operation, in whatever spelling (``torch.sin`` stands for ``Tensor.sin_`` too); a
            subclass of ``torch.autograd.Function``; or a subclass of ``torch.nn.Module``, whose instances (not those of its subclasses)
            are then explained as one operation.
        rule: for a function ``rule(context, *args, **kwargs)``, for a module class ``rule(context, module, *args, **kwargs)``, with the
            call's own arguments. It returns an :class:`Application`: the operands that multipliers flow to, the forward with what to
            keep of it, and the multipliers; or None where the call needs no rule. Or ``"integrate"``: the mean gradient of the whole
            along the segment from the baseline to the input (integrated gradients, arXiv 1703.01365, by Gauss-Legendre quadrature),
            which adds up where it is smooth.

    Returns:
        A :class:`Registration`. The rule is in force for every explainer until its ``remove()``, or inside it as a ``with`` block.

    The multipliers must satisfy ``sum_i m_i (a_i(x) - a_i(r)) = m_z (z(x) - z(r))`` over the operands ``a`` and the output ``z``: what
    is left over is what :class:`AdditivityError` reports.
    """
    given: Any = target
    modules = isinstance(given, type) and issubclass(given, nn.Module)
    written = isinstance(given, type) and issubclass(given, torch.autograd.Function)
    if not callable(given) or (isinstance(given, type) and not modules and not written):
        raise TypeError(
            f"target must be a function of torch, a subclass of torch.autograd.Function or a subclass of torch.nn.Module, got {target!r}"
        )
    if rule == "integrate":
        function = given.forward if modules else given.apply if written else given
        rule = _integrated(function, opaque=modules or written)
    elif not callable(rule):
        raise TypeError(f"rule must be a function or 'integrate', got {rule!r}")
    return Registration(MODULE_RULES, given, rule) if modules else Registration(RULES, operation(given).name, rule)


def _integrated(function: Callable[..., Any], opaque: bool) -> Rule:
    def rule(context: Context, *args: Any, **kwargs: Any) -> Application:
        operands = [tensor for tensor in tensors_in((args, kwargs)) if context.carries(tensor)]
        return integrate(function, args, kwargs, operands, opaque=opaque)

    return rule
