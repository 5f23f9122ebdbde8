"""The one timer of the benchmarks: interleaved repeats, medians, and a check of what each contender returned in the same run."""

from __future__ import annotations

import ctypes
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], Any]


@dataclass
class Contender:
    """Something to time. ``error(result)`` measures how wrong the first result is; None where there is nothing to check."""

    name: str
    work: Work
    error: Callable[[Any], float | None] | None = None


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
        if not self.seconds or not floor.seconds:
            return float("nan")
        return statistics.median(mine / theirs for mine, theirs in zip(self.seconds, floor.seconds, strict=True))

    @property
    def time_text(self) -> str:
        return self.crash or f"{1e3 * self.median:.1f} ms"

    @property
    def error_text(self) -> str:
        return "" if self.error is None else f"{self.error:.0e}"

    def record(self) -> dict[str, Any]:
        """The row as data for JSON, with the median of its times; None where there are none."""
        return {**asdict(self), "median": self.median if self.seconds else None}


def compare(
    contenders: Sequence[Contender],
    repeats: int,
    device: torch.device,
    warm_up: int = 1,
    seconds_at_most: float = float("inf"),
) -> list[Row]:
    """Time the contenders in turn, ``repeats`` rounds of all; one that raises gets its first line of error and no times.

    No round but the first begins after ``seconds_at_most``, and a contender whose first call took longer has that call as its time.
    """
    rows = [Row(contender.name) for contender in contenders]
    first: list[float] = []
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for contender, row in zip(contenders, rows, strict=True):
            try:
                begun = time.perf_counter()
                result = contender.work()
                synchronize(device)
                took = time.perf_counter() - begun
                for _ in range(warm_up - 1):
                    result = contender.work()
                if contender.error is not None:
                    row.error = contender.error(result)
            except Exception as error:
                row.crash = crash(error)
                took = 0.0
            first.append(took)
            result = None  # the next contender has the memory to itself
        for number in range(repeats):
            if number and time.perf_counter() - started > seconds_at_most:
                break
            for contender, row, took in zip(contenders, rows, first, strict=True):
                if row.crash is None:
                    row.seconds.append(took if took > seconds_at_most else seconds(contender.work, device))
    return rows


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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


def peak_memory(work: Work, device: torch.device) -> int:
    """Bytes above what was there before that one call takes: torch's allocations on a GPU, resident memory of the process elsewhere."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    # What has been freed but kept counts for nobody, and the peak, VmHWM, starts anew.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """A number of bytes from Linux's account of this process, /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def crash(error: BaseException) -> str:
    """The error's type and first line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"


def additivity_error(total: torch.Tensor, difference: torch.Tensor) -> float:
    """The largest ``|sum of values - output difference|``, relative to the largest difference."""
    return float((total.double() - difference.double()).abs().max() / difference.double().abs().max())
