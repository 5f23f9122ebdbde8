"""Losses of each sample: as torch computes them, and additive."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from rules.adding_up import check
from rules.linear_samples import const
from torch import Tensor

CLASS, SIGNS, POSITIVE = torch.tensor([2]), torch.tensor([1.0, -1, 1, 1, -1, -1]).double(), const(6).abs() + 0.5
LABELS = torch.tensor([[3, 0, -1, 1, 2, 2]])


def target(h: Tensor) -> Tensor:
    return const(1, 6).expand_as(h)


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "mse": lambda h: F.mse_loss(h, target(h), reduction="none"),
    "mse, both from the input": lambda h: F.mse_loss(h, h.sin(), reduction="none"),
    "mse, weighted": lambda h: F.mse_loss(h, target(h), weight=POSITIVE.expand_as(h), reduction="none"),
    "l1": lambda h: F.l1_loss(h, h.sin(), reduction="none"),
    "smooth l1": lambda h: F.smooth_l1_loss(h, h.sin(), reduction="none", beta=0.5),
    "smooth l1 without a bend": lambda h: F.smooth_l1_loss(h, h.sin(), reduction="none", beta=0),
    "huber": lambda h: F.huber_loss(h, target(h), reduction="none", delta=0.7),
    "huber, weighted": lambda h: F.huber_loss(h, target(h), reduction="none", weight=POSITIVE.expand_as(h)),
    "binary": lambda h: F.binary_cross_entropy(h.sigmoid(), target(h).sigmoid(), weight=POSITIVE, reduction="none"),
    "binary, both from the input": lambda h: F.binary_cross_entropy(h.sigmoid(), h.sin().sigmoid(), reduction="none"),
    "binary, saturated": lambda h: F.binary_cross_entropy(h.clamp(0, 1), target(h).sigmoid(), reduction="none"),
    "binary of logits": lambda h: F.binary_cross_entropy_with_logits(
        9 * h, target(h).sigmoid(), weight=POSITIVE, pos_weight=POSITIVE.flip(0), reduction="none"
    ),
    "soft margin": lambda h: F.soft_margin_loss(h, SIGNS.expand_as(h), reduction="none"),
    "cross-entropy": lambda h: F.cross_entropy(h, CLASS.expand(len(h)), reduction="none"),
    "cross-entropy, weighted and smoothed": lambda h: F.cross_entropy(
        h, CLASS.expand(len(h)), weight=POSITIVE, label_smoothing=0.1, reduction="none"
    ),
    "cross-entropy of pixels, one ignored": lambda h: F.cross_entropy(
        h.view(-1, 3, 2),
        torch.tensor([[2, -100]]).expand(len(h), 2),
        weight=POSITIVE[:3],
        label_smoothing=0.1,
        reduction="none",
    ),
    "cross-entropy of probabilities": lambda h: F.cross_entropy(
        h, target(h).softmax(1), weight=POSITIVE, label_smoothing=0.1, reduction="none"
    ),
    "cross-entropy, both from the input": lambda h: F.cross_entropy(h, h.sin().softmax(1), reduction="none"),
    "likelihood": lambda h: F.nll_loss(h.log_softmax(1), CLASS.expand(len(h)), reduction="none"),
    "divergence": lambda h: F.kl_div(h.log_softmax(1), target(h).softmax(1), reduction="none"),
    "divergence, both from the input": lambda h: F.kl_div(h.log_softmax(1), h.sin().softmax(1), reduction="none"),
    "divergence of logarithms": lambda h: F.kl_div(
        h.log_softmax(1), h.sin().log_softmax(1), log_target=True, reduction="none"
    ),
    "poisson": lambda h: F.poisson_nll_loss(h, 3 * POSITIVE.expand_as(h), full=True, reduction="none"),
    "poisson of rates": lambda h: F.poisson_nll_loss(h.exp(), POSITIVE.expand_as(h), log_input=False, reduction="none"),
    "gaussian": lambda h: F.gaussian_nll_loss(h, target(h), h.sin().exp(), full=True, reduction="none"),
    "gaussian of one variance": lambda h: F.gaussian_nll_loss(
        h, target(h), POSITIVE[0].expand(len(h)), reduction="none"
    ),
    "hinge": lambda h: F.hinge_embedding_loss(h, SIGNS.expand_as(h), reduction="none"),
    "cosine": lambda h: F.cosine_embedding_loss(
        h, h.sin() @ const(6, 6), SIGNS[1:2].expand(len(h)), margin=-0.9, reduction="none"
    ),
    "cosine, alike": lambda h: F.cosine_embedding_loss(
        h, h.sin() @ const(6, 6), SIGNS[:1].expand(len(h)), reduction="none"
    ),
    "ranking": lambda h: F.margin_ranking_loss(h, h.sin(), SIGNS.expand_as(h), margin=0.2, reduction="none"),
    "triplet": lambda h: F.triplet_margin_loss(h, h.sin(), h @ const(6, 6), p=3, swap=True, margin=5, reduction="none"),
    "triplet by its distance": lambda h: F.triplet_margin_with_distance_loss(
        h, h.sin(), h @ const(6, 6), margin=5, reduction="none"
    ),
    "margins": lambda h: F.multi_margin_loss(h, CLASS.expand(len(h)), p=2, weight=POSITIVE, reduction="none"),
    "margins of labels": lambda h: F.multilabel_margin_loss(h, LABELS.expand(len(h), 6), reduction="none"),
    "soft margins of labels": lambda h: F.multilabel_soft_margin_loss(
        h, (SIGNS > 0).expand_as(h).double(), reduction="none"
    ),
    "aten": lambda h: torch.ops.aten.huber_loss.default(h, target(h), 0, 0.3),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_adds_up(loss: Callable[[Tensor], Tensor]) -> None:
    check(loss)


# Reduced over a sample's own elements: one sample at a time, as the model itself would call them.
REDUCED: dict[str, Callable[[Tensor], Tensor]] = {
    "mse": lambda h: F.mse_loss(h, target(h)),
    "mse, sum": lambda h: F.mse_loss(h, target(h), reduction="sum"),
    "mse, as it once was": lambda h: F.mse_loss(h, target(h), size_average=False),
    "mse, weighted": lambda h: F.mse_loss(h, target(h), weight=POSITIVE.expand_as(h)),
    "likelihood, weighted": lambda h: F.nll_loss(
        h.view(2, 3).log_softmax(1), torch.tensor([2, 0]), weight=POSITIVE[:3]
    ),
    "cross-entropy, smoothed": lambda h: F.cross_entropy(
        h.view(2, 3), torch.tensor([2, -100]), weight=POSITIVE[:3], label_smoothing=0.1
    ),
    "cross-entropy of one": lambda h: F.cross_entropy(h[0], CLASS[0]),
    "divergence": lambda h: F.kl_div(h.log_softmax(1), target(h).softmax(1), reduction="batchmean"),
}


@pytest.mark.filterwarnings("ignore:size_average and reduce args will be deprecated")
@pytest.mark.parametrize("loss", REDUCED.values(), ids=REDUCED.keys())
def test_reduces_as_torch_does(loss: Callable[[Tensor], Tensor]) -> None:
    check(lambda h: torch.stack([loss(row) for row in h.split(1)]))
