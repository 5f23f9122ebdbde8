"""What every explanation is held to: it adds up, and nothing of the user's has changed."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from deepshap_ext import Attribution, DeepExplainer

#: The largest gap of additivity, relative to the largest output difference of the batch.
ADDITIVITY = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-2}
#: How far values may move with pairing, chunks and neighbours, relative to the largest value.
INVARIANCE = {torch.float64: 1e-13, torch.float32: 1e-6}

Inputs = Tensor | list[Tensor]


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def run(model: nn.Module, inputs: Inputs, select: Callable[[Any], Tensor] = lambda y: y) -> Tensor:
    """The plain model's output in eval mode, on copies of everything."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        return select(model(*[tensor.clone() for tensor in as_list(inputs)]))


def additivity_gap(values: Any, outputs: Tensor, baseline_outputs: Tensor) -> float:
    """Largest ``|sum(values) - (y(x) - mean y(r))|`` over largest ``|y(x) - mean y(r)|``.

    ``values``: ``[N, *features, *outputs]``.
    """
    outputs, expected = outputs.double(), baseline_outputs.double().mean(0)
    if outputs.dim() == 1:
        outputs, expected = outputs.unsqueeze(1), expected.unsqueeze(0)
    difference = outputs - expected
    trailing = difference.dim() - 1
    total = torch.zeros_like(difference)
    for value in as_list(values):
        value = torch.as_tensor(value).double()
        features = tuple(range(1, value.dim() - trailing))
        total += value.sum(features) if features else value
    return float((total - difference).abs().max() / difference.abs().max().clamp_min(1e-300))


def explain(
    model: nn.Module,
    x: Inputs,
    background: Inputs,
    *,
    select: Callable[[Any], Tensor] = lambda y: y,
    tolerance: float | None = None,
    layer: nn.Module | None = None,
    **options: Any,
) -> Attribution:
    """Explain all outputs, and check that the values add up and that the user's objects are as they were.

    ``select``: of what the model returns, the tensor that is explained. ``tolerance``: of the gap, by default that of the outputs' type.
    """
    outputs, baseline_outputs = run(model, x, select), run(model, background, select)
    with unchanged(model, *as_list(x), *as_list(background)):
        explainer = DeepExplainer(model if layer is None else (model, layer), background, **options)
        found = explainer.attribute(x)
    assert all(value.isfinite().all() for value in as_list(found.values))
    gap = additivity_gap(found.values, outputs, baseline_outputs)
    assert gap <= (ADDITIVITY[outputs.dtype] if tolerance is None else tolerance), f"off by {gap:.3g} of the difference"
    return found


def values_of(*args: Any, **options: Any) -> list[Tensor]:
    """The values of every input."""
    return as_list(explain(*args, **options).values)


def assert_same(one: Any, other: Any, tolerance: float | None = None) -> None:
    """Equal to ``tolerance`` (by default what invariances are held to) of the largest value."""
    for a, b in zip(as_list(one), as_list(other), strict=True):
        a, b = torch.as_tensor(a), torch.as_tensor(b)
        assert a.shape == b.shape
        allowed = INVARIANCE[a.dtype] if tolerance is None else tolerance
        far = float((a.double() - b.double()).abs().max())
        scale = float(b.double().abs().max())
        assert far <= allowed * scale, f"{far / max(scale, 1e-300):.3g} of the largest value apart"


@contextmanager
def unchanged(model: nn.Module, *tensors: Tensor) -> Iterator[None]:
    """The model, the tensors and torch's global state are after the block, whatever it raises, as they were before."""
    before, contents = _state(model), [(tensor.clone(), tensor._version, tensor.requires_grad) for tensor in tensors]
    mode = _global_state()
    try:
        yield
    finally:
        _assert_equal("model", _state(model), before)
        for number, (tensor, (content, _, requires_grad)) in enumerate(zip(tensors, contents, strict=True)):
            assert torch.equal(tensor.nan_to_num(), content.nan_to_num()), (
                f"tensor {number} of the caller was written into"
            )
            assert tensor.requires_grad == requires_grad and tensor.grad is None, f"tensor {number} of the caller"
        _assert_equal("torch", _global_state(), mode)


def _state(model: nn.Module) -> dict[str, Any]:
    state: dict[str, Any] = {}
    for name, module in model.named_modules():
        for key, value in module.__dict__.items():
            state[f"{name}.{key}"] = _described(value)
        state[f"{name}: attributes"] = list(module.__dict__)
    for name, parameter in model.named_parameters():
        gradient = None if parameter.grad is None else (id(parameter.grad), parameter.grad.clone())
        state[f"{name}: parameter"] = (
            id(parameter),
            parameter.data_ptr(),
            parameter.requires_grad,
            gradient,
            parameter.detach().clone(),
        )
        state[f"{name}: backward hooks"] = parameter._backward_hooks
    for name, buffer in model.named_buffers():
        state[f"{name}: buffer"] = (id(buffer), buffer.data_ptr(), buffer.requires_grad, buffer.clone())
    return state


def _described(value: Any) -> Any:
    """Identity and contents of an attribute."""
    if isinstance(value, Tensor):
        return id(value), value.detach().clone()
    if isinstance(value, dict):
        return id(value), [(key, id(item)) for key, item in value.items()]
    return id(value) if not isinstance(value, (int, float, str)) else value


def _global_state() -> dict[str, Any]:
    return {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "random state": torch.get_rng_state(),
        "dtype": torch.get_default_dtype(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "threads": torch.get_num_threads(),
        "function modes": len(_get_current_function_mode_stack()),
        "dispatch modes": len(_get_current_dispatch_mode_stack()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _assert_equal(title: str, after: dict[str, Any], before: dict[str, Any]) -> None:
    assert after.keys() == before.keys(), f"{title}: {sorted(after.keys() ^ before.keys())} came or went"
    for key, value in before.items():
        assert _equal(after[key], value), f"{title}: {key} has changed"


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())
    if isinstance(one, Sequence) and not isinstance(one, str):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
