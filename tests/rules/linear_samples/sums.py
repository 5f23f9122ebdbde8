"""Sums, means, resampling, and dropout that is off."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .sample import Sample, batch_first, const, mask, written

aten = torch.ops.aten


def _iadd(x: Tensor, y: Tensor) -> Tensor:
    x += y
    return x


SUMS = {
    "add": Sample((4,), lambda x: x + x.flip(1) + 0.5),
    "add: alpha": Sample((4,), lambda x: torch.add(x, x.flip(1), alpha=-2)),
    "add: in place": Sample((4,), lambda x: written(x, lambda y: y[:, 1:].add_(x[:, :1]))),
    "add: operator in place": Sample((4,), lambda x: _iadd(x.clone(), x.sum(1, keepdim=True))),
    "add: reflected": Sample((4,), lambda x: 1 + x),
    "add: constant before": Sample((4,), lambda x: const(3, 1, 4) + x, batch_first),
    "add: float32": Sample((4,), lambda x: x + const(4).float()),
    "sub": Sample((4,), lambda x: x - x[:, :1]),
    "sub: method": Sample((4,), lambda x: x.sub(const(4), alpha=3).subtract_(x.flip(1))),
    "rsub": Sample((4,), lambda x: 1 - x),
    "rsub: function": Sample((4,), lambda x: torch.rsub(x, x.flip(1), alpha=2)),
    "neg": Sample((4,), lambda x: -x),
    "neg: negative": Sample((4,), lambda x: torch.negative(x)),
    "sum": Sample((3, 4), lambda x: x.sum(1)),
    "sum: all but the batch": Sample((3, 4), lambda x: x.sum((1, 2), keepdim=True)),
    "sum: dtype": Sample((3, 4), lambda x: torch.sum(x, -1, dtype=torch.float64)),
    "nansum": Sample((3, 4), lambda x: x.masked_fill(mask(3, 4), torch.nan).nansum(1)),
    "mean": Sample((3, 4), lambda x: x.mean((1, 2))),
    "mean: keepdim": Sample((3, 4), lambda x: x.mean(-1, keepdim=True)),
    "cumsum": Sample((3, 4), lambda x: x.cumsum(1)),
    "cumsum: in place": Sample((3, 4), lambda x: x.clone().cumsum_(2)),
    "gradient": Sample((3, 4), lambda x: torch.gradient(x, spacing=0.5, dim=2, edge_order=2)[0]),
    "gradient: of two dimensions": Sample((3, 4), lambda x: torch.cat(torch.gradient(x, dim=(1, 2)), 1)),
    "gradient: between points": Sample(
        (5,), lambda x: torch.gradient(x, spacing=(torch.tensor([0.0, 1, 3, 4, 7]).double(),), dim=1)[0]
    ),
    "diff": Sample((5,), lambda x: x.diff(2, 1, prepend=x[:, :1])),
    "trapezoid": Sample((5,), lambda x: torch.trapezoid(x, dx=0.5)),
    "trapezoid: points": Sample((5,), lambda x: torch.trapz(x, const(5))),
    "cumulative_trapezoid": Sample((5,), lambda x: torch.cumulative_trapezoid(x, const(5))),
    "avg_pool1d": Sample((2, 7), lambda x: F.avg_pool1d(x, 3, 2, 1)),
    "avg_pool1d: ceil": Sample((2, 6), lambda x: F.avg_pool1d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False)),
    "avg_pool2d": Sample((2, 5, 6), lambda x: F.avg_pool2d(x, (3, 2), 2, (1, 0))),
    "avg_pool2d: ceil": Sample((2, 5, 6), lambda x: F.avg_pool2d(x, 3, 2, 1, True, False, 4)),
    "avg_pool3d": Sample((1, 4, 4, 5), lambda x: F.avg_pool3d(x, 2)),
    "avg_pool3d: ceil": Sample((1, 4, 4, 5), lambda x: F.avg_pool3d(x, 3, 2, 1, True, False)),
    "adaptive_avg_pool1d": Sample((2, 7), lambda x: F.adaptive_avg_pool1d(x, 3)),
    "adaptive_avg_pool2d": Sample((2, 5, 7), lambda x: F.adaptive_avg_pool2d(x, (2, 3))),
    "adaptive_avg_pool2d: global": Sample((2, 5, 7), lambda x: F.adaptive_avg_pool2d(x, 1)),
    "adaptive_avg_pool2d: aten": Sample((2, 5, 7), lambda x: aten._adaptive_avg_pool2d(x, (2, 3))),
    "adaptive_avg_pool3d": Sample((1, 3, 5, 4), lambda x: F.adaptive_avg_pool3d(x, (2, 3, None))),
    "adaptive_avg_pool3d: aten": Sample((1, 3, 5, 4), lambda x: aten._adaptive_avg_pool3d(x, (2, 3, 1))),
    "upsample_nearest1d": Sample((2, 4), lambda x: aten.upsample_nearest1d(x, [7])),
    "upsample_nearest2d": Sample((2, 3, 4), lambda x: aten.upsample_nearest2d.vec(x, [5, 3], None)),
    "upsample_nearest3d": Sample((1, 2, 3, 4), lambda x: aten.upsample_nearest3d(x, [3, 2, 5])),
    "upsample_linear1d": Sample((2, 4), lambda x: aten.upsample_linear1d(x, [7], False)),
    "upsample_bilinear2d": Sample((2, 3, 4), lambda x: aten.upsample_bilinear2d.vec(x, [5, 3], False, None)),
    "upsample_bicubic2d": Sample((2, 3, 4), lambda x: aten.upsample_bicubic2d(x, [5, 3], False)),
    "upsample_trilinear3d": Sample((1, 2, 3, 4), lambda x: aten.upsample_trilinear3d(x, [3, 2, 5], True)),
    "_upsample_bilinear2d_aa": Sample((2, 3, 4), lambda x: aten._upsample_bilinear2d_aa(x, [2, 3], False)),
    "_upsample_bicubic2d_aa": Sample((2, 3, 4), lambda x: aten._upsample_bicubic2d_aa(x, [2, 3], False)),
    "dropout": Sample((4,), lambda x: F.dropout(x, training=False)),
    "dropout1d": Sample((4, 2), lambda x: F.dropout1d(x, training=False)),
    "dropout2d": Sample((4, 2, 2), lambda x: F.dropout2d(x, training=False)),
    "dropout3d": Sample((4, 1, 2, 2), lambda x: F.dropout3d(x, training=False)),
    "alpha_dropout": Sample((4,), lambda x: F.alpha_dropout(x, training=False)),
    "feature_dropout": Sample((4, 2), lambda x: torch.feature_dropout(x, 0.5, False)),
    "feature_alpha_dropout": Sample((4, 2), lambda x: F.feature_alpha_dropout(x, training=False)),
    "native_dropout": Sample((4,), lambda x: torch.native_dropout(x, 0.5, False)[0]),
    "deg2rad": Sample((4,), torch.deg2rad),
    "rad2deg": Sample((4,), lambda x: torch.rad2deg(x) / 50),
}
