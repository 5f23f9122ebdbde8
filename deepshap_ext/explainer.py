"""The native explainer: tensors in, attributions out, baselines given with every call."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .additivity import Balance, Check, check_choice, check_sums
from .arguments import bytes_or_none, flag, one_of, positive_or_none, size_or_none
from .attribution import Attribution, attribution
from .baselines import Baselines, check_baselines, check_weights, examples, weighted
from .combination import Combination
from .dial import check_dial
from .engines import Engines
from .estimates import dialled
from .explanation import Explanation
from .failures import model_errors
from .found import Wanted, check_codes, check_wanted
from .inputs import Given, check_rows, device_and_dtypes, given_tensors, in_the_models_dtype
from .keywords import check_kwargs
from .layers import model_and_layers
from .memory import within_memory
from .outputs import selector
from .replay import replay_of
from .rounding import Rounding
from .rules.options import options
from .structure import Structure
from .targets import targeted

#: How many rows of inputs and of baselines a model is probed with, at most.
_EXAMPLES = 64


class Explainer:
    """DeepSHAP values of a PyTorch model (arXiv 1705.07874, section 4.2; DeepLIFT, arXiv 1704.02685).

    For each sample ``x`` and baselines ``r_j`` the values ``phi = mean_j m(x, r_j) * (x - r_j)`` add up to the difference between the
    model's output and its mean over the baselines; ``m`` are DeepLIFT's multipliers.

    Args:
        model: a ``torch.nn.Module``, called as ``model(*inputs)``; or ``(model, layer)`` to explain the tensors that ``layer``, a
            module inside the model or its dotted name, is given, or ``(model, [layer, ...])`` for several at once, the model itself
            among them for its own inputs. Explained in eval mode and left exactly as it was.
        at: whether ``(model, layer)`` explains the layer's ``"input"``, as shap does, or its ``"output"``; for several layers one for
            all or a list, one a layer.
        call: which of the layer's calls in a forward pass, from 0; None where there is only one. For several layers likewise.
        kwargs: keyword arguments that the model is called with, the same for all samples.
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
        batch_size: how many pairs of an input and a baseline, and rows of a forward pass, may be computed at once; None: as many as fit
            into ``max_memory``.
        progress: show a progress bar.
        compile: ``"replay"``: what a chunk of an explanation runs is traced once and replayed from then on, without Python's part in it,
            which is most of a small model's time; True: and compiled with ``torch.compile``. What cannot be replayed runs as with False,
            with a warning that says why. See docs/replay.md.

    Raises:
        ValueError, TypeError: an argument breaks its contract.
        ExplanationError: when explaining; the model cannot be explained, its subclasses say why; or it does not run on what it is given,
            and what it raised is the cause.
    """

    def __init__(
        self,
        model: nn.Module | tuple[nn.Module, nn.Module | str | Sequence[nn.Module | str]],
        *,
        at: Literal["input", "output"] | Sequence[Literal["input", "output"]] = "input",
        call: int | Sequence[int | None] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        output: str | int | Callable[[Any], Tensor] | None = None,
        rules: Literal["deeplift", "shapley"] | Mapping[Any, Any] = "deeplift",
        softmax: Literal["logmean", "rescale", "centered"] = "logmean",
        on_unsupported: Literal["error", "gradient", "integrate"] = "error",
        additivity_tolerance: float | None = None,
        max_memory: int | None = None,
        batch_size: int | None = None,
        progress: bool = False,
        compile: bool | Literal["replay"] = False,
    ) -> None:
        self._model, self._layers, self._several_layers = model_and_layers(model, at, call)
        self._tolerance = positive_or_none("additivity_tolerance", additivity_tolerance)
        self._max_memory = bytes_or_none("max_memory", max_memory)
        self._batch_size = size_or_none("batch_size", batch_size)
        flag("progress", progress)
        self._progress = progress
        self._options = options(rules, softmax, on_unsupported)
        self._select = selector(output)
        self._constants = check_kwargs(kwargs)
        self._engines = Engines(
            self._model,
            self._layers,
            self._select,
            self._constants,
            self._options,
            self._max_memory,
            self._batch_size,
        )
        self._replay = replay_of(compile)

    def __repr__(self) -> str:
        names = {module: name or "the model" for name, module in self._model.named_modules()}
        layers = "".join(f", layer {names[layer.module]!r} at its {layer.at}" for layer in self._layers)
        return f"{type(self).__name__}({type(self._model).__name__}{layers}, {self._options})"

    @within_memory("the explanation")
    def attribute(
        self,
        X: Any,
        target: Any = None,
        *,
        baselines: Any,
        weights: Any = None,
        args: Sequence[Any] = (),
        sample_kwargs: Mapping[str, Any] | None = None,
        pairing: Literal["grid", "aligned"] = "grid",
        standard_error: bool = False,
        multipliers: bool = False,
        combine: Callable[[Any, Any, Any], Any] | None = None,
        per_baseline: bool = False,
        activations: bool = False,
        check_additivity: Check = True,
        passes: int = 1,
        players: Any = None,
        seed: int = 0,
        legs: int | None = None,
        out: Any = None,
    ) -> Attribution:
        """DeepSHAP values as tensors on the model's device; with more ``passes``, values nearer to exact Shapley values.

        Args:
            X: samples ``[N, *features]``, a tensor, a numpy array or a data frame; a list or tuple of them for several inputs.
                Floating-point numbers are converted to the dtype of the model's parameters. Integers are codes where the model looks
                them up, each with the value of what was looked up for it; where it does not run on integers they are numbers too.
            target: None for every output. An int for one output, a tuple of ints where outputs have several dimensions; last ones of size 1
                may be left out. For one a sample, integers ``[N]`` as a list, array, tensor or column, or a list of ``N`` tuples. For ``K``
                a sample integers ``[N, K]``, with values ``[N, *features, K]``. Negative ones count from the end. Or a function from some
                samples' outputs ``[n, *outputs]`` to integers ``[n]`` or ``[n, K]``, positions in the flattened outputs:
                ``lambda outputs: outputs.argmax(1)`` explains the predicted class.
            baselines: like X, ``[R, *features]`` that all samples share, or each sample's own, ``[N, R, *features]``; or what
                ``shap.kmeans`` returns.
            weights: positive weights of the baselines, ``[R]``, in means over them; None: all the same. Standard errors take the number of
                baselines to be ``(sum w)^2 / sum w^2``, so many of equal weight.
            args: the model's positional arguments behind its inputs. A tensor or an array has a row a sample, ``[N, ...]``, which holds
                for its baselines as well; anything else is the same for all samples. They are not explained.
            sample_kwargs: keyword arguments with a row a sample, such as an attention mask, tensors ``[N, ...]``, likewise. A sample's
                baselines then run with its rows, which costs a forward pass over all pairs.
            pairing: ``"grid"`` runs each input and each baseline forward once; ``"aligned"`` runs every pair forward, which is
                slower and gives the same values: a check on the model's layout.
            standard_error: also return the values' standard error over the baselines (needs two or more).
            multipliers: also return the multipliers, averaged over the baselines; not those of integers.
            combine: what to average over the baselines in place of the contributions: a function of multipliers, inputs and baselines,
                each ``[pairs, *features]`` (for several inputs tuples, and for a list of layers tuples of what each layer has), that
                returns ``[pairs, ...]`` likewise. It is given some of the pairs at a time. Whether the contributions add up is checked
                all the same.
            per_baseline: return values for every single baseline, ``[N, R, *features]``, instead of their means.
            activations: also return the explained tensors of inputs and baselines; of layers, that is their activations.
            check_additivity: what to do if the values do not add up: True, raise :class:`AdditivityError`; False, warn; ``"ignore"``,
                do not look.
            passes: how many passes of DeepSHAP each sample and baseline may cost. With 4 or more the values are nearer to the exact
                Shapley values, and exact where all coalitions of the players that differ are no more than three a pass. Standard errors
                are then those of the distance to the exact values for these baselines. See docs/guides/accuracy.md.
            players: which features are one player, in a coalition together or not at all: integers from 0 on, of the features' shape, or
                of X's for players of each sample; for several inputs a list. Values are then those of the players, ``[N, players]``,
                also of several inputs. :mod:`deepshap_ext.players` makes them of patches, words and columns. None: each feature is one.
            seed: of the random orders of players that ``passes`` draws; a sample has the same orders in any batch.
            legs: into how many blocks an order is cut, at most half of the ``passes``; None: the number that is best for these passes.
            out: where to write the values, some samples at a time: a numpy array, a memory map, a tensor or whatever else takes slices, of
                the values' shape; for several inputs a list of them. X may then be anything that :meth:`iterate` takes.

        Returns:
            An :class:`Attribution`, which has the shapes.

        Raises:
            ValueError, TypeError: an argument breaks its contract.
            AdditivityError: values do not add up, where ``check_additivity`` is True.
            ExplanationError: the model cannot be explained, its subclasses say why; or it does not run on X or on the baselines.
        """
        if out is not None:
            return self._into(
                out,
                X,
                target,
                baselines=baselines,
                weights=weights,
                args=args,
                sample_kwargs=sample_kwargs,
                pairing=pairing,
                standard_error=standard_error,
                multipliers=multipliers,
                combine=combine,
                per_baseline=per_baseline,
                activations=activations,
                check_additivity=check_additivity,
                passes=passes,
                players=players,
                seed=seed,
                legs=legs,
            )
        one_of("pairing", pairing, ("grid", "aligned"))
        check = check_choice(check_additivity)
        given, listed = self._given(X)
        inputs, device = self._inputs(given)
        samples, features = inputs[0].shape[0], len(inputs)
        (given_baselines, baselines_listed), weights = weighted("baselines", baselines, weights)
        if baselines_listed != listed:
            raise TypeError("baselines must be a list of tensors exactly where X is one")
        columns = [one.columns for one in given]
        compared = check_baselines(self._numbers(given_baselines), weights, inputs, columns, device)
        structure = Structure(listed, self._several_layers)
        dial = check_dial(passes, players, seed, legs, inputs, listed)
        combination = None if combine is None else Combination(combine, structure)
        wanted = Wanted(standard_error, multipliers, combination, per_baseline, activations)
        wanted = dial.wanted(wanted, self._layers, compared.number)
        check_wanted(wanted, compared.number)
        further = self._engines.further(args, sample_kwargs, samples, device)
        compared = compared.with_rows(list(further.rows.values()))
        inputs = [*inputs, *further.rows.values()]

        def run_on() -> dict[str, Sequence[Tensor]]:
            return {"X": inputs, "baselines": compared.in_a_row()}

        engine = self._engines.engine(further, inputs, lambda: examples(compared, inputs, _EXAMPLES), run_on)
        inputs = [tensor.to(dtype) for tensor, dtype in zip(inputs, engine.dtypes, strict=True)]
        compared = compared.to(engine.dtypes)
        check_codes(wanted, engine.call.explained(inputs) if engine.call.explains_inputs_of(self._model) else [])
        choose, outputs = targeted(engine.output_shape or (1,), target, samples, device)
        explanation = Explanation(
            engine,
            inputs,
            compared,
            choose,
            outputs=math.prod(outputs),
            pairing="per_sample" if compared.own and pairing == "grid" else pairing,
            wanted=wanted,
            progress=self._progress,
            replay=self._replay,
        )
        with model_errors(self._model, engine.call, self._options, run_on):
            explained = explanation.run()
        layers = len(self._layers) if self._several_layers or not self._layers else None
        rounding = Rounding(engine, inputs, compared)
        balance = Balance(explained)
        check_sums(balance, check, self._tolerance, layers, rounding)
        degrees_of_freedom = compared.degrees_of_freedom if standard_error else None
        if not dial.plain:
            with model_errors(self._model, engine.call, self._options, run_on):
                game = dial.game(inputs, features, compared)
                explained, unbiased = dialled(dial, engine, game, explained, self._progress)
            check_sums(Balance(unbiased), check, self._tolerance, layers, rounding)
            balance = Balance(explained)
            structure = Structure(listed and players is None)
            # These variances are squared standard errors already.
            degrees_of_freedom = 1.0 if standard_error else None
        return attribution(balance, structure, degrees_of_freedom, outputs, target is None)

    def iterate(
        self, X: Any, target: Any = None, *, baselines: Any, rows: int | None = None, **more: Any
    ) -> Iterator[tuple[slice, Attribution]]:
        """Samples' attributions, some at a time: pairs of a slice of X's rows and their :class:`Attribution`, in their order.

        Args:
            X: as :meth:`attribute` takes it, or an h5py dataset, a zarr array or whatever else has a shape and slices; for several inputs a
                list of such; or a torch ``Dataset`` of tensors, or of tuples of them. It is read as it is explained.
            target: as :meth:`attribute` takes it.
            baselines: likewise; each sample's own may be anything with slices, or a function of samples and their seeds, as
                :func:`deepshap_ext.scale.explain_to` takes it.
            rows: how many samples at a time; None: as many as take 64 MiB with their own baselines.
            more: further arguments of :meth:`attribute`, and ``seed`` of :func:`deepshap_ext.scale.explain_to`.

        Raises:
            ValueError, TypeError, ExplanationError: as :meth:`attribute`, when the rows that they are about are reached; the message
                begins with these.
        """
        from .scale.job import Job

        return Job(self, X, target, baselines=baselines, **more).parts(rows)

    @within_memory("the expected value")
    def expected_output(
        self,
        baselines: Any,
        *,
        weights: Any = None,
        args: Sequence[Any] = (),
        sample_kwargs: Mapping[str, Any] | None = None,
    ) -> Tensor:
        """Mean of the model's output over baselines, for the model as it is now.

        Args:
            baselines: ``[R, *features]``, as :meth:`attribute` takes them.
            weights: of the baselines, ``[R]``.
            args, sample_kwargs: as :meth:`attribute` takes them, with a row a baseline.

        Returns:
            ``[*outputs]``, one number an output, on the model's device.

        Raises:
            ValueError, TypeError: an argument breaks its contract.
            ExplanationError: the model cannot be explained, or its output for the baselines is not finite.
        """
        (given, _), weights = weighted("baselines", baselines, weights)
        check_rows("baselines", given)
        inputs, device = self._inputs(given)
        number = inputs[0].shape[0]
        further = self._engines.further(args, sample_kwargs, number, device)
        shared = Baselines([*inputs, *further.rows.values()], check_weights(weights, number), False)

        def run_on() -> dict[str, Sequence[Tensor]]:
            return {"baselines": shared.tensors}

        engine = self._engines.engine(further, shared.tensors, lambda: shared.tensors, run_on)
        with model_errors(self._model, engine.call, self._options, run_on):
            return engine.expected(shared.to(engine.dtypes)).reshape(engine.output_shape or (1,))

    def _with_memory(self, max_memory: int | None) -> Explainer:
        """A copy without a progress bar whose passes take ``max_memory`` bytes; None: half of what is free."""
        other = copy.copy(self)
        other._max_memory, other._progress = max_memory, False
        other._engines = self._engines.with_memory(max_memory)
        return other

    def _into(self, out: Any, X: Any, target: Any, **asked: Any) -> Attribution:
        """Write the values into ``out``, some samples at a time; ``asked``: the other arguments of :meth:`attribute`."""
        from .scale.into import attribute_into
        from .scale.job import Job

        return attribute_into(out, Job(self, X, target, **asked))

    def _given(self, X: Any) -> tuple[list[Given], bool]:
        """The tensors of the argument X, checked, and whether it was a list of them."""
        given, listed = given_tensors("X", X)
        check_rows("X", given)
        return given, listed

    def _numbers(self, given: list[Given]) -> list[Given]:
        """The tensors of an argument; an explainer with a background converts integers where the background has numbers."""
        return given

    def _inputs(self, given: Sequence[Given]) -> tuple[list[Tensor], torch.device]:
        """Checked tensors in the dtype of the model's parameters and on their device, and the device."""
        device, dtypes = device_and_dtypes(self._model, given)
        return [tensor.to(device) for tensor in in_the_models_dtype(given, dtypes)], device
