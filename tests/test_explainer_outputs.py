"""Which output is explained, and the shapes of what comes back; inputs of every kind."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from checks import additivity_gap, as_list, assert_same, explain, run, unchanged
from models import Body, Function, FunctionNet, Skip, Tokens, TwoInputs, digits, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

Pair = namedtuple("Pair", ["scores", "hidden"])


@dataclass
class Result:
    scores: Tensor
    loss: Tensor | None = None


class Wrapped(nn.Module):
    """A net whose scores come in a container."""

    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.net = spread(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)))
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(self.net(x))


def _hugging_face(y: Tensor) -> Any:
    from transformers.modeling_outputs import SequenceClassifierOutput

    return SequenceClassifierOutput(logits=y, hidden_states=(y * 2, y * 3))


CONTAINERS: dict[str, tuple[Any, Any]] = {
    "tensor": (lambda y: y, None),
    "only_tensor_of_a_tuple": (lambda y: (y, None), None),
    "only_tensor_of_a_dict": (lambda y: {"name": "text", "y": y}, None),
    "list": (lambda y: [y], None),
    "position": (lambda y: (y * 2, y), 1),
    "position_from_behind": (lambda y: (y * 2, y), -1),
    "position_of_a_list": (lambda y: [y, y * 2], 0),
    "key": (lambda y: {"other": y * 2, "y": y}, "y"),
    "ordered": (lambda y: OrderedDict(other=y * 2, y=y), "y"),
    "logits": (lambda y: {"hidden": y * 2, "logits": y}, None),
    "hugging_face": (_hugging_face, None),
    "hugging_face_key": (_hugging_face, "logits"),
    "hugging_face_function": (_hugging_face, lambda output: output.hidden_states[0] / 2),
    "named_tuple": (lambda y: Pair(y, y * 2), "scores"),
    "named_tuple_position": (lambda y: Pair(y, y * 2), 0),
    "attribute": (lambda y: Result(y), "scores"),
    "function": (lambda y: {"a": [y * 2, (y,)]}, lambda output: output["a"][1][0]),
    "tuple_subclass": (lambda y: (y.sum(), y), 1),
}


@pytest.mark.parametrize(("wrap", "output"), CONTAINERS.values(), ids=CONTAINERS.keys())
def test_output_chooses_the_tensor_that_is_explained(wrap: Any, output: Any) -> None:
    model = Wrapped(wrap)
    x, background = torch.randn(3, 6), torch.randn(4, 6)
    with unchanged(model, x, background):
        found = DeepExplainer(model, background, output=output).attribute(x)
    assert_same(found.values, explain(model.net, x, background).values)


def test_output_function_may_compute() -> None:
    """Operations of the output function are followed like those of the model."""
    model = Wrapped(lambda y: y)
    x, background = torch.randn(3, 6).double(), torch.randn(4, 6).double()
    model.double()
    explainer = DeepExplainer(model, background, output=lambda y: y.softmax(1)[:, :2] * y[:, 2:].sigmoid())
    outputs, baseline_outputs = (
        y.softmax(1)[:, :2] * y[:, 2:].sigmoid() for y in (run(model, x), run(model, background))
    )
    found = explainer.attribute(x)
    assert found.values.shape == (3, 6, 2)
    assert additivity_gap(found.values, outputs, baseline_outputs) <= 1e-12


SHAPES = [(), (1,), (3,), (2, 3), (2, 1, 3)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("pairing", ["grid", "aligned"])
def test_outputs_of_any_shape(shape: tuple[int, ...], pairing: str) -> None:
    width = int(np.prod(shape))
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, width))
    model = spread(Function(lambda self, x: self.net(x).view(-1, *shape), net=net)).double()
    x, background = torch.randn(3, 5).double(), torch.randn(4, 5).double()
    explainer = DeepExplainer(model, background)
    found = explainer.attribute(x, pairing=pairing)
    outputs = shape or (1,)
    assert found.values.shape == (3, 5, *outputs)
    assert found.output.shape == found.expected_value.shape == found.convergence_delta.shape == (3, *outputs)
    assert additivity_gap(found.values, run(model, x), run(model, background)) <= 1e-12
    assert explainer.shap_values(x).shape == (3, 5, *outputs)
    assert explainer.expected_value.shape == outputs
    last = tuple(size - 1 for size in outputs)
    one = explainer.attribute(x, last, pairing=pairing)
    assert one.values.shape == (3, 5)
    assert_same(one.values, found.values[(..., *last)])
    ranked, indexes = explainer.shap_values(x, ranked_outputs=1)
    assert ranked.shape == (3, 5, 1)
    flat = torch.as_tensor(found.values).flatten(2)
    assert_same(ranked[..., 0], flat[torch.arange(3), :, indexes[:, 0]])


def test_integer_target_of_a_one_dimensional_output() -> None:
    explainer = DeepExplainer(Function(lambda x: x.tanh().sum(1)), torch.randn(4, 3))
    assert explainer.attribute(torch.randn(2, 3), 0).values.shape == (2, 3)
    assert explainer.attribute(torch.randn(2, 3), [0, 0]).values.shape == (2, 3)


@pytest.mark.parametrize("index", [2, (0, 3), (0, 1, 2)])
def test_target_that_does_not_fit_the_outputs(index: Any) -> None:
    explainer = DeepExplainer(Function(lambda x: x.tanh().view(-1, 2, 3)), torch.randn(4, 6))
    with pytest.raises(ValueError, match=r"^target must be .* shape \[2, 3\]"):
        explainer.attribute(torch.randn(2, 6), index)


@pytest.mark.parametrize("container", [list, tuple])
def test_several_inputs_give_values_for_each(container: Any) -> None:
    model = spread(TwoInputs()).double()
    x = container([torch.randn(3, 2, 8).double(), torch.randn(3, 4).double()])
    background = container([torch.randn(4, 2, 8).double(), torch.randn(4, 4).double()])
    found = explain(model, x, background)
    assert isinstance(found.values, tuple) and [value.shape for value in found.values] == [(3, 2, 8, 3), (3, 4, 3)]
    values = DeepExplainer(model, background).shap_values(x)
    assert isinstance(values, list) and [value.shape for value in values] == [(3, 2, 8, 3), (3, 4, 3)]
    one = DeepExplainer(model, background).attribute(x, 1, standard_error=True)
    assert [error.shape for error in one.standard_error] == [(3, 2, 8), (3, 4)]


def test_a_list_of_one_input_gives_a_list() -> None:
    model, x, background = spread(FunctionNet()), digits(2), digits(3)
    found = explain(model, [x], [background])
    assert isinstance(found.values, tuple) and len(found.values) == 1
    assert isinstance(DeepExplainer(model, [background]).shap_values([x]), list)


def test_an_input_that_is_not_used_gets_zeros() -> None:
    model = Function(lambda a, b: a.tanh())
    x, background = [torch.randn(2, 3), torch.randn(2, 4)], [torch.randn(3, 3), torch.randn(3, 4)]
    found = explain(model, x, background)
    assert found.values[1].shape == (2, 4, 3) and not found.values[1].any()


def test_inputs_of_different_dtypes() -> None:
    model = Function(lambda a, b: a.double().tanh() + b.sigmoid())
    x, background = [torch.randn(2, 3), torch.randn(2, 3).double()], [torch.randn(3, 3), torch.randn(3, 3).double()]
    found = explain(model, x, background, tolerance=1e-5)
    assert [value.dtype for value in found.values] == [torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_numpy_arrays_take_the_models_dtype(dtype: Any) -> None:
    model = spread(Skip())
    x, background = np.random.randn(3, 6).astype(dtype), np.random.randn(4, 6).astype(dtype)
    kept = x.copy(), background.copy()
    found = DeepExplainer(model, background).attribute(x)
    assert found.values.dtype == torch.float32
    expected = explain(model, torch.as_tensor(x).float(), torch.as_tensor(background).float())
    assert_same(found.values, expected.values, 0)
    assert np.array_equal(x, kept[0]) and np.array_equal(background, kept[1])


def test_read_only_and_strided_numpy_arrays() -> None:
    model, x = spread(Skip()), np.random.randn(6, 12)[::2, ::2]
    x.setflags(write=False)
    assert DeepExplainer(model, np.asfortranarray(x)).attribute(x[::-1]).values.shape == (3, 6, 3)


def test_data_frames_are_taken_as_arrays() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.random.randn(4, 6))
    model = spread(Skip())
    values = DeepExplainer(model, frame).shap_values(frame)
    assert values.shape == (4, 6, 3)


def test_shap_values_are_arrays_of_the_models_dtype() -> None:
    for dtype, expected in ((torch.float32, np.float32), (torch.float64, np.float64), (torch.bfloat16, np.float32)):
        model = spread(Skip()).to(dtype)
        explainer = DeepExplainer(model, torch.randn(4, 6).to(dtype))
        values = explainer.shap_values(3 * torch.randn(2, 6).to(dtype), check_additivity=False)
        assert values.dtype == explainer.expected_value.dtype == expected


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
def test_integer_inputs_behind_an_embedding(skip: bool, samples: int) -> None:
    model = spread(Tokens(skip)).double()
    x, background = torch.randint(11, (samples, 5)), torch.randint(11, (4, 5))
    found = explain(model, x, background, layer=model.encoder)
    assert found.values.shape == (samples, 5, 6, 4)


def test_an_embedding_that_is_the_same_for_both_has_no_part() -> None:
    model = spread(Tokens()).double()
    x = torch.randint(11, (1, 5))
    background = x.clone()
    background[0, 2] = (x[0, 2] + 1) % 11
    values = explain(model, x, background, layer=model.encoder).values
    assert values[:, 2].any() and not values[:, [0, 1, 3, 4]].any()


def test_integer_inputs_with_and_without_a_layer() -> None:
    tokens = torch.randint(11, (4, 5))
    model = spread(Tokens())
    by_token = DeepExplainer(model, tokens).shap_values(tokens)
    by_layer = DeepExplainer((model, model.embedding), tokens, at="output").shap_values(tokens)
    assert by_token.shape == (4, 5, 4) and by_layer.shape == (4, 5, 6, 4)
    np.testing.assert_allclose(by_token, by_layer.sum(2), atol=1e-5)


def test_integers_beside_floats() -> None:
    """Positions, segments, masks: inputs without attributions of their own, the same for inputs and baselines."""

    class WithMask(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.encoder, self.head = (
                nn.Embedding(5, 6),
                nn.Sequential(nn.Linear(6, 6), nn.Tanh()),
                nn.Linear(6, 2),
            )

        def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
            h = self.encoder(self.embedding(tokens))
            return self.head(h.masked_fill(mask.unsqueeze(2) == 0, 0.0).sum(1))

    model = spread(WithMask()).double()
    mask = torch.tensor([[1, 1, 1, 0]])
    x = [torch.randint(5, (3, 4)), mask.expand(3, 4)]
    background = [torch.randint(5, (2, 4)), mask.expand(2, 4)]
    outputs, baseline_outputs = run(model, x), run(model, background)
    with unchanged(model, *x, *background):
        found = DeepExplainer((model, model.encoder), background).attribute(x)
    assert additivity_gap(as_list(found.values), outputs, baseline_outputs) <= 1e-12
    assert not as_list(found.values)[0][:, 3].any()


@pytest.mark.parametrize("layer", ["before", "after"])
def test_layer_values_have_the_shape_of_the_layers_input(layer: str) -> None:
    model = spread(Body(torch.relu)).double()
    found = explain(model, torch.randn(3, 6).double(), torch.randn(4, 6).double(), layer=model.get_submodule(layer))
    assert found.values.shape == (3, 6 if layer == "before" else 8, 4)


def test_layer_with_several_and_keyword_inputs() -> None:
    class Merge(nn.Module):
        def forward(self, a: Tensor, scale: float, *, b: Tensor) -> Tensor:
            return a * scale * b.sigmoid()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.merge = nn.Linear(4, 3), nn.Linear(4, 3), Merge()

        def forward(self, x: Tensor) -> Tensor:
            return self.merge(self.one(x), 2.0, b=self.two(x)).tanh()

    model = spread(Net()).double()
    found = explain(model, torch.randn(3, 4).double(), torch.randn(2, 4).double(), layer=model.merge)
    assert [value.shape for value in found.values] == [(3, 3, 3), (3, 3, 3)]


def test_layer_whose_input_is_written_into() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.relu, self.head = nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.relu(self.fc(x)))

    model = spread(Net()).double()
    x, background = torch.randn(3, 4).double(), torch.randn(2, 4).double()
    in_place = explain(model, x, background, layer=model.relu)
    model.relu.inplace = False
    assert_same(in_place.values, explain(model, x, background, layer=model.relu).values)


def test_layer_in_sequence_first_order() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.layer = nn.Linear(4, 3), nn.Sequential(nn.Linear(3, 3), nn.GELU())

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.fc(x).transpose(0, 1)).sum(0)

    model = spread(Net()).double()
    found = explain(model, torch.randn(3, 5, 4).double(), torch.randn(2, 5, 4).double(), layer=model.layer)
    assert found.values.shape == (3, 5, 3, 3)


def test_the_model_itself_as_the_layer() -> None:
    model, x, background = spread(FunctionNet()), digits(2), digits(3)
    assert_same(explain(model, x, background, layer=model).values, explain(model, x, background).values)
