"""A job in this process alone."""

from __future__ import annotations

from collections.abc import Callable

from ..job import Job
from ..shards import explain_shards, finish
from ..store import Store
from .bar import Bar

#: Opens the store of a job, in whatever process.
Open = Callable[[], tuple[Store, Job]]


def run_alone(opened: Open, progress: bool) -> Store:
    """Explain what is missing in the store of a job."""
    store, job = opened()
    missing = store.missing()
    done = store.rows - sum(map(store.rows_of, missing))
    with Bar(store.rows, done, job.baselines_a_sample(), progress) as bar:
        for shard in explain_shards(store, job, missing):
            bar.update(store.rows_of(shard))
    finish(store)
    return store
