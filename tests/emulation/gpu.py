"""A plugin of pytest: this process has the emulated CUDA device of device.cpp, built as the library ``EMULATED_GPU``.

pytest is given it by ``-p emulation.gpu``, so that it is imported before torch.
"""

import ctypes
import os
import sys
from contextlib import nullcontext
from typing import Any

assert "torch" not in sys.modules, "the emulated device must be loaded before torch"
library = ctypes.CDLL(os.environ["EMULATED_GPU"], mode=ctypes.RTLD_GLOBAL)
library.emulated_graph_end.restype = ctypes.c_int64
library.emulated_graph_replay.argtypes = [ctypes.c_int64]

import torch  # noqa: E402
from torch import Tensor  # noqa: E402


class Stream:
    """The only stream there is."""

    def __init__(self, *_: Any) -> None:
        self.cuda_stream, self.device = 0, torch.device("cuda", 0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream)

    def synchronize(self) -> None:
        pass

    def wait_stream(self, other: Any) -> None:
        pass


class Graph:
    """As ``torch.cuda.CUDAGraph``."""

    def replay(self) -> None:
        library.emulated_graph_replay(self.number)


class Recording:
    """As ``torch.cuda.graph``: what runs in this context is recorded."""

    def __init__(self, graph: Graph, pool: Any = None, **_: Any) -> None:
        self._graph = graph

    def __enter__(self) -> None:
        library.emulated_graph_begin()

    def __exit__(self, *_: object) -> None:
        self._graph.number = library.emulated_graph_end()


# Functions of torch.cuda that call CUDA's runtime, for which device.cpp does not stand in.
GIBIBYTE = 1 << 30
torch.cuda._lazy_init = lambda: None
torch.cuda.is_available = torch.cuda.is_initialized = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda.current_device = lambda: 0
torch.cuda.device = lambda _: nullcontext()  # type: ignore[assignment, misc]
torch.cuda.synchronize = torch.cuda.empty_cache = lambda *_: None
torch.cuda.mem_get_info = lambda *_: (8 * GIBIBYTE, 8 * GIBIBYTE)
torch.cuda.memory_reserved = torch.cuda.memory_allocated = lambda *_: 0
torch.cuda.Stream = torch.cuda.current_stream = Stream  # type: ignore[assignment, misc]
torch.cuda.stream = lambda _: nullcontext()  # type: ignore[assignment]
torch.cuda.set_stream = lambda _: None  # type: ignore[assignment]
torch.cuda.CUDAGraph, torch.cuda.graph = Graph, Recording  # type: ignore[assignment, misc]
torch.cuda.graph_pool_handle = lambda: (0, 0)
torch.cuda.default_generators = (torch.default_generator,)
torch._C._cuda_getDevice = torch.cuda.current_device  # type: ignore[attr-defined]
compile_with = torch.compile


def by_operations(graph: Any, *, options: Any = None, **settings: Any) -> Any:
    """In place of ``torch.compile``: Inductor, whose ``options`` these are, would make kernels for a real GPU; this backend runs the same
    graphs by torch's operations."""
    return compile_with(graph, **{"backend": "aot_eager", **settings})


torch.compile = by_operations  # type: ignore[assignment]
torch.backends.cudnn.is_acceptable = lambda _: False


def clone_storage(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage).clone().untyped_storage()


torch.UntypedStorage.clone = clone_storage  # type: ignore[method-assign]


# Operations that torch has for CUDA alone, written in operations that it has for the CPU.


def depthwise(x: Tensor, weight: Tensor, size: Any, bias: Tensor | None, *geometry: Any) -> Tensor:
    weights = weight.chunk(x.shape[1])
    biases = [None] * len(weights) if bias is None else bias.chunk(len(weights))
    parts = zip(x.split(1, 1), weights, biases, strict=True)
    return torch.cat([torch.nn.functional.conv2d(*part, *geometry) for part in parts], 1)


def lstm_cell(x: Tensor, h: Tensor, c: Tensor, b_x: Any = None, b_h: Any = None) -> tuple[Tensor, Tensor, Tensor]:
    gates = x + h if b_x is None else x + h + b_x + b_h
    i, f, g, o = gates.chunk(4, 1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = f * c + i * g
    return o * c.tanh(), c, torch.cat([i, f, g, o], 1)


def gru_cell(x: Tensor, h: Tensor, state: Tensor, b_x: Any = None, b_h: Any = None) -> tuple[Tensor, Tensor]:
    x, h = (x, h) if b_x is None else (x + b_x, h + b_h)
    (r_x, z_x, n_x), (r_h, z_h, n_h) = x.chunk(3, 1), h.chunk(3, 1)
    r, z = (r_x + r_h).sigmoid(), (z_x + z_h).sigmoid()
    n = (n_x + r * n_h).tanh()
    return (state - n) * z + n, torch.cat([r, z, n, state, n_h], 1)


cuda_only = torch.library.Library("aten", "IMPL", "CUDA")
cuda_only.impl("_conv_depthwise2d", depthwise)
cuda_only.impl("_thnn_fused_lstm_cell", lstm_cell)
cuda_only.impl("_thnn_fused_gru_cell", gru_cell)
