"""Models as people write them add up: modules and functions, reused, in place, residual, pooled, in any layout."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from checks import assert_same, explain, values_of
from models import Body, Function, FunctionNet, ModuleNet, digits, spread
from torch import Tensor, nn


@pytest.mark.parametrize("net", [ModuleNet, FunctionNet])
def test_net_as_modules_and_as_functions(net: type[ModuleNet]) -> None:
    explain(spread(net()), digits(4), digits(5))


def test_modules_and_functions_give_the_same_values() -> None:
    modules, functions = spread(ModuleNet()), spread(FunctionNet())
    functions.load_state_dict(modules.state_dict())
    x, background = digits(3), digits(4)
    assert_same(values_of(modules, x, background), values_of(functions, x, background))


def test_net_is_explained_in_eval_mode() -> None:
    model, x, background = spread(FunctionNet()), digits(3), digits(4)
    expected = values_of(model, x, background)
    assert_same(values_of(model.train(), x, background), expected, 0)
    assert model.training and all(module.training for module in model.modules())


ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.LeakyReLU(0.2),
    nn.PReLU(),
    nn.PReLU(8),
    nn.RReLU(),
    nn.ELU(0.7),
    nn.SELU(),
    nn.CELU(0.6),
    nn.GELU(),
    nn.GELU("tanh"),
    nn.SiLU(),
    nn.Mish(),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Softplus(2.0, 3.0),
    nn.Hardtanh(-0.5, 0.4),
    nn.Softmax(-1),
    nn.LogSoftmax(-1),
    nn.Identity(),
    nn.Dropout(),
    nn.AlphaDropout(),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_activation_module_adds_up(activation: nn.Module, dtype: torch.dtype) -> None:
    model = spread(Body(activation)).to(dtype)
    explain(model, torch.randn(4, 6, dtype=dtype), torch.randn(5, 6, dtype=dtype))


LATER_ACTIVATIONS = [
    nn.Hardsigmoid(),
    nn.Hardswish(),
    nn.Softsign(),
    nn.Softshrink(),
    nn.Hardshrink(),
    nn.LogSigmoid(),
    nn.Tanhshrink(),
    nn.Threshold(0.1, -1.0),
    nn.Softmin(-1),
    nn.GLU(),
]


@pytest.mark.parametrize("activation", LATER_ACTIVATIONS, ids=repr)
def test_activation_module_adds_up_or_is_named(activation: nn.Module) -> None:
    from deepshap_ext import UnsupportedOperationError

    model = spread(Body(activation, width=4 if isinstance(activation, nn.GLU) else None)).double()
    try:
        explain(model, torch.randn(4, 6).double(), torch.randn(5, 6).double())
    except UnsupportedOperationError as error:
        assert " in function has no rule" in str(error)


ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": lambda x: torch.exp(x / 4),
    "log": lambda x: torch.log(x.abs() + 0.1),
    "sqrt": lambda x: (x * x).sqrt(),
    "rsqrt": lambda x: torch.rsqrt(torch.square(x) + 0.1),
    "reciprocal": lambda x: 1 / (torch.sigmoid(x) + 0.5),
    "square": lambda x: x.square(),
    "pow2": lambda x: x**2,
    "pow3": lambda x: torch.pow(x, 3),
    "pow_fraction": lambda x: F.softplus(x) ** 1.3,
    "abs": lambda x: abs(x),
    "clamp": lambda x: x.clamp(-0.5, 0.3),
    "clamp_min": lambda x: x.clamp(min=0.1),
    "clip_max": lambda x: torch.clip(x, max=0.1),
    "product": lambda x: x * torch.sigmoid(x),
    "product_with_itself": lambda x: x * x,
    "product_broadcast": lambda x: x * x.mean(1, keepdim=True),
    "product_of_three": lambda x: x * torch.tanh(x) * torch.sigmoid(x),
    "product_with_constant": lambda x: 3 * x * torch.linspace(-1, 1, 8).to(x),
    "matmul_with_constant": lambda x: x @ torch.ones(8, 8).to(x).triu(),
    "division_by_constant": lambda x: x / 3 - 2 / torch.full((8,), 3).to(x),
    "relu_method": lambda x: x.relu(),
    "aten": lambda x: torch.ops.aten.relu.default(x),
    "aten_product": lambda x: torch.ops.aten.mul.Tensor(x, torch.ops.aten.sigmoid(x)),
    "functional_softmax": lambda x: F.softmax(x, dim=1) * 5,
    "softmax_over_chunks": lambda x: x.view(-1, 2, 4).softmax(2).flatten(1) * 3,
    "masked_by_constant": lambda x: torch.where(torch.arange(8) > 3, x.relu(), x.tanh()),
    "flip_features": lambda x: x.flip(1).relu() + x.roll(1, 1),
    "cumsum": lambda x: x.relu().cumsum(1),
    "einsum_with_constant": lambda x: torch.einsum("bi,ij->bj", x.relu(), torch.eye(8).to(x) + 1),
    "index": lambda x: x.relu()[:, [7, 0, 1, 1, 2, 3, 4, 5]],
    "stack": lambda x: torch.stack([x.relu(), x.tanh()], 2).sum(2),
    "residual": lambda x: x + torch.relu(x) - x.tanh(),
}


@pytest.mark.parametrize("function", ELEMENTWISE.values(), ids=ELEMENTWISE.keys())
def test_function_adds_up(function: Callable[[Tensor], Tensor]) -> None:
    model = spread(Body(function)).double()
    explain(model, torch.randn(4, 6).double(), torch.randn(5, 6).double(), tolerance=1e-11)


def _slices(x: Tensor) -> Tensor:
    y = x.clone()
    y[:, :4] = y[:, :4].relu()
    y[:, 4:] *= torch.sigmoid(x[:, 4:])
    y[:, ::2] += y[:, 1::2]
    return y


def _out_of_place_slices(x: Tensor) -> Tensor:
    left, right = x[:, :4].relu(), x[:, 4:] * torch.sigmoid(x[:, 4:])
    y = torch.cat([left, right], 1).view(-1, 4, 2)
    return torch.stack([y[..., 0] + y[..., 1], y[..., 1]], 2).flatten(1)


def _chain(x: Tensor) -> Tensor:
    y = x * 2
    z = y.sigmoid()
    y *= z
    y += x
    y -= 0.1
    y /= 2
    return F.relu_(y) + z


def _out_of_place_chain(x: Tensor) -> Tensor:
    z = (x * 2).sigmoid()
    return F.relu((x * 2 * z + x - 0.1) / 2) + z


def _view_of_relu(x: Tensor) -> Tensor:
    y = x.view(-1, 2, 4) + 0.0
    y[:, 0].relu_()
    y.transpose(1, 2)[:, :2].tanh_()
    return y.flatten(1)


def _out_of_place_view(x: Tensor) -> Tensor:
    y = x.view(-1, 2, 4)
    y = torch.cat([y[:, :1].relu(), y[:, 1:]], 1)
    return torch.cat([y[:, :, :2].tanh(), y[:, :, 2:]], 2).flatten(1)


def _read_before_write(x: Tensor) -> Tensor:
    y = x + 0
    kept = y * y.sigmoid()
    y.mul_(0.0).add_(1.0)
    return kept + y


IN_PLACE: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "relu_module": (nn.ReLU(inplace=True), F.relu),
    "hardtanh_module": (nn.Hardtanh(inplace=True), F.hardtanh),
    "elu_module": (nn.ELU(inplace=True), F.elu),
    "silu_module": (nn.SiLU(inplace=True), F.silu),
    "leaky_relu": (lambda x: F.leaky_relu(x, inplace=True), F.leaky_relu),
    "relu_": (lambda x: F.relu_(x), F.relu),
    "torch_relu_": (lambda x: torch.relu_(x), F.relu),
    "sigmoid_": (lambda x: x.sigmoid_(), torch.sigmoid),
    "clamp_": (lambda x: x.clamp_(-1, 1), lambda x: x.clamp(-1, 1)),
    "exp_": (lambda x: x.mul_(0.2).exp_(), lambda x: (x * 0.2).exp()),
    "slices": (_slices, _out_of_place_slices),
    "chain": (_chain, _out_of_place_chain),
    "views": (_view_of_relu, _out_of_place_view),
    "read_before_write": (_read_before_write, lambda x: x * x.sigmoid() + 1),
}


@pytest.mark.parametrize(("in_place", "plain"), IN_PLACE.values(), ids=IN_PLACE.keys())
def test_in_place_operations_equal_those_out_of_place(
    in_place: Callable[[Tensor], Tensor], plain: Callable[[Tensor], Tensor]
) -> None:
    model, other = spread(Body(in_place)).double(), Body(plain).double()
    other.load_state_dict(model.state_dict())
    x, background = torch.randn(4, 6).double(), torch.randn(5, 6).double()
    assert_same(values_of(model, x, background), values_of(other, x, background), 1e-12)


@pytest.mark.parametrize("function", [F.relu_, torch.sigmoid_, lambda x: x.mul_(2).relu_(), lambda x: F.relu(x, True)])
def test_in_place_operations_do_not_write_into_the_callers_tensors(function: Callable[[Tensor], Tensor]) -> None:
    explain(Function(lambda _, x: function(x).sum(1), head=nn.Identity()), torch.randn(3, 4), torch.randn(2, 4))


def test_in_place_on_the_skip_of_a_residual_block() -> None:
    """HF's ResNet: `hidden += residual` on an activation that a module made."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.relu = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)
            self.norm = nn.BatchNorm2d(3)

        def forward(self, x: Tensor) -> Tensor:
            out = self.relu(self.norm(self.a(x)))
            out = self.b(out)
            out += x
            return self.relu(out)

    model = spread(nn.Sequential(Block(), Block(), nn.Flatten(), nn.Linear(48, 3)))
    explain(model, torch.randn(3, 3, 4, 4), torch.randn(4, 3, 4, 4))


def test_reused_modules_add_up() -> None:
    relu, linear, pool = nn.ReLU(), nn.Linear(4, 4), nn.MaxPool1d(2)
    model = nn.Sequential(nn.Linear(6, 8), relu, pool, linear, relu, linear, relu, linear, nn.Softmax(1))
    explain(spread(model), torch.randn(4, 6), torch.randn(5, 6))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 2},
        {"kernel_size": 3, "stride": 1},
        {"kernel_size": 3, "stride": 2, "padding": 1},
        {"kernel_size": 2, "stride": 1, "dilation": 2},
        {"kernel_size": 3, "stride": 2, "ceil_mode": True},
        {"kernel_size": 2, "stride": 3},
    ],
    ids=str,
)
def test_max_pool_adds_up(dims: int, options: dict[str, int]) -> None:
    conv, pool = getattr(nn, f"Conv{dims}d"), getattr(nn, f"MaxPool{dims}d")
    model = nn.Sequential(conv(1, 2, 2), pool(**options), nn.Flatten(), nn.LazyLinear(3))
    size = [1] + [7] * dims
    with torch.no_grad():
        model(torch.zeros(1, *size))
    explain(spread(model), torch.randn(3, *size), torch.randn(4, *size))


@pytest.mark.parametrize("function", [F.max_pool1d, lambda x, k: F.max_pool1d(x, k, 1, return_indices=True)[0]])
def test_functional_max_pool(function: Callable[[Tensor, int], Tensor]) -> None:
    explain(spread(Body(lambda x: function(x, 3).repeat(1, 8)[:, :8])), torch.randn(3, 6), torch.randn(4, 6))


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_adds_up(dims: int, affine: bool) -> None:
    norm, conv = getattr(nn, f"BatchNorm{dims}d"), getattr(nn, f"Conv{dims}d")
    model = nn.Sequential(conv(2, 3, 2), norm(3, affine=affine), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 3**dims, 2))
    size = [2] + [4] * dims
    explain(spread(model), torch.randn(3, *size), torch.randn(4, *size))


def test_batch_norm_of_vectors() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.SiLU(), nn.Linear(5, 2))
    explain(spread(model), torch.randn(3, 4), torch.randn(4, 4))


@pytest.mark.parametrize(
    "pool",
    [nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2), nn.Upsample(scale_factor=2), nn.ZeroPad2d(1), nn.ReflectionPad2d(1)],
    ids=repr,
)
def test_linear_modules_add_up(pool: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), pool, nn.Conv2d(2, 1, 2), nn.ReLU(), nn.Flatten())
    explain(spread(model), torch.randn(3, 1, 6, 6), torch.randn(4, 1, 6, 6))


@pytest.mark.parametrize(("samples", "baselines", "length"), [(3, 4, 3), (1, 1, 1), (2, 2, 2), (3, 3, 3), (1, 5, 4)])
def test_sequence_first_batches(samples: int, baselines: int, length: int) -> None:
    class SequenceFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = self.fc(x).transpose(0, 1)  # [S, B, E]
            h = h * torch.sigmoid(h) + h.relu()
            h = h.softmax(0) + h.softmax(2)
            h = F.max_pool1d(h.reshape(-1, 4).unsqueeze(1), 2).squeeze(1).view(*h.shape[:2], 2)  # [S*B, 2]
            return self.head(torch.cat([h, h.exp()], 2).transpose(0, 1).tanh().mean(1))

    explain(
        spread(SequenceFirst()).double(),
        torch.randn(samples, length, 4).double(),
        torch.randn(baselines, length, 4).double(),
    )


def test_heads_and_windows_folded_into_the_batch() -> None:
    def function(x: Tensor) -> Tensor:
        heads = x.view(-1, 2, 4).transpose(0, 1).reshape(-1, 4)  # [heads * B, 4]
        behind = x.view(-1, 2, 4).reshape(-1, 4)  # [B * heads, 4]
        heads = (heads.softmax(1) * heads).view(2, -1, 4).transpose(0, 1).flatten(1)
        return heads + behind.gelu().view(-1, 8) if hasattr(behind, "gelu") else heads + F.gelu(behind).view(-1, 8)

    explain(spread(Body(function)), torch.randn(3, 6), torch.randn(5, 6))


@pytest.mark.parametrize(("samples", "baselines"), [(1, 1), (1, 3), (3, 1)])
@pytest.mark.parametrize("features", [1, 4])
def test_one_of_everything(samples: int, baselines: int, features: int) -> None:
    model = spread(nn.Sequential(nn.Linear(features, 3), nn.Tanh(), nn.Linear(3, 1)))
    explain(model, torch.randn(samples, features), torch.randn(baselines, features))


def test_samples_without_features() -> None:
    model = Function(lambda x: x.relu() * x.sigmoid())
    found = explain(model, torch.randn(3), torch.randn(4))
    assert found.values.shape == (3, 1)


def test_equal_input_and_baseline_give_zero() -> None:
    x = digits(2)
    for row in range(2):
        model = spread(FunctionNet())
        found = explain(model, x[row : row + 1], x[row : row + 1])
        assert not found.values.any()
