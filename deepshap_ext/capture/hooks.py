"""Running a user's model: prepared, watched through module hooks, and left exactly as it was."""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal
from unittest.mock import patch

import torch
import torch.nn.modules.module as modules
import torch.utils.checkpoint
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ..errors import ExplanationError, UnsupportedOperationError
from ..rules.registry import MODULE_RULES, Options, Rule
from .dependence import tensors_in
from .mode import Capture, is_rules_own
from .step import Watch
from .tape import Tape


@dataclass
class Pass:
    """One forward pass: its tape, its output ``[rows, ...]`` and the tensors to explain with their places in the autograd graph.

    ``layers``: which of the explained tensors are each layer's; a model's own inputs count as one layer.
    """

    capture: Capture
    output: Tensor
    explained: list[Tensor]
    edges: list[GradientEdge]
    layers: list[slice]
    inputs: list[Tensor]

    @property
    def tape(self) -> Tape:
        return self.capture.tape

    def without_graph(self) -> Pass:
        """The pass without its autograd graph: what is only read from its tape."""
        self.capture.release()
        explained = [tensor.detach() for tensor in self.explained]
        return replace(self, output=self.output.detach(), explained=explained, edges=[], inputs=[])


@dataclass(frozen=True)
class Layer:
    """The tensors that a module is given (``at`` ``"input"``) or returns (``"output"``), in one of its calls in a forward pass.

    ``call``: which one, counted from 0; None where there is only one.
    """

    module: nn.Module
    at: Literal["input", "output"] = "input"
    call: int | None = None


@dataclass(frozen=True)
class Call:
    """How the model is called and what is taken from it.

    ``layers``: explain these tensors instead of the model's inputs. ``select`` takes the model's output to the tensor ``[rows, ...]`` that
    is explained. ``constants``: keyword arguments that are the same in every call. ``by_row``: names of those that have a row a
    sample; they come behind the model's inputs wherever these are passed on.
    """

    layers: Sequence[Layer]
    select: Callable[[Any], Tensor]
    constants: Mapping[str, Any]
    by_row: Sequence[str]

    def explained(self, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        """The model's inputs, without the keyword arguments behind them."""
        return inputs[: len(inputs) - len(self.by_row)]


class ModelHooks:
    """A context in which a model can be run under capture.

    On entry the model is put into eval mode, its parameters are frozen, and hooks follow which module runs; on exit, whatever was
    raised, mode, ``requires_grad``, hooks, buffers and attributes of every module are as before.
    """

    def __init__(self, model: nn.Module, call: Call, options: Options) -> None:
        self._model = model
        self.call = call
        self._options = options
        self._names = {module: name or type(model).__name__ for name, module in model.named_modules()}
        self._running: list[nn.Module] = []
        self._capture: Capture | None = None
        #: Of each layer's calls so far, the tensors and their places in the graph, or None where it is not the call asked for.
        self._seen: list[list[tuple[list[Tensor], list[GradientEdge]] | None]] = [[] for _ in call.layers]
        self._start: list[tuple[nn.Module, Snapshot]] = []
        self._undo = ExitStack()

    def __enter__(self) -> ModelHooks:
        with ExitStack() as undo:
            undo.enter_context(_ONE_AT_A_TIME)
            undo.enter_context(torch.inference_mode(False))
            # A model that draws random numbers is refused where they matter; drawing them must not change the user's.
            devices = {p.device.index for p in self._model.parameters() if p.device.type == "cuda"}
            undo.enter_context(torch.random.fork_rng(devices=devices))
            if "torch._dynamo" in sys.modules or _FLEX_ATTENTION in sys.modules:
                # Compiled modules run as they are written: a compiler sees the capture, not the model.
                undo.enter_context(torch.compiler.set_stance("force_eager"))
            if _FLEX_ATTENTION in sys.modules:
                # It refuses what needs a gradient on the CPU; what it is taken apart into has one.
                undo.enter_context(patch.object(sys.modules[_FLEX_ATTENTION], "_validate_device", lambda *_: None))
            undo.enter_context(_without_checkpointing())
            undo.enter_context(patch.object(torch.autograd.Function, "apply", self._apply()))
            for watching in (modules._global_backward_hooks, modules._global_backward_pre_hooks):
                undo.enter_context(patch.dict(watching, clear=True))
            buffers = {module: _buffers(module) for module in self._names}
            for module in self._names:
                undo.callback(_restore, module, (*_attributes(module), buffers[module]))
            for parameter in self._model.parameters():
                undo.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(False)
            for module in self._names:
                module.training = False
                # They watch training's backward, not the explainer's.
                module._backward_hooks.clear()
                module._backward_pre_hooks.clear()
                if rule := MODULE_RULES.get(type(module)):
                    module.__dict__["forward"] = partial(self._run_by_rule, rule, module, module.forward)
                # Taken away with whatever else has come to the module's attributes.
                module.register_forward_pre_hook(self._enter_module, prepend=True)
                module.register_forward_hook(self._leave_module, always_call=True)
            for number, layer in enumerate(self.call.layers):
                if layer.at == "input":
                    layer.module.register_forward_pre_hook(partial(self._see_inputs, number), with_kwargs=True)
                else:
                    layer.module.register_forward_hook(partial(self._see_outputs, number))
            self._start = [(module, (*_attributes(module), buffers[module])) for module in self._names]
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        self._running.clear()
        self._forget_layers()
        self._capture = None
        self._start.clear()
        self._undo.close()

    def module_path(self) -> str:
        """The dotted name of the module that is running."""
        return self._names.get(self._running[-1], "the model") if self._running else "the output selector"

    def run(self, inputs: Sequence[Tensor], watch: Watch | None = None) -> Pass:
        """Run the model on copies of the inputs, with autograd on and every operation captured; ``watch`` as the capture takes it."""
        self._start_afresh()
        explained = self.call.explained(inputs)
        leaves = [tensor.detach().clone() for tensor in explained]
        for leaf in leaves:
            leaf.requires_grad_(leaf.is_floating_point())
        keywords = {**self.call.constants, **dict(zip(self.call.by_row, inputs[len(leaves) :], strict=True))}
        capture = self._capture = Capture(self.module_path, self._options, watch)
        self._forget_layers()
        with torch.enable_grad():
            # The model may write into what it is given; a leaf that requires a gradient must not be written into.
            given = [leaf.clone() for leaf in leaves]
            copies = {name: value.clone() if isinstance(value, Tensor) else value for name, value in keywords.items()}
            for tensor in (*leaves, *given):
                capture.dependence.mark(tensor, explained=not self.call.layers)
            with capture, capture.saved_tensors():
                output = self.call.select(self._model(*given, **copies))
            if self._options.softmax == "centered":
                output = _centred_logits(output, capture)
        self._running.clear()
        self._capture = None
        if not self.call.layers:
            edges, layers = [get_gradient_edge(leaf) for leaf in leaves], [slice(0, len(leaves))]
            tensors = [leaf.detach() for leaf in leaves]
        else:
            tensors, edges, layers = self._seen_layers()
        self._check_output(output, capture, len(inputs[0]))
        return Pass(capture, output, tensors, edges, layers, leaves)

    def _start_afresh(self) -> None:
        """Take away what the pass before left in the modules, a count or a last state."""
        copies: dict[int, Tensor] = {}
        for module, (attributes, containers, buffers) in self._start:
            _restore_attributes(module, attributes, containers)
            for name, (buffer, version, content) in buffers.items():
                if buffer._version != version:
                    # That pass's graph may still read what it has written.
                    module.__dict__["_buffers"][name] = copies.setdefault(id(buffer), content.clone())

    def _enter_module(self, module: nn.Module, args: Any) -> None:
        self._running.append(module)

    def _apply(self) -> classmethod[torch.autograd.Function, Any, Any]:
        """In place of ``autograd.Function.apply``, which no function mode sees: hand-written ones are operations too."""
        thread = threading.get_ident()

        def apply(written: type[torch.autograd.Function], *args: Any, **kwargs: Any) -> Any:
            plain = partial(_FUNCTION_APPLY, written)
            if self._capture is None or threading.get_ident() != thread or is_rules_own(written):
                return plain(*args, **kwargs)
            return self._capture.function(written, plain, args, kwargs)

        return classmethod(apply)

    def _run_by_rule(
        self, rule: Rule, module: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if self._capture is None:
            # The rule's own call, in the pair pass.
            return forward(*args, **kwargs)
        return self._capture.module(rule, module, forward, args, kwargs)

    def _leave_module(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._running:
            self._running.pop()

    def _forget_layers(self) -> None:
        for seen in self._seen:
            seen.clear()

    def _see_inputs(self, number: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._see(number, (args, kwargs))

    def _see_outputs(self, number: int, module: nn.Module, args: Any, output: Any) -> None:
        self._see(number, output)

    def _see(self, number: int, value: Any) -> None:
        assert self._capture is not None
        seen = self._seen[number]
        if len(seen) != (self.call.layers[number].call or 0):
            seen.append(None)
            return
        with self._capture.paused():
            # A tensor that the layer is given twice, as query and key, is one.
            tensors = [
                tensor
                for tensor in {id(tensor): tensor for tensor in tensors_in(value)}.values()
                if tensor.is_floating_point() and tensor in self._capture.dependence
            ]
            for tensor in tensors:
                self._capture.dependence.mark(tensor, explained=True)
                if not tensor.requires_grad:
                    # Behind an embedding, say: this very tensor becomes the place to explain, also for a skip that it feeds.
                    tensor.requires_grad_(True)
            # The edge stands for the tensor as it is now, whatever is written into it later. A mask of -inf that is the same on both
            # sides gives nothing.
            now = [tensor.detach().nan_to_num(torch.nan) for tensor in tensors]
            seen.append((now, [get_gradient_edge(tensor) for tensor in tensors]))

    def _seen_layers(self) -> tuple[list[Tensor], list[GradientEdge], list[slice]]:
        tensors: list[Tensor] = []
        edges: list[GradientEdge] = []
        layers = []
        for layer, seen in zip(self.call.layers, self._seen, strict=True):
            name, number, call = self._names[layer.module], len(seen), layer.call
            if not number:
                raise ExplanationError(f"layer {name!r} did not run in the model's forward pass")
            if call is None and number > 1:
                raise ExplanationError(f"layer {name!r} runs {number} times in one forward pass: say which with call=")
            if call is not None and call >= number:
                raise ExplanationError(
                    f"layer {name!r} runs {number} time(s) in one forward pass: there is no call {call}"
                )
            found = seen[call or 0]
            if found is None or not found[0]:
                raise ExplanationError(
                    f"layer {name!r} has no floating-point {layer.at} tensor that depends on the model's inputs"
                )
            layers.append(slice(len(tensors), len(tensors) + len(found[0])))
            tensors += found[0]
            edges += found[1]
        return tensors, edges, layers

    def _check_output(self, output: Any, capture: Capture, rows: int) -> None:
        if not isinstance(output, Tensor):
            raise TypeError(f"output must select a tensor from what the model returns, got {type(output).__name__}")
        if output.dim() == 0 or output.shape[0] != rows:
            raise ExplanationError(
                f"the model's output must have shape [{rows}, ...] for {rows} samples, got {list(output.shape)}"
            )
        if not output.is_floating_point():
            raise ExplanationError(f"the model's output must be of a floating-point dtype, got {output.dtype}")
        if not output.requires_grad:
            raise UnsupportedOperationError(
                "the model's output is detached from what is explained: it was computed under torch.no_grad, from detached copies, or "
                "does not depend on it"
            )


#: A module of torch that compiles what it is called with.
_FLEX_ATTENTION = "torch.nn.attention.flex_attention"

_FUNCTION_APPLY = torch.autograd.Function.__dict__["apply"].__func__

#: A model that is being explained is in a state of its own, and so is what torch has one of for all threads.
_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def _without_checkpointing() -> Iterator[None]:
    """``torch.utils.checkpoint`` runs its function directly: replayed in the pair pass, it would run outside of the capture."""
    checkpoint = torch.utils.checkpoint
    saved = checkpoint.CheckpointFunction, checkpoint._checkpoint_without_reentrant_generator
    try:
        checkpoint.CheckpointFunction = _Direct  # type: ignore[misc, assignment]
        checkpoint._checkpoint_without_reentrant_generator = _nothing_around
        yield
    finally:
        checkpoint.CheckpointFunction, checkpoint._checkpoint_without_reentrant_generator = saved  # type: ignore[misc]


class _Direct:
    """Stands in for ``CheckpointFunction``."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve_rng_state: bool, *args: Any) -> Any:
        return function(*args)


def _nothing_around(*args: Any, **kwargs: Any) -> Iterator[None]:
    """Stands in for what non-reentrant checkpointing does before and after its function."""
    yield


def _centred_logits(output: Any, capture: Capture) -> Tensor:
    """In place of a final softmax its logits, less their mean over the classes (DeepLIFT, arXiv 1704.02685, section 3.6)."""
    made = capture.made_by(output) if isinstance(output, Tensor) else None
    if made is None or made[1] != "softmax":
        raise ExplanationError("softmax='centered' explains a model whose output is a softmax; this one's is not")
    return made[0] - made[0].mean(-1, keepdim=True)


#: Contents of the attributes that can be written into: torch's containers, caches and lists of the model's own.
Containers = dict[str, dict[Any, Any] | list[Any] | set[Any] | tuple[()]]
#: Each buffer with its version and its contents.
Buffers = dict[str, tuple[Tensor, int, Tensor]]
Snapshot = tuple[dict[str, Any], Containers, Buffers]


_CONTAINERS: dict[type, Callable[[Any], Any]] = {dict: dict, OrderedDict: dict, list: list, set: set}


def _attributes(module: nn.Module) -> tuple[dict[str, Any], Containers]:
    attributes = dict(module.__dict__)
    contents = {
        # Most are empty: hooks that nobody has registered.
        name: _CONTAINERS[type(value)](value) if value else ()
        for name, value in attributes.items()
        if type(value) in _CONTAINERS
    }
    return attributes, contents


def _buffers(module: nn.Module) -> Buffers:
    return {
        name: (buffer, buffer._version, buffer.detach().clone())
        for name, buffer in module.__dict__["_buffers"].items()
        if buffer is not None
    }


def _restore(module: nn.Module, snapshot: Snapshot) -> None:
    attributes, containers, buffers = snapshot
    _restore_attributes(module, attributes, containers)
    for buffer, version, content in buffers.values():
        if buffer._version != version:
            with torch.no_grad():
                buffer.copy_(content)


def _restore_attributes(module: nn.Module, attributes: dict[str, Any], containers: Containers) -> None:
    for name in set(module.__dict__) - set(attributes):
        del module.__dict__[name]
    module.__dict__.update(attributes)
    for name, content in containers.items():
        container = module.__dict__[name]
        container.clear()
        container.extend(content) if isinstance(container, list) else container.update(content)
