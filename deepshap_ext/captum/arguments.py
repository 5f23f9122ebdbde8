"""Arguments and errors in captum's forms, for the explainer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..arguments import flag, shown
from ..errors import ExplanationError

#: How messages of the explainer about an argument begin, once X is called inputs, and how they begin with captum's names.
_WORDS = {
    "inputs": "inputs",
    "baselines": "baselines",
    "target": "target",
    "args": "additional_forward_args",
    "multipliers must be False": "multiply_by_inputs must be True",
    "combine": "custom_attribution_func",
    "return_convergence_delta": "return_convergence_delta",
    "attribute_to": "attribute_to",
}
#: What messages of the explainer advise, and what that is with captum's classes.
_ADVICE = {
    "(model, layer) with at='output'": "with LayerDeepLift(model, layer)",
    "with at='output'": "with attribute_to_layer_input=False",
    "with (model, layer)": "with LayerDeepLift(model, layer)",
}


@contextmanager
def raised_as_in_captum() -> Iterator[None]:
    """``AssertionError`` where an argument breaks its contract, and where the model itself raises one."""
    try:
        yield
    except (ExplanationError, TypeError, ValueError) as error:
        if isinstance(error.__cause__, AssertionError):
            raise error.__cause__ from None
        message = re.sub(r"\bX\b", "inputs", str(error)).replace("inputs's", "inputs'")
        for ours, theirs in _ADVICE.items():
            message = message.replace(ours, theirs)
        if isinstance(error, ExplanationError):
            error.args = (message,)
            raise
        for ours, theirs in _WORDS.items():
            if message.startswith(ours):
                raise AssertionError(theirs + message.removeprefix(ours)) from None
        raise


def as_tuple(value: Any) -> tuple[Any, ...]:
    """A tuple as it is; anything else as a tuple of one."""
    return value if isinstance(value, tuple) else (value,)


def asked(name: str, value: Any) -> bool:
    """The argument ``name``, True or False."""
    with raised_as_in_captum():
        flag(name, value)
    return bool(value)


def tensors(name: str, value: Any) -> tuple[Tensor, ...]:
    """The tensor, or tuple of tensors, that the argument ``name`` is."""
    found = as_tuple(value)
    for one in found or ((),):
        if not isinstance(one, Tensor):
            raise AssertionError(f"{name} must be a tensor or a tuple of tensors, got {shown(one)}")
        if one.dim() == 0:
            raise AssertionError(f"{name} must have shape [N, ...], got a single number")
    return found


def each_samples_own(baselines: Any, inputs: Sequence[Tensor]) -> list[Tensor]:
    """One baseline for all samples, ``[1, *features]``, or for each its own, ``[N, 1, *features]``.

    ``baselines``: one for each input, tensors of its shape or with a single row, or numbers for all its elements; None for zeros.
    """
    given = (0,) * len(inputs) if baselines is None else as_tuple(baselines)
    _check_number(given, inputs)
    found = []
    for one, x in zip(given, inputs, strict=True):
        row = (1, *x.shape[1:])
        found.append(x.new_full(row, one) if isinstance(one, (int, float)) else one)
        if not isinstance(found[-1], Tensor) or found[-1].shape not in (x.shape, row):
            raise AssertionError(
                f"baselines must be a number or of shape {list(x.shape)} or {list(row)}, got {shown(one)}"
            )
    if all(len(one) == 1 for one in found):
        return found
    return [one.expand_as(x).unsqueeze(1) for one, x in zip(found, inputs, strict=True)]


def shared_by_all(baselines: Any, inputs: Any) -> list[Tensor]:
    """Baselines ``[R, *features]``: tensors, or what a function of the inputs, or of nothing, returns."""
    if callable(baselines):
        baselines = baselines(inputs) if signature(baselines).parameters else baselines()
    found = tensors("baselines", baselines)
    _check_number(found, as_tuple(inputs))
    return list(found)


def _check_number(baselines: Sequence[Any], inputs: Sequence[Any]) -> None:
    if len(baselines) != len(inputs):
        raise AssertionError(f"baselines must be one for each of the {len(inputs)} input(s), got {len(baselines)}")


def explained_output(target: Any) -> Any:
    """The explainer's target: None is the only output that there is, and a tensor of one integer holds for all samples."""
    if target is None:
        return only_output("target must be an index into outputs of shape {}, got None")
    if isinstance(target, Tensor) and target.numel() == 1:
        return target.reshape(())
    several = isinstance(target, (Tensor, np.ndarray)) and target.ndim > 1
    if several or (isinstance(target, list) and any(isinstance(one, list) for one in target)):
        raise AssertionError(f"target must be one output for all samples, or one a sample, [N], got {shown(target)}")
    return target


def only_output(message: str) -> Callable[[Tensor], Tensor]:
    """The explainer's target that is the only output; where it is not, the error has this message with the outputs' shape."""

    def choose(outputs: Tensor) -> Tensor:
        if outputs[0].numel() != 1:
            raise AssertionError(message.format(list(outputs.shape[1:])))
        return torch.zeros(len(outputs), dtype=torch.long, device=outputs.device)

    return choose


def combination(custom: Any) -> Callable[..., Any] | None:
    """The explainer's function of multipliers, inputs and baselines from one of the first of them."""
    if custom is None:
        return None
    number = len(signature(custom).parameters) if callable(custom) else 0
    if not 1 <= number <= 3:
        raise AssertionError(
            f"custom_attribution_func must be a function of one to three arguments, got {shown(custom)}"
        )
    return lambda *sides: custom(*sides[:number])


def like(inputs: Any, values: Sequence[Tensor]) -> Any:
    """A tensor or a tuple as the inputs are, in their dtypes; values of integers stay floating-point."""
    found = tuple(
        value.to(x.dtype) if x.is_floating_point() else value for value, x in zip(values, as_tuple(inputs), strict=True)
    )
    return found if isinstance(inputs, tuple) else found[0]
