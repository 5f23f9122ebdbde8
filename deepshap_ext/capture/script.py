"""Calls of TorchScript functions, which no function mode sees."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch


def watched(run: Callable[..., Any]) -> Callable[..., Any]:
    """In place of ``torch._C.ScriptFunction.__call__``: on this thread it is ``run(function, call, args, kwargs)``."""
    thread = threading.get_ident()
    call = torch._C.ScriptFunction.__call__

    def watch(function: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == thread:
            return run(function, call, args, kwargs)
        return call(function, *args, **kwargs)

    return watch
