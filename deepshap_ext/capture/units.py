"""Calls that no function mode sees, each run as one operation: hand-written Functions, TorchScript, and what has a rule as a whole.

While a model is explained, :class:`Units` stands in for what makes these calls (:mod:`deepshap_ext.capture.hooks` puts it there).
"""

from __future__ import annotations

import types
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from ..errors import UnsupportedOperationError
from ..rules.registry import Application, Context, Rule
from .applied import is_rules_own
from .dependence import plain
from .functions import Attempt
from .mode import TRANSFORMS, Capture
from .names import Operation, operation
from .written import APPLY


class Units:
    """Takes these calls to the capture of the pass that runs; between passes they run as they are."""

    def __init__(self) -> None:
        self._capture: Capture | None = None

    def begin(self, capture: Capture) -> None:
        self._capture = capture

    def end(self) -> None:
        self._capture = None

    def apply(
        self, function: types.FunctionType, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Stands in for ``autograd.Function.apply``, and for the user's own functions that have a rule."""
        capture = self._capture
        if capture is None or (function is APPLY and is_rules_own(args[0])) or not capture.sees():
            return original(*args, **kwargs)
        if function is APPLY:
            return _run_function(capture, args[0], partial(original, args[0]), args[1:], kwargs)
        return _run_by_rule(capture, operation(function), capture.rules[function], original, args, kwargs)

    def module(self, rule: Rule, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Stands in for the ``forward`` of a module whose class has a rule."""
        capture = self._capture
        if capture is None or not capture.sees():
            # The rule's own call.
            return forward(*args, **kwargs)
        called = Operation(type(module), type(module).__name__, False)
        return _run_by_rule(capture, called, partial(_of_module, rule, module), forward, args, kwargs)

    def script(self, function: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stands in for the call of a TorchScript function."""
        capture = self._capture
        if capture is None or not capture.is_on:
            return call(function, *args, **kwargs)
        called = Operation(f"torch.jit.{function.name}", f"the TorchScript function {function.name}", False)
        with capture.paused():
            return capture.call(called, partial(call, function), args, kwargs, opaque=True)


def _of_module(rule: Rule, module: nn.Module, context: Context, *args: Any, **kwargs: Any) -> Application | None:
    return rule(context, module, *args, **kwargs)


def _run_function(
    capture: Capture, written: type[torch.autograd.Function], apply: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """Run a hand-written ``autograd.Function``: by its rule; or as the operations that it is made of; or, where these cannot be followed,
    as one operation without a rule, whose gradient its own backward gives."""
    called = operation(written)

    def opened(*args: Any, **kwargs: Any) -> Any:
        attempt = Attempt(capture.record, capture.location.module, written, args, kwargs)
        if attempt.run():
            return attempt.result
        with capture.paused():
            result = capture.call(called, apply, args, kwargs, opaque=True)
        attempt.blame()
        return result

    if rule := capture.rules.get(written):
        return _run_by_rule(capture, called, rule, opened, args, kwargs)
    return opened(*args, **kwargs) if capture.record.dependence.of((args, kwargs)) else apply(*args, **kwargs)


def _run_by_rule(
    capture: Capture, called: Operation, rule: Rule, run: Callable[..., Any], args: Any, kwargs: Any
) -> Any:
    """Run what is no operation of torch's as one operation under its rule; ``run`` runs it without."""
    dependence = capture.record.dependence
    dependent = dependence.of((args, kwargs))
    carrying = [tensor for tensor in dependent if dependence.carries(tensor)]
    random = dependence.has_random and dependence.random_among(dependent)
    if random or not carrying:
        return run(*args, **kwargs)
    if any(plain(tensor) is not tensor for tensor in carrying):
        capture.location.refuse(called, f"runs inside {TRANSFORMS}, where its rule cannot")
    with capture.paused():
        try:
            application = rule(capture.record, *args, **kwargs)
        except UnsupportedOperationError as error:
            capture.location.refuse(called, str(error))
        if application is not None:
            return capture.runner.apply(called, application, (args, kwargs), {})
    return run(*args, **kwargs)
