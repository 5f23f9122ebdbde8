"""Whether a store still has what was written into it."""

from __future__ import annotations

import os

from ..arguments import flag
from .store import Store


def verify(store: str | os.PathLike[str], *, forget: bool = False) -> list[str]:
    """What is wrong with the shards of a store that are done, a line a file that is missing or corrupt.

    Args:
        store: its path.
        forget: have the shards of such files count as missing, so that the next run does them anew.

    Raises:
        StoreError: there is no store.
    """
    flag("forget", forget)
    found = Store(store)
    missing = set(found.missing())
    lines = []
    for shard in range(found.shards):
        if shard in missing:
            continue
        problems = found.damage(shard)
        if problems and forget:
            found.forget(shard)
        lines += problems
    return lines
