"""What is to be explained, and how: the same in every process that takes part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ..additivity import Check, numbered_from
from ..arguments import is_integer, shown, size_or_none
from ..attribution import Attribution
from ..capture.dependence import tensors_in
from ..dial import check_passes
from ..errors import ExplanationError
from ..explainer import Explainer
from ..keywords import check_is_tuple, check_names
from ..rules.registry import registered
from ..shap import DeepExplainer
from .backgrounds import Background
from .fingerprint import fingerprint, fingerprint_of_structure, fingerprint_of_weights
from .keep import Keep
from .sources import Source, leading

#: Bytes of what is explained at once, with its own baselines and its values, and its samples, at most.
BLOCK_BYTES = 64 << 20
BLOCK_ROWS = 1 << 14


class Job:
    """An explanation of all samples of ``X``, of which any rows can be computed by themselves.

    Args:
        explainer: an :class:`deepshap_ext.Explainer`, or a :class:`deepshap_ext.DeepExplainer` with its background.
        X: samples ``[N, *features]``: a tensor, a numpy array or memory map, a data frame, an h5py dataset, a zarr array or whatever else
            has a shape and slices; a list of such for several inputs; or a torch ``Dataset`` of tensors, or of tuples of them.
        target: as :meth:`deepshap_ext.Explainer.attribute` takes it.
        baselines: ``[R, *features]`` for all samples; each sample's own ``[N, R, *features]``, anything with slices like X; or a function
            ``baselines(x, seeds)`` of samples ``[n, *features]``, as X has them, and as many seeds, integers that depend on ``seed`` and
            the sample's index alone, which returns ``[n, R, *features]``. For several inputs lists of such.
        weights: as :meth:`deepshap_ext.Explainer.attribute` takes them.
        args, sample_kwargs: further arguments of the model; what has a row a sample may be anything with slices, like X.
        check_additivity: as :meth:`deepshap_ext.Explainer.attribute` takes it.
        seed: a non-negative integer; the function's seeds depend on it, and what ``passes`` draw.
        keep: what a store keeps of the attributions; None: all of it.
        options: further options of :meth:`deepshap_ext.Explainer.attribute`.
    """

    def __init__(
        self,
        explainer: Explainer,
        X: Any,
        target: Any = None,
        *,
        baselines: Any = None,
        weights: Any = None,
        args: Sequence[Any] = (),
        sample_kwargs: Mapping[str, Any] | None = None,
        check_additivity: Check = True,
        seed: int = 0,
        keep: Keep | None = None,
        **options: Any,
    ) -> None:
        if not isinstance(explainer, Explainer):
            raise TypeError(f"explainer must be an Explainer or a DeepExplainer, got {shown(explainer)}")
        if not is_integer(seed) or seed < 0:
            raise ValueError(f"seed must be a non-negative integer, got {shown(seed)}")
        if baselines is None and not isinstance(explainer, DeepExplainer):
            raise TypeError(
                "baselines must be given for an Explainer: only a DeepExplainer has a background of its own"
            )
        check_is_tuple(args)
        check_names("sample_kwargs", sample_kwargs)
        check_passes(options.get("passes", 1))
        self.explainer = explainer
        self.keep = Keep() if keep is None else keep
        self.inputs = Source("X", X)
        self._seed = int(seed)
        self.background = None if baselines is None else Background(baselines, self.inputs, seed)
        target = target.to_numpy() if hasattr(target, "to_numpy") else target  # a column of a data frame
        self._target, self._weights, self._check, self.options = target, weights, check_additivity, options
        self._check_players(options.get("players"))
        self._target_by_row = isinstance(target, list) or bool(leading(target))
        if self._target_by_row and _length(target) != len(self.inputs):
            raise ValueError(
                f"target must be one index, or a list of one a sample for {len(self.inputs)} samples, got {_length(target)}"
            )
        self._args = [self._by_row(f"args[{number}]", value) for number, value in enumerate(args)]
        self._kwargs = {
            name: self._by_row(f"sample_kwargs[{name!r}]", value) for name, value in (sample_kwargs or {}).items()
        }

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.inputs)

    def first(self) -> Attribution:
        """Attributions of one sample, to see what shapes they have; against two of its own baselines where these are as good as all."""
        all_needed = self._weights is not None or self.options.get("per_baseline")
        return self.explain(slice(0, 1), None if all_needed else 2)

    def explain(self, rows: slice, most: int | None = None) -> Attribution:
        """The attributions of the samples ``rows``; ``most``: against no more of the baselines of their own, for None against all.

        Raises:
            ValueError, TypeError, deepshap_ext.ExplanationError: as :meth:`deepshap_ext.Explainer.attribute`; the message begins with the
                rows.
        """
        x = self.inputs.read(rows)
        given: dict[str, Any] = {}
        if self.background is not None:
            given["baselines"] = self.background.of(x, rows, most)
        if self._weights is not None:
            given["weights"] = self._weights
        if self._args:
            given["args"] = [_rows_of(value, rows) for value in self._args]
        if self._kwargs:
            given["sample_kwargs"] = {name: _rows_of(value, rows) for name, value in self._kwargs.items()}
        given |= self.options
        target = self._target[rows] if self._target_by_row else self._target
        if self._target_by_row and not isinstance(target, (list, Tensor)):
            target = np.asarray(target)
        try:
            with numbered_from(rows.start):
                return self.explainer.attribute(x, target, check_additivity=self._check, seed=self._seed, **given)
        except Exception as error:
            if not isinstance(error, ExplanationError) and type(error) not in (ValueError, TypeError):
                raise
            raise type(error)(f"X[{rows.start}:{rows.stop}]: {error}") from error

    def parts(self, size: int | None = None) -> Iterator[tuple[slice, Attribution]]:
        """All samples in their order, ``size`` at a time, with their attributions; None: as many as take 64 MiB with their own
        baselines."""
        number = size_or_none("rows", size)
        number = number or self.block_size(self.first())
        return self._parts(number)

    def _parts(self, size: int) -> Iterator[tuple[slice, Attribution]]:
        explainer, total = self.explainer, len(self)
        self.explainer = explainer._with_memory(explainer._max_memory)
        # Made only where it is shown: Python swallows a KeyboardInterrupt that arrives in its __del__.
        bar = tqdm(total=total, unit="sample") if explainer._progress else None
        with nullcontext() if bar is None else bar:
            for first in range(0, total, size):
                rows = slice(first, min(total, first + size))
                yield rows, self.explain(rows)
                if bar is not None:
                    bar.update(rows.stop - rows.start)

    def limit_memory(self, max_memory: int) -> None:
        """Have the passes take so many bytes, unless the explainer was told; with the same limit results are the same bit for bit."""
        if self.explainer._max_memory is None:
            self.explainer = self.explainer._with_memory(max_memory)

    def block_size(self, found: Attribution) -> int:
        """How many samples are to be explained at once, given one's attributions: as many as BLOCK_BYTES hold with their own baselines."""
        row = slice(0, 1)
        x = self.inputs.tensors(row)
        own = self.background.bytes_a_sample(self.inputs.read(row)) if self.background is not None else 0
        values = found.values if isinstance(found.values, tuple) else (found.values,)
        size = own + sum(tensor.nbytes for tensor in (*x, *tensors_in(values)))
        return max(1, min(BLOCK_ROWS, BLOCK_BYTES // size, len(self)))

    def baselines_a_sample(self) -> int:
        """How many baselines a sample is explained against."""
        if self.background is not None:
            return self.background.number(self.inputs.read(slice(0, 1)))
        assert isinstance(self.explainer, DeepExplainer)
        return self.explainer._background.number

    def described(self) -> dict[str, Any]:
        """By what another run knows the same job: what can differ, by the name that a message calls it."""
        explainer = self.explainer
        modules = {module: name for name, module in explainer._model.named_modules()}
        return {
            "model": f"{type(explainer._model).__name__} {fingerprint_of_structure(explainer._model)}",
            "weights": fingerprint_of_weights(explainer._model),
            "layers": [f"{modules[layer.module]} at its {layer.at}, call {layer.call}" for layer in explainer._layers],
            "output": fingerprint(explainer._select),
            "kwargs": fingerprint(explainer._constants),
            "rules": f"{explainer._options} {fingerprint(explainer._options.own, registered())}",
            "inputs": self.inputs.described(),
            "baselines": self._background_described(),
            "baselines' weights": None if self._weights is None else fingerprint(self._weights),
            "target": _targets(self._target) if self._target_by_row else _named(self._target),
            "args": [_row_described(value) for value in self._args],
            "sample_kwargs": {name: _row_described(value) for name, value in self._kwargs.items()},
            "kept": self.keep.described(),
            "options": {name: _named(value) for name, value in sorted(self.options.items())},
            "seed of passes": self._seed if self.options.get("passes", 1) > 1 else None,
        }

    def _background_described(self) -> Any:
        if self.background is not None:
            return self.background.described()
        assert isinstance(self.explainer, DeepExplainer)
        own = self.explainer._background
        return fingerprint(list(own.tensors), own.weights, self.explainer._rows)

    def _check_players(self, players: Any) -> None:
        """How many players there are, and so what shape values have, must not depend on the samples that are explained at once."""
        if players is None:
            return
        parts = players if isinstance(players, (list, tuple)) else [players]
        if any(len(leading(part) or ()) == len(shape) for part, shape in zip(parts, self.inputs.shapes, strict=False)):
            raise ValueError(
                f"players must have the features' shape, the same for all samples, where these are explained some at a time, got "
                f"{shown(players)}"
            )

    def _by_row(self, label: str, value: Any) -> Any:
        """A further argument: a :class:`Source` if it has a row a sample."""
        if not leading(value):
            return value
        rows = Source(label, value)
        if len(rows) != len(self.inputs):
            raise ValueError(
                f"{label} must have shape [{len(self.inputs)}, ...] for {len(self.inputs)} samples, got a first dimension of {len(rows)}"
            )
        return rows


def _length(value: Any) -> int:
    return len(value) if isinstance(value, list) else int(value.shape[0])


def _targets(target: Any) -> str:
    """The fingerprint of targets by row, the same for a list and an array of them."""
    tuples = isinstance(target, list) and isinstance(target[0], tuple)
    numbers = target.cpu() if isinstance(target, Tensor) else target if isinstance(target, list) else target[:]
    return fingerprint(tuples, np.asarray(numbers).astype(np.int64))


def _named(value: Any) -> Any:
    """A simple value itself, also numpy's or a tensor's; else what it is called and its fingerprint."""
    if isinstance(value, (np.generic, np.ndarray, Tensor)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, tuple) and all(map(is_integer, value)):
        return str(value)
    return f"{getattr(value, '__qualname__', type(value).__qualname__)} {fingerprint(value)}"


def _rows_of(value: Any, rows: slice) -> Any:
    """Some rows of a further argument; what has none as it is."""
    return value.read(rows) if isinstance(value, Source) else value


def _row_described(value: Any) -> Any:
    return value.described() if isinstance(value, Source) else fingerprint(value)
