"""The public explainer: shap's DeepExplainer, and a native method for those who stay on tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .capture.hooks import Layer
from .engine import Choose, Engine, Explained
from .errors import additivity_error
from .inputs import as_tensors, check_like, check_rows, device_of, dtype_of
from .outputs import selector
from .pairs import Pairing
from .rules.registry import Options

#: The largest gap of additivity, relative to the largest output difference of the batch.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-2}

_RANK_ORDERS = ("max", "min", "max_abs")


@dataclass(frozen=True)
class Attribution:
    """Attributions of ``N`` samples, tensors on the model's device.

    ``values``: ``[N, *features]`` for one target a sample, ``[N, *features, *outputs]`` for all outputs; a tuple for several inputs.
    ``output`` and ``expected_value``: the explained outputs for the inputs and their mean over the baselines, ``[N]`` or
    ``[N, *outputs]``. ``convergence_delta``: how far the values are from adding up, ``sum(values) - (output - expected_value)``, of
    the same shape. ``standard_error``: of each value, over the baselines, shaped like ``values``; None unless asked for. Of a half or
    bfloat16 model all are float32.
    """

    values: Tensor | tuple[Tensor, ...]
    output: Tensor
    expected_value: Tensor
    convergence_delta: Tensor
    standard_error: Tensor | tuple[Tensor, ...] | None = None


class DeepExplainer:
    """DeepSHAP values of a PyTorch model (arXiv 1705.07874, section 4.2; DeepLIFT, arXiv 1704.02685).

    For each sample ``x`` and baselines ``r_j`` the values ``phi = mean_j m(x, r_j) * (x - r_j)`` add up to the difference between the
    model's output and its mean over the baselines; ``m`` are DeepLIFT's multipliers.

    Args:
        model: a ``torch.nn.Module``, called as ``model(*inputs)``; or ``(model, layer)`` to explain the tensors that ``layer``, a
            module inside the model, is given. Explained in eval mode and left exactly as it was.
        data: the background, baselines ``[R, *features]``; a list of them for a model of several inputs.
        at: whether ``(model, layer)`` explains the layer's ``"input"``, as shap does, or its ``"output"``.
        call: which of the layer's calls in a forward pass, from 0; None where there is only one.
        output: what to explain of the model's output: None for a tensor, ``logits`` or the only tensor there is; a key; a position;
            or a function from the model's output to a tensor ``[samples, ...]``.
        rules: the multipliers of maxima: ``"deeplift"`` routes a window's difference to the larger side's maximum, ``"shapley"``
            spreads it by the exact Shapley values of the window's entries, which is slower.
        softmax: ``"logmean"``, softmax's gradient at the logarithmic mean of the two sides; ``"rescale"``, each probability by its own
            logit alone, as shap does; ``"centered"``, for a model that ends in a softmax over its last dimension: explains the logits
            less their mean over the classes instead of the probabilities (DeepLIFT, section 3.6).
        on_unsupported: what to do with an operation that has no rule: ``"error"``; ``"gradient"``, use its gradient at the input, with a
            warning, though that does not add up; ``"integrate"``, average its gradient along the segment from baseline to input
            (Gauss-Legendre), which adds up where it is smooth.
        additivity_tolerance: how far values may be from adding up before that is an error, relative to the largest output difference
            in the batch; None: 1e-12 in float64, 1e-5 in float32, 1e-2 in half and bfloat16.
        max_memory: bytes that the passes may take; None: half of what is free on the model's device.
        progress: show a progress bar.

    Raises:
        ValueError, TypeError: an argument breaks its contract.
        ExplanationError: the model cannot be explained; its subclasses say why.
    """

    def __init__(
        self,
        model: nn.Module | tuple[nn.Module, nn.Module],
        data: Any,
        *,
        at: Literal["input", "output"] = "input",
        call: int | None = None,
        output: str | int | Callable[[Any], Tensor] | None = None,
        rules: Literal["deeplift", "shapley"] = "deeplift",
        softmax: Literal["logmean", "rescale", "centered"] = "logmean",
        on_unsupported: Literal["error", "gradient", "integrate"] = "error",
        additivity_tolerance: float | None = None,
        max_memory: int | None = None,
        progress: bool = False,
    ) -> None:
        self._model, self._layer = _model_and_layer(model, at, call)
        if additivity_tolerance is not None and not additivity_tolerance > 0:
            raise ValueError(f"additivity_tolerance must be positive, got {additivity_tolerance}")
        if max_memory is not None and not max_memory > 0:
            raise ValueError(f"max_memory must be a positive number of bytes, got {max_memory}")
        baselines, self._listed = as_tensors("data", data, dtype_of(self._model))
        check_rows("data", baselines, self._listed, integers=self._layer is not None)
        self._device = device_of(self._model, baselines)
        self._data = [tensor.to(self._device) for tensor in baselines]
        self._tolerance = additivity_tolerance
        self._progress = progress
        for name, value, choices in (
            ("rules", rules, ("deeplift", "shapley")),
            ("softmax", softmax, ("logmean", "rescale", "centered")),
            ("on_unsupported", on_unsupported, ("error", "gradient", "integrate")),
        ):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
        options = Options(rules, softmax, on_unsupported)
        self._engine = Engine(self._model, self._layer, selector(output), self._data, options, max_memory)

    @property
    def expected_value(self) -> np.ndarray[Any, Any]:
        """Mean of the model's output over the background, one number an output (shap's attribute)."""
        return _numpy(self._engine.expected.reshape(self._output_shape()))

    def shap_values(
        self, X: Any, ranked_outputs: int | None = None, output_rank_order: str = "max", check_additivity: bool = True
    ) -> Any:
        """DeepSHAP values as numpy arrays; signature, shapes and meanings are those of shap's DeepExplainer.

        Args:
            X: samples ``[N, *features]``, a tensor on any device or a numpy array; a list of them for several inputs.
            ranked_outputs: explain only that many outputs a sample, those that rank first.
            output_rank_order: ``"max"``, ``"min"`` or ``"max_abs"``.
            check_additivity: raise :class:`AdditivityError` if the values do not add up.

        Returns:
            ``[N, *features, outputs]``, a list of such arrays for several inputs; with ``ranked_outputs`` the pair of
            ``[N, *features, ranked_outputs]`` and the explained outputs' indices, a tensor ``[N, ranked_outputs]``.
        """
        inputs = self._check_inputs(X)
        explained = self._explain(inputs, self._ranked(ranked_outputs, output_rank_order), None, "grid")
        self._check_additivity(explained, raises=check_additivity)
        outputs = self._output_shape() if ranked_outputs is None else (explained.targets.shape[1],)
        values = [_numpy(_outputs_last(moments.mean, outputs)) for moments in explained.moments]
        result = values if self._listed or len(values) > 1 else values[0]
        return result if ranked_outputs is None else (result, explained.targets.cpu())

    def __call__(self, X: Any) -> Any:
        """A ``shap.Explanation`` of the samples with values, base values and data (a list of them for several inputs); needs shap."""
        try:
            from shap import Explanation
        except ImportError as error:
            raise ImportError(
                "DeepExplainer(...)(X) returns a shap.Explanation: pip install shap, or use shap_values(X)"
            ) from error
        values = self.shap_values(X)
        samples = len(values[0] if isinstance(values, list) else values)
        base = np.broadcast_to(self.expected_value, (samples, *self.expected_value.shape))
        if self._layer is not None:
            # The values are those of the layer's inputs, which X is not.
            data: list[Any] = [None] * len(values) if isinstance(values, list) else [None]
        else:
            data = [_numpy(x) if isinstance(x, Tensor) else np.asarray(x) for x in (X if self._listed else [X])]
        each = [
            Explanation(values=one, base_values=base, data=of)
            for one, of in zip(values if isinstance(values, list) else [values], data, strict=True)
        ]
        return each if isinstance(values, list) else each[0]

    def attribute(
        self,
        X: Any,
        target: Any = None,
        *,
        baselines: Any = None,
        pairing: str = "grid",
        standard_error: bool = False,
        check_additivity: bool = True,
    ) -> Attribution:
        """DeepSHAP values as tensors on the model's device.

        Args:
            X: samples ``[N, *features]``; a list or tuple of them for several inputs.
            target: None for every output; an int (a tuple of ints for outputs of several dimensions) for one; integers ``[N]`` for
                one a sample.
            baselines: each sample's own, ``[N, R, *features]``; None for the background.
            pairing: ``"grid"`` runs each input and each baseline forward once; ``"aligned"`` runs every pair forward, which is
                slower and gives the same values: a check on the model's layout.
            standard_error: also return the values' standard error over the baselines (needs two or more).
            check_additivity: raise :class:`AdditivityError` if the values do not add up.
        """
        inputs = self._check_inputs(X)
        if pairing not in ("grid", "aligned"):
            raise ValueError(f"pairing must be 'grid' or 'aligned', got {pairing!r}")
        own = None if baselines is None else self._check_baselines(baselines, len(inputs[0]))
        number = len(self._data[0]) if own is None else own[0].shape[1]
        if standard_error and number < 2:
            raise ValueError("standard_error=True needs two or more baselines, got 1")
        chosen, outputs = self._targets(target, len(inputs[0]))
        kind: Pairing = "per_sample" if own is not None and pairing == "grid" else pairing  # type: ignore[assignment]
        explained = self._explain(inputs, chosen, own, kind)
        self._check_additivity(explained, raises=check_additivity)
        values = [_outputs_last(moments.mean, outputs) for moments in explained.moments]
        error = [
            _outputs_last((moments.m2 / (number - 1) / number).sqrt(), outputs)
            for moments in explained.moments
            if standard_error
        ]
        one = len(values) == 1 and not self._listed
        difference = explained.outputs - explained.expected
        shape = (len(inputs[0]), *outputs)
        return Attribution(
            values=values[0] if one else tuple(values),
            output=explained.outputs.reshape(shape),
            expected_value=explained.expected.reshape(shape),
            convergence_delta=(_sums(explained).to(difference.dtype) - difference).reshape(shape),
            standard_error=None if not standard_error else error[0] if one else tuple(error),
        )

    def _explain(
        self, inputs: list[Tensor], choose: Choose, own: Sequence[Tensor] | None, pairing: Pairing
    ) -> Explained:
        return self._engine.explain(inputs, choose, own, pairing, self._progress)

    def _check_inputs(self, X: Any) -> list[Tensor]:
        tensors, listed = as_tensors("X", X, self._data_dtype())
        if listed and not self._listed:
            raise TypeError("X must be a tensor or an array, as the background is, got a list")
        if self._listed and not listed:
            raise TypeError(
                f"X must be a list of {len(self._data)} inputs, as the background is, got {type(X).__name__}"
            )
        check_like("X", tensors, self._data, listed)
        check_rows("X", tensors, listed, integers=self._layer is not None)
        return [tensor.to(self._device) for tensor in tensors]

    def _check_baselines(self, baselines: Any, samples: int) -> list[Tensor]:
        tensors, listed = as_tensors("baselines", baselines, self._data_dtype())
        if listed != self._listed:
            raise TypeError("baselines must be a list of tensors exactly where the background is one")
        check_like("baselines", tensors, self._data, listed, leading=2)
        check_rows("baselines", tensors, listed, integers=self._layer is not None)
        for tensor in tensors:
            if tensor.shape[0] != samples or tensor.shape[1] == 0:
                raise ValueError(
                    f"baselines must have shape [{samples}, baselines, ...] for {samples} samples, got {list(tensor.shape)}"
                )
        return [tensor.to(self._device) for tensor in tensors]

    def _data_dtype(self) -> torch.dtype:
        floating = [tensor.dtype for tensor in self._data if tensor.is_floating_point()]
        return floating[0] if floating else dtype_of(self._model)

    def _output_shape(self) -> tuple[int, ...]:
        """One sample's outputs; a model that returns one number a sample has one output, as in shap."""
        return tuple(self._engine.expected.shape) or (1,)

    def _ranked(self, ranked_outputs: int | None, order: str) -> Choose:
        if order not in _RANK_ORDERS:
            raise ValueError(f"output_rank_order must be one of {', '.join(map(repr, _RANK_ORDERS))}, got {order!r}")
        number = self._engine.expected.numel()
        if ranked_outputs is None:
            return lambda outputs, here: torch.arange(number, device=outputs.device).expand(len(outputs), -1)
        if isinstance(ranked_outputs, bool) or not isinstance(ranked_outputs, (int, np.integer)):
            raise TypeError(f"ranked_outputs must be None or an integer, got {ranked_outputs!r}")
        if not 1 <= ranked_outputs <= number:
            raise ValueError(
                f"ranked_outputs must be between 1 and the number of outputs, {number}, got {ranked_outputs}"
            )

        def choose(outputs: Tensor, here: slice) -> Tensor:
            ranking = outputs.abs() if order == "max_abs" else outputs
            return torch.sort(ranking, descending=order != "min").indices[:, :ranked_outputs]

        return choose

    def _targets(self, target: Any, samples: int) -> tuple[Choose, tuple[int, ...]]:
        """What to explain, and the shape that the explained outputs of a sample have."""
        shape = self._output_shape()
        if target is None:
            return self._ranked(None, "max"), shape
        if isinstance(target, (int, np.integer)) and not isinstance(target, bool):
            target = (int(target),)
        if isinstance(target, tuple) and len(target) == len(shape):
            flat = 0
            for index, size in zip(target, shape, strict=True):
                if not -size <= index < size:
                    raise ValueError(f"target must be an index into outputs of shape {list(shape)}, got {target}")
                flat = flat * size + index % size
            return lambda outputs, here: torch.full((len(outputs), 1), flat, device=outputs.device), ()
        try:
            indices = torch.as_tensor(target, device=self._device)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"target must be None, an integer, a tuple of integers or one integer a sample, got {target!r}"
            ) from None
        if indices.is_floating_point() or indices.dtype == torch.bool or indices.shape != (samples,) or len(shape) != 1:
            raise ValueError(
                f"target must be None, an index into outputs of shape {list(shape)}, or, where outputs have one dimension, {samples} "
                f"integers, one a sample; got {target!r}"
            )
        outside = (indices < 0) | (indices >= shape[0])
        if outside.any():
            row = int(outside.nonzero()[0])
            raise ValueError(f"target[{row}] must be between 0 and {shape[0] - 1}, got {int(indices[row])}")
        column = indices.to(torch.int64).unsqueeze(1)
        return lambda outputs, here: column[here], ()

    def _check_additivity(self, explained: Explained, raises: bool) -> None:
        """Raise or warn where values do not add up, and say where they cannot."""
        problems = [
            f"{title} takes different decisions for sample(s) {_listing(rows)} and for their baselines, and what these add to the output "
            f"belongs to no input"
            for title, rows in explained.inexact.items()
        ]
        if not explained.cut:
            warnings.warn(
                "something leads from the model's inputs past the explained layer to the output: the layer's attributions are right, but "
                "they are not all there is and do not add up to the output difference",
                stacklevel=3,
            )
        elif not problems:
            problems = self._gap(explained)
        if not problems:
            return
        message = "; ".join(problems)
        if raises:
            raise additivity_error(
                f"the attributions do not add up: {message}. check_additivity=False returns them all the same"
            )
        warnings.warn(f"the attributions do not add up: {message}", stacklevel=3)

    def _gap(self, explained: Explained) -> list[str]:
        """The largest gap of additivity, if it is beyond the tolerance."""
        # Of the least precise dtype: some float64 models compute parts in float32.
        dtype = self._engine.precision
        tolerance = TOLERANCES[dtype] if self._tolerance is None else self._tolerance
        outputs, expected = explained.outputs.double(), explained.expected.double()
        infinite = ~(outputs - expected).isfinite()
        if infinite.any():
            rows = set(infinite.any(1).nonzero()[:, 0].tolist())
            return [f"the model's output is not finite for sample(s) {_listing(rows)} or for the baselines"]
        gaps = (_sums(explained) - (outputs - expected)).abs()
        scale = float((outputs - expected).abs().max())
        # The model's own rounding of its outputs is no error of the attributions.
        rounding = 4 * torch.finfo(dtype).eps * float(torch.maximum(outputs.abs(), expected.abs()).max())
        worst = float(gaps.max())
        if worst <= tolerance * scale + rounding:
            return []
        sample, column = divmod(int(gaps.argmax()), gaps.shape[1])
        output, relative = int(explained.targets[sample, column]), worst / max(scale, 1e-300)
        return [
            f"sample {sample}, output {output} is off by {worst:.3g}, {relative:.3g} of the largest output difference {scale:.3g}, "
            f"where {tolerance:.3g} is allowed (additivity_tolerance=)"
        ]


def _model_and_layer(model: Any, at: Any, call: Any) -> tuple[nn.Module, Layer | None]:
    layer = None
    if isinstance(model, tuple):
        if len(model) != 2:
            raise TypeError(f"model must be a torch.nn.Module or the pair (model, layer), got a tuple of {len(model)}")
        model, layer = model
        if not isinstance(layer, nn.Module):
            raise TypeError(f"layer must be a torch.nn.Module inside the model, got {type(layer).__name__}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module or the pair (model, layer), got {type(model).__name__}")
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{'model' if not name else f'model.{name}'} is a TorchScript module, whose operations cannot be followed: explain the "
                f"module it was scripted or traced from"
            )
    if layer is not None and all(layer is not module for module in model.modules()):
        raise ValueError(
            f"layer must be a module inside the model, got a {type(layer).__name__} that is not in {type(model).__name__}"
        )
    if at not in ("input", "output"):
        raise ValueError(f"at must be one of 'input', 'output', got {at!r}")
    if call is not None and (isinstance(call, bool) or not isinstance(call, int) or call < 0):
        raise ValueError(f"call must be None or an integer from 0, got {call!r}")
    if layer is None and (at != "input" or call is not None):
        raise ValueError(
            f"at and call are about the layer of (model, layer), and there is none: got at={at!r}, call={call!r}"
        )
    return model, None if layer is None else Layer(layer, at, call)


def _sums(explained: Explained) -> Tensor:
    """``[N, K]``: each sample's values summed, in float64."""
    return (
        torch.stack(
            [moments.mean.double().reshape(*moments.mean.shape[:2], -1).sum(2) for moments in explained.moments]
        )
        .sum(0)
        .t()
    )


def _outputs_last(values: Tensor, outputs: tuple[int, ...]) -> Tensor:
    """``[N, *features, *outputs]`` from ``[K, N, *features]``."""
    last = values.movedim(0, -1)
    return last.reshape(*last.shape[:-1], *outputs)


def _numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _listing(rows: set[int]) -> str:
    shown = sorted(rows)
    return ", ".join(map(str, shown[:5])) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
