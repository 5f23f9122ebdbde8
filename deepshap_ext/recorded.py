"""Stages of a trace as CUDA graphs, each of which launches all kernels of its stage at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .capture.probe import same_outputs
from .errors import in_short
from .memory import is_out_of_memory
from .traced import NotTraceableError, Stage, Values

#: A trace is recorded if its tensors have at most so many bytes in all, since a CUDA graph keeps its memory as long as it lives. Kernels on
#: larger tensors take longer than their launches, which are all that recording saves.
MOST_BYTES = 512 << 20


def bytes_made(stages: Sequence[Stage]) -> int:
    """How many bytes all the tensors have that the stages' operations make."""
    made = [node.meta.get("val") for stage in stages for node in stage.operations]
    tensors = [one for value in made for one in (value if isinstance(value, (tuple, list)) else (value,))]
    return sum(one.numel() * one.element_size() for one in tensors if isinstance(one, Tensor))


def recorded(stages: Sequence[Stage], device: torch.device, tell: Callable[[str], None]) -> list[Stage]:
    """The stages as CUDA graphs, recorded when they first run. One that cannot be recorded stays as it is, and ``tell`` gets the reason.

    The next run of a stage writes into the tensors that it returned before.
    """
    memory = _Memory(device)
    return [_recorded(stage, memory, tell) for stage in stages]


class _Memory:
    """The tensors that the stages of a trace read and write: a CUDA graph always works on those that it was recorded with."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        self.values: Values = {}
        self._stream: Any = None

    def take(self, names: Sequence[str], values: Sequence[Tensor]) -> list[Tensor]:
        """The values, copied into this memory. If the last ones came on another stream, this one waits for what still runs there."""
        stream = torch.cuda.current_stream()
        if self._stream is not None and self._stream != stream:
            stream.wait_stream(self._stream)
        self._stream = stream
        for name, value in zip(names, values, strict=True):
            if name not in self.values:
                self.values[name] = value.clone()
            elif self.values[name] is not value:
                self.values[name].copy_(value)
        return [self.values[name] for name in names]


def _recorded(stage: Stage, memory: _Memory, tell: Callable[[str], None]) -> Stage:
    if not stage.operations:
        return stage
    graph: Any = None
    works = True

    def run(*values: Tensor) -> Sequence[Tensor]:
        nonlocal graph, works
        if not works:
            return stage.run(*values)
        with torch.cuda.device(memory.device):
            given = memory.take(stage.takes, values)
            if graph is not None:
                graph.replay()
                return [memory.values[name] for name in stage.gives]
            try:
                graph, found = _record(stage, given, memory.pool)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                tell(f"CUDA does not record it ({in_short(error)}), so that its kernels are launched one by one")
                works = False
                return stage.run(*values)
        memory.values.update(zip(stage.gives, found, strict=True))
        return found

    return replace(stage, run=run)


def _record(stage: Stage, given: Sequence[Tensor], pool: Any) -> tuple[Any, Sequence[Tensor]]:
    """A graph of the stage, and the tensors that it writes into, which have the values for ``given``."""
    # Run once before: what is compiled, or what libraries set up in their first call, cannot be recorded.
    expected = stage.run(*given)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        # "thread_local": other threads may meanwhile do what is forbidden while recording, such as allocate memory.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            found = stage.run(*given)
    finally:
        # A recording that fails leaves the stream that it was made on as the current one.
        torch.cuda.set_stream(stream)
    graph.replay()
    if not all(map(_alike, expected, found)):
        raise NotTraceableError("the graph gives other values")
    return graph, found


def _alike(one: Tensor, other: Tensor) -> bool:
    return same_outputs(one, other) if one.is_floating_point() and one.numel() else torch.equal(one, other)
