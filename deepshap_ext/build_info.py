"""What was built, and what of it this process has loaded."""

import platform
from typing import Any

from .ops.loading import BUILD, loaded


def build_info() -> dict[str, Any]:
    """The facts of the native build, and `libraries`: the paths of those loaded, by name.

    A build without CUDA kernels has an empty `cuda_version`; `_cuda` is not among the libraries where torch has no CUDA.

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
