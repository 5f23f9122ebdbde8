"""Explanations that are traced once and replayed are those that run eagerly; where they would not be, they run eagerly."""

import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from checks import assert_same
from models import Body, FunctionNet, TwoInputs, digits, spread
from torch import Tensor, nn

from deepshap_ext import AdditivityError, DeepExplainer, Explainer, ops
from deepshap_ext.compiled import rescaled
from deepshap_ext.memory import MemoryMeter


def mlp() -> nn.Module:
    return spread(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3)))


def convolutional() -> nn.Module:
    layers = (
        nn.Conv2d(1, 4, 3),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(36, 5),
    )
    return spread(nn.Sequential(*layers), 3)


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into, self.norm, self.head = nn.Linear(4, 12), nn.LayerNorm(4), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.into(x).chunk(3, -1)
        x = self.norm(x + (q @ k.transpose(1, 2)).softmax(-1) @ v)
        return self.head(nn.functional.gelu(x).flatten(1))


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Any]]] = {
    "mlp": (mlp, lambda n: torch.randn(n, 6)),
    "convolutional": (convolutional, digits),
    "functions": (lambda: spread(FunctionNet()), digits),
    "attention": (lambda: spread(Attends()), lambda n: torch.randn(n, 3, 4)),
    "two_inputs": (lambda: spread(TwoInputs()), lambda n: [torch.randn(n, 2, 8), torch.randn(n, 4)]),
}


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Ran:
    """How often a model has run, other than in a graph of its operations."""

    def __init__(self, model: nn.Module) -> None:
        self.times = 0
        handle = model.register_forward_pre_hook(self._count)
        self.remove = handle.remove

    def _count(self, *_: Any) -> None:
        self.times += 1


def same(one: Any, other: Any) -> None:
    """Of attributions: every tensor that one has."""
    for name, value in vars(one).items():
        theirs = getattr(other, name)
        assert (value is None) == (theirs is None), name
        for a, b in zip(
            value if isinstance(value, tuple) else (value,),
            theirs if isinstance(theirs, tuple) else (theirs,),
            strict=True,
        ):
            if a is not None and name != "convergence_delta":
                assert torch.equal(a, b) if name == "target" else assert_same(a, b) is None


def of_both(model: Any, sample: Callable[[int], Any], number: int = 4, others: Any = None, **options: Any) -> None:
    """Explain once with tracing, and then other data: that is replayed, as the model's hook tells, and equal."""
    module = model[0] if isinstance(model, tuple) else model
    eager, replayed = Explainer(model), Explainer(model, compile="replay")
    own = options.pop("own", False)

    def baselines() -> Any:
        return torch.stack([sample(5) for _ in range(number)]) if own else sample(5)

    replayed.attribute(sample(number), baselines=baselines(), **options)
    x, r = sample(number), baselines()
    expected = eager.attribute(x, baselines=r, **options)
    ran = Ran(module)
    # The hook is a change of the model: traced anew.
    replayed.attribute(sample(number), baselines=baselines(), **options)
    ran.times = 0
    found = replayed.attribute(x, baselines=r, **options)
    ran.remove()
    assert ran.times == 0
    same(expected, found)


@pytest.mark.parametrize("name", MODELS)
def test_other_data_has_the_values_of_an_eager_explanation(name: str) -> None:
    build, sample = MODELS[name]
    of_both(build(), sample)


@pytest.mark.parametrize("name", ["mlp", "convolutional", "functions", "attention"])
def test_own_baselines(name: str) -> None:
    build, sample = MODELS[name]
    of_both(build(), sample, own=True, target=0)


OPTIONS: dict[str, dict[str, Any]] = {
    "one target": {"target": 1},
    "one a sample": {"target": [0, 1, 2, 1]},
    "several a sample": {"target": [[0, 1], [1, 2], [2, 0], [1, 0]]},
    "chosen": {"target": lambda outputs: outputs.argmax(1)},
    "standard_error": {"standard_error": True},
    "weights": {"weights": [0.5, 1, 2, 1, 3], "standard_error": True},
    "multipliers": {"multipliers": True, "target": 2},
    "per_baseline": {"per_baseline": True},
    "activations": {"activations": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_asked_for(name: str) -> None:
    build, sample = MODELS["mlp"]
    of_both(build(), sample, **OPTIONS[name])


def test_each_call_has_its_own_options() -> None:
    build, sample = MODELS["mlp"]
    model, x, r = build(), sample(4), sample(5)
    eager, replayed = Explainer(model), Explainer(model, compile="replay")
    asked = [{}, OPTIONS["weights"], {"weights": [1, 2, 3, 2, 1]}, {"weights": [2] * 5}, OPTIONS["activations"]]
    asked += [OPTIONS["chosen"], {"target": 2}, {"target": 1}]
    for options in asked * 2:
        same(eager.attribute(x, baselines=r, **options), replayed.attribute(x, baselines=r, **options))


@pytest.mark.parametrize("at", ["input", "output"])
def test_layers(at: Any) -> None:
    model = convolutional()
    eager, replayed = (Explainer((model, "3"), at=at, compile=how) for how in (False, "replay"))
    replayed.attribute(digits(4), baselines=digits(5))
    x, r = digits(4), digits(5)
    same(eager.attribute(x, baselines=r), replayed.attribute(x, baselines=r))


@pytest.mark.parametrize("own", [False, True])
def test_chunks_that_are_short_are_padded(own: bool) -> None:
    model, x = mlp(), torch.randn(11, 6)
    r = torch.randn(11, 7, 6) if own else torch.randn(7, 6)
    weights = torch.rand(7) + 0.1
    for asked in ({"standard_error": True, "multipliers": True}, {"per_baseline": True}):
        expected = Explainer(model).attribute(x, baselines=r, weights=weights, **asked)
        replayed = Explainer(model, batch_size=8, compile="replay")
        for _ in range(2):
            same(expected, replayed.attribute(x, baselines=r, weights=weights, **asked))


def test_a_trace_serves_other_numbers_of_samples() -> None:
    model = mlp()
    replayed = Explainer(model, compile="replay")
    r = torch.randn(5, 6)
    ran = Ran(model)
    replayed.attribute(torch.randn(8, 6), baselines=r)
    ran.times = 0
    for number in (8, 5, 16):
        x = torch.randn(number, 6)
        found = replayed.attribute(x, baselines=r)
        assert ran.times == 0
        same(Explainer(model).attribute(x, baselines=r), found)
        ran.times = 0


def test_weights_changed_in_place_are_seen() -> None:
    model, x, r = mlp(), torch.randn(4, 6), torch.randn(5, 6)
    replayed = Explainer(model, compile="replay")
    replayed.attribute(x, baselines=r)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.5)
    ran = Ran(model)
    ran.remove()
    same(Explainer(model).attribute(x, baselines=r), replayed.attribute(x, baselines=r))


def _replace_parameter(model: Any) -> None:
    model[0].weight = nn.Parameter(torch.randn(8, 6))


def _replace_data(model: Any) -> None:
    model[0].weight.data = torch.randn(8, 6)


def _replace_module(model: Any) -> None:
    model[1] = nn.SELU()


def _add_hook(model: Any) -> None:
    model[2].register_forward_hook(lambda module, args, output: output * 2)


class Slope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.options = {"slope": 0.1}

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.leaky_relu(x, self.options["slope"])


def _change_attribute(model: Any) -> None:
    model[3].options["slope"] = 0.3


@pytest.mark.parametrize("change", [_replace_parameter, _replace_data, _replace_module, _add_hook, _change_attribute])
def test_what_is_changed_is_traced_anew(change: Callable[[Any], None]) -> None:
    model, x, r = mlp(), torch.randn(4, 6), torch.randn(5, 6)
    model[3] = Slope()  # type: ignore[operator]
    replayed = Explainer(model, compile="replay")
    for _ in range(2):
        replayed.attribute(x, baselines=r)
    change(model)
    for _ in range(2):
        same(Explainer(model).attribute(x, baselines=r), replayed.attribute(x, baselines=r))


def test_training_mode_is_no_change() -> None:
    model, x, r = mlp().train(), torch.randn(4, 6), torch.randn(5, 6)
    replayed = Explainer(model, compile="replay")
    ran = Ran(model)
    replayed.attribute(x, baselines=r)
    model.eval()
    ran.times = 0
    replayed.attribute(x, baselines=r)
    assert ran.times == 0


class Decides(nn.Module):
    """Takes the first feature's sign for a decision."""

    def __init__(self, index: bool) -> None:
        super().__init__()
        self.fc, self.index = nn.Linear(3, 2), index

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x)
        above = x[:, :1] > 0
        if self.index:
            return h.gather(1, above.long())
        return torch.where(above, h, 2 * h)


@pytest.mark.parametrize("index", [False, True])
def test_other_decisions_are_reported_as_eagerly(index: bool) -> None:
    model = spread(Decides(index))
    replayed = Explainer(model, compile="replay")
    x, r = torch.randn(4, 3), torch.randn(5, 3)
    x[:, 0], r[:, 0] = x[:, 0].abs(), r[:, 0].abs()
    for _ in range(2):
        same(Explainer(model).attribute(x, baselines=r), replayed.attribute(x, baselines=r))
    x[1, 0] = -1
    with (
        pytest.warns(UserWarning, match="other decisions for some samples than for their baselines"),
        pytest.raises(AdditivityError, match=r"different decisions for sample\(s\) 1 "),
    ):
        replayed.attribute(x, baselines=r)
    # Both sides on the other branch again decide alike, by the graph too.
    x, r = -x.abs(), -r.abs()
    same(Explainer(model).attribute(x, baselines=r), replayed.attribute(x, baselines=r))


class Reads(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.fc, self.how = nn.Linear(3, 2), how

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x).tanh()
        if self.how == "item":
            return h * 2 if (h < 5).all().item() else h
        if self.how == "tolist":
            return h * (2 if (h < 5).all().tolist() else 1)
        return h + (0 * x).nonzero().sum()


@pytest.mark.parametrize("how", ["item", "tolist", "nonzero"])
def test_a_model_that_reads_values_runs_eagerly(how: str) -> None:
    model, x, r = spread(Reads(how)), torch.randn(4, 3), torch.randn(5, 3)
    replayed = Explainer(model, compile="replay")
    expected = Explainer(model).attribute(x, baselines=r)
    reason = "shape of what aten.nonzero.default returns depends on values" if how == "nonzero" else "reads values"
    with pytest.warns(UserWarning, match=f"runs without replay: .*{reason}") as told:
        for _ in range(3):
            same(expected, replayed.attribute(x, baselines=r))
    assert len(told) == 1


class Gated(nn.Module):
    """Reads a buffer of its own in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("gate", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x).tanh() * (2.0 if self.gate.item() > 0 else 1.0)


def test_a_constant_that_was_read_is_seen_to_change() -> None:
    model, x, r = spread(Gated()), torch.randn(4, 3), torch.randn(5, 3)
    model.gate.fill_(1)
    replayed = Explainer(model, compile="replay")
    for gate in (1, 1, -1, -1):
        model.gate.fill_(gate)
        same(Explainer(model).attribute(x, baselines=r), replayed.attribute(x, baselines=r))


class Remembers(nn.Module):
    """Writes into a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 2)
        self.register_buffer("last", torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc(x).tanh()
        self.last.copy_(h.detach().mean(0))
        return h


def test_a_model_that_writes_into_its_own_runs_eagerly() -> None:
    model, x, r = spread(Remembers()), torch.randn(4, 3), torch.randn(5, 3)
    before = model.last.clone()
    replayed = Explainer(model, compile="replay")
    with pytest.warns(UserWarning, match="writes into a tensor that the model holds"):
        replayed.attribute(x, baselines=r)
    assert_same(model.last, before)


@pytest.mark.parametrize("options", [{"pairing": "aligned"}, {"combine": lambda m, x, r: m}])
def test_what_is_not_replayed_runs_eagerly(options: dict[str, Any]) -> None:
    model, x, r = mlp(), torch.randn(4, 6), torch.randn(5, 6)
    expected = Explainer(model).attribute(x, baselines=r, **options)
    with pytest.warns(UserWarning, match="runs without replay"):
        same(expected, Explainer(model, compile="replay").attribute(x, baselines=r, **options))


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        (nn.LSTM, {"bidirectional": True, "num_layers": 2}),
        (nn.LSTM, {"proj_size": 3}),
        (nn.GRU, {"bias": False}),
        (nn.GRU, {"bidirectional": True}),
        (nn.RNN, {"nonlinearity": "relu"}),
        (nn.RNN, {}),
    ],
)
def test_recurrent_layers(layer: type[nn.Module], options: dict[str, Any]) -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer(4, 5, batch_first=True, **options)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x)[0][:, -1, :3]

    of_both(Last(), lambda n: torch.randn(n, 60, 4))


def test_the_operation_of_a_recurrent_layer() -> None:
    operation = torch.ops.deepshap_ext.recurrent_layer.default
    hidden, weight = torch.randn(2, 5), torch.randn(20, 5)
    for cell, gates, state in (("lstm", 20, [hidden, hidden]), ("gru", 15, [hidden]), ("rnn_tanh", 5, [hidden])):
        torch.library.opcheck(
            operation, (cell, torch.randn(3, 2, gates), state, weight[:gates], torch.randn(gates), None)
        )


def test_writes_into_its_own_results_are_replayed() -> None:
    def forward(x: Tensor) -> Tensor:
        h = x * 2
        part = h[:, :2]
        part.add_(h[:, 2:4].tanh())
        h[:, 4] = part.sum(1)
        return h.relu_().cumsum(1)

    of_both(Body(forward), lambda n: torch.randn(n, 6))


@pytest.mark.slow
def test_traces_are_bounded_and_freed() -> None:
    def graphs() -> int:
        gc.collect()
        return sum(issubclass(type(one), torch.fx.GraphModule) for one in gc.get_objects())

    model = mlp()
    replayed = Explainer(model, compile="replay")
    of_others = graphs()
    for number in range(1, 12):
        replayed.attribute(torch.randn(2, 6), baselines=torch.randn(number, 6), check_additivity="ignore")
    assert graphs() - of_others <= 8 * 5
    gone = weakref.ref(replayed), weakref.ref(model)
    del replayed, model
    gc.collect()
    assert [one() for one in gone] == [None, None]


def test_it_takes_no_more_memory_than_eagerly() -> None:
    """What a rule makes of both sides is made when it is needed, and not for all layers at once."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.Sequential(
        nn.TransformerEncoder(layer, 6, enable_nested_tensor=False), nn.Flatten(), nn.Linear(128, 2)
    ).eval()
    x, r = torch.randn(3, 8, 16), torch.randn(5, 8, 16)
    peaks = {}
    for how in (False, "replay"):
        explainer = Explainer(model, compile=how)
        for _ in range(3):
            with MemoryMeter() as meter:
                explainer.attribute(x, 0, baselines=r)
        peaks[how] = meter.peak
    assert peaks["replay"] <= 1.1 * peaks[False]


def test_the_model_is_left_as_it_was() -> None:
    model = convolutional().train()
    parameter = next(model.parameters())
    parameter.grad = torch.ones_like(parameter)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    attributes = [dict(vars(module)) for module in model.modules()]
    replayed = Explainer(model, compile="replay")
    for _ in range(2):
        replayed.attribute(digits(4), baselines=digits(5))
    assert all(module.training for module in model.modules())
    assert attributes == [dict(vars(module)) for module in model.modules()]
    assert parameter.requires_grad and parameter.grad is not None and parameter.grad.sum() == parameter.numel()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_additivity_is_checked() -> None:
    model, x, r = mlp(), torch.randn(4, 6), torch.randn(5, 6)
    replayed = Explainer(model, compile="replay", additivity_tolerance=1e-9)
    replayed.attribute(x, baselines=r)
    with torch.no_grad():
        model[4].bias.fill_(torch.nan)  # type: ignore[operator]
    with pytest.raises(AdditivityError, match="not finite"):
        replayed.attribute(x, baselines=r)


def test_results_are_not_the_arguments() -> None:
    model, x, r = mlp(), torch.randn(4, 6), torch.randn(5, 6)
    replayed = Explainer(model, compile="replay")
    for _ in range(2):
        found = replayed.attribute(x, baselines=r, activations=True)
        again = replayed.attribute(x, baselines=r, activations=True)
        kept = {name: value.clone() for name, value in vars(found).items() if value is not None}
        for value in vars(again).values():
            if value is not None:
                value.zero_()
        for name, value in kept.items():
            assert_same(getattr(found, name), value)
    assert x.any() and r.any()


def test_shaps_explainer_is_replayed() -> None:
    model, x, r = mlp(), torch.randn(4, 6), torch.randn(5, 6)
    eager, replayed = DeepExplainer(model, r), DeepExplainer(model, r, compile="replay")
    ran = Ran(model)
    replayed.shap_values(x)
    ran.times = 0
    found = replayed.shap_values(x)
    assert ran.times == 0
    assert_same(torch.from_numpy(found), torch.from_numpy(eager.shap_values(x)))


@pytest.mark.parametrize("compile", ["eager", 1.5, None])
def test_compile_is_checked(compile: Any) -> None:
    with pytest.raises(ValueError, match=r"compile must be False, True or 'replay', got"):
        Explainer(mlp(), compile=compile)


@pytest.mark.parametrize("pairing", ["grid", "per_sample", "aligned"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("function", "parameters"),
    [("relu", ()), ("leaky_relu", (0.01,)), ("hardtanh", (0.0, 6.0)), ("hardtanh", (-0.5, 0.5))],
)
def test_multipliers_in_operations_of_torch(
    function: str, parameters: tuple[float, ...], pairing: str, dtype: torch.dtype
) -> None:
    outer, batch, inner, baselines = 2, 3, 5, 4
    x = torch.randn(outer * batch, inner).to(dtype)
    r = torch.randn(outer * {"grid": baselines, "per_sample": batch * baselines, "aligned": batch}[pairing], inner).to(
        dtype
    )
    r[0], x[1] = x[0], 0
    rows = torch.tensor([0, 3, 1, 1] if pairing != "aligned" else [0, 0])
    grad = torch.randn(len(rows), *x.shape).to(dtype)
    expected = ops.rescale(grad, x, r, rows, function, parameters, outer, batch, pairing)
    found = rescaled(grad, x, r, rows, function, parameters, outer, batch, pairing)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=4 * torch.finfo(dtype).eps, atol=0)
    if pairing == "aligned":
        return
    grad = torch.randn(2 * baselines, *x.shape).to(dtype)
    each = torch.arange(baselines).repeat_interleave(2)
    expected = ops.rescale(grad, x, r, each, function, parameters, outer, batch, pairing)
    found = rescaled(grad, x, r, 2, function, parameters, outer, batch, pairing)
    torch.testing.assert_close(found, expected, rtol=4 * torch.finfo(dtype).eps, atol=0)


def test_compiled() -> None:
    torch.set_default_dtype(torch.float32)
    model, x, r = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), torch.randn(4, 3), torch.randn(5, 3)
    replayed = Explainer(model, compile=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch")
        replayed.attribute(x, baselines=r)
        x, r = torch.randn(4, 3), torch.randn(5, 3)
        found = replayed.attribute(x, baselines=r)
    torch.testing.assert_close(found.values, Explainer(model).attribute(x, baselines=r).values)
    # torch.compile marks the tensors of what it compiles.
    assert not any(vars(tensor) for tensor in model.parameters())


class Scores(nn.Module):
    """Attention of more positions than features."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.head = nn.Linear(2, 6), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.into(x).chunk(3, -1)
        weights = (q @ k.transpose(1, 2) / 2**0.5).softmax(-1)
        itself = (weights * 3) @ (weights * 3)
        return self.head((weights @ v + itself @ v).flatten(1))


@pytest.mark.parametrize("name", [*MODELS, "scores"])
def test_the_graphs_that_are_compiled(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, sample = {**MODELS, "scores": (lambda: spread(Scores()), lambda n: torch.randn(n, 8, 2))}[name]
    model = build()
    monkeypatch.setattr(torch, "compile", lambda graph, **_: graph)
    eager, replayed = Explainer(model), Explainer(model, compile=True)
    for _ in range(2):
        x, r = sample(4), sample(5)
        for target in (1, None):
            same(eager.attribute(x, target, baselines=r), replayed.attribute(x, target, baselines=r))


def test_what_does_not_compile_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(graph: Any, **_: Any) -> Any:
        def fails(*_: Any) -> Any:
            raise RuntimeError("no compiler")

        return fails

    monkeypatch.setattr(torch, "compile", compile)
    model, x, r = mlp(), torch.randn(4, 6), torch.randn(5, 6)
    expected = Explainer(model).attribute(x, baselines=r)
    replayed = Explainer(model, compile=True)
    replayed.attribute(x, baselines=r)
    with pytest.warns(UserWarning, match="torch.compile does not take it .RuntimeError: no compiler.") as told:
        for _ in range(2):
            same(expected, replayed.attribute(x, baselines=r))
    assert len(told) == 1
