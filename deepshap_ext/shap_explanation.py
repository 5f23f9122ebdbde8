"""A shap.Explanation of an attribution: what stands beside the values, in the shapes that shap's plots take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from .arguments import shown
from .arrays import Array, as_array, columns_of
from .attribution import Attribution
from .inputs import Given


def explanation_class() -> Any:
    """shap's Explanation; imported when it is asked for, because the package does not need shap otherwise."""
    try:
        from shap import Explanation
    except ImportError as error:
        raise ImportError(
            "DeepExplainer(...)(X) returns a shap.Explanation: pip install shap, or use shap_values(X)"
        ) from error
    return Explanation


@dataclass(frozen=True)
class Beside:
    """What stands beside the values of one explained tensor: ``data`` and ``display`` ``[N, *features]``, and the first features' names.

    All are None for what a layer inside the model is given: its numbers are not X's.
    """

    data: Array | None = None
    display: Array | None = None
    names: list[str] | None = None


def beside(given: Given, columns: list[str] | None, names: Any, display: Any, channels_last: bool) -> Beside:
    """What stands beside an input's values; ``names`` and ``display`` are the arguments ``feature_names`` and ``display_data``.

    Without names they are the ``columns`` of the data frame, if it was one.
    """
    data = as_array(given.tensor)
    if display is not None:
        shown_columns = columns_of(display)
        if given.columns is not None and shown_columns is not None and shown_columns != given.columns:
            raise ValueError(
                f"display_data must have {given.label}'s columns in its order, {given.columns}, got {shown_columns}"
            )
        display = np.asarray(as_array(display) if isinstance(display, Tensor) else display, dtype=object)
        if display.shape != data.shape:
            raise ValueError(
                f"display_data must have {given.label}'s shape {list(data.shape)}, got shape {list(display.shape)}"
            )
        if data.dtype.kind in "iu" and all(isinstance(one, str) for one in display.flat):
            # shap.plots.text prints the data and accepts only words; other plots take words for categories without an order.
            data = display
    if channels_last:
        data = _channels_last(data, data.ndim)
        display = None if display is None else _channels_last(display, data.ndim)
    if names is None:
        return Beside(data, display, columns)
    found = _names(names)
    if [len(found)] != list(data.shape[1:2]):
        raise ValueError(
            f"feature_names must have {data.shape[1] if data.ndim > 1 else 'no'} names for {given.label}, got {shown(names)}"
        )
    return Beside(data, display, found)


def _names(value: Any) -> list[str]:
    """The names as strings; none where ``value`` is no list of names."""
    listed = isinstance(value, Iterable) and not isinstance(value, str) and getattr(value, "ndim", 1) == 1
    return [str(name) for name in value] if listed else []


def one_each(argument: str, value: Any, inputs: int, listed: bool) -> Sequence[Any]:
    """An argument's value for each input: the items of a list where the inputs are ``listed``, otherwise the value; None for none."""
    if value is None:
        return [None] * inputs
    if not listed:
        return [value]
    if not isinstance(value, (list, tuple)) or len(value) != inputs:
        raise ValueError(f"{argument} must be a list of {inputs}, each for one input or None, got {shown(value)}")
    return value


def names_of_outputs(names: Any, outputs: tuple[int, ...]) -> Array | None:
    """``[outputs]``: the argument ``output_names`` of a model that has outputs of this shape."""
    if names is None:
        return None
    if len(outputs) != 1:
        raise ValueError(
            f"output_names must be None for outputs of several dimensions, {list(outputs)}, got {shown(names)}"
        )
    found = [names] if isinstance(names, str) else _names(names)
    if len(found) != outputs[0]:
        raise ValueError(f"output_names must have {outputs[0]} names, got {shown(names)}")
    return np.array(found)


def explanations(found: Attribution, besides: Sequence[Beside], names: Array | None, channels_last: bool) -> Any:
    """An Explanation of each explained tensor, a list of them where there are several; ``names`` are those of the model's outputs.

    Its values are ``[N, *features, *outputs]``, and of one output, or one a sample, ``[N, *features]``.
    """
    explanation = explanation_class()
    base, names = as_array(found.expected_value), _of_the_explained(names, found)
    outputs = base.ndim - 1
    if base.size == len(base):
        base = base.reshape(-1)
    made = []
    tensors = _flat(found.values)
    for tensor, it in zip(tensors, besides or [Beside()] * len(tensors), strict=True):
        values = as_array(tensor)
        values = values.reshape(*values.shape[: values.ndim - outputs], *base.shape[1:])
        if values.ndim - base.ndim == 1:
            # In float64, because shap.plots.waterfall puts labels at two places that float32 cannot tell apart.
            values = values.astype(np.float64)
        if channels_last:
            values = _channels_last(values, values.ndim - base.ndim + 1)
        made.append(
            explanation(
                values=values,
                base_values=base,
                data=it.data,
                display_data=it.display,
                feature_names=it.names,
                output_names=None if _mistaken(names, values) else names,
            )
        )
    return made if isinstance(found.values, tuple) else made[0]


def _of_the_explained(names: Array | None, found: Attribution) -> Any:
    """The explained outputs' names: ``[outputs]``, ``[N, K]`` or a single one; None for one output a sample that is not the same."""
    if names is None:
        return None
    if found.target is None:
        return names if len(names) > 1 else names[0]
    each = names[as_array(found.target)]
    if each.size > len(each):
        return each
    # A numpy string, which shap.plots.image can reshape.
    return each.flat[0] if (each == each.flat[0]).all() else None


def _mistaken(names: Any, values: Array) -> bool:
    """Whether shap would mistake ``names`` ``[N, K]``, of each sample's outputs, for names of features and outputs."""
    return np.ndim(names) == 2 and np.shape(names) == values.shape[-2:]


def _channels_last(array: Array, dimensions: int) -> Array:
    """The array with the first dimension of its features behind the others; its first ``dimensions`` are samples and features."""
    return np.moveaxis(array, 1, dimensions - 1) if dimensions > 2 else array


def _flat(values: Any) -> list[Any]:
    """The tensors of nested tuples, in order."""
    return [one for value in values for one in _flat(value)] if isinstance(values, tuple) else [values]
