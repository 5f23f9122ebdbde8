"""What drives the shards of a job: this process alone, or many."""

from .alone import run_alone

__all__ = ["run_alone"]
