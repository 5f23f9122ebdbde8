"""Inverses, determinants and linear systems; of ``[rows, columns]`` per sample, the entries are the players."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from reference import rules as slow
from reference.units import elementwise as rescaled
from torch import Tensor

from .sample import Sample, one, quietly


def samples() -> dict[str, Sample]:
    def of_matrix(op: Any, slowly: Any, distance: float) -> Sample:
        """Of a matrix not far from the identity."""
        return Sample(
            (9,),
            lambda x: op(x.unflatten(1, (3, 3))),
            lambda a: slowly(a.reshape(3, 3)),
            distance,
            lambda x, r: tuple(torch.eye(3, dtype=x.dtype).flatten() * 2 + side.tanh() / 2 for side in (x, r)),  # type: ignore[return-value]
        )

    def of_definite(op: Any, slowly: Any, distance: float) -> Sample:
        eye = np.eye(3)
        return of_matrix(
            quietly(lambda m: op(m @ m.mT + torch.from_numpy(eye))), lambda a: slowly(a @ a.T + eye), distance
        )

    def system(op: Any, slowly: Any, distance: float) -> Sample:
        """Of two matrices, the first of them regular."""

        def regular(*sides: Tensor) -> Any:
            return tuple(
                torch.cat([torch.eye(2, dtype=side.dtype).flatten() * 2 + side[:, :4].tanh() / 2, side[:, 4:]], 1)
                for side in sides
            )

        def run(x: Tensor) -> Any:
            return op(*x.unflatten(1, (2, 2, 2)).unbind(1))

        return Sample((8,), run, lambda a: slowly(*a.reshape(2, 2, 2)), distance, regular)

    def inverse_of_lower(a: np.ndarray) -> np.ndarray:
        return slow.inverse(np.where(np.tri(len(a), dtype=bool), a, 0))

    def gram_inverse(a: np.ndarray) -> np.ndarray:
        inverse = inverse_of_lower(a)
        return inverse.T @ inverse

    def log_determinant(a: np.ndarray) -> np.ndarray:
        return one(rescaled("log", slow.determinant(a)))

    def solve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return slow.inverse(a) @ b

    def solve_lower(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return inverse_of_lower(a) @ b

    triangular = system(lambda a, b: torch.triangular_solve(b, a, upper=False).solution, solve_lower, 0.01)
    return {
        "linalg_inv": of_matrix(torch.linalg.inv, slow.inverse, 0.07),
        "linalg_inv_ex": of_matrix(torch.linalg.inv_ex, slow.inverse, 0.07),
        "linalg_det": of_matrix(lambda m: torch.linalg.det(m)[:, None], lambda a: one(slow.determinant(a)), 0),
        "det": of_matrix(lambda m: torch.det(m)[:, None], lambda a: one(slow.determinant(a)), 0),
        "logdet": of_matrix(lambda m: torch.logdet(m)[:, None], log_determinant, 0.03),
        "slogdet": of_matrix(lambda m: torch.slogdet(m)[1][:, None], log_determinant, 0.03),
        "linalg_slogdet": of_matrix(lambda m: torch.linalg.slogdet(m)[1][:, None], log_determinant, 0.03),
        "cholesky": of_definite(torch.cholesky, slow.cholesky, 0.1),
        "linalg_cholesky": of_definite(torch.linalg.cholesky, slow.cholesky, 0.1),
        "linalg_cholesky_ex": of_definite(lambda m: torch.linalg.cholesky_ex(m).L, slow.cholesky, 0.1),
        "cholesky_inverse": of_matrix(torch.cholesky_inverse, gram_inverse, 0.05),
        "cholesky_solve": system(lambda a, b: torch.cholesky_solve(b, a), lambda a, b: gram_inverse(a) @ b, 0.01),
        "linalg_solve": system(torch.linalg.solve, solve, 0.01),
        "linalg_solve_ex": system(torch.linalg.solve_ex, solve, 0.01),
        "linalg_solve_triangular": system(
            lambda a, b: torch.linalg.solve_triangular(a, b, upper=False), solve_lower, 0.01
        ),
        "triangular_solve": triangular._replace(op=quietly(triangular.op)),
    }
