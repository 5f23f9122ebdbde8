"""Errors that the model itself raises: a message that says what it was run on, and what it would run on instead."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .capture.hooks import ModelHooks
from .capture.model_call import Call
from .errors import ExplanationError
from .inputs import dtypes_of
from .keywords import signature_of
from .memory import is_out_of_memory
from .rules.registry import Options

#: What layers that often come first in a model take, by class; for messages.
_TAKES: list[tuple[tuple[type[nn.Module], ...], Callable[[Any], str]]] = [
    ((nn.Linear,), lambda layer: f"[..., {layer.in_features}]"),
    ((nn.Conv1d, nn.ConvTranspose1d), lambda layer: f"[samples, {layer.in_channels}, length]"),
    ((nn.Conv2d, nn.ConvTranspose2d), lambda layer: f"[samples, {layer.in_channels}, height, width]"),
    ((nn.Conv3d, nn.ConvTranspose3d), lambda layer: f"[samples, {layer.in_channels}, depth, height, width]"),
    ((nn.Embedding, nn.EmbeddingBag), lambda layer: f"integers from 0 to {layer.num_embeddings - 1}"),
    (
        (nn.RNNBase,),
        lambda layer: f"[{'samples, steps' if layer.batch_first else 'steps, samples'}, {layer.input_size}]",
    ),
    ((nn.LayerNorm,), lambda layer: f"[..., {', '.join(map(str, layer.normalized_shape))}]"),
    ((nn.modules.batchnorm._BatchNorm,), lambda layer: f"[samples, {layer.num_features}, ...]"),
]


@contextmanager
def model_errors(
    model: nn.Module, call: Call, options: Options, inputs: Callable[[], Mapping[str, Sequence[Tensor]]]
) -> Iterator[None]:
    """In this context, which runs the model on ``inputs()``, an error of the model's own becomes one that says what it was run on.

    ``inputs()``: rows by the name of the argument that they came in. An error is the model's own if the plain model, without capture,
    raises one on the same rows. Whether a dimension is missing is tried for the first argument alone: the others must have its shape.
    """
    try:
        yield
    except Exception as error:
        refused = isinstance(error, ExplanationError) and type(error) is not ExplanationError
        if refused or is_out_of_memory(error) or not (isinstance(error, ExplanationError) or _in_a_model(error)):
            raise
        plain = _Plain(model, call, options)
        arguments = inputs()
        first = next(iter(arguments))
        for name, rows in arguments.items():
            try:
                plain(rows)
            except Exception as own:
                if is_out_of_memory(own):
                    raise error from None
                way = _as_one_sample(name, rows, plain) if name == first else ""
                raise ExplanationError(f"{_message(name, rows, plain, own)}{way}") from own
            alone = name == first and isinstance(error, ExplanationError)
            if alone and (way := _all_together(name, rows, plain)):
                raise ExplanationError(f"{error}{way}") from error
        raise


def _in_a_model(error: Exception) -> bool:
    """Whether the error was raised while a model ran, and not in a function of the user's that takes its outputs or multipliers."""
    return any(frame.f_code is Call.__call__.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def as_the_model_takes(model: nn.Module, call: Call, options: Options, inputs: Sequence[Tensor]) -> list[torch.dtype]:
    """The dtypes in which the model takes ``inputs``: that of its parameters for integers if it runs on those and not on integers."""
    plain = _Plain(model, call, options)
    explained, _ = plain.split(inputs)
    number = next(iter(dtypes_of(model)), torch.get_default_dtype())
    given = [tensor.dtype for tensor in inputs]
    if all(tensor.is_floating_point() for tensor in explained):
        return given
    # First as they are; then integers of one or two bytes as numbers, because torch looks nothing up for them and one-hot rows are often
    # stored in them; then all integers.
    for size in (0, 2, 8):
        taken = [dtype if dtype.is_floating_point or dtype.itemsize > size else number for dtype in given]
        taken[len(explained) :] = given[len(explained) :]
        if plain.runs([tensor[:2].to(dtype) for tensor, dtype in zip(inputs, taken, strict=True)]):
            return taken
    return given


class _Plain:
    """The model as the user runs it, in eval mode, and left as it was."""

    def __init__(self, model: nn.Module, call: Call, options: Options) -> None:
        self.model = model
        self.call = replace(call, layers=())
        self._options = options

    def __call__(self, inputs: Sequence[Tensor]) -> Any:
        with ModelHooks(self.model, self.call, self._options) as hooks, torch.no_grad():
            return hooks.by_itself(inputs)

    def split(self, inputs: Sequence[Tensor]) -> tuple[Sequence[Tensor], dict[str | int, Tensor]]:
        """The model's inputs, and the further arguments behind them."""
        explained = self.call.explained(inputs)
        return explained, dict(zip(self.call.by_row, inputs[len(explained) :], strict=True))

    def runs(self, inputs: Sequence[Tensor]) -> bool:
        try:
            self(inputs)
        except Exception:
            return False
        return True

    def takes_any_number_of(self, inputs: Sequence[Tensor]) -> bool:
        """Whether the model also runs on batches of two and of three copies of the first row."""
        return all(self.runs([tensor[:1].expand(count, *tensor.shape[1:]) for tensor in inputs]) for count in (2, 3))

    def takes_as_one_sample(self, inputs: Sequence[Tensor]) -> bool:
        """Whether the model gives two outputs for two samples that are each all of these rows."""
        try:
            output = self.call.select(self([tensor.expand(2, *tensor.shape) for tensor in inputs]))
        except Exception:
            return False
        return isinstance(output, Tensor) and output.dim() > 0 and len(output) == 2


def _message(name: str, rows: Sequence[Tensor], plain: _Plain, error: Exception) -> str:
    explained, by_row = plain.split(rows)
    further = (f"{key}={_kind(tensor)}" if isinstance(key, str) else _kind(tensor) for key, tensor in by_row.items())
    given = ", ".join([*map(_kind, explained), *further])
    dtypes = sorted({str(parameter.dtype)[6:] for parameter in plain.model.parameters()})
    facts = [f"it was given {given}"]
    if dtypes:
        facts.append(f"its parameters are {' and '.join(dtypes)}")
    if isinstance(error, TypeError) and (signature := signature_of(plain.model)):
        facts.append(f"its forward takes {signature}")
    facts += _layer(plain.model, error)
    return f"the model does not run on {name} ({type(error).__name__}: {error}): {'; '.join(facts)}"


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype)[6:]} {list(tensor.shape)}"


def _layer(model: nn.Module, error: Exception) -> list[str]:
    """What the layer takes in which the model stopped; if that is not known, what the first layer takes of those for which it is."""
    names = {module: name or "the model" for name, module in model.named_modules()}
    running = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    inside = [module for module in running if isinstance(module, nn.Module) and module in names]
    if inside and (takes := _takes(inside[-1])):
        return [f"it stopped in {names[inside[-1]]} ({type(inside[-1]).__name__}), which takes {takes}"]
    for module, name in names.items():
        if takes := _takes(module):
            return [f"its first layer, {name} ({type(module).__name__}), takes {takes}"]
    return []


def _takes(module: nn.Module) -> str | None:
    return next((takes(module) for kinds, takes in _TAKES if isinstance(module, kinds)), None)


def _as_one_sample(name: str, rows: Sequence[Tensor], plain: _Plain) -> str:
    """The advice to give a single sample its batch dimension; empty where the model would not run then, either."""
    return f"; it runs on {name} as one sample of a batch: pass {name}[None]" if plain.takes_as_one_sample(rows) else ""


def _all_together(name: str, rows: Sequence[Tensor], plain: _Plain) -> str:
    """The advice for a model that runs on these rows only all together, so that they may be one sample; empty for other models."""
    if plain.takes_any_number_of(rows):
        return ""
    return _as_one_sample(name, rows, plain) or (
        f"; if {name} is one sample, such as a graph's nodes, explain a module around the model whose forward(self, x, **kwargs) returns "
        f"torch.stack([self.model(one, **kwargs) for one in x]), and pass {name}[None]"
    )
