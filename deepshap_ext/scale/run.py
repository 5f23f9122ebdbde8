"""Explanations of many samples into a store, in one process."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from ..additivity import Check
from ..arguments import flag, size_or_none
from ..explainer import Explainer
from ..memory import available_memory
from .engines import Engine, run, speaks
from .job import Job
from .keep import Keep, bytes_a_sample
from .store import Store, StoreError, create, import_zarr, path_of

#: Bytes of a shard in the store, and its samples, at most, unless the user says how many.
SHARD_BYTES = 32 << 20
SHARD_ROWS = 1 << 14
#: Bytes that passes may take, at most, unless the explainer says: more than this makes them no faster.
MEMORY = 8 << 30


def explain_to(
    store: str | os.PathLike[str],
    explainer: Explainer,
    X: Any,
    target: Any = None,
    *,
    baselines: Any = None,
    weights: Any = None,
    args: Sequence[Any] = (),
    sample_kwargs: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    axes: Sequence[Any] | None = None,
    sum_over: str | Sequence[str] = (),
    summary: bool = False,
    shard_size: int | None = None,
    seed: int = 0,
    check_additivity: Check = True,
    engine: Engine = "alone",
    cores: int | None = None,
    progress: bool = False,
    **options: Any,
) -> Any:
    """Explain all samples of ``X`` into a zarr store on a file system, and continue where an earlier call was cut off.

    Args:
        store: the path of a zarr group: a new one, or one that the same call has begun, of which it does what is missing.
        explainer: an :class:`deepshap_ext.Explainer`, or a :class:`deepshap_ext.DeepExplainer` with its background.
        X: samples ``[N, *features]``: a tensor, a numpy array or memory map, a data frame, an h5py dataset, a zarr array or whatever else
            has a shape and slices; a list of such for several inputs; or a torch ``Dataset`` of tensors, or of tuples of them.
        target: as :meth:`deepshap_ext.Explainer.attribute` takes it.
        baselines: for all samples, ``[R, *features]``; each sample's own, ``[N, R, *features]``, anything with slices like X; or a function
            ``baselines(x, seeds)`` of some samples ``[n, *features]``, as X has them, and a list of ``n`` integers, their seeds, which
            returns ``[n, R, *features]``. For several inputs lists of such. None: those of a DeepExplainer.
        weights, args, sample_kwargs: as :meth:`deepshap_ext.Explainer.attribute` takes them; what has a row a sample may be anything with
            slices, like X.
        dtype: of the values: ``"float32"`` or ``"float16"``; None: as they are computed.
        axes: what the dimensions of a sample's features are called, ``["channel", "position"]``; for several inputs a list of such
            lists. None: ``"feature"``, or ``"feature_1"``, ``"feature_2"`` and so on.
        sum_over: the names of those that values are summed over, so that there is one value a token, a pixel or a position.
        summary: keep no values but their mean and mean absolute value over the samples, with standard errors.
        shard_size: how many samples are done, or done anew, together: a chunk of the store's arrays. None: as many as the store has, or
            as take 32 MiB.
        seed: what the seeds of a function's baselines depend on, beside the sample's index.
        check_additivity: what to do if a sample's values do not add up: True, stop with a :class:`deepshap_ext.AdditivityError` that names
            the sample, what was done before stays; False, record it (``Store(store).warnings()``), and warn at the end; ``"ignore"``, do
            not look.
        engine: ``"alone"``, explain in this process; ``"ranks"``, in all processes that torchrun or SLURM has started, each of which makes
            the same call; ``"ray"``, on the cluster that Ray knows, or on this machine.
        cores: of each of Ray's workers; None: one.
        progress: show a bar.
        options: further options of :meth:`deepshap_ext.Explainer.attribute`: ``standard_error``, ``combine`` and so on.

    Returns:
        The zarr group, opened for reading, with ``values`` ``[N, *features]``, ``output``, ``expected_value``, ``convergence_delta``, and
        what else an :class:`deepshap_ext.Attribution` has; of several inputs ``values/0``, ``values/1``. With ``summary`` there are
        ``summary/values/mean``, ``mean_absolute``, ``mean_error`` and ``mean_absolute_error`` in the place of ``values``.

    Raises:
        StoreError: the store is another explanation's, the error says what differs; or it cannot be written, as on a full disk: once it
            can be, the same call continues.
        ValueError, TypeError, ExplanationError: as :meth:`deepshap_ext.Explainer.attribute`.
    """
    zarr = import_zarr()
    flag("progress", progress)
    job = Job(
        explainer,
        X,
        target,
        baselines=baselines,
        weights=weights,
        args=args,
        sample_kwargs=sample_kwargs,
        check_additivity=check_additivity,
        seed=seed,
        keep=Keep(dtype, axes, sum_over, summary),
        **options,
    )
    found = run(engine, partial(_opened, store, job, shard_size, engine == "ray"), progress, cores)
    if speaks(engine) and (warned := what_warned(found)) is not None:
        warnings.warn(warned, stacklevel=2)
    return zarr.open_group(found.path, mode="r")


def open_store(path: str | os.PathLike[str], job: Job, shard_size: int | None = None) -> Store:
    """The store of this job at ``path``, a new one if there is none.

    Args:
        path: of the zarr group, on a file system.
        job: what is explained; of a store that there is it must be the job that began it.
        shard_size: samples a shard; None: as many as the store has, or as take 32 MiB.

    Raises:
        StoreError: there is a store of another job, or something else.
    """
    shard_size = size_or_none("shard_size", shard_size)
    job.keep.check(job.options)
    described = job.described()
    place = path_of(path)
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        _create(place, job, described, shard_size)
    store = Store(place)
    if lost := next(iter(store.undescribed().values()), None):
        raise StoreError(f"{place}: {lost}: verify({str(place)!r}, forget=True)")
    job.limit_memory(store.made["max_memory"])
    theirs = store.made["job"]
    differences = [name for name in described if described[name] != theirs.get(name)]
    if shard_size is not None and store.shard_size != min(shard_size, store.rows):
        differences.append("shard_size")
    if differences:
        raise StoreError(f"{place} is the store of another explanation, which differs in {_listing(differences)}")
    return store


def _opened(path: str | os.PathLike[str], job: Job, shard_size: int | None, moved: bool) -> tuple[Store, Job]:
    """A job with its store; ``moved``: in another process, which has a GPU of its own if it has any."""
    if moved and torch.cuda.is_available():
        job.explainer._model.to("cuda")
    return open_store(path, job, shard_size), job


def _create(place: Path, job: Job, described: Mapping[str, Any], shard_size: int | None) -> None:
    first = job.first()
    columns = job.keep.columns(first)
    block = job.block_size(first)
    if shard_size is None:
        # Whole blocks, where they are small as those with many baselines of their own are.
        shard_size = max(1, min(SHARD_ROWS, SHARD_BYTES // bytes_a_sample(columns)) // block) * block
    made = {
        "job": described,
        "max_memory": job.explainer._max_memory or _some_memory(first.output.device),
        "versions": {"deepshap_ext": __version__, "torch": version("torch"), "zarr": version("zarr")},
    }
    create(place, len(job), min(shard_size, len(job)), min(block, shard_size), columns, made)


def _some_memory(device: torch.device) -> int:
    """Bytes for the passes: a power of two that is at most half of what is free."""
    return min(MEMORY, 1 << max(0, (available_memory(device) // 2).bit_length() - 1))


def what_warned(store: Store) -> str | None:
    """What explanations of shards warned of, in a sentence."""
    found = store.warnings()
    if not found:
        return None
    shard, (first, *_) = next(iter(found.items()))
    return (
        f"explanations of {len(found)} of {store.shards} shards warned, shard {shard} so: {first} "
        f"(all: Store({str(store.path)!r}).warnings())"
    )


def _listing(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
