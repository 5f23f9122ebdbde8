"""The model's inputs as the user passes them, checked and brought to the dtypes that the model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .arrays import all_finite, as_tensor, columns_of

#: The columns of each input that came as a data frame.
Columns = Sequence[list[str] | None]


@dataclass(frozen=True)
class Given:
    """One tensor of an argument, in the dtype that it came in; ``label`` names it in messages.

    ``array``: whether it came as a numpy array or a data frame; ``columns``: the frame's.
    """

    label: str
    tensor: Tensor
    array: bool
    columns: list[str] | None


def device_and_dtypes(model: nn.Module, data: Sequence[Given]) -> tuple[torch.device, list[torch.dtype]]:
    """The device of the model's parameters and buffers, or of ``data`` where it has none; and the dtypes of its parameters."""
    modules = _modules(model)
    devices = {
        tensor.device
        for module in modules
        for held in (module._parameters, module._buffers)
        for tensor in held.values()
        if tensor is not None
    }
    if len(devices) > 1:
        raise ValueError(f"model: all parameters and buffers must be on one device, got {sorted(map(str, devices))}")
    device = devices.pop() if devices else data[0].tensor.device
    if device.type == "meta":
        raise ValueError("model: its parameters are on the meta device and have no values")
    return device, _dtypes(modules)


def dtypes_of(model: nn.Module) -> list[torch.dtype]:
    """The floating-point dtypes of the model's parameters, in their order."""
    return _dtypes(_modules(model))


def _dtypes(modules: Sequence[nn.Module]) -> list[torch.dtype]:
    return [
        parameter.dtype
        for module in modules
        for parameter in module._parameters.values()
        if parameter is not None and parameter.is_floating_point()
    ]


def _modules(model: nn.Module) -> list[nn.Module]:
    """``list(model.modules())``, whose nested generators take several times as long."""
    found: dict[nn.Module, None] = {}
    waiting = [model]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = None
            waiting += [child for child in reversed(module._modules.values()) if child is not None]
    return list(found)


def given_tensors(name: str, value: Any) -> tuple[list[Given], bool]:
    """The tensors of ``value``, and whether it was a list of them."""
    listed = isinstance(value, (list, tuple))
    values = list(value) if listed else [value]
    if not values:
        raise ValueError(f"{name} must have at least one tensor, got an empty list")
    given = []
    for number, item in enumerate(values):
        label = f"{name}[{number}]" if listed else name
        given.append(Given(label, as_tensor(label, item), not isinstance(item, Tensor), columns_of(item)))
    if len(given) > 1 and len(devices := sorted({str(one.tensor.device) for one in given})) > 1:
        raise ValueError(f"{name}: all tensors must be on one device, got {devices}")
    return given, listed


def check_rows(name: str, given: Sequence[Given]) -> None:
    """Check that these are batches of real and finite numbers, not empty and of one length."""
    for one in given:
        if one.tensor.dim() == 0:
            raise ValueError(f"{one.label} must have shape [samples, ...], got a single number")
        if one.tensor.shape[0] == 0:
            raise ValueError(f"{one.label} must have at least one sample, got shape {list(one.tensor.shape)}")
        if one.tensor.shape[0] != given[0].tensor.shape[0]:
            raise ValueError(
                f"{name}: all inputs must have the same number of samples, got {[len(each.tensor) for each in given]}; what is the same "
                f"for all samples, such as a graph's edges, goes into kwargs, and the nodes of one graph are one sample, nodes[None]"
            )
        if one.tensor.is_complex():
            raise TypeError(f"{one.label} must be real, got {one.tensor.dtype}")
        if one.tensor.is_floating_point():
            _check_finite(f"{one.label} must be finite", one.tensor, one.tensor)


def in_the_models_dtype(given: Sequence[Given], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """The tensors, with floating-point numbers in the first of the ``dtypes`` of the model's parameters, else torch's default dtype.

    What came as a tensor keeps its dtype if that is one of the model's, or if the model has no parameters.
    """
    first = dtypes[0] if dtypes else torch.get_default_dtype()
    return [
        _converted(one, first) if one.array or (dtypes and one.tensor.dtype not in dtypes) else one.tensor
        for one in given
    ]


def like(
    name: str, given: Sequence[Given], others: Sequence[Tensor], leading: Sequence[str], whose: str = "the background"
) -> list[Tensor]:
    """The tensors in the dtypes of the ``others``, checked: as many, with the shapes of their features behind ``leading`` dimensions.

    ``leading``: what messages call these dimensions; ``whose``: what they call the others.
    """
    if len(given) != len(others):
        raise ValueError(f"{name}: {whose} has {len(others)} input(s), got {len(given)}")
    tensors = []
    for one, other in zip(given, others, strict=True):
        shape, features = list(one.tensor.shape), list(other.shape[1:])
        if len(shape) < len(leading) or shape[len(leading) :] != features:
            raise ValueError(
                f"{one.label} must have shape [{', '.join([*leading, *map(str, features)])}] like {whose}, got {shape}"
                + (f": one {leading[0][:-1]} is {one.label}[None]" if shape == features else "")
            )
        floating = other.is_floating_point()
        if one.tensor.dtype != other.dtype and not (floating and one.tensor.is_floating_point()):
            integers = f"astype('{str(other.dtype)[6:]}')" if one.array else f"to({other.dtype})"
            raise TypeError(
                f"{one.label} must be of {whose}'s dtype {other.dtype}, got {one.tensor.dtype}: pass "
                f"{_as_floats(one) if floating else f'{one.label}.{integers}'}"
            )
        tensors.append(_converted(one, other.dtype))
    return tensors


def check_columns(other: str, given: Sequence[Given], others: Columns) -> None:
    """Check that data frames have the columns ``others`` of the argument ``other``, in its order, where that was a data frame too."""
    for one, columns in zip(given, others, strict=True):
        if one.columns is not None and columns is not None and one.columns != columns:
            reordered = f": pass {one.label}[list({other}.columns)]" if sorted(one.columns) == sorted(columns) else ""
            raise ValueError(
                f"{one.label} must have {'the ' * (other == 'background')}{other}'s columns in its order, {columns}, got {one.columns}"
                f"{reordered}"
            )


def _converted(one: Given, dtype: torch.dtype) -> Tensor:
    """Floating-point numbers in ``dtype``, which must be wide enough for them."""
    if not one.tensor.is_floating_point() or one.tensor.dtype == dtype:
        return one.tensor
    converted = one.tensor.to(dtype)
    _check_finite(f"{one.label} must fit into {dtype}, which the model takes", converted, one.tensor)
    return converted


def _check_finite(contract: str, tensor: Tensor, original: Tensor) -> None:
    if not all_finite(tensor):
        finite = tensor.isfinite()
        index = tuple((~finite).nonzero()[0].tolist())
        raise ValueError(f"{contract}, got {original[index].item()} at index {list(index)}")


def _as_floats(one: Given) -> str:
    return f"{one.label}.astype(float)" if one.array else f"{one.label}.float()"
