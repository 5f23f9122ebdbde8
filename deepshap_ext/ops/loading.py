"""Loads the op libraries; a library that is missing where it is needed is an error, never a silent fallback."""

from pathlib import Path

import torch

NAMESPACE = "deepshap_ext"
OPS = ("rescale", "product", "midpoint", "maxpool", "shapley_max", "softmax", "norm", "recurrence", "contribution")
FOLDER = Path(__file__).resolve().parent.parent
BUILD = "pip install --no-build-isolation -e ."

loaded: dict[str, str] = {}
"""The paths of the libraries that were loaded, by name."""


def _load(name: str) -> None:
    path = FOLDER / f"{name}.so"
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise ImportError(
            f"deepshap_ext: {path} does not load into torch {torch.__version__} (2.11 or later is needed); "
            f"rebuild it with `{BUILD}`: {error}"
        ) from error
    loaded[name] = str(path)


def _check_ops(path: Path) -> None:
    """Refuse a library that was built from another version of the sources and lacks operations of this one."""
    missing = [op for op in OPS if not hasattr(getattr(torch.ops, NAMESPACE), op)]
    if missing:
        raise ImportError(
            f"deepshap_ext: {path} was built from other sources, which have no {', '.join(missing)}; "
            f"rebuild it with `{BUILD}`"
        )


def _missing_cuda(op: str) -> None:
    """Register a CUDA kernel of `op` that says that none was built."""

    def refuse(*_: object) -> None:
        raise RuntimeError(
            f"{op}: deepshap_ext was built without CUDA kernels; with nvcc on PATH, rebuild it with `{BUILD}`"
        )

    torch.library.impl(f"{NAMESPACE}::{op}", "cuda")(refuse)


def load_libraries() -> None:
    """Load `_cpu.so`, and `_cuda.so` where torch itself was built with CUDA."""
    if not (FOLDER / "_cpu.so").exists():
        raise ImportError(
            f"deepshap_ext: {FOLDER / '_cpu.so'} was not built; build it with `{BUILD}`, "
            "or, where the package is installed, start Python outside of its source folder"
        )
    _load("_cpu")
    _check_ops(FOLDER / "_cpu.so")
    if torch.version.cuda is None:
        return
    if (FOLDER / "_cuda.so").exists():
        _load("_cuda")
    else:
        for op in OPS:
            _missing_cuda(op)
