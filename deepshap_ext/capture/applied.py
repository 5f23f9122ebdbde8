"""Operations with a rule in the autograd graph: their backward is the rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils._pytree import tree_map_only

from ..errors import UnsupportedOperationError
from ..rules.registry import Application
from .dependence import is_wrapped, tensors_in
from .tape import Entry, Tape


class Running:
    """The pairs whose multipliers are being computed. Nodes hold this and not the record of the pass, which holds them."""

    pairs: Any = None


class Applied(torch.autograd.Function):
    """An operation whose backward is its rule."""

    @staticmethod
    def forward(
        ctx: Any,
        tape: Tape,
        running: Running,
        application: Application,
        entry: Entry,
        in_place: bool,
        *operands: Tensor,
    ) -> Any:
        try:
            output, kept = application.forward(*operands)
        except UnsupportedOperationError as error:
            raise UnsupportedOperationError(f"{entry.called} {error}") from None
        # Autograd lets nobody write into a view that a Function returns.
        output = _no_view(output) if isinstance(output, Tensor) else tree_map_only(Tensor, _no_view, output)
        entry.kept = list(kept)
        tape.append(entry)
        ctx.running, ctx.entry = running, entry
        if in_place:
            # The first operand is what is written: for a view of it autograd takes the first gradient for the overwritten part's.
            tape.before_write(operands[0])
            ctx.mark_dirty(operands[0])
            return operands[0].copy_(output)
        without = [t for t in tensors_in(output) if not (t.is_floating_point() or t.is_complex())]
        if without:
            ctx.mark_non_differentiable(*without)
        return output

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        if ctx.running.pairs is None:
            raise UnsupportedOperationError(
                f"the model differentiates through {ctx.entry} in its own forward pass: that has no rule"
            )
        multipliers = ctx.entry.multipliers(grads[0], ctx.running.pairs.sides(ctx.entry, grads))
        return (None, None, None, None, None, *multipliers)


def _no_view(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor._is_view() else tensor


#: ``Function.apply`` below its dealings with transforms of torch.func.
_apply_directly = super(torch.autograd.Function, Applied).apply


def run_by_rule(
    tape: Tape, running: Running, application: Application, entry: Entry, in_place: bool, operands: Sequence[Tensor]
) -> Any:
    """Run an operation under its rule."""
    transformed = torch._C._are_functorch_transforms_active() or any(map(is_wrapped, operands))
    apply: Callable[..., Any] = Applied.apply if transformed else _apply_directly
    return apply(tape, running, application, entry, in_place, *operands)


def output_of(application: Application, *operands: Tensor) -> Any:
    """What the operation gives for these operands, without what its rule keeps."""
    return application.forward(*operands)[0]


def is_rules_own(written: type[torch.autograd.Function]) -> bool:
    """Whether an ``autograd.Function`` is the one that operations with a rule run in."""
    return written is Applied


def is_rule(node: Node) -> bool:
    """Whether an autograd node was made by a rule."""
    return getattr(node, "_forward_cls", None) is Applied
