"""A job on a Ray cluster: an actor a GPU, or a core where there are none, each given one shard after the other.

The driver holds what is missing, and nothing that an actor could lose: a shard whose actor died is given to another one. Actors are started
as the cluster has room for them, so that nodes may come and go.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from importlib import import_module
from threading import Lock
from typing import Any

import torch

from ..shards import finish
from ..store import Store, StoreError
from .alone import Open, log_shard
from .bar import Bar

logger = logging.getLogger("deepshap_ext.scale")

#: Shards that an actor has at once: one is written while the next is explained.
_AT_ONCE = 2
#: How many actors may die of the same shard, and before they have opened the store, until the job is given up.
_DEATHS = 8
#: Seconds between two looks at how large the cluster is.
_LOOK = 1.0


class Worker:
    """What an actor is: a process that has opened the store of a job."""

    def __init__(self) -> None:
        self._lock = Lock()

    def open(self, opened: Open) -> tuple[str, Store, int]:
        """Where this is, the store, and how many baselines a sample has."""
        import ray

        node = ray.get_runtime_context().get_node_id()[:8]
        ...
