"""Whatever holds the numbers gives the plain tensor's values, or an error that names the argument and a way that works."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from checks import assert_same, unchanged
from models import Function, Skip, Tokens, TwoInputs, spread
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from deepshap_ext import Attribution, DeepExplainer, ExplanationError

X, BACKGROUND = torch.randn(2, 6), torch.randn(3, 6)
DOUBLES = X.double().numpy()


class Image(Tensor):
    """A subclass of tensors, as torchvision, MONAI and fastai have them."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.detach:
            raise RuntimeError("metadata is gone")
        return super().__torch_function__(function, types, args, kwargs)


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return spread(Skip()).to(dtype)


def inference(tensor: Tensor) -> Tensor:
    with torch.inference_mode():
        return tensor.clone()


def read_only(tensor: Tensor) -> np.ndarray[Any, Any]:
    array = tensor.numpy().copy()
    array.setflags(write=False)
    return array


KINDS: dict[str, Callable[[Tensor], Any]] = {
    "subclass": lambda t: t.as_subclass(Image),
    "parameter": nn.Parameter,
    "requires_grad": lambda t: t.clone().requires_grad_(),
    "not_contiguous": lambda t: t.t().contiguous().t(),
    "negative_view": lambda t: torch.view_as_complex(torch.stack([t, -t], -1)).conj().imag,
    "inference_tensor": inference,
    "float64_tensor": Tensor.double,
    "read_only": read_only,
    "float64_array": lambda t: t.double().numpy(),
    "longdouble": lambda t: t.numpy().astype(np.longdouble),
    "big_endian": lambda t: t.numpy().astype(">f4"),
    "masked_nowhere": lambda t: np.ma.masked_array(t.numpy(), mask=False),
    "reversed": lambda t: t.flip(1).numpy()[:, ::-1],
}


@pytest.mark.parametrize("convert", KINDS.values(), ids=KINDS.keys())
def test_values_are_those_of_the_plain_tensors(convert: Callable[[Tensor], Any]) -> None:
    model = net()
    expected = DeepExplainer(model, BACKGROUND).attribute(X, 1)
    own = torch.randn(2, 4, 6)
    given = [convert(X), convert(BACKGROUND)]
    for x, background in ((X, given[1]), (given[0], BACKGROUND), given):
        found = DeepExplainer(model, background).attribute(x, 1)
        assert type(found.values) is Tensor and torch.equal(found.values, expected.values)
    if isinstance(given[0], Tensor):
        explainer = DeepExplainer(model, BACKGROUND)
        assert torch.equal(explainer.attribute(X, baselines=convert(own.flatten(0, 1)).unflatten(0, (2, 4))).values,
                           explainer.attribute(X, baselines=own).values)  # fmt: skip


def test_rows_of_a_subclass_as_keyword_arguments() -> None:
    model = Function(lambda x, a: x.tanh() * a)
    forward = type("Scaled", (nn.Module,), {"forward": lambda self, x, *, a: model(x, a)})()
    explainer = DeepExplainer(forward, BACKGROUND, sample_kwargs={"a": BACKGROUND.as_subclass(Image)})
    plain = DeepExplainer(forward, BACKGROUND, sample_kwargs={"a": BACKGROUND})
    assert torch.equal(
        explainer.attribute(X, sample_kwargs={"a": nn.Parameter(X)}).values,
        plain.attribute(X, sample_kwargs={"a": X}).values,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("given", [torch.float16, torch.float32, torch.float64])
def test_inputs_follow_the_models_dtype(dtype: torch.dtype, given: torch.dtype) -> None:
    model, x, background = net(dtype), X.to(given), BACKGROUND.to(given)
    found = DeepExplainer(model, background).attribute(x, 0, check_additivity=False)
    same = DeepExplainer(model, background.to(dtype)).attribute(x.to(dtype), 0, check_additivity=False)
    assert torch.equal(found.values, same.values)


def test_inputs_in_another_parameters_dtype_stay() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.Linear(5, 2), nn.Linear(6, 5).double()

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).float().tanh())

    assert DeepExplainer(Mixed(), BACKGROUND.double()).attribute(X).values.dtype == torch.float64


def test_samples_follow_the_background_of_a_model_without_parameters() -> None:
    explainer = DeepExplainer(Function(lambda x: x.tanh()), BACKGROUND.double())
    assert torch.equal(explainer.attribute(DOUBLES).values, explainer.attribute(torch.from_numpy(DOUBLES)).values)


def fake() -> Tensor:
    with FakeTensorMode():
        return torch.zeros(3, 6)


class Dataset(torch.utils.data.Dataset[Tensor]):
    def __getitem__(self, index: int) -> Tensor:
        return BACKGROUND[index]


CSR = type("csr_matrix", (), {"__module__": "scipy.sparse._csr"})

REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "fake": (fake, TypeError, "must be a plain tensor, got a FakeTensor"),
    "jagged": (
        lambda: torch.nested.nested_tensor([X[0], X[1]], layout=torch.jagged),
        TypeError,
        "must be a plain tensor, got a NestedTensor, .* to_padded_tensor",
    ),
    "quantized": (
        lambda: torch.quantize_per_tensor(BACKGROUND, 0.1, 0, torch.qint8),
        TypeError,
        r"must hold plain numbers, got torch.qint8: pass data\.dequantize\(\)",
    ),
    "float8": (lambda: BACKGROUND.to(torch.float8_e4m3fn), TypeError, r"float8_e4m3fn.*: pass data\.float\(\)"),
    "sparse": (lambda: BACKGROUND.to_sparse_csr(), TypeError, r"got layout torch\.sparse_csr: pass data\.to_dense\(\)"),
    "too_large": (lambda: BACKGROUND.double() * 1e300, ValueError, r"must fit into torch\.float32, which the model takes, got"),
    "masked": (
        lambda: np.ma.masked_array(DOUBLES, mask=DOUBLES > 0),
        ValueError,
        r"got \d+ masked entries, the first at index \[0, \d\]: fill them with data\.filled",
    ),
    "complex_array": (lambda: DOUBLES + 1j, TypeError, "must be real, got complex128"),
    "structured": (lambda: np.zeros(3, [("a", float)]), TypeError, "structured_to_unstructured"),
    "objects": (lambda: DOUBLES.astype(object), TypeError, r"dtype object: pass data\.astype\(float\)"),
    "dates": (lambda: np.zeros((3, 6), "M8[s]"), TypeError, r"must hold numbers, .* dtype datetime64"),
    "lists": (lambda: BACKGROUND.tolist(), TypeError, r"^data\[0\] .* got list: .* torch\.tensor\(data\)"),
    "numbers": (lambda: [1.0, 2.0], TypeError, r"^data\[0\] .* got float: .* torch\.tensor\(data\)"),
    "number": (lambda: 3, TypeError, "^data must be a torch tensor or a numpy array, got int$"),
    "scipy": (CSR, TypeError, r"got csr_matrix: pass data\.toarray\(\)"),
    "dict": (lambda: {"a": X, "b": X}, TypeError, "got dict: pass a list of tensors in the order .* or wrap the model"),
    "loader": (lambda: torch.utils.data.DataLoader(Dataset()), TypeError, r"got DataLoader: .* torch\.cat"),
    "dataset": (Dataset, TypeError, r"got Dataset: .* torch\.stack"),
    "like_an_array": (
        type("Jax", (), {"__array__": lambda self: DOUBLES}),
        TypeError,
        r"got Jax: pass numpy\.asarray\(data\)",
    ),
    "graph": (lambda: [torch.zeros(12, 6), torch.zeros(2, 30)], ValueError, r"edges, goes into kwargs, .* nodes\[None\]"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning", "ignore:.*quantiz")
@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refused_by_name(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    model = net()
    with unchanged(model), pytest.raises(error, match=message) as raised:
        DeepExplainer(model, make())
    assert str(raised.value).startswith("data")


@pytest.mark.skipif(not hasattr(Tensor, "rename"), reason="this torch has no named tensors")
@pytest.mark.filterwarnings("ignore:Named tensors")
def test_named_tensors_are_refused() -> None:
    with pytest.raises(TypeError, match=r"must be a tensor without names, got .* pass data\.rename\(None\)"):
        DeepExplainer(net(), BACKGROUND.refine_names("samples", "features"))


def test_inside_a_transform_of_torch_func() -> None:
    explainer = DeepExplainer(net(), BACKGROUND)

    def summed(x: Tensor) -> Tensor:
        return explainer.attribute(x[None], target=0).values.sum()

    for transform in (torch.func.vmap, torch.func.grad):
        with pytest.raises(TypeError, match=r"X must be a plain tensor, got one inside a transform of torch\.func"):
            transform(summed)(BACKGROUND if transform is torch.func.vmap else BACKGROUND[0])


def test_one_hot_rows_for_a_background_of_floats() -> None:
    explainer = DeepExplainer(net(), BACKGROUND)
    rows = torch.eye(6, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"^X must be of the background's dtype .* torch\.uint8: pass X\.float\(\)$"):
        explainer.attribute(rows)
    assert explainer.attribute(rows.float()).values.shape == (6, 6, 3)


def test_embedding_given_as_the_layer() -> None:
    model, tokens = spread(Tokens()), torch.randint(11, (3, 5))
    with pytest.raises(ExplanationError, match=r"'embedding' has no floating-point input .* returns with at='output'$"):
        DeepExplainer((model, model.embedding), tokens)
    with pytest.raises(TypeError, match=r"dtype torch\.int64, got torch\.float32: pass X\.to\(torch\.int64\)"):
        DeepExplainer((model, "embedding"), tokens, at="output").attribute(tokens.float())


OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"max_memory": "1GB"}, TypeError, r"^max_memory must be a positive number of bytes, .* got '1GB'"),
    ({"max_memory": True}, TypeError, "^max_memory must be .* got True"),
    ({"max_memory": 1e9}, TypeError, "^max_memory must be .* got 1000000000.0"),
    ({"additivity_tolerance": "x"}, TypeError, "^additivity_tolerance must be a positive finite number, got 'x'"),
    ({"additivity_tolerance": torch.inf}, ValueError, "^additivity_tolerance must be .* finite number, got inf"),
    ({"additivity_tolerance": True}, TypeError, "^additivity_tolerance must be .* got True"),
    ({"rules": np.array(["a", "b"])}, ValueError, r"^rules must be one of 'deeplift', 'shapley', or .* got array of dtype <U1"),
    ({"rules": None}, ValueError, "^rules must be one of 'deeplift', 'shapley', or a mapping of functions and classes to rules, got None"),
    ({"softmax": ["logmean"]}, ValueError, r"^softmax must be one of .* got \['logmean'\]"),
    ({"on_unsupported": X}, ValueError, r"^on_unsupported must be one of .* got tensor of dtype torch.float32 and shape"),
    ({"progress": "yes"}, TypeError, "^progress must be True or False, got 'yes'"),
    ({"at": np.array(["input", "output"])}, ValueError, r"^at must be one of 'input', 'output', got array"),
    ({"at": None}, ValueError, "^at must be one of 'input', 'output', got None"),
    ({"at": "output"}, ValueError, r"at and call are about the layer .* got at='output', call=None"),
    ({"call": 0}, ValueError, r"at and call are about the layer .* call=0"),
    ({"call": "first"}, ValueError, "^call must be None or an integer from 0, got 'first'"),
    ({"output": X}, TypeError, "^output must be None, a key, a position or a function .* got tensor of dtype"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DeepExplainer(net(), BACKGROUND, **options)


def test_numbers_of_numpy_are_options_too() -> None:
    options: Any = {
        "max_memory": np.int64(2**30),
        "additivity_tolerance": np.float32(1e-3),
        "progress": np.bool_(False),
    }
    explainer = DeepExplainer((net(), "layer"), BACKGROUND, call=np.int64(0), **options)
    assert explainer.attribute(X, np.int8(1), check_additivity=np.bool_(True)).values.shape == (2, 5)


CALL_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"standard_error": "yes"}, TypeError, "^standard_error must be True or False, got 'yes'"),
    ({"check_additivity": "yes"}, ValueError, "^check_additivity must be True, False or 'ignore', got 'yes'"),
    ({"check_additivity": X}, TypeError, "^check_additivity must be .* got tensor of dtype torch.float32 and shape"),
    ({"check_additivity": None}, TypeError, "^check_additivity must be True, False or 'ignore', got None"),
]


@pytest.mark.parametrize(("options", "error", "message"), CALL_OPTIONS)
def test_bad_options_of_a_call(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DeepExplainer(net(), BACKGROUND).attribute(X, **options)


def test_layers_by_name() -> None:
    model = net()
    named = DeepExplainer((model, ["layer.0", "head"]), BACKGROUND).attribute(X).values
    given = DeepExplainer((model, [model.layer[0], model.head]), BACKGROUND).attribute(X).values
    assert_same(named, given, 0)


MODELS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "layer_nearby": (lambda: (net(), "heads"), ValueError, "got 'heads'; Skip has 'head'"),
    "layer_nowhere": (lambda: (net(), "xyz"), ValueError, "got 'xyz'; Skip has 'first', 'relu1', 'layer'"),
    "no_layers": (lambda: (nn.ReLU(), "xyz"), ValueError, "got 'xyz'; it has no modules inside"),
    "layer_none": (lambda: (net(), None), TypeError, "or its name, got None"),
    "function": (lambda: torch.relu, TypeError, r"call it in the forward of a torch\.nn\.Module"),
    "state_dict": (lambda: net().state_dict(), TypeError, r"got OrderedDict: load a state dict into its model"),
    "list": (lambda: [net(), "layer"], TypeError, "got list: the pair is a tuple"),
    "class": (lambda: Skip, TypeError, "got type Skip: pass an instance of it"),
}


@pytest.mark.parametrize(("make", "error", "message"), MODELS.values(), ids=MODELS.keys())
def test_bad_models(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DeepExplainer(make(), BACKGROUND)


def test_data_parallel_is_its_module_on_the_cpu_and_else_refused() -> None:
    """On the CPU DataParallel only calls its module; where it would call several replicas in threads it is refused."""
    model: Any = nn.DataParallel(net())
    expected = DeepExplainer(net(), BACKGROUND).attribute(X)
    assert torch.equal(DeepExplainer(model, BACKGROUND).attribute(X).values, expected.values)
    model.device_ids = [0, 1]
    with pytest.raises(TypeError, match=r"model is a DataParallel, .* explain model\.module"):
        DeepExplainer(model, BACKGROUND)


class Graph(nn.Module):
    """Nodes of one graph; with dim=-2 also of a batch of graphs on the same nodes."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear, self.head, self.dim = nn.Linear(6, 4), nn.Linear(4, 2), dim

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        h = self.linear(x).relu()
        return self.head(torch.zeros_like(h).index_add(self.dim, edges[1], h.index_select(self.dim, edges[0])))


class ByGraph(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, **kwargs: Any) -> Tensor:
        return torch.stack([self.model(one, **kwargs) for one in x])


def test_a_graphs_nodes_are_one_sample() -> None:
    nodes, edges = torch.randn(9, 6), torch.randint(9, (2, 20))
    model, options = Graph(-2), {"kwargs": {"edges": edges}}
    with unchanged(model), pytest.raises(ExplanationError, match=r"not on one of 2 .*: pass data\[None\]$"):
        DeepExplainer(model, nodes, **options)  # type: ignore[arg-type]
    values = DeepExplainer(model, torch.zeros(1, 9, 6), **options).shap_values(nodes[None])  # type: ignore[arg-type]
    assert values.shape == (1, 9, 6, 9, 2)
    flat = Graph(0)
    flat.load_state_dict(model.state_dict())
    with pytest.raises(
        ExplanationError, match=r"torch\.stack\(\[self\.model\(one, \*\*kwargs\) for one in x\]\), .*data\[None\]$"
    ):
        DeepExplainer(flat, nodes, **options)  # type: ignore[arg-type]
    stacked = DeepExplainer(ByGraph(flat), torch.zeros(1, 9, 6), **options).shap_values(nodes[None])  # type: ignore[arg-type]
    np.testing.assert_allclose(stacked, values, atol=1e-6)


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(4, 3, 3), nn.Linear(18, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        torch.rand(1)
        return self.head(self.conv(x).flatten(1))


FAILING: dict[str, tuple[Callable[[], nn.Module], Any, str]] = {
    "width": (
        net,
        torch.zeros(3, 7),
        r"does not run on data \(RuntimeError: mat1 .*\): it was given float32 \[3, 7\]; its parameters are float32; it stopped in "
        r"first \(Linear\), which takes \[\.\.\., 6\]$",
    ),
    "channels": (Pooled, torch.zeros(2, 5, 8), r"it stopped in conv \(Conv1d\), which takes \[samples, 4, length\]$"),
    "length": (Pooled, torch.zeros(2, 4, 9), r"it stopped in head \(Linear\), which takes \[\.\.\., 18\]$"),
    "row": (Pooled, torch.zeros(4, 8), r"it runs on data as one sample of a batch: pass data\[None\]$"),
    "row_of_a_linear_model": (net, torch.zeros(6), r"got \[3\]; it runs on data as one sample of a batch: pass data\[None\]$"),
    "too_few_inputs": (TwoInputs, torch.zeros(2, 2, 8), r"given float32 \[2, 2, 8\]; .* its forward takes \(a: .*, b: .*\)"),
    "too_many_inputs": (net, [X, X], r"given float32 \[2, 6\], float32 \[2, 6\]; .* its forward takes \(x: .*\).*; its first layer, first"),
}  # fmt: skip


@pytest.mark.parametrize(("build", "data", "message"), FAILING.values(), ids=FAILING.keys())
def test_a_model_that_does_not_run_on_the_background(build: Callable[[], nn.Module], data: Any, message: str) -> None:
    model = build()
    with unchanged(model), pytest.raises(ExplanationError, match=message):
        DeepExplainer(model, data)


def test_a_model_that_does_not_run_on_the_samples() -> None:
    model, tokens = spread(Tokens()), torch.randint(11, (3, 5))
    explainer = DeepExplainer((model, "encoder"), tokens)
    with (
        unchanged(model),
        pytest.raises(ExplanationError, match=r"does not run on X \(IndexError: .* integers from 0 to 10$"),
    ):
        explainer.attribute(tokens + 11)
    with pytest.raises(ExplanationError, match=r"does not run on baselines \(IndexError: .* int64 \[3, 5\]"):
        explainer.attribute(tokens, baselines=tokens[:, None] + 11)


def test_keyword_arguments_of_the_failing_call_are_told() -> None:
    class Gated(nn.Module):
        def forward(self, x: Tensor, *, gate: Tensor) -> Tensor:
            return x * gate

    with pytest.raises(ExplanationError, match=r"it was given float32 \[3, 6\], gate=float32 \[3, 5\]$"):
        DeepExplainer(Gated(), BACKGROUND, sample_kwargs={"gate": torch.ones(3, 5)})


def test_an_output_of_the_wrong_rows_is_not_taken_for_a_missing_dimension() -> None:
    with pytest.raises(ExplanationError, match=r"must have shape \[2, \.\.\.\] for 2 samples, got \[3\]$"):
        DeepExplainer(net(), torch.zeros(2, 6), output=0)


OUTPUTS: list[tuple[Any, Any, str]] = [
    (lambda y: (y, y), "logits", r"output='logits' is not in what the model returns, tuple .* at positions 0 to 1$"),
    (lambda y: (y, y), 2, r"output=2 is not in what .* at positions 0 to 1$"),
    (lambda y: y, 10**30, r"output=10+ is not in what the model returns, a tensor of shape"),
    (lambda y: {"a": y}, "b", r"output='b' is not in .* dict with the keys \['a'\]$"),
    (lambda y: y, "logits", r"output='logits' is not in what the model returns, a tensor of shape \[\d, 3\]$"),
    (lambda y: torch.return_types.max((y, y)), "scores", r"output='scores' is not in what the model returns, max of"),
    (lambda y: {"a": y}, lambda y: y["b"], r"^output=.*<lambda>.* must take .* \['a'\], and raised KeyError: 'b'$"),
]  # fmt: skip


@pytest.mark.parametrize(("wrap", "output", "message"), OUTPUTS)
def test_outputs_that_are_not_there(wrap: Any, output: Any, message: str) -> None:
    model = Function(lambda self, x: wrap(self.net(x)), net=net())
    with pytest.raises(ValueError, match=message):
        DeepExplainer(model, BACKGROUND, output=output)


def test_a_position_of_numpy() -> None:
    model = Function(lambda x: (x.tanh(), x))
    explainer = DeepExplainer(model, BACKGROUND, output=np.int64(0))
    assert torch.equal(explainer.attribute(X).output, X.tanh())


def test_short_representations() -> None:
    model = net()
    assert repr(DeepExplainer(model, BACKGROUND)) == (
        "DeepExplainer(Skip, rules='deeplift', softmax='logmean', on_unsupported='error', background float32 [3, 6])"
    )
    explainer = DeepExplainer((model, "head"), BACKGROUND, at="output", rules="shapley")
    assert repr(explainer).startswith("DeepExplainer(Skip, layer 'head' at its output, rules='sh")
    found = explainer.attribute(X, 0)
    assert repr(found) == (
        "Attribution(values=float32 [2, 3], output=float32 [2], expected_value=float32 [2], convergence_delta=float32 [2], "
        "target=int64 [2])"
    )
    several = Attribution((X, BACKGROUND), X, X, (X,))
    assert "values=(float32 [2, 6], float32 [3, 6])" in repr(several) and "delta=(float32 [2, 6],)" in repr(several)
    assert torch.equal(pickle.loads(pickle.dumps(explainer)).attribute(X, 0).values, found.values)


def test_an_explanation_of_one_output(shap: ModuleType) -> None:
    """Neither a single output nor a target has an axis, so that plots take the Explanation; several outputs have one."""
    model = Function(lambda self, x: self.net(x)[:, :1], net=net())
    for one in (DeepExplainer(model, BACKGROUND)(X), DeepExplainer(net(), BACKGROUND)(X, 0)):
        assert one.values.shape == (2, 6) and one.base_values.shape == (2,)
        np.testing.assert_allclose(one.values.sum(1) + one.base_values, model(X)[:, 0].detach(), rtol=1e-5)


def test_an_explanation_of_a_target_a_sample(shap: ModuleType) -> None:
    explainer = DeepExplainer(net(), BACKGROUND)
    explanation = explainer(X, target=[2, 0])
    np.testing.assert_array_equal(explanation.values, explainer.attribute(X, [2, 0]).values)
    np.testing.assert_array_equal(explanation.base_values, explainer.expected_value[[2, 0]])
