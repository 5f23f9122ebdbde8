"""Checks of the arguments of tangermeme's ``deep_lift_shap``, before anything is computed or moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import is_integer, shown
from .arrays import all_finite
from .rules.hooked import Hook, Hooked


def check_model(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {shown(model)}")
    devices = {str(tensor.device) for tensor in chain(model.parameters(), model.buffers())}
    if len(devices) > 1 or "meta" in devices:
        raise ValueError(
            f"model must have its parameters and buffers on one device that holds values, got {sorted(devices)}"
        )
    return model


def check_args(args: Any, sequences: int) -> Sequence[Tensor]:
    """The model's further arguments, a row a sequence; none for None."""
    if args is None:
        return ()
    if not isinstance(args, (tuple, list)):
        raise TypeError(f"args must be a tuple of tensors, got {shown(args)}")
    for place, arg in enumerate(args):
        if not isinstance(arg, Tensor) or arg.dim() == 0:
            raise TypeError(
                f"args[{place}] must be a tensor with a row for each of {sequences} sequences, got {shown(arg)}"
            )
        if len(arg) < sequences:
            raise IndexError(f"args[{place}] must have a row for each of {sequences} sequences, got {len(arg)}")
    return args


def integer(name: str, value: Any) -> int:
    """An integer, also one in a tensor of no dimensions."""
    if isinstance(value, Tensor) and value.dim() == 0 and not (value.is_floating_point() or value.is_complex()):
        value = value.item()
    if not is_integer(value):
        raise TypeError(f"{name} must be an integer, got {shown(value)}")
    return int(value)


def threshold(value: Any) -> float:
    """The argument ``warning_threshold``."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"warning_threshold must be a number, got {shown(value)}") from None


def rules(ops: Any) -> dict[type[nn.Module], Hooked]:
    """The rules of ``additional_nonlinear_ops``."""
    ops = {} if ops is None else ops
    if not isinstance(ops, Mapping):
        raise TypeError(f"additional_nonlinear_ops must be a dict of hooks by class of module, got {shown(ops)}")
    return {_kind(kind): Hooked(_hook(kind, hook)) for kind, hook in ops.items()}


def _kind(kind: Any) -> type[nn.Module]:
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise TypeError(f"additional_nonlinear_ops: a key must be a class of modules, got {shown(kind)}")
    return kind


def _hook(kind: type[nn.Module], hook: Any) -> Hook:
    if not callable(hook):
        raise TypeError(
            f"additional_nonlinear_ops[{kind.__name__}] must be a function hook(module, grad_input, grad_output), got {shown(hook)}"
        )
    return hook


def dtype_of(value: Any, model: nn.Module) -> torch.dtype:
    """The argument ``dtype``; None: that of the model's parameters."""
    if value is None:
        return next((parameter.dtype for parameter in model.parameters()), torch.float32)
    found = getattr(torch, value, None) if isinstance(value, str) else value
    if not isinstance(found, torch.dtype) or not found.is_floating_point or found.itemsize == 1:
        raise TypeError(
            f"dtype must be None, or a floating-point dtype such as torch.float32 or 'float32', got {shown(value)}"
        )
    return found


def device_of(value: Any) -> torch.device:
    """The argument ``device``; None: a GPU if there is one."""
    if value is None:
        value = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(value)
        torch.empty(1, device=device)
    except Exception as error:
        raise ValueError(f"device must be one that this machine has, got {shown(value)}: {error}") from error
    if device.type == "meta":
        raise ValueError("device must hold values, got 'meta'")
    return device


def check_drawn(drawn: Any, shape: Sequence[int]) -> Tensor:
    """What the function ``references`` returned for rows, ``[rows, 1, characters, length]``."""
    contract = f"references must return finite numbers, a tensor of shape {[shape[0], 1, *shape[1:]]}"
    if not isinstance(drawn, Tensor) or list(drawn.shape) != [shape[0], 1, *shape[1:]]:
        raise ValueError(f"{contract}, got {shown(drawn)}")
    if not all_finite(drawn):
        raise ValueError(f"{contract}, got {drawn[~drawn.isfinite()][0].item()} among them")
    return drawn
