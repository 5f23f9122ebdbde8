"""What only a GPU can show: its values are the CPU's, it can run out of memory, it has streams, and TF32."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import explainable, hidden
from models import FunctionNet, digits, spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, Explainer, ops

GPU = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))
on_gpu = pytest.mark.parametrize("device", [GPU])
#: How far values may be from the CPU's in float64, relative to the largest.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 2e-1}


class FunctionOf(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(3, 8, batch_first=True), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Pooled(nn.Module):
    """Overlapping windows, batch norm, a skip connection and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.gelu(self.norm(self.first(x))), 3, stride=2, padding=1)
        return F.softmax(self.head((x + F.silu(self.second(x))).mean((2, 3))), 1)


class Dilated(nn.Module):
    """Convolutions along sequences, each added to what it reads, as in models of genomes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv1d(4, 8, 5, padding=2), nn.Linear(8, 2)
        self.blocks = nn.ModuleList(nn.Conv1d(8, 8, 3, padding=2**n, dilation=2**n) for n in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        for block in self.blocks:
            x = x + F.relu(block(x))
        return self.head(x.mean(2))


class Branches(nn.Module):
    """Convolutions of planes, two of which read the same tensor, as in a residual network; some of each channel by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(1, 6, 3), nn.Linear(12, 2)
        self.each, self.wider, self.beside = nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 12, 1), nn.Conv2d(6, 12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        x = F.relu(self.wider(F.relu6(self.each(x))) + self.beside(x))
        return self.head(x.mean((2, 3)))


class Volumes(nn.Module):
    """Convolutions of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv3d(1, 4, 3), nn.Conv3d(4, 4, (1, 1, 2)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x.unflatten(2, (3, 3))))
        return self.head(F.relu(self.second(x)).mean((2, 3, 4)))


class Grouped(nn.Module):
    """Convolutions of groups of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        return self.head(F.relu(self.second(x) + x[:, :, 1:-1, 1:-1]).mean((2, 3)))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "functions": (FunctionNet, (1, 9, 9)),
    "pooled": (Pooled, (1, 9, 9)),
    "recurrent": (Recurrent, (5, 3)),
    "dilated": (Dilated, (4, 24)),
    "branches": (Branches, (1, 9, 9)),
    "volumes": (Volumes, (1, 9, 9)),
    "grouped": (Grouped, (1, 9, 9)),
}


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found.double().cpu() - expected.double().cpu()).abs().max() / expected.double().abs().max())


@contextmanager
def float32_by(precision: str) -> Iterator[None]:
    """Convolutions and matrix products of float32 on the GPU in ``"ieee"`` or in ``"tf32"``."""
    backends = torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = precision
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


def job(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A model, inputs and baselines, in float64 on the CPU; the same every time."""
    torch.manual_seed(0)
    make, shape = MODELS[name]
    return spread(make()).double(), torch.randn(4, *shape).double(), torch.randn(6, *shape).double()


@pytest.mark.parametrize("rules", ["deeplift", "shapley"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=lambda dtype: str(dtype)[6:])
@pytest.mark.parametrize("name", MODELS)
@on_gpu
def test_values_are_those_of_the_cpu_in_float64(device: str, name: str, dtype: torch.dtype, rules: str) -> None:
    model, x, background = job(name)
    expected = DeepExplainer(model, background, rules=rules).attribute(x)
    with float32_by("ieee"):
        model, x, background = (one.to(device, dtype) for one in job(name))
        explainer = DeepExplainer(model, background, rules=rules, additivity_tolerance=TOLERANCES[dtype])
        found = explainer.attribute(x, standard_error=True)
    assert found.values.device.type == device
    assert distance(found.values, expected.values) < TOLERANCES[dtype]


@pytest.mark.parametrize("pairing", ["grid", "aligned"])
@pytest.mark.parametrize("own", [False, True])
@on_gpu
def test_what_the_native_explainer_gives_is_what_it_gives_on_the_cpu(device: str, own: bool, pairing: Any) -> None:
    """Weights of baselines, mean multipliers, combinations and single baselines."""

    def found(device: str) -> list[Tensor]:
        model, x, baselines = (one.to(device) for one in job("pooled"))
        options = {"baselines": baselines.expand(4, *baselines.shape) if own else baselines, "pairing": pairing}
        explainer = Explainer(model, batch_size=13)
        weighted = explainer.attribute(
            x, weights=[1, 2, 3, 1, 2, 0.5], standard_error=True, multipliers=True, activations=True, **options
        )
        each = explainer.attribute(x, lambda outputs: outputs.argmax(1), per_baseline=True, multipliers=True, **options)
        combined = explainer.attribute(x, 1, combine=lambda m, x, r: (m * (x - r)).abs().flatten(1), **options)
        named = [*vars(weighted).items(), *vars(each).items(), ("values", combined.values)]
        return [value for name, value in named if value is not None and name != "convergence_delta"]

    for one, other in zip(found(device), found("cpu"), strict=True):
        assert one.device.type == device
        assert distance(one, other) < 1e-10


@pytest.mark.parametrize("function", [F.hardswish, F.hardsigmoid])
@on_gpu
def test_hard_gates_in_float64_are_those_that_torch_computes(device: str, function: Callable[[Tensor], Tensor]) -> None:
    """Its kernels multiply by one sixth in float, which is 3e-8 off."""
    x, r = (3 * torch.randn(50, 8, dtype=torch.float64, device=device) for _ in range(2))
    model = FunctionOf(lambda x: function(x).sum(1, keepdim=True))
    found = DeepExplainer(model, r[:1]).attribute(x, baselines=r.unsqueeze(1)).values[..., 0]
    torch.testing.assert_close(found, function(x) - function(r), rtol=1e-13, atol=1e-14)


class Coded(nn.Module):
    """Lookups of single codes and of pairs, and a column of codes among numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.pairs = nn.Embedding(9, 4), nn.Parameter(torch.randn(9, 9, 4))

    def forward(self, ids: Tensor, table: Tensor) -> Tensor:
        hidden = self.words(ids) + self.pairs[ids, ids.roll(1, 1)] + self.words(table[:, :1].round().long())
        return (hidden.tanh().mean(1) * table[:, 1:]).sum(1, keepdim=True)


@on_gpu
def test_codes_have_the_values_of_the_cpu(device: str) -> None:
    model = Coded().double()
    tables = [torch.cat([torch.randint(9, (rows, 1)), torch.randn(rows, 4)], 1).double() for rows in (4, 6)]
    data = [[torch.randint(9, (rows, 5)), table] for rows, table in zip((4, 6), tables, strict=True)]
    expected = DeepExplainer(model, data[1]).attribute(data[0]).values
    x, background = ([tensor.to(device) for tensor in tensors] for tensors in data)
    found = DeepExplainer(model.to(device), background).attribute(x).values
    assert all(distance(*both) < 1e-10 for both in zip(found, expected, strict=True))


@pytest.mark.parametrize("pairing", ["aligned", "per_sample"])
@on_gpu
def test_the_other_pairings(device: str, pairing: str) -> None:
    model, x, background = job("pooled")
    own = background.expand(len(x), *background.shape)
    expected = DeepExplainer(model, background).attribute(x).values
    model, x, background = (one.to(device) for one in job("pooled"))
    explainer = DeepExplainer(model, background)
    options = {"pairing": "aligned"} if pairing == "aligned" else {"baselines": own.to(device)}
    assert distance(explainer.attribute(x, **options).values, expected) < TOLERANCES[torch.float64]


@pytest.mark.parametrize("name", ["ResNet", "ViT", "Bert", "Llama", "Mamba"])
@on_gpu
def test_transformers_add_up(device: str, name: str) -> None:
    model, shape = explainable(name)
    with float32_by("ieee"):
        explainer = DeepExplainer(model.to(device), torch.randn(4, *shape, device=device), output=hidden)
        found = explainer.attribute(torch.randn(3, *shape, device=device))
    assert found.values.isfinite().all() and found.values.abs().max() > 0


@on_gpu
def test_tf32_costs_accuracy_but_not_sense(device: str) -> None:
    model, x, background = job("functions")
    expected = DeepExplainer(model, background).attribute(x).values
    model, x, background = (one.to(device, torch.float32) for one in job("functions"))
    with float32_by("tf32"):
        explainer = DeepExplainer(model, background)
        found = explainer.attribute(x, check_additivity=False).values
    assert distance(found, expected) < 3e-2


@on_gpu
def test_running_out_of_memory_halves_the_chunks(device: str) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 2)).to(device, torch.float64)
    x, background = (torch.randn(32, 3, 32, 32, dtype=torch.float64, device=device) for _ in range(2))
    expected = DeepExplainer(model, background).attribute(x, target=0).values
    torch.cuda.empty_cache()
    failures = torch.cuda.memory_stats()["num_ooms"]
    total = torch.cuda.get_device_properties(0).total_memory
    # All pairs need more than 256 MiB for one tensor; the explainer is told that it may take a tebibyte.
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        found = DeepExplainer(model, background, max_memory=2**40).attribute(x, target=0).values
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.memory_stats()["num_ooms"] > failures
    assert distance(found, expected) < 1e-13


def _operands(device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad, x, r = (
        torch.randn(n, *shape, device=device) for n, shape in ((6, (4, 3, 8, 8)), (4, (3, 8, 8)), (3, (3, 8, 8)))
    )
    return grad, x, r, torch.arange(3, device=device).repeat_interleave(2)


def _maxpool(grad: Tensor, x: Tensor, r: Tensor, rows: Tensor) -> Tensor:
    (_, x_at), (_, r_at) = (F.max_pool2d(side, 2, return_indices=True) for side in (x, r))
    return ops.maxpool(grad[..., :4, :4].contiguous(), x, r, x_at, r_at, rows, 2, 1, 4, "grid")


CALLS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "rescale": lambda grad, x, r, rows: ops.rescale(grad, x, r, rows, "gelu", (), 1, 4, "grid"),
    "product": lambda grad, x, r, rows: ops.product(grad, x, r, x, r, rows, 1, 4, "grid")[0],
    "softmax": lambda grad, x, r, rows: ops.softmax(
        grad, x.log_softmax(3), r.log_softmax(3), rows, 3, False, 1, 4, "grid"
    ),
    "shapley_max": lambda grad, x, r, rows: ops.shapley_max(grad[..., 0].contiguous(), x, r, rows, 1, 4, "grid"),
    "contribution": lambda grad, x, r, rows: ops.contribution(
        grad.unflatten(0, (3, 2)), x, r, rows[::2], torch.ones(3, dtype=torch.float64, device=x.device), 1, 4, "grid"
    )[0],
    "maxpool": _maxpool,
}


@pytest.mark.parametrize("name", CALLS)
@on_gpu
def test_kernels_run_on_the_current_stream(device: str, name: str) -> None:
    operands = _operands(device)
    expected = CALLS[name](*operands)
    late = [torch.zeros_like(one) for one in operands]
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(100_000_000)  # about 50 ms, in which a kernel on another stream would read the zeros
        for one, value in zip(late, operands, strict=True):
            one.copy_(value)
        found = CALLS[name](*late)
    torch.cuda.synchronize()
    assert torch.equal(found, expected)


@on_gpu
def test_two_streams_at_once(device: str) -> None:
    model, x, background = (one.to(device) for one in job("pooled"))
    explainers = [DeepExplainer(model, background) for _ in range(2)]
    inputs = [x, x.flip(0)]
    expected = [explainer.attribute(one).values for explainer, one in zip(explainers, inputs, strict=True)]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in range(2)]
    found: list[list[Tensor]] = [[], []]
    for _ in range(5):
        for number, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                found[number].append(explainers[number].attribute(inputs[number]).values)
    torch.cuda.synchronize()
    for values, wanted in zip(found, expected, strict=True):
        assert all(distance(one, wanted) < 1e-12 for one in values)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", MODELS)
@on_gpu
def test_replayed_values_are_the_eager_ones(device: str, name: str, own: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, baselines = (one.to(device) for one in job(name))
    baselines = torch.stack([baselines, baselines.flip(0), baselines / 2, -baselines]) if own else baselines
    replays = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: replays.append(graph) or replay(graph))
    assert_replayed("replay", model, x, baselines)
    assert len(replays) > len(set(replays)) >= 3


@pytest.mark.parametrize("name", ["pooled", "dilated", "branches", "volumes", "grouped"])
@on_gpu
def test_compiled_values_are_the_eager_ones(device: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torch")
        assert_replayed(True, *(one.to(device) for one in job(name)))


def assert_replayed(compile: Any, model: nn.Module, x: Tensor, baselines: Tensor) -> None:
    eager, replayed = Explainer(model), Explainer(model, compile=compile)
    for factor in (1, 2, -1):
        expected = eager.attribute(factor * x, 0, baselines=baselines / factor, standard_error=True)
        found = replayed.attribute(factor * x, 0, baselines=baselines / factor, standard_error=True)
        for one, other in ((found.values, expected.values), (found.standard_error, expected.standard_error)):
            assert distance(one, other) < 1e-12


@on_gpu
def test_a_replay_in_a_replay(device: str) -> None:
    """The function that chooses the target explains other inputs with the same explainer."""
    model, x, baselines = (one.to(device) for one in job("pooled"))
    explainer = Explainer(model, compile="replay")

    def target(outputs: Tensor) -> Tensor:
        explainer.attribute(-x, 0, baselines=baselines)
        return outputs.argmax(1)

    expected = Explainer(model).attribute(x, lambda outputs: outputs.argmax(1), baselines=baselines).values
    for _ in range(3):
        assert distance(explainer.attribute(x, target, baselines=baselines).values, expected) < 1e-12


@on_gpu
def test_what_was_replayed_stays_when_more_is(device: str) -> None:
    model, x, baselines = (one.to(device) for one in job("pooled"))
    explainer = Explainer(model, compile="replay")
    explainer.attribute(x, baselines=baselines)
    first = explainer.attribute(x, baselines=baselines, activations=True)
    kept = [first.values.clone(), first.output.clone(), first.activations.clone()]
    explainer.attribute(-x, baselines=baselines / 2, activations=True)
    assert all(map(torch.equal, kept, (first.values, first.output, first.activations)))


@on_gpu
def test_digits_by_shap_values(device: str) -> None:
    model, x, background = spread(FunctionNet()).to(device), digits(3), digits(5)
    with float32_by("ieee"):
        values = DeepExplainer(model, background.to(device)).shap_values(x)  # the samples may lie anywhere
    assert values.shape == (3, 1, 9, 9, 5)


@on_gpu
def test_what_cuda_does_not_record_is_launched_kernel_by_kernel(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, baselines = (one.to(device) for one in job("pooled"))
    expected = Explainer(model).attribute(-x, baselines=baselines).values
    explainer = Explainer(model, compile="replay")
    explainer.attribute(x, baselines=baselines)

    class Recording(torch.cuda.graph):  # type: ignore[misc]
        def __exit__(self, *raised: Any) -> None:
            super().__exit__(*raised)
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda, "graph", Recording)
    stream = torch.cuda.current_stream()
    with pytest.warns(UserWarning, match="CUDA does not record it .RuntimeError: operation not permitted"):
        found = explainer.attribute(-x, baselines=baselines).values
    assert torch.cuda.current_stream() == stream
    assert distance(found, expected) < 1e-12
    assert distance(explainer.attribute(-x, baselines=baselines).values, expected) < 1e-12
