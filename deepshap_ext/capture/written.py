"""Python functions that no function mode sees: calls of them are handed to the capture, whatever name they are called by."""

from __future__ import annotations

import threading
import types
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch

#: Takes the function, the same without interception, and the call's arguments.
Handler = Callable[[types.FunctionType, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

#: The one function that every ``Cube.apply`` is a bound method of, a module's ``cube = Cube.apply`` included.
APPLY: types.FunctionType = torch.autograd.Function.__dict__["apply"].__func__


class Interception:
    """Hands calls of functions to a handler between ``install()`` and ``remove()``, in the thread that made it.

    A function's ``__code__`` is exchanged, not a name that it has: an alias, a default argument or a method bound before lead to the same
    function object. Calls on other threads run the function as it is. ``install`` and ``remove`` may be called any number of times.
    """

    def __init__(self, functions: Iterable[types.FunctionType], handler: Handler) -> None:
        thread = threading.get_ident()
        self._codes = {
            function: (function.__code__, _stub(function, _dispatcher(function, handler, thread)))
            for function in functions
        }

    def install(self) -> None:
        for function, (_, stub) in self._codes.items():
            function.__code__ = stub

    def remove(self) -> None:
        for function, (code, _) in self._codes.items():
            function.__code__ = code


def _dispatcher(function: types.FunctionType, handler: Handler, thread: int) -> Callable[..., Any]:
    original = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    original.__kwdefaults__ = function.__kwdefaults__

    def dispatch(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if threading.get_ident() != thread:
            return original(*args, **kwargs)
        return handler(function, original, args, kwargs)

    return dispatch


def _stub(function: types.FunctionType, dispatch: Callable[..., Any]) -> types.CodeType:
    """Code that passes a call on, and that the function takes in place of its own.

    A code has no closure to hold ``dispatch``, which therefore takes the place of the string ``"dispatch"`` among the code's constants.
    """
    code = _template(len(function.__code__.co_freevars))
    return code.replace(co_consts=tuple(dispatch if value == "dispatch" else value for value in code.co_consts))


@cache
def _template(free: int) -> types.CodeType:
    """The stub's code for a function of so many free variables: CPython takes no code of another number of them."""
    names = [f"free_{number}" for number in range(free)]
    source = f"""
def around({", ".join(names)}):
    def stub(*args, **kwargs):
        dispatch = "dispatch"
        return dispatch(args, kwargs)
        {"; ".join(names)}
    return stub
"""
    scope: dict[str, Any] = {}
    exec(source, scope)
    code: types.CodeType = scope["around"](*names).__code__
    return code
