"""What every op is tested over: devices, types, geometries and memory layouts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from ops.layouts import channels_last, contiguous, leading_last, sliced
from torch import Tensor

CUDA = pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))


@dataclass(frozen=True)
class Case:
    """One geometry: `shape(n)` is the shape of an operand with n rows."""

    name: str
    shape: Callable[[int], tuple[int, ...]]
    batch: int
    baselines: int
    pairing: str = "grid"
    outer: int = 1

    @property
    def reference_rows(self) -> int:
        return {"grid": self.baselines, "aligned": self.batch, "per_sample": self.batch * self.baselines}[self.pairing]

    @property
    def geometry(self) -> tuple[int, int, str]:
        """The last arguments of every op."""
        return self.outer, self.batch, self.pairing

    def rows(self, outputs: int = 2) -> Tensor:
        """Each baseline as many times as there are outputs, neighbours together."""
        return torch.arange(1 if self.pairing == "aligned" else self.baselines).repeat_interleave(outputs)


CASES = [
    Case("vectors", lambda n: (n, 7), 4, 3),
    Case("images", lambda n: (n, 3, 4, 6), 4, 3),
    Case("aligned", lambda n: (n, 3, 4, 6), 3, 3, "aligned"),
    Case("per_sample", lambda n: (n, 3, 4, 6), 3, 2, "per_sample"),
    Case("sequence_first", lambda n: (6, n, 4), 4, 3, outer=6),
    Case("sequence_first_per_sample", lambda n: (6, n, 4), 3, 2, "per_sample", outer=6),
    Case("heads", lambda n: (2 * n, 3, 4), 4, 3),
    Case("heads_in_front", lambda n: (2 * n, 3, 4), 4, 3, outer=2),
    Case("one_pair", lambda n: (n, 2, 3), 1, 1),
    Case("six_inputs", lambda n: (n, 3, 4), 6, 3),
    Case("one_input", lambda n: (n, 3, 4, 6), 1, 3),
    Case("one_element", lambda n: (n,), 2, 3),
    Case("tiles", lambda n: (n, 5, 37, 33), 3, 2),
]


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=["cpu", CUDA])
def device(request: pytest.FixtureRequest) -> str:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(params=[torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=lambda dtype: str(dtype)[6:])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param  # type: ignore[no-any-return]


Layout = Callable[[Tensor, int], Tensor]
LAYOUTS: dict[str, tuple[Layout, Layout]] = {
    "contiguous": (contiguous, contiguous),
    "channels_last": (channels_last, channels_last),
    "channels_last_grad": (channels_last, contiguous),
    "channels_last_operands": (leading_last, channels_last),
    "sliced": (sliced, sliced),
}


@pytest.fixture(params=LAYOUTS.values(), ids=LAYOUTS.keys())
def layout(request: pytest.FixtureRequest) -> tuple[Layout, Layout]:
    """How grad lies in memory, and how the operands do."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype, factor: float = 4) -> None:
    """Equal to rounding in `dtype`: float64's oracle cancels by itself, its error is what is allowed there."""
    tolerance = 1e-10 if dtype == torch.float64 else factor * torch.finfo(dtype).eps
    torch.testing.assert_close(actual.double().cpu(), expected.cpu(), rtol=tolerance, atol=tolerance)


@pytest.fixture(name="assert_close")
def _assert_close() -> Any:
    return assert_close
