"""How much memory a pass takes and how much there is."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .capture.dependence import tensors_in
from .errors import ExplanationError


class MemoryMeter(TorchDispatchMode):
    """Bytes of the tensors that operations in this context have made and that are still alive, now and at most; and of the largest."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self.largest = 0
        self._alive: set[int] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Guarding against compilation, which happens nowhere here, would import all of torch._dynamo: seconds.
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
    """Sparse tensors, a model's constants, have no storage of their own."""
    return (tensor for tensor in tensors_in(value) if tensor.layout == torch.strided)


#: Bytes of a tensor on the CPU that is made and freed over and over. glibc gives larger blocks (from 32 MiB on) back to the system each
#: time, and writing to fresh pages is several times slower than to warm ones.
WARM = 16 << 20

#: How many times what lies in it at once, at most, glibc's heap takes up where tensors of many sizes come and go (measured on glibc 2.36).
HEAP = 5

_LIBC: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
#: The address of the block behind what is kept, once there is one.
_last: list[int] = []


def keep_freed_memory(budget: int) -> None:
    """Have glibc keep what is freed in tensors of up to WARM bytes for the next ones: 256 MiB, ``budget`` at most.

    Blocks that are smaller than the largest below 32 MiB that was ever freed come from glibc's heap, and it gives back what is free at the
    heap's end. So one such block is freed, and one stays at the end of a stretch of free ones. They are never written to: none of this
    takes memory by itself, but for addresses: where these are short, nothing is kept. What others have taken since the last time is no
    longer free, so another block is chosen where too little is; and only there, since each lies further back than the one before, and in
    time tensors come to lie, and keep memory, wherever the heap is free. Nor is one chosen for a single block, which is little where
    anything is kept. Other allocators take no notice.
    """
    blocks = min(budget // WARM, 16)
    if _LIBC is None or not blocks or (_last and (blocks == 1 or _kept() >= blocks * WARM)):
        return
    _LIBC.free(_block((32 << 20) - 8192))
    # For a tensor, which is aligned, glibc cuts up a block that is some bytes larger, and gives the rest to others: the tensor's place is
    # too small for another one of the same size. So these blocks are not aligned, and each has room for an aligned tensor.
    found = sorted(_block(WARM + 4096) for _ in range(blocks + 1))
    if all(found):
        found, _last[:] = _last + found[:-1], found[-1:]
    for address in found:
        _LIBC.free(address)


def give_back_freed_memory() -> None:
    """Have glibc give what lies free between the blocks of its heap back to the system. Other C libraries take no notice."""
    if hasattr(_LIBC, "malloc_trim"):
        _LIBC.malloc_trim(0)


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


def _block(size: int) -> int:
    """The address of a new block of memory; 0 if there is no room for it."""
    return _LIBC.malloc(size) or 0


def _kept() -> int:
    """Bytes that lie free in the heap before its end; 0 where the C library does not say, as glibc before 2.33."""
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

    This package's own error is none: what can be done about it has been tried.
    """
    if isinstance(error, ExplanationError):
        return False
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )
