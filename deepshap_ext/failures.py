"""Errors of the model's own: what it was run on, and what it would run on instead."""

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

#: What the layers that a model's inputs come to first take.
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
    """Around what runs the model on ``inputs()``, by the arguments' names: an error of its own says what it was run on.

    Whether an error that it raised is its own is tried: the plain model on the same rows, without capture. A missing dimension is looked
    for in the first argument alone, to whose shape the others are held.
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
    """Whether it was raised while a model ran, and not in what the user's functions make of its outputs or multipliers."""
    return any(frame.f_code is Call.__call__.__code__ for frame, _ in traceback.walk_tb(error.__traceback__))


def as_the_model_takes(model: nn.Module, call: Call, options: Options, inputs: Sequence[Tensor]) -> list[torch.dtype]:
    """The dtypes of ``inputs`` as the model takes them: integers are numbers of its dtype where it runs on these and not on integers."""
    plain = _Plain(model, call, options)
    explained, _ = plain.split(inputs)
    number = next(iter(dtypes_of(model)), torch.get_default_dtype())
    given = [tensor.dtype for tensor in inputs]
    if all(tensor.is_floating_point() for tensor in explained):
        return given
    # Torch looks nothing up for integers of one or two bytes, in which one-hot rows are stored: these may be numbers beside codes.
    for bytes_ in (0, 2, 8):
        taken = [dtype if dtype.is_floating_point or dtype.itemsize > bytes_ else number for dtype in given]
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
        """Whether it runs on batches of another size than these rows'."""
        return all(self.runs([tensor[:1].expand(count, *tensor.shape[1:]) for tensor in inputs]) for count in (2, 3))

    def takes_as_one_sample(self, inputs: Sequence[Tensor]) -> bool:
        """Whether it gives two samples, each all of these rows, an output each."""
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
    """The layer that it stopped in, or else the first of those that are known to take something."""
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
    """The advice to give one sample its batch dimension, where it works."""
    return f"; it runs on {name} as one sample of a batch: pass {name}[None]" if plain.takes_as_one_sample(rows) else ""


def _all_together(name: str, rows: Sequence[Tensor], plain: _Plain) -> str:
    """The advice for a model that takes the rows only all together: they may be one sample."""
    if plain.takes_any_number_of(rows):
        return ""
    return _as_one_sample(name, rows, plain) or (
        f"; if {name} is one sample, such as a graph's nodes, explain a module around the model whose forward(self, x, **kwargs) returns "
        f"torch.stack([self.model(one, **kwargs) for one in x]), and pass {name}[None]"
    )
