"""A job in the ranks that torchrun or SLURM has started, which take one shard after the other from a queue that they share.

The queue is a torch.distributed ``Store``: torchrun's own, a file beside the store of attributions under SLURM. Nothing else passes between
ranks, so that they may come late, be slow or be gone: a shard that was taken and not done is taken again once nobody has done any for long.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from threading import Event, Thread

from torch._C._distributed_c10d import FileStore, PrefixStore
from torch._C._distributed_c10d import Store as Queue
from torch.distributed.rendezvous import rendezvous

from ..shards import explain_shards, finish
from ..store import Store
from .alone import Open, log_shard
from .bar import Bar

#: Seconds between two looks at what other ranks have done.
_POLL = 0.5
#: Shards that other ranks have taken are taken again once none was done for so many seconds, and for so many times as long as the slowest
#: shard of this rank took.
_PATIENCE, _SHARDS = 5.0, 3.0
#: Each call in a process has a queue of its own: all ranks make the same calls.
_calls = count()


def started_as_rank() -> bool:
    """Whether torchrun or SLURM have started this process as one of several."""
    return _by_torchrun() or _slurm_job() is not None


def is_first_rank() -> bool:
    """Whether this process is the one that says what concerns all of them."""
    slurm = _slurm_job()
    return int(os.environ["RANK"]) == 0 if _by_torchrun() else slurm is None or slurm[1] == 0


def local_rank() -> int:
    """Which of the ranks on this machine this one is."""
    return int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))


def run_ranks(opened: Open, progress: bool) -> Store:
    """Explain, in every rank that calls this, what is missing in the store of a job, until nothing is.

    Raises:
        ValueError: there are no ranks.
    """
    if not started_as_rank():
        raise ValueError(
            "engine 'ranks' must be in processes that torchrun, srun or a SLURM array has started, got a process alone"
        )
    store, job = opened()
    rank, queue = _rank_and_queue(store)
    name = f"rank {rank} on {socket.gethostname()}"
    shown = progress and rank == 0
    missing = store.missing() if shown else []
    with Bar(store, missing, job.baselines_a_sample(), shown) as bar, _following(bar, queue):
        begun = time.monotonic()
        for shard in explain_shards(store, job, _claims(queue, store)):
            queue.add("rows", store.rows_of(shard))
            begun = log_shard(name, shard, begun)
    if queue.add("finish", 1) == 1:
        finish(store)
    return store


def _claims(queue: Queue, store: Store) -> Iterator[int]:
    """Shards for this rank alone, until none is missing; then again those that a rank which is gone has left."""
    patience = _PATIENCE
    for turn in count():
        while (shard := queue.add(f"{turn}/next", 1) - 1) < store.shards:
            if store.is_done(shard):
                continue
            begun = time.monotonic()
            yield shard
            patience = max(patience, _SHARDS * (time.monotonic() - begun))
        if not _left(store, patience):
            return


def _left(store: Store, patience: float) -> bool:
    """Wait for the shards that are still missing; whether some were left, since nobody has done any for ``patience`` seconds."""
    missing, since = store.missing(), time.monotonic()
    while missing and time.monotonic() - since < patience:
        time.sleep(_POLL)
        still = [shard for shard in missing if not store.is_done(shard)]
        if len(still) < len(missing):
            missing, since = still, time.monotonic()
    return bool(missing)


@contextmanager
def _following(bar: Bar, queue: Queue) -> Iterator[None]:
    """Have the bar show what all ranks have done."""

    def follow() -> None:
        while not done.wait(_POLL):
            bar.n = min(bar.total, bar.initial + queue.add("rows", 0))
            bar.refresh()

    if bar.disable:
        yield
        return
    done = Event()
    thread = Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
        bar.n = bar.total
    finally:
        done.set()
        thread.join()


def _rank_and_queue(store: Store) -> tuple[int, Queue]:
    """The number of this process, and what all of them share."""
    environment = os.environ
    call = next(_calls)
    if _by_torchrun():
        # torchrun starts all ranks anew when one dies: they need not wait for what it had taken.
        attempt = environment["TORCHELASTIC_RESTART_COUNT"]
        shared, rank, _ = next(rendezvous("env://"))
        return rank, PrefixStore(f"deepshap_ext/{attempt}/{call}", shared)
    slurm = _slurm_job()
    assert slurm is not None  # run_ranks has looked
    job, rank, number = slurm
    file = store.path.with_name(f"{store.path.name}.{job}.queue")
    return rank, PrefixStore(str(call), FileStore(str(file), number))


def _by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _slurm_job() -> tuple[str, int, int] | None:
    """What the ranks of a SLURM array, or of an srun, have in common, the number of this one, and how many there are."""
    environment = os.environ
    if "SLURM_ARRAY_TASK_ID" in environment:
        task, first = (int(environment[f"SLURM_ARRAY_TASK_{name}"]) for name in ("ID", "MIN"))
        return environment["SLURM_ARRAY_JOB_ID"], task - first, int(environment["SLURM_ARRAY_TASK_COUNT"])
    number = int(environment.get("SLURM_STEP_NUM_TASKS", "1"))
    if number == 1:
        return None
    return f"{environment['SLURM_JOB_ID']}.{environment['SLURM_STEP_ID']}", int(environment["SLURM_PROCID"]), number
