"""The store of attributions: a zarr v3 group on a file system, whose chunks are shards, each done or missing.

Every array has the samples as its first dimension and one chunk a shard, one file. The array ``checksums`` ``[shards, arrays]`` has the
CRC-32C of every chunk. Its own chunk of a shard is written after those of the other arrays are on the disk: a shard is done if it is there.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..arguments import shown
from .durable import PARTIAL, publish, write_all

Array = np.ndarray[Any, Any]

#: The key of a group's attributes under which there is what the package writes.
KEY = "deepshap_ext"
FORMAT = 1
CHECKSUMS = "checksums"


#: Why something cannot be written, and what must be so that it can, by the system's number of the error.
_UNWRITABLE = {
    errno.ENOSPC: ("the disk is full", "there is room"),
    errno.EDQUOT: ("the quota is used up", "there is room"),
    errno.EFBIG: ("a file must not become so large", "the limit (ulimit -f) is raised"),
    errno.EROFS: ("the file system is read-only", "it can be written to"),
    errno.EACCES: ("this user has no permission", "it is given"),
    errno.EPERM: ("this user has no permission", "it is given"),
}


class StoreError(RuntimeError):
    """The store cannot be used: it was made for something else, is not whole, or cannot be written."""


@contextmanager
def _writing(what: str, kept: Callable[[], str] = str) -> Iterator[None]:
    """Where ``what`` is written.

    Raises:
        StoreError: it cannot be: why, what to do for lack of room or permission, and what is ``kept`` of earlier work.
    """
    try:
        yield
    except FileNotFoundError:
        raise  # another process may have made the store meanwhile
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise StoreError(f"{what} cannot be written: {error.strerror}{kept()}") from error
        why, cured = _UNWRITABLE[error.errno]
        raise StoreError(f"{what} cannot be written, {why}: once {cured}, the same call continues{kept()}") from error


def path_of(store: Any) -> Path:
    """Where a store is to lie, which must be a file system: a store is made by renaming a folder, which object stores have none of."""
    if not isinstance(store, (str, os.PathLike)):
        raise TypeError(f"store must be a path, got {shown(store)}")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", os.fspath(store)):
        raise ValueError(
            f"store must be a path on a file system, got {str(store)!r}: write it to one and copy the folder, which zarr reads anywhere"
        )
    return Path(store)


@dataclass(frozen=True)
class Column:
    """An array of the store: a row ``[*shape]`` of this ``dtype`` for every sample, or one for every shard (``by_shard``); ``dims``: what
    its dimensions are called."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...]
    by_shard: bool = False

    def described(self) -> dict[str, Any]:
        return {**vars(self), "dtype": self.dtype.str}


class Store:
    """An existing store of attributions at ``path``.

    It has ``rows`` samples in ``shards`` shards of ``shard_size``; ``made`` says how: versions, options and fingerprints.

    Raises:
        StoreError: there is none, or one of a format that this version does not read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path_of(path)
        try:
            #: What the store says of how it was made.
            self.made: dict[str, Any] = json.loads((self.path / "zarr.json").read_text())["attributes"][KEY]
            if self.made["format"] != FORMAT:
                raise StoreError(f"{self.path} has format {self.made['format']}, where this version reads {FORMAT}")
            self.rows: int = self.made["rows"]
            self.shard_size: int = self.made["shard_size"]
            #: How many samples are explained at once.
            self.block_size: int = self.made["block_size"]
            self.columns = [
                Column(one["name"], tuple(one["shape"]), np.dtype(one["dtype"]), tuple(one["dims"]), one["by_shard"])
                for one in self.made["columns"]
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self.path} is no store of attributions") from error

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.rows // self.shard_size)

    def slice_of(self, shard: int) -> slice:
        """The samples of the ``shard``."""
        first = shard * self.shard_size
        return slice(first, min(self.rows, first + self.shard_size))

    def rows_of(self, shard: int) -> int:
        """How many samples a shard has."""
        here = self.slice_of(shard)
        return here.stop - here.start

    def is_done(self, shard: int) -> bool:
        return self._marker(shard).exists()

    def missing(self) -> list[int]:
        """The shards that are not done, in their order."""
        folder = self.path / CHECKSUMS
        names = {entry.name for entry in os.scandir(folder)} if folder.is_dir() else set()
        return [shard for shard in range(self.shards) if self._marker(shard).name not in names]

    def write(self, shard: int, arrays: Mapping[str, Array], warnings: Sequence[str] = ()) -> None:
        """Put the rows of a shard into the store, ``arrays`` by the columns' names, and what its explanation warned of; when this returns,
        the shard is done.

        Raises:
            StoreError: it cannot be written, as on a full disk; what was done before stays.
        """
        files: dict[Path, bytes] = {}
        sums = []
        for column in self.columns:
            rows = 1 if column.by_shard else self.shard_size
            chunk = _encoded(_filled(arrays[column.name], column, rows), column.dtype)
            files[self._chunk_path(column, shard)] = chunk
            sums.append(chunk[-4:])
        if warnings:
            files[self._warnings(shard)] = json.dumps(list(warnings)).encode()
        marker = _encoded(np.frombuffer(b"".join(sums), "<u4"), np.dtype(np.uint32))
        what = f"shard {shard} of {self.path}, {sum(map(len, files.values()))} bytes,"
        try:
            with _writing(what, self._how_much_is_done):
                write_all(files)
                write_all({self._marker(shard): marker})
        except FileNotFoundError:
            # Another process may have done it meanwhile, and cleaned up.
            if not self.is_done(shard):
                raise

    def read(self, name: str, shard: int) -> Array:
        """The rows ``[samples, ...]`` of the ``shard``, which must be done, of the array ``name``: ``values``, ``output`` and so on.

        Raises:
            StoreError: they are missing or corrupt.
        """
        column = next(one for one in self.columns if one.name == name)
        path = self._chunk_path(column, shard)
        content = _content(path.read_bytes()) if path.exists() else None
        if content is None:
            raise StoreError(
                f"{path} is {'corrupt' if path.exists() else 'missing'}: verify({str(self.path)!r}, forget=True)"
            )
        here = self.slice_of(shard)
        rows = 1 if column.by_shard else here.stop - here.start
        return np.frombuffer(content, column.dtype.newbyteorder("<")).reshape(-1, *column.shape)[:rows].copy()

    def warnings(self) -> dict[int, list[str]]:
        """What the explanations of shards that are done warned of, by shard."""
        paths = (self.path / CHECKSUMS).glob("warnings.*.json")
        found = {int(path.name.split(".")[1]): json.loads(path.read_text()) for path in paths}
        return {shard: found[shard] for shard in sorted(found) if self.is_done(shard)}

    def write_whole(self, arrays: Mapping[str, Array]) -> None:
        """Write arrays that are no shard's, in one chunk each, in the place of what they were before.

        Raises:
            StoreError: they cannot be written, as on a full disk; what was done before stays.
        """
        zarr = import_zarr()
        group = zarr.open_group(self.path, mode="r+")
        with _writing(f"the summary of {self.path}", self._how_much_is_done):
            for name, array in arrays.items():
                if name not in group:
                    _create(zarr, group, name, array.shape, array.shape, array.dtype, None)
                key = ".".join(["c", *["0"] * array.ndim])
                write_all({self.path / name / key: _encoded(array, array.dtype)})

    def undescribed(self) -> dict[str, str]:
        """The arrays without a file that says what they are, and what is wrong with it: ``values/zarr.json is missing``."""
        found = {}
        for name, *_ in _arrays(self.rows, self.shard_size, self.columns):
            path = self.path / name / "zarr.json"
            try:
                json.loads(path.read_text())
            except (OSError, ValueError):
                found[name] = f"{path.relative_to(self.path)} is {'corrupt' if path.exists() else 'missing'}"
        return found

    def describe(self) -> None:
        """Write anew what says what an array is, where it is missing or corrupt.

        Raises:
            StoreError: it cannot be written, as on a full disk.
        """
        lost = self.undescribed()
        if not lost:
            return
        zarr = import_zarr()
        with _writing(str(self.path)):
            for name in lost:
                (self.path / name / "zarr.json").unlink(missing_ok=True)
            group = zarr.open_group(self.path, mode="r+")
            for name, shape, chunks, dtype, dims in _arrays(self.rows, self.shard_size, self.columns):
                if name in lost:
                    _create(zarr, group, name, shape, chunks, dtype, dims)

    def forget(self, shard: int) -> None:
        """Have a shard count as missing."""
        with _writing(str(self.path)):
            self._marker(shard).unlink(missing_ok=True)

    def damage(self, shard: int) -> list[str]:
        """What is wrong with the files of a shard that is done."""
        marker = self._marker(shard)
        sums = _content(marker.read_bytes())
        if sums is None or len(sums) != 4 * len(self.columns):
            return [f"{marker.relative_to(self.path)} is corrupt"]
        found = []
        for column, checksum in zip(self.columns, np.frombuffer(sums, "<u4").tolist(), strict=True):
            path = self._chunk_path(column, shard)
            name = path.relative_to(self.path)
            if not path.exists():
                found.append(f"{name} is missing")
            elif (content := _content(path.read_bytes())) is None or crc32c(content) != checksum:
                found.append(f"{name} is corrupt")
        return found

    def clean(self) -> None:
        """Remove what processes that were killed have left, of files in the store and of stores that were to lie here; only where none is
        at work."""
        with _writing(str(self.path)):
            for path in self.path.rglob(f"*{PARTIAL}"):
                path.unlink(missing_ok=True)
        made_here = re.compile(re.escape(self.path.name) + r"\.[0-9a-f]{32}" + re.escape(PARTIAL))
        for path in self.path.absolute().parent.iterdir():
            if made_here.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def _how_much_is_done(self) -> str:
        """The end of a message."""
        return f"; {self.shards - len(self.missing())} of {self.shards} shards are done and stay"

    def _chunk_path(self, column: Column, shard: int) -> Path:
        return self.path / column.name / ".".join(["c", str(shard), *["0"] * len(column.shape)])

    def _warnings(self, shard: int) -> Path:
        return self.path / CHECKSUMS / f"warnings.{shard}.json"

    def _marker(self, shard: int) -> Path:
        return self.path / CHECKSUMS / f"c.{shard}.0"


def create(
    path: str | os.PathLike[str],
    rows: int,
    shard_size: int,
    block_size: int,
    columns: Sequence[Column],
    made: Mapping[str, Any],
) -> Store:
    """A new store at ``path``, all of whose shards are missing; or the one that another process has made there meanwhile.

    ``made``: what is to be said of how it is made, as JSON has it.

    Raises:
        StoreError: it cannot be written there, as on a full disk.
    """
    final = Path(path)
    if final.name in ("", ".."):
        raise ValueError(f"store must be a path that ends in a name, got {str(path)!r}")
    root = final.with_name(f"{final.name}.{uuid.uuid4().hex}{PARTIAL}")
    described = [one.described() for one in columns]
    sizes = {"rows": rows, "shard_size": shard_size, "block_size": block_size}
    attributes = {KEY: {"format": FORMAT, **sizes, "columns": described, **made}}
    try:
        with _writing(str(final)):
            final.parent.mkdir(parents=True, exist_ok=True)
            _lay_out(root, rows, shard_size, columns, attributes)
            publish(root, final)
    except FileNotFoundError as error:
        # Another process may have made the store meanwhile, finished it and cleaned up.
        if not final.exists():
            raise StoreError(f"{final} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return Store(final)


def _lay_out(root: Path, rows: int, shard_size: int, columns: Sequence[Column], attributes: Mapping[str, Any]) -> None:
    """A group at ``root`` with the arrays of a store, of which nothing is written yet."""
    zarr = import_zarr()
    group = zarr.create_group(root, attributes=attributes)
    for one in _arrays(rows, shard_size, columns):
        _create(zarr, group, *one)


def _arrays(
    rows: int, shard_size: int, columns: Sequence[Column]
) -> Iterator[tuple[str, tuple[int, ...], tuple[int, ...], np.dtype[Any], list[str]]]:
    """Name, shape, shape of a chunk, dtype and names of dimensions of the arrays of a store."""
    shards = -(-rows // shard_size)
    for one in columns:
        if one.by_shard:
            yield one.name, (shards, *one.shape), (1, *one.shape), one.dtype, ["shard", *one.dims]
        else:
            yield one.name, (rows, *one.shape), (shard_size, *one.shape), one.dtype, ["sample", *one.dims]
    yield CHECKSUMS, (shards, len(columns)), (1, len(columns)), np.dtype(np.uint32), ["shard", "array"]


def _create(
    zarr: Any,
    group: Any,
    name: str,
    shape: Sequence[int],
    chunks: Sequence[int],
    dtype: np.dtype[Any],
    dims: Sequence[str] | None,
) -> None:
    """An array whose chunks are files ``c.0.0`` in its folder, as :func:`_encoded` makes them."""
    group.create_array(
        name,
        shape=tuple(shape),
        chunks=tuple(chunks),
        dtype=dtype,
        compressors=zarr.codecs.Crc32cCodec(),
        fill_value=_fill(dtype),
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=dims and list(dims),
    )


def import_zarr() -> Any:
    """The optional package zarr, version 3 or later."""
    try:
        import zarr
        import zarr.codecs
    except ImportError as error:
        raise ImportError("a store needs zarr 3: pip install 'deepshap_ext[scale]'") from error
    if int(zarr.__version__.split(".")[0]) < 3:
        raise ImportError(f"a store needs zarr 3, got {zarr.__version__}: pip install 'deepshap_ext[scale]'")
    return zarr


def crc32c(data: bytes) -> int:
    import google_crc32c

    return int(google_crc32c.value(data))


def _filled(array: Array, column: Column, rows: int) -> Array:
    """A chunk's rows, which must be the column's; a short chunk is filled up."""
    if array.shape[1:] != column.shape:
        raise StoreError(f"{column.name}: all shards must have rows of shape {list(column.shape)}, got {shown(array)}")
    if len(array) == rows:
        return array
    return np.concatenate([array, np.full((rows - len(array), *column.shape), _fill(column.dtype), column.dtype)])


def _fill(dtype: np.dtype[Any]) -> float:
    """What stands where nothing has been written."""
    return np.nan if dtype.kind == "f" else 0


def _encoded(array: Array, dtype: np.dtype[Any]) -> bytes:
    """The bytes of a chunk, as zarr's codecs "bytes" and "crc32c" have them."""
    content = np.ascontiguousarray(array, dtype.newbyteorder("<")).tobytes()
    return content + crc32c(content).to_bytes(4, "little")


def _content(chunk: bytes) -> bytes | None:
    """What is in a chunk; None if its checksum is not its own."""
    content, checksum = chunk[:-4], chunk[-4:]
    return content if len(chunk) >= 4 and crc32c(content).to_bytes(4, "little") == checksum else None
