"""An operation between two linear layers: explained as torch computes it, additively, whatever the pairing."""

from collections.abc import Callable

import torch
from rules.linear_samples import const
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

Operation = Callable[[Tensor], Tensor]


class Model(nn.Module):
    def __init__(self, operation: Operation) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        y = self.operation(x @ const(6, 6)).reshape(len(x), -1)
        return y @ torch.arange(1, y.shape[1] + 1, dtype=y.dtype).sqrt()


def check(operation: Operation, tolerance: float = 1e-12) -> None:
    """Explain three samples of six numbers against four baselines."""
    generator = torch.Generator().manual_seed(1)
    x, background = (torch.randn(count, 6, generator=generator, dtype=torch.float64) for count in (3, 4))
    model = Model(operation)
    explainer = DeepExplainer(model, background)
    found = explainer.attribute(x)
    for ours, plain in ((found.output, model(x)), (found.expected_value, model(background).mean().expand(3))):
        torch.testing.assert_close(ours.flatten(), plain, rtol=tolerance, atol=tolerance)
    difference = (found.output - found.expected_value).abs().max()
    assert difference > 1e-3
    assert found.convergence_delta.abs().max() <= tolerance * difference
    for other in (
        explainer.attribute(x, pairing="aligned"),
        explainer.attribute(x, baselines=background.expand(3, 4, 6)),
    ):
        torch.testing.assert_close(other.values, found.values, rtol=1e-10, atol=1e-11)
