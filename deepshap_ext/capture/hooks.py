"""Running a user's model: prepared, watched through module hooks, and left exactly as it was."""

from __future__ import annotations

import os
import threading
import types
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.multiprocessing.reductions import StorageWeakRef

from ..errors import ExplanationError
from ..rules.checked import in_force
from ..rules.lookup import TWIN
from ..rules.registry import Options, Rule
from . import torch_state
from .detach import staying_out_of_inference_mode
from .draws import Draws, ProgramGenerators
from .forward import Pass, centred_logits, check_output, leaf_of
from .interrupts import Interrupts, end_generators
from .mode import Capture
from .model_call import Call
from .script import watched
from .seen import SeenLayers
from .state import State
from .step import Watch
from .undo import Undo
from .units import Units
from .writes import Contents, TensorState, of_the_same_memory
from .written import APPLY, Interception


class ModelHooks:
    """A context in which a model can be run under capture.

    On entry the model is put into eval mode, its parameters are frozen, and hooks follow which module runs. On exit, whatever was
    raised or interrupted it, all is as before: mode, ``requires_grad``, gradients, hooks and contents of its tensors, attributes of its
    modules and of what these hold, and what torch has one of. Another thread waits until the model and torch are free.
    """

    def __init__(self, model: nn.Module, call: Call, options: Options) -> None:
        self._model = model
        self.call = call
        self._options = options
        #: The rules in force on entry: one registered meanwhile, by another thread say, is for the next explanation.
        self._rules: dict[Any, Rule] = {}
        self._names = {module: name or type(model).__name__ for name, module in model.named_modules()}
        self._own_inputs = call.explains_inputs_of(model)
        for layer in call.layers:
            if layer.module not in self._names:
                raise ExplanationError(
                    f"the explained layer, a {type(layer.module).__name__}, is not in the model any more: make an explainer for the model "
                    f"as it is"
                )
        self._running: list[nn.Module] = []
        self._parts_written = False
        self._units = Units()
        self._seen = SeenLayers(model, call.layers, self._names)
        self._interrupts = Interrupts(_PROTECTED)
        self._has_lock = False
        self._undo = Undo()
        #: What the running pass writes into, and what a module's rule may write into where no capture sees it.
        self._written, self._unseen = Contents(), Contents()
        self._draws = Draws()
        #: What the model holds in Python: as the user left it, and as every pass begins.
        self._state, self._start = State(()), State(())
        self._tensors = TensorState(())
        #: Whether nothing has run since the model was prepared.
        self._is_fresh = False

    def __enter__(self) -> ModelHooks:
        try:
            self._interrupts.hold()
            while not self._has_lock:
                self._has_lock = _ONE_AT_A_TIME.acquire(timeout=0.1)
                self._interrupts.deliver()
            self._prepare()
            self._interrupts.deliver()
        except BaseException as error:
            self.__exit__(type(error), error)
            raise
        return self

    def __exit__(self, kind: object = None, error: BaseException | None = None, trace: object = None) -> None:
        try:
            end_generators(error)
            self._put_back()
        finally:
            try:
                if self._has_lock:
                    self._has_lock = False
                    _ONE_AT_A_TIME.release()
            finally:
                interrupt = self._interrupts.behind(error)
                self._interrupts.release()
                self._interrupts.deliver()
        if interrupt is not None:
            raise interrupt from None

    def _prepare(self) -> None:
        undo = self._undo = Undo()
        _ACTIVE.append(self)
        torch_state.leave_inference_mode(undo)
        self._state = State([self._model, self.call.constants])
        undo.note_here(ProgramGenerators({tensor.device for tensor in self._state.tensors}).put_back)
        tensors = self._tensors = TensorState(self._state.tensors)
        undo.note(tensors.restore)
        undo.note(self._state.restore)
        for contents in (self._unseen, self._written):
            undo.note(contents.clear)
            undo.note(contents.put_back)
        torch_state.prepare(undo)
        undo.replace(torch.inference_mode, "__enter__", staying_out_of_inference_mode())
        undo.replace(torch._C.ScriptFunction, "__call__", watched(self._units.script))
        self._rules = in_force(self._options)
        functions = [key for key in self._rules if isinstance(key, types.FunctionType)]
        interception = Interception([APPLY, *functions], self._units.apply)
        undo.note(interception.remove)
        interception.install()
        undo.note_here(torch_state.ThreadState().restore)
        tensors.freeze()
        if made_in_inference_mode := [tensor for tensor in self._state.tensors if tensor.is_inference()]:
            self._state.replace({id(tensor): of_the_same_memory(tensor) for tensor in made_in_inference_mode})
        for module in self._names:
            self._prepare_module(module)
        self._seen.register()
        self._start = self._state.again()
        self._is_fresh = True

    def _prepare_module(self, module: nn.Module) -> None:
        rule = self._rules.get(type(module))
        if rule is not None:
            # A rule may run the module in the pair pass, outside of the capture.
            for tensor in (*module.parameters(), *module.buffers()):
                self._unseen.before_write(tensor)
            module.__dict__["forward"] = partial(self._units.module, rule, module, module.forward)
        if module.training and not type(module).train.__module__.startswith("torch."):
            raise ExplanationError(
                f"{self._names[module]} ({type(module).__name__}) has a train() of its own, which may change what it computes: call "
                f"model.eval() before it is explained"
            )
        module.training = False
        # A user's backward hooks watch training's backward, not the explainer's.
        module._backward_hooks.clear()
        module._backward_pre_hooks.clear()
        # Restoring the module's attributes takes these hooks away again.
        before: Any = module._forward_pre_hooks
        before[_HOOK] = self._enter_module
        before.move_to_end(_HOOK, last=False)
        module._forward_hooks[_HOOK] = self._leave_module
        module._forward_hooks_always_called[_HOOK] = True

    def _put_back(self) -> None:
        self._running.clear()
        self._seen.forget()
        self._units.end()
        try:
            self._undo.run()
        finally:
            # Both hold the module hooks, which hold this object: without them it is freed at once.
            self._start, self._tensors = State(()), TensorState(())
            if self in _ACTIVE:
                _ACTIVE.remove(self)

    @property
    def state(self) -> State:
        """What the model holds, as the user left it."""
        return self._state

    def after_fork(self) -> None:
        """Put all back in a child process, where the thread that explains may not exist any more."""
        self._has_lock = False
        self._put_back()
        self._interrupts.release()

    def module_path(self) -> str:
        """The dotted name of the module that is running."""
        return self._names.get(self._running[-1], "the model") if self._running else "the output selector"

    def run(self, inputs: Sequence[Tensor], watch: Watch | None = None) -> Pass:
        """Run the model on copies of the inputs, with autograd on and every operation captured; ``watch`` as the capture takes it."""
        try:
            return self._run(inputs, watch)
        except RuntimeError as error:
            if self._parts_written or "function that returns multiple views" not in str(error):
                raise
            # The model writes into the parts of a split, each of which must then be a view by itself, at the price of a slower backward.
            self._parts_written = True
            self._running.clear()
            return self._run(inputs, watch)

    def _run(self, inputs: Sequence[Tensor], watch: Watch | None) -> Pass:
        self._start_afresh()
        explained = self.call.explained(inputs)
        leaves = [leaf_of(tensor, self._model, self._own_inputs) for tensor in explained]
        others = {**self.call.constants, **dict(zip(self.call.by_row, inputs[len(leaves) :], strict=True))}
        capture = Capture(
            self.module_path, self._options, self._rules, self._written, self._draws, self._parts_written, watch
        )
        record = capture.record
        self._units.begin(capture)
        self._seen.begin(capture)
        with torch.enable_grad():
            # The model may write into what it is given; a leaf that requires a gradient must not be written into.
            given = [leaf.clone() for leaf in leaves]
            for number, tensor in enumerate(explained):
                if leaves[number].dtype != tensor.dtype:
                    twin, given[number] = leaves[number].to(TWIN, copy=True), tensor.clone()
                    record.codes[given[number]] = twin
                    record.codes.inputs.append(get_gradient_edge(leaves[number]))
                    record.dependence.mark(twin, explained=True)
            copies = {key: value.clone() if isinstance(value, Tensor) else value for key, value in others.items()}
            for tensor in (*leaves, *given):
                record.dependence.mark(tensor, explained=self._own_inputs)
            with capture, capture.saved_tensors():
                output = self.call.select(self.call(self._model, given, copies))
            if self._options.softmax == "centered":
                returned, output = output, centred_logits(output, record)
            else:
                if isinstance(output, Tensor) and output in self._written:
                    # Copied, because what the model has written into is put back below: its output may be a buffer.
                    output = output.clone()
                returned = output
        capture.runner.forget()
        self._written.put_back(record.tape)
        self._written.clear()
        self._tensors.put_back()
        self._running.clear()
        self._units.end()
        self._seen.end()
        tensors, edges, layers = self._seen.found(leaves)
        integers = [edge in record.codes.inputs for edge in edges]
        check_output(output, record, len(inputs[0]))
        return Pass(record, output, returned, tensors, edges, layers, integers, leaves)

    def own_output(self, inputs: Sequence[Tensor]) -> Tensor:
        """What the model gives for these rows when nobody follows it, as :attr:`Pass.returned`."""
        self._start_afresh()
        with torch.enable_grad():
            output = self.by_itself(inputs, self.call.select).detach()
        output = output.clone() if output in self._written else output
        # Put back now, because the next pass reads what this one has written into.
        self._written.put_back()
        self._written.clear()
        return output

    def by_itself(self, inputs: Sequence[Tensor], select: Callable[[Any], Any] = lambda returned: returned) -> Any:
        """What ``select`` takes of what the model returns for copies of these rows outside of a pass: what it writes and draws is put back
        all the same."""
        self._is_fresh = False
        explained = self.call.explained(inputs)
        others = {**self.call.constants, **dict(zip(self.call.by_row, inputs[len(explained) :], strict=True))}
        # The model may write into what it is given.
        copies = {key: value.clone() if isinstance(value, Tensor) else value for key, value in others.items()}
        capture = Capture(self.module_path, self._options, self._rules, self._written, self._draws)
        with capture.paused(), capture:
            return select(self.call(self._model, [tensor.clone() for tensor in explained], copies))

    def _start_afresh(self) -> None:
        """Take away what the pass before left in the modules, a count or a last state, or in tensors, if it failed."""
        self._interrupts.deliver()
        if self._is_fresh:
            self._is_fresh = False
            return
        self._written.put_back()
        self._written.clear()
        self._tensors.put_back()
        self._start.restore()
        self._unseen.put_back()

    def _enter_module(self, module: nn.Module, args: Any) -> None:
        self._interrupts.deliver()
        self._running.append(module)

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._running:
            self._running.pop()


#: The number of the hooks on every module, which are put there directly: registering one takes longer than a layer's pass. Torch's own
#: numbers are positive.
_HOOK = -1

#: Held while a model is explained: the model, and what torch shares between threads, are then not as other threads expect them.
_ONE_AT_A_TIME = threading.RLock()

#: The open contexts, inner ones last: what a forked child has to put back.
_ACTIVE: list[ModelHooks] = []

#: What no signal may interrupt. Weak references to storages are among it because Python swallows what is raised where memory is freed:
#: a KeyboardInterrupt would be lost there.
_PROTECTED = frozenset(
    function.__code__
    for function in (ModelHooks.__enter__, ModelHooks.__exit__, StorageWeakRef.__init__, StorageWeakRef.__del__)
)


def at_rest() -> AbstractContextManager[object]:
    """A context in which no other thread explains: models are as their users left them."""
    return _ONE_AT_A_TIME


def _after_fork_in_child() -> None:
    """Free what a thread of the parent process had taken for an explanation; in the child it will not go on."""
    for hooks in reversed(_ACTIVE.copy()):
        hooks.after_fork()
    _ONE_AT_A_TIME._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
