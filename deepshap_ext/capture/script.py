"""Calls of TorchScript functions, which no function mode sees."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch


@contextmanager
def scripts(run: Callable[..., Any]) -> Iterator[None]:
    """In this context ``run(function, call, args, kwargs)`` stands for calls of TorchScript functions on this thread."""
    thread = threading.get_ident()
    call = torch._C.ScriptFunction.__call__

    def watched(function: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.get_ident() == thread:
            return run(function, call, args, kwargs)
        return call(function, *args, **kwargs)

    with patch.object(torch._C.ScriptFunction, "__call__", watched):
        yield
