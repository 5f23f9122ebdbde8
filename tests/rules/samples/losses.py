"""Losses of each sample; where the target is constant they are functions of one operand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from reference import rules as slow
from reference.units import elementwise as rescaled
from rules.linear_samples import const
from torch import Tensor

from .sample import Sample, aten, linear, of_two, one

TARGETS = const(4)
SIGNS = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
SHARES = const(4).sigmoid()


def _relu(unit: Any) -> Any:
    return rescaled("relu", unit)


def _distance(a: np.ndarray, b: np.ndarray) -> Any:
    return slow.length(a - b + 1e-6)


def _cosine(a: np.ndarray, b: np.ndarray) -> Any:
    return (a / slow.length(a)) @ (b / slow.length(b))


def _negative_log_likelihood(a: np.ndarray) -> np.ndarray:
    return -slow.log_softmax(a)[2:3]


def _margins(a: np.ndarray) -> np.ndarray:
    """Of class 2, with margin 1."""
    return one(sum(_relu(1 - a[2] + a[i]) for i in (0, 1, 3)) / 4)


def _several_margins(a: np.ndarray) -> np.ndarray:
    """Of the labels 3 and 0."""
    return one(sum(_relu(1 - a[y] + a[i]) for y in (3, 0) for i in (1, 2)) / 4)


def samples() -> dict[str, Sample]:
    def elementwise(
        loss: Callable[..., Tensor], targets: Tensor, function: Callable[..., float], **more: Any
    ) -> Sample:
        def slowly(a: np.ndarray) -> list[Any]:
            return [
                slow.of_several(lambda x, t=t: function(x, t), unit)
                for unit, t in zip(a, targets.tolist(), strict=True)
            ]

        return Sample((4,), lambda x: loss(x, targets.expand_as(x), reduction="none"), slowly, **more)

    def classes(x: Tensor, *labels: int) -> Tensor:
        """The same label or labels for every sample."""
        return torch.tensor(labels if len(labels) > 1 else labels[0]).expand(len(x), *[len(labels)][: len(labels) - 1])

    def huber(d: float, delta: float) -> float:
        return d * d / 2 if abs(d) <= delta else delta * (abs(d) - delta / 2)

    def cross_entropy(p: float, t: float) -> float:
        return -t * math.log(p) - (1 - t) * math.log(1 - p)

    def probabilities(*sides: Tensor) -> Any:
        return tuple(side.sigmoid() for side in sides)

    def cosine_embedding(a: Tensor, b: Tensor) -> Tensor:
        return F.cosine_embedding_loss(a, b, a.new_ones(len(a)), reduction="none").unsqueeze(1)

    def triplet(x: Tensor) -> Tensor:
        return F.triplet_margin_loss(*x.unbind(1), reduction="none").unsqueeze(1)

    return {
        "mse_loss": elementwise(F.mse_loss, TARGETS, lambda x, t: (x - t) ** 2),
        "l1_loss": elementwise(F.l1_loss, TARGETS, lambda x, t: abs(x - t)),
        "huber_loss": elementwise(F.huber_loss, TARGETS, lambda x, t: huber(x - t, 1)),
        "smooth_l1_loss": elementwise(F.smooth_l1_loss, TARGETS, lambda x, t: huber(x - t, 1)),
        "binary_cross_entropy": elementwise(F.binary_cross_entropy, SHARES, cross_entropy, draw=probabilities),
        "binary_cross_entropy_with_logits": elementwise(
            F.binary_cross_entropy_with_logits, SHARES, lambda x, t: cross_entropy(1 / (1 + math.exp(-x)), t)
        ),
        "soft_margin_loss": elementwise(F.soft_margin_loss, SIGNS, lambda x, t: math.log1p(math.exp(-t * x))),
        "kl_div": elementwise(F.kl_div, SHARES, lambda x, t: t * (math.log(t) - x)),
        "poisson_nll_loss": elementwise(F.poisson_nll_loss, SHARES, lambda x, t: math.exp(x) - t * x),
        "gaussian_nll_loss": elementwise(
            lambda x, t, reduction: F.gaussian_nll_loss(x, t, torch.full_like(x, 0.5), reduction=reduction),
            TARGETS,
            lambda x, t: (math.log(0.5) + (x - t) ** 2 / 0.5) / 2,
        ),
        "hinge_embedding_loss": elementwise(F.hinge_embedding_loss, SIGNS, lambda x, t: x if t == 1 else max(0, 1 - x)),
        "mse_loss: both": of_two(lambda a, b: F.mse_loss(a, b, reduction="none"), lambda a, b: (a - b) ** 2),
        "nll_loss_nd": linear((4,), lambda x: F.nll_loss(x, classes(x, 2), reduction="none")),
        "nll_loss2d": linear(
            (3, 2, 2), lambda x: aten.nll_loss2d(x, classes(x, 2)[:, None, None].expand(-1, 2, 2), None, 0, -100)
        ),
        "cross_entropy_loss": Sample(
            (4,), lambda x: F.cross_entropy(x, classes(x, 2), reduction="none"), _negative_log_likelihood, 0.04
        ),
        "cosine_embedding_loss": Sample(
            (8,), lambda x: cosine_embedding(x[:, :4], x[:, 4:]), lambda a: one(1 - _cosine(a[:4], a[4:])), 0.2
        ),
        "margin_ranking_loss": of_two(
            lambda a, b: F.margin_ranking_loss(a, b, torch.ones_like(a), reduction="none"),
            lambda a, b: rescaled("relu", b - a),
            distance=0.15,
        ),
        "triplet_margin_loss": Sample(
            (3, 2), triplet, lambda a: one(_relu(1 + _distance(a[0], a[1]) - _distance(a[0], a[2]))), 0.3
        ),
        "multi_margin_loss": Sample(
            (4,), lambda x: F.multi_margin_loss(x, classes(x, 2), reduction="none"), _margins, 0.05
        ),
        "multilabel_margin_loss": Sample(
            (4,),
            lambda x: F.multilabel_margin_loss(x, classes(x, 3, 0, -1, 1), reduction="none"),
            _several_margins,
            0.06,
        ),
    }
