"""How much memory a pass takes and how much there is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from .capture.dependence import tensors_in


class MemoryMeter(TorchDispatchMode):
    """Bytes of the tensors that operations in this context have made and that are still alive, now and at most; and of the largest."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.largest = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Guarding against compilation, which happens nowhere here, would import all of torch._dynamo: seconds.
        return False

    @property
    def live(self) -> int:
        self._alive = {key: found for key, found in self._alive.items() if not found[0].expired()}
        return sum(size for _, size in self._alive.values())

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {tensor.untyped_storage()._cdata for tensor in _dense_in((args, kwargs))}
        for tensor in _dense_in(result):
            storage = tensor.untyped_storage()
            if storage._cdata not in given and storage._cdata not in self._alive:
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
                self.largest = max(self.largest, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result


def _dense_in(value: Any) -> Iterator[Tensor]:
    """Sparse tensors, a model's constants, have no storage of their own."""
    return (tensor for tensor in tensors_in(value) if tensor.layout == torch.strided)


#: Bytes of a tensor on the CPU that is made and freed over and over. glibc gives larger blocks (from 32 MiB on) back to the system each
#: time, and writing to fresh pages is several times slower than to warm ones.
WARM = 16 << 20

#: The block behind what is kept.
_last: list[torch.UntypedStorage] = []


def keep_freed_memory() -> None:
    """Have glibc keep what is freed in tensors of up to WARM bytes for the next ones: 256 MiB of what is free now.

    Blocks that are smaller than the largest below 32 MiB that was ever freed come from glibc's heap, and it gives back what is free at the
    heap's end. So one such block is freed, and one stays at the end of a stretch of free ones. They are never written to: none of this
    takes memory by itself. What others have taken or freed since the last time moves the end, so the block is chosen anew each time,
    while the one before still holds what it keeps. Other allocators take no notice.
    """

    def block(size: int) -> torch.UntypedStorage:
        return torch.UntypedStorage(size, device="cpu")

    block((32 << 20) - 8192)
    _last[:] = [max([block(WARM) for _ in range(17)], key=torch.UntypedStorage.data_ptr)]


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
    """Whether torch could not allocate: CUDA has an error type of its own, the CPU allocator only a message."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)
    )
