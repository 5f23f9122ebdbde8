"""A signal's handler may raise at any moment, and a process may fork at any: nothing of an explanation is left."""

import gc
import os
import random
import signal
import sys
import threading
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from checks import unchanged
from torch import Tensor, nn
from torch.nn.modules import module as modules

from deepshap_ext import DeepExplainer
from deepshap_ext.capture.hooks import _ONE_AT_A_TIME

#: Where a model is prepared, put back, and what it writes is kept.
OURS = tuple(f"/capture/{name}.py" for name in "hooks state writes undo torch_state interrupts draws".split())
#: Where torch enters and leaves the modes that a pass runs in.
TORCHS = (
    "/torch/overrides.py",
    "/autograd/graph.py",
    "/autograd/grad_mode.py",
    "/_functorch/vmap.py",
    "/contextlib.py",
)


@pytest.fixture(autouse=True)
def _no_callbacks_of_the_garbage_collector() -> Iterator[None]:
    """Hypothesis has one, and Python swallows what interrupts it."""
    callbacks = gc.callbacks[:]
    gc.callbacks.clear()
    yield
    gc.callbacks.extend(callbacks)


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm, self.calls = nn.Linear(3, 2), nn.BatchNorm1d(2), [0]

    def forward(self, x: Tensor) -> Tensor:
        self.linear.weight.data.clamp_(min=0)
        self.calls[0] += 1
        self.norm.running_mean.add_(1)
        with torch.no_grad():
            torch.rand(2)
        return torch.relu(self.norm(self.linear(x)))


def _left() -> dict[str, Any]:
    """What all of the program shares."""
    return {
        "apply": torch.autograd.Function.__dict__["apply"],
        "checkpoint": vars(torch.utils.checkpoint)["CheckpointFunction"],
        "generator": vars(torch.utils.checkpoint)["_checkpoint_without_reentrant_generator"],
        "hooks": (dict(modules._global_backward_hooks), dict(modules._global_forward_hooks)),
        "saved tensors": torch._C._autograd._top_saved_tensors_default_hooks(True),
        "transforms": torch._C._functorch.get_dynamic_layer_stack_depth(),
        "handlers": [signal.getsignal(number) for number in signal.valid_signals()],
    }


def _lock_is_free() -> bool:
    found: list[bool] = []

    def take() -> None:
        found.append(_ONE_AT_A_TIME.acquire(timeout=5))
        if found[0]:
            _ONE_AT_A_TIME.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return found[0]


@contextmanager
def _handled(number: int, handler: Any) -> Iterator[None]:
    former = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, former)


def _interrupted_at(event: int, run: Callable[[], Any], files: tuple[str, ...]) -> str | None:
    """Let a signal arrive at one of the lines that are run in the files, and return which; None if fewer are run."""
    events = 0
    where: str | None = None

    def local(frame: FrameType, what: str, _: Any) -> Any:
        nonlocal events, where
        if what == "line":
            if events == event:
                sys.settrace(None)
                where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                events += 1
                signal.raise_signal(signal.SIGUSR1)
                return None
            events += 1
        return local

    def trace(frame: FrameType, what: str, _: Any) -> Any:
        return local if frame.f_code.co_filename.endswith(files) and events <= event else None

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    except KeyboardInterrupt:
        assert where is not None
    else:
        assert where is None, f"the signal at {where} was lost"
    finally:
        sys.settrace(former)
    return where


@pytest.mark.parametrize(("files", "stride"), [(OURS, 100), (TORCHS, 20)], ids=["ours", "torch's"])
def test_an_interrupt_at_any_line(files: tuple[str, ...], stride: int) -> None:
    """At some of them, drawn evenly: all would take minutes."""
    model = Writing().train()
    x, background = torch.randn(2, 3), torch.randn(2, 3)
    explainer = DeepExplainer(model, background)
    explainer.attribute(x)
    with _handled(signal.SIGUSR1, signal.default_int_handler):
        everything = _left()
        rng = random.Random(0)
        event, tried = 0, 0
        while True:
            with unchanged(model, x, background):
                where = _interrupted_at(event, lambda: explainer.attribute(x), files)
            if where is None:
                break
            assert _left() == everything, where
            event += rng.randrange(stride) + 1
            tried += 1
    assert tried > 20 and _lock_is_free()


def test_interrupts_at_random_moments() -> None:
    model = Writing().train()
    x, background = torch.randn(2, 3), torch.randn(2, 3)
    explainer = DeepExplainer(model, background)
    explainer.attribute(x)
    takes = min(timeit.repeat(lambda: explainer.attribute(x), number=1, repeat=5))
    rng, interrupted, explaining = random.Random(0), 0, False

    def interrupt(*_: Any) -> None:
        if explaining:
            raise KeyboardInterrupt

    with _handled(signal.SIGALRM, interrupt):
        everything = _left()
        for _ in range(100):
            with unchanged(model):
                try:
                    explaining = True
                    signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-4, takes))
                    explainer.attribute(x)
                    explaining = False
                except KeyboardInterrupt:
                    interrupted += 1
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert _left() == everything
    assert interrupted > 20 and _lock_is_free()


def test_waiting_for_another_thread_can_be_interrupted() -> None:
    explainer, x = DeepExplainer(Writing(), torch.randn(2, 3)), torch.randn(2, 3)
    waiting, free = threading.Event(), threading.Event()

    def hold() -> None:
        with _ONE_AT_A_TIME:
            waiting.set()
            free.wait(30)

    thread = threading.Thread(target=hold)
    with _handled(signal.SIGALRM, signal.default_int_handler):
        everything = _left()
        thread.start()
        waiting.wait(30)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(KeyboardInterrupt):
            explainer.attribute(x)
        free.set()
        thread.join()
        assert _left() == everything and _lock_is_free()


def test_handlers_that_do_not_raise_are_called_and_those_of_the_model_stay() -> None:
    called: list[int] = []

    class Signalling(Writing):
        def forward(self, x: Tensor) -> Tensor:
            before = len(called)
            signal.raise_signal(signal.SIGUSR1)
            assert len(called) == before + 1, "outside of what is protected it is called at once"
            signal.signal(signal.SIGUSR2, theirs)
            return super().forward(x)

    def theirs(*_: Any) -> None:
        pass

    with _handled(signal.SIGUSR1, lambda *_: called.append(1)), _handled(signal.SIGUSR2, signal.default_int_handler):
        ours = signal.getsignal(signal.SIGUSR1)
        DeepExplainer(Signalling(), torch.randn(2, 3))
        assert called and signal.getsignal(signal.SIGUSR1) is ours and signal.getsignal(signal.SIGUSR2) is theirs


def test_a_model_that_explains_another_in_its_forward_pass() -> None:
    class Explaining(Writing):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                DeepExplainer(inner, torch.ones(2, 3)).attribute(torch.zeros(1, 3))
            return super().forward(x)

    inner, model, x = Writing().train(), Explaining().train(), torch.randn(2, 3)
    with _handled(signal.SIGUSR1, signal.default_int_handler):
        everything = _left()
        with unchanged(model), unchanged(inner):
            DeepExplainer(model, x).attribute(x)
        assert _left() == everything


def _in_a_child(do: Callable[[], None]) -> None:
    """Run something in a forked process, which must end well within seconds."""
    process = os.fork()
    if process == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)
        status = 1
        try:
            do()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(process, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("by", ["another thread", "the thread itself"])
def test_a_fork_while_a_model_is_explained(by: str) -> None:
    """In the child the model is the user's, and can be explained: there the explanation will not go on."""
    torch.set_num_threads(1)
    inside, forked = threading.Event(), threading.Event()
    forking = True

    class Slow(Writing):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            if by == "the thread itself":
                if forking:
                    _in_a_child(child)
            elif not inside.is_set():
                inside.set()
                forked.wait(30)
            return y

    model, x = Slow().train(), torch.randn(2, 3)
    with _handled(signal.SIGUSR1, signal.default_int_handler):
        everything = _left()
        weights = {name: value.clone() for name, value in model.state_dict().items()}

        def child() -> None:
            nonlocal forking
            forking = False
            assert model.training and model.calls == [0] and not model._forward_hooks and not model._forward_pre_hooks
            assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
            assert all(parameter.requires_grad for parameter in model.parameters())
            assert _left() == everything and _lock_is_free()
            with unchanged(model, x):
                DeepExplainer(model, x).attribute(x)
            assert _left() == everything

        with unchanged(model, x):
            if by == "the thread itself":
                DeepExplainer(model, x)
            else:
                thread = threading.Thread(target=lambda: DeepExplainer(model, x))
                thread.start()
                inside.wait(30)
                try:
                    _in_a_child(child)
                finally:
                    forked.set()
                    thread.join()
        assert _left() == everything
