"""What exported and decomposed graphs have in the place of functions of torch.nn.functional; some return their statistics as well."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .registry import decomposition


@decomposition("native_layer_norm")
def _native_layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    _, mean, scale = torch.native_layer_norm(input.detach(), normalized_shape, weight, bias, eps)
    return F.layer_norm(input, normalized_shape, weight, bias, eps), mean, scale


@decomposition("native_group_norm")
def _native_group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, hxw: int, group: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    _, mean, scale = torch.native_group_norm(input.detach(), weight, bias, n, c, hxw, group, eps)
    return F.group_norm(input, group, weight, bias, eps), mean, scale


@decomposition("_fused_rms_norm")
def _fused_rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, eps: float | None
) -> tuple[Tensor, Tensor]:
    _, scale = torch.ops.aten._fused_rms_norm(input.detach(), normalized_shape, weight, eps)
    return F.rms_norm(input, normalized_shape, weight, eps), scale


@decomposition("_safe_softmax")
def _safe_softmax(input: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """0 where there is nothing but masked logits."""
    empty = (input == -math.inf).all(dim, keepdim=True)
    return torch.softmax(input.masked_fill(empty, 0), dim, dtype).masked_fill(empty, 0)


@decomposition("native_channel_shuffle")
def _native_channel_shuffle(input: Tensor, groups: int) -> Tensor:
    return F.channel_shuffle(input, groups)


def _register_pads(dims: int) -> None:
    for name, mode in (("reflection", "reflect"), ("replication", "replicate")):

        @decomposition(f"{name}_pad{dims}d")
        def pad(input: Tensor, padding: Sequence[int], mode: str = mode) -> Tensor:
            return F.pad(input, list(padding), mode)


for _dims in (1, 2, 3):
    _register_pads(_dims)


@decomposition("_native_batch_norm_legit_no_training")
def _native_batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    # In eval mode there are no statistics to save.
    none = input.new_empty(0)
    return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps), none, none
