"""Softmax and log-softmax: softmax's gradient with each probability replaced by the logarithmic mean of its two sides.

With ``L_k = (p_k(x) - p_k(r)) / (log p_k(x) - log p_k(r))`` the differences are ``p_k(x) - p_k(r) = L_k (da_k - c)`` for logits ``a`` and
``c`` the difference of the log-normalisers, and they sum to 0: ``c = sum_i L_i da_i / sum_i L_i``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import ops
from .registry import Application, Context, Roundoff, rule


def _softmax(context: Context, input: Tensor, dim: int | None, dtype: torch.dtype | None, log: bool) -> Application:
    if dim is None:
        # The dimension that torch takes where none is given, with a warning.
        dim = 0 if input.dim() in (0, 1, 3) else 1
    operand = input if dtype is None else input.to(dtype)
    function = torch.log_softmax if log else torch.softmax

    def roundoffs(x: Tensor) -> Sequence[Roundoff]:
        # The normaliser is rounded once for all entries; its logarithm less the largest logit is what log-softmax subtracts.
        output = function(x, dim)
        if log:
            return [Roundoff(output.amax(dim, keepdim=True).expand_as(output), dim)]
        # Where the incoming multipliers are alike, the rule's cancel, and their rounding is multiplied by the differences of the logits.
        return [Roundoff(output, dim), Roundoff(output * x)]

    if context.options.softmax == "rescale" and not log:
        return Application(
            [operand], lambda x: _with_logits(x, dim), _rescaled, (dim,), stand_for=[input], roundoffs=roundoffs
        )

    def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        output = function(x, dim)
        # Log-probabilities are kept, because the logarithmic mean cannot be taken from a probability that underflowed to 0.
        return output, [output if log else torch.log_softmax(x, dim)]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        out = ops.softmax(grad.unsqueeze(0), sides.x[0], sides.r[0], sides.rows(), dim, log, *sides.geometry())
        return [out.squeeze(0)]

    return Application([operand], forward, multipliers, (dim,), stand_for=[input], roundoffs=roundoffs)


def _with_logits(x: Tensor, dim: int) -> tuple[Tensor, Sequence[Tensor]]:
    probabilities = torch.softmax(x, dim)
    return probabilities, [x, probabilities]


def _rescaled(grad: Tensor, sides: Any) -> list[Tensor]:
    """Each probability's difference over the difference of its own logit, as shap does, which ignores what other logits do to it."""
    (a_x, a_r), (p_x, p_r) = sides.pair(0), sides.pair(1)
    apart = a_x != a_r
    ratio = (p_x - p_r) / torch.where(apart, a_x - a_r, 1)
    middle = (p_x + p_r) / 2
    return [grad * torch.where(apart, ratio, middle * (1 - middle))]


@rule("softmax")
def softmax(
    context: Context, input: Tensor, dim: int | None = None, _stacklevel: Any = 3, dtype: Any = None
) -> Application:
    return _softmax(context, input, dim, _dtype(_stacklevel, dtype), log=False)


@rule("log_softmax")
def log_softmax(
    context: Context, input: Tensor, dim: int | None = None, _stacklevel: Any = 3, dtype: Any = None
) -> Application:
    return _softmax(context, input, dim, _dtype(_stacklevel, dtype), log=True)


@rule("logsumexp")
def _logsumexp(_: Context, input: Tensor, dim: Any, keepdim: bool = False) -> Application:
    """``log sum exp(a)`` has the multipliers ``q_k = L_k / sum_i L_i``, which add up to 1."""
    dims = sorted(d % input.dim() for d in ([dim] if isinstance(dim, int) else dim))
    # With the dimensions that are summed over as one, the last.
    flat = input.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))
    shape = [1 if d in dims else n for d, n in enumerate(input.shape) if keepdim or d not in dims]
    *lines, size = flat.shape

    def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        return torch.logsumexp(x, -1).reshape(shape), [torch.log_softmax(x, -1)]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        # The rule of log-softmax gives m_k = g_k - q_k sum(g); so with grad in one entry of g and 0 elsewhere, g - m is q * grad.
        g = torch.nn.functional.pad(grad.reshape(*lines, 1), (0, size - 1))
        taken = ops.softmax(g.unsqueeze(0), sides.x[0], sides.r[0], sides.rows(), -1, True, *sides.geometry())
        return [g - taken.squeeze(0)]

    return Application([flat], forward, multipliers, stand_for=[input])


#: How many sums of a cumulative one are done at once, which bounds the memory that their terms take.
_SUMS = 64


@rule("logcumsumexp")
def _logcumsumexp(_: Context, input: Tensor, dim: int) -> Application:
    """Each of the sums has the multipliers of logsumexp."""
    last = input.reshape(1) if input.dim() == 0 else input.movedim(dim, -1)
    size = last.shape[-1]

    def forward(x: Tensor) -> tuple[Tensor, Sequence[Tensor]]:
        sums = x.logcumsumexp(-1)
        return sums.movedim(-1, dim).reshape(input.shape), [x, sums]

    def multipliers(grad: Tensor, sides: Any) -> list[Tensor]:
        grad = grad.reshape(1) if input.dim() == 0 else grad.movedim(dim, -1)
        sides_and_sums = [*zip(sides.pair(0), sides.pair(1), strict=True)]
        found = torch.zeros_like(grad)
        for start in range(0, size, _SUMS):
            here = slice(start, min(start + _SUMS, size))
            later = torch.ones(here.stop - start, here.stop, dtype=torch.bool, device=grad.device).triu(start + 1)
            logs = [a[..., None, : here.stop] - sums[..., here, None] for a, sums in sides_and_sums]
            mean = _logarithmic_mean(*logs).masked_fill(later, 0)
            total = mean.sum(-1, keepdim=True)
            shares = mean / torch.where(total == 0, 1, total)
            part = (grad[..., None, here] @ shares).squeeze(-2)
            found = found + torch.nn.functional.pad(part, (0, size - here.stop))
        return [found]

    return Application([last], forward, multipliers, stand_for=[input])


def _logarithmic_mean(one: Tensor, other: Tensor) -> Tensor:
    """Of two positive numbers, given by their logarithms; 0 where one of them is 0."""
    one, other = (log.nan_to_num(-math.inf, math.inf, -math.inf) for log in (one, other))
    apart = (one - other).abs()
    return torch.maximum(one, other).exp() * torch.where(apart > 0, -torch.expm1(-apart) / apart, 1)


def _dtype(third: Any, dtype: Any) -> Any:
    """The dtype: the third argument of torch.softmax and Tensor.softmax, where torch.nn.functional.softmax has its ``_stacklevel``."""
    return third if isinstance(third, torch.dtype) else dtype
