"""A job on a Ray cluster: an actor a GPU, or a share of the cores where there are none, each given one shard after the other.

The driver knows which shards are missing, and an actor holds nothing that could be lost: what it was at when it died is given to another.
Actors are started as the cluster has room for them, so that nodes may come and go.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count, islice
from threading import Lock
from typing import Any, NamedTuple

from ..shards import explain_shard, finish
from ..store import Store
from .alone import Open, log_shard
from .bar import Bar
from .todo import Todo

#: Shards that an actor has at once: one is written while the next is explained.
_AT_ONCE = 2
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
        done = (shard for shard, _ in results if shard is not None)
        with Bar(store, missing, baselines, progress) as bar:
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
        return socket.gethostname(), self._store, self._job.baselines_a_sample()

    def explain(self, shard: int) -> None:
        explain_shard(self._store, self._job, shard, self._turn)


class _Task(NamedTuple):
    """What an ``actor``, which messages call ``name``, is at: a shard, or None while it opens the store."""

    actor: Any
    name: str
    shard: int | None
    begun: float


class _Actors:
    def __init__(self, ray: Any, opened: Open, cores: int) -> None:
        self._ray, self._opened, self._cores = ray, ray.put(opened), cores
        #: Shards that are to be given to actors.
        self.todo = Todo()
        self._alive: set[Any] = set()
        #: Who can be given a shard, with its name; an actor is in it once for each that it can be given.
        self._free: deque[tuple[Any, str]] = deque()
        self._tasks: dict[Any, _Task] = {}
        self._numbers = count()
        self._looked = float("-inf")

    def results(self) -> Iterator[tuple[int | None, Any]]:
        """Without end, each shard that is done; and None, with what :meth:`Worker.open` returned, for each actor that has opened the
        store."""
        while True:
            self._grow()
            self._hand_out()
            # One at a time: of those that are done, Ray gives that which was begun first.
            done, _ = self._ray.wait(list(self._tasks), timeout=_LOOK)
            for reference in done:
                task = self._tasks.pop(reference)
                try:
                    result = self._ray.get(reference)
                except self._ray.exceptions.RayActorError as error:
                    # Each task that the actor had at once comes here by itself.
                    self._alive.discard(task.actor)
                    self.todo.again(task.shard, task.name, error)
                    continue
                except self._ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                self.todo.done(task.shard)
                if task.shard is None:
                    self._free.extend([(task.actor, f"{task.name} on {result[0]}")] * _AT_ONCE)
                else:
                    log_shard(task.name, task.shard, task.begun)
                    self._free.append((task.actor, task.name))
                yield task.shard, result

    def close(self) -> None:
        for actor in self._alive:
            with suppress(self._ray.exceptions.RayError):
                self._ray.kill(actor)

    def _grow(self) -> None:
        """Start as many actors as the cluster has room for; those that it has no room for yet wait."""
        if time.monotonic() - self._looked < _LOOK:
            return
        self._looked = time.monotonic()
        room = self._ray.cluster_resources()
        gpus = int(room.get("GPU", 0))
        for _ in range((gpus or max(1, int(room.get("CPU", 0)) // self._cores)) - len(self._alive)):
            remote = self._ray.remote(num_cpus=self._cores, num_gpus=1 if gpus else 0, max_concurrency=_AT_ONCE)
            actor = remote(Worker).remote()
            self._alive.add(actor)
            self._tasks[actor.open.remote(self._opened)] = _Task(
                actor, f"worker {next(self._numbers)}", None, self._looked
            )

    def _hand_out(self) -> None:
        """Give shards to actors that have opened the store and are not busy."""
        while self.todo and self._free:
            actor, name = self._free.popleft()
            if actor in self._alive:
                shard = self.todo.popleft()
                self._tasks[actor.explain.remote(shard)] = _Task(actor, name, shard, time.monotonic())


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected to a cluster: the one that it is connected to already or knows of, or one of this machine alone."""
    try:
        import ray
    except ImportError as error:
        raise ImportError("engine 'ray' needs Ray: pip install 'deepshap_ext[ray]'") from error
    if ray.is_initialized():
        yield ray
    else:
        with ray.init(include_dashboard=False, logging_level=logging.WARNING):
            yield ray
