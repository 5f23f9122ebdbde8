"""Running a user's model: prepared, watched through module hooks, and left exactly as it was."""

from __future__ import annotations

import os
import threading
import types
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.multiprocessing.reductions import StorageWeakRef

from ..errors import ExplanationError, UnsupportedOperationError, decided_by
from ..rules.lookup import TWIN
from ..rules.registry import Application, Context, Options, Rule, in_force
from . import torch_state
from .applied import is_rules_own
from .detach import staying_out_of_inference_mode
from .draws import Draws, ProgramGenerators
from .interrupts import Interrupts, end_generators
from .mode import Capture
from .model_call import Call
from .names import Operation, operation
from .script import watched
from .seen import SeenLayers
from .state import State
from .step import Watch
from .tape import Tape
from .undo import Undo
from .writes import Contents, TensorState, of_the_same_memory
from .written import APPLY, Interception


@dataclass
class Pass:
    """One forward pass: its tape, its output ``[rows, ...]`` and the tensors to explain with their places in the autograd graph.

    ``returned``: what the model returned, of which ``output`` is made. ``layers``: which of the explained tensors are each layer's; a
    model's own inputs count as one layer. ``integers``: whether each explained tensor has integers, in floating point.
    """

    capture: Capture
    output: Tensor
    returned: Tensor
    explained: list[Tensor]
    edges: list[GradientEdge]
    layers: list[slice]
    integers: list[bool]
    inputs: list[Tensor]

    @property
    def tape(self) -> Tape:
        return self.capture.tape

    def without_graph(self) -> Pass:
        """The pass without its autograd graph: what is only read from its tape."""
        self.capture.release()
        explained = [tensor.detach() for tensor in self.explained]
        output, returned = self.output.detach(), self.returned.detach()
        return replace(self, output=output, returned=returned, explained=explained, edges=[], inputs=[])


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
        #: Those of the time of entry: a rule registered meanwhile, by another thread say, is for the next explanation.
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
        self._capture: Capture | None = None
        self._seen = SeenLayers(model, call.layers, self._names)
        self._interrupts = Interrupts(_PROTECTED)
        self._has_lock = False
        self._undo = Undo()
        self._written, self._unseen, self._draws = Contents(), Contents(), Draws()
        #: As the user left it, and as every pass begins.
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
        undo.replace(torch._C.ScriptFunction, "__call__", watched(self._script))
        self._rules = in_force(self._options)
        functions = [key for key in self._rules if isinstance(key, types.FunctionType)]
        interception = Interception([APPLY, *functions], self._apply)
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
            module.__dict__["forward"] = partial(self._run_by_rule, rule, module, module.forward)
        if module.training and not type(module).train.__module__.startswith("torch."):
            raise ExplanationError(
                f"{self._names[module]} ({type(module).__name__}) has a train() of its own, which may change what it computes: call "
                f"model.eval() before it is explained"
            )
        module.training = False
        # They watch training's backward, not the explainer's.
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
        self._capture = None
        try:
            self._undo.run()
        finally:
            # It holds hooks that hold this object.
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
        leaves = [self._leaf(tensor) for tensor in explained]
        others = {**self.call.constants, **dict(zip(self.call.by_row, inputs[len(leaves) :], strict=True))}
        capture = self._capture = Capture(
            self.module_path, self._options, self._rules, self._written, self._draws, self._parts_written, watch
        )
        self._seen.begin(capture)
        with torch.enable_grad():
            # The model may write into what it is given; a leaf that requires a gradient must not be written into.
            given = [leaf.clone() for leaf in leaves]
            for number, tensor in enumerate(explained):
                if leaves[number].dtype != tensor.dtype:
                    twin, given[number] = leaves[number].to(TWIN, copy=True), tensor.clone()
                    capture.codes[given[number]] = twin
                    capture.codes.inputs.append(get_gradient_edge(leaves[number]))
                    capture.dependence.mark(twin, explained=True)
            copies = {key: value.clone() if isinstance(value, Tensor) else value for key, value in others.items()}
            for tensor in (*leaves, *given):
                capture.dependence.mark(tensor, explained=self._own_inputs)
            with capture, capture.saved_tensors():
                output = self.call.select(self.call(self._model, given, copies))
            if self._options.softmax == "centered":
                returned, output = output, _centred_logits(output, capture)
            else:
                if isinstance(output, Tensor) and output in self._written:
                    # A buffer, say, that the model has written its output into.
                    output = output.clone()
                returned = output
        capture.parts.forget()
        self._written.put_back(capture.tape)
        self._written.clear()
        self._tensors.put_back()
        self._running.clear()
        self._capture = None
        self._seen.end()
        tensors, edges, layers = self._seen.found(leaves)
        integers = [edge in capture.codes.inputs for edge in edges]
        self._check_output(output, capture, len(inputs[0]))
        return Pass(capture, output, returned, tensors, edges, layers, integers, leaves)

    def _leaf(self, tensor: Tensor) -> Tensor:
        """A copy of an input that multipliers are taken with respect to; of integers that are explained themselves it is floating-point."""
        as_it_is = tensor.is_floating_point() or not self._own_inputs
        leaf = tensor.detach().clone() if as_it_is else self._floating(tensor)
        return leaf.requires_grad_(leaf.is_floating_point())

    def _floating(self, integers: Tensor) -> Tensor:
        """Explained integers in a dtype that tells them apart: float32 those of two bytes, unless the model is float64."""
        dtypes = [parameter.dtype for parameter in self._model.parameters() if parameter.is_floating_point()]
        if integers.element_size() <= 2 and dtypes and dtypes[0] != torch.float64:
            return integers.to(torch.float32)
        most = 2**53
        if integers.element_size() == 8 and (beyond := integers[(integers > most) | (integers < -most)]).numel():
            raise ExplanationError(
                f"explained integers must lie between -2**53 and 2**53, got {int(beyond[0])}: pass remainders of hashes, or explain the "
                f"numbers that are looked up for them with (model, layer)"
            )
        return integers.to(TWIN)

    def own_output(self, inputs: Sequence[Tensor]) -> Tensor:
        """What the model gives for these rows when nobody follows it, as :attr:`Pass.returned`."""
        self._start_afresh()
        with torch.enable_grad():
            output = self.by_itself(inputs, self.call.select).detach()
        output = output.clone() if output in self._written else output
        # Before another pass runs, which reads what this one has written into.
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

    def _apply(
        self, function: types.FunctionType, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Stands in for ``autograd.Function.apply``, and for the user's own functions that have a rule."""
        capture = self._capture
        if capture is None or (function is APPLY and is_rules_own(args[0])) or not capture.sees():
            return original(*args, **kwargs)
        if function is APPLY:
            return capture.function(args[0], partial(original, args[0]), args[1:], kwargs)
        return capture.unit(operation(function), self._rules[function], original, args, kwargs)

    def _script(self, function: Any, call: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Stands in for the call of a TorchScript function."""
        if self._capture is None:
            return call(function, *args, **kwargs)
        return self._capture.script(function, call, args, kwargs)

    def _run_by_rule(
        self, rule: Rule, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if self._capture is None or not self._capture.sees():
            # The rule's own call.
            return forward(*args, **kwargs)
        called = Operation(type(module), type(module).__name__, False)
        return self._capture.unit(called, partial(_of_module, rule, module), forward, args, kwargs)

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._running:
            self._running.pop()

    def _check_output(self, output: Any, capture: Capture, rows: int) -> None:
        if not isinstance(output, Tensor):
            raise TypeError(f"output must select a tensor from what the model returns, got {type(output).__name__}")
        if output.dim() == 0 or output.shape[0] != rows:
            raise ExplanationError(
                f"the model's output must have shape [{rows}, ...] for {rows} samples, got {list(output.shape)}"
            )
        if output.numel() == 0:
            raise ExplanationError(
                f"the model's output must have a number for each sample, got shape {list(output.shape)}"
            )
        if not output.is_floating_point():
            raise ExplanationError(f"the model's output must be of a floating-point dtype, got {output.dtype}")
        if output in capture.dependence and (random := capture.dependence[output].random):
            raise UnsupportedOperationError(
                f"{random}, and reaches the output: pass training=self.training where it has that argument, or explain a model without it"
            )
        if not output.requires_grad:
            decision = capture.dependence[output].decision if output in capture.dependence else None
            raise UnsupportedOperationError(
                "the model's output is made from what is explained by decisions only (comparisons, rounding, integers), or does not "
                "depend on it" + decided_by(decision)
            )


#: The number of the hooks on every module, which are put there directly: registering one takes longer than a layer's pass. Torch's own
#: numbers are positive.
_HOOK = -1

#: A model that is being explained is in a state of its own, and so is what torch has one of for all threads.
_ONE_AT_A_TIME = threading.RLock()

#: The contexts that are open, those inside others last.
_ACTIVE: list[ModelHooks] = []

#: With the weak references, since Python swallows what is raised where memory is freed: a signal would be lost there.
_PROTECTED = frozenset(
    function.__code__
    for function in (ModelHooks.__enter__, ModelHooks.__exit__, StorageWeakRef.__init__, StorageWeakRef.__del__)
)


def at_rest() -> AbstractContextManager[object]:
    """A context in which no other thread explains: models are as their users left them."""
    return _ONE_AT_A_TIME


def _of_module(rule: Rule, module: nn.Module, context: Context, *args: Any, **kwargs: Any) -> Application | None:
    return rule(context, module, *args, **kwargs)


def _after_fork_in_child() -> None:
    """Free what a thread of the parent process had taken for an explanation; in the child it will not go on."""
    for hooks in reversed(_ACTIVE.copy()):
        hooks.after_fork()
    _ONE_AT_A_TIME._at_fork_reinit()  # type: ignore[attr-defined]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _centred_logits(output: Any, capture: Capture) -> Tensor:
    """In place of a final softmax its logits, less their mean over the classes (DeepLIFT, arXiv 1704.02685, section 3.6)."""
    made = capture.made_by(output) if isinstance(output, Tensor) else None
    if made is None or made.name != "softmax":
        raise ExplanationError(
            "softmax='centered' explains a model whose output is a softmax, as it returns it; this one's is not, or was written into, or "
            "its logits were"
        )
    (dim,) = made.parameters
    return made.operand - made.operand.mean(dim, keepdim=True)
