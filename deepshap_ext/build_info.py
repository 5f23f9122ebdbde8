"""What was built, and what of it this process has loaded."""

from typing import Any

from .ops.loading import loaded


def build_info() -> dict[str, Any]:
    """The facts of the native build, and `libraries`: the paths of those loaded, by name.

    A build without CUDA kernels has an empty `cuda_version`; `_cuda` is not among the libraries where torch has no CUDA.
    """
    from . import _C  # type: ignore[attr-defined]

    return {**_C.build_info(), "libraries": dict(loaded)}
