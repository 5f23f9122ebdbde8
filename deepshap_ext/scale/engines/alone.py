"""A job in this process alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from ..job import Job
from ..shards import explain_shards, finish
from ..store import Store
from .bar import Bar

#: Opens the store of a job, in whatever process.
Open = Callable[[], tuple[Store, Job]]

logger = logging.getLogger("deepshap_ext.scale")


def run_alone(opened: Open, progress: bool) -> Store:
    """Explain what is missing in the store of a job."""
    store, job = opened()
    missing = store.missing()
    with Bar(store, missing, job.baselines_a_sample(), progress) as bar:
        begun = time.monotonic()
        for shard in explain_shards(store, job, missing):
            bar.update(store.rows_of(shard))
            begun = log_shard("this process", shard, begun)
    finish(store)
    return store


def log_shard(worker: str, shard: int, begun: float) -> float:
    """Log that a worker has done a shard, which it had ``begun`` at that time; returns the time it is now."""
    now = time.monotonic()
    logger.info("%s: shard %d in %.2f s", worker, shard, now - begun)
    return now
