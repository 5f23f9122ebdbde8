"""What torch has one of, for a thread or for the whole program: set as an explanation needs it, and put back."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.modules.module as modules
import torch.utils.checkpoint
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from .undo import Undo

#: A module of torch that compiles what it is called with.
_FLEX_ATTENTION = "torch.nn.attention.flex_attention"


class ThreadState:
    """The modes and stacks of the running thread, but for grad mode and inference mode, which go together.

    Torch sets them by ``with`` statements written in Python: what interrupts one while it is being left may leave it in force.
    """

    def __init__(self) -> None:
        self._function_modes = _get_current_function_mode_stack()
        self._dispatch_modes = _get_current_dispatch_mode_stack()
        self._torch_function = torch._C._get_torch_function_state()  # type: ignore[attr-defined]
        self._saved_tensors_hooks = _top_saved_tensors_hooks()
        self._transforms = torch._C._functorch.get_dynamic_layer_stack_depth()
        self._autocast = [(device, torch.is_autocast_enabled(device)) for device in ("cpu", "cuda")]
        self._autocast_cache = torch.is_autocast_cache_enabled()

    def restore(self) -> None:
        if torch._C._functorch.get_dynamic_layer_stack_depth() > self._transforms:
            torch._C._functorch.pop_dynamic_layer_stack_and_undo_to_depth(self._transforms)
        torch._C._set_torch_function_state(self._torch_function)  # type: ignore[attr-defined]
        _unwind(
            self._function_modes,
            _get_current_function_mode_stack,
            torch._C._pop_torch_function_stack,
            torch._C._push_on_torch_function_stack,
        )
        _unwind(
            self._dispatch_modes,
            _get_current_dispatch_mode_stack,
            torch.utils._python_dispatch._pop_mode,
            torch.utils._python_dispatch._push_mode,
        )
        while (top := _top_saved_tensors_hooks()) is not None and top != self._saved_tensors_hooks:
            torch._C._autograd._pop_saved_tensors_default_hooks()
        for device, enabled in self._autocast:
            if torch.is_autocast_enabled(device) != enabled:
                torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_cache_enabled(self._autocast_cache)


def leave_inference_mode(undo: Undo) -> None:
    """Leave inference mode until the end; entering it again then sets grad mode back as well."""
    mode = torch.inference_mode(False)
    mode.__enter__()
    undo.note_here(mode.__exit__, None, None, None)


def _top_saved_tensors_hooks() -> Any:
    return torch._C._autograd._top_saved_tensors_default_hooks(True)


def _unwind(
    before: list[Any], stack: Callable[[], list[Any]], pop: Callable[[], Any], push: Callable[[Any], Any]
) -> None:
    """Make a stack of modes what it was."""
    now = stack()
    same = 0
    while same < min(len(now), len(before)) and now[same] is before[same]:
        same += 1
    for _ in now[same:]:
        pop()
    for mode in before[same:]:
        push(mode)


def prepare(undo: Undo) -> None:
    """Set what all threads share so that the model runs as it is written; what can be is set for the running thread alone."""
    here = threading.get_ident()

    def replace(owner: Any, name: str, value: Any) -> None:
        """Replace a function for the running thread; another thread, which may be training, goes on with the former one."""
        former = vars(owner)[name]

        def chosen(*args: Any, **kwargs: Any) -> Any:
            return (value if threading.get_ident() == here else former)(*args, **kwargs)

        undo.replace(owner, name, chosen)

    if "torch._dynamo" in sys.modules or _FLEX_ATTENTION in sys.modules:
        # Compiled modules run as they are written: a compiler sees the capture, not the model.
        undo.note(torch.compiler.set_stance("force_eager").__exit__, None, None, None)
    if _FLEX_ATTENTION in sys.modules:
        # flex_attention refuses inputs that require a gradient on the CPU; its decomposition supports them, so its check is switched off.
        replace(sys.modules[_FLEX_ATTENTION], "_validate_device", lambda *_: None)
    # torch.utils.checkpoint runs its function directly: replayed in the pair pass, it would run outside of the capture.
    checkpoint = torch.utils.checkpoint
    replace(checkpoint, "_checkpoint_without_reentrant_generator", _nothing_around)
    reentrant = checkpoint.CheckpointFunction

    def apply(*args: Any) -> Any:
        return (_direct if threading.get_ident() == here else reentrant.apply)(*args)

    undo.replace(checkpoint, "CheckpointFunction", SimpleNamespace(apply=apply))
    for watching in (modules._global_backward_hooks, modules._global_backward_pre_hooks):
        # A user's global backward hooks watch training's backward, not the explainer's.
        undo.note(_refill, watching, dict(watching))
        watching.clear()


def _direct(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
    """Stands in for ``CheckpointFunction.apply``."""
    return function(*args)


def _nothing_around(*args: Any, **kwargs: Any) -> Iterator[None]:
    """Stands in for what non-reentrant checkpointing does before and after its function."""
    yield


def _refill(hooks: dict[int, Any], before: dict[int, Any]) -> None:
    hooks.clear()
    hooks.update(before)
