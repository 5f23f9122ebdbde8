"""Bad input gets an error that names argument, contract and value, and changes nothing."""

from typing import Any

import numpy as np
import pytest
import torch
from checks import unchanged
from models import Body, Function, Skip, TwoInputs, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, ExplanationError, UnsupportedOperationError


@pytest.mark.parametrize(
    ("background", "error", "message"),
    [
        (torch.zeros(0, 6), ValueError, r"^data must have at least one sample, got shape \[0, 6\]"),
        ([], ValueError, r"^data must have at least one tensor, got an empty list"),
        (torch.tensor(1.0), ValueError, r"^data must have shape \[samples, \.\.\.\]"),
        (torch.full((3, 6), torch.nan), ValueError, r"^data must be finite, got nan at index \[0, 0\]"),
        (
            torch.zeros(3, 6).index_put_((torch.tensor(2), torch.tensor(4)), torch.tensor(torch.inf)),
            ValueError,
            r"inf at index \[2, 4\]",
        ),
        # Neither as they are nor as numbers.
        (torch.zeros(3, 5, dtype=torch.int64), ExplanationError, r"does not run on data .* given int64 \[3, 5\]; .*"),
        (torch.zeros(3, 6, dtype=torch.complex64), TypeError, r"^data must be real, got torch\.complex64"),
        (torch.zeros(3, 6, device="meta"), ValueError, r"^data is on the meta device"),
        (
            torch.zeros(3, 6).to_sparse(),
            TypeError,
            r"^data must be a dense tensor, got layout torch\.sparse_coo: pass data\.to_dense\(\)$",
        ),
        ("text", TypeError, r"^data must be a torch tensor or a numpy array, got str"),
        (None, TypeError, r"^data must be a torch tensor or a numpy array, got NoneType"),
        (np.array([["a"]]), TypeError, r"^data must hold numbers, got a numpy array of dtype"),
        (
            [torch.zeros(3, 6), torch.zeros(2, 6)],
            ValueError,
            r"^data: all inputs must have the same number of samples, got \[3, 2\]",
        ),
        ([torch.zeros(3, 6), None], TypeError, r"^data\[1\] must be a torch tensor or a numpy array, got NoneType"),
    ],
)
def test_bad_background(background: Any, error: type[Exception], message: str) -> None:
    model = spread(Skip())
    with unchanged(model), pytest.raises(error, match=message):
        DeepExplainer(model, background)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(0, 6), ValueError, r"^X must have at least one sample, got shape \[0, 6\]"),
        (torch.zeros(2, 5), ValueError, r"^X must have shape \[samples, 6\] like the background, got \[2, 5\]"),
        (
            torch.zeros(6),
            ValueError,
            r"^X must have shape \[samples, 6\] like the background, got \[6\]: one sample is X\[None\]",
        ),
        (torch.zeros(2, 1, 6), ValueError, r"^X must have shape \[samples, 6\] like the background, got \[2, 1, 6\]"),
        (
            torch.full((2, 6), 1e300, dtype=torch.float64),
            ValueError,
            r"^X must fit into torch\.float32, which the model takes, got 1e\+300 at index \[0, 0\]$",
        ),
        (torch.zeros(2, 6).long(), TypeError, r"dtype torch\.float32, got torch\.int64: pass X\.float\(\)$"),
        (np.zeros((2, 6), int), TypeError, r"dtype torch\.float32, got torch\.int64: pass X\.astype\(float\)$"),
        (torch.full((2, 6), -torch.inf), ValueError, r"^X must be finite, got -inf at index \[0, 0\]"),
        (torch.full((2, 6), torch.nan), ValueError, r"^X must be finite, got nan at index"),
        (torch.zeros(2, 6, device="meta"), ValueError, r"^X is on the meta device"),
        ([torch.zeros(2, 6)], TypeError, r"^X must be a tensor or an array, as the background is, got a list"),
        ("text", TypeError, r"^X must be a torch tensor or a numpy array, got str"),
        (None, TypeError, r"^X must be a torch tensor or a numpy array, got NoneType"),
    ],
)
@pytest.mark.parametrize("method", ["attribute", "shap_values"])
def test_bad_inputs(x: Any, error: type[Exception], message: str, method: str) -> None:
    model = spread(Skip())
    explainer = DeepExplainer(model, torch.randn(3, 6))
    with unchanged(model), pytest.raises(error, match=message):
        getattr(explainer, method)(x)
    assert explainer.attribute(torch.randn(2, 6)).values.shape == (2, 6, 3)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(2, 2, 8), TypeError, r"^X must be a list of 2 inputs, as the background is, got Tensor"),
        ([torch.zeros(2, 2, 8)], ValueError, r"^X: the background has 2 input\(s\), got 1"),
        ([torch.zeros(2, 2, 8)] * 3, ValueError, r"^X: the background has 2 input\(s\), got 3"),
        ([torch.zeros(2, 2, 8), torch.zeros(2, 5)], ValueError, r"^X\[1\] must have shape \[samples, 4\]"),
        ([torch.zeros(2, 2, 8), torch.zeros(3, 4)], ValueError, r"same number of samples, got \[2, 3\]"),
        ([torch.zeros(2, 2, 8), torch.full((2, 4), torch.nan)], ValueError, r"^X\[1\] must be finite, got nan"),
        ([torch.zeros(2, 2, 8), torch.zeros(2, 4, device="meta")], ValueError, r"^X\[1\] is on the meta device"),
    ],
)
def test_bad_lists_of_inputs(x: Any, error: type[Exception], message: str) -> None:
    model = spread(TwoInputs())
    explainer = DeepExplainer(model, [torch.randn(3, 2, 8), torch.randn(3, 4)])
    with unchanged(model), pytest.raises(error, match=message):
        explainer.attribute(x)


@pytest.mark.parametrize(
    ("baselines", "error", "message"),
    [
        (
            torch.zeros(3, 5),
            ValueError,
            r"^baselines must have shape \[baselines, 6\] like X, got \[3, 5\]$",
        ),
        (
            torch.zeros(6),
            ValueError,
            r"^baselines must have shape \[baselines, 6\] or \[samples, baselines, 6\] \(.*\), got \[6\]$",
        ),
        (
            torch.zeros(3, 2, 6),
            ValueError,
            r"^baselines must have shape \[2, baselines, \.\.\.\] for 2 samples, got \[3, 2, 6\]",
        ),
        (torch.zeros(2, 0, 6), ValueError, r"^baselines must have shape \[2, baselines, \.\.\.\] .* got \[2, 0, 6\]"),
        (
            torch.zeros(2, 3, 6).int(),
            TypeError,
            r"^baselines must be of X's dtype .* baselines\.float\(\)$",
        ),
        (torch.full((2, 3, 6), torch.nan), ValueError, r"^baselines must be finite, got nan at index \[0, 0, 0\]"),
        (
            [torch.zeros(2, 3, 6)],
            TypeError,
            r"^baselines must be a list of tensors exactly where X is one",
        ),
    ],
)
def test_bad_baselines(baselines: Any, error: type[Exception], message: str) -> None:
    model = spread(Skip())
    explainer = DeepExplainer(model, torch.randn(3, 6))
    with unchanged(model), pytest.raises(error, match=message):
        explainer.attribute(torch.ones(2, 6), baselines=baselines)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (lambda x: x, TypeError, r"^model must be a torch\.nn\.Module or the pair \(model, layer\), got function"),
        (None, TypeError, r"^model must be .*, got NoneType"),
        ((nn.ReLU(),), TypeError, r"^model must be .* got a tuple of 1"),
        ((nn.ReLU(), nn.ReLU(), nn.ReLU()), TypeError, r"^model must be .* got a tuple of 3"),
        ((nn.ReLU(), 3), TypeError, r"^layer must be a torch\.nn\.Module inside the model or its name, got 3"),
        (("model", nn.ReLU()), TypeError, r"^model must be .*, got str"),
        ((nn.Sequential(nn.ReLU()), nn.Tanh()), ValueError, r"^layer must be a module inside the model, got a Tanh"),
        (nn.Linear(6, 2, device="meta"), ValueError, r"^model: its parameters are on the meta device"),
        (
            nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 2, device="meta")),
            ValueError,
            r"^model: all parameters and buffers must be on one device, got \['cpu', 'meta'\]",
        ),
    ],
)
def test_bad_model(model: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DeepExplainer(model, torch.randn(3, 6))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("how", ["script", "trace", "inside"])
def test_torchscript_model_is_named(how: str) -> None:
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU())
    model: Any = torch.jit.script(net) if how == "script" else torch.jit.trace(net, torch.zeros(1, 6))
    name = "model is"
    if how == "inside":
        model, name = nn.Sequential(model, nn.Linear(4, 2)), r"model\.0 is"
    with pytest.raises(TypeError, match=rf"^{name} a TorchScript module"):
        DeepExplainer(model, torch.randn(3, 6))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"additivity_tolerance": 0}, ValueError, r"^additivity_tolerance must be a positive finite number, got 0"),
        (
            {"additivity_tolerance": float("nan")},
            ValueError,
            r"^additivity_tolerance must be a positive finite number, got nan",
        ),
        ({"max_memory": 0}, ValueError, r"^max_memory must be a positive number of bytes, got 0"),
        ({"max_memory": -5}, ValueError, r"^max_memory must be a positive number of bytes, got -5"),
        ({"output": 1.5}, TypeError, r"^output must be None, a key, a position or a function .* got 1\.5"),
        ({"output": True}, TypeError, r"^output must be .* got True"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    model = spread(Skip())
    with unchanged(model), pytest.raises(error, match=message):
        DeepExplainer(model, torch.ones(3, 6), **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"output_rank_order": "best"},
            ValueError,
            r"^output_rank_order must be one of 'max', 'min', 'max_abs', got 'best'",
        ),
        ({"ranked_outputs": 0}, ValueError, r"^ranked_outputs must be between 1 and the number of outputs, 3, got 0"),
        ({"ranked_outputs": 4}, ValueError, r"^ranked_outputs must be between 1 and the number of outputs, 3, got 4"),
        ({"ranked_outputs": -1}, ValueError, r"^ranked_outputs must be between 1"),
        ({"ranked_outputs": 1.0}, TypeError, r"^ranked_outputs must be None or an integer, got 1\.0"),
        ({"ranked_outputs": True}, TypeError, r"^ranked_outputs must be None or an integer, got True"),
    ],
)
def test_bad_rank(options: dict[str, Any], error: type[Exception], message: str) -> None:
    model = spread(Skip())
    explainer = DeepExplainer(model, torch.randn(3, 6))
    with unchanged(model), pytest.raises(error, match=message):
        explainer.shap_values(torch.ones(2, 6), **options)


def test_bad_pairing() -> None:
    with pytest.raises(ValueError, match=r"^pairing must be one of 'grid', 'aligned', got 'all'"):
        DeepExplainer(spread(Skip()), torch.randn(3, 6)).attribute(torch.randn(2, 6), pairing="all")


class Twice(Skip):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(self.layer(self.first(x))))


class Never(Skip):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x))


class Constant(Skip):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x) + self.layer(torch.ones(1, 5)))


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Twice, r"layer 'layer' runs 2 times in one forward pass"),
        (Never, r"layer 'layer' did not run in the model's forward pass"),
        (Constant, r"layer 'layer' has no floating-point input tensor that depends on the model's inputs"),
    ],
)
def test_bad_layer(net: type[Skip], message: str) -> None:
    model = spread(net())
    background = torch.randn(3, 6)
    with unchanged(model, background), pytest.raises(ExplanationError, match=message):
        DeepExplainer((model, model.layer), background).attribute(torch.ones(2, 6))


def test_layer_that_does_not_lead_to_the_output_has_no_part_in_it() -> None:
    class Unused(Skip):
        def forward(self, x: Tensor) -> Tensor:
            self.layer(self.first(x))
            return self.head(self.first(x))

    model = spread(Unused())
    explainer = DeepExplainer((model, model.layer), torch.randn(3, 6))
    with pytest.warns(UserWarning, match=r"past the explained layer"):
        assert not explainer.attribute(torch.randn(2, 6)).values.any()


def test_layer_that_is_bypassed_warns() -> None:
    """Part of the output comes from the input past the layer."""

    class Bypassed(Skip):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.layer(self.first(x)) + x[:, :5])

    model = spread(Bypassed())
    explainer = DeepExplainer((model, model.layer), torch.randn(3, 6))
    with pytest.warns(UserWarning, match=r"past the explained layer"):
        explainer.attribute(torch.randn(2, 6))


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda x: x.sum(), ExplanationError, r"must have shape \[2, \.\.\.\] for 2 samples, got \[\]"),
        (lambda x: x.mean(0), ExplanationError, r"must have shape \[2, \.\.\.\] for 2 samples, got \[6\]"),
        (lambda x: x.argmax(1), ExplanationError, r"must be of a floating-point dtype, got torch\.int64"),
        (lambda x: (x > 0).sum(1), ExplanationError, r"must be of a floating-point dtype, got torch\.int64"),
        (lambda x: (x > 0).float(), UnsupportedOperationError, r"from what is explained by decisions only"),
        (lambda x: torch.zeros(len(x), 2), UnsupportedOperationError, r"does not depend on it"),
        (lambda x: torch.fft.fft(x), ExplanationError, r"must be of a floating-point dtype, got torch\.complex64"),
        (lambda x: "text", ValueError, r"the model returns str: say what to explain with output="),
        (lambda x: None, ValueError, r"the model returns NoneType: say what to explain"),
        (
            lambda x: (x, x),
            ValueError,
            r"the model returns tuple of \['Tensor', 'Tensor'\] at positions 0 to 1: say what to explain with output=",
        ),
        (lambda x: {"a": x, "b": x}, ValueError, r"dict with the keys \['a', 'b'\]: say what to explain with output="),
    ],
)
def test_bad_output(function: Any, error: type[Exception], message: str) -> None:
    model = Function(function)
    background = torch.randn(3, 6)
    with unchanged(model, background), pytest.raises(error, match=message):
        DeepExplainer(model, background)


@pytest.mark.parametrize("output", ["b", 2, -3, lambda y: y["b"]])
def test_output_that_is_not_there(output: Any) -> None:
    model = Function(lambda x: {"a": x, "c": x} if isinstance(output, str) or callable(output) else (x, x))
    with (
        unchanged(model),
        pytest.raises((ValueError, KeyError), match=r"output=.* is not in what the model returns|'b'"),
    ):
        DeepExplainer(model, torch.ones(3, 6), output=output)


def test_output_that_is_no_tensor() -> None:
    with pytest.raises(TypeError, match=r"output must select a tensor from what the model returns, got list"):
        DeepExplainer(Function(lambda x: [[x], x]), torch.randn(3, 6), output=0)


def test_error_in_the_models_forward_is_the_cause() -> None:
    def fail(x: Tensor) -> Tensor:
        raise KeyError("mine")

    model = spread(Body(fail)).train()
    with (
        unchanged(model),
        pytest.raises(ExplanationError, match=r"does not run on data \(KeyError: 'mine'\)") as raised,
    ):
        DeepExplainer(model, torch.ones(3, 6))
    assert isinstance(raised.value.__cause__, KeyError)


@pytest.mark.parametrize(("head", "now"), [(nn.Linear(4, 7), 7), (nn.Linear(4, 1), 1)])
def test_a_model_whose_outputs_are_others_than_the_explainers(head: nn.Module, now: int) -> None:
    model, x = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(3, 6)
    explainer = DeepExplainer(model, torch.randn(5, 6))
    model[2] = head
    message = rf"had outputs of shape \[2\] when the explainer was made, and has outputs of shape \[{now}\] now: make an explainer"
    for explain in (explainer.attribute, explainer.shap_values, lambda _: explainer.expected_value):
        with unchanged(model), pytest.raises(ExplanationError, match=message):
            explain(x)
    assert DeepExplainer(model, torch.randn(5, 6)).shap_values(x).shape == (3, 6, now)


@pytest.mark.parametrize("at", ["input", "output"])
def test_a_layer_that_is_in_the_model_no_more(at: str) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2))
    layer, x = model[1], torch.randn(3, 6)
    explainer = DeepExplainer((model, layer), torch.randn(5, 6), at=at)
    model[1] = nn.ReLU()
    with (
        unchanged(layer),
        pytest.raises(ExplanationError, match="the explained layer, a Tanh, is not in the model any more"),
    ):
        explainer.attribute(x)
