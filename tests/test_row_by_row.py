"""Models of which operations run depends on a sample's values: explained row by row, exact where both sides run alike."""

from __future__ import annotations

import pytest
import torch
from checks import explain
from torch import Tensor, nn

from deepshap_ext import AdditivityError, ControlFlowError, DeepExplainer, MixedSamplesError


class Experts(nn.Module):
    """A mixture of experts over tokens, each expert on its own subset of the batch's tokens, as many models write it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.router = nn.Linear(4, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 4)) for _ in range(3))
        self.head = nn.Linear(4, 2)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, 4)
        weights, chosen = self.router(tokens).softmax(-1).topk(2, -1)
        hidden = torch.zeros_like(tokens)
        for number in chosen.unique().tolist():
            token, place = torch.where(chosen == number)
            hidden.index_add_(0, token, self.experts[number](tokens[token]) * weights[token, place, None])
        return self.head(hidden.view_as(x).tanh().mean(1))


def near(x: Tensor, count: int) -> Tensor:
    """Baselines so near to the sample that they are routed alike."""
    noise = torch.randn(count, *x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3))
    return x + 1e-3 * noise


X = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_a_mixture_of_experts_adds_up_where_both_sides_are_routed_alike() -> None:
    model = Experts()
    found = explain(model, X[:1], near(X[0], 4), tolerance=1e-9, additivity_tolerance=1e-9)
    assert found.values.shape == (1, 5, 4, 2)


def test_each_samples_own_baselines() -> None:
    explainer = DeepExplainer(Experts(), near(X[0], 2), additivity_tolerance=1e-9)
    own = torch.stack([near(x, 3) for x in X])
    found = explainer.attribute(X, baselines=own)
    for row in range(3):
        alone = DeepExplainer(Experts(), own[row], additivity_tolerance=1e-9).attribute(X[row : row + 1])
        torch.testing.assert_close(found.values[row], alone.values[0], rtol=1e-12, atol=1e-15)


def test_other_routes_are_an_error_that_names_the_pair() -> None:
    explainer = DeepExplainer(Experts(), torch.cat([near(X[0], 1), -X[:1]]))
    with pytest.raises((ControlFlowError, AdditivityError), match="sample"):
        explainer.attribute(X[:1])


class Branch(nn.Module):
    """One of two functions, by the sign of the first sample's sum."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([row.tanh().sum() if row.sum() > 0 else row.exp().sum() for row in x])


def test_a_branch_of_every_samples_own() -> None:
    x, background = torch.rand(3, 4).double() + 0.1, torch.rand(2, 4).double() + 0.1
    background[1] = background[0] * 2
    explain(Branch(), x, background)
    with pytest.raises(ControlFlowError, match="sample 1 against its baseline 0"):
        DeepExplainer(Branch(), background).attribute(torch.cat([x[:1], -x[:1]]))


class OfTheBatch(nn.Module):
    """A branch that the whole batch takes together."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.tanh() if x.sum() > 0 else x.exp()).sum(1)


def test_a_branch_of_the_whole_batch_is_refused() -> None:
    explainer = DeepExplainer(OfTheBatch(), torch.tensor([[1.0, 2.0], [1.0, 1.5]], dtype=torch.float64))
    x = torch.tensor([[0.5, 0.5], [-3.0, -3.0]], dtype=torch.float64)
    with pytest.raises(ControlFlowError, match="sample 0 against its baseline 0"):
        explainer.attribute(x.flip(0))
    with pytest.raises(ControlFlowError, match="sample 0 against its baseline 0"):
        explainer.attribute(x[1:])
    explain(OfTheBatch(), x[:1], torch.tensor([[1.0, 2.0], [1.0, 1.5]], dtype=torch.float64))


def test_positions_in_the_batch_are_not_compared_between_samples() -> None:
    """Every sample's largest entry, by its position in the flattened batch."""

    class Largest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            place = x.argmax(1) + torch.arange(len(x)) * x.shape[1]
            return x.flatten()[place].exp() + x.sum(1)

    x, background = torch.rand(3, 4).double(), torch.rand(2, 4).double()
    x[:, 2], background[:, 2] = 2, 3
    explain(Largest(), x, background)
    with pytest.raises(AdditivityError, match=r"argmax in Largest .* takes different decisions for sample\(s\) 1 "):
        DeepExplainer(Largest(), background).attribute(torch.stack([x[0], x[1].flip(0)]))


def test_two_rows_that_run_alike_do_not_hide_that_others_do_not() -> None:
    """The background tells nothing of the branch: it is found when explaining, and then every pair runs alone."""
    background = torch.rand(2, 4).double() + 0.1
    explainer = DeepExplainer(Branch(), background)
    x = torch.rand(2, 4).double() + 0.1
    expected = explainer.attribute(x).values
    own = torch.stack([background, -background])
    found = explainer.attribute(torch.cat([x[:1], -x[1:]]), baselines=own)
    assert torch.equal(found.values[0], expected[0])
    assert found.convergence_delta.abs().max() < 1e-14


@pytest.mark.parametrize("seed", range(8))
def test_rows_that_are_steps_of_one_sequence_are_refused(seed: int) -> None:
    """An unbatched recurrent layer takes the rows of the batch for time steps."""

    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.rnn = nn.RNN(3, 2, nonlinearity="relu")
            self.double()

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    with pytest.raises((ControlFlowError, MixedSamplesError)):
        DeepExplainer(Steps(), torch.randn(4, 3, dtype=torch.float64)).attribute(torch.randn(3, 3, dtype=torch.float64))
