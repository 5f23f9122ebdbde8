"""How much memory passes take and how much there is, and the error where it does not do."""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .capture.dependence import tensors_in
from .errors import ExplanationError, OutOfMemoryError


class MemoryMeter(TorchDispatchMode):
    """Counts bytes of the tensors that operations in this context make: ``live`` now, ``peak`` at most, and ``largest`` of one tensor."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self.largest = 0
        self._alive: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled in this context. True would have torch import torch._dynamo, which takes seconds.
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given: set[int] | None = None
        for tensor in _dense_in(result):
            storage = tensor.untyped_storage()
            key = storage._cdata
            if key in self._alive:
                continue
            if given is None:
                given = {tensor.untyped_storage()._cdata for tensor in _dense_in((args, kwargs))}
            if key not in given:
                self._made(storage, key)
        self.peak = max(self.peak, self.live)
        return result

    def _made(self, storage: torch.UntypedStorage, key: int) -> None:
        size = storage.nbytes()
        self._alive.add(key)
        self.live += size
        self.largest = max(self.largest, size)
        # The storage's Python object lives as long as the memory does, also where only the autograd graph holds it.
        finalize(storage, self._freed, key, size).atexit = False

    def _freed(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.live -= size


def _dense_in(value: Any) -> Iterator[Tensor]:
    """The dense tensors in ``value``: sparse ones, which are constants of a model, have no storage."""
    return (tensor for tensor in tensors_in(value) if tensor.layout == torch.strided)


#: The most bytes that a tensor on the CPU should have if it is made and freed over and over. glibc returns larger blocks (from 32 MiB on)
#: to the system each time, and writing to fresh pages is several times slower than to warm ones.
WARM = 16 << 20

#: How many times the bytes in use glibc's heap takes up, at most, where tensors of many sizes come and go (measured on glibc 2.36).
HEAP = 5

_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
#: The address of the block that keeps the free memory before it from being returned to the system; none until the first call of
#: keep_freed_memory. Threads that choose another take turns.
_last: list[int] = []
_changing = Lock()


def keep_freed_memory(budget: int) -> None:
    """Have glibc keep freed tensors of up to WARM bytes for the next ones: 256 MiB, or ``budget`` if that is less.

    glibc takes a block from its heap if it is smaller than the largest block below 32 MiB that was ever freed, and returns to the system
    what is free at the end of the heap. So one block of nearly 32 MiB is allocated and freed; and of a stretch of free blocks the last is
    held, so that those before it do not lie at the end. Nothing is written to these blocks, so they take addresses and no memory; where
    addresses are short, nothing is kept. Others may take what lies before the held block: it is chosen anew, before the old one is freed,
    where less than was to be kept is free there. It is not chosen anew otherwise, since it moves back each time: tensors would come to lie
    all over an ever longer heap, each of whose pages takes memory once it was written to. Nor is it for a budget of a single block, once
    any is held. Other allocators take no notice.
    """
    blocks = min(budget // WARM, 16)
    if _LIBC is None or not blocks or (_last and (blocks == 1 or _free_before_the_end() >= blocks * WARM)):
        return
    _LIBC.free(_allocated((32 << 20) - 8192))
    # Not by torch, whose blocks are aligned: of an aligned one, glibc hands out what lies before and behind it, so that its place, once it
    # is free, is too small for an aligned one of the same size. With 4 KiB more than WARM, tensors of WARM bytes fit.
    found = sorted(_allocated(WARM + 4096) for _ in range(blocks + 1))
    if all(found):
        with _changing:
            found, _last[:] = _last + found[:-1], found[-1:]
    for address in found:
        _LIBC.free(address)


def give_back_freed_memory() -> None:
    """Have glibc return what is free between the blocks of its heap to the system. Other C libraries take no notice."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


def resident_memory() -> int:
    """Bytes of this process that lie in memory; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * mmap.PAGESIZE


class _Heap(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    ]


if _LIBC is not None:
    _LIBC.malloc.argtypes, _LIBC.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    _LIBC.free.argtypes, _LIBC.free.restype = [ctypes.c_void_p], None
    if hasattr(_LIBC, "mallinfo2"):
        _LIBC.mallinfo2.argtypes, _LIBC.mallinfo2.restype = [], _Heap


def _allocated(size: int) -> int:
    """The address of a new block of so many bytes; 0 if there is no room for it."""
    return _LIBC.malloc(size) or 0


def _free_before_the_end() -> int:
    """Bytes that are free in the heap but for those at its end; 0 where the C library does not say, as glibc before 2.33."""
    if not hasattr(_LIBC, "mallinfo2"):
        return 0
    heap = _LIBC.mallinfo2()
    return int(heap.fordblks - heap.keepcost)


def available_memory(device: torch.device) -> int:
    """Bytes that new tensors on the device may take: what is free, and what torch holds in reserve."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    amounts = [
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    ]
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        amounts.append(int(text) - int(used.read_text()))
    return min(amounts)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch could not allocate: CUDA has an error type of its own, the CPU allocator only a message.

    This package's own :class:`OutOfMemoryError` does not count: smaller chunks have been tried by then.
    """
    if isinstance(error, ExplanationError):
        return False
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def does_not_fit(what: str, error: Exception) -> OutOfMemoryError:
    """The error to raise from torch's own, which names what did not fit."""
    return OutOfMemoryError(f"{what} does not fit into memory: {error}")


@contextmanager
def within_memory(what: str) -> Iterator[None]:
    """Where memory runs out in this context, that is raised as an :class:`OutOfMemoryError` of ``what`` did not fit."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise does_not_fit(what, error) from error
        raise
