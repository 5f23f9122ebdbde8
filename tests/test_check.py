"""The verdict of additivity: rounding is no fault, a fault is found, and a sample's neighbours have no part in it."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from faults import broken, rules_of
from models import Function, ModuleNet, Tokens, TwoInputs, digits, spread
from random_networks import NETWORKS, drawn
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deepshap_ext import AdditivityError, DeepExplainer, ExplanationError


def _raises(explainer: DeepExplainer, X: Any) -> bool:
    try:
        explainer.attribute(X)
    except AdditivityError:
        return True
    return False


# --- Neighbours ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_verdict_on_a_sample_does_not_depend_on_its_neighbours(dtype: torch.dtype) -> None:
    """Alone, beside a sample whose output is 1e7 times as large, or beside any others."""
    model = Function(lambda x: x.tanh().sum(1, keepdim=True) + 1e7 * torch.relu(x[:, :1] - 5))
    x = torch.randn(4, 6, dtype=dtype)
    x[1] = 0.01 * x[1]
    x = torch.cat([x, x.new_full((1, 6), 9.0)])
    explainer = DeepExplainer(model, 0.01 * torch.randn(3, 6, dtype=dtype))
    with broken("tanh", 1.0005):
        alone = [_raises(explainer, x[sample : sample + 1]) for sample in range(5)]
        # The fault is 1e-10 of the last one's difference.
        assert alone == [True, True, True, True, dtype == torch.float64]
        for chosen in ([0, 4], [1, 4], [4, 2, 3], [0, 1, 2, 3, 4], [4, 4]):
            assert _raises(explainer, x[chosen]) == any(alone[sample] for sample in chosen)
        with pytest.raises(AdditivityError, match=r"sample [0-3], output 0"):
            explainer.attribute(x)
    assert not _raises(explainer, x)


def test_each_output_is_held_to_its_own_difference() -> None:
    model = Function(lambda x: torch.cat([1e6 * x[:, :1], x[:, 1:].tanh()], 1))
    explainer = DeepExplainer(model, torch.zeros(1, 2))
    with broken("tanh", 1.001), pytest.raises(AdditivityError, match=r"sample 0, output 1 is off by 0.000762"):
        explainer.attribute(torch.ones(1, 2))


# --- Rounding ---


@pytest.mark.parametrize("kind", NETWORKS)
def test_right_values_of_networks_of_ordinary_scale_raise_nothing(kind: str) -> None:
    """Rounding raises no alarm; benchmarks/verdict.py counts alarms in a thousand networks of each kind."""
    beyond = 0
    for seed in range(6):
        model, X, baselines = drawn(kind, seed)
        found = DeepExplainer(model, baselines).attribute(X)
        beyond += int((found.convergence_delta.abs() > 1e-5 * (found.output - found.expected_value).abs()).sum())
    assert beyond > 0  # of some the difference is small beside what is rounded


def _standardised(h: Tensor) -> Tensor:
    return (h - h.mean(-1, keepdim=True)) / h.var(-1, keepdim=True).sqrt()


def _recurrent(model: Any, x: Tensor) -> Tensor:
    states, state = x.new_empty(len(x), 6, 5), x.new_zeros(len(x), 5)
    for time in range(6):
        state = torch.tanh(state + model.a(x)[:, 5 * time : 5 * time + 5])
        states[:, time] = state + 300
    return states.sub_(300).flatten(1)[:, -3:]


#: Functions of six features, in which little is left of what is rounded. ``a`` takes them to 64, ``b`` to one, with positive weights.
ROUNDING: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "logits shifted by 200": lambda m, x: F.softmax(m.a(x) + 200, -1)[:, :3],
    "log-softmax shifted by 200": lambda m, x: F.log_softmax(m.a(x) + 200, -1)[:, :3],
    "cross-entropy": lambda m, x: F.cross_entropy(
        m.a(x) + 300, torch.zeros(len(x), dtype=torch.int64), reduction="none"
    ),
    "layer norm of a mean of 1e4": lambda m, x: m.b(F.layer_norm(m.a(x) + 1e4, (64,))),
    "layer norm by hand": lambda m, x: m.b(_standardised(m.a(x) + 1e4)),
    "group norm of a mean of 1e3": lambda m, x: m.b(torch.relu(F.group_norm(m.a(x) + 1e3, 4))),
    "a linear layer whose rows add up to 0": lambda m, x: m.b(torch.relu((m.a(x) + 1e4) @ (torch.eye(64) - 1 / 64))),
    "a convolution whose kernel adds up to 0": lambda m, x: m.b(
        F.conv1d(m.a(x)[:, None] + 1e4, torch.tensor([[[1.0, -2.0, 1.0]]]), padding=1).flatten(1).clamp(-9, 9)
    ),
    "a variance of two means": lambda m, x: (
        (m.a(x) + 30).square().mean(1, keepdim=True) - (m.a(x) + 30).mean(1, keepdim=True).square()
    ),
    "a sum of large numbers": lambda m, x: (x.tanh() + 1e6) - 1e6,
    "the Fourier transform of a large mean": lambda m, x: torch.fft.irfft(torch.fft.rfft(m.a(x) + 1e3))[:, :3] - 1e3,
    "attention to values with a large mean": lambda m, x: (
        F.scaled_dot_product_attention(*(5 * m.a(x).unflatten(1, (8, 8)),) * 2, m.a(x).unflatten(1, (8, 8)) + 100)
        .flatten(1)[:, :3] - 100
    ),
    "tails of gelu": lambda m, x: m.b(F.gelu(m.a(x) - 6)),
    "recurrence in place": _recurrent,
    "checkpointed": lambda m, x: checkpoint(lambda x: (m.a(x) + 1e3).tanh() + (m.a(x) + 1e4) - 1e4, x, use_reentrant=False),
    "inside vmap": lambda m, x: m.b(torch.relu(torch.vmap(lambda x: x @ m.a.weight.t() + 1e3)(x) - 1e3)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("function", ROUNDING.values(), ids=ROUNDING.keys())
def test_what_a_function_rounds_is_no_fault(function: Callable[..., Tensor], dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    try:
        a, b = nn.Linear(6, 64), nn.Linear(64, 1)
        with torch.no_grad():
            b.weight.abs_()
        X, baselines = torch.randn(4, 6), torch.randn(2, 6)
        found = DeepExplainer(Function(function, a=a, b=b), baselines).attribute(X)
    finally:
        torch.set_default_dtype(torch.float32)
    if dtype == torch.float32:
        gap, difference = found.convergence_delta.abs(), (found.output - found.expected_value).abs()
        assert (gap > 1e-5 * difference).any(), "rounds too little to show anything"


class Shifting(nn.Module):
    """Two layers whose results are rounded to the size of 1e4."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        h = torch.tanh((self.a(x) + shift) - shift)
        return self.c(torch.tanh((self.b(h) + shift) - shift))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("layers", [[], ["a"], ["a", "b"]])
def test_rounding_is_allowed_for_own_baselines_keyword_arguments_and_layers(layers: list[str], own: bool) -> None:
    model = Shifting()
    explained: Any = (model, [getattr(model, name) for name in layers]) if layers else model
    explainer = DeepExplainer(explained, torch.randn(5, 6), sample_kwargs={"shift": torch.full((5, 1), 1e4)})
    kwargs = {"shift": torch.tensor([[1e4], [1e3], [2e4]])}
    baselines = torch.randn(3, 7, 6) if own else None
    x = torch.randn(3, 6)
    found = explainer.attribute(x, baselines=baselines, sample_kwargs=kwargs)
    deltas = found.convergence_delta if layers else [found.convergence_delta]
    for delta in deltas:
        assert (delta.abs() > 1e-5 * (found.output - found.expected_value).abs()).any()
    with broken("tanh", 1.05), pytest.raises(AdditivityError, match="off by"):
        explainer.attribute(x, baselines=baselines, sample_kwargs=kwargs)


class HalfPart(nn.Module):
    """A network in float32 (or float64) of which one linear layer computes in another dtype."""

    def __init__(self, dtype: torch.dtype, autocast: bool) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 16), nn.Linear(16, 3)
        self.dtype, self.autocast = dtype, autocast
        if not autocast:
            self.a.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            h = self.a(x if self.autocast else x.to(self.dtype))
        return self.b(h.to(x.dtype).tanh())


@pytest.mark.parametrize(
    ("dtype", "autocast", "fault"),
    [(torch.float16, False, 1.1), (torch.bfloat16, False, 1.5), (torch.bfloat16, True, 1.5)],
)
def test_parts_in_half_precision_are_held_to_its_rounding(dtype: torch.dtype, autocast: bool, fault: float) -> None:
    explainer = DeepExplainer(HalfPart(dtype, autocast).eval(), torch.randn(6, 5))
    x = 3 * torch.randn(4, 5)
    found = explainer.attribute(x)
    assert (found.convergence_delta.abs() > 1e-5 * (found.output - found.expected_value).abs()).any()
    with broken("tanh", fault):
        assert _raises(explainer, x)


def test_a_part_in_half_precision_excuses_no_fault_elsewhere() -> None:
    """A part of the network whose share of the difference is small rounds by little, too."""

    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.tanh().sum(1) + 1e-3 * x.half().sum(1).float()

    explainer = DeepExplainer(Model(), torch.zeros(1, 5))
    x = torch.rand(3, 5) + 0.5
    explainer.attribute(x)
    with broken("tanh", 1.001):
        assert _raises(explainer, x)


def test_a_part_in_float32_of_a_float64_network_is_held_to_its_rounding() -> None:
    model = HalfPart(torch.float32, False)
    model.b.double()
    explainer = DeepExplainer(model.eval(), torch.randn(6, 5).double())
    x = torch.randn(4, 5).double()
    assert explainer.attribute(x).convergence_delta.abs().max() > 1e-9
    with broken("tanh", 1.0001):
        assert _raises(explainer, x)


# --- Faults ---


def _network(name: str, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """A model (and layer), samples and baselines."""
    torch.manual_seed(1)
    if name in NETWORKS:
        model, X, baselines = drawn(name, 1, apart=1.0)
        return model.to(dtype), X.to(dtype), baselines.to(dtype)
    if name == "convolutions":
        return spread(ModuleNet()).to(dtype), digits(3, dtype), digits(4, dtype)
    if name == "two inputs":
        model = TwoInputs().to(dtype).eval()
        return model, *([torch.randn(n, 2, 8, dtype=dtype), torch.randn(n, 4, dtype=dtype)] for n in (3, 4))
    tokens = Tokens(skip=True).to(dtype).eval()
    return (tokens, tokens.encoder), torch.randint(11, (3, 5)), torch.randint(11, (4, 5))


#: With the rules that must carry enough of some output's difference for a fault of a thousandth to show.
FAULTY = {
    "transformers": {"gelu", "layer_norm", "matmul", "softmax"},
    "ResNets": {"batch_norm", "max_pool2d", "relu"},
    "LSTMs": {"recurrent_layer"},
    "convolutions": {"max_pool2d", "relu", "softmax"},
    "two inputs": {"relu", "tanh"},
    "tokens": {"gelu", "tanh"},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_of_a_thousandth_in_a_rule_is_found(name: str, dtype: torch.dtype) -> None:
    model, X, baselines = _network(name, dtype)
    explainer = DeepExplainer(model, baselines)
    explainer.attribute(X)
    found_in = set()
    for rule in rules_of(explainer, X):
        with broken(rule, 1.001) as calls:
            found = explainer.attribute(X, check_additivity="ignore")
            assert calls
            gap = (found.convergence_delta / (found.output - found.expected_value)).abs().max()
            # A tenth of the difference passes through the rule.
            if gap > 1e-4:
                assert _raises(explainer, X), rule
                found_in.add(rule)
    assert found_in >= FAULTY[name]


# --- What is asked for ---


def test_ignore_says_nothing_and_looks_at_nothing() -> None:
    explainer = DeepExplainer(Function(lambda x: (x - 1).log()), torch.full((1, 2), 3.0))
    x = torch.zeros(2, 2)
    with pytest.raises(AdditivityError, match="not finite"):
        explainer.shap_values(x)
    with pytest.warns(UserWarning, match="not finite"):
        explainer.shap_values(x, check_additivity=False)
    explainer.shap_values(x, check_additivity="ignore")
    explainer.attribute(x, check_additivity="ignore")
    linear = nn.Linear(2, 2)
    explainer = DeepExplainer((Function(lambda m, x: m.linear(x) + x, linear=linear), linear), torch.zeros(1, 2))
    explainer.attribute(x, check_additivity="ignore")


@pytest.mark.parametrize(("value", "error"), [("warn", ValueError), (None, TypeError), (1, TypeError), ([], TypeError)])
def test_check_additivity_is_one_of_three(value: Any, error: type[Exception]) -> None:
    explainer = DeepExplainer(Function(torch.tanh), torch.zeros(1, 2))
    for explain in (explainer.shap_values, explainer.attribute):
        with pytest.raises(error, match=r"check_additivity must be True, False or 'ignore', got "):
            explain(torch.ones(1, 2), check_additivity=value)


# --- Outputs that are not finite ---


def test_outputs_that_are_not_finite_are_reported_by_sample() -> None:
    model = Function(lambda x: x.log())
    explainer = DeepExplainer(model, torch.ones(2, 1))
    x = torch.tensor([[1.0], [-1.0], [2.0], [0.0]])
    with pytest.raises(AdditivityError, match=r"output is not finite for sample\(s\) 1, 3\. "):
        explainer.attribute(x)
    explainer = DeepExplainer(model, torch.tensor([[1.0], [-1.0]]))
    with pytest.raises(AdditivityError, match=r"output is not finite for the baselines\. "):
        explainer.attribute(x[::2])
    own = torch.tensor([[[1.0]], [[0.0]], [[2.0]]])
    with pytest.raises(AdditivityError, match=r"output is not finite for the baselines of sample\(s\) 1\. "):
        explainer.attribute(x[[0, 2, 2]], baselines=own)


class Masked(nn.Module):
    """The mean over the tokens that are not padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = (tokens != 0).float().unsqueeze(-1)
        return self.head((self.embed(tokens) * mask).sum(1) / mask.sum(1))


def test_outputs_that_are_not_finite_are_reported_where_something_leads_past_the_layer() -> None:
    model = Masked().eval()
    explainer = DeepExplainer((model, model.embed), torch.zeros(1, 5, dtype=torch.int64), at="output")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "something leads from the model's inputs past")
        with pytest.raises(AdditivityError, match=r"output is not finite for the baselines\. "):
            explainer.attribute(torch.randint(1, 9, (2, 5)), target=0)
        with pytest.warns(UserWarning, match=r"output is not finite for the baselines"):
            explainer.attribute(torch.randint(1, 9, (2, 5)), target=0, check_additivity=False)
    explainer.attribute(torch.randint(1, 9, (2, 5)), target=0, check_additivity="ignore")


def test_an_expected_value_that_is_not_finite_is_an_error() -> None:
    explainer = DeepExplainer(nn.Sequential(nn.Threshold(0.5, float("inf")), nn.Linear(3, 2)), torch.zeros(2, 3))
    with pytest.raises(ExplanationError, match="not finite for the baselines"):
        _ = explainer.expected_value
