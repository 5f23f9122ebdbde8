"""A model's random numbers are its own: no generator of the program moves on, whoever draws from it."""

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, ExplanationError
from deepshap_ext.rules.linear import RANDOM

GENERATOR = torch.Generator().manual_seed(5)
P = torch.full((3, 4), 0.5)

#: Of each random operation of the table, calls in its spellings; each returns a tensor or several.
CALLS: dict[str, list[Callable[[], Any]]] = {
    "rand": [
        lambda: torch.rand(3, 4),
        lambda: torch.rand(3, 4, generator=GENERATOR),
        lambda: torch.ops.aten.rand([3, 4]),
    ],
    "randn": [lambda: torch.randn((3, 4), dtype=torch.float64), lambda: torch.ops.aten.randn.default([3, 4])],
    "randint": [lambda: torch.randint(5, (3, 4)), lambda: torch.randint(2, 5, (3, 4), generator=GENERATOR)],
    "randperm": [lambda: torch.randperm(7)],
    "rand_like": [lambda: torch.rand_like(P), lambda: torch.rand_like(P, dtype=torch.float64)],
    "randn_like": [lambda: torch.randn_like(P), lambda: torch.ops.aten.randn_like.default(P)],
    "randint_like": [lambda: torch.randint_like(P, 5), lambda: torch.randint_like(P, 2, 5, dtype=torch.int64)],
    "normal": [
        lambda: torch.normal(P, P),
        lambda: torch.normal(0.0, 1.0, (3, 4)),
        lambda: torch.empty(3).normal_(),
        lambda: nn.init.normal_(torch.empty(3, 4)),
    ],
    "bernoulli": [
        lambda: torch.bernoulli(P),
        lambda: P.bernoulli(generator=GENERATOR),
        lambda: torch.ones(3).bernoulli_(0.5),
    ],
    "multinomial": [lambda: torch.multinomial(P, 2), lambda: P.multinomial(7, replacement=True)],
    "poisson": [lambda: torch.poisson(P), lambda: torch.poisson(P, GENERATOR)],
    "binomial": [lambda: torch.binomial(10 * P, P), lambda: torch.binomial(10 * P, P, GENERATOR)],
    "uniform": [lambda: torch.empty(3).uniform_(2, 3), lambda: nn.init.uniform_(torch.empty(3, 4))],
    "random": [lambda: torch.empty(3).random_(), lambda: torch.empty(3).random_(2, 5)],
    "exponential": [lambda: torch.empty(3).exponential_()],
    "geometric": [lambda: torch.empty(3).geometric_(0.5)],
    "cauchy": [lambda: torch.empty(3).cauchy_()],
    "log_normal": [lambda: torch.empty(3).log_normal_()],
    "gumbel_softmax": [lambda: F.gumbel_softmax(P), lambda: F.gumbel_softmax(P, 0.5, hard=True, dim=0)],
    "rrelu": [
        lambda: F.rrelu(-P, training=True),
        lambda: torch.rrelu(-P, training=True),
        lambda: torch.rrelu_(-P, 0.1, 0.2, True),
    ],
    "rrelu_with_noise": [lambda: torch._C._nn.rrelu_with_noise(-P, torch.empty_like(P), 0.1, 0.2, True)],
    "dropout": [
        lambda: F.dropout(P, training=True),
        lambda: F.dropout(P.clone(), 0.3, inplace=True),
        lambda: torch.dropout(P, 0.5, True),
        lambda: F.dropout(P, 1.0, training=True),
        lambda: nn.Dropout()(P),
    ],
    "dropout1d": [lambda: F.dropout1d(P, training=True), lambda: F.dropout1d(torch.ones(2, 3, 4), 0.3, inplace=True)],
    "dropout2d": [lambda: F.dropout2d(torch.ones(2, 3, 4, 4), training=True)],
    "dropout3d": [lambda: F.dropout3d(torch.ones(2, 3, 4, 4, 4)), lambda: F.dropout3d(torch.ones(3, 4, 4, 4))],
    "alpha_dropout": [
        lambda: F.alpha_dropout(P, 0.3, training=True),
        lambda: torch.alpha_dropout_(P.clone(), 0.3, True),
    ],
    "feature_dropout": [lambda: torch.feature_dropout(torch.ones(2, 3, 4), 0.5, True)],
    "feature_alpha_dropout": [lambda: F.feature_alpha_dropout(torch.ones(2, 3, 4), 0.5, training=True)],
    "native_dropout": [lambda: torch.native_dropout(P, 0.5, True)],
    "kaiming_uniform": [lambda: nn.init.kaiming_uniform_(torch.empty(3, 4))],
    "_standard_gamma": [lambda: torch._standard_gamma(P), lambda: torch.distributions.Gamma(P, P).sample()],
    "_sample_dirichlet": [lambda: torch._sample_dirichlet(P), lambda: torch.distributions.Dirichlet(P).sample()],
}


def _states() -> list[Any]:
    return [
        torch.get_rng_state().tolist(),
        GENERATOR.get_state().tolist(),
        repr(np.random.get_state()),
        random.getstate(),
    ]


class Drawing(nn.Module):
    """Computes with what it is given, and draws on the side."""

    def __init__(self, draw: Callable[[], Any]) -> None:
        super().__init__()
        self.linear, self.draw, self.drawn = nn.Linear(4, 2), draw, []

    def forward(self, x: Tensor) -> Tensor:
        DRAWN.append(self.draw())
        return self.linear(x).tanh()


DRAWN: list[Any] = []


def _tensors(drawn: Any) -> list[Tensor]:
    return [drawn] if isinstance(drawn, Tensor) else list(drawn)


def test_every_random_operation_of_the_table_is_tried() -> None:
    assert CALLS.keys() == RANDOM


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_draws_leave_all_generators_alone(name: str) -> None:
    for draw in CALLS[name]:
        model, x, background = Drawing(draw), torch.randn(3, 4), torch.randn(5, 4)
        usual = [_tensors(draw()) for _ in range(20)]
        DRAWN.clear()
        # A thread that lives on: what is drawn from the program's generators would stay drawn.
        stop = threading.Event()
        other = threading.Thread(target=stop.wait)
        other.start()
        before = _states()
        try:
            DeepExplainer(model, background).attribute(x)
        finally:
            stop.set()
            other.join()
        assert _states() == before
        found = [_tensors(drawn) for drawn in DRAWN]
        for here in found:
            for ours, theirs in zip(here, usual[0], strict=True):
                assert (ours.shape, ours.dtype, ours.device) == (theirs.shape, theirs.dtype, theirs.device)
        for place in range(len(usual[0])):
            values = torch.stack([one[place] for one in usual]).double()
            drawn = found[0][place].double()
            if name not in (
                "normal",
                "randn",
                "randn_like",
                "cauchy",
                "log_normal",
                "exponential",
                "geometric",
                "random",
            ):
                spread = (values.max() - values.min()).clamp_min(1e-6)
                assert (drawn >= values.min() - spread).all() and (drawn <= values.max() + spread).all()


def test_dropout_drops_and_scales_as_torch_does() -> None:
    def of(kind: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> Tensor:
        DRAWN.clear()
        DeepExplainer(Drawing(lambda: kind(torch.ones(shape))), torch.randn(5, 4))
        return DRAWN[0]

    found = of(lambda x: F.dropout(x, 0.25), (100, 100))
    assert found.unique().tolist() == pytest.approx([0, 4 / 3]) and 0.7 < (found > 0).double().mean() < 0.8
    whole = of(lambda x: F.dropout2d(x, 0.5), (20, 20, 3, 3))
    assert torch.equal(whole, whole[..., :1, :1].expand_as(whole)) and 0.4 < (whole > 0).double().mean() < 0.6
    with torch.random.fork_rng():
        usual = F.alpha_dropout(torch.ones(100, 100), 0.25, training=True)
    found = of(lambda x: F.alpha_dropout(x, 0.25, training=True), (100, 100))
    torch.testing.assert_close(found.unique(), usual.unique())


def test_other_threads_draw_on() -> None:
    """What another thread draws while a model is explained is not drawn again."""
    x, background = torch.randn(3, 4), torch.randn(5, 4)
    inside, drawn = threading.Event(), threading.Event()

    def wait() -> Tensor:
        inside.set()
        assert drawn.wait(30)
        return torch.rand(4)

    model = Drawing(wait)
    thread = threading.Thread(target=lambda: DeepExplainer(model, background).attribute(x))
    thread.start()
    assert inside.wait(30)
    torch.manual_seed(1)
    during = torch.rand(4)
    drawn.set()
    thread.join()
    after = torch.rand(4)
    torch.manual_seed(1)
    assert torch.equal(torch.cat([during, after]), torch.cat([torch.rand(4), torch.rand(4)]))


UNSEEN: list[Callable[[], Any]] = [
    lambda: np.random.rand(3),
    np.random.randn,
    # Of a pair of normal numbers the second, which waits: nothing moves on.
    lambda: np.random.get_state()[3] and np.random.randn(),
    random.random,
    lambda: torch.manual_seed(3),
    lambda: (np.random.seed(1), random.seed(1)),
    lambda: F.scaled_dot_product_attention(P, P, P, dropout_p=0.5),
]


def set_back(draw: Callable[[], Any]) -> bool:
    """Whether the program's generators are as they were, after a model that draws in this way was explained."""
    model, x, background = Drawing(draw), torch.randn(3, 4), torch.randn(5, 4)
    np.random.seed(0)
    np.random.randn()
    before = _states()
    DeepExplainer(model, background).attribute(x)
    return _states() == before


def test_generators_that_the_capture_does_not_see_are_set_back() -> None:
    """In a process of its own: another thread that is alive, as libraries leave them, may have drawn meanwhile."""
    script = "from test_draws import UNSEEN, set_back; print([set_back(draw) for draw in UNSEEN])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([True] * len(UNSEEN))


def test_a_models_own_generators_are_set_back() -> None:
    model, x, background = Drawing(lambda: None), torch.randn(3, 4), torch.randn(5, 4)
    model.own = [np.random.default_rng(1), np.random.RandomState(1), random.Random(1), torch.Generator().manual_seed(1)]

    def draw() -> Tensor:
        numpy, state, python, own = model.own
        return torch.rand(2, generator=own) + numpy.random() + state.rand() + python.random()

    def states() -> list[Any]:
        numpy, state, python, own = model.own
        return [numpy.bit_generator.state, repr(state.get_state()), python.getstate(), own.get_state().tolist()]

    model.draw = draw
    before = states()
    DeepExplainer(model, background).attribute(x)
    assert states() == before


def test_explaining_again_draws_the_same() -> None:
    explainer, x = DeepExplainer(Drawing(lambda: torch.rand(3)), torch.randn(5, 4)), torch.randn(3, 4)
    explainer.attribute(x)  # which runs the model by itself, too
    drawn = []
    for _ in range(2):
        DRAWN.clear()
        explainer.attribute(x)
        drawn.append(torch.stack(DRAWN))
    assert torch.equal(*drawn)


def test_what_is_drawn_is_refused_where_it_reaches_the_output() -> None:
    model = Drawing(lambda: None)
    model.forward = lambda x: x * torch.rand_like(x)  # type: ignore[method-assign]
    before = _states()
    with pytest.raises(ExplanationError, match="rand"):
        DeepExplainer(model, torch.randn(5, 4)).attribute(torch.randn(3, 4))
    assert _states()[1:] == before[1:]
