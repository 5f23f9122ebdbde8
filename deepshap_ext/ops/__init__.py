"""The native operations: one file an op, with its wrapper, its fake and its batching rule side by side."""

from .loading import load_libraries

load_libraries()

from .rescale import rescale as rescale  # noqa: E402

__all__ = ["rescale"]
