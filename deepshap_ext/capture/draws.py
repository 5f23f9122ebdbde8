"""Random numbers of a model that is being explained: its own, so that the program's generators go on as if it had not run."""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._ops import OpOverload
from tqdm import TMonitor

from .dependence import tensors_in
from .names import Operation


class Draws:
    """Random operations of an explanation, on generators of its own: the same numbers each time.

    What is drawn does not matter, only its shape, dtype and range: a random result that reaches what is explained is refused. One that
    Python code reads goes unseen unless it differs between two passes, which therefore draw on.
    """

    def __init__(self) -> None:
        self._generators: dict[torch.device, torch.Generator] = {}

    def __call__(self, called: Operation, function: Any, args: Any, kwargs: Any) -> Any:
        """The result of a random operation, whatever generator it was called with."""
        given = next((arg for arg in (*args, *kwargs.values()) if isinstance(arg, torch.Generator)), None)
        tensors = list(tensors_in((args, kwargs)))
        if given is not None:
            device = given.device
        elif tensors:
            device = tensors[0].device
        else:
            device = torch.device(kwargs.get("device") or torch.get_default_device())
        generator = self._on(device)
        equivalent = _WITHOUT_GENERATOR.get(called.name)
        if equivalent is not None:
            return equivalent(generator, called, *args, **kwargs)
        args = [generator if isinstance(arg, torch.Generator) else arg for arg in args]
        if generator in args:
            return function(*args, **kwargs)
        # An overload of torch.ops takes a generator or does not; the packet finds the one that does.
        drawing = function._overloadpacket if isinstance(function, OpOverload) else function
        return drawing(*args, **{**kwargs, "generator": generator})

    def _on(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(0)
        return self._generators[device]


def _like(fill: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``rand_like`` and the others, as an empty tensor that is filled."""

    def filled(generator: torch.Generator, called: Operation, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        bounds = [*args, *(kwargs.pop(name) for name in ("low", "high") if name in kwargs)]
        kwargs.pop("generator", None)
        made = torch.empty_like(input, **kwargs)
        return fill(made, *(bounds if len(bounds) != 1 else [0, *bounds]), generator=generator)

    return filled


def _dropout(
    generator: torch.Generator,
    called: Operation,
    input: Tensor,
    p: float = 0.5,
    training: bool | None = True,
    inplace: bool = False,
    train: bool | None = None,
) -> Any:
    """A dropout of any kind that is in training: of elements, or of whole features ``[N, C, ...]``."""
    shape = input.shape
    if "feature" in called.name or called.name[-2:] in ("1d", "2d", "3d"):
        single = {"dropout1d": 2, "dropout2d": 3, "dropout3d": 4}.get(called.name) == input.dim()
        kept_dims = 1 if single else 2
        shape = input.shape[:kept_dims] + (1,) * (input.dim() - kept_dims)
    mask = torch.empty(shape, dtype=input.dtype, device=input.device).bernoulli_(1 - p, generator=generator)
    if "alpha" in called.name:
        alpha = -1.7580993408473766  # SELU's limit: Klambauer et al. 2017, arXiv 1706.02515, section 4
        scale = ((1 - p) * (1 + p * alpha**2)) ** -0.5 if p < 1 else 0.0
        result = (input * mask + alpha * (1 - mask)) * scale - scale * alpha * p
    else:
        result = input * mask / (1 - p) if p < 1 else input * mask
    if called.name == "native_dropout":
        return result, mask.bool()
    return input.copy_(result) if inplace or called.in_place else result


def _gumbel_softmax(
    generator: torch.Generator,
    called: Operation,
    logits: Tensor,
    tau: float = 1,
    hard: bool = False,
    eps: float = 1e-10,
    dim: int = -1,
) -> Tensor:
    noise = torch.empty_like(logits).exponential_(generator=generator).log()
    soft = ((logits - noise) / tau).softmax(dim)
    return torch.zeros_like(soft).scatter_(dim, soft.argmax(dim, keepdim=True), 1.0) if hard else soft


def _rrelu(
    generator: torch.Generator,
    called: Operation,
    input: Tensor,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = True,
    inplace: bool = False,
    **_: Any,
) -> Tensor:
    in_place = inplace is True or called.in_place
    return (torch.rrelu_ if in_place else torch.rrelu)(input, lower, upper, training, generator)


#: Operations that take no generator, written with ones that do.
_WITHOUT_GENERATOR: dict[str, Callable[..., Any]] = {
    "rand_like": _like(Tensor.uniform_),
    "randn_like": _like(lambda made, *_, generator: made.normal_(generator=generator)),
    "randint_like": _like(Tensor.random_),
    **dict.fromkeys("dropout dropout1d dropout2d dropout3d feature_dropout native_dropout".split(), _dropout),
    **dict.fromkeys("alpha_dropout feature_alpha_dropout".split(), _dropout),
    "gumbel_softmax": _gumbel_softmax,
    "rrelu": _rrelu,
}


class ProgramGenerators:
    """The states of the generators that all of the program shares: torch's, numpy's and Python's.

    Torch's random operations do not reach them (:class:`Draws`); a model that draws with numpy, sets a seed or runs what the capture
    does not see does.
    """

    def __init__(self, devices: set[torch.device]) -> None:
        self._torch = {device: _state(device) for device in devices if device.type == "cuda"}
        self._torch[torch.device("cpu")] = torch.get_rng_state()
        self._numpy: Any = np.random.get_state(legacy=False)
        self._numpy_memory = _numpy_memory()
        self._python = random.getstate()

    def put_back(self) -> None:
        """Set the generators back, unless it may have been another thread that drew."""
        others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
        # Progress bars of tqdm leave a thread running, which draws nothing.
        if not all(isinstance(thread, TMonitor) for thread in others):
            return
        for device, state in self._torch.items():
            _set_state(device, state)
        # Numpy makes normal numbers in pairs; a second one that waits to be drawn is not in the memory that is compared.
        if self._numpy["has_gauss"] or self._numpy_memory is None or self._numpy_memory != _numpy_memory():
            np.random.set_state(self._numpy)
        random.setstate(self._python)


def _numpy_memory() -> bytes | None:
    """The memory of numpy's global generator; None where that is not of the default kind. Reading it takes a hundredth of the time that
    setting a state takes."""
    # numpy before 1.24 does not give it.
    generator: Any = getattr(np.random, "get_bit_generator", lambda: None)()
    if type(generator) is not np.random.MT19937:
        return None
    return ctypes.string_at(generator.ctypes.state_address, _MT19937_BYTES)


#: 624 integers of 32 bits, and the place of the next one.
_MT19937_BYTES = 625 * 4


def _state(device: torch.device) -> Tensor:
    return torch.get_rng_state() if device.type == "cpu" else torch.cuda.get_rng_state(device)


def _set_state(device: torch.device, state: Tensor) -> None:
    torch.set_rng_state(state) if device.type == "cpu" else torch.cuda.set_rng_state(state, device)
