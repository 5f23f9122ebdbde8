"""What was built, and what of it this process has loaded."""

import platform
from typing import Any

from .ops.loading import BUILD, loaded


def build_info() -> dict[str, Any]:
    """What the native libraries were built with, and which of them this process has loaded.

    Returns:
        A dict of ``cuda_version``, that of nvcc, None for a build without CUDA kernels; ``cuda_architectures``, a list as CMake names them;
        ``compiler``; ``torch_target``, the oldest torch that they load into; ``libraries``, the paths of those loaded, by name, among which
        ``_cuda`` is not where torch has no CUDA.

    Raises:
        ImportError: the package was built for another Python than this one.
    """
    try:
        from . import _C  # type: ignore[attr-defined]
    except ImportError as error:
        raise ImportError(
            f"deepshap_ext: its module _C was not built for Python {platform.python_version()}; "
            f"rebuild it with `{BUILD}`: {error}"
        ) from error
    return {**_C.build_info(), "libraries": dict(loaded)}
