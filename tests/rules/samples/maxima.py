"""Maxima and minima."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from reference import rules as slow
from torch import Tensor

from .sample import Sample, of_two, one, with_both


def _pools(dims: int) -> dict[str, Sample]:
    size = {1: (7,), 2: (3, 3), 3: (2, 2, 2)}[dims]
    flat = (int(np.prod(size)),)
    padding, dilation = (1, 2) if dims == 1 else (0, 1)
    count = 1 if dims == 3 else 2

    def pooled(name: str, *args: Any) -> Callable[[Tensor], Any]:
        return lambda x: getattr(F, name)(x.reshape(-1, 1, *size), *args)

    def slowly(a: np.ndarray, shapley: bool = False) -> np.ndarray:
        return slow.max_pool(a.reshape(size), 2, 1, padding, dilation, shapley)

    def adaptively(a: np.ndarray, shapley: bool = False) -> np.ndarray:
        return slow.adaptive_max_pool(a.reshape(size), count, shapley)

    found: dict[str, Sample] = {}
    for suffix in ("", "_with_indices"):
        name = f"max_pool{dims}d{suffix}"
        found |= with_both(name, flat, pooled(name, 2, 1, padding, dilation), slowly, 0.6)
        name = f"adaptive_{name}"
        found |= with_both(name, flat, pooled(name, count), adaptively, 0.6)
    return found


def _fractional_pools() -> dict[str, Sample]:
    """With the random places given: the windows of stride 1 from 0 and 1 in a dimension with two, from 1 in one with one."""

    def op(name: str, size: tuple[int, ...], kernel: Any, count: Any) -> Callable[[Tensor], Any]:
        def run(x: Tensor) -> Any:
            places = torch.full((len(x), 1, len(size)), 0.5, dtype=x.dtype)
            return getattr(F, name)(x.reshape(-1, 1, *size), kernel, count, _random_samples=places)

        return run

    found = {}
    for suffix in ("", "_with_indices"):
        name = f"fractional_max_pool2d{suffix}"
        found[name] = Sample((9,), op(name, (3, 3), 2, 2), lambda a: slow.max_pool(a.reshape(3, 3), 2, 1), 0.6)
        name = f"fractional_max_pool3d{suffix}"
        found[name] = Sample(
            (12,), op(name, (3, 2, 2), (2, 1, 1), (1, 1, 1)), lambda a: one(slow.largest(a[[7, 11]])), 0.1
        )
    return found


def samples() -> dict[str, Sample]:
    def smallest_and_largest(a: np.ndarray, shapley: bool = False) -> list[Any]:
        return [slow.smallest(a, shapley), slow.largest(a, shapley)]

    def exactly(choose: Callable[..., Any]) -> Callable[..., list[Any]]:
        """Of two tensors: the Shapley values, whatever the preset."""
        return lambda a, b: [choose(both, True) for both in zip(a, b, strict=True)]

    def of_all(choose: Callable[..., Any]) -> Callable[..., np.ndarray]:
        return lambda a, shapley=False: one(choose(a, shapley))

    def running(choose: Callable[..., Any]) -> Callable[..., list[Any]]:
        return lambda a, shapley=False: [choose(a[: n + 1], shapley) for n in range(len(a))]

    found = {**_pools(1), **_pools(2), **_pools(3), **_fractional_pools()}
    found |= with_both("running_maxima", (5,), lambda x: x.cummax(1), running(slow.largest), 0.6)
    for name, choose in (("max", slow.largest), ("min", slow.smallest)):
        function, reduced = getattr(torch, name), getattr(torch, f"a{name}")
        found |= with_both(name, (5,), lambda x, f=function: f(x, 1, True), of_all(choose), 0.6)
        found |= with_both(f"a{name}", (5,), lambda x, f=reduced: f(x, 1, True), of_all(choose), 0.6)
        cumulative = getattr(torch, f"cum{name}")
        found |= with_both(f"cum{name}", (5,), lambda x, f=cumulative: f(x, 1), running(choose), 0.6)
        found[f"{name}: of two"] = of_two(function, exactly(choose))
        found[f"{name}imum"] = of_two(getattr(torch, f"{name}imum"), exactly(choose))
        found[f"f{name}"] = of_two(getattr(torch, f"f{name}"), exactly(choose))
    found |= with_both("aminmax", (5,), lambda x: torch.aminmax(x, dim=1, keepdim=True), smallest_and_largest, 0.6)
    return found
