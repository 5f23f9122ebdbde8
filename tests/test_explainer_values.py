"""Values of the public explainer: they add up in every dtype, and nothing but the sample and its baselines counts."""

from typing import Any

import pytest
import torch
from checks import ADDITIVITY, additivity_gap, as_list, assert_same, explain, run, unchanged, values_of
from models import Body, FunctionNet, TwoInputs, digits, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer


class SequenceFirst(nn.Module):
    """Computes on ``[S, B, E]`` inside."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x).transpose(0, 1)
        h = h * torch.sigmoid(h) + h.softmax(0)
        return self.head(h.relu().sum(0))


CASES = {
    "images": (lambda: spread(FunctionNet()), digits),
    "sequence_first": (lambda: spread(SequenceFirst()), lambda n: torch.randn(n, 4, 3)),
    "two_inputs": (lambda: spread(TwoInputs()), lambda n: [torch.randn(n, 2, 8), torch.randn(n, 4)]),
    "product": (lambda: spread(Body(lambda x: x * x.mean(1, keepdim=True).tanh())), lambda n: torch.randn(n, 6)),
}


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest) -> Any:
    """``(model, sample)``; ``sample(n)`` makes n rows."""
    build, sample = CASES[request.param]
    return build(), sample


def _to(value: Any, dtype: torch.dtype) -> Any:
    return [tensor.to(dtype) for tensor in value] if isinstance(value, list) else value.to(dtype)


def _rows(value: Any, index: Any) -> Any:
    return [tensor[index] for tensor in value] if isinstance(value, list) else value[index]


def _shallow() -> nn.Module:
    layers = (nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(36, 5))
    return spread(nn.Sequential(*layers), 3)


@pytest.mark.parametrize("dtype", ADDITIVITY, ids=str)
@pytest.mark.parametrize(
    ("build", "sample"),
    [(_shallow, digits), *[CASES[name] for name in ("sequence_first", "two_inputs", "product")]],
    ids=["images", "sequence_first", "two_inputs", "product"],
)
def test_adds_up_in_every_dtype(build: Any, sample: Any, dtype: torch.dtype) -> None:
    model = build()
    # Outputs far from those of the baselines: bfloat16 rounds them, and what they are made from, to 0.4 %.
    x = [3 * tensor.to(dtype) for tensor in as_list(sample(4))]
    background = [tensor.to(dtype) / 3 for tensor in as_list(sample(5))]
    found = explain(model.to(dtype), *((x, background) if len(x) > 1 else (x[0], background[0])))
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    assert {tensor.dtype for tensor in (*as_list(found.values), found.output, found.expected_value)} == {wide}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_pairing_makes_no_difference(case: Any, dtype: torch.dtype) -> None:
    model, sample = case
    model, x, background = model.to(dtype), _to(sample(3), dtype), _to(sample(4), dtype)
    explainer = DeepExplainer(model, background)
    own = [tensor.expand(3, *tensor.shape) for tensor in as_list(background)]
    own = own if isinstance(background, list) else own[0]
    with unchanged(model, *as_list(x), *as_list(background)):
        grid = explainer.attribute(x, standard_error=True)
        aligned = explainer.attribute(x, pairing="aligned", standard_error=True)
        per_sample = explainer.attribute(x, baselines=own, standard_error=True)
        per_sample_aligned = explainer.attribute(x, baselines=own, pairing="aligned", standard_error=True)
    for other in (aligned, per_sample, per_sample_aligned):
        assert_same(other.values, grid.values)
        assert_same(other.standard_error, grid.standard_error, 1e-5 if dtype == torch.float32 else 1e-12)
        assert_same(other.expected_value, grid.expected_value)
        assert_same(other.output, grid.output)


def test_each_sample_against_its_own_baselines(case: Any) -> None:
    model, sample = case
    model = model.double()
    x, own = _to(sample(3), torch.float64), _to(sample(3 * 2), torch.float64)
    own = [tensor.unflatten(0, (3, 2)) for tensor in as_list(own)]
    explainer = DeepExplainer(model, _to(sample(5), torch.float64))
    listed = isinstance(x, list)
    found = explainer.attribute(x, baselines=own if listed else own[0])
    for row in range(3):
        background = [tensor[row] for tensor in own] if listed else own[0][row]
        alone = explain(model, _rows(x, slice(row, row + 1)), background)
        assert_same([value[row : row + 1] for value in as_list(found.values)], alone.values, 1e-12)
        assert_same(found.expected_value[row : row + 1], alone.expected_value, 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("max_memory", [1, 3_000, 30_000])
@pytest.mark.parametrize("pairing", ["grid", "aligned", "per_sample"])
def test_chunks_make_no_difference(case: Any, dtype: torch.dtype, max_memory: int, pairing: str) -> None:
    model, sample = case
    model, x, background = model.to(dtype), _to(sample(3), dtype), _to(sample(4), dtype)
    options: dict[str, Any] = {"pairing": pairing}
    if pairing == "per_sample":
        own = [torch.stack([tensor, tensor + 1, tensor - 0.5]) for tensor in as_list(background)]
        options = {"baselines": own if isinstance(x, list) else own[0]}
    whole = DeepExplainer(model, background).attribute(x, standard_error=True, **options)
    chunked = DeepExplainer(model, background, max_memory=max_memory).attribute(x, standard_error=True, **options)
    assert_same(chunked.values, whole.values)
    assert_same(chunked.expected_value, whole.expected_value)
    assert_same(chunked.standard_error, whole.standard_error, 1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_neighbours_make_no_difference(case: Any, dtype: torch.dtype) -> None:
    model, sample = case
    model, x, background = model.to(dtype), _to(sample(4), dtype), _to(sample(3), dtype)
    explainer = DeepExplainer(model, background)
    together = as_list(explainer.attribute(x).values)
    for rows in ([2], [3, 0], [1, 1, 1]):
        assert_same(explainer.attribute(_rows(x, rows)).values, [value[rows] for value in together])


def test_order_and_number_of_equal_baselines_make_no_difference(case: Any) -> None:
    model, sample = case
    x, background = _to(sample(3), torch.float64), _to(sample(4), torch.float64)
    expected = values_of(model.double(), x, background)
    assert_same(values_of(model, x, _rows(background, [2, 0, 3, 1])), expected)
    assert_same(values_of(model, x, _rows(background, [0, 1, 2, 3] * 2)), expected)


def test_one_explainer_explains_again_and_again() -> None:
    model, x = spread(FunctionNet()), digits(3)
    explainer = DeepExplainer(model, digits(4))
    first = explainer.attribute(x).values
    explainer.attribute(digits(7))
    explainer.attribute(x, pairing="aligned")
    assert_same(explainer.attribute(x).values, first, 0)


def test_follows_a_change_of_weights() -> None:
    model, x, background = spread(FunctionNet()), digits(3), digits(4)
    explainer = DeepExplainer(model, background)
    explainer.attribute(x)
    with torch.no_grad():
        model.fc1.weight.mul_(1.5)
        model.fc2.bias.add_(torch.randn(5))
    assert_same(explainer.attribute(x).values, values_of(model, x, background))
    torch.testing.assert_close(torch.as_tensor(explainer.expected_value), run(model, background).mean(0))


def test_background_may_be_overwritten_after_construction() -> None:
    model, x, background = spread(FunctionNet()), digits(3), digits(4)
    explainer = DeepExplainer(model, background)
    expected = values_of(model, x, background)
    background.zero_()
    assert_same(explainer.attribute(x).values, expected)


def test_standard_error_is_that_of_the_mean_over_baselines(case: Any) -> None:
    model, sample = case
    x, background = _to(sample(3), torch.float64), _to(sample(5), torch.float64)
    found = DeepExplainer(model.double(), background).attribute(x, standard_error=True)
    singles = [as_list(DeepExplainer(model, _rows(background, slice(j, j + 1))).attribute(x).values) for j in range(5)]
    assert found.standard_error is not None
    for number, error in enumerate(as_list(found.standard_error)):
        each = torch.stack([single[number] for single in singles])
        assert_same(error, each.std(0, correction=1) / 5**0.5, 1e-11)
        assert_same(as_list(found.values)[number], each.mean(0), 1e-12)


def test_standard_error_is_none_unless_asked_for() -> None:
    assert DeepExplainer(spread(FunctionNet()), digits(2)).attribute(digits(1)).standard_error is None


def test_standard_error_of_one_baseline_is_refused() -> None:
    explainer = DeepExplainer(spread(FunctionNet()), digits(1))
    with pytest.raises(ValueError, match=r"standard_error=True needs two or more baselines, got 1"):
        explainer.attribute(digits(2), standard_error=True)


@pytest.mark.parametrize("pairing", ["grid", "aligned"])
@pytest.mark.parametrize("target", [0, 4, -1, (2,), (-5,), [4, 0, 2], torch.tensor([1, 1, 3])], ids=str)
def test_target_chooses_from_the_values_of_all_outputs(target: Any, pairing: str) -> None:
    explainer = DeepExplainer(spread(FunctionNet()).double(), digits(4, torch.float64))
    x = digits(3, torch.float64)
    everything = explainer.attribute(x)
    found = explainer.attribute(x, target, pairing=pairing)
    columns = target[0] if isinstance(target, tuple) else target
    columns = torch.as_tensor(columns).expand(3) % 5
    rows = torch.arange(3)
    assert_same(found.values, everything.values.movedim(-1, 1)[rows, columns])
    assert_same(found.output, everything.output[rows, columns])
    assert_same(found.expected_value, everything.expected_value[rows, columns])
    assert found.convergence_delta.shape == (3,)


def test_numpy_integer_target() -> None:
    import numpy as np

    explainer = DeepExplainer(spread(FunctionNet()), digits(4))
    x = digits(3)
    assert_same(explainer.attribute(x, np.int64(2)).values, explainer.attribute(x, 2).values, 0)
    assert_same(explainer.attribute(x, np.array([2, 2, 2])).values, explainer.attribute(x, 2).values, 0)


@pytest.mark.parametrize(
    "target", [5, -6, (1, 1), (5,), [0, 1], [0, 1, 5], [0, 1, -6], 1.0, True, "a", [0.0, 1.0, 2.0]], ids=str
)
def test_bad_target_is_named(target: Any) -> None:
    model, x = spread(FunctionNet()), digits(3)
    explainer = DeepExplainer(model, digits(2))
    with unchanged(model, x), pytest.raises((ValueError, TypeError), match=r"^target"):
        explainer.attribute(x, target)


def test_convergence_delta_is_the_gap_of_each_sample_and_output() -> None:
    found = DeepExplainer(spread(FunctionNet()), digits(4)).attribute(digits(3))
    gap = found.values.sum((1, 2, 3)) - (found.output - found.expected_value)
    assert found.convergence_delta.shape == (3, 5)
    assert (found.convergence_delta - gap).abs().max() < 1e-6
    assert found.convergence_delta.abs().max() < 1e-6


def test_output_and_expected_value_are_the_models() -> None:
    model, x, background = spread(FunctionNet()), digits(3), digits(4)
    explainer = DeepExplainer(model, background)
    found = explainer.attribute(x)
    torch.testing.assert_close(found.output, run(model, x))
    torch.testing.assert_close(found.expected_value, run(model, background).mean(0).expand(3, -1))
    torch.testing.assert_close(torch.as_tensor(explainer.expected_value), run(model, background).mean(0))


def test_values_are_plain_tensors() -> None:
    found = DeepExplainer(spread(FunctionNet()), digits(4)).attribute(digits(3))
    for tensor in (found.values, found.output, found.expected_value, found.convergence_delta):
        assert not tensor.requires_grad and tensor.is_leaf
        tensor.mul_(2)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_inside_a_grad_mode(context: Any) -> None:
    model, x, background = spread(FunctionNet()), digits(3), digits(4)
    expected = values_of(model, x, background)
    with context():
        explain(model, x, background)
        found = DeepExplainer(model, background).attribute(x)
    assert_same(found.values.clone(), expected, 0)


def test_inputs_that_require_a_gradient_or_are_views() -> None:
    model = spread(FunctionNet())
    x, background = digits(6)[::2].requires_grad_(), digits(4)[:, :, ::1].transpose(2, 3)
    expected = values_of(model, x.detach().clone(), background.contiguous())
    found = explain(model, x, background)
    assert_same(found.values, expected)


def test_an_expanded_background_is_taken_as_a_dense_one() -> None:
    model = spread(FunctionNet())
    explain(model, digits(2), torch.zeros(1, 1, 1, 1).expand(3, 1, 9, 9))


def test_channels_last_does_not_change_values() -> None:
    model, x, background = spread(FunctionNet()), torch.randn(3, 1, 9, 9), digits(4)
    expected = values_of(model, x, background)
    last = model.to(memory_format=torch.channels_last)
    last_x, last_background = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, background))
    assert_same(values_of(last, last_x, last_background), expected)


def test_progress_bar_is_written_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    model, background = spread(FunctionNet()), digits(4)
    DeepExplainer(model, background).attribute(digits(3))
    assert capsys.readouterr().err == ""
    explainer = DeepExplainer(model, background, progress=True)
    explainer.shap_values(digits(3))
    written = capsys.readouterr()
    assert written.out == ""
    assert "DeepSHAP" in written.err and "60/60" in written.err


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_far_and_near(dtype: torch.dtype) -> None:
    """No threshold: additivity holds for tiny and for huge differences between input and baseline."""
    model = spread(nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 2))).double()
    background = torch.randn(3, 4).double()
    for far in (1e-3, 1.0, 1e3):
        x = background[:1] + far * torch.randn(2, 4).double()
        found = DeepExplainer(model, background[:1]).attribute(x)
        gap = additivity_gap(found.values, run(model, x), run(model, background[:1]))
        assert gap < 1e-9
    if dtype == torch.float32:
        explain(model.float(), torch.randn(2, 4) * 100, background.float())
