"""``deepshap-ext info``: what is installed."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from .. import __version__
from ..build_info import build_info

#: What stores, their files and their engines need, beside torch.
_PACKAGES = ("numpy", "zarr", "ray", "h5py", "safetensors", "pandas", "pyarrow", "matplotlib")


def run(arguments: argparse.Namespace) -> int:
    facts = {
        "deepshap_ext": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}",
        **{name: _version(name) for name in _PACKAGES},
        **{f"build: {name.replace('_', ' ')}": value for name, value in build_info().items()},
        "cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads",
        **{f"cuda:{number}": _gpu(number) for number in range(torch.cuda.device_count())},
    }
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {_text(value)}")
    return 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _gpu(number: int) -> str:
    found = torch.cuda.get_device_properties(number)
    return f"{found.name}, {found.total_memory / 2**30:.0f} GiB, compute capability {found.major}.{found.minor}"


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(map(str, value.values())) or "none"
    return str(value) or "none"
