"""What a pass writes into that is not its own, kept before it is written and put back after the pass."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .dependence import plain, storage_key, tensors_in
from .names import Operation, operation
from .tape import Tape
from .undo import Undo

#: What gives a tensor other memory, other sizes or both.
REPLACING = frozenset("set_data set resize resize_as".split())
#: What hands a tensor's memory to code that may write into it where it is not seen.
_HANDING_OUT = frozenset("numpy array dlpack to_dlpack".split())
#: Assignments to the parts of a complex tensor, which write into it.
_PROPERTIES = frozenset({"set_real", "set_imag"})
#: Functions that renormalize the rows of their weight in place, where they are given ``max_norm``.
_RENORMALIZING = frozenset({"torch.nn.functional.embedding", "torch.nn.functional.embedding_bag"})
#: Normalizations that update their running statistics in training.
_STATISTICS = frozenset("batch_norm instance_norm native_batch_norm cudnn_batch_norm miopen_batch_norm".split())


class Contents:
    """The contents of storages as they were before the first write into them.

    A storage and not a tensor is what is written into: whether through a parameter, its ``data``, a view, or under any other name.
    """

    def __init__(self) -> None:
        self._storages: dict[int, _Content] = {}
        #: Tensors that were given other memory, by id, with their former data.
        self._replaced: dict[int, tuple[Tensor, Tensor]] = {}
        #: Storages that the pass itself has made, by address; the weak reference keeps the address from being given to another one.
        self._made: dict[int | None, StorageWeakRef] = {}

    def __contains__(self, tensor: Tensor) -> bool:
        return any(part.untyped_storage()._cdata in self._storages for part in _dense(tensor))

    def made(self, function: Any, given: Sequence[Tensor], result: Any) -> None:
        """Leave out what an operation of torch has made: memory that none of the tensors ``given`` to it has. What properties return may
        have been there before."""
        made = [result] if type(result) is Tensor else tensors_in(result)
        if not made or isinstance(function, types.MethodWrapperType) or not _is_of_torch(function):
            return
        before = set(map(storage_key, given))
        for tensor in made:
            key = storage_key(tensor)
            if key is not None and key not in self._made and key not in before:
                self._made[key] = StorageWeakRef(plain(tensor).untyped_storage())

    def before_write(self, tensor: Tensor) -> None:
        """Keep the contents of a tensor that is about to be written into, unless the pass itself has made it."""
        if tensor.layout != torch.strided:
            # What an operation gives a sparse tensor in place may be other indices and values.
            self._before_replacement(tensor)
        for part in _dense(tensor):
            storage = part.untyped_storage()
            key = storage._cdata
            if key not in self._made and part.device.type != "meta":
                if key not in self._storages:
                    self._storages[key] = _Content(part, storage)
                self._storages[key].written_through(part)

    def before_operation(self, called: Operation, args: Any, kwargs: Any) -> None:
        """Keep what an operation replaces."""
        if called.name in REPLACING:
            tensor = next(iter((*args, *kwargs.values())))
            self._before_replacement(tensor)
            if called.name.startswith("resize") and id(tensor) in self._replaced:
                # A storage that grows moves; the tensor's own stays where it is.
                tensor.data = tensor.data.clone()
        for tensor in tensors_in(kwargs.get("out")):
            self._before_replacement(tensor)

    def _before_replacement(self, tensor: Tensor) -> None:
        own = storage_key(tensor) in self._made
        if not own and id(tensor) not in self._replaced:
            self._replaced[id(tensor)] = tensor, tensor.data

    def put_back(self, tape: Tape | None = None) -> None:
        """Restore all; ``tape``: that of the pass that has just run, which reads later what it kept."""
        undo = Undo()
        for tensor, before in self._replaced.values():
            undo.note(setattr, tensor, "data", before)
        for content in self._storages.values():
            if tape is not None:
                tape.before_write(content.tensor)
            undo.note(content.put_back)
        undo.run()

    def clear(self) -> None:
        self._made.clear()
        self._storages.clear()
        self._replaced.clear()


class _Content:
    """The bytes of one storage, and the version of the tensor that it is about to be written through."""

    def __init__(self, tensor: Tensor, storage: torch.UntypedStorage) -> None:
        self.tensor, self._storage = tensor, storage
        self._version = version(tensor)
        self._bytes = _bytes(storage).clone()
        self._without_graph: list[Tensor] = []

    def written_through(self, tensor: Tensor) -> None:
        """Note a tensor, or what it is a view of, that is about to get a place in the graph by what is written into it."""
        base = tensor if tensor._base is None else tensor._base
        if base.grad_fn is None and not any(base is other for other in self._without_graph):
            self._without_graph.append(base)

    def put_back(self) -> None:
        for tensor in self._without_graph:
            if tensor.grad_fn is not None:
                tensor.detach_()
        if self._storage.nbytes() != len(self._bytes):
            self._storage.resize_(len(self._bytes))
        now = _bytes(self._storage)
        if now.device.type == "cpu":
            # With numpy, because a forked child lacks torch's threads. Compared first, because read-only memory must not be written to.
            if not np.array_equal(now.numpy(), self._bytes.numpy()):
                np.copyto(now.numpy(), self._bytes.numpy())
        else:
            now.copy_(self._bytes)
        set_version(self.tensor, self._version)


class TensorState:
    """Of tensors that a model holds: ``requires_grad``, gradient, hooks, version and memory."""

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self._held = [_Held(tensor) for tensor in tensors if not (tensor.is_inference() or is_lazy(tensor))]

    def freeze(self) -> None:
        """Let none of them require a gradient, where that can be said of it: of a leaf."""
        for held in self._held:
            if held.requires_grad:
                held.tensor.requires_grad_(False)

    def put_back(self) -> None:
        """Give each its memory and its sizes again: ``set_``, ``transpose_`` and their like are not seen, or are no writes."""
        for held in self._held:
            held.put_back()

    def restore(self) -> None:
        for held in self._held:
            held.restore()


class _Held:
    """What :class:`TensorState` keeps of one tensor."""

    __slots__ = ("data", "gradient", "hooks", "place", "requires_grad", "tensor", "version")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        leaf = tensor.is_leaf
        self.requires_grad = leaf and tensor.requires_grad
        self.gradient = tensor.grad if leaf else None
        hooks = tensor._backward_hooks
        self.hooks = hooks, dict(hooks or {})
        self.version = tensor._version
        self.data, self.place = tensor.data, place(tensor)

    def put_back(self) -> None:
        if place(self.tensor) != self.place:
            self.tensor.data = self.data

    def restore(self) -> None:
        self.put_back()
        tensor = self.tensor
        if self.requires_grad and not tensor.requires_grad:
            tensor.requires_grad_(True)
        if tensor.is_leaf and tensor.grad is not self.gradient:
            tensor.grad = self.gradient
        hooks, content = self.hooks
        if tensor._backward_hooks is not hooks:
            tensor._backward_hooks = hooks
        if hooks is not None and hooks != content:
            hooks.clear()
            hooks.update(content)
        set_version(tensor, self.version)


def place(tensor: Tensor) -> tuple[Any, ...] | None:
    """Where the tensor lies in memory, and how; None where it has none of its own."""
    if tensor.layout != torch.strided or _is_wrapper(tensor):
        return None
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _is_wrapper(tensor: Tensor) -> bool:
    """Whether a tensor is of a subclass that holds other tensors in place of memory."""
    return type(tensor) not in (Tensor, nn.Parameter) and bool(is_traceable_wrapper_subclass(tensor))


def of_the_same_memory(tensor: Tensor) -> Tensor:
    """A tensor that autograd can save, in place of one made in inference mode."""
    made = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    made.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())
    return nn.Parameter(made, requires_grad=False) if isinstance(tensor, nn.Parameter) else made


@cache
def _is_of_torch(function: Any) -> bool:
    return (getattr(function, "__module__", None) or "torch").partition(".")[0] == "torch"


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    """The storage as a tensor with a version counter of its own."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def version(tensor: Tensor) -> int | None:
    """How often the tensor was written into; None for inference tensors, which do not count."""
    return None if tensor.is_inference() else tensor._version


def set_version(tensor: Tensor, before: int | None) -> None:
    """Let a tensor that has its former content again have its former version, too."""
    if before is not None and tensor._version != before:
        torch._C._autograd._unsafe_set_version_counter((tensor,), (before,))


def _dense(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors with memory that a tensor is made of."""
    tensor = plain(tensor)
    if _is_wrapper(tensor):
        names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
        for name in names:
            yield from _dense(getattr(tensor, name))
    elif tensor.layout == torch.sparse_coo:
        yield from (tensor._indices(), tensor._values())
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        yield from (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
    elif tensor.layout == torch.strided:
        yield tensor


def declared(function: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The tensors that an operation writes into by its schema."""
    positions, names = _writes(function)
    for at in positions:
        yield from tensors_in(args[at] if at < len(args) else None)
    for name in names:
        yield from tensors_in(kwargs.get(name))


def only_makes(called: Operation, function: Any, kwargs: Any) -> bool:
    """Whether a call of torch's is known to write into nothing that it is given."""
    if not isinstance(called.name, str) or isinstance(function, partial) or not _only_makes(function):
        return False
    return all(value is None or value is False for value in kwargs.values()) if kwargs else True


@cache
def _only_makes(function: Any) -> bool:
    """Whether an operation of torch's writes into nothing that it is given, unless a keyword argument says so."""
    called = operation(function)
    positions, _ = _writes(function)
    return not (
        called.in_place
        or positions
        or called.name in REPLACING | _HANDING_OUT | _PROPERTIES | _STATISTICS
        or called.title in _RENORMALIZING
    )


@cache
def _writes(function: Any) -> tuple[frozenset[int], frozenset[str]]:
    """The arguments that a function of ``torch.ops``, or one of torch that has its name from there, writes into in any overload."""
    packet = function
    if isinstance(function, (types.BuiltinFunctionType, types.MethodDescriptorType)):
        packet = getattr(torch.ops.aten, function.__name__, None)
    if isinstance(packet, OpOverload):
        schemas = [packet._schema]
    elif isinstance(packet, OpOverloadPacket):
        overloads = [getattr(packet, name) for name in packet.overloads()]
        # Others are TorchScript's, such as the list method `sort`, which has the name of an operation on tensors.
        schemas = [overload._schema for overload in overloads if torch._C._dispatch_has_kernel(overload.name())]
    else:
        schemas = []
    written = [
        (at, argument)
        for schema in schemas
        for at, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    positions = frozenset(at for at, argument in written if not argument.kwarg_only)
    return positions, frozenset(argument.name for _, argument in written)


def undeclared(called: Operation, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The tensors that an operation writes into, or may, where neither its name nor its schema says so."""

    def argument(at: int, *names: str) -> Any:
        return args[at] if at < len(args) else next((kwargs[name] for name in names if name in kwargs), None)

    if called.name in _HANDING_OUT or called.name in _PROPERTIES:
        yield from tensors_in(argument(0, "self"))
    elif called.title in _RENORMALIZING:
        if argument(3, "max_norm") is not None:
            yield from tensors_in(argument(1, "weight"))
    elif called.name in _STATISTICS and argument(5, "training", "use_input_stats", "train"):
        yield from tensors_in((args[1:], [value for name, value in kwargs.items() if name != "input"]))
