"""Signals that arrive while the model is being prepared or put back wait until that is done.

Python runs a signal's handler between two steps of whatever the main thread does, and KeyboardInterrupt is raised there. No try
statement can hold that off: it may come before the statement begins or while its finally runs.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import signal
import threading
from collections.abc import Callable
from contextlib import _GeneratorContextManager, suppress
from types import CodeType, FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]

#: The numbers of the signals, found out once. Handlers are read and set by the C functions under the signal module's own, which make a
#: member of an enumeration of all that they return: a tenth of a millisecond for all signals.
_NUMBERS = frozenset(map(int, signal.valid_signals()))


class Interrupts:
    """Stands in for the program's signal handlers, between ``hold`` and ``release``, where these run in the main thread.

    A signal that interrupts one of ``protected``, or what one of them calls, is delivered by the next ``deliver()``; any other at once.
    Which it is shows in the interrupted stack, so that a function is protected from its first step to its last.
    """

    def __init__(self, protected: frozenset[CodeType]) -> None:
        self._protected = protected
        self._ours: dict[int, tuple[Handler, Handler]] = {}
        self._waiting: list[tuple[Handler, int, FrameType | None]] = []
        self._raised: BaseException | None = None

    def hold(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _NUMBERS:
            handler = _signal.getsignal(number)
            if callable(handler):
                self._ours[number] = handler, self._stand_in(handler)
                _signal.signal(number, self._ours[number][1])

    def release(self) -> None:
        """Put the handlers back; one that the program has meanwhile replaced itself stays."""
        raised = None
        while self._ours:
            # A handler that is back may raise here before the next one is.
            try:
                while self._ours:
                    number, (handler, ours) = next(reversed(self._ours.items()))
                    if _signal.getsignal(number) is ours:
                        _signal.signal(number, handler)
                    del self._ours[number]
            except BaseException as error:
                raised = error
        if raised is not None:
            raise raised

    def deliver(self) -> None:
        """Call the handlers of the signals that wait."""
        while self._waiting:
            handler, number, frame = self._waiting.pop(0)
            handler(number, frame)

    def _stand_in(self, handler: Handler) -> Handler:
        def stand_in(number: int, frame: FrameType | None) -> Any:
            interrupted = frame
            while interrupted is not None:
                if interrupted.f_code in self._protected:
                    self._waiting.append((handler, number, frame))
                    return None
                interrupted = interrupted.f_back
            try:
                return handler(number, frame)
            except BaseException as error:
                self._raised = error
                raise

        return stand_in

    def behind(self, error: BaseException | None) -> BaseException | None:
        """What a handler has raised, where the error is another that torch, or this package, has raised on its way out.

        Some finally statements of torch undo what their try statements may not have begun to do.
        """
        raised, self._raised = self._raised, None
        if (
            raised is None
            or error is None
            or error is raised
            or _origin(error) not in ("torch", "contextlib", _PACKAGE)
        ):
            return None
        behind = error.__context__
        while behind is not None and behind is not raised:
            behind = behind.__context__
        return behind


_PACKAGE = __name__.partition(".")[0]


def _origin(error: BaseException) -> str:
    """The package whose code raised an error."""
    trace, module = error.__traceback__, ""
    while trace is not None:
        module, trace = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_next
    return module.partition(".")[0]


def end_generators(error: BaseException | None) -> None:
    """End the ``@contextmanager`` functions that an interrupt has kept from ending, as it came when they were being left.

    They would otherwise go on when the traceback that holds them is freed: torch's put back a function mode then.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code in _MANAGERS:
                with suppress(Exception):
                    trace.tb_frame.f_locals["self"].gen.close()
            trace = trace.tb_next
        error = error.__context__


#: What enters and leaves a context that is written with ``@contextmanager``.
_MANAGERS = frozenset({_GeneratorContextManager.__enter__.__code__, _GeneratorContextManager.__exit__.__code__})
