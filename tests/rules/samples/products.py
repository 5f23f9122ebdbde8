"""Products, quotients and attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from reference import rules as slow
from reference.units import elementwise as rescaled
from rules.linear_samples import const
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from .sample import Sample, by_sample, linear, of_two, one, positive, quietly


def samples() -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    w = const(2, 3, 4)
    places = torch.tensor([[0, 0, 3]])
    matrix = const(4, 3)

    def grouped(convolve: Callable[..., Tensor], dims: int) -> Callable[[Tensor], Tensor]:
        """Each sample convolved with the weights behind it: samples are groups."""

        def op(x: Tensor) -> Tensor:
            a, b = x[:, 0].reshape(1, -1, *[3] * dims), x[:, 1].reshape(-1, 1, *[3] * dims)
            return convolve(a, b[(..., *[slice(2)] * dims)], groups=len(x)).reshape(len(x), -1)

        return op

    def convolution(dims: int) -> dict[str, Sample]:
        """With constant weights and with weights from the input."""
        size, taps = [3] * dims, [slice(2)] * dims
        weight, transposed = const(4, 1, *[2] * dims), const(2, 3, *[2] * dims)

        def factors(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            one, other = a.reshape(2, 1, 1, *size)
            return one[0], other[(..., *taps)]

        convolve, transpose = getattr(F, f"conv{dims}d"), getattr(F, f"conv_transpose{dims}d")
        return {
            f"conv{dims}d": Sample(
                (2, *size),
                lambda x: convolve(x, weight, stride=2, padding=1, groups=2),
                lambda a: slow.convolve(a, weight.numpy(), 2, 1, groups=2),
            ),
            f"conv_transpose{dims}d": Sample(
                (2, *size),
                lambda x: transpose(x, transposed, stride=2, padding=1),
                lambda a: slow.convolve_transposed(a, transposed.numpy(), 2, 1),
            ),
            f"conv{dims}d: weights from the input": Sample(
                (2, 3**dims), grouped(convolve, dims), lambda a: slow.convolve(*factors(a))
            ),
            f"conv_transpose{dims}d: weights from the input": Sample(
                (2, 3**dims), grouped(transpose, dims), lambda a: slow.convolve_transposed(*factors(a))
            ),
        }

    def of_two_matrices(op: Callable[..., Tensor], slowly: Callable[..., np.ndarray]) -> Sample:
        return Sample((2, 2, 2), by_sample(lambda x: op(x[0], x[1])), lambda a: slowly(a[0], a[1]))

    def of_three_matrices(op: Callable[[Any], Tensor]) -> Sample:
        return Sample((3, 2, 2), by_sample(lambda x: op(list(x))), lambda a: slow.matrix_product(*a))

    def of_table(op: Callable[[Tensor], Tensor]) -> Sample:
        return linear((3, 2), by_sample(op))

    def flexibly(x: Tensor) -> Tensor:
        heads = x.unsqueeze(1)
        return flex_attention(heads, heads, heads, score_mod=causal)

    def of_groups(op: Callable[..., Tensor]) -> Sample:
        """Of the first row and of the two others, which torch multiplies in single precision: exact for numbers of few bits."""
        weights, ends = torch.arange(32.0).view(2, 4, 4), torch.tensor([1, 3], dtype=torch.int32)

        def each(x: Tensor) -> Tensor:
            return torch.stack([op(row, weights, offs=ends) for row in x.float()]).double()

        return linear((3, 4), each)._replace(draw=lambda x, r: ((x * 8).round() / 8, (r * 8).round() / 8))

    def sums(a: np.ndarray) -> np.ndarray:
        return np.array([slow.product(a[: n + 1]) for n in range(len(a))], dtype=object)

    def areas(a: np.ndarray) -> np.ndarray:
        return (a[0, 1:] + a[0, :-1]) * (a[1, 1:] - a[1, :-1]) * 0.5

    def crossed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.roll(a, -1) * np.roll(b, -2) - np.roll(b, -1) * np.roll(a, -2)

    def apart(x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Divisors from 0.1 up."""
        return tuple(torch.stack([side[:, 0], side[:, 1].abs() + 0.1], 1) for side in (x, r))  # type: ignore[return-value]

    def through_zero(x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        (top, bottom), (top_r, bottom_r) = (side.unbind(1) for side in apart(x, r))
        return torch.stack([top, bottom], 1), torch.stack([top_r, -bottom_r], 1)

    for dims in (1, 2, 3):
        found.update(convolution(dims))

    def causal(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return torch.where(query >= key, score, -torch.inf)

    found.update(
        {
            "mul": of_two(torch.mul, np.multiply),
            "mul: of a square": Sample((3,), lambda x: x * x, lambda a: a * a),
            "div": of_two(torch.div, np.divide, draw=apart, distance=0.5),
            "div: through 0": of_two(torch.div, np.divide, draw=through_zero),
            "div: into a constant": Sample((3,), lambda x: torch.div(const(3), x), lambda a: const(3).numpy() / a),
            "matmul": of_two(torch.matmul, np.matmul, (3, 3)),
            "matmul: with a vector": of_two(
                lambda a, b: torch.matmul(a, b[..., 0].unsqueeze(-1)), lambda a, b: a @ b[:, 0], (3, 3)
            ),
            "rmatmul": of_two(lambda a, b: a.__rmatmul__(b), lambda a, b: b @ a, (2, 2)),
            "bmm": of_two(torch.bmm, np.matmul, (2, 2)),
            "baddbmm": Sample(
                (3, 2, 2),
                lambda x: torch.baddbmm(*x.unbind(1), beta=0.5, alpha=2),
                lambda a: a[0] * 0.5 + a[1] @ a[2] * 2,
            ),
            "einsum": of_two(
                lambda a, b: torch.einsum("bi,bj,ijk->bik", a, b, const(3, 3, 2)),
                lambda a, b: np.einsum("i,j,ijk->ik", a, b, const(3, 3, 2).numpy()),
            ),
            "bilinear": of_two(
                lambda a, b: F.bilinear(a, b, const(2, 3, 3)),
                lambda a, b: np.array([a @ m @ b for m in const(2, 3, 3).numpy()]),
            ),
            "linalg_vecdot": of_two(lambda a, b: torch.linalg.vecdot(a, b)[:, None], lambda a, b: one(a @ b)),
            "linalg_cross": of_two(torch.linalg.cross, crossed),
            "cross": of_two(lambda a, b: torch.cross(a, b, dim=-1), crossed),
            "mm": of_two_matrices(torch.mm, np.matmul),
            "linear": of_two_matrices(F.linear, lambda a, b: a @ b.T),
            "mv": of_two_matrices(lambda a, b: torch.mv(a, b[0]), lambda a, b: a @ b[0]),
            "dot": of_two_matrices(lambda a, b: torch.dot(a[0], b[1]), lambda a, b: one(a[0] @ b[1])),
            "inner": of_two_matrices(torch.inner, lambda a, b: a @ b.T),
            "outer": of_two_matrices(lambda a, b: torch.outer(a[0], b[0]), lambda a, b: np.outer(a[0], b[0])),
            "ger": of_two_matrices(lambda a, b: torch.ger(a[0], b[0]), lambda a, b: np.outer(a[0], b[0])),
            "kron": of_two_matrices(torch.kron, np.kron),
            "_sparse_mm": Sample(
                (3,), lambda x: torch.sparse.mm(matrix.to_sparse(), x.t()).t(), lambda a: matrix.numpy() @ a
            ),
            "_sparse_addmm": Sample(
                (3,),
                lambda x: torch.sparse.addmm(const(1), matrix.to_sparse(), x.t()).t(),
                lambda a: const(1).numpy() + matrix.numpy() @ a,
            ),
            "addmm": of_two_matrices(
                lambda a, b: torch.addmm(a, a, b, beta=0.5, alpha=2), lambda a, b: a * 0.5 + a @ b * 2
            ),
            "addmv": of_two_matrices(lambda a, b: torch.addmv(b[1], a, b[0]), lambda a, b: b[1] + a @ b[0]),
            "addr": of_two_matrices(
                lambda a, b: torch.addr(b, a[0], b[0], alpha=2), lambda a, b: b + np.outer(a[0], b[0]) * 2
            ),
            "addbmm": of_two_matrices(
                lambda a, b: torch.addbmm(a, torch.stack([a, b]), torch.stack([b, b])), lambda a, b: a + a @ b + b @ b
            ),
            "chain_matmul": of_three_matrices(quietly(lambda matrices: torch.chain_matmul(*matrices))),
            "linalg_multi_dot": of_three_matrices(torch.linalg.multi_dot),
            "matrix_power": Sample((2, 2), lambda x: torch.linalg.matrix_power(x, 3), lambda a: a @ a @ a, 0.4),
            "trapezoid": of_two(
                lambda y, x: torch.trapezoid(y, x)[:, None], lambda y, x: one(areas(np.stack([y, x])).sum())
            ),
            "cumulative_trapezoid": of_two(torch.cumulative_trapezoid, lambda y, x: np.cumsum(areas(np.stack([y, x])))),
            "addcmul": Sample((3, 2), lambda x: torch.addcmul(*x.unbind(1), value=2), lambda a: a[0] + a[1] * a[2] * 2),
            "addcdiv": Sample(
                (3, 2),
                lambda x: torch.addcdiv(*x.unbind(1), value=2),
                lambda a: a[0] + a[1] / a[2] * 2,
                0.2,
                positive,
            ),
            "lerp": Sample((3, 2), lambda x: torch.lerp(*x.unbind(1)), lambda a: a[0] + a[2] * (a[1] - a[0])),
            "_grouped_mm": of_groups(torch.nn.functional.grouped_mm),
            "prod": Sample((5,), lambda x: x.prod(1, keepdim=True), lambda a: one(slow.product(a))),
            "prod: of two dimensions": Sample(
                (3, 2), lambda x: x.prod(1), lambda a: [slow.product(column) for column in a.T]
            ),
            "cumprod": Sample((4,), lambda x: x.cumprod(1), sums),
            "embedding": of_table(lambda table: F.embedding(torch.tensor([2, 0, 2]), table)),
            "embedding_bag": of_table(lambda table: F.embedding_bag(torch.tensor([[2, 0, 2], [1, 1, 0]]), table)),
            "scatter_reduce": linear((5,), lambda x: x.scatter_reduce(1, places.expand(len(x), 3), x[:, 2:], "mean")),
            "scatter_reduce: prod": Sample(
                (5,),
                lambda x: x.scatter_reduce(1, places.expand(len(x), 3), x[:, 2:], "prod"),
                lambda a: [slow.product([a[0], a[2], a[3]]), a[1], a[2], a[3] * a[4], a[4]],
            ),
            "index_reduce": linear((5,), quietly(lambda x: x.index_reduce(1, places[0], x[:, 2:], "mean"))),
            "glu": Sample((6,), F.glu, lambda a: a[:3] * rescaled("sigmoid", a[3:])),
            "scaled_dot_product_attention": Sample(
                (4, 3),
                lambda x: F.scaled_dot_product_attention(x, x @ w[0, :, :3], x @ w[1, :, :3]),
                lambda a: slow.attention(a, a @ w[0, :, :3].numpy(), a @ w[1, :, :3].numpy()),
                0.2,
            ),
            "flex_attention": Sample(
                (4, 3),
                quietly(flexibly),
                lambda a: slow.attention(a, a, a, np.tri(4, dtype=bool)),
                0.16,
            ),
            "scaled_dot_product_attention: causal": Sample(
                (4, 3),
                lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
                lambda a: slow.attention(a, a, a, np.tri(4, dtype=bool)),
                0.16,
            ),
        }
    )
    return found
