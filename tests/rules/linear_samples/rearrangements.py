"""Elements joined, repeated, moved, padded or replaced."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .sample import Sample, at, batch_first, const, each_row, mask, written

aten = torch.ops.aten


def _assigned(index: Any, value: Any) -> Callable[[Tensor], Tensor]:
    """The operation that copies its input and assigns ``value``, or ``value(input)`` where that is a function, to an index of the copy."""

    def op(x: Tensor) -> Tensor:
        y = x.clone()
        y[index] = value(x) if callable(value) else value
        return y

    return op


def _write_column(y: Tensor, value: Tensor) -> None:
    """Assign to ``y[:, 1]``, with the rows of ``value`` padded by zeros up to the length of those of ``y``."""
    y[:, 1] = value if y.dim() == 2 else F.pad(value, (0, y.shape[2] - value.shape[1]))


REARRANGEMENTS = {
    "block_diag": Sample((4,), each_row(lambda row: torch.block_diag(row, row.view(2, 2)))),
    "cat": Sample((4,), lambda x: torch.cat([x, 2 * x, const(1, 2).expand(x.shape[0], 2)], 1)),
    "cat: concat": Sample((4,), lambda x: torch.concat([x.T, x.T.cumsum(0)]), batch_first),
    "channel_shuffle": Sample((4, 2, 2), lambda x: F.channel_shuffle(x, 2)),
    "column_stack": Sample((4,), lambda x: torch.column_stack([x, x[:, 0]])),
    "constant_pad_nd": Sample((4,), lambda x: torch.constant_pad_nd(x, (1, -1), 0.5)),
    "copy": Sample((4,), lambda x: written(torch.zeros_like(x), lambda y: y.copy_(x))),
    "copy: into a view": Sample((4,), lambda x: written(x, lambda y: y[:, 1:3].copy_(2 * x[:, :1]))),
    "diag": Sample((4,), each_row(torch.diag)),
    "diag: of a matrix": Sample((3, 4), each_row(lambda m: torch.diag(m, 1))),
    "diagflat": Sample((4,), lambda x: torch.stack([torch.diagflat(row, 1) for row in x])),
    "diag_embed": Sample((4,), lambda x: x.diag_embed(1)),
    "diagonal_scatter": Sample((3, 3), lambda x: x.diagonal_scatter(2 * x[:, 0], 0, 1, 2)),
    "dstack": Sample((3, 4), lambda x: torch.dstack([x, x.flip(1)])),
    "flip": Sample((3, 4), lambda x: x.flip((1, 2))),
    "fliplr": Sample((4,), torch.fliplr),
    "flipud": Sample((3,), lambda x: x.T.flipud(), batch_first),
    "fold": Sample((8, 4), lambda x: F.fold(x, (3, 3), (2, 2))),
    "fold: padded": Sample((8, 12), lambda x: F.fold(x, (4, 6), (2, 2), padding=1, stride=(2, 2), dilation=1)),
    "gather": Sample((5,), lambda x: x.gather(1, at(0, 0, 4).expand(x.shape[0], 3))),
    "hstack": Sample((4,), lambda x: torch.hstack([x, x[:, :2]])),
    "im2col": Sample((2, 4, 4), lambda x: aten.im2col(x, [2, 2], [1, 1], [0, 0], [2, 2])),
    "col2im": Sample((8, 4), lambda x: aten.col2im(x, [3, 3], [2, 2], [1, 1], [0, 0], [1, 1])),
    "index_add": Sample((5,), lambda x: x.index_add(1, at(0, 0, 4), x[:, 1:4], alpha=2)),
    "index_add: in place": Sample(
        (5,), lambda x: torch.zeros(x.shape[0], 2).double().index_add_(1, at(0, 0, 1, 1, 0), x)
    ),
    "index_copy": Sample((5,), lambda x: x.index_copy(1, at(0, 4), x[:, 1:3])),
    "index_fill": Sample((5,), lambda x: x.index_fill(1, at(0, 4), 0.5)),
    "index_put": Sample((5,), lambda x: x.T.index_put((at(1, 2),), x.T[:2]), batch_first),
    "index_put: accumulate": Sample(
        (5,), lambda x: x.T.index_put((at(1, 1, 2),), x.T[:3], accumulate=True), batch_first
    ),
    "index_select": Sample((5,), lambda x: x.index_select(1, at(0, 4, 4))),
    "masked_fill": Sample((5,), lambda x: x.masked_fill(mask(5), 0.5)),
    "masked_fill: in place": Sample((5,), lambda x: written(x, lambda y: y.masked_fill_(mask(5), -1e4)) / 1e3),
    "masked_select": Sample((5, 2), lambda x: x.masked_select(mask(5, 2)), lambda y: y.view(-1, int(mask(5, 2).sum()))),
    "meshgrid": Sample((4,), lambda x: torch.meshgrid(x[:, 0], const(3), indexing="ij")[0]),
    "pad": Sample((2, 3, 4), lambda x: F.pad(x, (1, -1, 0, 2), value=0.3)),
    "pad: reflect 1d": Sample((2, 4), lambda x: F.pad(x, (2, 1), mode="reflect")),
    "pad: reflect 2d": Sample((2, 3, 4), lambda x: F.pad(x, (2, 1, 0, 2), mode="reflect")),
    "pad: reflect 3d": Sample((1, 3, 3, 4), lambda x: F.pad(x, (2, 1, 0, 2, 1, 1), mode="reflect")),
    "pad: replicate 1d": Sample((2, 4), lambda x: F.pad(x, (2, 1), mode="replicate")),
    "pad: replicate 2d": Sample((2, 3, 4), lambda x: F.pad(x, (2, 1, 0, 2), mode="replicate")),
    "pad: replicate 3d": Sample((1, 3, 3, 4), lambda x: F.pad(x, (2, 1, 0, 2, 1, 1), mode="replicate")),
    "pad: circular": Sample((2, 3, 4), lambda x: F.pad(x, (2, 1, 0, 2), mode="circular")),
    "pixel_shuffle": Sample((8, 2, 3), lambda x: F.pixel_shuffle(x, 2)),
    "pixel_unshuffle": Sample((2, 4, 6), lambda x: F.pixel_unshuffle(x, 2)),
    "repeat": Sample((3,), lambda x: x.repeat(1, 2)),
    "repeat_interleave": Sample((3,), lambda x: x.repeat_interleave(2, 1)),
    "repeat_interleave: counts": Sample((3,), lambda x: x.repeat_interleave(at(2, 0, 1), 1)),
    "repeat_interleave: beams": Sample((3,), lambda x: x.repeat_interleave(2, 0), lambda y: y.view(-1, 6)),
    "roll": Sample((3, 4), lambda x: x.roll((1, 2), (1, 2))),
    "rot90": Sample((3, 4), lambda x: x.rot90(1, (1, 2))),
    "scatter": Sample((5,), lambda x: x.scatter(1, at(0, 4).expand(x.shape[0], 2), x[:, 1:3])),
    "scatter: value": Sample((5,), lambda x: x.scatter(1, at(0, 4).expand(x.shape[0], 2), 0.5)),
    "scatter_add": Sample((5,), lambda x: x.scatter_add(1, at(0, 4, 4).expand(x.shape[0], 3), x[:, 1:4])),
    "select_scatter": Sample((3, 4), lambda x: x.select_scatter(2 * x[:, 0], 1, 2)),
    "setitem: slice": Sample((5, 4), _assigned((slice(None), slice(1, 3)), lambda x: 2 * x[:, 3:])),
    "setitem: number": Sample((5, 4), _assigned((..., 1), 0.5)),
    "setitem: tensors": Sample((5, 4), _assigned((slice(None), at(0, 3), at(1, 2)), lambda x: x[:, :2, 0])),
    "setitem: mask": Sample((5,), _assigned((slice(None), mask(5)), 0.5)),
    "setitem: of a view": Sample((5, 4), lambda x: written(x, lambda y: _write_column(y[:, 1:], x[:, :2, 0]))),
    "setitem: into zeros": Sample(
        (3,), lambda x: written(torch.zeros(x.shape[0], 4).double(), lambda y: _write_column(y, x[:, 1]))
    ),
    "slice_scatter": Sample((5,), lambda x: x.slice_scatter(2 * x[:, :2], 1, 2, 4)),
    "stack": Sample((4,), lambda x: torch.stack([x, 2 * x, torch.zeros_like(x)]), batch_first),
    "take_along_dim": Sample((5,), lambda x: x.take_along_dim(at(0, 3, 3)[None], 1)),
    "tile": Sample((3,), lambda x: x.tile(2)),
    "trace": Sample((3, 4), each_row(torch.trace)),
    "tril": Sample((3, 4), lambda x: x.tril(1)),
    "tril: in place": Sample((3, 4), lambda x: written(x, lambda y: y.tril_())),
    "triu": Sample((3, 4), lambda x: x.triu()),
    "vstack": Sample((3,), lambda x: torch.vstack([x.T, x.T[:1]]), batch_first),
    "where": Sample((4,), lambda x: torch.where(mask(4), x, 2 * x.flip(1))),
    "where: number": Sample((4,), lambda x: x.where(mask(4), 0.5)),
    "fill": Sample((4,), lambda x: written(x, lambda y: y[:, :2].fill_(0.5))),
    "fill: out of place": Sample((4,), lambda x: torch.fill(x, 0.5) + x),
    "zero": Sample((4,), lambda x: written(x, lambda y: y[:, 1].zero_())),
}
