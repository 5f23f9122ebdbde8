"""What the user passes in, checked and brought to the model's device before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def device_of(model: nn.Module, data: Sequence[Tensor]) -> torch.device:
    """The device of the model's parameters and buffers; that of the background where it has none."""
    devices = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    if len(devices) > 1:
        raise ValueError(f"model: all parameters and buffers must be on one device, got {sorted(map(str, devices))}")
    device = devices.pop() if devices else data[0].device
    if device.type == "meta":
        raise ValueError("model: its parameters are on the meta device and have no values")
    return device


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype that numpy inputs are converted to: that of the model's first floating-point parameter."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return torch.get_default_dtype()


def as_tensors(name: str, value: Any, dtype: torch.dtype) -> tuple[list[Tensor], bool]:
    """``value`` as a list of tensors, and whether it was a list; numpy arrays of floats become tensors of ``dtype``."""
    listed = isinstance(value, (list, tuple))
    values = list(value) if listed else [value]
    if not values:
        raise ValueError(f"{name} must have at least one tensor, got an empty list")
    tensors = []
    for number, item in enumerate(values):
        label = f"{name}[{number}]" if listed else name
        if hasattr(item, "to_numpy"):
            item = item.to_numpy()
        if isinstance(item, np.ndarray):
            if item.dtype.kind not in "fiub":
                raise TypeError(f"{label} must hold numbers, got a numpy array of dtype {item.dtype}")
            item = torch.from_numpy(np.ascontiguousarray(item))
            item = item.to(dtype) if item.is_floating_point() else item
        if not isinstance(item, Tensor):
            raise TypeError(f"{label} must be a torch tensor or a numpy array, got {type(item).__name__}")
        if item.device.type == "meta":
            raise ValueError(f"{label} is on the meta device and has no values")
        if item.layout != torch.strided:
            raise TypeError(f"{label} must be a dense tensor, got layout {item.layout}")
        tensors.append(item.detach())
    devices = sorted({str(tensor.device) for tensor in tensors})
    if len(devices) > 1:
        raise ValueError(f"{name}: all tensors must be on one device, got {devices}")
    return tensors, listed


def check_rows(name: str, tensors: Sequence[Tensor], listed: bool, integers: bool) -> None:
    """Batches that are not empty, of one length, finite; integer dtypes only where ``integers``."""
    for number, tensor in enumerate(tensors):
        label = f"{name}[{number}]" if listed else name
        if tensor.dim() == 0:
            raise ValueError(f"{label} must have shape [samples, ...], got a single number")
        if len(tensor) == 0:
            raise ValueError(f"{label} must have at least one sample, got shape {list(tensor.shape)}")
        if len(tensor) != len(tensors[0]):
            raise ValueError(
                f"{name}: all inputs must have the same number of samples, got {[len(each) for each in tensors]}"
            )
        if tensor.is_complex():
            raise TypeError(f"{label} must be real, got {tensor.dtype}")
        if not tensor.is_floating_point():
            if not integers:
                raise TypeError(
                    f"{label} is of dtype {tensor.dtype}: integers have no attributions of their own; explain the layer that takes "
                    f"their embedding with (model, layer)"
                )
            continue
        finite = tensor.isfinite()
        if not finite.all():
            index = tuple((~finite).nonzero()[0].tolist())
            raise ValueError(f"{label} must be finite, got {tensor[index].item()} at index {list(index)}")


def check_like(name: str, tensors: Sequence[Tensor], data: Sequence[Tensor], listed: bool, leading: int = 1) -> None:
    """As many tensors as the background has, of its feature shapes and dtypes, behind ``leading`` dimensions."""
    if len(tensors) != len(data):
        raise ValueError(f"{name}: the background has {len(data)} input(s), got {len(tensors)}")
    for number, (tensor, background) in enumerate(zip(tensors, data, strict=True)):
        label = f"{name}[{number}]" if listed else name
        if tensor.shape[leading:] != background.shape[1:]:
            raise ValueError(
                f"{label} must have shape [{'samples' if leading == 1 else 'samples, baselines'}, "
                f"{', '.join(map(str, background.shape[1:]))}] like the background, got {list(tensor.shape)}"
            )
        if tensor.dtype != background.dtype:
            raise TypeError(f"{label} must be of the background's dtype {background.dtype}, got {tensor.dtype}")


def check_kwargs(constants: Any, by_row: Any, device: torch.device) -> dict[str, Any]:
    """The model's constant keyword arguments, tensors among them on its device."""
    for name, value in (("kwargs", constants), ("sample_kwargs", by_row)):
        if value is not None and not (isinstance(value, Mapping) and all(isinstance(key, str) for key in value)):
            raise TypeError(f"{name} must be a dict of the model's keyword arguments, got {value!r}")
    both = sorted(set(constants or ()) & set(by_row or ()))
    if both:
        raise ValueError(f"kwargs and sample_kwargs must not name the same argument, got {', '.join(both)} in both")
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in (constants or {}).items()}


def check_sample_kwargs(values: Any, names: Sequence[str], samples: int, device: torch.device) -> list[Tensor]:
    """A tensor ``[samples, ...]`` for each name, in their order, on the model's device."""
    if set(values or ()) != set(names):
        raise ValueError(
            f"sample_kwargs must have the names that the explainer was made with, {list(names)}, got {list(values or ())}"
        )
    rows = []
    for name in names:
        value = values[name]
        value = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
        if not isinstance(value, Tensor):
            raise TypeError(f"sample_kwargs[{name!r}] must be a tensor, got {type(value).__name__}")
        if value.dim() == 0 or len(value) != samples:
            raise ValueError(
                f"sample_kwargs[{name!r}] must have shape [{samples}, ...] for {samples} samples, got {list(value.shape)}"
            )
        rows.append(value.detach().to(device))
    return rows
