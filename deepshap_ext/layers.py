"""The model and the layers to explain, as the user names them, checked."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .arguments import is_integer, one_of, shown
from .capture.model_call import Layer


def model_and_layers(model: Any, at: Any, call: Any) -> tuple[nn.Module, list[Layer], bool]:
    """The arguments ``model``, ``at`` and ``call``, checked: the model, the layers to explain, and whether these were given as a list."""
    layers: Any = None
    if pair := isinstance(model, tuple):
        if len(model) != 2:
            raise TypeError(f"model must be a torch.nn.Module or the pair (model, layer), got a tuple of {len(model)}")
        model, layers = model
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be a torch.nn.Module or the pair (model, layer), got {type(model).__name__}{_advice(model)}"
        )
    _check_model(model)
    several = pair and isinstance(layers, (list, tuple))
    if several and not layers:
        raise ValueError("layer must be a module or a list of modules, got an empty list")
    modules = [_module(model, layer) for layer in (layers if several else [layers] if pair else [])]
    places, calls = _one_a_layer("at", at, modules, several), _one_a_layer("call", call, modules, several)
    for place in places:
        one_of("at", place, ("input", "output"))
    for which in calls:
        if which is not None and not (is_integer(which) and which >= 0):
            raise ValueError(f"call must be None or an integer from 0, got {shown(which)}")
    if not modules and (places != ["input"] or calls != [None]):
        raise ValueError(
            f"at and call are about the layer of (model, layer), and there is none: got at={shown(at)}, call={shown(call)}"
        )
    return model, [Layer(*each) for each in zip(modules, places, calls, strict=False)], several


def _check_model(model: nn.Module) -> None:
    """Refuse modules whose operations cannot be followed, or that have no parameters yet."""
    for name, module in model.named_modules():
        title = f"model.{name}" if name else "model"
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{title} is a TorchScript module, whose operations cannot be followed: explain the module it was scripted or traced from"
            )
        if isinstance(module, nn.DataParallel) and len(module.device_ids) > 1:
            raise TypeError(f"{title} is a DataParallel, which spreads a batch over devices: explain {title}.module")
        if type(module).__module__.startswith("torch.ao.nn") and "quantized" in type(module).__module__:
            raise TypeError(
                f"{title} is a quantized module, which has no gradient: explain the module it was made from"
            )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if torch.nn.parameter.is_lazy(tensor):
            raise ValueError(f"model.{name} is not initialized: call the model once on a batch")


def _module(model: nn.Module, layer: Any) -> nn.Module:
    """A layer given as a module, or by its dotted name."""
    if isinstance(layer, str):
        try:
            return model.get_submodule(layer)
        except AttributeError:
            names = [name for name, _ in model.named_modules() if name]
            near = difflib.get_close_matches(layer, names, cutoff=0.4) or names[:10]
            raise ValueError(
                f"layer must name a module inside the model, got {layer!r}; "
                + (f"{type(model).__name__} has {', '.join(map(repr, near))}" if near else "it has no modules inside")
            ) from None
    if not isinstance(layer, nn.Module):
        raise TypeError(f"layer must be a torch.nn.Module inside the model or its name, got {shown(layer)}")
    if all(layer is not other for other in model.modules()):
        raise ValueError(
            f"layer must be a module inside the model, got a {type(layer).__name__} that is not in {type(model).__name__}"
        )
    return layer


def _advice(model: Any) -> str:
    """What to pass instead of a value that is often passed by mistake."""
    if isinstance(model, torch.export.ExportedProgram):
        return ": explain its module()"
    if isinstance(model, Mapping):
        return ": load a state dict into its model, model.load_state_dict(...)"
    if isinstance(model, list):
        return ": the pair is a tuple"
    if isinstance(model, type):
        return f" {model.__name__}: pass an instance of it"
    return ": call it in the forward of a torch.nn.Module" if callable(model) else ""


def _one_a_layer(name: str, value: Any, modules: Sequence[nn.Module], several: bool) -> list[Any]:
    """The argument ``name``, one value for all layers or a list, as a list with one value a layer."""
    if not isinstance(value, (list, tuple)):
        # At least one, so that the value is checked even where there is no layer.
        return [value] * max(len(modules), 1)
    if not several or len(value) != len(modules):
        raise ValueError(
            f"{name} must be one value, or a list of one a layer for {len(modules)} layers, got {shown(value)}"
        )
    return list(value)
