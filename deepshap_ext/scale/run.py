"""Explanations of many samples into a store, in one process."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..additivity import Check
from ..arguments import size_or_none
from ..explainer import Explainer
from .job import Job
from .keep import Keep, bytes_a_row
from .shards import explain_shard
from .store import Store, StoreError, create, import_zarr

#: Bytes of a shard in the store, and its samples, at most, unless the user says how many.
SHARD_BYTES = 32 << 20
SHARD_ROWS = 1 << 14


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
    shard_size: int | None = None,
    seed: int = 0,
    check_additivity: Check = True,
    progress: bool = False,
    **options: Any,
) -> Any:
    """Explain all samples of ``X`` into a zarr store, and continue where an earlier call was cut off."""
    zarr = import_zarr()
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
        keep=Keep(dtype),
        **options,
    )
    found = open_store(store, job, shard_size)
    missing = found.missing()
    with tqdm(total=len(job), initial=len(job) - _rows(found, missing), unit="input", disable=not progress) as bar:
        for shard in missing:
            explain_shard(found, job, shard)
            bar.update(_rows(found, [shard]))
    found.clean()
    return zarr.open_group(found.path, mode="r")


def open_store(path: str | os.PathLike[str], job: Job, shard_size: int | None = None) -> Store:
    """The store of this job at ``path``, a new one if there is none.

    Raises:
        StoreError: there is a store of another job, or something else.
    """
    size_or_none("shard_size", shard_size)
    described = job.described()
    place = Path(path)
    if not place.exists() or (place.is_dir() and not any(place.iterdir())):
        columns = job.keep.columns(job.explain(slice(0, 1)))
        if shard_size is None:
            shard_size = max(1, min(SHARD_ROWS, SHARD_BYTES // bytes_a_row(columns), len(job)))
        made = {"job": described, "versions": {"deepshap_ext": version("deepshap_ext"), "torch": torch.__version__}}
        create(place, len(job), shard_size, columns, made)
    store = Store(place)
    theirs = store.made["job"]
    differences = [name for name in described if described[name] != theirs.get(name)]
    if shard_size is not None and store.shard_size != shard_size:
        differences.append("shard_size")
    if differences:
        raise StoreError(f"{place} is the store of another explanation: {_listing(differences)} differ")
    return store


def _rows(store: Store, shards: Sequence[int]) -> int:
    return sum(here.stop - here.start for here in map(store.slice_of, shards))


def _listing(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
