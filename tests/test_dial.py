"""The accuracy dial: values between DeepSHAP's and exact Shapley values, which add up however far it is turned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from models import Function, TwoInputs, digits, spread
from reference.shapley import of_pairs
from torch import Tensor, nn

from deepshap_ext import AdditivityError, DeepExplainer, Explainer, players
from deepshap_ext.orders import fold_in, keys_of_samples, ranks


def mlp(features: int, outputs: int = 2, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """A net whose features interact."""
    torch.manual_seed(0)
    return spread(
        nn.Sequential(
            nn.Linear(features, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, outputs)
        ).double(),
        2.5,
    )


def drawn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def exact(model: Callable[..., Tensor], X: Tensor, baselines: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """``[N, players, outputs]``: the mean over baselines ``[R, ...]`` or ``[N, R, ...]`` of brute-force Shapley values of dimension 1."""
    own = baselines if baselines.dim() > X.dim() else baselines.expand(len(X), *baselines.shape)
    x = X.unsqueeze(1).expand_as(own).flatten(0, 1)
    with torch.no_grad():
        values = of_pairs(model, x, own.flatten(0, 1)).unflatten(0, own.shape[:2])
    shares = torch.tensor(weights or [1.0] * own.shape[1], dtype=torch.float64)
    return torch.einsum("nrpo,r->npo", values, shares / shares.sum())


def distance(values: Tensor, truth: Tensor) -> float:
    return float(((values - truth).norm(dim=1) / truth.norm(dim=1)).median())


def assert_adds_up(model: nn.Module, found: Any, X: Any, baselines: Any) -> None:
    """``found``: of all outputs."""
    values = found.values if isinstance(found.values, tuple) else (found.values,)
    total = sum(value.flatten(1, -2).sum(1) for value in values)
    inputs, others = (side if isinstance(side, list) else [side] for side in (X, baselines))
    with torch.no_grad():
        difference = model(*inputs) - model(*others).mean(0)
    assert float((total - difference).abs().max()) < 1e-12 * float(difference.abs().max())
    assert float(found.convergence_delta.abs().max()) < 1e-12 * float(difference.abs().max())


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_fewer_than_four_passes_are_deepshap(passes: int) -> None:
    X, baselines, explainer = drawn(3, 12), drawn(5, 12, seed=2), Explainer(mlp(12))
    deepshap = explainer.attribute(X, baselines=baselines, standard_error=True)
    found = explainer.attribute(X, baselines=baselines, passes=passes, seed=3, standard_error=True)
    assert torch.equal(found.values, deepshap.values) and torch.equal(found.standard_error, deepshap.standard_error)


@pytest.mark.parametrize("passes", [4, 5, 9, 24, 100])
@pytest.mark.parametrize("baselines", [1, 3])
@pytest.mark.parametrize("groups", [None, [0, 0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8, 9, 9]])
def test_values_add_up(passes: int, baselines: int, groups: list[int] | None) -> None:
    model, X, R = mlp(14), drawn(3, 14), drawn(baselines, 14, seed=2)
    labels = None if groups is None else torch.tensor(groups)
    found = Explainer(model).attribute(X, baselines=R, passes=passes, players=labels)
    assert found.values.shape == (3, 14 if groups is None else 10, 2)
    assert_adds_up(model, found, X, R)


@pytest.mark.parametrize("number", [1, 2, 5, 9])
def test_values_are_exact_where_the_coalitions_cost_no_more(number: int) -> None:
    model, X, R = mlp(number), drawn(3, number), drawn(2, number, seed=2)
    X[1], X[2, 0], R[0, 0] = R[1], R[0, 0], X[0, 0]  # samples and baselines that agree in some features, or in all
    enough = max(4, -(-(2**number) // 3))
    found = Explainer(model).attribute(X, baselines=R, passes=enough, standard_error=True)
    torch.testing.assert_close(found.values, exact(model, X, R), rtol=0, atol=1e-13)
    assert not found.standard_error.any()
    if 2**number > 12:
        fewer = Explainer(model).attribute(X, baselines=R, passes=enough - 1)
        assert not torch.allclose(fewer.values, found.values, rtol=0, atol=1e-8)


def test_weights_and_own_baselines() -> None:
    model, X, own = mlp(5), drawn(3, 5), drawn(3, 4, 5, seed=2)
    weights = [0.1, 3.0, 2.0, 1.0]
    found = Explainer(model).attribute(X, baselines=own, weights=weights, passes=11)
    torch.testing.assert_close(found.values, exact(model, X, own, weights), rtol=0, atol=1e-13)
    X, own = drawn(2, 20), drawn(2, 4, 20, seed=2)
    found = Explainer(mlp(20)).attribute(X, baselines=own, weights=weights, passes=24)
    more = Explainer(mlp(20)).attribute(X, baselines=own, weights=weights, passes=1200)
    plain = Explainer(mlp(20)).attribute(X, baselines=own, weights=weights)
    assert float(found.convergence_delta.abs().max()) < 1e-12
    assert distance(found.values, more.values) < 0.6 * distance(plain.values, more.values)


@pytest.mark.parametrize("number", [6, 17])
def test_a_leg_for_every_player_is_permutation_sampling(number: int) -> None:
    model, X, R = mlp(number), drawn(3, number), drawn(2, number, seed=2)
    X[0, 2] = R[0, 2]
    found = Explainer(model).attribute(X, 1, baselines=R, passes=6 * number, legs=number, seed=5)
    expected = torch.zeros(3, number, dtype=torch.float64)
    keys = keys_of_samples(5, [X])
    for n, x in enumerate(X):
        for j, r in enumerate(R):
            differ = (x != r).nonzero()[:, 0].tolist()
            pairs = 6 * number // (2 * len(differ))
            for pair in range(pairs):
                key = fold_in(fold_in(keys[n], torch.tensor(j)), torch.tensor(pair))
                places = ranks(key[None], (x != r)[None])[0].tolist()
                order = sorted(differ, key=places.__getitem__)
                for one in (order, order[::-1]):
                    points = [r.clone()]
                    for player in one:
                        points.append(points[-1].clone())
                        points[-1][player] = x[player]
                    with torch.no_grad():
                        worth = model(torch.stack(points))[:, 1]
                    expected[n, one] += worth.diff() / (2 * pairs * len(R))
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-13)


def test_two_legs_are_nearer_than_deepshap() -> None:
    """relu(2a + b + 0c - 2) from 0 to 1: exact (1/2, 1/2, 0), DeepSHAP (2/3, 1/3, 0), the mean of two legs (5/9, 4/9, 0)."""
    model = nn.Sequential(nn.Linear(3, 1), nn.ReLU()).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[2.0, 1.0, 0.0]]))
        model[0].bias.fill_(-2)
    X, R = torch.ones(1, 3).double(), torch.zeros(1, 3).double()
    pairs = 4000
    found = Explainer(model).attribute(X, 0, baselines=R, passes=4 * pairs, legs=2).values[0]
    # What a pair of chains gives a is between 1/3 and 2/3: its standard deviation is at most 1/6.
    assert abs(float(found[0]) - 5 / 9) < 4 * (1 / 6) / pairs**0.5
    torch.testing.assert_close(found[:2].sum(), torch.tensor(1.0).double(), rtol=0, atol=1e-14)
    assert found[2] == 0


def draws(number: int, copies: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A model of ``number`` features and one that has no influence, a sample many times, and a baseline. The samples differ in that one
    feature, and so have random orders of their own."""
    model, X = mlp(number + 1), drawn(1, number + 1).repeat(copies, 1)
    with torch.no_grad():
        model[0].weight[:, number] = 0
    X[:, number] = torch.arange(1, copies + 1)
    return model, X, torch.cat([drawn(1, number, seed=2), torch.zeros(1, 1).double()], 1)


def chi_square(legs: int) -> float:
    """Of the mean over random orders, in units of its degrees of freedom."""
    model, X, R = draws(6, 300)
    values = Explainer(model).attribute(X, 0, baselines=R, passes=2 * legs, legs=legs).values[:, :6]
    gap = values.mean(0) - exact(model, X[:1], R)[0, :6, 0]
    return float((gap / (values.std(0) / 300**0.5)).square().sum() / 5)


def test_the_mean_is_right_with_a_leg_for_every_player_and_not_with_two() -> None:
    assert chi_square(legs=7) < 3  # a mean of 5 degrees of freedom is larger in one of a hundred cases
    assert chi_square(legs=2) > 10


@pytest.mark.parametrize("passes", [4, 40, 400])
def test_features_without_influence_have_exactly_nothing(passes: int) -> None:
    model, X, R = mlp(9), drawn(3, 9), drawn(2, 9, seed=2)
    with torch.no_grad():
        model[0].weight[:, 3] = 0
    R[:, 5] = X[0, 5]
    X[:, 5] = X[0, 5]
    found = Explainer(model).attribute(X, baselines=R, passes=passes, standard_error=True)
    assert not found.values[:, [3, 5]].any() and not found.standard_error[:, [3, 5]].any()


def test_the_numbering_of_players_does_not_matter_on_average() -> None:
    model, X, R = draws(12, 200)
    explainer, each = Explainer(model), []
    for numbers in (torch.arange(13), torch.randperm(13)):
        each.append(explainer.attribute(X, 0, baselines=R, passes=4, players=numbers).values[:, numbers])
    assert not torch.allclose(*each, rtol=0, atol=1e-6)
    error = (sum(values.var(0) for values in each) / len(X)).sqrt()
    assert ((each[0].mean(0) - each[1].mean(0)).abs() <= 4 * error).all()


@pytest.mark.parametrize("passes", [1, 100])
def test_players_are_the_players_of_a_game_on_groups(passes: int) -> None:
    model, X, R = mlp(10), drawn(2, 10), drawn(3, 10, seed=2)
    labels = torch.tensor([0, 1, 1, 2, 3, 3, 3, 4, 4, 0])
    found = Explainer(model).attribute(X, baselines=R, passes=passes, players=labels)
    for n, x in enumerate(X):
        for_each = []
        for r in R:
            game = Function(lambda inside, r=r, x=x: model(r + inside[:, labels] * (x - r)))
            ends = torch.ones(1, 5).double(), torch.zeros(1, 5).double()
            deepshap = Explainer(game).attribute(ends[0], baselines=ends[1]).values
            for_each.append((deepshap if passes == 1 else exact(game, *ends))[0])
        torch.testing.assert_close(found.values[n], torch.stack(for_each).mean(0), rtol=0, atol=1e-13)


@pytest.mark.parametrize("passes", [8, 24])
@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 7}, {"max_memory": 300_000}])
def test_values_do_not_depend_on_chunks_or_on_other_samples(passes: int, options: dict[str, int]) -> None:
    model, X, R = mlp(14), drawn(4, 14), drawn(2, 14, seed=2)
    whole = Explainer(model).attribute(X, baselines=R, passes=passes, standard_error=True)
    backwards = Explainer(model, **options).attribute(X.flip(0), baselines=R, passes=passes, standard_error=True)
    torch.testing.assert_close(backwards.values.flip(0), whole.values, rtol=0, atol=1e-12)
    torch.testing.assert_close(backwards.standard_error.flip(0), whole.standard_error, rtol=0, atol=1e-12)
    alone = Explainer(model, **options).attribute(X[2:3], baselines=R, passes=passes)
    torch.testing.assert_close(alone.values[0], whole.values[2], rtol=0, atol=1e-12)
    other = Explainer(model).attribute(X, baselines=R, passes=passes, seed=1)
    assert not torch.allclose(other.values, whole.values, rtol=0, atol=1e-6)


class Attention(nn.Module):
    """A token for each feature."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(features, 8)) for _ in range(2))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0, batch_first=True)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x.unsqueeze(2) * self.weight + self.bias).mean(1))


def attention(features: int) -> nn.Module:
    torch.manual_seed(0)
    return spread(Attention(features).double(), 1.5)


@pytest.mark.parametrize("passes", [8, 32])
@pytest.mark.parametrize(
    "make", [mlp, lambda d: mlp(d, activation=nn.Tanh), attention], ids=["relu", "tanh", "attention"]
)
def test_most_values_are_within_two_standard_errors(make: Callable[[int], nn.Module], passes: int) -> None:
    model, X, R = make(10), drawn(12, 10), drawn(1, 10, seed=2)
    truth = exact(model, X, R)
    found = Explainer(model).attribute(X, baselines=R, passes=passes, standard_error=True)
    assert ((found.values - truth).abs() < 2 * found.standard_error).double().mean() > 0.8
    # Bars so wide that they always hold say nothing.
    assert found.standard_error.norm() < 6 * (found.values - truth).norm()


def test_more_passes_are_nearer_to_exact_values() -> None:
    model, X, R = mlp(30), drawn(6, 30), drawn(1, 30, seed=2)
    explainer = Explainer(model)
    truth = explainer.attribute(X, baselines=R, passes=60 * 500, legs=30, seed=9).values
    deepshap, some, many = (distance(explainer.attribute(X, baselines=R, passes=k).values, truth) for k in (1, 8, 128))
    assert some < 0.9 * deepshap and many < 0.7 * deepshap


@pytest.mark.parametrize("legs", [2, 4])
def test_each_point_of_a_chain_runs_forward_once(legs: int) -> None:
    """So a leg takes at most 2.5 times a forward pass: a backward pass, and with two legs a chain three forward passes for two legs."""
    model, X, R = mlp(20), drawn(3, 20), drawn(2, 20, seed=2)
    rows: list[int] = []
    model.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    explainer = Explainer(model)
    explainer.attribute(X, 0, baselines=R)
    rows.clear()
    explainer.attribute(X, 0, baselines=R, passes=16, legs=legs)
    chains = len(X) * len(R) * 16 // legs
    assert sum(rows) == len(X) + len(R) + chains * (legs + 1)


def test_several_outputs_each_have_their_own_estimate() -> None:
    model, X, R = mlp(14, outputs=4), drawn(3, 14), drawn(2, 14, seed=2)
    explainer = Explainer(model)
    of_all = explainer.attribute(X, baselines=R, passes=16)
    of_some = explainer.attribute(X, [[2, 0], [1, 3], [0, 1]], baselines=R, passes=16)
    likeliest = explainer.attribute(X, lambda outputs: outputs.argmax(1), baselines=R, passes=16)
    one = explainer.attribute(X, 2, baselines=R, passes=16)
    torch.testing.assert_close(one.values, of_all.values[..., 2], rtol=0, atol=1e-13)
    torch.testing.assert_close(of_some.values[0], of_all.values[0][:, [2, 0]], rtol=0, atol=1e-13)
    places = likeliest.target.view(-1, 1, 1).expand(-1, 14, 1)
    torch.testing.assert_close(likeliest.values, of_all.values.gather(2, places)[..., 0], rtol=0, atol=1e-13)


def test_several_inputs() -> None:
    torch.manual_seed(0)
    model = spread(TwoInputs().double())
    X, R = [drawn(2, 2, 8), drawn(2, 4)], [drawn(3, 2, 8, seed=2), drawn(3, 4, seed=3)]
    found = Explainer(model).attribute(X, baselines=R, passes=16, standard_error=True)
    assert [tuple(value.shape) for value in found.values] == [(2, 2, 8, 3), (2, 4, 3)]
    assert [tuple(error.shape) for error in found.standard_error] == [(2, 2, 8, 3), (2, 4, 3)]
    assert_adds_up(model, found, X, R)
    # A channel of the image, and a player of the vector that the second channel is in, too.
    labels = [torch.tensor([[0], [1]]).expand(2, 8), torch.tensor([1, 2, 3, 3])]
    found = Explainer(model).attribute(X, baselines=R, passes=6, players=labels)

    def game(inside: Tensor) -> Tensor:
        own = [torch.where(inside[:, p].bool(), x, r) for p, x, r in zip(labels, sample, theirs, strict=True)]
        return model(*own)

    for n in range(2):
        sample, values = [x[n] for x in X], []
        for j in range(3):
            theirs = [r[j] for r in R]
            values.append(exact(game, torch.ones(1, 4).double(), torch.zeros(1, 4).double())[0])
        torch.testing.assert_close(found.values[n], torch.stack(values).mean(0), rtol=0, atol=1e-13)


class Coded(nn.Module):
    """Token ids, and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.head = nn.Embedding(7, 6), nn.Linear(6, 6), nn.Linear(9, 2)

    def forward(self, tokens: Tensor, numbers: Tensor) -> Tensor:
        return self.head(torch.cat([self.hidden(self.embedding(tokens)).tanh().prod(1), numbers.sin()], 1)).tanh()


def test_codes() -> None:
    torch.manual_seed(0)
    model = spread(Coded().double())
    tokens, theirs = torch.randint(7, (3, 8)), torch.randint(7, (2, 8))
    X, R = [tokens, drawn(3, 3)], [theirs, drawn(2, 3, seed=2)]
    explainer = Explainer(model)
    truth = explainer.attribute(X, baselines=R, passes=1000)
    for passes in (4, 16, 100):
        assert_adds_up(model, explainer.attribute(X, baselines=R, passes=passes), X, R)
    same = torch.stack([theirs[0], theirs[0]]), R[1]
    assert not Explainer(model).attribute([theirs[:1], X[1][:1]], baselines=[*same], passes=8).values[0].any()

    def game(inside: Tensor) -> Tensor:
        own = [torch.where(mask, x, r) for mask, x, r in zip(inside.bool().split([8, 3], 1), sample, row, strict=True)]
        return model(*own)

    for n in range(3):
        sample, values = [x[n] for x in X], []
        for j in range(2):
            row = [r[j] for r in R]
            values.append(exact(game, torch.ones(1, 11).double(), torch.zeros(1, 11).double())[0])
        expected = torch.stack(values).mean(0)
        torch.testing.assert_close(torch.cat([value[n] for value in truth.values]), expected, rtol=0, atol=1e-13)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor, *, keep: Tensor) -> Tensor:
        return self.head((self.first(x).relu() * keep.unsqueeze(2)).amax(1).tanh())


def test_keyword_arguments_with_a_row_a_sample() -> None:
    torch.manual_seed(0)
    model, X, R = spread(Masked().double()), drawn(2, 5, 3), drawn(2, 5, 3, seed=2)
    keep = torch.tensor([[1.0, 1, 1, 1, 0], [1, 1, 0, 1, 1]]).double()
    labels = torch.arange(5).unsqueeze(1).expand(5, 3)
    found = Explainer(model).attribute(X, baselines=R, sample_kwargs={"keep": keep}, passes=11, players=labels)
    for n in range(2):
        expected = exact(lambda x, n=n: model(x, keep=keep[n : n + 1].expand(len(x), -1)), X[n : n + 1], R)
        torch.testing.assert_close(found.values[n], expected[0], rtol=0, atol=1e-13)
    found = Explainer(model).attribute(X, baselines=R, sample_kwargs={"keep": keep}, passes=9)
    assert float(found.convergence_delta.abs().max()) < 1e-13


class Routed(nn.Module):
    """Runs one of two experts on each row."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x.new_zeros(len(x), 2)
        second = (x[:, 0] > 0).long()
        for number in second.unique().tolist():
            (rows,) = torch.where(second == number)
            y = y.index_add(0, rows, self.experts[number](x[rows]))
        return y


def test_a_model_that_is_explained_row_by_row() -> None:
    model, X, R = spread(Routed().double()), drawn(3, 6), drawn(2, 6, seed=2)
    X[:, 0], R[:, 0] = X[:, 0].abs(), R[:, 0].abs()
    found = Explainer(model).attribute(X, baselines=R, passes=8)
    assert_adds_up(model, found, X, R)
    exactly = Explainer(model).attribute(X, baselines=R, passes=22)
    torch.testing.assert_close(exactly.values, exact(model, X, R), rtol=0, atol=1e-13)


class Squeezed(nn.Module):
    """Loses the batch dimension of a single row."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x).relu().view(-1, 1, 8).squeeze())


@pytest.mark.parametrize("batch_size", [None, 1])
def test_a_model_that_needs_two_rows(batch_size: int | None) -> None:
    model, X, R = Squeezed().double(), drawn(2, 6), drawn(1, 6, seed=2)
    found = Explainer(model, batch_size=batch_size).attribute(X, baselines=R, passes=8)
    assert float(found.convergence_delta.abs().max()) < 1e-13
    truth = Explainer(model, batch_size=batch_size).attribute(X, baselines=R, passes=22)
    torch.testing.assert_close(truth.values, exact(lambda x: model(x).reshape(-1, 2), X, R), rtol=0, atol=1e-13)


def test_float32_images_and_shaps_face() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 6, 3), nn.Linear(6 * 9, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.max_pool2d(self.conv(x).relu(), 2, 2).flatten(1))

    torch.manual_seed(0)
    model, X, R = spread(Net()), digits(2), digits(3)
    labels = players.patches((1, 9, 9), 3)
    explainer = DeepExplainer(model, R)
    values = explainer.shap_values(X, passes=180, players=labels)
    assert isinstance(values, np.ndarray) and values.shape == (2, 9, 3)
    double = Explainer(model.double())
    truth = double.attribute(X.double(), baselines=R.double(), passes=180, players=labels).values
    torch.testing.assert_close(torch.from_numpy(values).double(), truth, rtol=0, atol=1e-4)
    few = explainer.shap_values(X.double(), 1, passes=12, seed=1)
    assert few[0].shape == (2, 1, 9, 9, 1)


def test_players_of_each_sample() -> None:
    model, X, R = mlp(6), drawn(2, 6), drawn(2, 6, seed=2)
    labels = torch.tensor([[0, 0, 1, 1, 2, 3], [1, 1, 1, 0, 0, 2]])
    explainer = Explainer(model)
    found = explainer.attribute(X, baselines=R, passes=8, players=labels)
    for n in range(2):
        alone = explainer.attribute(X[n : n + 1], baselines=R, passes=8, players=labels[n])
        torch.testing.assert_close(found.values[n, : alone.values.shape[1]], alone.values[0], rtol=0, atol=1e-13)
    assert not found.values[1, 3].any()


def test_values_that_cannot_add_up_are_an_error() -> None:
    """A rule that is right from baseline to input, and wrong between points on the way."""
    model = Function(lambda x: torch.erf(x).prod(1, keepdim=True))
    ends = torch.ones(1, 12).double(), torch.zeros(1, 12).double()

    def rule(context: Any, x: Tensor) -> Any:
        from deepshap_ext import Application

        def multipliers(grad: Tensor, sides: Any) -> Sequence[Tensor]:
            (x, r) = sides.pair()
            whole = ((x != r).all(-1, keepdim=True)).double()
            return [grad * torch.erf(torch.ones(()).double()) * (2 - whole)]

        return Application([x], lambda x: (torch.erf(x), [x]), multipliers)

    explainer = Explainer(model, rules={torch.erf: rule})
    explainer.attribute(*ends[:1], 0, baselines=ends[1])
    with pytest.raises(AdditivityError):
        explainer.attribute(ends[0], 0, baselines=ends[1], passes=8)
    with pytest.warns(UserWarning, match="do not add up"):
        explainer.attribute(ends[0], 0, baselines=ends[1], passes=8, check_additivity=False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"passes": 0}, ValueError, "passes must be a positive integer, got 0"),
        ({"passes": 2.0}, TypeError, "passes must be a positive integer, got 2.0"),
        ({"seed": "a"}, TypeError, "seed must be an integer, got 'a'"),
        ({"seed": 2**63}, ValueError, "seed must be an integer of 64 bits"),
        ({"passes": 8, "legs": 5}, ValueError, "legs must be None or from 2 to half of the passes.* got 5 for passes=8"),
        ({"passes": 8, "legs": 1}, ValueError, "legs must be None or from 2"),
        ({"passes": 8, "multipliers": True}, ValueError, "multipliers must be False with passes=8"),
        ({"passes": 8, "per_baseline": True}, ValueError, "per_baseline must be False with passes=8"),
        ({"passes": 8, "activations": True}, ValueError, "activations must be False with passes=8"),
        ({"passes": 8, "combine": max}, ValueError, "combine must be None with passes=8"),
        ({"passes": 8, "standard_error": 1}, TypeError, "standard_error must be True or False, got 1"),
        ({"passes": 4, "standard_error": True}, ValueError, "two or more baselines, or passes=8 or more, got 1 and passes=4"),
        ({"players": torch.arange(6), "multipliers": True}, ValueError, "multipliers must be False with players"),
        ({"players": torch.arange(6), "standard_error": True}, ValueError, "False with players and passes below 4"),
        ({"players": torch.zeros(6)}, TypeError, "players must hold integers"),
        ({"players": torch.arange(5)}, ValueError, r"players must have the features' shape \[6\].* got \[5\]"),
        ({"players": [0] * 6}, TypeError, "players must be a torch tensor"),
        ({"players": torch.arange(1, 7)}, ValueError, "players must be numbered from 0 without gaps"),
    ],
)  # fmt: skip
def test_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Explainer(mlp(6)).attribute(drawn(2, 6), baselines=drawn(1, 6), **arguments)


def test_layers_are_refused() -> None:
    model = mlp(6)
    with pytest.raises(ValueError, match="explained at its inputs with passes=8"):
        Explainer((model, model[2])).attribute(drawn(2, 6), baselines=drawn(1, 6), passes=8)


def test_patches_words_and_columns() -> None:
    pandas = pytest.importorskip("pandas")
    assert players.patches((2, 3, 5), (2, 3)).tolist() == [[[0, 0, 0, 1, 1]] * 2 + [[2, 2, 2, 3, 3]]] * 2
    assert players.words([None, 0, 0, 1, None]).tolist() == [0, 1, 1, 2, 3]
    assert players.words([[None, 0], [0, 1]]).tolist() == [[0, 1], [0, 1]]
    frame = pandas.DataFrame(np.zeros((1, 4)), columns=["age", "town_A", "town_B", "size"])
    labels, names = players.columns(frame, lambda name: name.split("_")[0])
    assert labels.tolist() == [0, 1, 1, 2] and names == ["age", "town", "size"]
    for call, message in (
        (lambda: players.patches((3,), 2), "shape must have two dimensions"),
        (lambda: players.patches((3, 3), 0), "size must be a positive integer"),
        (lambda: players.patches(3, 2), "shape must have two dimensions or more, positive integers, got 3"),
        (lambda: players.patches((3, 3), (2,)), r"size must be a positive integer or two, got \(2,\)"),
        (lambda: players.words(3), r"word_ids must be a list, .* got 3"),
        (lambda: players.columns(3, str), "frame must be a data frame or the names of its columns, got 3"),
        (lambda: players.columns(["a"], "a"), "group must be a function of a column's name, got 'a'"),
        (lambda: players.words([[0, 1], [0]]), "as many tokens for each sample"),
        (lambda: players.words([]), "at least one token"),
        (lambda: players.columns([], str), "at least one column"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            call()
