"""Products and quotients of input-dependent factors.

Each factor's multiplier is the mean of the other factor over the two sides. That is the Shapley value of two players (Lundberg and Lee,
arXiv 1705.07874, section 2.2), and complete: ``ab - a'b' = mean(b) (a - a') + mean(a) (b - b')``. For any bilinear map it is the map's
derivative at the midpoints of its factors, and for more than two factors the mean of the derivative over the segment.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..errors import UnsupportedOperationError
from .integrate import multilinear
from .registry import Application, Context, decomposition, rule
from .sparse import sparse_product


@rule("mul")
def _mul(context: Context, input: Any, other: Any) -> Application | None:
    if not (context.carries(input) and context.carries(other)):
        return None
    for a, b in ((input, other), (other, input)):
        if inverse := context.inverse_of(b):
            # A norm written by hand, `a * rsqrt(v)`, has the rule of a quotient. The rule of a product would be complete too, but its
            # multipliers may be as large as the inverse of the smaller scale.
            v, name = inverse
            return _quotient(context, a, v, partial(_times, b.detach()), root=name == "rsqrt", stand_for=[a, b])
    a, b = _promoted(input, other)
    if a.is_complex():
        one, two = (torch.stack([z.real, z.imag], -1) for z in (a, b))
        return bilinear(_complex_product, one, two, stand_for=[input, other])

    def forward(a: Tensor, b: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        product = torch.mul(a, b)
        return product, [a.expand_as(product), b.expand_as(product)]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        (a_x, b_x), (a_r, b_r) = sides.x, sides.r
        found = ops.product(grad.unsqueeze(0), a_x, a_r, b_x, b_r, sides.rows(), *sides.geometry())
        return [sum_to(m.squeeze(0), operand.shape) for m, operand in zip(found, (a, b), strict=True)]

    return Application([a, b], forward, multipliers, stand_for=[input, other])


def _complex_product(a: Tensor, b: Tensor) -> Tensor:
    return torch.view_as_complex(a) * torch.view_as_complex(b)


def _times(inverse: Tensor, a: Tensor, v: Tensor) -> Tensor:
    return a * inverse


@rule("div")
def _div(context: Context, input: Any, other: Any, *, rounding_mode: str | None = None) -> Application | None:
    if rounding_mode is not None:
        raise UnsupportedOperationError(
            f"with rounding_mode={rounding_mode!r} is a step: write torch.floor_divide, or torch.trunc of a quotient"
        )
    if not context.carries(other):
        return None
    if not isinstance(input, Tensor):
        input = torch.as_tensor(input, dtype=other.dtype, device=other.device)
    return _quotient(context, input, other, torch.div, root=False, stand_for=[input, other])


def _quotient(
    context: Context,
    a: Tensor,
    v: Tensor,
    divide: Callable[[Tensor, Tensor], Tensor],
    root: bool,
    stand_for: Sequence[Tensor],
) -> Application:
    """The application of ``z = a / b`` with ``b = v`` or, with ``root``, ``b = sqrt(v)``; ``divide(a, v)`` computes it.

    From ``a = z b`` at the midpoints, ``m_a = m_z / mean(b)`` and ``m_b = -m_z mean(z) / mean(b)``: bounded, since it divides by the mean
    divisor. Where ``b`` changes its sign that mean may be 0, and the two-player Shapley value of ``a * (1 / b)`` takes its place.
    """
    a, v = _promoted(a, v)
    # Copied, because the model may later write into this constant in place.
    constant = None if context.carries(a) else a.detach().clone()
    operands = [a, v] if constant is None else [v]
    shapes = [operand.shape for operand in operands]

    def forward(*operands: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        top, bottom = operands if constant is None else (constant, *operands)
        quotient = divide(top, bottom)
        return quotient, [quotient, bottom.sqrt() if root else bottom, *operands[:-1]]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        (z_x, z_r), (b_x, b_r) = sides.pair(0), sides.pair(1)
        a_x, a_r = sides.pair(2) if constant is None else (constant, constant)
        one_sign = (b_x > 0) == (b_r > 0)
        mean = torch.where(one_sign, (b_x + b_r) / 2, 1)
        to_a = torch.where(one_sign, 1 / mean, (1 / b_x + 1 / b_r) / 2)
        to_b = torch.where(one_sign, (z_x + z_r) / 2 / mean, (a_x + a_r) / 2 / b_x / b_r)
        to_v = to_b / (b_x + b_r) if root else to_b
        found = [grad * to_a, -grad * to_v][-len(shapes) :]
        return [sum_to(m, shape) for m, shape in zip(found, shapes, strict=True)]

    return Application(operands, forward, multipliers, stand_for=stand_for)


@rule("bmm", "mm")
def _mm(context: Context, input: Tensor, mat2: Tensor) -> Application | None:
    return _matmul(context, input, mat2)


@rule("matmul")
def _matmul(context: Context, input: Tensor, other: Tensor) -> Application | None:
    if not (context.carries(input) and context.carries(other)):
        return sparse_product(input, other)
    if input.dim() == 1 or other.dim() == 1:
        return bilinear(torch.matmul, input, other)

    shapes = input.shape, other.shape  # not the operands, which the rule would keep alive with all of their memory

    def forward(a: Tensor, b: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        return torch.matmul(a, b), [a.contiguous(), b.contiguous()]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        a, b = sides.midpoint(0), sides.midpoint(1)
        grad = grad.contiguous()  # once: otherwise each of the two products would copy it
        # Autocast multiplies in another dtype than its operands have.
        found = grad @ b.to(grad.dtype).mT, a.to(grad.dtype).mT @ grad
        return [sum_to(m, shape) for m, shape in zip(found, shapes, strict=True)]

    return Application([input, other], forward, multipliers)


@rule("rmatmul")
def _rmatmul(context: Context, input: Tensor, other: Tensor) -> Application | None:
    return _matmul(context, other, input)


def bilinear(
    function: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, stand_for: Sequence[Tensor] = ()
) -> Application:
    """The application of any bilinear map, by its derivative at the midpoints of its two factors."""

    def forward(a: Tensor, b: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        return function(a, b), [a, b]

    def multipliers(grad: Tensor, sides: Any) -> Sequence[Tensor]:
        points = [sides.midpoint(0).expand_as(a), sides.midpoint(1).expand_as(b)]
        return torch.func.vjp(function, *points)[1](grad)

    return Application([a, b], forward, multipliers, stand_for=stand_for)


def _register_bilinear(name: str, function: Callable[..., Tensor]) -> None:
    def binary(context: Context, *args: Tensor, **kwargs: Tensor) -> Application | None:
        # By position, since bilinear functions have different names for their second argument.
        a, b = (*args, *kwargs.values())
        return bilinear(function, a, b) if context.carries(a) and context.carries(b) else sparse_product(a, b)

    rule(name)(binary)


for _name, _function in {
    "mv": torch.mv,
    "dot": torch.dot,
    "inner": torch.inner,
    "outer": torch.outer,
    "ger": torch.outer,
    "kron": torch.kron,
}.items():
    _register_bilinear(_name, _function)


@rule("einsum")
def _einsum(context: Context, equation: str, *operands: Any) -> Application | None:
    tensors = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else list(operands)
    active = [position for position, tensor in enumerate(tensors) if context.carries(tensor)]
    if len(active) < 2:
        return None
    return multilinear(torch.einsum, (equation, *tensors), [tensors[position] for position in active], len(active))


@rule("linalg_multi_dot")
def _multi_dot(context: Context, tensors: Sequence[Tensor]) -> Application | None:
    active = [tensor for tensor in tensors if context.carries(tensor)]

    def product(*matrices: Tensor) -> Tensor:
        return functools.reduce(torch.matmul, matrices)

    return multilinear(product, tuple(tensors), active, len(active))


@rule("chain_matmul")
def _chain_matmul(context: Context, *matrices: Any) -> Application | None:
    return _multi_dot(context, matrices[0] if len(matrices) == 1 else matrices)


@decomposition("linear")
def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = input @ weight.mT
    return product if bias is None else product + bias


@decomposition("bilinear")
def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = torch.einsum("...i,...oi->...o", input1, torch.einsum("...j,oij->...oi", input2, weight))
    return product if bias is None else product + bias


def _added(input: Tensor, product: Tensor, beta: float, alpha: float) -> Tensor:
    return (input if beta == 1 else beta * input) + (product if alpha == 1 else alpha * product)


@decomposition("addmm", "_sparse_addmm")
def _addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(input, mat1 @ mat2, beta, alpha)


@decomposition("addmv")
def _addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(input, mat @ vec, beta, alpha)


@decomposition("baddbmm")
def _baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(input, batch1 @ batch2, beta, alpha)


@decomposition("addbmm")
def _addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(input, (batch1 @ batch2).sum(0), beta, alpha)


@decomposition("_grouped_mm")
def _grouped_mm(
    mat_a: Tensor, mat_b: Tensor, *, offs: Tensor | None = None, bias: Tensor | None = None, out_dtype: Any = None
) -> Tensor:
    """Products of the parts of matrices, as the experts of a mixture have them; ``offs``: where each part ends."""
    if offs is None:
        product = mat_a @ mat_b
    else:
        ends = [int(end) for end in offs]
        parts = [slice(*part) for part in zip([0, *ends], ends, strict=False)]
        if mat_a.dim() == mat_b.dim() == 2:
            product = torch.stack([mat_a[:, part] @ mat_b[part] for part in parts])
        elif mat_a.dim() == 2:
            # Rows behind the last part have no product, and torch leaves theirs open.
            rest = mat_a.new_zeros(len(mat_a) - ends[-1], mat_b.shape[-1])
            product = torch.cat([*(mat_a[part] @ mat_b[number] for number, part in enumerate(parts)), rest])
        else:
            rest = mat_a.new_zeros(mat_a.shape[1], mat_b.shape[-1] - ends[-1])
            columns = [mat_a[number] @ mat_b[:, part] for number, part in enumerate(parts)]
            product = torch.cat([*columns, rest], -1)
    product = product if bias is None else product + bias
    return product if out_dtype is None else product.to(out_dtype)


@decomposition("addr")
def _addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _added(input, torch.outer(vec1, vec2), beta, alpha)


@decomposition("addcmul")
def _addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    return input + value * (tensor1 * tensor2)


@decomposition("addcdiv")
def _addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: float = 1) -> Tensor:
    return input + value * (tensor1 / tensor2)


@decomposition("lerp")
def _lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    return input + weight * (end - input)


@decomposition("cosine_similarity")
def _cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    norms = [x.norm(dim=dim, keepdim=True).clamp_min(eps) for x in (x1, x2)]
    return ((x1 / norms[0]) * (x2 / norms[1])).sum(dim)


@decomposition("cdist")
def _cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: Any = None) -> Tensor:
    return torch.linalg.vector_norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


@decomposition("pairwise_distance")
def _pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    return torch.linalg.vector_norm(x1 - x2 + eps, p, -1, keepdim)


@decomposition("glu")
def _glu(input: Tensor, dim: int = -1) -> Tensor:
    value, gate = input.chunk(2, dim)
    return value * torch.sigmoid(gate)


def sum_to(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The tensor, summed over the dimensions along which an operand of this shape was broadcast to the tensor's."""
    if leading := tensor.dim() - len(shape):
        tensor = tensor.sum(tuple(range(leading)))
    dims = tuple(dim for dim, size in enumerate(shape) if size == 1 and tensor.shape[dim] != 1)
    return tensor.sum(dims, keepdim=True) if dims else tensor


def _promoted(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.result_type(a, b)
    return a.to(dtype), b.to(dtype)
