"""Where in the model the running operation is, as messages name it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from ..errors import UnsupportedOperationError
from . import source
from .names import Operation


class Location:
    """The module that runs, and the operation that is being decomposed.

    ``module`` gives the dotted name of the module that is running. ``whole`` is the outermost operation whose decomposition by this package
    runs; None outside of one.
    """

    def __init__(self, module: Callable[[], str]) -> None:
        self.module = module
        self.whole: Operation | None = None

    def of(self, called: Operation, suffix: str = "") -> str:
        """The operation, its module and the line of the model's source. Finding the line takes long: only where a message may need it."""
        line = source.line()
        return f"{(self.whole or called).title}{suffix} in {self.module()}" + (f" ({line})" if line else "")

    def refuse(self, called: Operation, reason: str) -> NoReturn:
        raise UnsupportedOperationError(f"{called.title} in {self.module()} {reason}")

    def no_rule(self, called: Operation) -> str:
        """The message for an operation without a rule, should the walk over the graph find that multipliers reach its results."""
        where, script = f"{called.title} in {self.module()}", str(called.name).startswith("torch.jit.")
        if script:
            return (
                f"{where} cannot be followed: run it as Python, with PYTORCH_JIT=0 in the environment, or call the function that it is "
                f"made from"
            )
        return (
            f"{where} has no rule: give it one with register_rule, replace it by operations that have one, "
            f"explain a layer behind it with (model, layer), or pass on_unsupported='integrate'"
        )
