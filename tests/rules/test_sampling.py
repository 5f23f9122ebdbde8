"""Images sampled at places computed from the input: as torch samples them, additive, whatever the pairing."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from models import Function
from rules.adding_up import check
from rules.linear_samples import const
from torch import Tensor, nn

from deepshap_ext import AdditivityError, DeepExplainer


@pytest.mark.parametrize(
    ("mode", "padding", "align_corners"),
    [*itertools.product(["bilinear", "bicubic"], ["zeros", "border", "reflection"], [False, True])],
)
def test_a_transformer_of_images(mode: str, padding: str, align_corners: bool) -> None:
    """Places up to three images away from the middle."""

    def sample(h: Tensor) -> Tensor:
        image, theta = h.view(-1, 1, 2, 3), torch.eye(2, 3).to(h) + h.view(-1, 2, 3)
        grid = F.affine_grid(theta, [len(h), 1, 3, 2], align_corners=align_corners)
        return F.grid_sample(image, 1.5 * grid, mode, padding, align_corners)

    check(sample)


def test_volumes() -> None:
    def sample(h: Tensor) -> Tensor:
        return F.grid_sample(h.view(-1, 1, 1, 2, 3), h.tanh().view(-1, 2, 1, 1, 3), align_corners=True)

    check(sample)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_places_in_an_image_that_is_constant(mode: str) -> None:
    """One place a sample, which moves along one dimension: all of the difference is its own."""
    image = const(1, 1, 4, 5)

    def sample(x: Tensor) -> Tensor:
        grid = torch.cat([x[:, :1], torch.zeros_like(x[:, :1])], 1).view(-1, 1, 1, 2)
        return F.grid_sample(image.expand(len(x), 1, 4, 5), grid, mode, align_corners=False).flatten(1)

    x, background = torch.rand(3, 2).double() * 2 - 1, torch.rand(4, 2).double() * 2 - 1
    found = DeepExplainer(Function(sample), background).attribute(x)
    torch.testing.assert_close(found.values[:, 0], sample(x) - sample(background).mean(0), rtol=1e-11, atol=1e-13)
    assert not found.values[:, 1].any()


def test_the_nearest_element_is_a_decision() -> None:
    def sample(x: Tensor) -> Tensor:
        return F.grid_sample(x.view(-1, 1, 2, 2), x.view(-1, 2, 1, 2), "nearest", align_corners=False).flatten(1)

    model, x = Function(sample), torch.tensor([[0.9, 0.8, -0.7, 0.6]]).double()
    found = DeepExplainer(model, x * 0.9).attribute(x)  # the same elements
    torch.testing.assert_close(found.values.sum(1), sample(x) - sample(x * 0.9), rtol=1e-12, atol=1e-14)
    with pytest.raises(AdditivityError, match="takes different decisions"):
        DeepExplainer(model, -x).attribute(x)


def test_the_spatial_transformer_of_torchs_tutorial() -> None:
    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.localization = nn.Sequential(nn.Conv2d(1, 4, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten())
            self.theta, self.head = nn.Linear(144, 6), nn.Linear(256, 2)

        def forward(self, x: Tensor) -> Tensor:
            theta = self.theta(self.localization(x)).view(-1, 2, 3) + torch.eye(2, 3)
            return self.head(
                F.grid_sample(x, F.affine_grid(theta, x.size(), align_corners=False), align_corners=False).flatten(1)
            )

    torch.manual_seed(0)
    found = DeepExplainer(Transformer(), torch.rand(5, 1, 16, 16)).attribute(torch.rand(2, 1, 16, 16))
    assert found.convergence_delta.abs().max() < 1e-6
