"""Files that are there whole or not at all, also after a loss of power as far as the file system allows."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

#: How names of files that are being written end. One that is left over was never a part of the store.
PARTIAL = ".partial"


def write_all(files: Mapping[Path, bytes | memoryview]) -> None:
    """Write these files, each under another name until its bytes are on the disk.

    When this returns, all of them survive a loss of power. Where it raises, each is there whole, as it was before, or not at all.
    """
    partial = {path: path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}") for path in files}
    try:
        for path, data in files.items():
            with partial[path].open("wb") as file:
                file.write(data)
        # At once: the file system commits them together.
        with ThreadPoolExecutor(min(16, len(files))) as threads:
            list(threads.map(_synchronize, partial.values()))
            for path, other in partial.items():
                other.replace(path)
            list(threads.map(_synchronize, {path.parent for path in files}))
    except BaseException:
        for other in partial.values():
            with suppress(OSError):
                other.unlink(missing_ok=True)
        raise


def synchronize_tree(root: Path) -> None:
    """Have all files and folders under ``root`` on the disk."""
    paths: Iterable[Path] = (root, *root.rglob("*"))
    for path in paths:
        _synchronize(path)


def publish(root: Path, final: Path) -> bool:
    """Give a folder that was made under another name its ``final`` one; False if there is a folder that is not empty already."""
    synchronize_tree(root)
    try:
        root.rename(final)
    except OSError:
        if final.is_dir():
            return False
        raise
    _synchronize(final.parent)
    return True


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
