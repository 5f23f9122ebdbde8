"""What an explanation changes and puts back: noted before each change, so that nothing can come between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any


class Undo:
    """Steps that put things back.

    They are made so that they can run again, or before what they undo was done: in a forked child they run once more, whether the
    parent's thread had begun to or not.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[bool, Callable[[], object]]] = []
        self._thread = threading.get_ident()

    def note(self, step: Callable[..., object], *args: Any) -> None:
        """Run ``step(*args)`` at the end; to be called before what it undoes is done."""
        self._steps.append((False, partial(step, *args)))

    def note_here(self, step: Callable[..., object], *args: Any) -> None:
        """The same for a state of the running thread, which no other thread has to put back."""
        self._steps.append((True, partial(step, *args)))

    def replace(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute of a module or a class until the end."""
        # vars() and not getattr, which would bind a method and so put something else back.
        self.note(setattr, owner, name, vars(owner)[name])
        setattr(owner, name, value)

    def run(self) -> None:
        """Run all steps, the last one first; the first error is raised when all have run."""
        errors = []
        for here, step in reversed(self._steps):
            if here and threading.get_ident() != self._thread:
                continue
            try:
                step()
            except BaseException as error:
                errors.append(error)
        self._steps.clear()
        if errors:
            raise errors[0]
