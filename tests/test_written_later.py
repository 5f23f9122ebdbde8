"""What an operation has read is kept for the pair pass, whatever the model writes into it afterwards."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from checks import additivity_gap, explain, run
from models import Body, spread
from torch import Tensor

from deepshap_ext import DeepExplainer


def _written(make: Callable[[Tensor], Tensor], use: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Uses a tensor that is made from what is explained, and then writes into it."""

    def function(x: Tensor) -> Tensor:
        made = make(x)
        result = use(x, made)
        made.logical_not_() if made.dtype == torch.bool else made.mul_(0).add_(3)
        return result

    return function


def _numbers(*shape: int) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.linspace(0.5, 2, torch.Size(shape).numel(), dtype=x.dtype).view(shape)


LATE: dict[str, Callable[[Tensor], Tensor]] = {
    "mask": _written(lambda x: x > -100, lambda x, m: torch.where(m, x, 2 * x)),
    "filled": _written(lambda x: x < -100, lambda x, m: x.masked_fill(m, 1.0)),
    "mask as number": _written(lambda x: (x > -100).to(x), lambda x, m: x * m),
    "index": _written(lambda x: (x > -100).long().cumsum(1) - 1, lambda x, i: x.gather(1, i) * torch.arange(8)),
    "kernel": _written(_numbers(1, 1, 3), lambda x, w: F.conv1d(x.unsqueeze(1).tanh(), w, padding=1).squeeze(1)),
    "slope": _written(_numbers(1), lambda x, w: F.prelu(x, w * 1)),
    "its own slope": _written(_numbers(1), F.prelu),
    "layer norm": _written(_numbers(8), lambda x, w: F.layer_norm(x, (8,), w)),
    "rms norm": _written(_numbers(8), lambda x, w: F.rms_norm(x, (8,), w)),
    "group norm": _written(_numbers(8), lambda x, w: F.group_norm(x, 2, w)),
    "batch norm": _written(_numbers(8), lambda x, w: F.batch_norm(x, torch.zeros_like(w), torch.ones_like(w), w)),
    "einsum": _written(_numbers(8), lambda x, w: torch.einsum("bi,bi,i->bi", x, x.tanh(), w)),
    "exponent": _written(_numbers(8), lambda x, w: x.exp().pow(w)),
    "bound": _written(_numbers(8), lambda x, w: torch.clamp(x, -w, w)),
    "dividend": _written(_numbers(8), lambda x, w: w / (x.exp() + 1)),
    "bilinear": _written(_numbers(8, 8, 8), lambda x, w: F.bilinear(x, x.tanh(), w)),
    "sparse": _written(_numbers(8, 8), lambda x, w: torch.sparse.mm(w.to_sparse(), x.t()).t()),
}


@pytest.mark.parametrize("function", LATE.values(), ids=LATE.keys())
def test_what_is_written_into_later(function: Callable[[Tensor], Tensor]) -> None:
    explain(spread(Body(function)).double(), torch.randn(3, 6).double(), torch.randn(4, 6).double())


def test_a_constant_written_into_through_data() -> None:
    def function(x: Tensor) -> Tensor:
        kernel = torch.ones(1, 1, 3, dtype=x.dtype)
        found = F.conv1d(x.unsqueeze(1).tanh(), kernel, padding=1).squeeze(1)
        kernel.data.zero_()
        return found

    explain(spread(Body(function)).double(), torch.randn(3, 6).double(), torch.randn(4, 6).double())


def _norm(write: Callable[[Tensor, Tensor], object]) -> Callable[[Tensor], Tensor]:
    """A norm written by hand, whose mean square or inverse scale is written into before it is multiplied with."""

    def function(x: Tensor) -> Tensor:
        square = x.square().mean(1, keepdim=True) + 0.1
        inverse = square.rsqrt()
        write(square, inverse)
        return x * inverse

    return function


@pytest.mark.parametrize(
    "write",
    [
        lambda square, inverse: square.mul_(3),
        lambda square, inverse: square[:, 0].mul_(3),
        lambda square, inverse: square.detach().mul_(3),
        lambda square, inverse: square.data.mul_(3),
        lambda square, inverse: inverse.mul_(3),
        lambda square, inverse: inverse.data.mul_(3),
        lambda square, inverse: torch.mul(square, 3, out=square),
    ],
)
def test_a_mean_square_written_into_after_its_root(write: Callable[[Tensor, Tensor], object]) -> None:
    model, x, background = spread(Body(_norm(write))).double(), torch.randn(3, 6).double(), torch.randn(1, 6).double()
    found = DeepExplainer(model, background).attribute(x)
    assert additivity_gap(found.values, run(model, x), run(model, background)) <= 1e-12
