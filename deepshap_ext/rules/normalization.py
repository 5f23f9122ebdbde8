"""Normalizations: affine ones with running statistics (batch norm in eval mode), and those by the input's own mean and scale; norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import ops
from ..arrays import wide
from ..errors import UnsupportedOperationError
from .registry import Application, Context, Roundoff, decomposition, rule


@rule("batch_norm")
def _batch_norm(_: Context, input: Tensor, *args: Any, **kwargs: Any) -> Application:
    if len(args) == 8:
        # torch.batch_norm has weight and bias before the running statistics, torch.nn.functional.batch_norm behind them.
        weight, bias, mean, var, *args = args[:-1]  # type: ignore[assignment]
        args = (mean, var, weight, bias, *args)
    return _affine(input, *args, **kwargs)


def _affine(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Application:
    if training or running_mean is None or running_var is None:
        raise UnsupportedOperationError(
            "uses batch statistics, which mix the samples of a batch; it needs running statistics"
        )
    scale = torch.rsqrt(running_var + eps)
    if weight is not None:
        scale = scale * weight
    by_channel = scale.to(input.dtype).view(-1, *[1] * (input.dim() - 2))

    def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps), []

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        # Autograd's own backward gives the same, but transposes its operands under vmap, which is slow.
        return [grad * by_channel]

    return Application([input], forward, multipliers, scale=scale)


def _normalize(
    input: Tensor, forward: Callable[[Tensor], Tensor], eps: float, centre: bool, scale: Tensor
) -> Application:
    """The application of a normalization of lines of contiguous elements, times ``scale``; all as :func:`deepshap_ext.ops.norm` has them.

    ``scale`` must not be a view of a weight, which the model may later write into.
    """
    scale = wide(scale).contiguous()

    def kept(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        output = forward(x)
        # Autocast normalizes in float32.
        return output, [x.to(output.dtype).contiguous()]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        factors = scale.to(wide(grad).dtype)
        out = ops.norm(grad.unsqueeze(0), sides.x[0], sides.r[0], factors, sides.rows(), eps, centre, *sides.geometry())
        return [out.squeeze(0)]

    def roundoffs(x: Tensor) -> Sequence[Roundoff]:
        # The mean and the scale of a line are rounded once, and these errors are the same for all of its elements.
        lines = wide(x).reshape(-1, *scale.shape)
        mean = lines.mean(-1, keepdim=True) if centre else torch.zeros_like(lines[..., :1])
        size = scale / ((lines - mean).square().mean(-1, keepdim=True) + eps).sqrt()
        return [Roundoff(mean * size, -1), Roundoff((lines - mean) * size, -1)]

    return Application([input], kept, multipliers, roundoffs=roundoffs)


@rule("layer_norm")
def _layer_norm(
    context: Context,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Application:
    def forward(x: Tensor) -> Tensor:
        return F.layer_norm(x, normalized_shape, weight, bias, eps)

    return _normalize(input, forward, eps, True, _of_one_line(input, normalized_shape, weight))


@rule("rms_norm")
def _rms_norm(
    context: Context,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Application:
    small = torch.finfo(input.dtype).eps if eps is None else eps

    def forward(x: Tensor) -> Tensor:
        return F.rms_norm(x, normalized_shape, weight, eps)

    return _normalize(input, forward, small, False, _of_one_line(input, normalized_shape, weight))


def _of_one_line(input: Tensor, shape: Sequence[int], weight: Tensor | None) -> Tensor:
    """The scale ``[1, elements]`` of a normalization whose lines all have the same weight."""
    return input.new_ones(1, math.prod(shape)) if weight is None else weight.detach().clone().reshape(1, -1)


@rule("group_norm")
def _group_norm(
    context: Context,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Application:
    channels = input.new_ones(input.shape[1]) if weight is None else weight.detach().clone()
    scale = channels.unsqueeze(1).expand(-1, math.prod(input.shape[2:])).reshape(num_groups, -1)

    def forward(x: Tensor) -> Tensor:
        return torch.group_norm(x, num_groups, weight, bias, eps)  # F.group_norm refuses groups of a single value

    return _normalize(input, forward, eps, True, scale)


@decomposition("instance_norm")
def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if use_input_stats:
        return torch.group_norm(input, input.shape[1], weight, bias, eps)
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)


@decomposition("norm")
def _norm(
    input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, out: None = None, dtype: Any = None
) -> Tensor:
    return torch.linalg.vector_norm(input, 2 if p in (None, "fro") else p, dim, keepdim, dtype=dtype)


@decomposition("linalg_norm")
def _linalg_norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    dims = A.dim() if dim is None else 1 if isinstance(dim, int) else len(dim)
    if ord is not None and dims == 2:
        return torch.linalg.matrix_norm(A, ord, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    return torch.linalg.vector_norm(A, 2 if ord is None else ord, dim, keepdim, dtype=dtype)


@decomposition("linalg_matrix_norm")
def _matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    if ord == "fro":
        return torch.linalg.vector_norm(A, 2, dim, keepdim, dtype=dtype)
    if ord not in (1, -1, math.inf, -math.inf):
        raise UnsupportedOperationError(
            f"torch.linalg.matrix_norm with ord={ord!r} has no rule: singular values have none"
        )
    rows, columns = (d % A.dim() for d in dim)
    summed, chosen = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = (A if dtype is None else A.to(dtype)).abs().sum(summed, keepdim=True)
    found = sums.amax(chosen, keepdim=True) if ord > 0 else sums.amin(chosen, keepdim=True)
    return found if keepdim else found.squeeze((rows, columns))


@decomposition("frobenius_norm")
def _frobenius_norm(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    return torch.linalg.vector_norm(input, 2, dim, keepdim)


@decomposition("norm_except_dim")
def _norm_except_dim(v: Tensor, pow: float = 2, dim: int = 0) -> Tensor:
    others = None if dim == -1 else [d for d in range(v.dim()) if d != dim]
    return torch.linalg.vector_norm(v, pow, others, keepdim=dim != -1)


@decomposition("linalg_vector_norm")
def _vector_norm(x: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    x = x if dtype is None else x.to(dtype)
    dims = tuple(range(x.dim())) if dim is None else dim
    if ord == 0:
        return (x != 0).to(x.dtype).sum(dims, keepdim=keepdim)
    if ord == 1:
        return x.abs().sum(dims, keepdim=keepdim)
    if ord == 2:
        return x.square().sum(dims, keepdim=keepdim).sqrt()
    if math.isinf(ord):
        return x.abs().amax(dims, keepdim=keepdim) if ord > 0 else x.abs().amin(dims, keepdim=keepdim)
    return x.abs().pow(ord).sum(dims, keepdim=keepdim).pow(1 / ord)


@decomposition("var")
def _var(
    input: Tensor, dim: Any = None, unbiased: Any = True, keepdim: bool = False, *, correction: Any = None
) -> Tensor:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    dims = tuple(range(input.dim())) if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    count = math.prod(input.shape[d] for d in dims)
    centred = input - input.mean(dims, keepdim=True)
    return centred.square().sum(dims, keepdim=keepdim) / (count - (int(unbiased) if correction is None else correction))


@decomposition("std")
def _std(*args: Any, **kwargs: Any) -> Tensor:
    return torch.var(*args, **kwargs).sqrt()


@decomposition("var_mean")
def _var_mean(
    input: Tensor, dim: Any = None, *args: Any, keepdim: bool = False, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    return torch.var(input, dim, *args, keepdim=keepdim, **kwargs), input.mean(dim, keepdim=keepdim)
