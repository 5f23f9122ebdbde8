"""Order statistics and steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from reference import rules as slow
from torch import Tensor

from .sample import Sample, alike, one


def samples() -> dict[str, Sample]:
    """Exact while both sides select alike."""
    found: dict[str, Sample] = {}

    def ordered(a: np.ndarray) -> np.ndarray:
        return a[np.argsort([unit.x for unit in a])]

    def selected(op: Callable[[Tensor], Any], slowly: Callable[[np.ndarray], Any]) -> Sample:
        return Sample((5,), op, slowly, draw=alike)

    found.update(
        {
            "sort": selected(lambda x: x.sort(1), ordered),
            "msort": selected(lambda x: torch.msort(x.T).T, ordered),
            "topk": selected(lambda x: x.topk(2, 1), lambda a: ordered(a)[::-1][:2]),
            "kthvalue": selected(lambda x: x.kthvalue(2, 1, True), lambda a: ordered(a)[1:2]),
            "median": selected(lambda x: x.median(1, True), lambda a: ordered(a)[2:3]),
            "order_statistics": Sample(
                (5,), lambda x: x.sort(1).values, lambda a: [slow.order_statistic(a, k) for k in range(5)], 0.01
            ),
            "quantile": selected(lambda x: x.quantile(0.3, 1, True), lambda a: one(ordered(a)[1:3] @ [0.8, 0.2])),
            "nanquantile": selected(lambda x: x.nanquantile(0.3, 1, True), lambda a: one(ordered(a)[1:3] @ [0.8, 0.2])),
            "nanmedian": selected(lambda x: x.nanmedian(1, True), lambda a: ordered(a)[2:3]),
            "mode": selected(lambda x: x.mode(1, True), lambda a: ordered(a)[:1]),
            "frac": selected(torch.frac, lambda a: [unit - int(unit.x) for unit in a]),
            "fmod": selected(lambda x: torch.fmod(-x, 2), lambda a: [-unit + 2 * int(unit.x / 2) for unit in a]),
            "remainder": selected(lambda x: x.remainder(2), lambda a: [unit - 2 * int(unit.x / 2) for unit in a]),
        }
    )
    return found
