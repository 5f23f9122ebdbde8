"""Models as they come: wrapped, compiled, traced, parametrized, checkpointed, odd."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import additivity_gap, assert_same, explain, run, unchanged, values_of
from models import Body, Function, FunctionNet, digits, spread
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deepshap_ext import DeepExplainer, ExplanationError


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.filterwarnings("ignore:.*requires_grad=True:UserWarning")
def test_checkpointing_does_not_change_values(reentrant: bool) -> None:
    inner = nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8))
    model = spread(Body(lambda x: inner(x).tanh())).double()
    inner.double()
    x, background = torch.randn(3, 6).double(), torch.randn(2, 6).double()
    plain = values_of(model, x, background)
    model.function = lambda x: checkpoint(inner, x, use_reentrant=reentrant).tanh()
    assert_same(values_of(model, x, background), plain)


def test_traced_by_fx() -> None:
    model = spread(FunctionNet())
    traced = torch.fx.symbolic_trace(model)
    x, background = digits(3), digits(4)
    assert_same(values_of(traced, x, background), values_of(model, x, background))


@pytest.mark.filterwarnings("ignore")
def test_an_exported_program_has_the_values_of_its_model() -> None:
    model = spread(FunctionNet())
    x, background = digits(3), digits(4)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(model, (digits(2),), dynamic_shapes=((({0: batch}),))).module()
    expected = values_of(model, x, background)
    assert_same(DeepExplainer(exported, background).attribute(x).values, expected[0], 1e-5)


@pytest.mark.filterwarnings("ignore")
def test_compiled_model_is_right_or_refused() -> None:
    model = spread(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)))
    compiled = torch.compile(model, backend="eager")
    x, background = torch.randn(3, 6), torch.randn(4, 6)
    try:
        found = DeepExplainer(compiled, background).attribute(x)
    except ExplanationError as error:
        pytest.skip(str(error))
    assert additivity_gap(found.values, run(model, x), run(model, background)) <= 1e-5


def test_data_parallel_without_devices() -> None:
    model = spread(FunctionNet())
    x, background = digits(3), digits(4)
    if torch.cuda.is_available():
        pytest.skip("would use the devices")
    assert_same(values_of(nn.DataParallel(model), x, background), values_of(model, x, background))


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_models_with_parametrized_weights_add_up(norm: Any) -> None:
    model = nn.Sequential(norm(nn.Linear(6, 5)), nn.ReLU(), norm(nn.Linear(5, 3))).eval()
    explain(model, torch.randn(3, 6), torch.randn(4, 6))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_old_weight_norm() -> None:
    """It sets an attribute of the module in every forward pass."""
    model = nn.Sequential(nn.utils.weight_norm(nn.Linear(6, 5)), nn.ReLU(), nn.Linear(5, 3))
    x, background = torch.randn(3, 6), torch.randn(4, 6)
    with unchanged(model, x, background):
        found = DeepExplainer(model, background).attribute(x)
    assert found.convergence_delta.abs().max() < 1e-5


def test_a_model_with_tied_weights_adds_up() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    explain(model, torch.randn(3, 6), torch.randn(4, 6))


def test_weights_frozen_or_half_frozen() -> None:
    model = spread(FunctionNet())
    for number, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(number % 2 == 0)
    explain(model, digits(3), digits(4))


def test_autocast_inside_the_model() -> None:
    inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))

    def function(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return inner(x).float()

    model = spread(Body(function), 3)
    x, background = 3 * torch.randn(3, 6), torch.randn(4, 6) / 3
    outputs, baseline_outputs = run(model, x), run(model, background)
    found = DeepExplainer(model, background, additivity_tolerance=3e-2).attribute(x)
    assert additivity_gap(found.values, outputs, baseline_outputs) <= 3e-2


def test_half_inside_a_float_model() -> None:
    model = spread(Body(lambda x: x.bfloat16().relu().float()), 3)
    x, background = 3 * torch.randn(3, 6), torch.randn(4, 6) / 3
    outputs, baseline_outputs = run(model, x), run(model, background)
    found = DeepExplainer(model, background, additivity_tolerance=3e-2).attribute(x)
    assert additivity_gap(found.values, outputs, baseline_outputs) <= 3e-2


def test_class_token_and_positions() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Conv2d(1, 4, 3, 3), nn.Linear(4, 3)
            self.token, self.positions = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(1, 10, 4))

        def forward(self, x: Tensor) -> Tensor:
            h = self.embed(x).flatten(2).transpose(1, 2)
            h = torch.cat([self.token.expand(len(x), -1, -1), h], 1) + self.positions
            scores = (h @ h.transpose(1, 2)).masked_fill(torch.ones(10, 10).triu(1).bool(), -torch.inf)
            return self.head((scores.flip(1).softmax(2) @ h)[:, 0])

    model = spread(Patches()).double()
    explain(model, digits(3, torch.float64), digits(4, torch.float64))


IDENTITIES = {
    "identity": lambda x: x,
    "clone": lambda x: x.clone(),
    "expanded": lambda x: x.sum(1, keepdim=True).expand(-1, 3),
    "transposed": lambda x: x.t().contiguous().t(),
    "strided": lambda x: x.relu()[:, ::2],
    "constant_part": lambda x: torch.cat([x.tanh(), torch.ones(len(x), 2).to(x)], 1),
    "unbound": lambda x: torch.stack([a * b for a, b in zip(x.unbind(1), x.flip(1).unbind(1), strict=True)], 1),
    "added_to_itself": lambda x: x.add_(x.relu()),
    "written_into_a_buffer": lambda x: (
        torch.zeros(len(x), 6).to(x).index_copy_(1, torch.arange(0, 6, 2), x[:, :3].exp())
    ),
    "out": lambda x: torch.add(x, x.relu(), out=torch.empty_like(x)) if not torch.is_grad_enabled() else x + x.relu(),
    "list_of_scalars": lambda x: torch.stack([x[:, i].exp() for i in range(x.shape[1])]).t(),
    "double_and_back": lambda x: x.double().sigmoid().to(x.dtype),
    "empty_part": lambda x: torch.cat([x.relu(), x[:, :0].tanh()], 1),
    "layout_of_batch_last": lambda x: x.t().relu().sigmoid().t(),
}


@pytest.mark.parametrize("function", IDENTITIES.values(), ids=IDENTITIES.keys())
@pytest.mark.parametrize(("samples", "baselines"), [(3, 4), (1, 1)])
def test_odd_models_add_up(function: Any, samples: int, baselines: int) -> None:
    explain(Function(lambda x: function(x)), torch.randn(samples, 6), torch.randn(baselines, 6))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.stack([row.tanh() * row for row in x]),
        lambda x: torch.cat([part.relu() for part in x.split(1, 0)]),
        lambda x: torch.cat([part.relu() * part for part in x.chunk(2)]),
        lambda x: x.relu().squeeze(),
    ],
    ids=["rows", "split", "chunks", "squeeze"],
)
@pytest.mark.parametrize("samples", [1, 3])
def test_loops_over_the_batch_are_right_or_refused(function: Any, samples: int) -> None:
    model, x, background = Function(lambda x: function(x)), torch.randn(samples, 6), torch.randn(2, 6)
    with unchanged(model, x, background):
        try:
            found = DeepExplainer(model, background).attribute(x)
        except ExplanationError:
            return
    assert additivity_gap(found.values, run(model, x).view(samples, 6), run(model, background)) <= 1e-5


def test_the_same_tensor_for_two_inputs() -> None:
    model = Function(lambda a, b: a.tanh() * b)
    x, background = torch.randn(3, 4).double(), torch.randn(2, 4).double()
    explain(model, [x, x], [background, background])


def test_weights_written_through_data_are_seen_or_reported() -> None:
    """`weight.data.mul_` bumps no version counter."""
    model, x, background = spread(FunctionNet()), digits(3), digits(4)
    explainer = DeepExplainer(model, background)
    explainer.attribute(x)
    model.fc1.weight.data.mul_(1.5)
    try:
        found = explainer.attribute(x)
    except ExplanationError:
        return
    assert_same(found.values, values_of(model, x, background))


def test_load_state_dict_is_seen() -> None:
    model, other, x, background = spread(FunctionNet()), spread(FunctionNet()), digits(3), digits(4)
    explainer = DeepExplainer(model, background)
    explainer.attribute(x)
    model.load_state_dict(other.state_dict())
    assert_same(explainer.attribute(x).values, values_of(other, x, background))


def test_outputs_in_the_thousands() -> None:
    model = Function(lambda x: F.conv1d(x.unsqueeze(1).tanh(), torch.ones(300, 1, 1).cumsum(0).to(x)))
    found = explain(model, torch.randn(2, 5).double(), torch.randn(3, 5).double(), max_memory=2_000_000)
    assert found.values.shape == (2, 5, 300, 5)


def test_nan_in_the_models_output_is_no_silent_answer() -> None:
    model = Function(lambda x: (x - 1).log())
    explainer_input = torch.rand(2, 3) + 2
    with pytest.raises((ExplanationError, ValueError)):
        DeepExplainer(model, torch.rand(3, 3)).attribute(explainer_input)


def test_infinite_output_is_no_silent_answer() -> None:
    model = Function(lambda x: x.log())
    with pytest.raises((ExplanationError, ValueError)):
        DeepExplainer(model, torch.zeros(3, 3)).attribute(torch.rand(2, 3) + 2)


def test_a_constant_output_among_others() -> None:
    model = Function(lambda x: torch.cat([x.tanh(), torch.ones(len(x), 1)], 1))
    found = explain(model, torch.randn(3, 2), torch.randn(2, 2))
    assert not found.values[..., 2].any()


def test_float_inputs_beyond_half() -> None:
    """Its output overflows."""
    model = spread(Body(torch.relu), 50).half()
    x = torch.full((2, 6), 6e4, dtype=torch.float16)
    assert not run(model, x).isfinite().all()
    with pytest.raises((ExplanationError, ValueError)):
        DeepExplainer(model, torch.zeros(2, 6, dtype=torch.float16)).attribute(x)


def test_autocast_around_a_convolution() -> None:
    layers = (nn.Conv2d(1, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 5))
    model, x, background = spread(nn.Sequential(*layers), 3), 3 * digits(3), digits(4) / 3
    with torch.autocast("cpu", torch.bfloat16), unchanged(model, x, background):
        outputs, baseline_outputs = run(model, x), run(model, background)
        found = DeepExplainer(model, background, additivity_tolerance=3e-2).attribute(x)
    assert outputs.dtype == torch.bfloat16
    assert additivity_gap(found.values, outputs, baseline_outputs) <= 3e-2


def test_the_default_device_does_not_matter() -> None:
    """Nothing is made on the default device by mistake; the meta device would show it."""
    model, x, background = spread(FunctionNet()), digits(3), torch.zeros(2, 1, 9, 9)
    expected = values_of(model, x, background)
    with torch.device("meta"):
        explainer = DeepExplainer(model, background)
        found = explainer.attribute(x, standard_error=True)
        explainer.attribute(x, 2, pairing="aligned")
        explainer.shap_values(x, ranked_outputs=1)
    assert_same(found.values, expected, 0)


def test_the_default_dtype_does_not_matter() -> None:
    model, x, background = spread(FunctionNet()), digits(3), torch.zeros(2, 1, 9, 9)
    expected = values_of(model, x, background)
    torch.set_default_dtype(torch.float64)
    try:
        found = DeepExplainer(model, background).attribute(x)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same(found.values, expected, 0)


@pytest.mark.parametrize(
    "read",
    [
        lambda h: h.gather(1, torch.tensor([[2, 0]]).expand(len(h), 2)),
        lambda h: F.grid_sample(
            h.view(-1, 1, 2, 4), torch.zeros(len(h), 1, 1, 2, dtype=h.dtype), align_corners=True
        ).flatten(1),
        lambda h: F.avg_pool1d(h.unsqueeze(1), 2).squeeze(1),
        lambda h: F.max_pool1d(h.unsqueeze(1), 2).squeeze(1),
    ],
)
def test_what_an_operation_has_read_is_written_into_afterwards(read: Callable[[Tensor], Tensor]) -> None:
    """Fine in inference, where nobody asks for gradients."""

    def forward(x: Tensor) -> Tensor:
        hidden = x.tanh()
        y = read(hidden)
        hidden.mul_(0.3).relu_()
        F.relu(y, inplace=True)
        return torch.cat([hidden, y], 1).exp()

    explain(Function(forward), torch.randn(3, 8).double(), torch.randn(2, 8).double())


def test_a_factor_is_written_into_afterwards() -> None:
    def forward(x: Tensor) -> Tensor:
        state = torch.ones(2, 8, dtype=x.dtype)
        y = x.tanh() * state[0]
        state[0] += 1
        y = y.exp() * state[0]
        state[:, 3:] = y[:1, 3:].detach() * 0
        return y

    explain(Function(forward), torch.randn(3, 8).double(), torch.randn(2, 8).double())
