"""Models, and functions of baselines and of targets, that commands in the tests name as ``command_models:NAME``."""

import os
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import deepshap_ext
from deepshap_ext import Explainer

FEATURES = 6


def environment(**variables: str) -> dict[str, str]:
    """The environment of a process that is to find the package and this module."""
    found = [str(Path(__file__).parent), str(Path(deepshap_ext.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(found), "OMP_NUM_THREADS": "1", **variables}


def make() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.GELU(), nn.Linear(8, 2))


def wider() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 9), nn.GELU(), nn.Linear(9, 2))


def explainer() -> Explainer:
    return Explainer(make(), batch_size=7)


def fails_for(x: Any, seeds: list[int]) -> Any:
    raise KeyError("no such rows")


def fails() -> nn.Module:
    raise KeyError("no such layer")


class Two(nn.Module):
    """A model of two inputs and a keyword argument with a row a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(FEATURES, 4), nn.Linear(3, 4)

    def forward(self, x: Tensor, y: Tensor, *, scale: Tensor) -> dict[str, Tensor]:
        return {"scores": torch.tanh(self.a(x) + self.b(y)) * scale}


def two() -> nn.Module:
    torch.manual_seed(0)
    return Two()


def permuted(x: Any, seeds: list[int]) -> np.ndarray:
    """Three baselines a sample: its features in random orders."""
    return np.stack(
        [
            np.stack([np.random.default_rng([seed, k]).permutation(row) for k in range(3)])
            for row, seed in zip(x, seeds, strict=True)
        ]
    )


def dies_once(x: Any, seeds: list[int]) -> np.ndarray:
    """The baselines of ``permuted``. The first process to get to the sample whose first feature is 7 dies there; the second one warns."""
    mark = Path(os.environ["DEEPSHAP_TEST_MARK"])
    if (np.asarray(x)[:, 0] == 7).any():
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        warnings.warn("somebody died here", stacklevel=1)
    return permuted(x, seeds)


def dies_once_among_others(x: Any, seeds: list[int]) -> np.ndarray:
    """``dies_once`` for torchrun's ranks. A rank waits until every rank has a shard, so that none of them does all of the work."""
    begun = Path(os.environ["DEEPSHAP_TEST_MARK"] + "-begun-" + os.environ["TORCHELASTIC_RESTART_COUNT"])
    begun.mkdir(exist_ok=True)
    (begun / os.environ["RANK"]).touch()
    deadline = time.monotonic() + 60
    while len(list(begun.iterdir())) < int(os.environ["WORLD_SIZE"]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return dies_once(x, seeds)


def predicted(outputs: Tensor) -> Tensor:
    return outputs.argmax(1)


not_a_function: Callable[[], nn.Module] | int = 3
