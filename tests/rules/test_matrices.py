"""Inverses, linear systems and determinants: complete, in every spelling, and near the exact Shapley values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from reference.shapley import shapley_values
from rules.adding_up import check
from rules.linear_samples import const
from torch import Tensor, nn

from deepshap_ext import DeepExplainer


def definite(h: Tensor) -> Tensor:
    a = h[:, :4].reshape(-1, 2, 2)
    return a @ a.mT + torch.eye(2).double()


def top(h: Tensor) -> Tensor:
    return h.view(-1, 2, 3)


SPELLINGS: dict[str, Callable[[Tensor], Any]] = {
    "inv": lambda h: torch.linalg.inv(definite(h)) @ const(2, 3),
    "inverse": lambda h: definite(h).inverse() + torch.inverse(definite(h.sin())),
    "inv of one": lambda h: torch.stack([torch.linalg.inv(row) for row in definite(h)]),
    "inv_ex": lambda h: torch.linalg.inv_ex(definite(h)).inverse,
    "solve": lambda h: torch.linalg.solve(definite(h), top(h)),
    "solve for vectors": lambda h: torch.linalg.solve(definite(h), h[:, :2]),
    "solve from the right": lambda h: torch.linalg.solve(definite(h), h.view(-1, 3, 2), left=False),
    "solve a constant system": lambda h: torch.linalg.solve(const(6, 6), h.unsqueeze(-1)),
    "solve for constants": lambda h: torch.linalg.solve(definite(h), const(2, 6)),
    "solve_ex": lambda h: torch.linalg.solve_ex(definite(h), const(2, 6)).result,
    "solve a triangle": lambda h: torch.linalg.solve_triangular(definite(h), top(h), upper=True),
    "solve a unit triangle from the right": lambda h: torch.linalg.solve_triangular(
        definite(h), h.view(-1, 3, 2), upper=False, left=False, unitriangular=True
    ),
    "triangular_solve": lambda h: torch.triangular_solve(top(h), definite(h), transpose=True)[0],
    "cholesky": lambda h: torch.linalg.cholesky(definite(h)),
    "cholesky, upper": lambda h: torch.linalg.cholesky(definite(h), upper=True) + definite(h).cholesky(True),
    "cholesky_ex": lambda h: torch.linalg.cholesky_ex(definite(h)).L @ const(2, 2),
    "log-density": lambda h: torch.linalg.solve_triangular(
        torch.linalg.cholesky(definite(h)), h[:, 4:].unsqueeze(-1), upper=False
    ).square(),
    "cholesky_solve": lambda h: torch.cholesky_solve(top(h), definite(h).tril()),
    "cholesky_inverse": lambda h: torch.cholesky_inverse(definite(h).triu(), upper=True),
    "det": lambda h: torch.linalg.det((h[:, :, None] * const(6, 6))[:, :3, :3] + const(3, 3)) + definite(h).det(),
    "logdet": lambda h: torch.logdet(definite(h)),
    "slogdet": lambda h: torch.linalg.slogdet(definite(h)).logabsdet + torch.slogdet(-definite(h))[1],
    "negative power": lambda h: torch.linalg.matrix_power(definite(h), -2) + torch.matrix_power(definite(h), 3),
    "power of zero": lambda h: torch.linalg.matrix_power(definite(h), 0) * top(h)[:, :, :2],
    "chain": lambda h: torch.stack(
        [torch.linalg.multi_dot([row.view(2, 3), row.sin().view(3, 2), row.cos().view(2, 3)]) for row in h]
    ),
    "chain with a constant": lambda h: torch.linalg.multi_dot([h, const(6, 4), const(4, 2)]),
    "row and column sums": lambda h: (
        torch.stack([torch.linalg.matrix_norm(top(h), order) for order in (1, -1, torch.inf, -torch.inf)], 1)
        + torch.linalg.norm(top(h), 1, (1, 2)).unsqueeze(1)
    ),
    "frobenius": lambda h: torch.linalg.matrix_norm(top(h), keepdim=True) + torch.norm(top(h), "fro", (1, 2), True),
}


@pytest.mark.filterwarnings("ignore:torch.triangular_solve is deprecated", "ignore:torch.cholesky is deprecated")
@pytest.mark.parametrize("name", SPELLINGS)
def test_adds_up(name: str) -> None:
    check(SPELLINGS[name], 1e-11)


class OfEntries(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.function, self.shape = function, shape

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x.unflatten(1, self.shape)).flatten(1)


def explained(model: nn.Module, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """The values, and the exact ones."""
    found = DeepExplainer(model, r[:1], additivity_tolerance=1e-9).attribute(x, baselines=r.unsqueeze(1)).values
    return found, torch.stack([shapley_values(model, *sides) for sides in zip(x, r, strict=True)])


@pytest.mark.parametrize("size", [1, 2, 3])
def test_determinants_have_the_exact_shapley_values_of_their_entries(size: int) -> None:
    x, r = torch.randn(2, 5, size * size, dtype=torch.float64)
    found, exact = explained(OfEntries(lambda a: torch.linalg.det(a).unsqueeze(1), (size, size)), x, r)
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)


def test_inverses_are_nearer_to_the_shapley_values_than_their_gradient() -> None:
    """Here the entries are near those of the identity; what a gradient leaves out grows with their distance."""
    eye = torch.eye(3, dtype=torch.float64).flatten()
    x, r = eye + 0.25 * torch.randn(2, 20, 9, dtype=torch.float64)
    model = OfEntries(torch.linalg.inv, (3, 3))
    found, exact = explained(model, x, r)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: model(row.unsqueeze(0)).squeeze(0)))(x)
    gradient = jacobian.mT * (x - r).unsqueeze(-1)
    ours, theirs = ((values - exact).flatten(1).norm(dim=1) for values in (found, gradient))
    assert ours.median() < 0.5 * theirs.median()


def test_cholesky_factors_are_nearer_to_the_shapley_values_than_their_gradient() -> None:
    def factor(a: Tensor) -> Tensor:
        return torch.linalg.cholesky(a + a.mT)

    x, r = 2 * torch.eye(2).double().flatten() + 0.7 * torch.rand(2, 20, 4, dtype=torch.float64)
    model = OfEntries(factor, (2, 2))
    found, exact = explained(model, x, r)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: model(row.unsqueeze(0)).squeeze(0)))(x)
    ours, theirs = ((values - exact).flatten(1).norm(dim=1) for values in (found, jacobian.mT * (x - r).unsqueeze(-1)))
    assert ours.median() < 0.5 * theirs.median()


def test_solutions_of_two_players_are_exact() -> None:
    """The matrix and the right-hand side, whole."""
    x, r = torch.randn(2, 5, 2, 2, 2, dtype=torch.float64)
    x[:, 0], r[:, 0] = (side[:, 0] @ side[:, 0].mT + torch.eye(2).double() for side in (x, r))

    class Solve(nn.Module):
        def forward(self, pair: Tensor) -> Tensor:
            return torch.linalg.solve(pair[:, 0], pair[:, 1]).flatten(1)

    found, exact = explained(Solve(), x, r)
    torch.testing.assert_close(found.sum((2, 3)), exact, rtol=1e-10, atol=1e-12)
