"""Explanations of many samples, into a store that outlives the process: see docs/scale.md."""

from .job import Job
from .keep import Keep
from .run import explain_to, open_store
from .shards import explain_shard
from .store import Store, StoreError
from .verify import verify

__all__ = ["Job", "Keep", "Store", "StoreError", "explain_shard", "explain_to", "open_store", "verify"]
