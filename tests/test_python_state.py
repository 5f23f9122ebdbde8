"""What a model remembers in Python is after an explanation as it was before, in the same objects; every pass begins with it."""

import enum
import threading
from collections import Counter, OrderedDict, defaultdict, deque
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checks import unchanged
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, ExplanationError


class Dict(dict[str, Any]):
    """A container whose own methods do more than the base class's."""

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, [value])

    def clear(self) -> None:
        raise NotImplementedError

    def __len__(self) -> int:
        return 0


class Plain:
    def __init__(self) -> None:
        self.count, self.inner = 0, {"seen": [1]}

    def see(self, *_: Any) -> None:
        self.count += 1
        self.new = self.count
        self.inner["seen"].append(self.count)


class Slots:
    __slots__ = ("late", "value")

    def __init__(self) -> None:
        self.value = 1


class Slotted(Slots):
    __slots__ = ()


class Colour(enum.Enum):
    RED = 1


class Shared:
    """Used by several threads: it is theirs to keep in order."""

    def __init__(self) -> None:
        self.lock, self.calls = threading.Lock(), 0


class Remembering(nn.Module):
    """Changes everything that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2).double()
        self.queue = deque([1, 2, 3], maxlen=3)
        self.defaults: dict[str, list[int]] = defaultdict(list, a=[1])
        self.ordered, self.counter, self.bag = OrderedDict(a=1, b=2), Counter("aab"), {1, 2}
        self.nested = [[{"deep": ({"list": [1]},)}]]
        self.own = Dict(a=1)
        self.namespace, self.plain, self.slots = SimpleNamespace(n=1), Plain(), Slotted()
        self.array, self.bytes, self.colour = np.zeros(3), bytearray(b"abc"), Colour.RED
        self.modules_of_nobody = [nn.BatchNorm1d(2).double()]
        self.holder = SimpleNamespace(module=nn.Sequential(nn.Linear(2, 2).double()))
        self.recorder = Plain()
        self.linear.register_forward_hook(self.recorder.see)
        self.linear.weight.note = {"n": 1}
        self.shared = Shared()
        self.calls: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.queue.append(4)
        self.defaults["b"].append(1)
        self.defaults["a"].append(2)
        self.ordered.move_to_end("a")
        self.counter["a"] += 1
        self.bag.add(3)
        self.nested[0][0]["deep"][0]["list"].append(2)
        self.nested[0].append({})
        dict.__setitem__(self.own, "b", 2)
        dict.__setitem__(self.own, "a", 2)
        self.namespace.n += 1
        self.plain.see()
        self.slots.late, self.slots.value = 1, 2
        self.array += 1
        self.bytes += b"d"
        self.colour.seen = True  # type: ignore[attr-defined]
        norm = self.modules_of_nobody[0]
        norm.calls = 1
        self.modules_of_nobody.append(nn.Identity())
        self.holder.module[0].register_buffer("late", torch.ones(1))
        self.holder.module.append(nn.ReLU())
        self.linear.weight.note["n"] += 1
        self.linear.weight.other = 1
        del self.linear.bias
        self.linear.bias = nn.Parameter(torch.zeros(2, dtype=x.dtype))
        self.shared.calls += 1
        self.calls.append(0)
        h = self.linear(x) * self.namespace.n * len(self.defaults) * self.recorder.count
        return self.holder.module[0](norm(h)).tanh() * float(self.array[0])


def _described(value: Any, seen: tuple[int, ...] = ()) -> Any:
    """Contents and identities, independently of how they are walked by what is tested."""
    if id(value) in seen or isinstance(value, (type, int, float, str, bytes, enum.Enum, type(None), Shared)):
        return value
    seen = (*seen, id(value))
    described: list[Any] = [id(value)]
    if isinstance(value, Tensor):
        described += [value.detach().tolist(), value._version, value.requires_grad]
    elif isinstance(value, (np.ndarray, bytearray)):
        return [id(value), list(value)]
    elif isinstance(value, dict):
        described += [(key, _described(dict.__getitem__(value, key), seen)) for key in dict.__iter__(value)]
        described += list(OrderedDict.keys(value)) if isinstance(value, OrderedDict) else []
    elif isinstance(value, (list, tuple, deque, set)):
        described += [_described(item, seen) for item in value]
    if isinstance(value, Slots):
        described += [value.value, hasattr(value, "late")]
    elif isinstance(value, (nn.Module, Plain, SimpleNamespace, Tensor)):
        described.append(_described(value.__dict__, seen))
    return described


def test_everything_that_a_model_holds_is_as_it_was() -> None:
    model = Remembering().train()
    model.modules_of_nobody[0].eval()
    x, background = torch.randn(4, 3).double(), torch.randn(5, 3).double()
    before = _described(model)
    try:
        with unchanged(model, x, background):
            found = DeepExplainer(model, background).attribute(x)
        assert _described(model) == before
        assert model.shared.calls > 2
        model.modules_of_nobody[0].eval()
        torch.testing.assert_close(found.output, model(x), rtol=1e-12, atol=1e-12)
        assert _described(model) != before
    finally:
        vars(Colour.RED).pop("seen", None)


def test_what_has_not_changed_is_not_touched() -> None:
    """Another thread may be reading it."""

    class Watched(dict[str, Any]):
        pass

    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    model.watched = Watched(a=1)
    iterator = iter(model.watched)
    DeepExplainer(model, torch.randn(5, 3)).attribute(torch.randn(4, 3))
    assert next(iterator) == "a", "a dict that was filled anew would end its iterators"


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt, SystemExit])
def test_also_when_the_model_raises(raised: type[BaseException]) -> None:
    model, background = Remembering().train(), torch.randn(5, 3).double()
    model.modules_of_nobody[0].eval()

    def fail(*_: Any) -> None:
        raise raised

    model.holder.module[0].register_forward_hook(fail)
    before = _described(model)
    try:
        with unchanged(model), pytest.raises(ExplanationError if raised is ValueError else raised):
            DeepExplainer(model, background)
        assert _described(model) == before
    finally:
        vars(Colour.RED).pop("seen", None)


def test_gradients_hooks_and_frozen_parts_of_modules_of_nobody() -> None:
    inner = nn.Linear(3, 3).double()
    inner.bias.requires_grad_(False)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.plain = [inner], torch.ones(3, dtype=torch.float64, requires_grad=True)

        def forward(self, x: Tensor) -> Tensor:
            self.inner[0].zero_grad()
            self.plain.grad = None
            with torch.no_grad():
                self.plain.mul_(2)
            return (self.inner[0](x) * self.plain).tanh()

    model, x = Model(), torch.randn(4, 3).double()
    (inner(x) * model.plain).sum().backward()
    calls: list[Tensor] = []
    inner.weight.register_hook(calls.append)
    gradients = [inner.weight.grad, model.plain.grad]
    contents = [gradient.clone() for gradient in gradients]
    DeepExplainer(model, x).attribute(x)
    assert [inner.weight.grad is gradients[0], model.plain.grad is gradients[1]] == [True, True]
    assert all(map(torch.equal, gradients, contents))
    assert inner.weight.requires_grad and model.plain.requires_grad and not inner.bias.requires_grad
    assert torch.equal(model.plain, torch.ones(3, dtype=torch.float64)) and not calls
    inner(x).sum().backward()
    assert len(calls) == 1
