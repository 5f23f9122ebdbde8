"""The native explainer: baselines in every call, their weights, multipliers, combinations, single baselines, further arguments."""

import copy
import gc
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import unchanged
from models import Function, Skip, Tokens, TwoInputs, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, Explainer, ExplanationError
from deepshap_ext.memory import MemoryMeter

torch.manual_seed(0)
X, R = torch.randn(4, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
WEIGHTS = torch.tensor([0.5, 1, 2, 0.25, 1])


def net() -> nn.Module:
    return spread(Skip()).double()


def contribution(m: Tensor, x: Tensor, r: Tensor) -> Tensor:
    return m * (x - r)


def both_pairings() -> Any:
    return pytest.mark.parametrize("pairing", ["grid", "aligned"])


def test_baselines_of_a_call_are_those_of_an_explainer_made_for_them() -> None:
    model = net()
    explainer, expected = Explainer(model), DeepExplainer(model, R).attribute(X)
    found = explainer.attribute(X, baselines=R)
    assert torch.equal(found.values, expected.values) and torch.equal(found.expected_value, expected.expected_value)
    own = explainer.attribute(X, baselines=R.expand(4, 5, 6))
    assert torch.allclose(own.values, expected.values, atol=1e-13)
    other = explainer.attribute(X, baselines=R[:1])
    assert torch.allclose(other.expected_value[0], model(R[:1])[0].detach())
    assert torch.allclose(explainer.expected_output(R), expected.expected_value[0])


@both_pairings()
def test_weights_are_those_of_baselines_that_are_there_several_times(pairing: Any) -> None:
    model = net()
    often = torch.tensor([1, 3, 2, 1, 4])
    repeated = R.repeat_interleave(often, 0)
    explainer = Explainer(model)
    found = explainer.attribute(X, baselines=R, weights=often, pairing=pairing)
    same = explainer.attribute(X, baselines=repeated, pairing=pairing)
    for one, other in ((found.values, same.values), (found.expected_value, same.expected_value)):
        assert torch.allclose(one, other, atol=1e-13)
    assert found.convergence_delta.abs().max() < 1e-13
    background = DeepExplainer(model, R, weights=often.tolist())
    assert torch.allclose(background.attribute(X, pairing=pairing).values, same.values, atol=1e-13)
    assert torch.allclose(torch.from_numpy(background.expected_value), same.expected_value[0])


def test_standard_errors_of_weighted_baselines() -> None:
    explainer = Explainer(net())
    each = explainer.attribute(X, 1, baselines=R, per_baseline=True).values
    equal = explainer.attribute(X, 1, baselines=R, weights=[3.0] * 5, standard_error=True)
    assert torch.allclose(equal.standard_error, each.std(1) / math.sqrt(5))
    shares = (WEIGHTS / WEIGHTS.sum()).double()
    mean = torch.einsum("nrf,r->nf", each, shares)
    variance = torch.einsum("nrf,r->nf", (each - mean.unsqueeze(1)).square(), shares)
    found = explainer.attribute(X, 1, baselines=R, weights=WEIGHTS, standard_error=True)
    assert torch.allclose(found.values, mean)
    assert torch.allclose(found.standard_error, (variance / (1 / shares.square().sum() - 1)).sqrt())


def test_weights_and_centres_of_kmeans() -> None:
    shap = pytest.importorskip("shap")
    data = torch.randn(60, 6, generator=torch.Generator().manual_seed(1)).double()
    centres = shap.kmeans(data.numpy(), 4)
    model = net()
    found = Explainer(model).attribute(X, baselines=centres)
    same = Explainer(model).attribute(X, baselines=centres.data, weights=centres.weights)
    assert torch.equal(found.values, same.values)
    assert torch.equal(DeepExplainer(model, centres).attribute(X).values, same.values)
    with pytest.raises(TypeError, match=r"^weights must be None where baselines have their own"):
        Explainer(model).attribute(X, baselines=centres, weights=centres.weights)


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ([1.0, 2.0], ValueError, r"^weights must have shape \[5\], one for each baseline, got \[2\]$"),
        ([1, 1, 0, 1, 1], ValueError, r"^weights must be positive and finite, got 0\.0 at index 2"),
        ([1, 1, 1, 1, math.nan], ValueError, r"^weights must be positive and finite, got nan at index 4"),
        ("equal", TypeError, r"^weights must be a torch tensor or a numpy array, got str$"),
        (list("abcde"), TypeError, r"^weights must be a list of 5 numbers, got \['a', "),
        (torch.ones(5) * 1j, TypeError, r"^weights must be real, got torch\.complex64$"),
    ],
)
def test_bad_weights(weights: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Explainer(net()).attribute(X, baselines=R, weights=weights)
    with pytest.raises(error, match=message):
        DeepExplainer(net(), R, weights=weights)


@pytest.mark.parametrize("size", [5e-324, 1e-200, 1e200, 1.7e308])
def test_weights_may_be_of_any_size(size: float) -> None:
    model = net()
    found, plain = (
        Explainer(model).attribute(X, baselines=R, weights=w, standard_error=True) for w in ([size] * 5, None)
    )
    for one, other in ((found.values, plain.values), (found.standard_error, plain.standard_error)):
        assert torch.allclose(one, other, atol=1e-13)
    almost_one = Explainer(model).attribute(
        X, baselines=R, weights=[1e-200, 1e-200, 1, 1e-200, 1e-200], standard_error=True
    )
    assert torch.allclose(almost_one.values, Explainer(model).attribute(X, baselines=R[2:3]).values)
    assert almost_one.standard_error.isfinite().all()


@both_pairings()
@pytest.mark.parametrize("own", [False, True])
def test_every_single_baseline(pairing: Any, own: bool) -> None:
    model = net()
    explainer = Explainer(model, batch_size=7)
    baselines = R + 0.1 * torch.randn(4, 1, 6).double() if own else R
    found = explainer.attribute(X, baselines=baselines, per_baseline=True, multipliers=True, pairing=pairing)
    assert found.values.shape == found.multipliers.shape == (4, 5, 6, 3)
    assert found.expected_value.shape == found.convergence_delta.shape == (4, 5, 3)
    assert found.convergence_delta.abs().max() < 1e-13
    theirs = baselines if own else baselines.expand(4, 5, 6)
    for row in range(5):
        one = explainer.attribute(X, baselines=theirs[:, row : row + 1], multipliers=True)
        assert torch.allclose(found.values[:, row], one.values, atol=1e-13)
        assert torch.allclose(found.multipliers[:, row], one.multipliers, atol=1e-13)
        assert torch.allclose(found.expected_value[:, row], one.expected_value)
    weighted = explainer.attribute(X, baselines=baselines, weights=WEIGHTS, multipliers=True, pairing=pairing)
    shares = (WEIGHTS / WEIGHTS.sum()).double()
    assert torch.allclose(weighted.values, torch.einsum("nrfk,r->nfk", found.values, shares), atol=1e-13)
    assert torch.allclose(weighted.multipliers, torch.einsum("nrfk,r->nfk", found.multipliers, shares), atol=1e-13)


def test_multipliers_of_a_linear_model_are_its_weights() -> None:
    model = nn.Linear(6, 3).double()
    found = Explainer(model).attribute(X, baselines=R, multipliers=True)
    assert torch.allclose(found.multipliers, model.weight.t().expand(4, 6, 3))


@both_pairings()
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_what_is_combined_is_averaged_over_the_baselines(pairing: Any, own: bool, batch_size: int | None) -> None:
    model, seen = net(), []
    explainer = Explainer(model, batch_size=batch_size)
    baselines = R.expand(4, 5, 6) if own else R

    def combine(m: Tensor, x: Tensor, r: Tensor) -> Tensor:
        seen.append(len(m))
        return (m * (x - r)).unsqueeze(1) * torch.tensor([1.0, 2.0]).view(2, 1)

    options: dict[str, Any] = {"baselines": baselines, "weights": WEIGHTS, "pairing": pairing, "standard_error": True}
    plain = explainer.attribute(X, 2, **options)
    found = explainer.attribute(X, 2, combine=combine, **options)
    assert torch.allclose(found.values, torch.stack([plain.values, 2 * plain.values], 1), atol=1e-13)
    assert torch.allclose(found.standard_error, torch.stack([plain.standard_error, 2 * plain.standard_error], 1))
    assert torch.allclose(found.convergence_delta, plain.convergence_delta, atol=1e-13)
    assert sum(seen) == 20 and (batch_size is None or max(seen) <= batch_size)


def test_what_is_combined_of_several_inputs_and_layers() -> None:
    model = spread(TwoInputs()).double()
    x = [torch.randn(3, 2, 8).double(), torch.randn(3, 4).double()]
    r = [torch.randn(5, 2, 8).double(), torch.randn(5, 4).double()]

    def combine(m: Any, x: Any, r: Any) -> Any:
        assert isinstance(m, tuple) and len(m) == len(x) == len(r) == 2
        return [(a * (b - c)).flatten(1).sum(1) for a, b, c in zip(m, x, r, strict=True)]

    plain = Explainer(model).attribute(x, 0, baselines=r)
    found = Explainer(model).attribute(x, 0, baselines=r, combine=combine)
    for one, whole in zip(found.values, plain.values, strict=True):
        assert torch.allclose(one, whole.flatten(1).sum(1))
    net = spread(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh())).double()
    explainer = Explainer((net, ["1", "2"]), at=["output", "input"])
    layers = explainer.attribute(X, 0, baselines=R, combine=lambda m, x, r: tuple(map(contribution, m, x, r)))
    for one, whole in zip(layers.values, explainer.attribute(X, 0, baselines=R).values, strict=True):
        assert torch.allclose(one, whole)


@pytest.mark.parametrize(
    ("combine", "error", "message"),
    [
        ("sum", TypeError, r"^combine must be None or a function of multipliers, inputs and baselines, got 'sum'$"),
        (lambda m, x, r: None, TypeError, r"^combine must return tensors as it is given them, got None$"),
        (lambda m, x, r: m.sum(0), ValueError, r"^combine must return floating-point tensors of shape \[20, \.\.\.\]"),
        (lambda m, x, r: m > 0, ValueError, r"^combine must return floating-point tensors"),
        (lambda m, x, r: m.to("meta"), ValueError, r"^combine\(\.\.\.\) is on the meta device"),
    ],
)
def test_bad_combinations(combine: Any, error: type[Exception], message: str) -> None:
    model = net()
    with unchanged(model), pytest.raises(error, match=message):
        Explainer(model).attribute(X, 0, baselines=R, combine=combine)


def test_what_is_combined_has_one_shape() -> None:
    explainer = Explainer(net(), batch_size=3)
    with pytest.raises(
        ValueError, match=r"^combine must return the same shape for every pair, which was \[3\] at first"
    ):
        explainer.attribute(X, 0, baselines=R, combine=lambda m, x, r: m[:, : len(m)])


@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("batch_size", [None, 1])
def test_functions_may_write_into_what_they_are_given(samples: int, batch_size: int | None) -> None:
    explainer, x = Explainer(net(), batch_size=batch_size), X[:samples]
    plain = explainer.attribute(x, lambda outputs: outputs.argmin(1), baselines=R, multipliers=True)
    found = explainer.attribute(
        x,
        lambda outputs: outputs.neg_().argmax(1),
        baselines=R,
        combine=lambda m, x, r: m.mul_(x.sub_(r)),
        multipliers=True,
    )
    for name in ("values", "multipliers", "output", "expected_value"):
        assert torch.allclose(getattr(found, name), getattr(plain, name), atol=1e-13)


class Counted(nn.Module):
    """Counts the rows that it runs on at once."""

    def __init__(self, inner: nn.Module, rows: list[int]) -> None:
        super().__init__()
        self.inner, self.note = inner, rows.append

    def forward(self, x: Tensor) -> Tensor:
        self.note(len(x))
        return self.inner(x)


def fails(*given: Tensor) -> Tensor:
    if len(given) == 1 and len(given[0]) == 1:
        return given[0].argmax(1)
    raise KeyError("mine")


@pytest.mark.parametrize("options", [{"target": fails}, {"target": 0, "combine": fails}])
def test_an_error_of_the_users_function_is_itself(options: dict[str, Any]) -> None:
    rows: list[int] = []
    model = Counted(net(), rows)
    with unchanged(model), pytest.raises(KeyError, match="mine"):
        Explainer(model, batch_size=2).attribute(X.repeat(10, 1), baselines=R, **options)
    # Three in the probe: it is not tried on all that it was to be explained on.
    assert max(rows) == 3


def test_activations_of_layers_on_both_sides() -> None:
    model = spread(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh())).double()
    explainer = Explainer((model, "1"), at="output", batch_size=3)
    found = explainer.attribute(X, 0, baselines=R, activations=True, multipliers=True)
    hidden = model[:2]
    assert torch.allclose(found.activations, hidden(X)) and torch.allclose(found.baseline_activations, hidden(R))
    own = explainer.attribute(X, 0, baselines=R.expand(4, 5, 6), activations=True)
    assert torch.allclose(own.baseline_activations, hidden(R).expand(4, 5, 5))
    each = explainer.attribute(X, 0, baselines=R, multipliers=True, per_baseline=True)
    difference = found.activations.unsqueeze(1) - found.baseline_activations
    assert torch.allclose(each.values, each.multipliers * difference)
    assert explainer.attribute(X, 0, baselines=R).activations is None


class Further(nn.Module):
    """Positional arguments behind the input: a row a sample, a number, nothing."""

    def forward(self, x: Tensor, scale: Tensor, shift: float, mask: Tensor | None, *, power: int = 1) -> Tensor:
        out = (x * scale + shift).tanh() ** power
        return out if mask is None else out.masked_fill(mask, 0)


@pytest.mark.parametrize("mask", [None, torch.randn(4, 6) > 0])
def test_positional_arguments_behind_the_inputs(mask: Tensor | None) -> None:
    model, scale = Further(), torch.rand(4, 6).double()
    explainer = Explainer(model, kwargs={"power": 3})
    found = explainer.attribute(X, 1, baselines=R, args=(scale, 0.5, mask))
    assert torch.allclose(found.output, model(X, scale, 0.5, mask, power=3)[:, 1])
    for n in range(4):
        theirs = [None if mask is None else mask[n].expand(5, 6), 3]
        outputs = model(R, scale[n].expand(5, 6), 0.5, theirs[0], power=3)[:, 1]
        assert torch.allclose(found.expected_value[n], outputs.mean())
    other = explainer.attribute(X, 1, baselines=R, args=(scale, -0.5, mask))
    assert torch.allclose(other.output, model(X, scale, -0.5, mask, power=3)[:, 1])


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (torch.ones(4), TypeError, r"^args must be a tuple of the model's arguments behind its inputs"),
        (
            (torch.ones(3, 6), 0.5, None),
            ValueError,
            r"^args\[0\] must have shape \[4, \.\.\.\] for 4 samples, got \[3, 6\]",
        ),
        ((), ExplanationError, r"missing 3 required positional arguments: 'scale', 'shift', and 'mask'"),
    ],
)
def test_bad_positional_arguments(args: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Explainer(Further()).attribute(X, 1, baselines=R, args=args)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda explainer: pickle.loads(pickle.dumps(explainer))])
def test_a_copy_of_an_explainer_mistakes_no_argument(copied: Callable[[Explainer], Explainer]) -> None:
    explainer = Explainer(Listed())
    scales = [[2.0] for _ in range(8)]
    for scale in scales:
        explainer.attribute(X, baselines=R, args=(scale,))
    places = {id(scale) for scale in scales}
    explainer = copied(explainer)
    del scale, scales
    gc.collect()
    lists = [[3.0]]
    while id(lists[-1]) not in places:  # until a new list lies where one of the eight lay
        lists.append([3.0])
        assert len(lists) < 10_000_000
    assert torch.allclose(explainer.attribute(X, baselines=R, args=(lists[-1],)).output, (X * 3).tanh())


class Listed(nn.Module):
    def forward(self, x: Tensor, scale: list[float]) -> Tensor:
        return (x * scale[0]).tanh()


def test_a_target_that_the_outputs_choose() -> None:
    model = net()
    found = Explainer(model).attribute(X, lambda outputs: outputs.argmax(1), baselines=R)
    best = model(X).argmax(1)
    assert torch.equal(found.target, best)
    assert torch.allclose(found.values, Explainer(model).attribute(X, best, baselines=R).values)
    two = Explainer(model).attribute(X, lambda outputs: outputs.topk(2).indices, baselines=R)
    assert two.values.shape == (4, 6, 2) and torch.equal(two.target[:, 0], best)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (lambda outputs: outputs, TypeError, r"^target must return integers \[1\] or \[1, K\] from 0 to 2, got tensor"),
        (lambda outputs: outputs.argmax(), ValueError, r"^target must return integers .* got shape \[\]"),
        (lambda outputs: outputs.argmax(1) + 3, ValueError, r"^target must return integers .* got from 3 to 3"),
        (
            lambda outputs: outputs.topk(min(len(outputs), 2)).indices,
            ValueError,
            r"^target must return the same number of integers for every sample, \[1\] for outputs of 0, got shape \[4, 2\]",
        ),
    ],
)
def test_bad_functions_of_the_outputs(target: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Explainer(net()).attribute(X, target, baselines=R)


def test_multipliers_of_codes_are_refused_by_name() -> None:
    model = spread(Tokens())
    ids = torch.randint(0, 10, (2, 7))
    assert Explainer(model).attribute(ids, 0, baselines=torch.zeros(1, 7, dtype=torch.long)).values.shape == (2, 7)
    for name, option in (("multipliers", True), ("combine", lambda m, x, r: m)):
        with pytest.raises(TypeError, match=rf"^{name} must be .* for inputs of torch\.int64, codes that have"):
            Explainer(model).attribute(ids, 0, baselines=ids[:1], **{name: option})


def test_a_call_of_other_shapes_is_found_out_about_anew() -> None:
    model = spread(nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten())).double()
    explainer = Explainer(model)
    for length in (9, 12, 9):
        x, r = torch.randn(2, 3, length).double(), torch.randn(3, 3, length).double()
        assert explainer.attribute(x, baselines=r).convergence_delta.abs().max() < 1e-14


@pytest.mark.parametrize("value", [0, -3, 2.5, "many", True])
def test_bad_batch_sizes(value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^batch_size must be None or a positive integer, got "):
        Explainer(net(), batch_size=value)


@pytest.mark.parametrize(
    ("x", "baselines", "message"),
    [
        (X[0], R, r"^baselines must have shape \[6, baselines, \.\.\.\] .* got \[5, 6\]: one sample is X\[None\]$"),
        ([X, X], [R, R.expand(4, 5, 6)], r"^baselines must have shape .* likewise\), got \[5, 6\] and \[4, 5, 6\]$"),
        (X, torch.tensor(0.0), r"^baselines must have shape \[baselines, 6\] .* got \[\]$"),
    ],
)
def test_bad_shapes_of_baselines(x: Any, baselines: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Explainer(net()).attribute(x, baselines=baselines)


def test_a_model_without_outputs_is_refused() -> None:
    with pytest.raises(ExplanationError, match=r"^the model's output must have a number for each sample, got shape "):
        Explainer(Function(lambda x: x.tanh()[:, :0])).attribute(X, baselines=R)


def test_outputs_of_many_baselines_stay_within_the_memory() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 16))
    x, r = torch.randn(50, 2), torch.randn(1000, 2)
    explainer = Explainer(model, max_memory=16 << 20)
    with MemoryMeter() as meter:
        found = explainer.attribute(x, baselines=r)
    # All outputs of all pairs are 6.4 MB in float64.
    assert meter.peak < 4 << 20
    assert torch.allclose(found.expected_value, model(r).mean(0).expand(50, 16), atol=1e-5)
