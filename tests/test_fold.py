"""A batch norm's scale that the convolution before it takes over: values are those of the model as it is written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import assert_same, explain
from models import spread
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from deepshap_ext import Application, DeepExplainer, Explainer, register_rule

pytestmark = pytest.mark.usefixtures("in_float64")


class Affine(nn.Module):
    """A batch norm as the product and the sum that it is."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        within = [1] * (x.dim() - 2)
        return (x - norm.running_mean.view(-1, *within)) * scale.view(-1, *within) + norm.bias.view(-1, *within)


class Net(nn.Module):
    """A convolution and its batch norm between others."""

    def __init__(self, conv: nn.Module, size: int) -> None:
        super().__init__()
        dims = conv.weight.dim() - 2
        first, norm = getattr(nn, f"Conv{dims}d"), getattr(nn, f"BatchNorm{dims}d")
        self.first, self.conv, self.norm = first(2, conv.in_channels, 1), conv, norm(conv.out_channels)
        self.head = nn.LazyLinear(3)
        self(torch.zeros(2, 2, *[size] * dims))
        spread(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.norm(self.conv(F.gelu(self.first(x))))).flatten(1))


class Branch(Net):
    """The convolution has a second reader."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.gelu(self.first(x)))
        return self.head((F.gelu(self.norm(x)) + x.tanh()).flatten(1))


class WrittenInto(Net):
    """The convolution's result is written into before it is read again."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(F.gelu(self.first(x)))
        normed = self.norm(x)
        x[:, 0] = 0
        return self.head((F.gelu(normed) + x).flatten(1))


CONVOLUTIONS = {
    "1d": lambda: nn.Conv1d(2, 4, 3),
    "2d": lambda: nn.Conv2d(2, 4, 3, padding=1),
    "3d": lambda: nn.Conv3d(2, 4, 2),
    "groups": lambda: nn.Conv2d(4, 6, 3, groups=2, bias=False),
    "depthwise": lambda: nn.Conv2d(4, 8, 3, groups=4, padding="same"),
    "strided": lambda: nn.Conv2d(2, 4, 3, 2, 1),
    "a weight larger than the gradients": lambda: nn.Conv2d(8, 16, 4),
    "transposed": lambda: nn.ConvTranspose2d(2, 4, 3, 2, output_padding=1),
    "transposed, groups": lambda: nn.ConvTranspose1d(4, 6, 3, groups=2),
    "transposed, a weight larger than the gradients": lambda: nn.ConvTranspose2d(32, 8, 4),
}


def against(model: nn.Module, x: Tensor, background: Tensor, **options: Any) -> Tensor:
    """The values of the model, compared with those of the same with its batch norm written out."""
    found = explain(model, x, background, **options).values
    norm = model.norm
    model.norm = Affine(norm)
    assert_same(found, explain(model, x, background, **options).values)
    model.norm = norm
    return found


@pytest.mark.parametrize("pairs", [(1, 1), (3, 4)], ids=str)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_values_are_those_of_the_model_written_out(name: str, pairs: tuple[int, int]) -> None:
    model = Net(CONVOLUTIONS[name](), 4)
    size = [2] + [4] * (model.conv.weight.dim() - 2)
    against(model, *(torch.randn(number, *size) for number in pairs))


@pytest.mark.parametrize("kind", [Branch, WrittenInto])
def test_other_readers_get_gradients_unscaled(kind: type[Net]) -> None:
    against(kind(nn.Conv2d(2, 4, 3), 4), torch.randn(3, 2, 4, 4), torch.randn(4, 2, 4, 4))


@pytest.mark.parametrize("at", ["input", "output"])
@pytest.mark.parametrize("layer", ["conv", "norm"])
def test_multipliers_of_the_convolution_and_of_the_norm(layer: str, at: str) -> None:
    model, x, background = Net(nn.Conv2d(2, 4, 3), 4), torch.randn(3, 2, 4, 4), torch.randn(4, 2, 4, 4)
    found = []
    for norm in (model.norm, Affine(model.norm)):
        model.norm = norm
        explainer = DeepExplainer((model, getattr(model, layer)), background, at=at)
        found.append(explainer.attribute(x, multipliers=True, activations=True))
    one, other = found
    assert_same(one.multipliers, other.multipliers)
    assert_same(one.values, other.values)
    assert_same(one.activations, other.activations)


@pytest.mark.parametrize("of", [F.batch_norm, F.conv2d, nn.BatchNorm2d, nn.Conv2d], ids=lambda of: of.__name__)
def test_a_rule_of_the_users_own_is_that_of_the_operation_alone(of: Any) -> None:
    """The same rule as the built-in one but for a factor of 2, which all multipliers before it then have."""

    def doubled(_: Any, *args: Any, **kwargs: Any) -> Application:
        *module, x = args if isinstance(args[0], nn.Module) else args[:1]
        run = module[0].forward if module else lambda x: of(x, *args[1:], **kwargs)

        def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
            return [2 * torch.func.vjp(run, x.detach())[1](grad)[0]]

        return Application([x], lambda x: (run(x), []), multipliers)

    model, x, background = Net(nn.Conv2d(2, 4, 3), 4), torch.randn(3, 2, 4, 4), torch.randn(4, 2, 4, 4)
    model.first = Affine(nn.BatchNorm2d(2)).eval()
    plain = explain(model, x, background).values
    with register_rule(of, doubled):
        found = DeepExplainer(model, background).attribute(x, check_additivity="ignore").values
    assert_same(found, 2 * plain)


def test_explanations_replayed_are_those_of_the_model_written_out() -> None:
    model, x, background = Net(nn.Conv2d(2, 4, 3), 4), torch.randn(3, 2, 4, 4), torch.randn(4, 2, 4, 4)
    explainer = Explainer(model, compile="replay")
    found = [explainer.attribute(x, baselines=background).values for _ in range(2)]
    model.norm = Affine(model.norm)
    expected = DeepExplainer(model, background).attribute(x).values
    for one in found:
        assert_same(one, expected)


class Multiplied(TorchDispatchMode):
    """The largest number of elements of any product of tensors."""

    largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        if function is torch.ops.aten.mul.Tensor:
            self.largest = max(self.largest, found.numel())
        return found


def test_no_product_has_as_many_elements_as_the_gradients() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    explainer = DeepExplainer(spread(model), torch.randn(5, 2, 4, 4))
    x = torch.randn(3, 2, 4, 4)
    with Multiplied() as multiplied:
        explainer.attribute(x, 0)
    assert multiplied.largest < 3 * 5 * 16
