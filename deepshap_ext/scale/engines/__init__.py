"""What drives the shards of a job: this process alone, or many."""

from __future__ import annotations

from typing import Literal

from ...arguments import one_of
from ..store import Store
from .alone import Open, run_alone
from .ranks import local_rank, run_ranks, started_as_rank

Engine = Literal["alone", "ranks"]
ENGINES = {"alone": run_alone, "ranks": run_ranks}

__all__ = ["ENGINES", "Engine", "local_rank", "run", "started_as_rank"]


def run(engine: Engine, opened: Open, progress: bool = False) -> Store:
    """Explain, on an engine, what is missing in the store of a job.

    Args:
        engine: ``"alone"``, this process; ``"ranks"``, this and the others that torchrun or SLURM has started.
        opened: opens the store, in every process that takes part.
        progress: show a bar.
    """
    one_of("engine", engine, tuple(ENGINES))
    return ENGINES[engine](opened, progress)
