"""The store of attributions: a zarr v3 group on a file system, whose chunks are shards, each done or missing.

Every array has the samples as its first dimension and one chunk a shard, one file. The array ``checksums`` ``[shards, arrays]`` has the
CRC-32C of every chunk. Its own chunk of a shard is written after those of the other arrays are on the disk: a shard is done if it is there.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
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


class StoreError(RuntimeError):
    """The store cannot be used: it was made for something else, is not whole, or cannot be written."""


@dataclass(frozen=True)
class Column:
    """An array of the store: a row ``[*shape]`` of this ``dtype`` for every sample; ``dims``: what its dimensions are called."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    dims: tuple[str, ...]


class Store:
    """An existing store of attributions at ``path``.

    Raises:
        StoreError: there is none.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            #: What the store says of how it was made.
            self.made: dict[str, Any] = json.loads((self.path / "zarr.json").read_text())["attributes"][KEY]
        except (OSError, ValueError, KeyError) as error:
            raise StoreError(f"{self.path} is no store of attributions") from error
        if self.made["format"] != FORMAT:
            raise StoreError(f"{self.path} has format {self.made['format']}, where this version reads {FORMAT}")
        self.rows: int = self.made["rows"]
        self.shard_size: int = self.made["shard_size"]
        self.columns = [
            Column(one["name"], tuple(one["shape"]), np.dtype(one["dtype"]), tuple(one["dims"]))
            for one in self.made["columns"]
        ]

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return -(-self.rows // self.shard_size)

    def slice_of(self, shard: int) -> slice:
        """The samples of a shard."""
        first = shard * self.shard_size
        return slice(first, min(self.rows, first + self.shard_size))

    def is_done(self, shard: int) -> bool:
        return self._marker(shard).exists()

    def missing(self) -> list[int]:
        """The shards that are not done, in their order."""
        names = {entry.name for entry in os.scandir(self.path / CHECKSUMS)}
        return [shard for shard in range(self.shards) if self._marker(shard).name not in names]

    def write(self, shard: int, arrays: Mapping[str, Array]) -> None:
        """Put the rows of a shard into the store, ``arrays`` by the columns' names; when this returns, the shard is done.

        Raises:
            StoreError: the disk is full; what was done before stays.
        """
        files: dict[Path, bytes] = {}
        sums = []
        for column in self.columns:
            data, checksum = _chunk(arrays[column.name], column, self.shard_size)
            files[self._chunk_path(column, shard)] = data
            sums.append(checksum)
        write_all(files)
        marker, _ = _chunk(np.array([sums], np.uint32), Column(CHECKSUMS, (len(sums),), np.dtype("<u4"), ()), 1)
        write_all({self._marker(shard): marker})

    def forget(self, shard: int) -> None:
        """Have a shard count as missing."""
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
        """Remove what writers that were killed have left; only where none is at work."""
        for path in self.path.rglob(f"*{PARTIAL}"):
            path.unlink(missing_ok=True)

    def _chunk_path(self, column: Column, shard: int) -> Path:
        return self.path / column.name / ".".join(["c", str(shard), *["0"] * len(column.shape)])

    def _marker(self, shard: int) -> Path:
        return self.path / CHECKSUMS / f"c.{shard}.0"


def create(
    path: str | os.PathLike[str], rows: int, shard_size: int, columns: Sequence[Column], made: Mapping[str, Any]
) -> Store:
    """A new store at ``path``, all of whose shards are missing; or the one that another process has made there meanwhile.

    ``made``: what is to be said of how it is made, as JSON has it.
    """
    zarr = import_zarr()
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    root = final.with_name(f"{final.name}.{uuid.uuid4().hex}{PARTIAL}")
    described = [
        {"name": one.name, "shape": list(one.shape), "dtype": one.dtype.str, "dims": list(one.dims)} for one in columns
    ]
    attributes = {KEY: {"format": FORMAT, "rows": rows, "shard_size": shard_size, "columns": described, **made}}
    try:
        group = zarr.create_group(root, attributes=attributes)

        def array(name: str, shape: tuple[int, ...], chunk: int, dtype: Any, dims: Sequence[str]) -> None:
            group.create_array(
                name,
                shape=shape,
                chunks=(chunk, *shape[1:]),
                dtype=dtype,
                compressors=zarr.codecs.Crc32cCodec(),
                fill_value=np.nan if np.dtype(dtype).kind == "f" else 0,
                chunk_key_encoding={"name": "default", "separator": "."},
                dimension_names=list(dims),
            )

        for one in columns:
            array(one.name, (rows, *one.shape), shard_size, one.dtype, ["sample", *one.dims])
        shards = -(-rows // shard_size)
        array(CHECKSUMS, (shards, len(columns)), 1, "uint32", ["shard", "array"])
        publish(root, final)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return Store(final)


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


def _chunk(array: Array, column: Column, rows: int) -> tuple[bytes, int]:
    """The bytes of a chunk, as zarr's codecs "bytes" and "crc32c" have it, and the checksum; a short one is filled up."""
    if array.shape[1:] != column.shape:
        raise StoreError(f"{column.name}: all shards must have rows of shape {list(column.shape)}, got {shown(array)}")
    data = np.ascontiguousarray(array, column.dtype.newbyteorder("<"))
    if len(data) < rows:
        fill = np.nan if data.dtype.kind == "f" else 0
        data = np.concatenate([data, np.full((rows - len(data), *column.shape), fill, data.dtype)])
    content = data.tobytes()
    checksum = crc32c(content)
    return content + checksum.to_bytes(4, "little"), checksum


def _content(chunk: bytes) -> bytes | None:
    """What is in a chunk; None if its checksum is not its own."""
    content, checksum = chunk[:-4], chunk[-4:]
    return content if len(chunk) >= 4 and crc32c(content).to_bytes(4, "little") == checksum else None
