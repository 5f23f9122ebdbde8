"""The mean gradient along the segment between baseline and input, divided where it needs to be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from checks import explain
from models import Function
from torch import Tensor, nn

from deepshap_ext import AdditivityError, DeepExplainer, UnsupportedOperationError, register_rule
from deepshap_ext.rules.segment import NODES

X, BACKGROUND = (torch.randn(n, 5, generator=torch.Generator().manual_seed(n)).double() for n in (3, 4))


def sparsemax(z: Tensor) -> Tensor:
    """TabNet's (arXiv 1602.02068): its support is a decision."""
    ordered = torch.sort(z, 1, descending=True).values
    ranks, sums = torch.arange(1, z.shape[1] + 1, dtype=z.dtype, device=z.device), ordered.cumsum(1)
    support = (1 + ranks * ordered > sums).sum(1, keepdim=True)
    return (z - (sums.gather(1, support - 1) - 1) / support).clamp_min(0)


def spline(x: Tensor) -> Tensor:
    """Cubic, with knots, as the functions of a Kolmogorov-Arnold network."""
    return (x + 0.4).clamp_min(0) ** 3 - 2 * (x - 0.3).clamp_min(0) ** 3


class Whole(nn.Module):
    """A function in a module, which is integrated."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


class Net(nn.Module):
    def __init__(self, function: Callable[..., Any], scale: float = 2.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before, self.whole, self.after = nn.Linear(5, 4), Whole(function), nn.Linear(4, 2)
        with torch.no_grad():
            self.before.weight.mul_(scale)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.whole(self.before(x)))


def test_the_rules_are_exact_for_polynomials() -> None:
    nodes, kronrod, gauss = np.array(NODES).T
    assert (np.diff(nodes) > 0).all()
    for degree in range(23):
        assert abs(kronrod @ nodes**degree - 1 / (degree + 1)) < 1e-15
        assert degree > 13 or abs(gauss @ nodes**degree - 1 / (degree + 1)) < 1e-15


CONTINUOUS: dict[str, Callable[[Tensor], Tensor]] = {
    "smooth": lambda h: (h.sin() * h.exp()).tanh(),
    "sparsemax": sparsemax,
    "spline": spline,
    "kinks of curved pieces": lambda h: (h.abs().exp() + (h - 0.3).abs().sin()).log(),
    "steep": lambda h: torch.sigmoid(30 * h),
    "of a whole row": lambda h: h * (h.square().sum(1, keepdim=True) + 0.1).rsqrt(),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_what_is_continuous_adds_up(name: str, dtype: torch.dtype) -> None:
    tolerance = 1e-11 if dtype == torch.float64 else 2e-5
    model = Net(CONTINUOUS[name]).to(dtype)
    with register_rule(Whole, "integrate"):
        explain(model, X.to(dtype), BACKGROUND.to(dtype), tolerance=tolerance, additivity_tolerance=tolerance)


@pytest.mark.parametrize("name", ["sparsemax", "of a whole row"])
def test_it_is_the_path_integral(name: str) -> None:
    model = Net(CONTINUOUS[name])
    with register_rule(Whole, "integrate"):
        found = DeepExplainer(model, BACKGROUND).attribute(X).values
    h_x, h_r = (model.before(t).detach() for t in (X, BACKGROUND))
    steps, total = 20000, torch.zeros(3, 4, 4, 2).double()
    for first in range(0, steps, 2000):
        at = (torch.arange(first, first + 2000) + 0.5) / steps
        points = (h_r + at.view(-1, 1, 1, 1) * (h_x[:, None] - h_r)).reshape(-1, 4).requires_grad_()
        outputs = model.after(CONTINUOUS[name](points)).sum(0)
        for number, output in enumerate(outputs.unbind()):
            (grad,) = torch.autograd.grad(output, points, retain_graph=True)
            total[..., number] += grad.detach().view(2000, 3, 4, 4).sum(0) / steps
    multipliers = torch.einsum("bjhk,hf->bjfk", total, model.before.weight.detach())
    expected = (multipliers * (X[:, None] - BACKGROUND)[..., None]).mean(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=float(1e-4 * expected.abs().max()))


@pytest.mark.parametrize("pairing", ["grid", "aligned", "own"])
def test_pairings_and_neighbours_change_nothing(pairing: str) -> None:
    model = Net(sparsemax)
    with register_rule(Whole, "integrate"):
        explainer = DeepExplainer(model, BACKGROUND)
        expected = explainer.attribute(X).values
        alone = torch.cat([explainer.attribute(X[row : row + 1]).values for row in range(len(X))])
        options: dict[str, Any] = {"pairing": pairing}
        if pairing == "own":
            options = {"baselines": BACKGROUND.expand(3, -1, -1)}
        found = explainer.attribute(X, **options).values
    torch.testing.assert_close(alone, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_rows_need_not_come_first() -> None:
    def of_steps(h: Tensor) -> Tensor:
        return sparsemax(h.flatten(0, 1)).view_as(h)

    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole = Whole(of_steps)

        def forward(self, x: Tensor) -> Tensor:
            return self.whole(3 * x.transpose(0, 1)).transpose(0, 1).flatten(1)

    x, background = torch.randn(3, 4, 5).double(), torch.randn(2, 4, 5).double()
    with register_rule(Whole, "integrate"):
        explain(Turned(), x, background)


def test_something_of_the_batch_inside_runs_pairs_one_by_one() -> None:
    """Twice as many rows would not do: a buffer of these rows is added."""

    held: list[Tensor] = []

    class Held(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            held.append(torch.ones(len(x), 1, dtype=x.dtype))
            return self.whole(x)

        def __init__(self) -> None:
            super().__init__()
            self.whole = Whole(lambda h: sparsemax(3 * h) + held[-1].view(len(held[-1]), 1))

    with register_rule(Whole, "integrate"):
        explain(Held(), X, BACKGROUND)


class Outputs(NamedTuple):
    first: Tensor
    more: dict[str, Any]
    places: Tensor


def several(h: Tensor, *, shift: float) -> Outputs:
    return Outputs(h.exp(), {"list": [h.sin() + shift, 3]}, h.argmax(1))


@pytest.mark.parametrize("used", ["all", "one"])
def test_several_outputs_in_whatever_they_come(used: str) -> None:
    def function(self: Any, x: Tensor) -> Tensor:
        found = self.whole(2 * x, shift=0.5)
        assert isinstance(found, Outputs) and found.more["list"][1] == 3 and found.places.dtype == torch.int64
        return found.first * found.more["list"][0] if used == "all" else found.more["list"][0]

    with register_rule(Whole, "integrate"):
        found = explain(Function(function, whole=Whole(several)), X, BACKGROUND)
    plain = explain(Function(function, whole=Whole(several)), X, BACKGROUND)
    torch.testing.assert_close(found.values, plain.values, rtol=1e-10, atol=1e-12)


def test_a_decision_from_an_integer_output_is_told() -> None:
    def function(self: Any, x: Tensor) -> Tensor:
        found = self.whole(x, shift=0.0)
        return found.first * found.places[:, None]

    explainer_of = Function(function, whole=Whole(several))
    with register_rule(Whole, "integrate"), pytest.raises(AdditivityError, match="takes different decisions"):
        DeepExplainer(explainer_of, BACKGROUND).attribute(X)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda h: h.sort(1).indices, r"must return real floating-point tensors.*there is none"),
        (lambda h: {"a": h, "b": torch.view_as_complex(h.view(-1, 2, 2))}, r"there is dtype in what it returns"),
        (lambda h: (h, {1, 2}), r"there is set in what it returns"),
        (lambda h: h.relu_(), r"writes into its argument.*: call it with a clone"),
    ],
)
def test_what_cannot_be_integrated_is_refused_by_name(function: Any, message: str) -> None:
    with (
        register_rule(Whole, "integrate"),
        pytest.raises(UnsupportedOperationError, match=f"Whole in whole is integrated.*{message}"),
    ):
        DeepExplainer(Net(function), BACKGROUND)


@pytest.mark.slow
def test_a_jump_is_named_with_the_integrals_own_gap() -> None:
    model = Net(lambda h: h + h.round())
    with register_rule(Whole, "integrate"):
        with pytest.raises(AdditivityError) as caught:
            DeepExplainer(model, BACKGROUND).attribute(X)
        assert caught.match(
            r"Whole in whole was integrated, and its own integral is off by up to [\d.]+: between input and baseline it jumps, "
        )
        with pytest.warns(UserWarning, match="Whole in whole was integrated"):
            DeepExplainer(model, BACKGROUND).attribute(X, check_additivity=False)


def test_decisions_name_the_way_out_and_it_works() -> None:
    model = Net(sparsemax)
    with pytest.raises(
        AdditivityError, match=r"takes different decisions.*register_rule\(type of whole, 'integrate'\)"
    ):
        DeepExplainer(model, BACKGROUND).attribute(X)
    with register_rule(type(model.whole), "integrate"):
        explain(model, X, BACKGROUND)


def test_what_is_smooth_takes_one_division() -> None:
    runs = []

    def function(h: Tensor) -> Tensor:
        runs.append(len(h))
        return h.tanh()

    with register_rule(Whole, "integrate"):
        explainer = DeepExplainer(Net(function, scale=0.5), BACKGROUND)
        explainer.attribute(X)  # which runs the model by itself, too
        runs.clear()
        explainer.attribute(X)
    # The model's own two passes, a look at whether pairs run as one batch, and the nodes.
    assert len(runs) <= 2 + 1 + len(NODES)


def test_a_kink_beside_an_end_is_no_jump() -> None:
    """What the halves of a subinterval miss may all lie in one of them, and a kink's shrinks only with the width."""

    class Kinked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x > 0, x * x, x.sin())

    generator = torch.Generator().manual_seed(0)
    x, background, first, last = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 6), (4, 6), (6, 8), (8, 2))
    )
    model = nn.Sequential(nn.Linear(6, 8, bias=False), Kinked(), nn.Linear(8, 2, bias=False)).double()
    model[0].weight.data, model[2].weight.data = first.T / 2, last.T
    with register_rule(Kinked, "integrate"):
        assert DeepExplainer(model, background).attribute(x).convergence_delta.abs().max() < 1e-12
