"""One bar over all workers: inputs, pairs a second, time left."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from ..store import Store


class Bar(tqdm):  # type: ignore[misc]
    """Of the inputs of a ``store``, of which those in ``missing`` shards are not done; each is explained against so many
    ``baselines``."""

    def __init__(self, store: Store, missing: Iterable[int], baselines: int, shown: bool) -> None:
        self._baselines = baselines
        super().__init__(
            total=store.rows,
            initial=store.rows - sum(map(store.rows_of, missing)),
            unit="input",
            disable=not shown,
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} inputs [{elapsed}<{remaining}, {rate_fmt}, {pairs}]",
            smoothing=0.05,
        )

    @property
    def format_dict(self) -> dict[str, Any]:
        found = super().format_dict
        # tqdm has no rate of its own once it is at the end.
        rate = found["rate"] or (found["elapsed"] and (found["n"] - found["initial"]) / found["elapsed"])
        return {**found, "pairs": f"{tqdm.format_sizeof(rate * self._baselines)} pairs/s"}
