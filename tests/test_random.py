"""Random operations matter only where what they make reaches the output."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import explain
from models import Body, Function, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, UnsupportedOperationError


class VAE(nn.Module):
    """A variational model that samples in every forward pass, as most are written."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(6, 8), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> dict[str, Any]:
        mu, logvar = self.encoder(x).tanh().chunk(2, 1)
        std = torch.exp(0.5 * logvar)
        z = torch.randn_like(std).mul(std).add_(mu)
        loss = (self.decoder(z).relu() - x).square().mean(1)
        return {"mu": mu, "z": z, "loss": loss, "seen": float(loss.mean()), "nearest": int(z[0].argmax())}


class Policy(nn.Module):
    """Draws an action, and has a value that does not depend on it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.actor, self.critic = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.body(x).relu()
        drawn = torch.distributions.Categorical(logits=self.actor(h))
        action = drawn.sample()
        return {"value": self.critic(h), "action": action, "log_prob": drawn.log_prob(action)}


def _data(model: nn.Module) -> tuple[nn.Module, Tensor, Tensor]:
    return spread(model).double(), torch.randn(3, 6).double(), torch.randn(4, 6).double()


@pytest.mark.parametrize(("model", "output"), [(VAE, "mu"), (Policy, "value")])
def test_what_is_not_drawn_is_explained(model: type[nn.Module], output: str) -> None:
    explain(*_data(model()), select=lambda y: y[output], output=output)


@pytest.mark.parametrize(
    ("model", "output", "message"),
    [
        (VAE, "z", r"torch\.randn_like in VAE \(test_random\.py:\d+\) is random, and reaches the output"),
        (VAE, "loss", r"torch\.randn_like in VAE .* is random"),
        (Policy, "log_prob", r"torch\.multinomial in Policy .* is random"),
    ],
)
def test_what_is_drawn_is_refused_by_name(model: type[nn.Module], output: str, message: str) -> None:
    net, _, background = _data(model())
    with pytest.raises(UnsupportedOperationError, match=message):
        DeepExplainer(net, background, output=output)


UNUSED: dict[str, Callable[[Tensor], Any]] = {
    "dropout": lambda x: F.dropout(x, training=True).relu(),
    "dropout in place": lambda x: F.dropout((x * 2), 0.5, True, True),
    "bernoulli": lambda x: (torch.bernoulli(x.sigmoid()) * x).tanh(),
    "normal": lambda x: torch.normal(x, x.exp()).sum().item(),
    "gumbel": lambda x: F.gumbel_softmax(x, dim=1, hard=True) @ x.t(),
    "multinomial": lambda x: x.gather(1, torch.multinomial(x.softmax(1), 3)).round().long(),
    "in place": lambda x: (x * 1).normal_().relu_().add_(x),
    "written into a part": lambda x: F.pad(x, (1, 1))[:, :2].copy_(torch.rand(len(x), 2)),
    "rrelu": lambda x: F.rrelu(x, training=True),
    "permutation": lambda x: x[:, torch.randperm(8)].cumsum(1),
}


@pytest.mark.parametrize("function", UNUSED.values(), ids=UNUSED.keys())
def test_random_results_that_nobody_uses_are_no_obstacle(function: Callable[[Tensor], Any]) -> None:
    def both(x: Tensor) -> Tensor:
        function(x)
        return x.tanh()

    explain(*_data(Body(both)))


def test_a_random_tensor_gives_its_shape() -> None:
    explain(*_data(Body(lambda x: x.view_as(torch.rand_like(x)).tanh() + torch.zeros_like(torch.rand_like(x)))))


USED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "dropout": (lambda x: F.dropout(x, training=True).relu(), r"dropout in Body .*pass training=self\.training"),
    "mask": (lambda x: x.masked_fill(torch.rand_like(x) > 0.5, 0), r"torch\.rand_like in Body"),
    "in place": (lambda x: (x * 1).add_(torch.randn_like(x)), r"torch\.randn_like in Body"),
    "written into a part": (lambda x: _written(x), r"torch\.rand in Body"),
    "index": (lambda x: x.gather(1, torch.multinomial(x.softmax(1), 8)), r"torch\.multinomial in Body"),
}


def _written(x: Tensor) -> Tensor:
    y = x * 1
    y[:, :2].copy_(torch.rand(len(x), 2))
    return y


@pytest.mark.parametrize(("function", "message"), USED.values(), ids=USED.keys())
def test_random_results_that_are_used_are_named(function: Callable[[Tensor], Tensor], message: str) -> None:
    model, _, background = _data(Body(function))
    with pytest.raises(UnsupportedOperationError, match=message):
        DeepExplainer(model, background)


def test_a_layer_that_is_given_something_random_is_refused_by_name() -> None:
    model, _, background = _data(VAE())
    with pytest.raises(UnsupportedOperationError, match=r"torch\.randn_like in VAE .* reaches the explained layer"):
        DeepExplainer((model, model.decoder), background, output="loss")


def test_random_values_do_not_leave_torch_with_what_is_explained() -> None:
    model = Function(lambda x: x + torch.from_numpy(F.dropout(x, training=True).numpy()))
    with pytest.raises(UnsupportedOperationError, match="takes the explained input out of torch"):
        DeepExplainer(model, torch.randn(2, 3))
