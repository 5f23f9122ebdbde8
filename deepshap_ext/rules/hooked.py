"""Rules from backward hooks of modules, ``hook(module, grad_input, grad_output)``, as captum and tangermeme take them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..arguments import shown
from ..errors import UnsupportedOperationError
from ..ops.batching import in_front
from .registry import Application, Context

#: From the module, and the gradients at its input and at its output, to the multipliers at its input, in a tuple of one; to None where the
#: gradient is the multiplier, as in torch's ``register_full_backward_hook``.
Hook = Callable[[nn.Module, tuple[Tensor, ...], tuple[Tensor, ...]], tuple[Tensor, ...] | Tensor | None]


@dataclass(frozen=True)
class Hooked:
    """The rule of modules that take one tensor and return one, by a hook.

    The hook reads ``module.input`` and ``module.output``, which have the inputs of all pairs in their first rows and the baselines of the
    same pairs in as many rows behind them. The gradients that it is given, and the multipliers that it returns, have the same rows.
    """

    hook: Hook

    def __call__(self, context: Context, module: nn.Module, *args: Any, **kwargs: Any) -> Application:
        if len(args) != 1 or kwargs:
            raise UnsupportedOperationError(
                f"has a hook for its rule, for which it must take one tensor, got {len(args) + len(kwargs)} arguments"
            )

        def forward(x: Tensor) -> tuple[Tensor, list[Tensor]]:
            # A clone, since an in-place module writes into what it is given.
            return module.forward(x.clone()), [x]

        def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
            x, r = sides.pair()
            return [_OfPairs.apply(self.hook, module, grad, x, r.expand_as(x))]  # type: ignore[no-untyped-call]

        return Application(args, forward, multipliers)


class _OfPairs(torch.autograd.Function):
    """Calls the hook for pairs; under vmap once for all of them as one batch, since a hook may do what vmap cannot."""

    @staticmethod
    def forward(hook: Hook, module: nn.Module, grad: Tensor, x: Tensor, r: Tensor) -> Tensor:
        with torch.enable_grad():
            both = torch.cat([x, r]).requires_grad_()
            output = module.forward(both.clone())
        grad_output = torch.cat([grad, grad])
        grad_input = torch.autograd.grad(output, both, grad_output)
        # A copy, so that the user's module keeps no tensors.
        module = copy.copy(module)
        module.__dict__.update(input=both.detach(), output=output.detach())
        found = hook(module, grad_input, (grad_output,))
        return _multiplier(type(module).__name__, grad_input if found is None else found, both).chunk(2)[0]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Any, hook: Hook, module: nn.Module, *tensors: Tensor) -> tuple[Tensor, int]:
        rows = [
            in_front(tensor, dim, info.batch_size).flatten(0, 1)
            for tensor, dim in zip(tensors, in_dims[2:], strict=True)
        ]
        found: Tensor = _OfPairs.apply(hook, module, *rows)  # type: ignore[no-untyped-call]
        return found.unflatten(0, (info.batch_size, -1)), 0


def _multiplier(kind: str, returned: Any, both: Tensor) -> Tensor:
    """The tensor of rows like ``both`` that a hook of modules of this kind returned, in a tuple or by itself."""
    found = returned[0] if isinstance(returned, tuple) and len(returned) == 1 else returned
    if not isinstance(found, Tensor) or found.shape != both.shape:
        raise TypeError(
            f"the hook of {kind} must return None, or multipliers of shape {list(both.shape)} in a tuple of one, got {shown(returned)}"
        )
    return found
