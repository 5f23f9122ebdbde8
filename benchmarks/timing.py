"""The one timer of the benchmarks: interleaved repeats, medians, and a check of what each contender returned in the same run."""

from __future__ import annotations

import os
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

Work = Callable[[], Any]


@dataclass
class Contender:
    """Something to time. ``error(result)`` measures how wrong a result is; None where there is nothing to check."""

    name: str
    work: Work
    error: Callable[[Any], float] | None = None


@dataclass
class Row:
    """What was measured: seconds of every repeat, the result's error, or why there is none."""

    name: str
    seconds: list[float] = field(default_factory=list)
    error: float | None = None
    crash: str | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds) if self.seconds else float("nan")

    def ratio(self, floor: Row) -> float:
        """Median over repeats of this row's time divided by the floor's in the same round: what loads the machine loads both."""
        pairs = zip(self.seconds, floor.seconds, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs) if self.seconds else float("nan")


def compare(contenders: Sequence[Contender], repeats: int, device: torch.device, warm_up: int = 1) -> list[Row]:
    """Time the contenders in turn, ``repeats`` rounds of all; one that raises gets its first line of error and no times."""
    rows = [Row(contender.name) for contender in contenders]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for contender, row in zip(contenders, rows, strict=True):
            try:
                for _ in range(warm_up):
                    result = contender.work()
                if contender.error is not None:
                    row.error = contender.error(result)
            except Exception as error:
                row.crash = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        for _ in range(repeats):
            for contender, row in zip(contenders, rows, strict=True):
                if row.crash is None:
                    row.seconds.append(seconds(contender.work, device))
    return rows


def seconds(work: Work, device: torch.device) -> float:
    """How long one call takes: CUDA events where it runs on a GPU, the wall clock elsewhere."""
    if device.type != "cuda":
        started = time.perf_counter()
        work()
        return time.perf_counter() - started
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    start.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return float(start.elapsed_time(end)) / 1e3


def table(rows: Sequence[Row], error: str) -> str:
    """Markdown; the first row is the floor that the others are divided by. ``error`` names what the contenders' ``error`` measures."""
    lines = [f"| | median | x {rows[0].name} | {error} |", "|---|---|---|---|"]
    for row in rows:
        if row.crash is not None:
            lines.append(f"| {row.name} | crashes | | {row.crash[:110]} |")
            continue
        wrong = "" if row.error is None else f"{row.error:.1e}"
        lines.append(f"| {row.name} | {1e3 * row.median:.1f} ms | {row.ratio(rows[0]):.2f} | {wrong} |")
    return "\n".join(lines)


def record(rows: Sequence[Row], device: torch.device) -> dict[str, Any]:
    """The same as data, with where it was measured."""
    return {
        "machine": machine(device),
        "rows": [{**asdict(row), "median": row.median, "ratio": row.ratio(rows[0])} for row in rows],
    }


def machine(device: torch.device) -> str:
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return f"torch {torch.__version__}, {where}, {os.cpu_count()} CPUs"


def additivity_error(total: torch.Tensor, difference: torch.Tensor) -> float:
    """The largest ``|sum of values - output difference|``, relative to the largest difference."""
    return float((total.double() - difference.double()).abs().max() / difference.double().abs().max())
