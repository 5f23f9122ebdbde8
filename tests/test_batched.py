"""Many cotangents at once: what a function gives of each."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from deepshap_ext import batched
from deepshap_ext.batched import over_rows


@pytest.fixture(params=["direct", "torch.func.vmap"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(batched, "HAS_DIRECT", request.param == "direct")
    yield


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("rows", [1, 5])
def test_a_function_of_one_row_is_run_on_each(rows: int) -> None:
    x, y, constant = torch.randn(rows, 3), torch.randn(rows, 3), torch.randn(2)

    def one(a: Tensor, b: Tensor) -> list[Tensor]:
        return [a @ b, a.outer(b), constant]

    dot, outer, same = over_rows(one, x, y)
    assert torch.allclose(dot, (x * y).sum(1))
    assert torch.equal(outer, x.unsqueeze(2) * y.unsqueeze(1))
    assert torch.equal(same, constant.expand(rows, 2))


@pytest.mark.usefixtures("either_way")
def test_nothing_is_left_behind_by_an_error() -> None:
    def fails(row: Tensor) -> list[Tensor]:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        over_rows(fails, torch.randn(3, 2))
    assert not torch._C._are_functorch_transforms_active()
