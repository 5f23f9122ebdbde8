"""One bar over all workers: inputs, pairs a second, time left."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


class Bar(tqdm):  # type: ignore[misc]
    """Of ``total`` inputs, of which ``initial`` are done; each is explained against so many ``baselines``."""

    def __init__(self, total: int, initial: int, baselines: int, shown: bool) -> None:
        self._baselines = baselines
        super().__init__(
            total=total,
            initial=initial,
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
