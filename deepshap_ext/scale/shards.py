"""One shard, explained and written: whoever calls it, wherever, and however often, the store has the same of it afterwards."""

from __future__ import annotations

from .job import Job
from .store import Store


def explain_shard(store: Store, job: Job, shard: int) -> bool:
    """Explain a shard of ``job`` into ``store``; False if that was done before."""
    if store.is_done(shard):
        return False
    store.write(shard, job.keep.arrays(job.explain(store.slice_of(shard))))
    return True
