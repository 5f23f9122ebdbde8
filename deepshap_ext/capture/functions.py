"""Hand-written ``autograd.Function``s, taken apart into the operations of their forward where these can be followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

from ..errors import UnsupportedOperationError
from ..memory import is_out_of_memory
from .dependence import tensors_in
from .names import operation
from .record import Record


class Attempt:
    """A hand-written ``autograd.Function`` run as the operations of its forward, or the cause why it cannot be.

    Every operation inside must have a rule, whatever ``on_unsupported`` says: where one has none, the Function's own backward knows more
    of it than a gradient taken inside.
    """

    def __init__(
        self, record: Record, module: Callable[[], str], written: type[torch.autograd.Function], args: Any, kwargs: Any
    ) -> None:
        self.result: Any = None
        self._module, self._record = module, record
        self._written, self._args, self._kwargs = written, args, kwargs
        self._entries, self._before = len(self._record.tape.entries), set(self._record.without_rule)
        self._cause = ""

    def run(self) -> bool:
        """Whether the Function could be taken apart. If not, the record is as it was before."""
        record = self._record
        given = record.dependence.of((self._args, self._kwargs))
        nodes, versions = {tensor.grad_fn for tensor in given}, [tensor._version for tensor in given]
        needs_grad = tuple(isinstance(arg, Tensor) and arg.requires_grad for arg in self._args)
        options, record.options = record.options, replace(record.options, on_unsupported="error")
        try:
            with _Addresses(record) as addresses:
                self.result = run_forward(self._written, needs_grad, self._args, self._kwargs)
            self._cause = addresses.read or self._lost(any(map(record.carries, given)), nodes)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self._cause = self._called(error)
        finally:
            record.options = options
        if not self._cause:
            return True
        if versions != [tensor._version for tensor in given]:
            raise UnsupportedOperationError(f"{self._reason()}. It has written into its argument by then")
        self.result = None
        record.tape.rewind(self._entries)
        for node in self._new():
            del record.without_rule[node]
        return False

    def blame(self) -> None:
        """Tell the cause where the Function, run as one operation since, is refused."""
        for node in self._new():
            self._record.without_rule[node] = self._reason()

    def _new(self) -> list[Node]:
        return [node for node in self._record.without_rule if node not in self._before]

    def _reason(self) -> str:
        called, name = operation(self._written), self._written.__name__
        return (
            f"{called.title} in {self._module()} {self._cause}: give the Function a rule with register_rule({name}, ...), "
            f"write it with operations that have one, explain a layer behind it with (model, layer), or pass on_unsupported='integrate'"
        )

    def _called(self, error: Exception) -> str:
        if not isinstance(error, UnsupportedOperationError):
            return f"cannot be taken apart, since its forward raises {type(error).__name__}: {error}"
        return self._as_cause(str(error))

    def _as_cause(self, reason: str) -> str:
        """``calls torch.frexp, which has no rule``, of ``torch.frexp in net.act has no rule: give it one with ...``."""
        operation, _, why = reason.partition(f" in {self._module()} ")
        return f"calls {operation}, which {why.partition(': ')[0]}" if why else f"cannot be taken apart: {reason}"

    def _lost(self, carrying: bool, given: set[Node | None]) -> str:
        """Why the result is not what the operations that were seen have made, or cannot be explained; empty if neither."""
        if not carrying:
            return ""
        record, made = self._record, [tensor for tensor in tensors_in(self.result) if tensor.is_floating_point()]
        for tensor in made:
            if tensor not in record.dependence:
                return (
                    f"makes its result of shape {list(tensor.shape)} outside of torch's operations (in an extension, a kernel or numpy), "
                    f"where it cannot be followed"
                )
        new, seen = set(self._new()), {None, *given}
        stack = [tensor.grad_fn for tensor in made]
        while stack:
            node = stack.pop()
            if node is None or node in seen:
                continue
            if node in new:
                return self._as_cause(record.without_rule[node])
            seen.add(node)
            stack.extend(following for following, _ in node.next_functions)
        return ""


class _Addresses(TorchFunctionMode):
    """Notices where the memory of a tensor that carries multipliers is handed out: to a kernel, whose result no operation makes."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.read = ""
        self._record = record

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        called = operation(function)
        if called.name in ("data_ptr", "const_data_ptr") and self._record.carries(args[0]):
            self.read = f"reads memory by {called.title}, for what is no operation of torch's"
        return function(*args, **(kwargs or {}))


def connected(result: Any, operands: list[Tensor]) -> Any:
    """The result of an operation that autograd has no derivative for, tied to its operands: the walk over the graph is to find it."""
    if torch._C._are_functorch_transforms_active():
        return result

    def tied(tensor: Tensor) -> Tensor:
        loose = tensor.is_floating_point() and not tensor.requires_grad
        return _Tied.apply(tensor, *operands) if loose else tensor  # type: ignore[no-untyped-call]

    return tree_map_only(Tensor, tied, result)


class _Tied(torch.autograd.Function):
    """The first argument, with an edge to the others that nothing flows through."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, *operands: Tensor) -> Tensor:
        ctx.operands = len(operands)
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return (None,) * (1 + ctx.operands)


class StandIn:
    """The ``ctx`` of an ``autograd.Function`` whose forward runs like any other function: what is for its backward is not kept."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad

    def save_for_backward(self, *tensors: Any) -> None:
        pass

    save_for_forward = mark_dirty = mark_non_differentiable = mark_shared_storage = save_for_backward

    def set_materialize_grads(self, value: bool) -> None:
        pass


def run_forward(
    written: type[torch.autograd.Function], needs_input_grad: tuple[bool, ...], args: Any, kwargs: Any
) -> Any:
    """What a hand-written ``autograd.Function`` computes, as operations of their own.

    A forward with a ``setup_context`` beside it takes no ``ctx``; that method only saves, for the backward.
    """
    if written.setup_context is not torch.autograd.function._SingleLevelFunction.setup_context:
        return written.forward(*args, **kwargs)
    return written.forward(StandIn(needs_input_grad), *args, **kwargs)
