"""Explanations of many samples, into a store that outlives the process: see docs/guides/scale.md."""

from .job import Job
from .keep import Keep
from .run import explain_to, open_store
from .shards import explain_shard, explain_shards, finish
from .store import Store, StoreError
from .summary import Summary, summarize
from .verify import verify

__all__ = [
    "Job",
    "Keep",
    "Store",
    "StoreError",
    "Summary",
    "explain_shard",
    "explain_shards",
    "explain_to",
    "finish",
    "open_store",
    "summarize",
    "verify",
]
