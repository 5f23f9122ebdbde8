"""A job on a Ray cluster: an actor a GPU, or a share of the cores where there are none, each given one shard after the other.

The driver knows which shards are missing, and an actor holds nothing that could be lost: what it was at when it died is given to another.
Actors are started as the cluster has room for them, so that nodes may come and go.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count, islice
from threading import Lock
from typing import Any, NamedTuple

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
        results = actors.results()
        # As no actor has been given a shard, the first result is that of opening the store.
        _, (_, store, baselines) = next(results)
        missing = store.missing()
        actors.todo.extend(missing)
        initial = store.rows - sum(map(store.rows_of, missing))
        done = (shard for shard, _ in results if shard is not None)
        with Bar(store.rows, initial, baselines, progress) as bar:
            for shard in islice(done, len(missing)):
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


class _Task(NamedTuple):
    """What an ``actor`` is at: a shard, or None while it opens the store."""

    actor: Any
    shard: int | None
    begun: float


class _Actors:
    def __init__(self, ray: Any, opened: Open, cores: int) -> None:
        self._ray, self._opened, self._cores = ray, ray.put(opened), cores
        #: Shards that are to be given to actors.
        self.todo: deque[int] = deque()
        #: What messages call each actor.
        self._names: dict[Any, str] = {}
        self._tasks: dict[Any, _Task] = {}
        self._deaths: Counter[int | None] = Counter()
        self._numbers = count()
        self._looked = float("-inf")

    def results(self) -> Iterator[tuple[int | None, Any]]:
        """Without end, each shard that is done; and None, with what :meth:`Worker.open` returned, for each actor that has opened the
        store."""
        while True:
            self._grow()
            self._hand_out()
            tasks = list(self._tasks)
            done, _ = self._ray.wait(tasks, timeout=_LOOK)
            if done:
                done, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
            for reference in done:
                # What a lost actor was at has been taken from it.
                if (task := self._tasks.pop(reference, None)) is None:
                    continue
                try:
                    result = self._ray.get(reference)
                except self._ray.exceptions.RayActorError:
                    self._lose(task)
                    continue
                except self._ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                if task.shard is None:
                    self._names[task.actor] += f" on {result[0]}"
                else:
                    log_shard(self._names[task.actor], task.shard, task.begun)
                yield task.shard, result

    def close(self) -> None:
        for actor in self._names:
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)

    def _grow(self) -> None:
        """Start as many actors as the cluster has room for; those that it has no room for yet wait."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        room = self._ray.cluster_resources()
        gpus = int(room.get("GPU", 0))
        for _ in range((gpus or max(1, int(room.get("CPU", 0)) // self._cores)) - len(self._names)):
            remote = self._ray.remote(num_cpus=self._cores, num_gpus=1 if gpus else 0, max_concurrency=_AT_ONCE)
            actor = remote(Worker).remote()
            self._names[actor] = f"worker {next(self._numbers)}"
            self._tasks[actor.open.remote(self._opened)] = _Task(actor, None, self._looked)

    def _hand_out(self) -> None:
        """Give shards to actors that have opened the store and are not busy."""
        busy = Counter(task.actor for task in self._tasks.values())
        opening = {task.actor for task in self._tasks.values() if task.shard is None}
        for actor in self._names.keys() - opening:
            for _ in range(min(_AT_ONCE - busy[actor], len(self.todo))):
                shard = self.todo.popleft()
                self._tasks[actor.explain.remote(shard)] = _Task(actor, shard, time.monotonic())

    def _lose(self, first: _Task) -> None:
        """Have others do what an actor that died was at: the ``first`` of its tasks, and the rest."""
        rest = [reference for reference, task in self._tasks.items() if task.actor == first.actor]
        name = self._names.pop(first.actor)
        for shard in (first.shard, *(self._tasks.pop(reference).shard for reference in rest)):
            what = "opening the store" if shard is None else f"shard {shard}"
            logger.warning("%s is lost at %s, which another does", name, what)
            self._deaths[shard] += 1
            if self._deaths[shard] == _DEATHS:
                raise StoreError(f"{_DEATHS} workers died at {what}: what was done stays, and the same call continues")
            if shard is not None:
                self.todo.append(shard)


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
