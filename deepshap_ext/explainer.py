"""The public explainer: shap's DeepExplainer, and a native method for those who stay on tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .additivity import Check, checked, gaps
from .additivity import check_additivity as check_that_they_add_up
from .arguments import bytes_or_none, flag, one_of, positive_or_none
from .capture.graph import Cut
from .capture.hooks import Call
from .engine import Engine, within_memory
from .explained import Explained
from .explanation import Explanation
from .failures import model_errors
from .inputs import (
    check_columns,
    check_rows,
    device_of,
    dtypes_of,
    in_the_models_dtype,
    like,
    taken,
)
from .keywords import check_kwargs, check_sample_kwargs, names_of_inputs
from .layers import model_and_layers
from .moments import Moments
from .outputs import selector
from .pairs import Pairing
from .rules.options import options
from .targets import Choose, ranked, targeted


@dataclass(frozen=True, repr=False)
class Attribution:
    """Attributions of ``N`` samples, tensors on the model's device.

    ``values``: ``[N, *features]`` for one target a sample, ``[N, *features, *outputs]`` for all outputs; a tuple for several inputs.
    ``output`` and ``expected_value``: the explained outputs for the inputs and their mean over the baselines, ``[N]`` or
    ``[N, *outputs]``. ``convergence_delta``: how far the values are from adding up, ``sum(values) - (output - expected_value)``, of
    the same shape. ``standard_error``: of each value, over the baselines, shaped like ``values``; None unless asked for. Of a half or
    bfloat16 model all are float32.

    For a list of layers ``values``, ``convergence_delta`` and ``standard_error`` are tuples, one item a layer. Layers that add up only
    together, such as two embeddings whose outputs are added, have the same ``convergence_delta``.
    """

    values: Any
    output: Tensor
    expected_value: Tensor
    convergence_delta: Any
    standard_error: Any = None

    def __repr__(self) -> str:
        return f"Attribution({', '.join(f'{name}={_shapes(value)}' for name, value in vars(self).items())})"


class DeepExplainer:
    """DeepSHAP values of a PyTorch model (arXiv 1705.07874, section 4.2; DeepLIFT, arXiv 1704.02685).

    For each sample ``x`` and baselines ``r_j`` the values ``phi = mean_j m(x, r_j) * (x - r_j)`` add up to the difference between the
    model's output and its mean over the baselines; ``m`` are DeepLIFT's multipliers.

    Args:
        model: a ``torch.nn.Module``, called as ``model(*inputs)``; or ``(model, layer)`` to explain the tensors that ``layer``, a
            module inside the model or its dotted name, is given, or ``(model, [layer, ...])`` for several at once. Explained in eval
            mode and left exactly as it was.
        data: the background, baselines ``[R, *features]``, a tensor, a numpy array or a data frame; a list of them for a model of
            several inputs. Floating-point numbers are converted to the dtype of the model's parameters, those of a later argument to
            the background's. Integers are codes that the model looks up: each has the value of what was looked up for it.
        at: whether ``(model, layer)`` explains the layer's ``"input"``, as shap does, or its ``"output"``; for several layers one for
            all or a list, one a layer.
        call: which of the layer's calls in a forward pass, from 0; None where there is only one. For several layers likewise.
        kwargs: keyword arguments that the model is called with, the same for all samples.
        sample_kwargs: keyword arguments with a row a sample, such as an attention mask: tensors ``[R, ...]`` here, for the background,
            and ``[N, ...]`` when explaining. They are not explained: a sample's rows hold for its baselines as well.
        output: what to explain of the model's output: None for a tensor, ``logits`` or the only tensor there is; a key; a position;
            or a function from the model's output to a tensor ``[samples, ...]``.
        rules: the multipliers of maxima: ``"deeplift"`` routes a window's difference to the larger side's maximum, ``"shapley"``
            spreads it by the exact Shapley values of the window's entries, which is slower. Or a mapping of functions and classes to
            rules for this explainer alone, both as :func:`register_rule` takes them, with the multipliers of maxima under ``"maxima"``:
            ``{nn.SiLU: my_rule, torch.erf: "integrate", MyAct: "rescale", "maxima": "shapley"}``.
        softmax: ``"logmean"``, softmax's gradient at the logarithmic mean of the two sides; ``"rescale"``, each probability by its own
            logit alone, as shap does; ``"centered"``, for a model that ends in a softmax: explains the logits
            less their mean over the classes instead of the probabilities (DeepLIFT, section 3.6).
        on_unsupported: what to do with an operation that has no rule: ``"error"``; ``"gradient"``, use its gradient at the input, with a
            warning, though that does not add up; ``"integrate"``, average its gradient along the segment from baseline to input
            (adaptive Gauss-Kronrod quadrature), which adds up where it is continuous. A hand-written ``autograd.Function`` is taken apart
            into the operations of its forward; only where one of these has no rule is it such an operation itself, with its own backward.
        additivity_tolerance: how far a sample's values may be from adding up to an output's difference, relative to that difference,
            before that is an error; None: by the least precise dtype of the explained tensors and the output 1e-12 in float64, 1e-5 in
            float32, 1e-2 in half and bfloat16, and in float32 on a GPU while torch may compute products in TF32 (``torch.backends``),
            as it does for convolutions by default. What the passes round is allowed on top of it: where a gap is larger, the sample
            runs once more to estimate that, against at most four of its baselines.
        max_memory: bytes that the passes may take, beside the result and a few numbers a sample and output; on the CPU with what the heap
            takes up around them (glibc's). None: half of what is free on the model's device.
        progress: show a progress bar.

    Raises:
        ValueError, TypeError: an argument breaks its contract.
        ExplanationError: the model cannot be explained, its subclasses say why; or it does not run on what it is given, and what it
            raised is the cause.
    """

    @within_memory("the explainer")
    def __init__(
        self,
        model: nn.Module | tuple[nn.Module, nn.Module | str | Sequence[nn.Module | str]],
        data: Any,
        *,
        at: Literal["input", "output"] | Sequence[Literal["input", "output"]] = "input",
        call: int | Sequence[int | None] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        sample_kwargs: Mapping[str, Any] | None = None,
        output: str | int | Callable[[Any], Tensor] | None = None,
        rules: Literal["deeplift", "shapley"] | Mapping[Any, Any] = "deeplift",
        softmax: Literal["logmean", "rescale", "centered"] = "logmean",
        on_unsupported: Literal["error", "gradient", "integrate"] = "error",
        additivity_tolerance: float | None = None,
        max_memory: int | None = None,
        progress: bool = False,
    ) -> None:
        self._model, self._layers, self._several_layers = model_and_layers(model, at, call)
        self._tolerance = positive_or_none("additivity_tolerance", additivity_tolerance)
        max_memory = bytes_or_none("max_memory", max_memory)
        flag("progress", progress)
        self._progress = progress
        self._options = options(rules, softmax, on_unsupported)
        given, self._listed = taken("data", data)
        check_rows("data", given)
        self._columns = [one.columns for one in given]
        self._dtypes = dtypes_of(self._model)
        self._device = device_of(self._model, given)
        self._data = [tensor.to(self._device, copy=True) for tensor in in_the_models_dtype(given, self._dtypes)]
        constants = check_kwargs(kwargs, sample_kwargs, self._device)
        self._by_row = tuple(sample_kwargs or ())
        rows = self._check_sample_kwargs(sample_kwargs, len(self._data[0]))
        names = names_of_inputs(self._model, len(given), [*constants, *self._by_row])
        self._call = Call(self._layers, selector(output), constants, self._by_row, names)
        with model_errors(self._model, self._call, self._options, lambda: {"data": [*self._data, *rows]}):
            self._engine = Engine(self._model, self._call, [*self._data, *rows], self._options, max_memory)

    def __repr__(self) -> str:
        data = ", ".join(f"{str(tensor.dtype)[6:]} {list(tensor.shape)}" for tensor in self._data)
        names = {module: name or "the model" for name, module in self._model.named_modules()}
        layers = "".join(f", layer {names[layer.module]!r} at its {layer.at}" for layer in self._layers)
        by_row = f", sample_kwargs {list(self._by_row)}" if self._by_row else ""
        return f"DeepExplainer({type(self._model).__name__}{layers}, background {data}{by_row}, {self._options})"

    @property
    @within_memory("the expected value")
    def expected_value(self) -> np.ndarray[Any, Any]:
        """Mean of the model's output over the background, one number an output (shap's attribute); computed anew at every access, for
        the model as it is now."""
        return _numpy(self._engine.expected().reshape(self._output_shape()))

    @within_memory("the explanation")
    def shap_values(
        self,
        X: Any,
        ranked_outputs: int | None = None,
        output_rank_order: str = "max",
        check_additivity: Check = True,
        *,
        sample_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """DeepSHAP values as numpy arrays; signature, shapes and meanings are those of shap's DeepExplainer.

        Args:
            X: samples ``[N, *features]``, a tensor on any device, a numpy array or a data frame; a list of them for several inputs.
            ranked_outputs: explain only that many outputs a sample, those that rank first.
            output_rank_order: ``"max"``, ``"min"`` or ``"max_abs"``.
            check_additivity: what to do if the values do not add up: True, raise :class:`AdditivityError`; False, warn; ``"ignore"``,
                do not look.
            sample_kwargs: the samples' rows ``[N, ...]`` of the keyword arguments that the explainer was made with.

        Returns:
            ``[N, *features, outputs]``, a list of such arrays for several inputs and of these for several layers; with
            ``ranked_outputs`` the pair of ``[N, *features, ranked_outputs]`` and the explained outputs' indices, a tensor
            ``[N, ranked_outputs]``.
        """
        check = checked(check_additivity)
        inputs = self._check_inputs(X)
        choose = ranked(math.prod(self._output_shape()), ranked_outputs, output_rank_order)
        explained = self._explain(inputs, choose, None, "grid", sample_kwargs, False, check)
        outputs = self._output_shape() if ranked_outputs is None else (explained.targets.shape[1],)
        result = self._by_layer(explained, lambda moments: _numpy(_outputs_last(moments.mean, outputs)), list)
        return result if ranked_outputs is None else (result, explained.targets.cpu())

    def __call__(self, X: Any, target: Any = None, *, sample_kwargs: Mapping[str, Any] | None = None) -> Any:
        """A ``shap.Explanation`` of the samples with values, base values and data (a list of them for several inputs); needs shap.

        ``target``: as :meth:`attribute` takes it. Of one target a sample, values are ``[N, *features]``, which shap's plots take; of all
        outputs ``[N, *features, outputs]``, of a single output too, as in shap: take ``[..., 0]`` of the Explanation, or
        ``target=0``. The columns of a data frame, X or else the background, become the feature names.
        """
        try:
            from shap import Explanation
        except ImportError as error:
            raise ImportError(
                "DeepExplainer(...)(X) returns a shap.Explanation: pip install shap, or use shap_values(X)"
            ) from error
        found = self.attribute(X, target, sample_kwargs=sample_kwargs)
        values, base = _flat(found.values), _numpy(found.expected_value)
        if self._layers:
            # The values are those of the layer's inputs, which X is not.
            described: list[tuple[Any, Any]] = [(None, None)] * len(values)
        else:
            described = [
                (_numpy(one.tensor), one.columns or columns)
                for one, columns in zip(taken("X", X)[0], self._columns, strict=True)
            ]
        explanations = [
            Explanation(values=_numpy(one), base_values=base, data=data, feature_names=names)
            for one, (data, names) in zip(values, described, strict=True)
        ]
        return explanations if isinstance(found.values, tuple) else explanations[0]

    @within_memory("the explanation")
    def attribute(
        self,
        X: Any,
        target: Any = None,
        *,
        baselines: Any = None,
        pairing: str = "grid",
        standard_error: bool = False,
        check_additivity: Check = True,
        sample_kwargs: Mapping[str, Any] | None = None,
    ) -> Attribution:
        """DeepSHAP values as tensors on the model's device.

        Args:
            X: samples ``[N, *features]``; a list or tuple of them for several inputs.
            target: None for every output. An int for one output, a tuple of ints where outputs have several dimensions. For one a
                sample, integers ``[N]`` as a list, an array or a tensor, or a list of ``N`` tuples. For ``K`` a sample integers
                ``[N, K]``, with values ``[N, *features, K]``. Negative ones count from the end.
            baselines: each sample's own, ``[N, R, *features]``; None for the background.
            pairing: ``"grid"`` runs each input and each baseline forward once; ``"aligned"`` runs every pair forward, which is
                slower and gives the same values: a check on the model's layout.
            standard_error: also return the values' standard error over the baselines (needs two or more).
            check_additivity: what to do if the values do not add up: True, raise :class:`AdditivityError`; False, warn; ``"ignore"``,
                do not look.
            sample_kwargs: the samples' rows ``[N, ...]`` of the keyword arguments that the explainer was made with. Every sample's
                baselines then run with its rows, which costs a forward pass over all pairs.
        """
        one_of("pairing", pairing, ("grid", "aligned"))
        flag("standard_error", standard_error)
        check = checked(check_additivity)
        inputs = self._check_inputs(X)
        own = None if baselines is None else self._check_baselines(baselines, len(inputs[0]))
        number = len(self._data[0]) if own is None else own[0].shape[1]
        if standard_error and number < 2:
            raise ValueError("standard_error=True needs two or more baselines, got 1")
        chosen, outputs = targeted(self._output_shape(), target, len(inputs[0]), self._device)
        explained = self._explain(inputs, chosen, own, pairing, sample_kwargs, standard_error, check)

        def error(moments: Moments) -> Tensor:
            assert moments.m2 is not None
            return _outputs_last((moments.m2 / (number - 1) / number).sqrt(), outputs)

        shape = (len(inputs[0]), *outputs)
        difference = explained.outputs - explained.expected
        deltas: list[Tensor] = [difference] * len(explained.layers)
        for cut in explained.cuts:
            for layer in cut.layers:
                deltas[layer] = gaps(explained, cut).to(difference.dtype).reshape(shape)
        return Attribution(
            values=self._by_layer(explained, lambda moments: _outputs_last(moments.mean, outputs), tuple),
            output=explained.outputs.reshape(shape),
            expected_value=explained.expected.reshape(shape),
            convergence_delta=tuple(deltas) if self._several_layers else deltas[0],
            standard_error=self._by_layer(explained, error, tuple) if standard_error else None,
        )

    def _explain(
        self,
        inputs: list[Tensor],
        choose: Choose,
        own: Sequence[Tensor] | None,
        pairing: str,
        sample_kwargs: Mapping[str, Any] | None,
        spread: bool,
        check: Check,
    ) -> Explained:
        """The inputs explained, and ``check`` whether the values add up."""
        samples = len(inputs[0])
        rows = self._check_sample_kwargs(sample_kwargs, samples)
        if rows:
            # A sample and its baselines have the same keyword arguments: the baselines are its own.
            own = [tensor.expand(samples, *tensor.shape) for tensor in self._data] if own is None else own
            own = [*own, *(row.unsqueeze(1).expand(-1, own[0].shape[1], *row.shape[1:]) for row in rows)]
        kind: Pairing = "per_sample" if own is not None and pairing == "grid" else pairing  # type: ignore[assignment]
        explanation = Explanation(self._engine, [*inputs, *rows], choose, own, kind, spread, self._progress)
        with model_errors(self._model, self._call, self._options, lambda: _rows([*inputs, *rows], own)):
            explained = explanation.run()

        def rounding(samples: Tensor, wanted: Tensor, cut: Cut) -> Tensor:
            return explanation.rounding(samples, explained.targets[samples], wanted, cut.layers)

        layers = len(self._layers) if self._several_layers or not self._layers else None
        check_that_they_add_up(explained, check, self._tolerance, layers, rounding)
        return explained

    def _by_layer(self, explained: Explained, what: Callable[[Moments], Any], several: Callable[..., Any]) -> Any:
        """``what`` of every explained tensor, in the collection ``several`` where a layer has several, and again for several layers."""
        found = []
        for layer in explained.layers:
            values = [what(moments) for moments in explained.moments[layer]]
            found.append(values[0] if len(values) == 1 and not self._listed else several(values))
        return several(found) if self._several_layers else found[0]

    def _check_inputs(self, X: Any) -> list[Tensor]:
        given, listed = taken("X", X)
        if listed and not self._listed:
            raise TypeError("X must be a tensor or an array, as the background is, got a list")
        if self._listed and not listed:
            raise TypeError(
                f"X must be a list of {len(self._data)} inputs, as the background is, got {type(X).__name__}"
            )
        check_rows("X", given)
        tensors = like("X", given, self._data, ["samples"])
        check_columns(given, self._columns)
        return [tensor.to(self._device) for tensor in tensors]

    def _check_baselines(self, baselines: Any, samples: int) -> list[Tensor]:
        given, listed = taken("baselines", baselines)
        if listed != self._listed:
            raise TypeError("baselines must be a list of tensors exactly where the background is one")
        check_rows("baselines", given)
        tensors = like("baselines", given, self._data, ["samples", "baselines"])
        for tensor in tensors:
            if tensor.shape[0] != samples or tensor.shape[1] == 0:
                raise ValueError(
                    f"baselines must have shape [{samples}, baselines, ...] for {samples} samples, got {list(tensor.shape)}"
                )
        return [tensor.to(self._device) for tensor in tensors]

    def _check_sample_kwargs(self, values: Any, samples: int) -> list[Tensor]:
        dtype = self._dtypes[0] if self._dtypes else torch.get_default_dtype()
        return check_sample_kwargs(values, self._by_row, samples, dtype, self._device)

    def _output_shape(self) -> tuple[int, ...]:
        """One sample's outputs; a model that returns one number a sample has one output, as in shap."""
        return self._engine.output_shape or (1,)


def _shapes(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shapes, value))}{',' if len(value) == 1 else ''})"
    return f"{str(value.dtype)[6:]} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _flat(values: Any) -> list[Any]:
    return [one for value in values for one in _flat(value)] if isinstance(values, tuple) else [values]


def _rows(inputs: Sequence[Tensor], own: Sequence[Tensor] | None) -> dict[str, Sequence[Tensor]]:
    """What the model is run on, by the arguments that it comes from."""
    return {"X": inputs} | ({} if own is None else {"baselines": [tensor.flatten(0, 1) for tensor in own]})


def _outputs_last(values: Tensor, outputs: tuple[int, ...]) -> Tensor:
    """``[N, *features, *outputs]`` from ``[K, N, *features]``."""
    last = values.movedim(0, -1)
    return last.reshape(*last.shape[:-1], *outputs)


def _numpy(tensor: Tensor) -> np.ndarray[Any, Any]:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
