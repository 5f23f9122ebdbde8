"""Rules of the user's own, for a function or for every module of a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ..capture.names import operation
from .registry import MODULE_RULES, RULES, Rule


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


def register_rule(target: Callable[..., Any] | type[nn.Module], rule: Rule) -> Registration:
    """Explain a function, or modules of a class, by a rule of one's own.

    Args:
        target: a function of torch or a ``torch.ops`` operation, in whatever spelling (``torch.sin`` stands for ``Tensor.sin_`` too); or
            a subclass of ``torch.nn.Module``, whose instances (not those of its subclasses) are then explained as one operation.
        rule: for a function ``rule(context, *args, **kwargs)``, for a module class ``rule(context, module, *args, **kwargs)``, with the
            call's own arguments. It returns an :class:`Application`: the operands that multipliers flow to, the forward with what to
            keep of it, and the multipliers; or None where the call needs no rule.

    Returns:
        A :class:`Registration`. The rule is in force for every explainer until its ``remove()``, or inside it as a ``with`` block.

    The multipliers must satisfy ``sum_i m_i (a_i(x) - a_i(r)) = m_z (z(x) - z(r))`` over the operands ``a`` and the output ``z``: what
    is left over is what :class:`AdditivityError` reports.
    """
    if isinstance(target, type) and issubclass(target, nn.Module):
        return Registration(MODULE_RULES, target, rule)
    if not callable(target) or isinstance(target, type):
        raise TypeError(f"target must be a function of torch or a subclass of torch.nn.Module, got {target!r}")
    return Registration(RULES, operation(target).name, rule)
