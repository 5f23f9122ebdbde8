"""What was built, and what of it this process has loaded."""

from typing import Any

from .ops.loading import loaded


def build_info() -> dict[str, Any]:
    """What the native libraries were built with, and which of them this process has loaded.

    Returns:
        A dict of ``cuda_version``, that of nvcc, None for a build without CUDA kernels; ``cuda_architectures``, a list as CMake names them;
        ``compiler``; ``torch_target``, the oldest torch that they load into; ``libraries``, the paths of those loaded, by name, among which
        ``_cuda`` is not where torch has no CUDA.
    """
    from . import _C  # type: ignore[attr-defined]

    return {**_C.build_info(), "libraries": dict(loaded)}
