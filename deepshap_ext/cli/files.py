"""Arrays in files, as a command names them: ``FILE``, or ``FILE:KEY`` where a file holds several. Nothing is unpickled."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CommandError

#: What is read from a path and the key behind it, which is empty where none was given.
Reader = Callable[[Path, str], Any]


def names_file(text: str) -> bool:
    """Whether this names an array in a file, by how the file's name ends."""
    return _SPELLED.fullmatch(text) is not None


def read_array(option: str, text: str) -> Any:
    """What has the shape and the slices of the array that ``text`` names.

    Raises:
        CommandError: there is no such file or array in it, it holds Python objects, or a package that reads it is missing.
    """
    match = _SPELLED.fullmatch(text)
    if match is None:
        raise CommandError(f"{option} must name a file that ends in one of {', '.join(READERS)}, got {text}")
    path, key = Path(match["path"]), match["key"] or ""
    if not path.exists():
        raise CommandError(f"{option}: there is no file {path}")
    try:
        return READERS[path.suffix](path, key)
    except Exception as error:
        # Each format's reader has its own errors for files that are not in that format.
        raise CommandError(f"{option}: {text}: {error}") from error


def optional(package: str, what: str) -> Any:
    """A package that this one does without.

    Raises:
        CommandError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.split(".")[0]
        raise CommandError(f"{what} needs {name}: pip install {name}") from error


def chosen(path: Path, key: str, keys: list[str]) -> str:
    """The key of the array that is meant: the only one where none was given."""
    if not key and len(keys) == 1:
        return keys[0]
    if key not in keys:
        raise CommandError(f"{path} holds {', '.join(sorted(keys)) or 'nothing'}: give one of them as {path}:KEY")
    return key


def _npy(path: Path, key: str) -> Any:
    if key:
        raise CommandError("a .npy file holds one array, which has no key")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _npz(path: Path, key: str) -> Any:
    with np.load(path, allow_pickle=False) as arrays:
        return arrays[chosen(path, key, arrays.files)]


def _hdf5(path: Path, key: str) -> Any:
    h5py = optional("h5py", "reading HDF5")
    file = h5py.File(path, "r")
    if key not in file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        key = chosen(path, key, names)
    return file[key]


def _zarr(path: Path, key: str) -> Any:
    zarr = optional("zarr", "reading zarr")
    found = zarr.open(path, mode="r")
    if isinstance(found, zarr.Array):
        return found
    return found[chosen(path, key, [name for name, item in found.members(None) if isinstance(item, zarr.Array)])]


def _safetensors(path: Path, key: str) -> Any:
    with optional("safetensors", "reading safetensors").safe_open(path, "pt") as file:
        return file.get_tensor(chosen(path, key, list(file.keys())))


def _csv(path: Path, key: str) -> Any:
    return _columns(path, key, optional("pandas", "reading .csv").read_csv(path))


def _parquet(path: Path, key: str) -> Any:
    pandas = optional("pandas", "reading .parquet")
    optional("pyarrow", "reading .parquet")
    return _columns(path, key, pandas.read_parquet(path))


def _columns(path: Path, key: str, table: Any) -> Any:
    """The columns of a table that the key names, separated by commas; all where none was given."""
    names = key.split(",") if key else list(table.columns)
    if unknown := [name for name in names if name not in table.columns]:
        raise CommandError(
            f"there is no column {', '.join(unknown)} among {', '.join(map(str, table.columns))}: give columns as {path}:NAME,NAME"
        )
    wrong = [name for name in names if table[name].dtype.kind not in "iufb"]
    if wrong:
        raise CommandError(
            f"columns must hold numbers, got {', '.join(f'{name} ({table[name].dtype})' for name in wrong)}"
        )
    # One column alone is a list of targets or weights as often as a feature: it has one dimension only if it was named so.
    return table[names[0]].to_numpy() if key and len(names) == 1 else table[names].to_numpy()


READERS: dict[str, Reader] = {
    ".npy": _npy,
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".zarr": _zarr,
    ".safetensors": _safetensors,
    ".csv": _csv,
    ".parquet": _parquet,
}
_SPELLED = re.compile(rf"(?P<path>.+?(?:{'|'.join(map(re.escape, READERS))}))(?::(?P<key>.+))?", re.DOTALL)
