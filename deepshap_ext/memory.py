"""How much memory passes take and how much there is, and the error where it does not do."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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

#: The block that keeps the free memory before it from being returned to the system; none until the first call of keep_freed_memory.
_last: list[torch.UntypedStorage] = []


def keep_freed_memory(budget: int) -> None:
    """Have glibc keep freed tensors of up to WARM bytes for the next ones: 256 MiB, or ``budget`` if that is less.

    glibc takes a block from its heap if it is smaller than the largest block below 32 MiB that was ever freed, and returns to the system
    what is free at the end of the heap. So one block of nearly 32 MiB is allocated and freed; and of a stretch of free blocks the last is
    held, so that those before it do not lie at the end. Nothing is written to these blocks, so they take addresses and no memory; where
    addresses are short, nothing is kept. The end moves with what others allocate and free, so the held block is chosen anew at each call,
    before the one of the last call is freed; but not for a budget of a single block, once any is held. Other allocators take no notice.
    """
    blocks = min(budget // WARM, 16)
    if not blocks or (blocks == 1 and _last):
        return

    def block(size: int) -> torch.UntypedStorage:
        return torch.UntypedStorage(size, device="cpu")

    try:
        block((32 << 20) - 8192)
        _last[:] = [max([block(WARM) for _ in range(blocks + 1)], key=torch.UntypedStorage.data_ptr)]
    except Exception as error:
        if not is_out_of_memory(error):
            raise


def give_back_freed_memory() -> None:
    """Have glibc return the free memory between the blocks of its heap to the system. Other C libraries take no notice."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


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
