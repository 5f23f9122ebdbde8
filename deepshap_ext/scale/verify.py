"""Whether a store still has what was written into it."""

from __future__ import annotations

import os

from ..arguments import flag
from .store import Store


def verify(store: str | os.PathLike[str], *, forget: bool = False) -> list[str]:
    """What is wrong with the arrays of a store and its shards that are done, a line a file that is missing or corrupt.

    Args:
        store: its path.
        forget: have the shards of such files count as missing, so that the next run does them anew; and describe the arrays anew that
            have lost their description.

    Raises:
        StoreError: there is no store.
    """
    flag("forget", forget)
    found = Store(store)
    lines = list(found.undescribed().values())
    if forget:
        found.describe()
    missing = set(found.missing())
    for shard in range(found.shards):
        if shard in missing:
            continue
        problems = found.damage(shard)
        if problems and forget:
            found.forget(shard)
        lines += problems
    return lines
