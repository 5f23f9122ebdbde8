"""Products, quotients, distances, norms and maxima of input-dependent tensors: additive, whatever the pairing."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

torch.manual_seed(0)
W = torch.randn(6, 6, dtype=torch.float64) / 2
Z = torch.zeros((), dtype=torch.float64)

OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "conv, weights from the input": lambda h: _grouped(F.conv1d, h),
    "conv_transpose, weights from the input": lambda h: _grouped(F.conv_transpose1d, h),
    "linear, weights from the input": lambda h: F.linear(W, h.tanh()).T,
    "bilinear": lambda h: F.bilinear(h, h.tanh(), torch.stack([W, W.T])),
    "einsum": lambda h: torch.einsum("bi,bj,ij->bi", h, h.tanh(), W),
    "baddbmm": lambda h: torch.baddbmm(Z, batch1=h[..., None], batch2=h.tanh()[:, None], beta=0.5, alpha=0.3),
    "addcmul": lambda h: torch.addcmul(h, tensor1=h, tensor2=h.tanh(), value=2),
    "addcdiv": lambda h: torch.addcdiv(h, tensor1=h, tensor2=h.exp(), value=2),
    "lerp": lambda h: torch.lerp(h, h.sin(), h.sigmoid()),
    "vecdot": lambda h: torch.linalg.vecdot(h, h.tanh())[:, None],
    "quotient of one sign": lambda h: h.tanh() / (2 + h.sigmoid()),
    "quotient of both signs": lambda h: h.tanh() / (h + 5) + h / (h.sin() - 2),
    "divisor alone": lambda h: 2 / (h.square() + 1),
    "prod": lambda h: h.prod(1, keepdim=True),
    "cumprod": lambda h: h.cumprod(1),
    "cosine_similarity": lambda h: F.cosine_similarity(h @ W, h.tanh())[:, None],
    "cdist": lambda h: torch.cdist(h[..., None], h.sin()[..., None]).flatten(1),
    "cdist, p=1": lambda h: torch.cdist(h[..., None], h.sin()[..., None], p=1).flatten(1),
    "pairwise_distance": lambda h: F.pairwise_distance(h, h.tanh())[:, None],
    "normalize": lambda h: F.normalize(h),
    "normalize, largest": lambda h: F.normalize(h, p=math.inf),
    "vector_norm": lambda h: torch.linalg.vector_norm(x=h, dim=-1)[:, None],
    "norm, p=1": lambda h: h.norm(p=1, dim=1, keepdim=True),
    "norm by hand": lambda h: h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6),
    "standardized by hand": lambda h: (h - h.mean(1, keepdim=True)) / h.std(1, keepdim=True),
    "var": lambda h: torch.var(h, 1, keepdim=True) * h,
    "var_mean": lambda h: torch.cat(torch.var_mean(h, 1, keepdim=True), 1),
    "layer_norm": lambda h: F.layer_norm(h, (6,), W[0], W[1]),
    "rms_norm": lambda h: F.rms_norm(h, (6,), W[0]),
    "group_norm": lambda h: F.group_norm(h[..., None] * W[0, :3], 3).flatten(1),
    "instance_norm": lambda h: F.instance_norm(h[..., None] * W[0, :3].tanh() + h[..., None]).flatten(1),
    "local_response_norm": lambda h: F.local_response_norm(h[..., None], 2).flatten(1),
    "logsumexp": lambda h: torch.logsumexp(h[..., None] * W, (1, 2))[:, None],
    "softmin": lambda h: F.softmin(h, 1) * h,
    "glu": lambda h: F.glu(h),
    "max": lambda h: h.max(1).values[:, None],
    "max of two": lambda h: torch.max(input=h, other=h.sin()),
    "min": lambda h: h.min(1)[0][:, None],
    "minimum": lambda h: torch.minimum(h, h.cos()),
    "amin": lambda h: h.amin((1,))[:, None],
    "clamps": lambda h: h.clamp_min(0.2) + h.clamp(max=0.5) + h.clamp(-0.1, 0.1),
}


def _grouped(convolve: Callable[..., Tensor], h: Tensor) -> Tensor:
    """Each sample's row convolved with weights made from it: samples are groups."""
    return convolve(h.reshape(1, -1, 6), h.tanh()[:, None, :3].contiguous(), groups=h.shape[0]).reshape(h.shape[0], -1)


class Model(nn.Module):
    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        y = self.operation(x @ W).flatten(1)
        return y @ torch.arange(1, y.shape[1] + 1, dtype=x.dtype).sqrt()


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS.keys())
def test_adds_up_whatever_the_pairing(operation: Callable[[Tensor], Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    x, background = (torch.randn(count, 6, generator=generator, dtype=torch.float64) for count in (3, 4))
    explainer = DeepExplainer(Model(operation), background)
    found = explainer.attribute(x)
    difference = found.output - found.expected_value
    assert found.convergence_delta.abs().max() <= 1e-12 * difference.abs().max()
    for other in (
        explainer.attribute(x, pairing="aligned"),
        explainer.attribute(x, baselines=background.expand(3, 4, 6)),
    ):
        torch.testing.assert_close(other.values, found.values, rtol=1e-11, atol=1e-12)
