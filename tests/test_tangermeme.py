"""tangermeme's deep_lift_shap by ours: the same values where tangermeme's add up, and values that add up where they do not."""

import inspect
import subprocess
import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import assert_same, run, unchanged
from models import Function, spread
from torch import Tensor, nn

from deepshap_ext import UnsupportedOperationError
from deepshap_ext.tangermeme import deep_lift_shap, hypothetical_attributions

LENGTH = 24


def sequences(*shape: int) -> Tensor:
    """One-hot ``[*shape, 4, LENGTH]``."""
    return F.one_hot(torch.randint(4, (*shape, LENGTH)), 4).transpose(-1, -2).double()


def head(model: nn.Module, outputs: int = 3) -> nn.Module:
    """A model of sequences ``[n, outputs]`` from one of their features."""
    features = model.double()(sequences(1)).flatten(1).shape[1]
    return spread(nn.Sequential(model, nn.Flatten(), nn.Linear(features, outputs)).double())


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu = nn.Conv1d(4, 6, 5, padding=2), nn.ReLU()
        self.blocks = nn.ModuleList(nn.Conv1d(6, 6, 3, dilation=d, padding=d) for d in (2, 4))
        self.relus = nn.ModuleList(nn.ReLU() for _ in self.blocks)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.first(x))
        for block, relu in zip(self.blocks, self.relus, strict=True):
            h = h + relu(block(h))
        return h


SMOOTH: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.Sequential(nn.Conv1d(4, 6, 5), nn.ReLU(), nn.Conv1d(6, 5, 3), nn.ReLU()),
    "gelu, batch norm": lambda: nn.Sequential(nn.Conv1d(4, 6, 5), nn.BatchNorm1d(6), nn.GELU(), nn.AvgPool1d(3)),
    "elu, tanh": lambda: nn.Sequential(nn.Conv1d(4, 6, 5, stride=2), nn.ELU(), nn.Conv1d(6, 4, 3), nn.Tanh()),
    "dilated, residual": Residual,
}
POOLED: dict[str, Callable[[], nn.Module]] = {
    "pool": lambda: nn.Sequential(nn.Conv1d(4, 6, 5), nn.ReLU(), nn.MaxPool1d(4)),
    "two pools": lambda: nn.Sequential(
        nn.Conv1d(4, 6, 5), nn.Tanh(), nn.MaxPool1d(2), nn.Conv1d(6, 5, 3), nn.MaxPool1d(4)
    ),
}


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    return pytest.importorskip("tangermeme.deep_lift_shap", exc_type=ImportError)


@pytest.mark.parametrize("function", [deep_lift_shap, hypothetical_attributions], ids=lambda f: f.__name__)
def test_takes_what_tangermemes_takes(theirs: ModuleType, function: Callable[..., Any]) -> None:
    def parameters(one: Callable[..., Any]) -> list[Any]:
        return [(p.name, p.kind, p.default) for p in inspect.signature(one).parameters.values()]

    assert parameters(function) == parameters(getattr(theirs, function.__name__))


@pytest.mark.parametrize("returned", [{}, {"hypothetical": True}, {"raw_outputs": True}], ids=str)
@pytest.mark.parametrize("name", SMOOTH)
def test_values_are_tangermemes(theirs: ModuleType, name: str, returned: dict[str, bool]) -> None:
    model, x, references = head(SMOOTH[name]()), sequences(5), sequences(5, 7)
    options = {"references": references, "target": 1, "device": "cpu", **returned}
    assert_same(deep_lift_shap(model, x, **options), theirs.deep_lift_shap(model, x, **options), 1e-5)


@pytest.mark.parametrize("name", POOLED)
def test_contributions_behind_pools_are_tangermemes(theirs: ModuleType, name: str) -> None:
    model, x, references = head(POOLED[name]()), sequences(5), sequences(5, 7)
    ours = deep_lift_shap(model, x, references=references, device="cpu")
    assert_same(ours, theirs.deep_lift_shap(model, x, references=references, device="cpu"), 1e-5)
    hypothetical = deep_lift_shap(model, x, references=references, device="cpu", hypothetical=True)
    assert_same(hypothetical * x, ours, 1e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_hypothetical_attributions_are_tangermemes(theirs: ModuleType, dtype: torch.dtype) -> None:
    given = [(tensor.to(dtype),) for tensor in (torch.randn(6, 4, LENGTH), sequences(6), sequences(6))]
    (found,), (expected,) = hypothetical_attributions(*given), theirs.hypothetical_attributions(*given)
    assert found.dtype == expected.dtype
    assert_same(found, expected, 1e-3 if dtype == torch.float16 else 1e-15)


def test_raw_outputs_and_references_give_the_contributions() -> None:
    model, x = head(POOLED["pool"]()), sequences(4)
    options = {"references": lambda x, n: x.flip(-1)[:, None], "n_shuffles": 3, "device": "cpu"}
    raw, references = deep_lift_shap(model, x, raw_outputs=True, return_references=True, **options)
    assert raw.shape == references.shape == (4, 3, 4, LENGTH)
    pairs = hypothetical_attributions((raw.flatten(0, 1),), (x.repeat_interleave(3, 0),), (references.flatten(0, 1),))[
        0
    ]
    assert_same(pairs.unflatten(0, (4, 3)).mean(1) * x, deep_lift_shap(model, x, **options), 1e-13)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_references_are_tangermemes_for_the_same_random_state(theirs: ModuleType, batch_size: int) -> None:
    model, x = head(SMOOTH["relu"]()), sequences(4)
    options = {"n_shuffles": 3, "random_state": 5, "return_references": True, "device": "cpu"}
    ours = deep_lift_shap(model, x, batch_size=batch_size, **options)
    expected = theirs.deep_lift_shap(model, x, **options)
    assert type(ours) is type(expected)
    assert torch.equal(ours.references, expected.references)
    assert_same(ours.attributions, expected.attributions, 1e-5)


def test_a_function_draws_references_as_for_tangermeme(theirs: ModuleType) -> None:
    def references(x: Tensor, n: int, random_state: int) -> Tensor:
        assert n == 1
        places = torch.randperm(LENGTH, generator=torch.Generator().manual_seed(random_state))
        return x[:, None, :, places]

    model, x = head(SMOOTH["relu"]()), sequences(4)
    options = {"references": references, "n_shuffles": 3, "random_state": 5, "return_references": True}
    ours = deep_lift_shap(model, x, device="cpu", **options)
    assert torch.equal(ours.references, theirs.deep_lift_shap(model, x, device="cpu", **options).references)


def test_references_of_long_sequences_are_drawn_a_batch_at_a_time() -> None:
    """Pairs are computed ``batch_size`` at a time: all of them need not fit into memory."""
    drawn = []

    def references(x: Tensor, n: int) -> Tensor:
        drawn.append(len(x))
        return x.flip(-1)[:, None]

    model, x = nn.Sequential(nn.AvgPool1d(2**17), nn.Flatten(), nn.Linear(4, 1)), torch.eye(4).repeat(7, 1, 2**15)
    deep_lift_shap(model, x, references=references, n_shuffles=3, batch_size=6)
    assert drawn == [6, 6, 6, 3]


@pytest.mark.parametrize("returned", [{}, {"hypothetical": True}, {"raw_outputs": True}], ids=str)
def test_values_do_not_depend_on_the_batch_size(returned: dict[str, bool]) -> None:
    model, x, references = head(POOLED["two pools"]()), sequences(5), sequences(5, 7)
    one, *others = (
        deep_lift_shap(model, x, references=references, batch_size=size, **returned) for size in (1, 9, 1000)
    )
    for other in others:
        assert_same(other, one)


class WithArgs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.linear = nn.Conv1d(4, 3, 5), nn.ReLU(), nn.Linear(3, 2)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return self.linear(self.relu(self.conv(x) * scale.unsqueeze(2)).sum(2) + shift)


def test_args_have_a_row_a_sequence(theirs: ModuleType) -> None:
    model, x, references = WithArgs().double(), sequences(5), sequences(5, 7)
    options = {"args": (torch.rand(5, 3), torch.randint(3, (6, 1))), "references": references, "device": "cpu"}
    assert_same(deep_lift_shap(model, x, **options), theirs.deep_lift_shap(model, x, **options), 1e-5)


def test_outputs_may_have_dimensions_of_size_one_behind() -> None:
    model, x, references = head(SMOOTH["relu"]()), sequences(3), sequences(3, 4)
    longer = nn.Sequential(model, nn.Unflatten(1, (3, 1, 1)))
    assert_same(
        deep_lift_shap(longer, x, references=references, target=-1),
        deep_lift_shap(model, x, references=references, target=2),
    )


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.float16, torch.float64])
def test_sequences_of_any_dtype(dtype: torch.dtype) -> None:
    """One-hot sequences of an integer type are numbers, and no codes."""
    model, x, references = head(POOLED["pool"]()).float(), sequences(3), sequences(3, 4)
    found = deep_lift_shap(model, x.to(dtype), references=references.to(dtype))
    assert found.dtype == torch.float32
    assert_same(found, deep_lift_shap(model, x.float(), references=references.float()))


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.05), (torch.float64, 1e-6), (None, 0)])
def test_dtype_is_that_of_the_result(dtype: Any, tolerance: float) -> None:
    """With a half type the model runs under autocast, as in tangermeme."""
    model, x, references = head(SMOOTH["relu"]()).float(), sequences(3), sequences(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = deep_lift_shap(model, x, references=references, dtype=dtype)
    assert found.dtype == {"bfloat16": torch.bfloat16, None: torch.float32}.get(dtype, dtype)
    assert_same(found, deep_lift_shap(model, x, references=references).to(found.dtype), tolerance)


class Cube(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x**3


def cube(module: Any, grad_input: tuple[Tensor, ...], grad_output: tuple[Tensor, ...]) -> tuple[Tensor]:
    """``x^3 - r^3 = (x^2 + x r + r^2) (x - r)``."""
    x, r = module.input.chunk(2)
    slope = x * x + x * r + r * r
    return (grad_output[0] * torch.cat([slope, slope]),)


def gradient(module: Any, grad_input: tuple[Tensor, ...], grad_output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What does not add up."""
    assert module.input.shape == module.output.shape == grad_input[0].shape == grad_output[0].shape
    return grad_input


@pytest.mark.parametrize("returned", [{}, {"hypothetical": True}, {"raw_outputs": True}], ids=str)
@pytest.mark.parametrize(("module", "hook"), [(Cube, cube), (Cube, gradient), (nn.GELU, gradient)])
def test_additional_nonlinear_ops_are_tangermemes(
    theirs: ModuleType, module: type[nn.Module], hook: Any, returned: dict[str, bool]
) -> None:
    model = head(nn.Sequential(nn.Conv1d(4, 6, 5), module(), nn.Conv1d(6, 5, 3), module()))
    x = sequences(4)
    options = {"references": sequences(4, 5), "device": "cpu", "additional_nonlinear_ops": {module: hook}, **returned}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with unchanged(model, x):
            ours = deep_lift_shap(model, x, **options)
        assert_same(ours, theirs.deep_lift_shap(model, x, **options), 1e-5)


def test_tangermemes_own_hooks_are_such_ops(theirs: ModuleType) -> None:
    """One runs the module again, on more rows."""
    model = head(nn.Sequential(nn.Conv1d(4, 6, 5), Cube(), nn.Conv1d(6, 5, 3), nn.Softmax(1)))
    x, references = sequences(4), sequences(4, 5)
    ops = {Cube: theirs.integrated_gradients_op(4), nn.Softmax: theirs._softmax}
    ours, expected = (
        one(model, x, references=references, additional_nonlinear_ops=ops, device="cpu")
        for one in (deep_lift_shap, theirs.deep_lift_shap)
    )
    assert_same(ours, expected, 1e-5)


def test_additional_nonlinear_ops_hold_for_their_call() -> None:
    model, x, references = head(nn.Sequential(nn.Conv1d(4, 6, 5), nn.GELU())), sequences(3), sequences(3, 4)
    plain = deep_lift_shap(model, x, references=references)
    with pytest.warns(RuntimeWarning, match="Convergence deltas"):
        deep_lift_shap(model, x, references=references, additional_nonlinear_ops={nn.GELU: gradient})
    assert torch.equal(deep_lift_shap(model, x, references=references), plain)


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv1d(4, 4, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(self.relu(self.conv(x))))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.transpose(1, 2))[0]


UNHOOKED: dict[str, Callable[[], nn.Module]] = {
    "functions": lambda: Function(lambda self, x: F.relu(self.conv(x)).amax(2), conv=nn.Conv1d(4, 6, 5)),
    "products": lambda: Function(
        lambda self, x: self.a(x) * self.b(x).sigmoid(), a=nn.Conv1d(4, 6, 5), b=nn.Conv1d(4, 6, 5)
    ),
    "reused, in place": Reused,
    "overlapping pool": lambda: nn.Sequential(nn.Conv1d(4, 6, 5), nn.ReLU(), nn.MaxPool1d(5, 2)),
    "adaptive pool": lambda: nn.Sequential(nn.Conv1d(4, 6, 5), nn.AdaptiveMaxPool1d(3)),
    "group norm, hardswish": lambda: nn.Sequential(nn.Conv1d(4, 6, 5), nn.GroupNorm(2, 6), nn.Hardswish()),
    "lstm": Recurrent,
    "attention": lambda: nn.Sequential(
        nn.Conv1d(4, 8, 5), nn.Flatten(2), nn.TransformerEncoderLayer(20, 2, 16, batch_first=True, dropout=0)
    ),
    "no rule": lambda: nn.Sequential(nn.Conv1d(4, 6, 5), Function(lambda h: torch.polygamma(2, h + 99))),
}


@pytest.mark.parametrize("name", UNHOOKED)
def test_values_add_up_whatever_the_model_is_written_with(name: str) -> None:
    model, x, references = head(UNHOOKED[name]()), sequences(4), sequences(4, 5)
    with unchanged(model, x, references):
        values = deep_lift_shap(model, x, target=2, references=references)
    outputs, expected = run(model, x)[:, 2], run(model, references.flatten(0, 1))[:, 2].view(4, 5).mean(1)
    difference = outputs - expected
    assert (values.sum((1, 2)) - difference).abs().max() <= 1e-10 * difference.abs().max()
    assert not values[x == 0].any()


def test_model_is_put_back() -> None:
    model, x, references = head(POOLED["pool"]()).train(), sequences(3), sequences(3, 4)
    with unchanged(model, x, references):
        deep_lift_shap(model, x, references=references)
        with pytest.raises(RuntimeError, match="on purpose"):
            deep_lift_shap(Function(lambda self, x: failing(self.model(x)), model=model), x, references=references)
    assert model.training


def failing(x: Tensor) -> Tensor:
    raise RuntimeError("on purpose")


@pytest.mark.parametrize(("threshold", "part"), [(1e-9, "60 of 60 are above 1e-09"), (1e9, "% of the output diff")])
def test_convergence_deltas_that_are_too_high_are_warned_of(threshold: float, part: str) -> None:
    model, x, references = head(nn.Sequential(nn.Conv1d(4, 6, 5), nn.GELU())), sequences(10), sequences(10, 6)
    with pytest.warns(RuntimeWarning, match=f"Convergence deltas too high: .*{part}") as found:
        deep_lift_shap(
            model,
            x,
            references=references,
            warning_threshold=threshold,
            additional_nonlinear_ops={nn.GELU: gradient},
        )
    assert [warning.filename for warning in found] == [__file__]


def test_convergence_deltas_are_printed_for_each_pair(capsys: pytest.CaptureFixture[str]) -> None:
    model, x, references = head(SMOOTH["relu"]()), sequences(3), sequences(3, 4)
    deep_lift_shap(model, x, references=references, batch_size=8, print_convergence_deltas=True)
    printed = capsys.readouterr().out
    assert printed.count("tensor") == 2 and printed.count("e-") + printed.count("0.") >= 12


def test_verbose_shows_a_bar_of_pairs(capsys: pytest.CaptureFixture[str]) -> None:
    model, x, references = head(SMOOTH["relu"]()), sequences(3), sequences(3, 4)
    deep_lift_shap(model, x, references=references, verbose=True)
    assert "12/12" in capsys.readouterr().err


X, REFERENCES = sequences(4), sequences(4, 3)
WRONG: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "no tensor": (X.numpy(), {}, ValueError, "X must be a tensor, got array of dtype float64"),
    "one sequence": (X[0], {}, ValueError, r"X must have shape \[..., ..., ...\], got .*\[4, 24\]"),
    "none": (X[:0], {"references": REFERENCES[:0]}, ValueError, "X must be one or more sequences.*, got 0 with 3"),
    "twice one-hot": (2 * X, {}, ValueError, "X must be one-hot in every position"),
    "unknown character": (X * (torch.arange(LENGTH) > 0), {}, ValueError, "X must be one-hot in every position"),
    "fewer references": (
        X,
        {"references": REFERENCES[:3]},
        ValueError,
        r"references must have shape \[4, ..., 4, 24\], got",
    ),
    "shared references": (X, {"references": REFERENCES[0]}, ValueError, r"references must have shape .*\[3, 4, 24\]"),
    "soft references": (X, {"references": REFERENCES / 4}, ValueError, "references must be one-hot or zero"),
    "no shuffles": (X, {"references": lambda x, n: x, "n_shuffles": 0}, ValueError, "got 4 with 0"),
    "few args": (X, {"args": (torch.ones(4), torch.ones(3))}, IndexError, r"args\[1\] must have a row .*4.*, got 3"),
    "target": (X, {"target": 3}, IndexError, "target must be an index into 3 outputs, got 3"),
    "batch size": (X, {"batch_size": 0}, ValueError, "batch_size must be None or a positive integer, got 0"),
    "model": (X, {"model": len}, TypeError, "model must be a torch.nn.Module, got <built-in function len>"),
    "complex": (X.to(torch.complex64), {}, TypeError, "X must be real, got torch.complex64"),
    "sparse": (X.to_sparse(), {}, TypeError, "X must be a dense tensor, got layout torch.sparse_coo"),
    "an index of no integer": (X, {"target": 1.0}, TypeError, r"target must be an integer, got 1\.0"),
    "number of shuffles": (X, {"references": len, "n_shuffles": 2.5}, TypeError, "n_shuffles must be an integer"),
    "seed": (X, {"random_state": [1, 2]}, TypeError, r"random_state must be an integer, got \[1, 2\]"),
    "args": (X, {"args": torch.ones(4)}, TypeError, "args must be a tuple of tensors, got tensor"),
    "a number in args": (
        X,
        {"args": (3,)},
        TypeError,
        r"args\[0\] must be a tensor with a row for each of 4 .*, got 3",
    ),
    "threshold": (X, {"warning_threshold": "low"}, TypeError, "warning_threshold must be a number, got 'low'"),
    "flag": (X, {"hypothetical": "no"}, TypeError, "hypothetical must be True or False, got 'no'"),
    "dtype": (X, {"dtype": torch.int8}, TypeError, "dtype must be None, or a floating-point dtype .*, got torch.int8"),
    "name of a dtype": (X, {"dtype": "single"}, TypeError, "dtype must be None, .*, got 'single'"),
    "device": (X, {"device": "nowhere"}, ValueError, "device must be one that this machine has, got 'nowhere'"),
    "device of no values": (X, {"device": "meta"}, ValueError, "device must hold values, got 'meta'"),
    "ops": (X, {"additional_nonlinear_ops": [nn.ReLU]}, TypeError, "additional_nonlinear_ops must be a dict of hooks"),
    "class of ops": (
        X,
        {"additional_nonlinear_ops": {"ReLU": len}},
        TypeError,
        "a key must be a class of modules, got",
    ),
    "hook": (X, {"additional_nonlinear_ops": {nn.ReLU: 3}}, TypeError, r"ops\[ReLU\] must be a function hook\(.*got 3"),
    "hook's result": (
        X,
        {"additional_nonlinear_ops": {nn.ReLU: lambda *hooked: (torch.ones(1),)}},
        TypeError,
        r"the hook of ReLU must return None, or multipliers of shape \[.*\] in a tuple of one, got",
    ),
    "drawn shape": (
        X,
        {"references": lambda x, n: x, "n_shuffles": 2},
        ValueError,
        r"references must return finite numbers, a tensor of shape \[8, 1, 4, 24\], got .*\[8, 4, 24\]",
    ),
    "drawn numbers": (
        X,
        {"references": lambda x, n: x[:, None] / 0, "n_shuffles": 2},
        ValueError,
        "references must return finite numbers, .* got (inf|nan) among them",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_named(name: str) -> None:
    x, options, error, message = WRONG[name]
    model = head(SMOOTH["relu"]())
    with unchanged(model), pytest.raises(error, match=message):
        deep_lift_shap(**{"model": model, "X": x, "references": REFERENCES, **options})


def test_a_model_on_no_device_is_refused() -> None:
    model = head(SMOOTH["relu"]())
    model[-1].to("meta")
    with pytest.raises(ValueError, match=r"model must have its parameters .*, got \['cpu', 'meta'\]"):
        deep_lift_shap(model, X, references=REFERENCES)
    assert model[0][0].weight.device.type == "cpu"


def test_a_hook_that_returns_nothing_leaves_the_gradient() -> None:
    model = head(SMOOTH["relu"]())
    given = {"references": REFERENCES, "warning_threshold": 1e9}
    with pytest.warns(RuntimeWarning, match="Convergence deltas"):
        found = deep_lift_shap(model, X, additional_nonlinear_ops={nn.ReLU: lambda *hooked: None}, **given)
    with pytest.warns(RuntimeWarning, match="Convergence deltas"):
        expected = deep_lift_shap(model, X, additional_nonlinear_ops={nn.ReLU: gradient}, **given)
    assert_same(found, expected, 1e-13)


def test_an_error_of_a_hooks_own_is_raised_as_it_is() -> None:
    with pytest.raises(KeyError, match="mine"):
        deep_lift_shap(
            head(SMOOTH["relu"]()), X, references=REFERENCES, additional_nonlinear_ops={nn.ReLU: _raise_mine}
        )


def _raise_mine(*hooked: Any) -> None:
    raise KeyError("mine")


def test_outputs_of_several_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model must return \[batch, outputs\], got \['batch', 6, 20\]"):
        deep_lift_shap(nn.Conv1d(4, 6, 5).double(), X, references=REFERENCES)


def test_ops_are_of_modules_that_take_one_tensor() -> None:
    class Add(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    model = head(Function(lambda self, x: self.add(x, x), add=Add()))
    with pytest.raises(UnsupportedOperationError, match=r"Add in 0\.add has a hook for its rule.*, got 2"):
        deep_lift_shap(model, X, references=REFERENCES, additional_nonlinear_ops={Add: gradient})


@pytest.mark.parametrize("name", ["X", "references"])
def test_only_warn_explains_what_is_not_one_hot(theirs: ModuleType, name: str) -> None:
    model = head(SMOOTH["relu"]())
    given = {"X": X, "references": REFERENCES}
    given[name] = given[name] * 0.5
    with pytest.warns(theirs.__dict__["_validate_input"].__globals__["TangermemeWarning"], match=f"{name} must be"):
        ours = deep_lift_shap(model, **given, only_warn=True, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = theirs.deep_lift_shap(model, **given, only_warn=True, device="cpu")
    assert_same(ours, expected, 1e-5)


def test_packed_sequences(theirs: ModuleType) -> None:
    packed = theirs.PackedSequence.from_one_hot
    model = head(SMOOTH["relu"]())
    expected = deep_lift_shap(model, X, references=REFERENCES)
    found = deep_lift_shap(model, packed(X), references=packed(REFERENCES), batch_size=6, return_references=True)
    assert torch.equal(found.attributions, expected)
    assert torch.equal(found.references.to_one_hot(), REFERENCES)
    drawn = deep_lift_shap(model, packed(X), n_shuffles=2, random_state=0, return_references=True)
    plain = deep_lift_shap(model, X, n_shuffles=2, random_state=0, return_references=True)
    assert torch.equal(drawn.references.to_one_hot(), plain.references)
    soft = {"references": lambda x, n: torch.full_like(x, 0.25)[:, None], "return_references": True}
    assert (deep_lift_shap(model, packed(X), **soft).references == 0.25).all()


def test_tangermemes_functions_keep_sequences_packed(theirs: ModuleType) -> None:
    marginalize = pytest.importorskip("tangermeme.marginalize").marginalize
    model, packed = head(SMOOTH["relu"]()), theirs.PackedSequence.from_one_hot(X)
    options = {"func": deep_lift_shap, "random_state": 0, "n_shuffles": 2, "return_references": True, "device": "cpu"}
    found, plain = (marginalize(model, x, "GATA", **options) for x in (packed, X))
    for one, other in zip(found, plain, strict=True):
        assert isinstance(one.references, theirs.PackedSequence)
        assert torch.equal(one.references.to_one_hot().to(other.references.dtype), other.references)
        assert torch.equal(one.attributions, other.attributions)


def test_needs_no_tangermeme_where_references_are_given() -> None:
    script = """
import sys
sys.modules["tangermeme"] = None
import torch
from torch import nn
from deepshap_ext.tangermeme import deep_lift_shap
x = torch.eye(4)[None]
model = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
found = deep_lift_shap(model, x, references=x.flip(2)[:, None], return_references=True)
print(torch.equal(found.references[:, 0], x.flip(2)), found.attributions.shape)
try:
    deep_lift_shap(model, x)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    worked, refused = done.stdout.splitlines()
    assert worked == "True torch.Size([1, 4, 4])"
    assert refused.startswith("references must be given, a tensor or a function, where tangermeme is not installed")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_gives_cpu_tensors() -> None:
    model = head(POOLED["pool"]())
    on_gpu, on_cpu = (
        deep_lift_shap(model, X, references=REFERENCES, return_references=True, device=device)
        for device in ("cuda", "cpu")
    )
    assert on_gpu.attributions.device.type == on_gpu.references.device.type == "cpu"
    assert next(model.parameters()).device.type == "cpu"
    assert_same(on_gpu.attributions, on_cpu.attributions, 1e-10)
