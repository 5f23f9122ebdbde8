"""A job on a Ray cluster: an actor a GPU, or a share of the cores where there are none, each given one shard after the other.

The driver knows which shards are missing, and an actor holds nothing that could be lost: what it was at when it died is given to another.
Actors are started as the cluster has room for them, so that nodes may come and go.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from ..shards import explain_shard, finish
from ..store import Store, StoreError
from .alone import Open, log_shard
from .bar import Bar

logger = logging.getLogger("deepshap_ext.scale")

#: Shards that an actor has at once: one is written while the next is explained.
_AT_ONCE = 2
#: How many actors may die at the same shard, or while they open the store, before the job is given up.
_DEATHS = 10
#: Seconds between two looks at how large the cluster is.
_LOOK = 1.0


def run_on_ray(opened: Open, progress: bool, cores: int = 1) -> Store:
    """Explain what is missing in the store of a job, which all nodes see; on this machine if no cluster is known to Ray.

    ``cores``: of an actor.
    """
    with _cluster() as ray, closing(_Actors(ray, opened, cores)) as actors:
        store, baselines = actors.open()
        missing = store.missing()
        initial = store.rows - sum(map(store.rows_of, missing))
        with Bar(store.rows, initial, baselines, progress) as bar:
            for shard in actors.explain(missing, store):
                bar.update(store.rows_of(shard))
    finish(store)
    return store


class Worker:
    """What an actor is: a process that has opened the store of a job."""

    def __init__(self) -> None:
        self._turn = Lock()

    def open(self, opened: Open) -> tuple[str, Store, int]:
        """The machine, the store, and how many baselines a sample has."""
        self._store, self._job = opened()
        return _import_ray().util.get_node_ip_address(), self._store, self._job.baselines_a_sample()

    def explain(self, shard: int) -> None:
        explain_shard(self._store, self._job, shard, self._turn)


@dataclass(eq=False)
class _Actor:
    handle: Any
    name: str
    is_open: bool = False
    begun: dict[int, float] = field(default_factory=dict)


class _Actors:
    def __init__(self, ray: Any, opened: Open, cores: int) -> None:
        self._ray, self._opened, self._cores = ray, ray.put(opened), cores
        self._actors: list[_Actor] = []
        self._started = 0
        #: What actors are at: a shard, or None while they open the store.
        self._tasks: dict[Any, tuple[_Actor, int | None]] = {}
        self._todo: deque[int] = deque()
        self._deaths: Counter[int | None] = Counter()
        self._looked = 0.0

    def open(self) -> tuple[Store, int]:
        """Wait for an actor that has opened the store; with the number of a sample's baselines."""
        while True:
            for _, result in self._results(sys.maxsize):
                _, store, baselines = result
                return store, baselines

    def explain(self, missing: Iterable[int], store: Store) -> Iterator[int]:
        """Have shards explained, and give each once it is done."""
        self._todo.extend(missing)
        while busy := len(self._todo) + sum(shard is not None for _, shard in self._tasks.values()):
            for actor in self._actors:
                while actor.is_open and self._todo and len(actor.begun) < _AT_ONCE:
                    shard = self._todo.popleft()
                    actor.begun[shard] = time.monotonic()
                    self._tasks[actor.handle.explain.remote(shard)] = actor, shard
            for done, _ in self._results(busy):
                if done is not None:
                    yield done

    def close(self) -> None:
        for actor in self._actors:
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor.handle)

    def _results(self, most: int) -> Iterator[tuple[int | None, Any]]:
        """What actors, ``most`` of them, have done by now, or the first that one does, unless that takes long."""
        self._grow(most)
        tasks = list(self._tasks)
        done, _ = self._ray.wait(tasks, timeout=_LOOK)
        if done:
            done, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
        for task in done:
            # That of an actor which was lost meanwhile is somebody else's now.
            if task not in self._tasks:
                continue
            actor, shard = self._tasks[task]
            try:
                result = self._ray.get(task)
            except self._ray.exceptions.RayActorError:
                self._lose(actor)
                continue
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
            del self._tasks[task]
            if shard is None:
                actor.is_open, actor.name = True, f"{actor.name} on {result[0]}"
            else:
                log_shard(actor.name, shard, actor.begun.pop(shard))
            yield shard, result

    def _grow(self, most: int) -> None:
        """Start as many actors as the cluster has room for, up to ``most``; those that it has no room for yet wait."""
        if self._actors and time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        room = self._ray.cluster_resources()
        gpus = int(room.get("GPU", 0))
        for _ in range(min(most, gpus or max(1, int(room.get("CPU", 0)) // self._cores)) - len(self._actors)):
            remote = self._ray.remote(num_cpus=self._cores, num_gpus=1 if gpus else 0, max_concurrency=_AT_ONCE)
            actor = _Actor(remote(Worker).remote(), f"worker {self._started}")
            self._started += 1
            self._actors.append(actor)
            self._tasks[actor.handle.open.remote(self._opened)] = actor, None

    def _lose(self, actor: _Actor) -> None:
        """Have others do what an actor was at."""
        lost = [(task, shard) for task, (whose, shard) in self._tasks.items() if whose is actor]
        self._actors.remove(actor)
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(actor.handle)
        for task, shard in lost:
            del self._tasks[task]
            what = "opening the store" if shard is None else f"shard {shard}"
            logger.warning("%s is lost at %s, which another does", actor.name, what)
            self._deaths[shard] += 1
            if self._deaths[shard] == _DEATHS:
                raise StoreError(f"{_DEATHS} workers died at {what}: what was done stays, and the same call continues")
            if shard is not None:
                self._todo.append(shard)


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected to a cluster: the one that it is connected to already or knows of, or one of this machine alone."""
    ray = _import_ray()
    if ray.is_initialized():
        yield ray
        return
    ray.init(include_dashboard=False, logging_level=logging.WARNING)
    try:
        yield ray
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise ImportError("engine 'ray' needs Ray: pip install 'deepshap_ext[ray]'") from error
    return ray
