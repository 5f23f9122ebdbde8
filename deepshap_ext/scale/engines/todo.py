"""Shards that are still to be given to workers, some of which die."""

from __future__ import annotations

import logging
from collections import Counter, deque

from ..store import StoreError

logger = logging.getLogger("deepshap_ext.scale")

#: How many workers may die at the same shard, or one after the other as they open the store, before the job is given up.
_DEATHS = 10


class Todo(deque[int]):
    """The shards that no worker has been given, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self._deaths: Counter[int | None] = Counter()

    def done(self, shard: int | None) -> None:
        """A worker has done the ``shard``, or for None has opened the store."""
        self._deaths.pop(shard, None)

    def again(self, shard: int | None, worker: str, error: Exception) -> None:
        """Have another worker do the ``shard`` at which this one died of ``error``; None: it died while it opened the store.

        Raises:
            StoreError: too many have died at it.
        """
        what = "opening the store" if shard is None else f"shard {shard}"
        logger.warning("%s is lost at %s, which another does: %s", worker, what, error)
        self._deaths[shard] += 1
        if self._deaths[shard] == _DEATHS:
            raise StoreError(f"{_DEATHS} workers died at {what}: what was done stays, and the same call continues")
        if shard is not None:
            self.append(shard)
