"""Memory: what does not fit is explained in smaller pieces, with the same values."""

import gc
import platform
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import assert_same, unchanged
from models import FunctionNet, TwoInputs, digits, spread
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

import deepshap_ext
from deepshap_ext import Application, DeepExplainer, Explainer, engine, ops, pairs


def _cuda_error() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def _cpu_error() -> Exception:
    return RuntimeError(
        "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
    )


#: Not attributes of the models: the explainer leaves those as they were.
FAILURES: list[int] = []
MADE: list[dict[str, StorageWeakRef]] = []


class Limited(nn.Module):
    """Runs out of memory for batches of more than ``rows``; notes it in ``FAILURES``."""

    def __init__(self, inner: nn.Module, rows: int, error: Callable[[], Exception] = _cuda_error) -> None:
        super().__init__()
        self.inner, self.rows, self.error = inner, rows, error

    def forward(self, *inputs: Tensor) -> Tensor:
        if len(inputs[0]) > self.rows:
            FAILURES.append(len(inputs[0]))
            raise self.error()
        return self.inner(*inputs)


@pytest.mark.parametrize(
    ("pairing", "rows", "error"),
    [
        ("grid", 3, _cuda_error),
        ("grid", 7, _cpu_error),
        ("aligned", 3, MemoryError),
        ("aligned", 7, _cuda_error),
        ("per_sample", 4, _cuda_error),
    ],
)
def test_batches_are_halved_until_they_fit(pairing: str, rows: int, error: Callable[[], Exception]) -> None:
    model, x, background = spread(FunctionNet()).double(), digits(9, torch.float64), digits(3, torch.float64)
    options: dict[str, Any] = {"pairing": pairing}
    if pairing == "per_sample":
        options = {"baselines": torch.randn(9, 3, 1, 9, 9).double()}
    expected = DeepExplainer(model, background).attribute(x, standard_error=True, **options)
    limited = Limited(model, rows, error)
    FAILURES.clear()
    with unchanged(limited, x, background):
        found = DeepExplainer(limited, background).attribute(x, standard_error=True, **options)
    assert FAILURES
    assert_same(found.values, expected.values)
    assert_same(found.standard_error, expected.standard_error, 1e-12)
    assert_same(found.expected_value, expected.expected_value)
    assert found.output.shape == expected.output.shape


@pytest.mark.slow
def test_a_background_that_does_not_fit_at_once() -> None:
    model, x, background = spread(FunctionNet()).double(), digits(2, torch.float64), digits(40, torch.float64)
    expected = DeepExplainer(model, background)
    limited = DeepExplainer(Limited(model, 7), background)
    assert_same(torch.as_tensor(limited.expected_value), torch.as_tensor(expected.expected_value))
    assert_same(limited.attribute(x).values, expected.attribute(x).values)


def test_several_inputs_that_do_not_fit_at_once() -> None:
    model = spread(TwoInputs()).double()
    x = [torch.randn(10, 2, 8).double(), torch.randn(10, 4).double()]
    background = [torch.randn(3, 2, 8).double(), torch.randn(3, 4).double()]
    expected = DeepExplainer(model, background).attribute(x, list(range(3)) * 3 + [0])
    assert_same(
        DeepExplainer(Limited(model, 4), background).attribute(x, list(range(3)) * 3 + [0]).values, expected.values
    )


def test_one_pair_that_does_not_fit_is_an_error() -> None:
    class Full(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.full = nn.Linear(4, 2), False

        def forward(self, x: Tensor) -> Tensor:
            if self.full:
                raise _cuda_error()
            return self.fc(x)

    model, x, background = Full(), torch.randn(5, 4), torch.randn(3, 4)
    explainer = DeepExplainer(model, background)
    model.full = True
    with (
        unchanged(model, x, background),
        pytest.raises(deepshap_ext.OutOfMemoryError, match=r"do(es)? not fit into memory"),
    ):
        explainer.attribute(x)
    model.full = False
    assert explainer.attribute(x).values.shape == (5, 4, 2)


def test_a_model_that_never_fits_is_an_error() -> None:
    model = Limited(nn.Linear(4, 2), 0)
    with unchanged(model.inner), pytest.raises(deepshap_ext.OutOfMemoryError):
        DeepExplainer(model, torch.ones(3, 4))


class Attends(nn.Module):
    """Attention by hand, through an identity that a rule of the test's watches. ``MADE``: what the latest pass computed on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.identity, self.head = nn.Linear(6, 18), nn.Identity(), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        q, k, v = qkv.chunk(3, -1)
        scores = q @ k.mT
        weights = scores.softmax(-1)
        means = weights @ v / weights.sum(-1, keepdim=True).sqrt()
        MADE[:] = [{name: StorageWeakRef(t.untyped_storage()) for name, t in {"qkv": qkv, "scores": scores}.items()}]
        return self.head(self.identity(means).mean(1))


def test_what_no_rule_reads_is_gone_in_the_backward() -> None:
    model, alive = Attends(), []

    def identity(context: Any, module: nn.Module, x: Tensor) -> Application:
        def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
            alive.extend(name for name, storage in MADE[0].items() if not storage.expired())
            return [grad]

        return Application([x], lambda x: (x.clone(), []), multipliers)

    with deepshap_ext.register_rule(nn.Identity, identity):
        DeepExplainer(model, torch.randn(2, 4, 6)).attribute(torch.randn(3, 4, 6), target=0)
    assert MADE
    assert alive == []


def test_an_operation_without_memory_for_its_result_says_so() -> None:
    # More than any address space holds; the operands are one element over and over.
    grad, rows = torch.ones(1).expand(2**44, 1, 4), torch.zeros(1, dtype=torch.int64).expand(2**44)
    with pytest.raises(MemoryError, match=r"no memory for a tensor of 70368744177664 elements"):
        ops.rescale(grad, torch.ones(1, 4), torch.zeros(1, 4), rows, "relu", (), 1, 1, "grid")


def test_out_of_memory_in_the_backward() -> None:
    """The pair pass is what needs most: its first attempts fail here."""
    limit = {"left": 2}

    model, x, background = spread(FunctionNet()).double(), digits(6, torch.float64), digits(5, torch.float64)
    explainer = DeepExplainer(model, background)
    expected = explainer.attribute(x).values
    plain = pairs._engine_run_backward

    def backward(*args: Any, **kwargs: Any) -> Any:
        if limit["left"]:
            limit["left"] -= 1
            raise _cuda_error()
        return plain(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "_engine_run_backward", backward)
        found = explainer.attribute(x).values
    assert limit["left"] == 0
    assert_same(found, expected)


def test_what_is_free_is_looked_at_for_large_work_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def free(device: torch.device) -> int:
        raise AssertionError("looked at")

    model, explained = nn.Sequential(nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, 1)), torch.randn(200, 1000)
    explainer = Explainer(model)
    explainer.attribute(explained[:2], baselines=explained[:3])
    monkeypatch.setattr(engine, "available_memory", free)
    explainer.attribute(explained[:2], baselines=explained[:3])
    with pytest.raises(AssertionError, match="looked at"):
        explainer.attribute(explained, baselines=explained)


def test_other_errors_are_not_retried() -> None:
    calls = []

    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.fail = nn.Linear(4, 2), False

        def forward(self, x: Tensor) -> Tensor:
            if self.fail:
                calls.append(len(x))
                raise RuntimeError("mine")
            return self.fc(x)

    model = Fails()
    explainer = DeepExplainer(model, torch.randn(3, 4))
    model.fail = True
    with pytest.raises(RuntimeError, match="mine"):
        explainer.attribute(torch.randn(5, 4))
    # The explanation's own run, and those of the plain model on X, which tell whose error it is and whether a dimension is missing.
    assert len(calls) == 3 and calls[1] == 5


def test_max_memory_bounds_the_rows_that_run_at_once() -> None:
    class Watched(FunctionNet):
        def forward(self, x: Tensor) -> Tensor:
            rows.append(len(x))
            return super().forward(x)

    rows: list[int] = []
    model = spread(Watched())
    x, background = digits(4), digits(8)
    whole = DeepExplainer(model, background).attribute(x).values
    assert max(rows) == 8
    rows.clear()
    explainer = DeepExplainer(model, background, max_memory=1)
    assert_same(explainer.attribute(x).values, whole)
    assert max(rows) <= 3  # the probe's


def test_an_explainer_is_made_in_memory_for_six_rows() -> None:
    class Watched(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            scaled = 2 * x
            held.append((len(x), StorageWeakRef(scaled.untyped_storage())))
            at_once.append(sum(rows for rows, storage in held if not storage.expired()))
            return scaled.sigmoid().sum(1)

    held: list[tuple[int, StorageWeakRef]] = []
    at_once: list[int] = []
    DeepExplainer(Watched(), torch.randn(4, 3))
    assert max(at_once) == 6


@pytest.mark.parametrize("max_memory", [200_000, 1_000_000])
def test_max_memory_is_kept_to(max_memory: int) -> None:
    """What the passes take is measured on other numbers than the plan was made from."""
    from deepshap_ext.memory import MemoryMeter

    model, x, background = spread(FunctionNet()), digits(20), digits(15)
    explainer = DeepExplainer(model, background, max_memory=max_memory)
    with MemoryMeter() as meter:
        found = explainer.attribute(x)
    results = sum(t.nbytes for t in (found.values, found.output, found.expected_value, found.convergence_delta))
    # Results, their float64 sums and the copies that join them are not the passes'.
    assert meter.peak <= 1.5 * max_memory + 6 * results


MANY = """
import sys, torch
from torch import nn
from deepshap_ext import DeepExplainer

def peak():  # not ru_maxrss, which begins with what the process that started this one had
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

torch.set_num_threads(1)
torch.manual_seed(0)
what, count = sys.argv[1], int(sys.argv[2])
if what == "inputs":
    model, x = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 1)), torch.randn(count, 20)
elif what == "outputs":
    model, x = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, count)), torch.randn(2, 20)
elif what == "outputs behind a softmax":
    model, x = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, count), nn.Softmax(1)), torch.randn(2, 20)
else:
    class Routed(nn.Module):
        def forward(self, x):
            y = x[:, :1].expand(-1, 200_000).tanh().sin().tanh().mean(1, keepdim=True)
            out, gate = torch.zeros_like(y), x.detach()[:, 0] > 0
            for rows in (gate.nonzero()[:, 0], gate.logical_not().nonzero()[:, 0]):
                if rows.numel():
                    out = out.index_put((rows,), torch.tanh(y[rows]))
            return out
    model, x = Routed(), torch.rand(count, 20) + 0.1
explainer = DeepExplainer(model, torch.rand(10 if what != "routed" else 1, 20) + 0.1, max_memory=100 << 20)
explainer.attribute(x[:2], target=0)
before = peak()
found = explainer.attribute(x)
results = found.values.nbytes + 10 * found.output.nbytes
print(peak() - before - results)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="measured on glibc's allocator")
@pytest.mark.parametrize(
    ("what", "count"),
    [
        ("inputs", 50_000),
        ("inputs", 200_000),
        ("outputs", 10_000),
        ("outputs behind a softmax", 3_000),
        ("routed", 100),
    ],
)
def test_max_memory_bounds_a_process(what: str, count: int) -> None:
    """By what its resident memory grows, but for the results; 100 MiB are allowed."""
    done = subprocess.run([sys.executable, "-c", MANY, what, str(count)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 110 << 20


ADDRESSES = """
import resource, sys, torch
from torch import nn
from deepshap_ext import DeepExplainer, OutOfMemoryError

torch.set_num_threads(1)
model, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(4, 5)
explainer = DeepExplainer(model, torch.randn(6, 5), max_memory=10 << 20)
many = torch.randn(2_000_000, 5)
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (60 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
print(explainer.shap_values(x).shape)
try:
    explainer.shap_values(many)
except OutOfMemoryError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's addresses as Linux does")
def test_a_process_with_few_addresses_left() -> None:
    done = subprocess.run([sys.executable, "-c", ADDRESSES], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    shape, error = done.stdout.splitlines()[:2]
    assert shape == "(4, 5, 3)"
    assert "does not fit into memory" in error


FRESH_PAGES = """
import resource, torch
from torch import nn
from deepshap_ext import DeepExplainer

torch.set_num_threads(1)
convolutions = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
explainer = DeepExplainer(nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(512, 10)), torch.randn(100, 1, 8, 8))
x = torch.randn(20, 1, 8, 8)

def fresh():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    explainer.attribute(x)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(sorted(fresh() for _ in range(9))[4])
data = [torch.ones(2 << 20) for _ in range(40)][::2]
print(sorted(fresh() for _ in range(9))[4])
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc's allocator")
def test_explaining_again_takes_few_fresh_pages() -> None:
    """Alone in its process, and among data that the process holds. Without care the median is 25,000 pages and more."""
    done = subprocess.run([sys.executable, "-c", FRESH_PAGES], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert max(map(int, done.stdout.split())) <= 16_000


def test_nothing_is_held_after_an_explanation() -> None:
    def tensors() -> list[Tensor]:
        gc.collect()
        return [each for each in gc.get_objects() if issubclass(type(each), Tensor)]

    others = tensors()  # of other tests: held here, so that none of them goes while others are counted
    explainer, x = DeepExplainer(spread(FunctionNet()), digits(3)), digits(4)

    def explain() -> None:
        explainer.attribute(x)
        explainer.shap_values(x, ranked_outputs=1)
        with pytest.raises(ValueError, match="finite"):
            explainer.attribute(x / 0)

    explain()
    before = len(tensors())
    for _ in range(3):
        explain()
    assert len(others) < len(tensors()) <= before


@pytest.mark.parametrize("function", [None, lambda y: y - y.mean(0), lambda y: torch.digamma(y.exp())])
def test_the_model_and_the_explainer_are_freed_without_the_collector(function: Any) -> None:
    class Net(FunctionNet):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y if function is None else function(y)

    gc.collect()
    gc.disable()
    try:
        model = spread(Net())
        alive = weakref.ref(model.fc1.weight)
        try:
            DeepExplainer(model, digits(3)).attribute(digits(2))
        except deepshap_ext.ExplanationError:
            assert function is not None
        del model
        assert alive() is None
    finally:
        gc.enable()


def test_nothing_is_left_behind_in_the_graph_of_the_user() -> None:
    """Weights stay leaves and can be trained, copied and saved."""
    import copy
    import io

    model = spread(FunctionNet())
    explainer = DeepExplainer(model, digits(3))
    explainer.attribute(digits(2))
    clone = copy.deepcopy(model)
    torch.save(model.state_dict(), io.BytesIO())
    assert all(parameter.is_leaf and parameter.requires_grad for parameter in clone.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
