"""What drives the shards of a job: this process alone, or many."""

from __future__ import annotations

from typing import Literal

from ...arguments import one_of, size_or_none
from ..store import Store
from .alone import Open, run_alone
from .on_ray import run_on_ray
from .ranks import is_first_rank, local_rank, run_ranks, started_as_rank

Engine = Literal["alone", "ranks", "ray"]
ENGINES: tuple[Engine, ...] = ("alone", "ranks", "ray")

__all__ = ["ENGINES", "Engine", "local_rank", "run", "speaks", "started_as_rank"]


def run(engine: Engine, opened: Open, progress: bool = False, cores: int | None = None) -> Store:
    """Explain, on an engine, what is missing in the store of a job.

    Args:
        engine: ``"alone"``, this process; ``"ranks"``, this and the others that torchrun or SLURM has started; ``"ray"``, actors on the
            cluster that Ray knows, or on this machine.
        opened: opens the store, in every process that takes part.
        progress: show a bar.
        cores: of each of Ray's actors; None: one.
    """
    one_of("engine", engine, ENGINES)
    if size_or_none("cores", cores) is not None and engine != "ray":
        raise ValueError(
            f"cores must be None with engine {engine!r}, whose processes have the threads that torch has, got {cores}"
        )
    if engine == "ray":
        return run_on_ray(opened, progress, cores or 1)
    return run_alone(opened, progress) if engine == "alone" else run_ranks(opened, progress)


def speaks(engine: Engine) -> bool:
    """Whether this process is to say what concerns the whole job, which other processes on the engine may know as well."""
    return engine != "ranks" or is_first_rank()
