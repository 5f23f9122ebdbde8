"""Rules of the user's, held to what an application must be, so that an error names the rule and not what stumbles over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..arguments import shown
from .registry import RULES, Application, Context, Options, Registered, Rule, name_of, registered


def in_force(options: Options) -> dict[Any, Rule]:
    """The rule for each key at this moment: the explainer's own, or else the last registered one, or else the built-in one."""
    return {**RULES, **{entry.key: _Checked(entry) for entry in (*registered(), *options.own)}}


@dataclass(frozen=True)
class _Checked:
    """The rule of an entry."""

    entry: Registered

    def __call__(self, context: Context, *args: Any, **kwargs: Any) -> Application | None:
        found = self.entry.rule(context, *args, **kwargs)
        return _checked(f"the rule for {name_of(self.entry.key)}", found)


def _checked(title: str, application: Any) -> Any:
    """An application of the rule called ``title`` whose parts are checked as they are used; anything else as it is."""
    if not isinstance(application, Application):
        return application
    for name in ("forward", "multipliers"):
        if not callable(getattr(application, name)):
            raise TypeError(f"{title}: {name} must be a function, got {shown(getattr(application, name))}")
    if not _are_tensors(application.operands):
        raise TypeError(f"{title}: operands must be a list of tensors, got {shown(application.operands)}")
    return replace(
        application,
        forward=_Forward(title, application.forward),
        multipliers=_Multipliers(title, application.multipliers, len(application.operands)),
    )


class _Forward:
    """The ``forward`` of an application."""

    def __init__(self, title: str, forward: Callable[..., Any]) -> None:
        self._title, self._forward = title, forward

    def __call__(self, *operands: Tensor) -> tuple[Any, Sequence[Tensor]]:
        returned = self._forward(*operands)
        if isinstance(returned, (tuple, list)) and len(returned) == 2 and _are_tensors(returned[1]):
            output, kept = returned
            if isinstance(output, Tensor) or (isinstance(output, tuple) and _are_tensors(output)):
                return output, kept
        raise TypeError(
            f"{self._title}: forward must return its result, a tensor or a tuple of tensors, and a list of tensors, got "
            f"{shown(returned)}"
        )


class _Multipliers:
    """The ``multipliers`` of an application with so many operands."""

    def __init__(self, title: str, multipliers: Callable[..., Any], operands: int) -> None:
        self._title, self._multipliers, self._operands = title, multipliers, operands

    def __call__(self, grad: Tensor, sides: Any) -> Sequence[Tensor | None]:
        returned = self._multipliers(grad, sides)
        if (
            not isinstance(returned, (tuple, list))
            or len(returned) != self._operands
            or not _are_tensors([one for one in returned if one is not None])
        ):
            raise TypeError(
                f"{self._title}: multipliers must return a list of {self._operands}, a tensor of each operand's shape or None, got "
                f"{shown(returned)}"
            )
        return returned


def _are_tensors(value: Any) -> bool:
    return isinstance(value, (tuple, list)) and all(isinstance(one, Tensor) for one in value)
