"""The spellings of one model: wrapped, compiled, exported, parametrized, copied, watched by hooks of the user's."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from checks import additivity_gap, assert_same, unchanged
from models import Function, spread
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import fuse_conv_bn_eval, parametrizations, parametrize, prune, stateless
from torch.overrides import TorchFunctionMode

from deepshap_ext import AdditivityError, DeepExplainer, ExplanationError, MixedSamplesError, UnsupportedOperationError


def net() -> nn.Sequential:
    return spread(nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3))).double()


def numbers(samples: int, *shape: int) -> Tensor:
    return torch.randn(samples, *(shape or (4,)), dtype=torch.float64)


def values(model: nn.Module, x: Tensor, background: Tensor, layer: nn.Module | None = None, **options: Any) -> Tensor:
    """The values, which must add up to what the model itself gives. (Some models cannot be copied, as ``explain`` does.)"""
    with unchanged(model, x, background):
        found = DeepExplainer(model if layer is None else (model, layer), background, **options).attribute(x)
    training = {module: module.training for module in model.modules()}
    with torch.no_grad():
        outputs = [model.eval()(rows.clone()) for rows in (x, background)]
    for module, mode in training.items():
        module.training = mode
    assert additivity_gap(found.values, *outputs) <= 1e-11
    return found.values


@pytest.fixture
def process_group() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "data parallel": nn.DataParallel,
    "averaged": torch.optim.swa_utils.AveragedModel,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "traced by fx": torch.fx.symbolic_trace,
    "copied": copy.deepcopy,
    "pickled": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_is_explained_as_what_it_wraps(name: str) -> None:
    if name == "data parallel" and torch.cuda.is_available():
        pytest.skip("would use the devices")
    model, x, background = net(), numbers(3), numbers(2)
    expected, of_layer = values(model, x, background), values(model, x, background, model[2])
    wrapped = WRAPPERS[name](model)
    assert_same(values(wrapped, x, background), expected, 1e-12)
    inner = next(module for path, module in wrapped.named_modules() if path.rpartition(".")[2] == "2")
    assert_same(values(wrapped, x, background, inner), of_layer, 1e-12)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_what_is_compiled_inside_a_model() -> None:
    model, x, background = net(), numbers(3), numbers(2)
    expected, of_layer = values(model, x, background), values(model, x, background, model[2])
    compiled = copy.deepcopy(model)
    compiled[2] = torch.compile(compiled[2], backend="eager")
    function = torch.compile(lambda x: model(x), backend="eager")
    in_place = copy.deepcopy(model)
    in_place.compile(backend="eager")
    for spelling in (compiled, Function(lambda _, x: function(x), model=model), in_place):
        # Before and after it was compiled for these shapes.
        assert_same(values(spelling, x, background), expected, 1e-12)
        spelling(x)
        assert_same(values(spelling, x, background), expected, 1e-12)
    assert_same(values(compiled, x, background, compiled[2]), of_layer, 1e-12)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_distributed_wrappers(process_group: None) -> None:
    model, x, background = net(), numbers(3), numbers(2)
    expected, of_layer = values(model, x, background), values(model, x, background, model[2])
    distributed = nn.parallel.DistributedDataParallel(model)
    assert_same(values(distributed, x, background), expected, 1e-12)
    assert_same(values(distributed, x, background, model[2]), of_layer, 1e-12)
    distributed.train()(x).sum().backward()
    assert model[0].weight.grad is not None
    partly = nn.Sequential(*model[:2], nn.parallel.DistributedDataParallel(model[2]), *model[3:])
    assert_same(values(partly, x, background), expected, 1e-12)
    for original in (False, True):
        sharded = FullyShardedDataParallel(
            copy.deepcopy(model).float(), device_id=torch.device("cpu"), use_orig_params=original
        )
        found = DeepExplainer(sharded, background.float()).attribute(x.float())
        assert_same(found.values, expected.float(), 1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_exported_programs() -> None:
    model, x, background = net(), numbers(3), numbers(2)
    expected = values(model, x, background)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    modules = torch.export.unflatten(program)
    for exported in (program.module(), program.run_decompositions().module(), modules, make_fx(model)(background)):
        found = DeepExplainer(exported, background).attribute(x)
        assert_same(found.values, expected, 1e-11)
    assert_same(
        DeepExplainer((modules, modules.get_submodule("2")), background).attribute(x).values,
        values(model, x, background, model[2]),
        1e-11,
    )
    with pytest.raises(TypeError, match=r"got ExportedProgram: explain its module\(\)"):
        DeepExplainer(program, background)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", ["scripted", "traced", "frozen"])
def test_torchscript_is_refused(kind: str, inside: bool) -> None:
    model, x = net(), numbers(3)
    scripted = torch.jit.trace(model, x) if kind == "traced" else torch.jit.script(model)
    scripted = torch.jit.freeze(scripted) if kind == "frozen" else scripted
    with pytest.raises(
        TypeError, match=rf"model{'.0' if inside else ''} is a TorchScript module, .* scripted or traced from"
    ):
        DeepExplainer(nn.Sequential(scripted) if inside else scripted, x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("dynamic", [True, False])
def test_quantized_modules_are_refused(dynamic: bool) -> None:
    model, x = net().float(), numbers(3).float()
    if dynamic:
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    else:
        prepared = nn.Sequential(torch.ao.quantization.QuantStub(), model, torch.ao.quantization.DeQuantStub()).eval()
        prepared.qconfig = torch.ao.quantization.get_default_qconfig("x86")
        prepared = torch.ao.quantization.prepare(prepared)
        prepared(x)
        quantized = torch.ao.quantization.convert(prepared)
    with pytest.raises(TypeError, match=r"model\.[\d.]+ is a quantized module, .* explain the module it was made from"):
        DeepExplainer(quantized, x)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda explainer: pickle.loads(pickle.dumps(explainer))])
def test_copies_of_an_explainer(copied: Callable[[DeepExplainer], DeepExplainer], used: bool) -> None:
    model, x, background = net(), numbers(3), numbers(2)
    explainer = DeepExplainer(model, background)
    if used:
        explainer.attribute(x)
    other = copied(explainer)
    expected = values(model, x, background)
    with torch.no_grad():
        model[0].weight.zero_()
    # The copy's model is its own.
    assert_same(other.attribute(x).values, expected, 1e-13)


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh() * 2


def _custom(layer: nn.Module) -> nn.Module:
    for name in ("weight", "bias", "weight"):
        parametrize.register_parametrization(layer, name, Symmetric())
    return layer


PARAMETRIZED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "weight norm of the whole": lambda layer: parametrizations.weight_norm(layer, dim=None),
    "old weight norm": nn.utils.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "old spectral norm": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "orthogonal by Cayley": lambda layer: parametrizations.orthogonal(layer, orthogonal_map="cayley"),
    "orthogonal by Householder": lambda layer: parametrizations.orthogonal(layer, orthogonal_map="householder"),
    "custom": _custom,
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.4),
    "pruned rows": lambda layer: prune.ln_structured(layer, "weight", 0.4, 2, 0),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*spectral_norm.*:FutureWarning")
@pytest.mark.parametrize("name", PARAMETRIZED)
def test_parametrized_weights_are_those_that_they_give(name: str) -> None:
    model, plain, x, background = net(), net(), numbers(3), numbers(2)
    model[0] = PARAMETRIZED[name](model[0])
    model.eval()(x)
    plain.load_state_dict(
        {f"{at}.{key}": getattr(model[at], key).detach() for at in (0, 2, 4) for key in ("weight", "bias")}
    )
    assert_same(values(model, x, background), values(plain, x, background), 1e-11)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_parametrized_recurrent_and_attention_weights() -> None:
    lstm = nn.utils.weight_norm(nn.LSTM(4, 3, batch_first=True), "weight_hh_l0")
    attention = parametrizations.weight_norm(nn.MultiheadAttention(4, 2, batch_first=True), "in_proj_weight")
    values(Function(lambda self, x: self.lstm(x)[0].flatten(1), lstm=lstm).double(), numbers(3, 3, 4), numbers(2, 3, 4))
    values(
        Function(lambda self, x: self.attention(x, x, x)[0].flatten(1), attention=attention).double(),
        numbers(3, 3, 4),
        numbers(2, 3, 4),
    )


def test_a_convolution_fused_with_its_norm() -> None:
    layers = spread(nn.Sequential(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten())).double()
    fused = nn.Sequential(fuse_conv_bn_eval(layers[0], layers[1]), *layers[2:])
    x, background = numbers(3, 2, 5), numbers(2, 2, 5)
    assert_same(values(fused, x, background), values(layers, x, background), 1e-11)


def _replaced(self: Any, x: Tensor) -> Tensor:
    return functional_call(self.linear, {"weight": self.linear.weight * 2, "bias": self.linear.bias}, (x,)).tanh()


def _stateless(self: Any, x: Tensor) -> Tensor:
    return stateless._functional_call(self.linear, {"weight": self.linear.weight * 2}, (x,)).tanh()


def _hyper(self: Any, x: Tensor) -> Tensor:
    """The weights depend on the input's sample, each in its own call."""
    weights = self.linear.weight * x.sigmoid().sum(1).view(-1, 1, 1)
    return torch.einsum("bi,boi->bo", x, weights).tanh()


@pytest.mark.parametrize("function", [_replaced, _stateless, _hyper])
def test_parameters_given_to_a_call(function: Callable[[Any, Tensor], Tensor]) -> None:
    values(Function(function, linear=nn.Linear(4, 5)).double(), numbers(3), numbers(2))


MEMBERS = [nn.Linear(4, 3).double() for _ in range(3)]


def _ensemble(inside: bool) -> Callable[[Any, Tensor], Tensor]:
    parameters, buffers = stack_module_state(MEMBERS)

    def run(x: Tensor) -> Tensor:
        def member(parameters: Any, buffers: Any) -> Tensor:
            found = functional_call(MEMBERS[0], (parameters, buffers), (x,))
            return found.tanh() if inside else found

        return vmap(member)(parameters, buffers).transpose(0, 1).flatten(1).tanh()

    return lambda _, x: run(x)


def test_linear_operations_inside_a_transform() -> None:
    for function in (_ensemble(False), lambda self, x: vmap(self.linear)(x).tanh()):
        values(Function(function, linear=nn.Linear(4, 5)).double(), numbers(3), numbers(2))


TRANSFORMED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "vmap": lambda _, x: vmap(lambda row: row.sigmoid() * row)(x),
    "vmap of a product": lambda _, x: vmap(lambda row: row * row)(x),
    "ensemble": _ensemble(True),
    "grad": lambda _, x: vmap(grad(lambda row: row.tanh().sum()))(x),
    "grad of the batch": lambda _, x: grad(lambda x: (x * x).sum())(x),
    "jacrev": lambda _, x: vmap(jacrev(torch.tanh))(x).flatten(1),
    "jvp": lambda _, x: jvp(torch.sin, (x,), (torch.ones_like(x),))[1],
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("name", TRANSFORMED)
def test_rules_inside_a_transform_are_refused_by_name(name: str) -> None:
    model = Function(TRANSFORMED[name], linear=nn.Linear(4, 5)).double()
    inside = r"in Function runs inside a transform of torch\.func \(vmap, grad, \.\.\.\), where its rule cannot"
    others = (
        r"runs grad, vjp, jacrev or hessian, transforms of torch|_make_dual in Function is forward-mode differentiation"
    )
    with pytest.raises(UnsupportedOperationError, match=rf"{inside}|{others}"):
        DeepExplainer(model, numbers(2))


def test_a_gradient_inside_the_forward_pass_is_refused_by_name() -> None:
    def function(x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            return x + torch.autograd.grad(y.tanh().sum(), y)[0]

    with pytest.raises(UnsupportedOperationError, match=r"differentiates through torch\.Tensor\.tanh in Function"):
        DeepExplainer(Function(function), numbers(2))


def test_hooks_that_change_what_a_module_is_given_or_gives() -> None:
    x, background = numbers(3), numbers(2)
    model, written = net(), Function(lambda self, x: self.net[1:](self.net[0](x.sin()).sigmoid() * 2), net=net())
    written.net.load_state_dict(model.state_dict())
    model[0].register_forward_pre_hook(lambda module, args: (args[0].sin(),))
    model[0].register_forward_hook(lambda module, args, output: output.sigmoid() * 2)
    assert_same(values(model, x, background), values(written, x, background), 1e-12)
    # A layer's tensors are those that its hooks leave.
    behind = Function(lambda self, x: self.net[1:](self.net[0](x).sigmoid() * 2), net=written.net)
    given = values(model, x, background, model[0])
    assert_same(given, values(behind, x.sin(), background.sin()), 1e-12)
    output = DeepExplainer((model, model[0]), background, at="output").attribute(x)
    with torch.no_grad():
        hooked = [model[0](rows) for rows in (x, background)]
    assert_same(output.values, values(model[1:], *hooked), 1e-12)


def test_hooks_that_watch() -> None:
    x, background, seen = numbers(3), numbers(2), []
    model = net()
    expected = values(model, x, background)
    model[0].register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    model[0].register_full_backward_hook(lambda module, grads, outputs: (grads[0] * 3,))
    model[0].weight.register_hook(lambda gradient: gradient * 2)
    handle = nn.modules.module.register_module_full_backward_hook(lambda module, grads, outputs: None)
    with handle:
        assert_same(values(model, x, background), expected, 0)
        assert handle.id in nn.modules.module._global_backward_hooks


def test_hooks_on_tensors_that_a_model_makes_as_it_runs() -> None:
    seen: list[Tensor] = []

    def clipped(self: Any, x: Tensor) -> Tensor:
        hidden = self.net[0](x)
        for hooked in (hidden, self.net[0].weight):
            if torch.is_grad_enabled():
                hooked.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
                hooked.register_hook(lambda gradient: seen.append(gradient))
        return self.net[1:](hidden)

    x, background, model = numbers(3), numbers(2), net()
    assert_same(values(Function(clipped, net=model), x, background), values(model, x, background), 1e-12)
    assert not seen


def test_hooks_of_all_modules() -> None:
    model, x, background = net(), numbers(3), numbers(2)
    plain = values(model, x, background)
    with nn.modules.module.register_module_forward_hook(
        lambda module, args, output: output * 1.5 if module is model[-1] else None
    ):
        assert_same(values(model, x, background), plain * 1.5, 1e-12)


class Counting(nn.Module):
    """Counts its calls in a buffer, in place, and keeps a mean of what it has seen."""

    def __init__(self, used: bool) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(4, dtype=torch.float64))
        self.used, self.calls = used, 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x.tanh() * self.count * self.calls if self.used else x.tanh()


@pytest.mark.parametrize("used", [False, True])
def test_buffers_written_in_the_forward_pass(used: bool) -> None:
    """Each pass is the model's first one."""
    x, background = numbers(3), numbers(2)
    model = nn.Sequential(Counting(used), nn.Linear(4, 2)).double()
    found = DeepExplainer(model, background).attribute(x)
    plain = nn.Sequential(nn.Tanh(), model[1])
    assert_same(found.values, values(plain, x, background), 1e-12)
    assert model[0].count == model[0].calls == 0 and not model[0].mean.any()


def test_a_statistic_of_the_batch_written_into_a_buffer_and_used_is_refused() -> None:
    def function(self: Any, x: Tensor) -> Tensor:
        self.norm.running_mean = x.detach().mean(0)
        return self.norm(x).tanh()

    with pytest.raises((MixedSamplesError, UnsupportedOperationError), match=r"batch_norm.*(changes what|depends on)"):
        DeepExplainer(Function(function, norm=nn.BatchNorm1d(4)).double(), numbers(3))


def test_caches_and_lists_of_a_module_are_as_they_were() -> None:
    def function(self: Any, x: Tensor) -> Tensor:
        self.seen.append(x.detach())
        self.names.add(len(self.seen))
        if "weight" not in self.cache:
            self.cache["weight"] = self.linear.weight.softmax(0)
        return (x @ self.cache["weight"].mT * len(self.seen)).tanh()

    model, x, background = Function(function, linear=nn.Linear(4, 2)).double(), numbers(3), numbers(2)
    model.cache, model.seen, model.names = {}, [], set()
    found = DeepExplainer(model, background).attribute(x)
    assert model.cache == {} and model.seen == [] and model.names == set()
    plain = Function(lambda self, x: (x @ self.linear.weight.softmax(0).mT).tanh(), linear=model.linear)
    assert_same(found.values, values(plain, x, background), 1e-12)


class Stateful(nn.Module):
    """A recurrent model that goes on where the batch before ended."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.state = nn.LSTM(4, 3, batch_first=True), None

    def forward(self, x: Tensor) -> Tensor:
        y, state = self.lstm(x, self.state)
        self.state = tuple(part.detach() for part in state)
        return y.flatten(1)


def test_a_state_kept_between_batches_starts_anew() -> None:
    model, x, background = Stateful().double(), numbers(3, 2, 4), numbers(2, 2, 4)
    found = DeepExplainer(model, background).attribute(x)
    assert model.state is None
    plain = Function(lambda self, x: self.lstm(x)[0].flatten(1), lstm=model.lstm)
    assert_same(found.values, values(plain, x, background), 1e-12)


@pytest.mark.parametrize("once", [False, True])
def test_a_model_that_halves_its_weights_in_its_first_pass(once: bool) -> None:
    """RWKV does so with the weights of its later layers, in eval mode. Every pass is a first one for a model that was not run before."""

    def function(self: Any, x: Tensor) -> Tensor:
        if not getattr(self, "halved", False):
            with torch.no_grad():
                self.linear.weight.div_(2)
            self.halved = True
        return self.linear(x).tanh()

    model, x, background = Function(function, linear=nn.Linear(4, 2)).double(), numbers(3), numbers(2)
    if once:
        model(x)
    found = values(model, x, background)
    model(x)
    assert_same(found, values(model, x, background))


def test_containers_of_parameters_and_what_is_without_gradients() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList([nn.Parameter(torch.randn(4, 4)) for _ in range(2)])
            self.scales = nn.ParameterDict({"a": nn.Parameter(torch.ones(4)), "b": nn.Parameter(torch.rand(4))})

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                weights = [weight.softmax(0) for weight in self.weights]
            for weight, scale in zip(weights, self.scales.values(), strict=True):
                x = F.mish(x @ weight) * scale
            return x

    values(Model().double(), numbers(3), numbers(2))


@pytest.mark.parametrize("decorated", [torch.no_grad(), torch.inference_mode()])
def test_a_forward_pass_without_gradients_is_explained(decorated: Any) -> None:
    values(
        Function(decorated(lambda self, x: self.linear(x).tanh()), linear=nn.Linear(4, 2)).double(),
        numbers(3),
        numbers(2),
    )


class Same(torch.Tensor):
    """A subclass that changes nothing."""


class Doubling(torch.Tensor):
    """A subclass with a function of its own."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(function, types, args, kwargs or {})
        return result * 2 if function is torch.tanh else result


class DoublingMode(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        return result * 2 if function is torch.tanh else result


def _under_a_mode(x: Tensor) -> Tensor:
    with DoublingMode():
        return torch.tanh(x)


def test_tensor_subclasses_and_modes_of_the_users() -> None:
    """What calls torch itself is followed there; what changes results on the way past the explainer does not add up, and is told."""
    x, background = numbers(3), numbers(2)
    tanh = values(nn.Tanh(), x, background)
    same = Function(lambda x: torch.tanh(x.as_subclass(Same)).as_subclass(torch.Tensor))
    assert_same(values(same, x, background), tanh, 0)
    assert_same(values(Function(_under_a_mode), x, background), tanh * 2, 1e-13)
    weight = Function(lambda self, x: x @ self.weight)
    weight.register_parameter("weight", nn.Parameter(numbers(4, 2).as_subclass(Same)))
    weight.function = lambda x: torch.tanh(x @ weight.weight)
    assert DeepExplainer(weight, background).attribute(x).convergence_delta.abs().max() < 1e-12
    doubling = Function(lambda x: torch.tanh(x.as_subclass(Doubling)).as_subclass(torch.Tensor))
    with pytest.raises(AdditivityError, match=r"0\.5 of its output difference"):
        DeepExplainer(doubling, background).attribute(x)


def test_a_class_that_wraps_a_tensor_hides_what_it_computes() -> None:
    class Wrapper:
        def __init__(self, tensor: Tensor) -> None:
            self.tensor = tensor

        @classmethod
        def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return cls(function(*[arg.tensor if isinstance(arg, cls) else arg for arg in args], **(kwargs or {})))

    with pytest.raises(ExplanationError, match="TanhBackward0 where its operations cannot be followed"):
        DeepExplainer(Function(lambda x: torch.tanh(Wrapper(x)).tensor), numbers(3))
