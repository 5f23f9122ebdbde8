"""The model and the layers to explain, as the user names them, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .capture.hooks import Layer


def model_and_layers(model: Any, at: Any, call: Any) -> tuple[nn.Module, list[Layer], bool]:
    """The model, the layers to explain, and whether they were given as a list."""
    layer = None
    if isinstance(model, tuple):
        if len(model) != 2:
            raise TypeError(f"model must be a torch.nn.Module or the pair (model, layer), got a tuple of {len(model)}")
        model, layer = model
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module or the pair (model, layer), got {type(model).__name__}"
            + (": explain its module()" if isinstance(model, torch.export.ExportedProgram) else "")
        )
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{'model' if not name else f'model.{name}'} is a TorchScript module, whose operations cannot be followed: explain the "
                f"module it was scripted or traced from"
            )
        if type(module).__module__.startswith("torch.ao.nn") and "quantized" in type(module).__module__:
            raise TypeError(
                f"{'model' if not name else f'model.{name}'} is a quantized module, which has no gradient: explain the "
                f"module it was made from"
            )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if torch.nn.parameter.is_lazy(tensor):
            raise ValueError(f"model.{name} is not initialized: call the model once on a batch")
    several = isinstance(layer, (list, tuple))
    modules: list[Any] = [*layer] if isinstance(layer, (list, tuple)) else [] if layer is None else [layer]
    if several and not modules:
        raise ValueError("layer must be a module or a list of modules, got an empty list")
    for module in modules:
        if not isinstance(module, nn.Module):
            raise TypeError(f"layer must be a torch.nn.Module inside the model, got {type(module).__name__}")
        if all(module is not other for other in model.modules()):
            raise ValueError(
                f"layer must be a module inside the model, got a {type(module).__name__} that is not in {type(model).__name__}"
            )
    places, calls = _one_a_layer("at", at, modules, several), _one_a_layer("call", call, modules, several)
    for place in places:
        if place not in ("input", "output"):
            raise ValueError(f"at must be one of 'input', 'output', got {place!r}")
    for which in calls:
        if which is not None and (isinstance(which, bool) or not isinstance(which, int) or which < 0):
            raise ValueError(f"call must be None or an integer from 0, got {which!r}")
    if not modules and (at != "input" or call is not None):
        raise ValueError(
            f"at and call are about the layer of (model, layer), and there is none: got at={at!r}, call={call!r}"
        )
    return model, [Layer(*each) for each in zip(modules, places, calls, strict=False)], several


def _one_a_layer(name: str, value: Any, modules: Sequence[nn.Module], several: bool) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        # Checked also where there is no layer.
        return [value] * max(len(modules), 1)
    if not several or len(value) != len(modules):
        raise ValueError(f"{name} must be one value, or a list of one a layer for {len(modules)} layers, got {value!r}")
    return list(value)
