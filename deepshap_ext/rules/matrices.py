"""Inverses, Cholesky factors and determinants of matrices, and solutions of linear systems, which are products with an inverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .integrate import multilinear
from .registry import Application, Context, decomposition, rule


@rule("linalg_inv")
def _inv(_: Context, A: Tensor) -> Application:
    """From ``Z(x) - Z(r) = -Z(x) (A(x) - A(r)) Z(r)`` for the inverse ``Z``; the mean of this and of the same with the sides exchanged."""

    def forward(A: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        inverse = torch.linalg.inv(A)
        return inverse, [inverse]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        x, r = (side.mT for side in sides.pair())
        return [-(x @ grad @ r + r @ grad @ x) / 2]

    return Application([A], forward, multipliers)


@decomposition("linalg_inv_ex")
def _inv_ex(A: Tensor, *, check_errors: bool = False) -> Any:
    info = torch.linalg.inv_ex(A.detach(), check_errors=check_errors).info
    return torch.return_types.linalg_inv_ex((torch.linalg.inv(A), info))  # type: ignore[attr-defined]


@decomposition("linalg_solve")
def _solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    inverse = torch.linalg.inv(A)
    if B.dim() == 1 or B.shape == A.shape[:-1]:  # as torch tells vectors from matrices
        return (inverse @ B.unsqueeze(-1)).squeeze(-1)
    return inverse @ B if left else B @ inverse


@decomposition("linalg_solve_ex")
def _solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> Any:
    info = torch.linalg.inv_ex(A.detach(), check_errors=check_errors).info
    return torch.return_types.linalg_solve_ex((torch.linalg.solve(A, B, left=left), info))  # type: ignore[attr-defined]


def _triangle(A: Tensor, upper: bool, unitriangular: bool) -> Tensor:
    if not unitriangular:
        return A.triu() if upper else A.tril()
    identity = torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    return (A.triu(1) if upper else A.tril(-1)) + identity


@decomposition("linalg_solve_triangular")
def _solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    inverse = torch.linalg.inv(_triangle(A, upper, unitriangular))
    return inverse @ B if left else B @ inverse


@decomposition("triangular_solve")
def _triangular_solve(
    B: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> Any:
    triangle = _triangle(A, upper, unitriangular)
    inverse = torch.linalg.inv(triangle.mT if transpose else triangle)
    return torch.return_types.triangular_solve((inverse @ B, A.clone()))


@rule("linalg_cholesky", "cholesky")
def _cholesky(_: Context, A: Tensor, upper: bool = False) -> Application:
    """Cholesky's derivative at the mean of the two factors: with ``dL = L(x) - L(r)``, ``A(x) - A(r) = dL mean(L)^T + mean(L) dL^T``."""

    def forward(A: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        factor = torch.linalg.cholesky(A)
        return factor.mT if upper else factor, [factor]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        factor = sides.midpoint()
        lower = (factor.mT @ (grad.mT if upper else grad)).tril()
        lower = lower - torch.diag_embed(lower.diagonal(0, -2, -1) / 2)
        inverse = torch.linalg.inv(factor)
        found = inverse.mT @ lower @ inverse
        return [(found + found.mT) / 2]

    return Application([A], forward, multipliers)


@decomposition("linalg_cholesky_ex")
def _cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    info = torch.linalg.cholesky_ex(A.detach(), upper=upper, check_errors=check_errors).info
    return torch.return_types.linalg_cholesky_ex((torch.linalg.cholesky(A, upper=upper), info))  # type: ignore[attr-defined]


@decomposition("cholesky_inverse")
def _cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    inverse = torch.linalg.inv(_triangle(L, upper, False))
    return inverse @ inverse.mT if upper else inverse.mT @ inverse


@decomposition("cholesky_solve")
def _cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    return torch.cholesky_inverse(L, upper=upper) @ B


@rule("linalg_det", "det")
def _det(_: Context, A: Tensor) -> Application:
    """The determinant is a sum of products, each of as many entries as there are rows, and linear in each entry."""
    return multilinear(torch.linalg.det, (A,), [A], A.shape[-1])


@decomposition("logdet")
def _logdet(A: Tensor) -> Tensor:
    return torch.linalg.det(A).log()


@decomposition("linalg_slogdet", "slogdet")
def _slogdet(A: Tensor) -> Any:
    determinant = torch.linalg.det(A)
    return torch.return_types.linalg_slogdet((determinant.sign(), determinant.abs().log()))  # type: ignore[attr-defined]
