"""Detaching: it stops gradients and changes no value, so that to multipliers it is the identity.

``detach``, ``.data``, ``torch.no_grad`` and ``torch.inference_mode`` say how a model is trained, not what it computes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .names import operation


def _itself(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


def _alias(tensor: Tensor) -> Tensor:
    return tensor.view_as(tensor)


def _copy(tensor: Tensor, *_: Any) -> Tensor:
    return tensor.clone()


def _nothing(*_: Any) -> None:
    pass


_IDENTITIES: dict[str, Callable[..., Any]] = {
    "detach": _alias,
    "detach_": _itself,
    "detach_copy": _copy,
    "data": _alias,
    "requires_grad_": _itself,
    "set_requires_grad": _nothing,
    "__deepcopy__": _copy,
}

#: Of these, the ones that give the tensor's own memory without a gradient.
ALIASES = frozenset({"data", "detach"})

#: What ``torch.no_grad`` and its like call.
SET_GRAD_MODE = torch._C._set_grad_enabled


@cache
def as_identity(function: Any) -> Callable[..., Any]:
    """The function itself, or where it detaches what is to run instead of it."""
    called = operation(function)
    spelling = called.name if str(called.name).startswith("set_") else called.spelling
    return _IDENTITIES.get(spelling, function)


class AsIdentity(TorchFunctionMode):
    """In this context nothing is detached: for a function that is run, or differentiated, outside of the capture."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return None if function is SET_GRAD_MODE else as_identity(function)(*args, **(kwargs or {}))


def staying_out_of_inference_mode() -> Callable[[torch.inference_mode], None]:
    """In place of ``torch.inference_mode.__enter__``, which no function mode sees: on this thread it changes nothing."""
    thread = threading.get_ident()
    enter = torch.inference_mode.__enter__

    def stay(mode: torch.inference_mode) -> None:
        if threading.get_ident() == thread:
            mode._inference_mode_context = nullcontext()  # type: ignore[assignment]
        else:
            enter(mode)

    return stay
