"""Attention, decomposed into products and a softmax, which have rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .registry import decomposition


def _in_projection_packed(q: Tensor, k: Tensor, v: Tensor, w: Tensor, b: Tensor | None = None) -> Sequence[Tensor]:
    """``F._in_projection_packed`` with ``chunk``, whose backward puts the gradients of query, key and value side by side.

    torch indexes them, so that its backward pads each with zeros and adds the three.
    """
    if q is not k or k is not v:
        return F._in_projection_packed(q, k, v, w, b)  # type: ignore[attr-defined]
    return [part.contiguous() for part in F.linear(q, w, b).chunk(3, -1)]


#: Replacements for functions that torch's own Python functions call, by name.
HELPERS = {"_in_projection_packed": _in_projection_packed}


@decomposition("scaled_dot_product_attention")
def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    scores = (query * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)) @ key.mT
    if is_causal:
        causal = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(causal.logical_not(), -math.inf)
    empty = None
    if attn_mask is not None:
        boolean = attn_mask.dtype == torch.bool
        blocked = attn_mask.logical_not() if boolean else attn_mask.isneginf()
        # A query whose keys are all masked gives zeros; its scores are left finite for the softmax.
        empty = blocked.all(-1, keepdim=True)
        if boolean:
            scores = scores.masked_fill(blocked.logical_and(empty.logical_not()), -math.inf)
        else:
            scores = scores + attn_mask.masked_fill(empty, 0.0)
    weights = torch.softmax(scores, -1)
    if dropout_p > 0:
        weights = F.dropout(weights, dropout_p)
    result = weights @ value
    return _laid_out_as(query, result if empty is None else result.masked_fill(empty, 0.0))


def _laid_out_as(query: Tensor, result: Tensor) -> Tensor:
    """The result with the memory order of the query, as torch's fused kernels return it: a model may take a view that needs it."""
    if query.dim() != 4 or query.stride(-1) != 1 or query.shape != result.shape:
        return result
    strides = torch.empty_like(query).stride()
    order = sorted(range(4), key=lambda dim: -strides[dim])
    return result.permute(order).contiguous().permute([order.index(dim) for dim in range(4)])


@decomposition("flex_attention")
def _flex_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    score_mod: Callable[..., Tensor],
    block_mask: tuple[Any, ...],
    scale: float,
    kernel_options: dict[str, Any],
    score_mod_other_buffers: tuple[Any, ...] = (),
    mask_mod_other_buffers: tuple[Any, ...] = (),
) -> tuple[Tensor, Tensor, Tensor]:
    """The higher-order operator behind ``torch.nn.attention.flex_attention``, which also returns logsumexp and largest score to base 2.

    ``score_mod`` and the last item of ``block_mask`` are functions of one score and its place; here they are given all at once.
    """
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = query @ key.mT * scale
    places = [
        torch.arange(size, device=scores.device).view(*[-1 if dim == at else 1 for dim in range(4)])
        for at, size in enumerate(scores.shape)
    ]
    scores = torch.where(
        block_mask[-1](*places, *mask_mod_other_buffers),
        score_mod(scores, *places, *score_mod_other_buffers),
        -math.inf,
    )
    empty = scores.isneginf().all(-1, keepdim=True)
    finite = scores.masked_fill(empty, 0.0)
    result = (torch.softmax(finite, -1) @ value).masked_fill(empty, 0.0)
    logarithms = finite.logsumexp(-1).masked_fill(empty.squeeze(-1), -math.inf)
    return result, logarithms / math.log(2), scores.amax(-1) / math.log(2)
