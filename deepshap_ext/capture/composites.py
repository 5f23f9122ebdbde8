"""Torch's composite functions, taken apart into the operations that their bodies call."""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import cache
from typing import Any

from ..rules.attention import HELPERS


@cache
def body_of(function: Any) -> Callable[..., Any] | None:
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
