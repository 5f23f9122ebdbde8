"""Shards, explained and written: whoever does it, wherever, and however often, the store has the same of them afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from ..memory import give_back_freed_memory, resident_memory
from .job import Job
from .store import Array, Store
from .summary import summarize, summary_arrays

#: By how many bytes the resident memory may grow over the shards before the free memory in the C library's heap is returned to the system.
#: The passes write to more and more of its pages as their tensors come to lie elsewhere; after each return all pages are fresh, which
#: are slow to write to.
GROWTH = 8 << 20


class Computed(NamedTuple):
    """What is to be written of a shard: its arrays, and what its explanation warned of."""

    arrays: dict[str, Array]
    warnings: list[str]


def explain_shard(store: Store, job: Job, shard: int, turn: AbstractContextManager[Any] | None = None) -> bool:
    """Explain a shard of ``job`` into ``store``; False if that was done before.

    Args:
        store: of this job, as :func:`open_store` gives it.
        job: what is explained.
        shard: its number, from 0.
        turn: held while it is explained: where threads have one in common, one explains while others write.

    Raises:
        StoreError: it cannot be written, as on a full disk; what was done before stays.
    """
    if store.is_done(shard):
        return False
    with turn or nullcontext():
        computed = _computed(store, job, shard)
    store.write(shard, *computed)
    return True


def explain_shards(store: Store, job: Job, shards: Iterable[int]) -> Iterator[int]:
    """Explain shards, and give each as soon as it is done; while one is written the next is explained.

    Args:
        store: of this job, as :func:`open_store` gives it.
        job: what is explained.
        shards: their numbers. They may be made as they are asked for, one ahead of what is given.

    Raises:
        StoreError: it cannot be written, as on a full disk; what was done before stays.
    """
    writing: tuple[int, Future[None]] | None = None
    heap = _Heap()
    with ThreadPoolExecutor(1) as writer:
        for shard in shards:
            if store.is_done(shard):
                yield shard
                continue
            computed = _computed(store, job, shard)
            if writing is not None:
                writing[1].result()
                yield writing[0]
            writing = shard, writer.submit(store.write, shard, *computed)
            heap.clear_if_grown()
        if writing is not None:
            writing[1].result()
            yield writing[0]


class _Heap:
    """Keeps the resident memory near to what the first shard took."""

    def __init__(self) -> None:
        self._usual = 0
        self._usual_is_known = False

    def clear_if_grown(self) -> None:
        """Return free memory to the system if the resident memory has grown; to be called after each shard."""
        resident = resident_memory()
        if not self._usual_is_known:
            # What the first shard took, or the one behind a return, is in use.
            self._usual, self._usual_is_known = max(self._usual, resident), True
        elif resident > self._usual + GROWTH:
            give_back_freed_memory()
            self._usual_is_known = False


def finish(store: Store) -> None:
    """What is left to do once all shards of a ``store`` are done and nobody writes any more; may be done again."""
    store.clean()
    if any(column.by_shard for column in store.columns):
        store.write_whole(summary_arrays(summarize(store.path)))


def _computed(store: Store, job: Job, shard: int) -> Computed:
    """A shard, explained block by block, so that its samples' baselines need not be in memory at once."""
    here, step = store.slice_of(shard), store.block_size
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parts = [
            job.keep.arrays(job.explain(slice(first, min(here.stop, first + step))))
            for first in range(here.start, here.stop, step)
        ]
    return Computed(job.keep.joined(parts), [str(one.message) for one in caught])
