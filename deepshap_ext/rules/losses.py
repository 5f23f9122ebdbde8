"""Decompositions of loss functions.

Their parameters are in aten's order and have the names of ``torch.nn.functional``, which passes all but the tensors by name: so one
signature serves calls of both.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import _reduction

from .registry import decomposition


def _reduced(losses: Tensor, reduction: Any, size_average: Any, reduce: Any, total: Any = None) -> Tensor:
    """The losses, reduced by ``"none"``, ``"mean"``, ``"sum"`` or aten's 0, 1, 2; ``total``: what a weighted mean divides by."""
    if size_average is not None or reduce is not None:
        reduction = _reduction.legacy_get_string(size_average, reduce)
    if reduction in ("none", 0):
        return losses
    if reduction in ("sum", 2):
        return losses.sum()
    if reduction == "batchmean":
        return losses.sum() / losses.shape[0]
    return losses.mean() if total is None else losses.sum() / total


def _weighted(losses: Tensor, weight: Tensor | None) -> Tensor:
    return losses if weight is None else losses * weight


@decomposition("mse_loss")
def _mse_loss(
    input: Tensor,
    target: Tensor,
    reduction: Any = "mean",
    *,
    weight: Tensor | None = None,
    size_average: Any = None,
    reduce: Any = None,
) -> Tensor:
    total = None if weight is None else weight.sum()
    return _reduced(_weighted((input - target).square(), weight), reduction, size_average, reduce, total)


@decomposition("l1_loss")
def _l1_loss(
    input: Tensor, target: Tensor, reduction: Any = "mean", *, size_average: Any = None, reduce: Any = None
) -> Tensor:
    return _reduced((input - target).abs(), reduction, size_average, reduce)


def _huber(difference: Tensor, delta: float) -> Tensor:
    # d^2 / 2 up to delta and linear beyond it, as a sum whose terms do not cancel.
    size = difference.abs()
    return size.clamp(max=delta).square() / 2 + delta * F.relu(size - delta)


@decomposition("huber_loss")
def _huber_loss(
    input: Tensor, target: Tensor, reduction: Any = "mean", delta: float = 1.0, *, weight: Tensor | None = None
) -> Tensor:
    return _reduced(_weighted(_huber(input - target, delta), weight), reduction, None, None)


@decomposition("smooth_l1_loss")
def _smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    reduction: Any = "mean",
    beta: float = 1.0,
    *,
    size_average: Any = None,
    reduce: Any = None,
) -> Tensor:
    difference = input - target
    losses = difference.abs() if beta == 0 else _huber(difference, beta) / beta
    return _reduced(losses, reduction, size_average, reduce)


@decomposition("binary_cross_entropy")
def _binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Any = "mean",
    *,
    size_average: Any = None,
    reduce: Any = None,
) -> Tensor:
    # torch keeps the logarithms above -100.
    yes, no = (p.clamp(min=math.exp(-100)).log() for p in (input, 1 - input))
    return _reduced(_weighted((target - 1) * no - target * yes, weight), reduction, size_average, reduce)


@decomposition("binary_cross_entropy_with_logits")
def _binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    pos_weight: Tensor | None = None,
    reduction: Any = "mean",
    *,
    size_average: Any = None,
    reduce: Any = None,
) -> Tensor:
    share = 1 if pos_weight is None else 1 + (pos_weight - 1) * target
    losses = (1 - target) * input - share * F.logsigmoid(input)
    return _reduced(_weighted(losses, weight), reduction, size_average, reduce)


@decomposition("soft_margin_loss")
def _soft_margin_loss(
    input: Tensor, target: Tensor, reduction: Any = "mean", *, size_average: Any = None, reduce: Any = None
) -> Tensor:
    return _reduced(-F.logsigmoid(target * input), reduction, size_average, reduce)


@decomposition("nll_loss_nd", "nll_loss2d")
def _nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, reduction: Any = "mean", ignore_index: int = -100
) -> Tensor:
    return _smoothed(input, target, weight, reduction, ignore_index, 0.0)


def _smoothed(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: Any, ignore_index: int, smoothing: float
) -> Tensor:
    """The negative log-likelihood of the target classes, with label ``smoothing`` over all classes."""
    dim = 0 if input.dim() == 1 else 1
    ignored = target == ignore_index
    place = target.masked_fill(ignored, 0)
    shape = [-1 if d == dim else 1 for d in range(input.dim())]
    weights = torch.ones_like(input.select(dim, 0)) if weight is None else weight[place]
    weights = weights.masked_fill(ignored, 0)
    chosen = input.gather(dim, place.unsqueeze(dim)).squeeze(dim)
    losses = -chosen.masked_fill(ignored, 0) * weights
    if smoothing:
        every = _weighted(input, None if weight is None else weight.view(shape)).sum(dim).masked_fill(ignored, 0)
        losses = (1 - smoothing) * losses - smoothing / input.shape[dim] * every
    return _reduced(losses, reduction, None, None, weights.sum())


@decomposition("cross_entropy_loss")
def _cross_entropy_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: Any = "mean",
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    dim = 0 if input.dim() == 1 else 1
    likelihood = torch.log_softmax(input, dim)
    if not target.is_floating_point():
        return _smoothed(likelihood, target, weight, reduction, ignore_index, label_smoothing)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / input.shape[dim]
    shape = [-1 if d == dim else 1 for d in range(input.dim())]
    losses = -_weighted(likelihood * target, None if weight is None else weight.view(shape)).sum(dim)
    return _reduced(losses, reduction, None, None)


@decomposition("kl_div")
def _kl_div(
    input: Tensor,
    target: Tensor,
    reduction: Any = "mean",
    *,
    log_target: bool = False,
    size_average: Any = None,
    reduce: Any = None,
) -> Tensor:
    losses = target.exp() * (target - input) if log_target else torch.xlogy(target, target) - target * input
    return _reduced(losses, reduction, size_average, reduce)


@decomposition("poisson_nll_loss")
def _poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: Any = "mean",
    *,
    size_average: Any = None,
    reduce: Any = None,
) -> Tensor:
    losses = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        # Stirling's approximation of log(target!), as torch has it.
        many = target.masked_fill(target <= 1, 1)
        stirling = many * many.log() - many + (2 * math.pi * many).log() / 2
        losses = losses + stirling.masked_fill(target <= 1, 0)
    return _reduced(losses, reduction, size_average, reduce)


@decomposition("gaussian_nll_loss")
def _gaussian_nll_loss(
    input: Tensor, target: Tensor, var: Any, full: bool = False, eps: float = 1e-6, reduction: Any = "mean"
) -> Tensor:
    var = var if isinstance(var, Tensor) else torch.full_like(input, var)
    if var.shape != input.shape and var.shape == input.shape[:-1]:
        var = var.unsqueeze(-1)
    var = var.clamp(min=eps)
    losses = (var.log() + (input - target).square() / var) / 2
    return _reduced(losses + math.log(2 * math.pi) / 2 if full else losses, reduction, None, None)


@decomposition("hinge_embedding_loss")
def _hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    reduction: Any = "mean",
    *,
    size_average: Any = None,
    reduce: Any = None,
) -> Tensor:
    # Both terms where the target is neither 1 nor -1, as in torch.
    losses = input.masked_fill(target == -1, 0) + F.relu(margin - input).masked_fill(target == 1, 0)
    return _reduced(losses, reduction, size_average, reduce)


@decomposition("cosine_embedding_loss")
def _cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    reduction: Any = "mean",
    *,
    size_average: Any = None,
    reduce: Any = None,
) -> Tensor:
    one, other = (x / (x.square().sum(-1, keepdim=True) + 1e-12).sqrt() for x in (input1, input2))
    cosine = (one * other).sum(-1)
    losses = (1 - cosine).masked_fill(target != 1, 0) + F.relu(cosine - margin).masked_fill(target != -1, 0)
    return _reduced(losses, reduction, size_average, reduce)


@decomposition("margin_ranking_loss")
def _margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0.0,
    reduction: Any = "mean",
    *,
    size_average: Any = None,
    reduce: Any = None,
) -> Tensor:
    return _reduced(F.relu(margin - target * (input1 - input2)), reduction, size_average, reduce)


@decomposition("triplet_margin_loss")
def _triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: Any = "mean",
    *,
    size_average: Any = None,
    reduce: Any = None,
) -> Tensor:
    near, far = (F.pairwise_distance(anchor, other, p, eps) for other in (positive, negative))
    if swap:
        far = torch.minimum(far, F.pairwise_distance(positive, negative, p, eps))
    return _reduced(F.relu(margin + near - far), reduction, size_average, reduce)


@decomposition("multi_margin_loss")
def _multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: float = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    reduction: Any = "mean",
    *,
    size_average: Any = None,
    reduce: Any = None,
) -> Tensor:
    place = target.unsqueeze(-1)
    violations = F.relu(margin - input.gather(-1, place) + input)
    violations = violations if p == 1 else violations.square()
    mine = torch.arange(input.shape[-1], device=input.device) == place
    losses = violations.masked_fill(mine, 0).sum(-1) / input.shape[-1]
    return _reduced(_weighted(losses, None if weight is None else weight[target]), reduction, size_average, reduce)


@decomposition("multilabel_margin_loss")
def _multilabel_margin_loss(
    input: Tensor, target: Tensor, reduction: Any = "mean", *, size_average: Any = None, reduce: Any = None
) -> Tensor:
    # A sample's labels end before its first -1.
    label = (target >= 0).cumprod(-1).bool()
    place = target.clamp(min=0)
    chosen = torch.zeros_like(target).scatter_add(-1, place, label.long()) > 0
    violations = F.relu(1 - input.gather(-1, place).unsqueeze(-1) + input.unsqueeze(-2))
    counted = label.unsqueeze(-1) & chosen.logical_not().unsqueeze(-2)
    losses = violations.masked_fill(counted.logical_not(), 0).sum((-2, -1)) / input.shape[-1]
    return _reduced(losses, reduction, size_average, reduce)
