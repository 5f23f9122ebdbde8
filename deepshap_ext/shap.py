"""shap's DeepExplainer: an explainer that is made with a background and returns numpy arrays or a shap.Explanation."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from .additivity import Check
from .arguments import flag
from .arrays import as_array
from .attribution import Attribution
from .baselines import Baselines, check_weights, weighted
from .explainer import Explainer
from .inputs import Given, check_columns, check_rows, given_tensors, like
from .memory import within_memory
from .shap_explanation import beside, explanation_class, explanations, names_of_outputs, one_each
from .targets import ranked


class DeepExplainer(Explainer):
    """DeepSHAP values as shap's DeepExplainer gives them: an :class:`Explainer` that has the baselines from the beginning.

    Args:
        model: as :class:`Explainer` takes it.
        data: the background, baselines ``[R, *features]``, a tensor, a numpy array, a data frame or what ``shap.kmeans`` returns; a list
            of them for a model of several inputs. Floating-point numbers are converted to the dtype of the model's parameters, those of a
            later argument to the background's. Integers are codes or numbers, as for :class:`Explainer`.
        weights: positive weights of the background's rows, ``[R]``; None: all the same.
        sample_kwargs: keyword arguments with a row a sample, such as an attention mask: tensors ``[R, ...]`` here, for the background,
            and ``[N, ...]`` when explaining. They are not explained: a sample's rows hold for its baselines as well.
        options: all others of :class:`Explainer`.

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
        weights: Any = None,
        sample_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, **options)
        (given, self._listed), weights = weighted("data", data, weights)
        check_rows("data", given)
        tensors, device = self._inputs(given)
        self._columns = [one.columns for one in given]
        self._background = Baselines(
            [tensor.clone() for tensor in tensors], check_weights(weights, len(tensors[0])), False
        )
        further = self._engines.further((), sample_kwargs, self._background.number, device)
        self._rows = further.rows
        ran_on = [*self._background.tensors, *further.rows.values()]
        engine = self._engines.engine(further, ran_on, lambda: ran_on, lambda: {"data": ran_on})
        taken_as = engine.dtypes[: len(tensors)]
        #: For each input, the dtype that its integers are converted to, where the model takes them as numbers and not as codes; else None.
        self._counts = [None if one.dtype == dtype else dtype for one, dtype in zip(tensors, taken_as, strict=True)]
        self._background = self._background.to(taken_as)
        self._outputs = engine.output_shape or (1,)

    def __repr__(self) -> str:
        tensors, rows = self._background.tensors, f", sample_kwargs {list(self._rows)}" if self._rows else ""
        data = ", ".join(f"{str(tensor.dtype)[6:]} {list(tensor.shape)}" for tensor in tensors)
        return f"{super().__repr__()[:-1]}, background {data}{rows})"

    @property
    def expected_value(self) -> np.ndarray[Any, Any]:
        """Mean of the model's output over the background, one number an output (shap's attribute); computed anew at every access, for
        the model as it is now."""
        background = self._background
        data = list(background.tensors) if self._listed else background.tensors[0]
        rows = {str(name): row for name, row in self._rows.items()}
        return as_array(self.expected_output(data, weights=background.weights, sample_kwargs=rows))

    def shap_values(
        self,
        X: Any,
        ranked_outputs: int | None = None,
        output_rank_order: str = "max",
        check_additivity: Check = True,
        *,
        sample_kwargs: Mapping[str, Any] | None = None,
        passes: int = 1,
        players: Any = None,
        seed: int = 0,
        legs: int | None = None,
    ) -> Any:
        """DeepSHAP values as numpy arrays; signature, shapes and meanings are those of shap's DeepExplainer.

        Args:
            X: samples ``[N, *features]``, a tensor on any device, a numpy array or a data frame; a list of them for several inputs.
            ranked_outputs: explain only that many outputs a sample, those that rank first.
            output_rank_order: ``"max"``, ``"min"`` or ``"max_abs"``.
            check_additivity: what to do if the values do not add up: True, raise :class:`AdditivityError`; False, warn; ``"ignore"``,
                do not look.
            sample_kwargs: the samples' rows ``[N, ...]`` of the keyword arguments that the explainer was made with.
            passes, players, seed, legs: for values nearer to exact Shapley values, as :meth:`Explainer.attribute` takes them.

        Returns:
            ``[N, *features, outputs]``, a list of such arrays for several inputs and of these for several layers, ``[N, players,
            outputs]`` with ``players``; with ``ranked_outputs`` the pair of ``[N, *features, ranked_outputs]`` and the explained outputs'
            indices, a tensor ``[N, ranked_outputs]``.

        Raises:
            ValueError, TypeError, AdditivityError, ExplanationError: as :meth:`Explainer.attribute`.
        """
        target = ranked(ranked_outputs, output_rank_order)
        found = self.attribute(
            X,
            target,
            check_additivity=check_additivity,
            sample_kwargs=sample_kwargs,
            passes=passes,
            players=players,
            seed=seed,
            legs=legs,
        )
        values = _arrays(found.values)
        return values if found.target is None else (values, found.target.cpu())

    def __call__(
        self,
        X: Any,
        target: Any = None,
        feature_names: Any = None,
        output_names: Any = None,
        display_data: Any = None,
        *,
        channels_last: bool = False,
        sample_kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """A ``shap.Explanation``, which shap's plots take; a list of them for several inputs. Needs shap.

        Args:
            X: as :meth:`shap_values` takes it; the Explanation's ``data``. Of integers whose ``display_data`` are all words, such as token
                ids, the words are the ``data``, because shap.plots.text prints these.
            target: as :meth:`attribute` takes it. For one output, or one a sample, values are ``[N, *features]`` and base values ``[N]``,
                otherwise ``[N, *features, *outputs]`` and ``[N, *outputs]``.
            feature_names: a name for each of the first features; None: the columns of a data frame, X or else the background.
            output_names: a name for each of the model's outputs, of which the Explanation has those that are explained.
            display_data: what shap.plots.waterfall and others print in the place of X's numbers, an array or a data frame of X's shape.
            channels_last: whether dimension 1 of values and data, the channels of images, comes behind the other features, as
                shap.plots.image and captum's visualize_image_attr take it.
            sample_kwargs: as :meth:`shap_values` takes them.

        For several inputs ``feature_names`` and ``display_data`` are lists, with None for an input that has none. The values of
        ``(model, layer)`` are those of what the layer is given: they have neither, and no data.

        Raises:
            ImportError: shap is not installed.
            ValueError, TypeError, AdditivityError, ExplanationError: as :meth:`Explainer.attribute`.
        """
        explanation_class()
        flag("channels_last", channels_last)
        names = names_of_outputs(output_names, self._outputs)
        besides = []
        if not self._layers:
            self._given(X)  # checked before anything is computed; shown is X as it came
            given, listed = given_tensors("X", X)
            all_names = one_each("feature_names", feature_names, len(given), listed)
            displayed = one_each("display_data", display_data, len(given), listed)
            for one, columns, own, display in zip(given, self._columns, all_names, displayed, strict=True):
                besides.append(beside(one, one.columns or columns, own, display, channels_last))
        elif feature_names is not None or display_data is not None:
            raise ValueError(
                "feature_names and display_data must be None for a layer: they are X's, which it is not given"
            )
        found = self.attribute(X, target, sample_kwargs=sample_kwargs)
        return explanations(found, besides, names, channels_last)

    @within_memory("the explanation")
    def attribute(
        self,
        X: Any,
        target: Any = None,
        *,
        baselines: Any = None,
        weights: Any = None,
        sample_kwargs: Mapping[str, Any] | None = None,
        out: Any = None,
        **more: Any,
    ) -> Attribution:
        """DeepSHAP values as tensors on the model's device: :meth:`Explainer.attribute` with the background as baselines.

        Args:
            X, target, out: as :meth:`Explainer.attribute` takes them.
            baselines: others than the background.
            weights: those of these baselines; the background has its own.
            sample_kwargs: the samples' rows ``[N, ...]`` of the keyword arguments that the explainer was made with.
            more: further arguments of :meth:`Explainer.attribute`.
        """
        if out is not None:
            asked = {"baselines": baselines, "weights": weights, "sample_kwargs": sample_kwargs, **more}
            return self._into(out, X, target, **asked)
        if (sample_kwargs is None or isinstance(sample_kwargs, Mapping)) and set(sample_kwargs or ()) != set(
            self._rows
        ):
            raise ValueError(
                f"sample_kwargs must have the names that the explainer was made with, {list(self._rows)}, got {list(sample_kwargs or ())}"
            )
        if baselines is None:
            if weights is not None:
                raise ValueError("weights must be None without baselines: those of the background are the explainer's")
            weights = self._background.weights
            baselines = list(self._background.tensors) if self._listed else self._background.tensors[0]
        return super().attribute(X, target, baselines=baselines, weights=weights, sample_kwargs=sample_kwargs, **more)

    def iterate(
        self, X: Any, target: Any = None, *, baselines: Any = None, rows: int | None = None, **more: Any
    ) -> Iterator[tuple[slice, Attribution]]:
        """Samples' attributions, some at a time: :meth:`Explainer.iterate`, against the background unless ``baselines`` are given.

        ``X``, ``target``, ``rows``, ``more``: as that takes them.
        """
        return super().iterate(X, target, baselines=baselines, rows=rows, **more)

    def _given(self, X: Any) -> tuple[list[Given], bool]:
        """X in the background's dtypes, checked against it, and with the background's columns where X is no frame."""
        given, listed = given_tensors("X", X)
        if listed and not self._listed:
            raise TypeError("X must be a tensor or an array, as the background is, got a list")
        if self._listed and not listed:
            raise TypeError(
                f"X must be a list of {len(self._background.tensors)} inputs, as the background is, got {type(X).__name__}"
            )
        check_rows("X", given)
        tensors = like("X", self._numbers(given), self._background.tensors, ["samples"])
        check_columns("background", given, self._columns)
        each = zip(given, tensors, self._columns, strict=True)
        return [Given(one.label, tensor, False, one.columns or columns) for one, tensor, columns in each], listed

    def _numbers(self, given: Sequence[Given]) -> list[Given]:
        """The tensors of an argument, with integers as numbers where the background's integers are numbers."""
        return [
            replace(one, tensor=one.tensor.to(dtype)) if dtype and not one.tensor.is_floating_point() else one
            for one, dtype in itertools.zip_longest(given, self._counts[: len(given)])
        ]


def _arrays(values: Any) -> Any:
    """Numpy arrays of the tensors, in lists where these are in tuples."""
    return [_arrays(value) for value in values] if isinstance(values, tuple) else as_array(values)
