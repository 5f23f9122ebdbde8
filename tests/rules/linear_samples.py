"""Sample calls of every operation that is linear: ``"name"`` or ``"name: variant"`` to :class:`Sample`."""

import copy
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


class Sample(NamedTuple):
    """``op`` takes ``[B, *shape]`` float64 to a real tensor; ``back`` takes that one's like to ``[B, ...]``, batch in front."""

    shape: tuple[int, ...]
    op: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor] = lambda y: y
    tolerance: float | None = None


def const(*shape: int) -> Tensor:
    """Numbers that look random, the same ones for the same shape."""
    n = torch.Size(shape).numel()
    return (torch.arange(n, dtype=torch.float64) * 2.3 + len(shape)).sin().reshape(shape) + 0.1


def at(*indices: int) -> Tensor:
    return torch.tensor(indices)


def mask(*shape: int) -> Tensor:
    return const(*shape) > 0


def written(x: Tensor, write: Callable[[Tensor], Any]) -> Tensor:
    """A copy of x after a write."""
    y = x.clone()
    write(y)
    return y


def _set(index: Any, value: Any) -> Callable[[Tensor], Tensor]:
    """Assignment to an index of a copy; a function as value is applied to the tensor."""

    def op(x: Tensor) -> Tensor:
        y = x.clone()
        y[index] = value(x) if callable(value) else value
        return y

    return op


def _set_in(y: Tensor, value: Tensor) -> None:
    y[:, 1] = value if y.dim() == 2 else F.pad(value, (0, y.shape[2] - value.shape[1]))


def _real(z: Tensor) -> Tensor:
    return torch.view_as_real(z).flatten(1)


def _rows(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """For functions of one or two dimensions that leave none for the batch."""
    return torch.vmap(function)


def _first(y: Tensor) -> Tensor:
    return y.transpose(0, 1)


VIEWS = {
    "T": Sample((4,), lambda x: x.T, _first),
    "H": Sample((4,), lambda x: x.H, _first),
    "t": Sample((4,), lambda x: torch.t(x), _first),
    "t: aten": Sample((4,), lambda x: aten.t(x), _first),
    "mT": Sample((3, 4), lambda x: x.mT),
    "mH": Sample((3, 4), lambda x: x.mH),
    "adjoint": Sample((3, 4), lambda x: torch.adjoint(x)),
    "alias": Sample((4,), lambda x: aten.alias.default(x)),
    "as_strided: overlapping": Sample((4,), lambda x: x.contiguous().as_strided((x.shape[0], 2, 3), (4, 1, 1))),
    "as_strided": Sample((4,), lambda x: x.T.as_strided((4, x.shape[0]), (1, 4)), _first),
    "atleast_1d": Sample((4,), torch.atleast_1d),
    "atleast_2d": Sample((4,), lambda x: torch.atleast_2d(x, x + 1)[1]),
    "atleast_3d": Sample((4,), torch.atleast_3d),
    "broadcast_to": Sample((1, 4), lambda x: x.broadcast_to(x.shape[0], 3, 4)),
    "broadcast_tensors": Sample((1, 4), lambda x: torch.broadcast_tensors(x, const(3, 1))[0]),
    "chunk": Sample((6,), lambda x: torch.cat(x.chunk(2, 1)[::-1], 1)),
    "contiguous": Sample((3, 4), lambda x: x.mT.contiguous()),
    "diagonal": Sample((3, 4), lambda x: x.diagonal(1, 1, 2)),
    "diagonal: linalg": Sample((3, 4), lambda x: torch.linalg.diagonal(x)),
    "dsplit": Sample((3, 4), lambda x: torch.dsplit(x, (1, 3))[1]),
    "expand": Sample((1, 4), lambda x: x.expand(-1, 3, -1)),
    "expand_as": Sample((1, 4), lambda x: x.expand_as(torch.zeros(x.shape[0], 3, 4))),
    "flatten": Sample((3, 4), lambda x: x.flatten(1)),
    "flatten: batch and heads": Sample((3, 4), lambda x: x.flatten(0, 1), lambda y: y.reshape(-1, 12)),
    "getitem: slice": Sample((5, 4), lambda x: x[:, 1::2]),
    "getitem: integer": Sample((5, 4), lambda x: x[:, -1]),
    "getitem: ellipsis and None": Sample((5, 4), lambda x: x[..., None, 1]),
    "getitem: list": Sample((5, 4), lambda x: x[:, [0, 3, 3]]),
    "getitem: tensors": Sample((5, 4), lambda x: x[:, at(0, 3, 3), at(1, 1, 2)]),
    "getitem: tensors apart": Sample((5, 4, 2), lambda x: x[:, at(0, 3, 3), :, at(1, 1, 0)], _first),
    "getitem: mask": Sample((5, 4), lambda x: x[:, mask(5, 4)]),
    "getitem: mask of a dimension": Sample((5, 4), lambda x: x[:, mask(5)]),
    "getitem: aten": Sample((5, 4), lambda x: aten.index.Tensor(x, [None, at(4, 0)])),
    "hsplit": Sample((6,), lambda x: x.hsplit(3)[1]),
    "movedim": Sample((3, 4), lambda x: x.movedim(0, 2), lambda y: y.movedim(2, 0)),
    "movedim: moveaxis": Sample((3, 4), lambda x: x.moveaxis(2, 1)),
    "narrow": Sample((5,), lambda x: x.narrow(1, 1, 3)),
    "narrow: copy": Sample((5,), lambda x: torch.narrow_copy(x, 1, 1, 3)),
    "slice: copy": Sample((5,), lambda x: torch.slice_copy(x, 1, 1, 4, 2)),
    "view: copy": Sample((3, 4), lambda x: torch.view_copy(x, (-1, 12))),
    "select: copy": Sample((3, 4), lambda x: torch.select_copy(x, 1, 1)),
    "expand: copy": Sample((1, 4), lambda x: torch.expand_copy(x, (-1, 3, 4))),
    "unbind: copy": Sample((3, 4), lambda x: torch.unbind_copy(x, 1)[1]),
    "split_with_sizes: copy": Sample((5,), lambda x: torch.split_with_sizes_copy(x, [2, 3], 1)[1]),
    "as_strided: copy": Sample((4,), lambda x: torch.as_strided_copy(x, (x.shape[0], 2), (4, 2))),
    "diagonal: copy": Sample((3, 4), lambda x: torch.diagonal_copy(x, 0, 1, 2)),
    "permute": Sample((3, 4), lambda x: x.permute(2, 0, 1), _first),
    "permute: copy": Sample((3, 4), lambda x: torch.permute_copy(x, (2, 0, 1)), _first),
    "ravel": Sample((3, 4), lambda x: x.ravel(), lambda y: y.reshape(-1, 12)),
    "reshape": Sample((3, 4), lambda x: x.reshape(-1, 2), lambda y: y.reshape(-1, 12)),
    "reshape: heads before the batch": Sample(
        (3, 4), lambda x: x.movedim(2, 0).reshape(-1, 3), lambda y: y.view(4, -1, 3).movedim(1, 0)
    ),
    "reshape_as": Sample((3, 4), lambda x: x.reshape_as(torch.zeros(x.shape[0], 12))),
    "select": Sample((3, 4), lambda x: x.select(1, 2)),
    "slice": Sample((5,), lambda x: aten.slice.Tensor(x, 1, 1, 4, 2)),
    "split": Sample((5,), lambda x: x.split([2, 3], 1)[1]),
    "split: size": Sample((5,), lambda x: torch.split(x, 2, 1)[1]),
    "split_with_sizes": Sample((5,), lambda x: torch.split_with_sizes(x, [2, 3], 1)[1]),
    "squeeze": Sample((1, 4, 1), lambda x: x.squeeze(1).squeeze((1, 2))),
    "squeeze: in place": Sample((1, 4), lambda x: written(x, lambda y: y.squeeze_(1))),
    "transpose: swapaxes": Sample((3, 4), lambda x: x.swapaxes(0, 1), _first),
    "transpose: swapdims": Sample((3, 4), lambda x: x.swapdims(1, 2)),
    "tensor_split": Sample((5,), lambda x: x.tensor_split((1, 4), 1)[1]),
    "transpose": Sample((3, 4), lambda x: x.transpose(0, 1), _first),
    "unbind": Sample((3, 4), lambda x: torch.stack(x.unbind(1)[::-1], 1)),
    "unbind: permuted": Sample((3, 4), lambda x: torch.unbind(x.permute(2, 0, 1), dim=0)[1]),
    "unbind: permuted, last of four": Sample((3, 4, 2), lambda x: x.permute(3, 1, 0, 2).unbind(-1)[2].movedim(2, 0)),
    "unbind: permuted batch": Sample((3,), lambda x: sum(x.T.unbind(0)[1:])),
    "unflatten": Sample((6,), lambda x: x.unflatten(1, (2, 3))),
    "im2col: unfold": Sample((2, 5, 6), lambda x: F.unfold(x, (2, 3), dilation=1, padding=1, stride=2)),
    "chunk: unsafe": Sample((6,), lambda x: torch.unsafe_chunk(x, 2, 1)[1]),
    "split: unsafe": Sample((6,), lambda x: torch.unsafe_split(x, 2, 1)[1]),
    "split_with_sizes: unsafe": Sample((6,), lambda x: torch.unsafe_split_with_sizes(x, [2, 4], 1)[1]),
    "unsqueeze": Sample((4,), lambda x: x.unsqueeze(0), _first),
    "view": Sample((3, 4), lambda x: x.view(-1, 2, 6)),
    "view: aten": Sample((3, 4), lambda x: aten._unsafe_view(x, (-1, 12))),
    "view_as": Sample((3, 4), lambda x: x.view_as(torch.zeros(x.shape[0], 12))),
    "view_as_complex": Sample((3, 2), lambda x: torch.view_as_complex(x).imag),
    "view_as_real": Sample((3, 2), lambda x: torch.view_as_real(torch.view_as_complex(x) * (1 + 2j))),
    "vsplit": Sample((3,), lambda x: x.T.vsplit((1, 2))[1], _first),
    "clone": Sample((4,), lambda x: x.clone()),
    "data": Sample((4,), lambda x: x.data),
    "deepcopy": Sample((4,), copy.deepcopy),
    "detach": Sample((4,), lambda x: x.detach()),
    "clone: aten": Sample((4,), lambda x: aten.lift_fresh_copy(x)),
    "positive": Sample((4,), lambda x: +x),
    "resolve_conj": Sample((3, 2), lambda x: _real(torch.view_as_complex(x).conj().resolve_conj())),
    "resolve_neg": Sample((3, 2), lambda x: torch.view_as_complex(x).conj().imag.resolve_neg()),
    "real": Sample((3, 2), lambda x: torch.view_as_complex(x).real),
    "imag": Sample((3, 2), lambda x: torch.view_as_complex(x).imag),
    "conj": Sample((3, 2), lambda x: _real(torch.view_as_complex(x).conj() * 1j)),
    "sum_to_size": Sample((3, 4), lambda x: x.sum_to_size(x.shape[0], 1, 4)),
}

REARRANGEMENTS = {
    "block_diag": Sample((4,), _rows(lambda row: torch.block_diag(row, row.view(2, 2)))),
    "cat": Sample((4,), lambda x: torch.cat([x, 2 * x, const(1, 2).expand(x.shape[0], 2)], 1)),
    "cat: concat": Sample((4,), lambda x: torch.concat([x.T, x.T.cumsum(0)]), _first),
    "channel_shuffle": Sample((4, 2, 2), lambda x: F.channel_shuffle(x, 2)),
    "column_stack": Sample((4,), lambda x: torch.column_stack([x, x[:, 0]])),
    "constant_pad_nd": Sample((4,), lambda x: torch.constant_pad_nd(x, (1, -1), 0.5)),
    "copy": Sample((4,), lambda x: written(torch.zeros_like(x), lambda y: y.copy_(x))),
    "copy: into a view": Sample((4,), lambda x: written(x, lambda y: y[:, 1:3].copy_(2 * x[:, :1]))),
    "diag": Sample((4,), _rows(torch.diag)),
    "diag: of a matrix": Sample((3, 4), _rows(lambda m: torch.diag(m, 1))),
    "diagflat": Sample((4,), lambda x: torch.stack([torch.diagflat(row, 1) for row in x])),
    "diag_embed": Sample((4,), lambda x: x.diag_embed(1)),
    "diagonal_scatter": Sample((3, 3), lambda x: x.diagonal_scatter(2 * x[:, 0], 0, 1, 2)),
    "dstack": Sample((3, 4), lambda x: torch.dstack([x, x.flip(1)])),
    "flip": Sample((3, 4), lambda x: x.flip((1, 2))),
    "fliplr": Sample((4,), torch.fliplr),
    "flipud": Sample((3,), lambda x: x.T.flipud(), _first),
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
    "index_put": Sample((5,), lambda x: x.T.index_put((at(1, 2),), x.T[:2]), _first),
    "index_put: accumulate": Sample((5,), lambda x: x.T.index_put((at(1, 1, 2),), x.T[:3], accumulate=True), _first),
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
    "setitem: slice": Sample((5, 4), _set((slice(None), slice(1, 3)), lambda x: 2 * x[:, 3:])),
    "setitem: number": Sample((5, 4), _set((..., 1), 0.5)),
    "setitem: tensors": Sample((5, 4), _set((slice(None), at(0, 3), at(1, 2)), lambda x: x[:, :2, 0])),
    "setitem: mask": Sample((5,), _set((slice(None), mask(5)), 0.5)),
    "setitem: of a view": Sample((5, 4), lambda x: written(x, lambda y: _set_in(y[:, 1:], x[:, :2, 0]))),
    "setitem: into zeros": Sample(
        (3,), lambda x: written(torch.zeros(x.shape[0], 4).double(), lambda y: _set_in(y, x[:, 1]))
    ),
    "slice_scatter": Sample((5,), lambda x: x.slice_scatter(2 * x[:, :2], 1, 2, 4)),
    "stack": Sample((4,), lambda x: torch.stack([x, 2 * x, torch.zeros_like(x)]), _first),
    "take_along_dim": Sample((5,), lambda x: x.take_along_dim(at(0, 3, 3)[None], 1)),
    "tile": Sample((3,), lambda x: x.tile(2)),
    "trace": Sample((3, 4), _rows(torch.trace)),
    "tril": Sample((3, 4), lambda x: x.tril(1)),
    "tril: in place": Sample((3, 4), lambda x: written(x, lambda y: y.tril_())),
    "triu": Sample((3, 4), lambda x: x.triu()),
    "vstack": Sample((3,), lambda x: torch.vstack([x.T, x.T[:1]]), _first),
    "where": Sample((4,), lambda x: torch.where(mask(4), x, 2 * x.flip(1))),
    "where: number": Sample((4,), lambda x: x.where(mask(4), 0.5)),
    "fill": Sample((4,), lambda x: written(x, lambda y: y[:, :2].fill_(0.5))),
    "fill: out of place": Sample((4,), lambda x: torch.fill(x, 0.5) + x),
    "zero": Sample((4,), lambda x: written(x, lambda y: y[:, 1].zero_())),
}

SUMS = {
    "add": Sample((4,), lambda x: x + x.flip(1) + 0.5),
    "add: alpha": Sample((4,), lambda x: torch.add(x, x.flip(1), alpha=-2)),
    "add: in place": Sample((4,), lambda x: written(x, lambda y: y[:, 1:].add_(x[:, :1]))),
    "add: operator in place": Sample((4,), lambda x: _iadd(x.clone(), x.sum(1, keepdim=True))),
    "add: reflected": Sample((4,), lambda x: 1 + x),
    "add: constant before": Sample((4,), lambda x: const(3, 1, 4) + x, _first),
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

_HALF = 2e-2
CONVERSIONS = {
    "to": Sample((4,), lambda x: x.float().to(torch.float64), tolerance=1e-5),
    "to: other": Sample((4,), lambda x: x.to(const(1))),
    "type": Sample((4,), lambda x: x.type(torch.float64)),
    "type: float32": Sample((4,), lambda x: x.type("torch.FloatTensor"), tolerance=1e-5),
    "type_as": Sample((4,), lambda x: x.type_as(const(1))),
    "double": Sample((4,), lambda x: x.double()),
    "double: back again": Sample((4,), lambda x: x.float().double(), tolerance=1e-5),
    "float": Sample((4,), lambda x: x.float(), tolerance=1e-5),
    "half": Sample((4,), lambda x: x.half().double(), tolerance=_HALF),
    "bfloat16": Sample((4,), lambda x: x.bfloat16().double(), tolerance=10 * _HALF),
    "as_tensor": Sample((4,), lambda x: torch.as_tensor(x) + torch.as_tensor(x, dtype=torch.float64)),
    "asarray": Sample((4,), lambda x: torch.asarray(x, copy=True, requires_grad=True)),
    "cpu": Sample((4,), lambda x: x.cpu()),
    "cuda": Sample((4,), lambda x: x.cuda()),
    "complex": Sample((4,), lambda x: _real(torch.complex(x, x.flip(1)) * (1 + 2j))),
    "cdouble": Sample((4,), lambda x: _real(x.cdouble())),
    "cfloat": Sample((4,), lambda x: _real(x.cfloat()), tolerance=1e-5),
    "to: aten": Sample((4,), lambda x: aten._to_copy(x, dtype=torch.float64)),
}

FOURIER = {
    "fft_fft": Sample((5,), lambda x: _real(torch.fft.fft(x))),
    "fft_fft: batch last": Sample((5,), lambda x: torch.fft.fft(x.T, dim=0).imag, _first),
    "fft_ifft": Sample((5,), lambda x: _real(torch.fft.ifft(x.cdouble(), n=7))),
    "fft_rfft": Sample((5,), lambda x: _real(torch.fft.rfft(x, norm="ortho"))),
    "fft_irfft": Sample((5, 2), lambda x: torch.fft.irfft(torch.view_as_complex(x))),
    "fft_irfft: filter": Sample(
        (6,), lambda x: torch.fft.irfft(torch.fft.rfft(x) * torch.complex(const(4), const(4).flip(0)), n=6)
    ),
    "fft_fft2": Sample((3, 4), lambda x: torch.fft.fft2(x).real),
    "fft_ifft2": Sample((3, 4), lambda x: _real(torch.fft.ifft2(x))),
    "fft_rfft2": Sample((3, 4), lambda x: _real(torch.fft.rfft2(x))),
    "fft_irfft2": Sample((3, 4, 2), lambda x: torch.fft.irfft2(torch.view_as_complex(x))),
    "fft_fftn": Sample((3, 4), lambda x: torch.fft.fftn(x, dim=(1, 2)).real),
    "fft_ifftn": Sample((3, 4), lambda x: _real(torch.fft.ifftn(x, dim=(1,)))),
    "fft_rfftn": Sample((3, 4), lambda x: _real(torch.fft.rfftn(x, dim=(1, 2)))),
    "fft_irfftn": Sample((3, 4, 2), lambda x: torch.fft.irfftn(torch.view_as_complex(x), dim=(1, 2))),
    "fft_hfft": Sample((5, 2), lambda x: torch.fft.hfft(torch.view_as_complex(x))),
    "fft_ihfft": Sample((5,), lambda x: _real(torch.fft.ihfft(x).resolve_conj())),
    "fft_hfft2": Sample((3, 4, 2), lambda x: torch.fft.hfft2(torch.view_as_complex(x), dim=(1, 2))),
    "fft_hfftn": Sample((3, 4, 2), lambda x: torch.fft.hfftn(torch.view_as_complex(x), dim=(1, 2))),
    "fft_fftshift": Sample((3, 4), lambda x: torch.fft.fftshift(x, dim=(1, 2))),
    "fft_ifftshift": Sample((3, 4), lambda x: torch.fft.ifftshift(x, dim=1)),
    "stft": Sample(
        (16,), lambda x: _real(torch.stft(x, 8, 4, window=torch.hann_window(8).double(), return_complex=True))
    ),
    "istft": Sample(
        (5, 4, 2), lambda x: torch.istft(torch.view_as_complex(x), 8, 4, window=torch.hann_window(8).double())
    ),
}

PRODUCTS = {
    "mul": Sample((4,), lambda x: x * const(4)),
    "mul: number": Sample((4,), lambda x: torch.mul(x, 3)),
    "mul: in place on a view": Sample((4,), lambda x: written(x, lambda y: y[:, 1:].mul_(const(3)))),
    "mul: complex": Sample((4, 2), lambda x: _real(torch.view_as_complex(x) * torch.view_as_complex(const(4, 2)))),
    "mul: broadcast": Sample((1, 4), lambda x: const(3, 1) * x),
    "mul: reflected": Sample((4,), lambda x: 3 * x),
    "div": Sample((4,), lambda x: x / (const(4).abs() + 1)),
    "div: in place": Sample((4,), lambda x: x.clone().div_(3)),
    "div: true_divide": Sample((4,), lambda x: torch.true_divide(x, 3)),
    "matmul": Sample((4,), lambda x: x @ const(4, 3)),
    "matmul: constant first": Sample((4, 3), lambda x: const(2, 4) @ x),
    "matmul: vector": Sample((3, 4), lambda x: torch.matmul(x, const(4))),
    "matmul: heads": Sample((3, 2, 4), lambda x: x.transpose(1, 2) @ const(2, 4, 5)),
    "matmul: sequence first": Sample((3, 4), lambda x: x.transpose(0, 1) @ const(4, 4), _first),
    "rmatmul": Sample((4, 3), lambda x: x.__rmatmul__(const(2, 4))),
    "mm": Sample((4,), lambda x: x.mm(const(4, 3))),
    "mm: constant first": Sample((4,), lambda x: torch.mm(const(3, 4), x.T), _first),
    "mv": Sample((4,), lambda x: x.mv(const(4))),
    "bmm": Sample((3, 4), lambda x: x.bmm(const(1, 4, 5).expand(x.shape[0], 4, 5))),
    "bmm: constant first": Sample((3, 4), lambda x: torch.bmm(const(1, 2, 3).expand(x.shape[0], 2, 3), x)),
    "bmm: batch inside": Sample((3, 4), lambda x: torch.bmm(x.transpose(0, 1), const(3, 4, 5)), _first),
    "dot": Sample((4,), _rows(lambda row: torch.dot(row, const(4)))),
    "inner": Sample((3, 4), lambda x: torch.inner(x, const(2, 4))),
    "inner: constant first": Sample((4,), lambda x: torch.inner(const(2, 4), x), _first),
    "outer": Sample((4,), lambda x: torch.outer(x[:, 0], const(3))),
    "ger": Sample((4,), lambda x: torch.ger(const(3), x[:, 1]), _first),
    "vdot": Sample((4,), _rows(lambda row: torch.vdot(const(4), row))),
    "einsum": Sample((3, 4), lambda x: torch.einsum("bij,jk->bik", x, const(4, 5))),
    "einsum: constant first": Sample((3, 4), lambda x: torch.einsum("ki,bij->kbj", const(2, 3), x), _first),
    "einsum: one operand": Sample((3, 3), lambda x: torch.einsum("bii->bi", x)),
    "einsum: several constants": Sample((3, 4), lambda x: torch.einsum("bij,i,jk->bk", [x, const(3), const(4, 5)])),
    "tensordot": Sample((3, 4), lambda x: torch.tensordot(x, const(4, 3, 2), dims=([2, 1], [0, 1]))),
    "tensordot: constant first": Sample((3, 4), lambda x: torch.tensordot(const(2, 4), x, dims=([1], [2])), _first),
    "kron": Sample((4,), lambda x: torch.kron(x, const(1, 3))),
    "linear": Sample((3, 4), lambda x: F.linear(x, const(2, 4), const(2))),
    "linear: addmm": Sample((4,), lambda x: F.linear(x, const(2, 4), const(2))),
    "conv1d": Sample((2, 7), lambda x: F.conv1d(x, const(4, 1, 3), const(4), 2, 1, 1, 2)),
    "conv1d: same": Sample((2, 7), lambda x: F.conv1d(x, const(4, 2, 5), padding="same")),
    "conv1d: dilated": Sample((2, 24), lambda x: F.conv1d(x, const(16, 2, 3), padding=10, dilation=10)),
    "conv1d: strides over few channels": Sample((2, 17), lambda x: F.conv1d(x, const(3, 2, 10), const(3), 5, 3)),
    "conv1d: strides and more padding than weight": Sample((2, 8), lambda x: F.conv1d(x, const(3, 2, 2), None, 3, 4)),
    "conv1d: patches": Sample((2, 7), lambda x: F.conv1d(x, const(3, 2, 3), const(3), 3)),
    "conv2d": Sample((4, 6, 7), lambda x: F.conv2d(x, const(6, 2, 3, 2), const(6), (2, 1), (1, 0), 2, 2)),
    "conv2d: depthwise": Sample((4, 5, 5), lambda x: F.conv2d(x, const(8, 1, 3, 3), None, 2, 1, 1, 4)),
    "conv2d: more padding than weight": Sample((2, 3, 4), lambda x: F.conv2d(x, const(3, 2, 2, 3), padding=2)),
    "conv2d: patches": Sample((2, 5, 7), lambda x: F.conv2d(x, const(4, 2, 2, 3), stride=(2, 3))),
    "conv2d: strides over few channels": Sample(
        (2, 7, 8), lambda x: F.conv2d(x, const(3, 2, 3, 4), None, (2, 3), (1, 2))
    ),
    "conv2d: a first layer": Sample((3, 8, 7), lambda x: F.conv2d(x, const(4, 3, 7, 7), None, 2, 3)),
    "conv2d: strides beyond the kernel": Sample((2, 7, 8), lambda x: F.conv2d(x, const(3, 2, 2, 1), None, (3, 2))),
    "conv2d: strided points": Sample((2, 5, 6), lambda x: F.conv2d(x, const(3, 2, 1, 1), None, (2, 3))),
    "conv2d: valid": Sample((2, 5, 5), lambda x: F.conv2d(x, const(3, 2, 3, 3), padding="valid")),
    "conv3d": Sample((2, 4, 4, 4), lambda x: F.conv3d(x, const(2, 2, 2, 2, 3), const(2), stride=2, padding=1)),
    "conv3d: patches": Sample((2, 4, 2, 3), lambda x: F.conv3d(x, const(2, 2, 2, 2, 3), stride=(2, 2, 3))),
    "convolution": Sample(
        (4, 6), lambda x: torch.convolution(x, const(4, 2, 3), const(4), [2], [1], [2], False, [0], 2)
    ),
    "convolution: transposed": Sample(
        (4, 5), lambda x: torch.convolution(x, const(4, 2, 3), const(4), [2], [1], [1], True, [1], 2)
    ),
    "conv_transpose1d": Sample((2, 5), lambda x: F.conv_transpose1d(x, const(2, 3, 4), const(3), 3, 1, 2)),
    "conv_transpose2d": Sample((4, 3, 4), lambda x: F.conv_transpose2d(x, const(4, 2, 3, 2), None, 2, 1, 1, 2, (2, 1))),
    "conv_transpose3d": Sample((2, 2, 3, 3), lambda x: F.conv_transpose3d(x, const(2, 2, 2, 2, 2), stride=2)),
    "grid_sampler": Sample((2, 3, 4), lambda x: torch.grid_sampler(x, _grid(x, 5, 2), 0, 1, False)),
    "grid_sampler_2d": Sample((2, 3, 4), lambda x: torch.grid_sampler_2d(x, _grid(x, 5, 2), 0, 0, True)),
    "grid_sampler_3d": Sample((1, 3, 4, 2), lambda x: torch.grid_sampler_3d(x, _grid(x, 2, 2, 3), 1, 1, True)),
    "max_unpool2d": Sample(
        (1, 2, 2), lambda x: F.max_unpool2d(x, at(0, 3, 8, 15).view(2, 2).expand(x.shape[0], 1, 2, 2), 2)
    ),
    "max_unpool3d": Sample(
        (1, 1, 1, 2), lambda x: F.max_unpool3d(x, at(2, 9).view(1, 1, 2).expand(x.shape[0], 1, 1, 1, 2), 2)
    ),
    "grid_sample: bilinear": Sample((2, 3, 4), lambda x: F.grid_sample(x, _grid(x, 5, 2), align_corners=False)),
    "grid_sample: bicubic": Sample(
        (2, 3, 4), lambda x: F.grid_sample(x, _grid(x, 5, 2), "bicubic", "reflection", align_corners=True)
    ),
    "grid_sample: nearest": Sample(
        (2, 3, 4), lambda x: F.grid_sample(x, _grid(x, 5, 2), "nearest", align_corners=True)
    ),
    "grid_sample: volume": Sample((1, 3, 4, 2), lambda x: F.grid_sample(x, _grid(x, 2, 2, 3), align_corners=True)),
}


def _grid(x: Tensor, *sizes: int) -> Tensor:
    return const(1, *sizes, len(sizes)).expand(x.shape[0], *sizes, len(sizes))


def _iadd(x: Tensor, y: Tensor) -> Tensor:
    x += y
    return x


#: Operations that are taken apart into linear ones.
DECOMPOSED = {
    "addmm": Sample((4,), lambda x: torch.addmm(const(3), x, const(4, 3), beta=2, alpha=0.5)),
    "addmv": Sample((4,), lambda x: torch.addmv(x[:, 0], x, const(4))),
    "addr": Sample((4,), lambda x: torch.addr(const(1, 3), x[:, 0], const(3), beta=2)),
    "addbmm": Sample((3, 4), lambda x: torch.addbmm(const(1, 5), x.transpose(0, 1), const(3, 4, 5), alpha=2)),
    "baddbmm": Sample((3, 4), lambda x: torch.baddbmm(const(5), x, const(1, 4, 5).expand(x.shape[0], 4, 5), beta=2)),
    "addcmul": Sample((4,), lambda x: torch.addcmul(x, x, const(4), value=2)),
    "lerp": Sample((4,), lambda x: torch.lerp(x, x.flip(1), 0.3)),
    "lerp: weights": Sample((4,), lambda x: x.clone().lerp_(const(4), const(4))),
    "interpolate: nearest 1d": Sample((2, 4), lambda x: F.interpolate(x, scale_factor=2)),
    "interpolate: linear": Sample((2, 4), lambda x: F.interpolate(x, 7, mode="linear", align_corners=True)),
    "interpolate: nearest 2d": Sample((2, 3, 4), lambda x: F.interpolate(x, (5, 3))),
    "interpolate: nearest exact 1d": Sample((2, 4), lambda x: F.interpolate(x, 3, mode="nearest-exact")),
    "interpolate: nearest exact 2d": Sample((2, 3, 4), lambda x: F.interpolate(x, (5, 3), mode="nearest-exact")),
    "interpolate: nearest exact 3d": Sample((1, 2, 3, 4), lambda x: F.interpolate(x, (3, 2, 5), mode="nearest-exact")),
    "interpolate: bilinear": Sample((2, 3, 4), lambda x: F.interpolate(x, scale_factor=1.5, mode="bilinear")),
    "interpolate: bilinear antialiased": Sample(
        (2, 6, 6), lambda x: F.interpolate(x, (3, 4), mode="bilinear", antialias=True)
    ),
    "interpolate: bicubic": Sample((2, 4, 5), lambda x: F.interpolate(x, (6, 3), mode="bicubic", align_corners=True)),
    "interpolate: bicubic antialiased": Sample(
        (2, 6, 6), lambda x: F.interpolate(x, (3, 4), mode="bicubic", antialias=True)
    ),
    "interpolate: area": Sample((2, 6, 6), lambda x: F.interpolate(x, (3, 4), mode="area")),
    "interpolate: nearest 3d": Sample((1, 2, 3, 4), lambda x: F.interpolate(x, (3, 2, 5))),
    "interpolate: trilinear": Sample((1, 2, 3, 4), lambda x: F.interpolate(x, (3, 2, 5), mode="trilinear")),
    "unfold": Sample((7,), lambda x: x.unfold(1, 3, 2)),
    "unfold: of a transposed": Sample((4, 3), lambda x: x.transpose(0, 2).unfold(1, 2, 1), lambda y: y.transpose(0, 2)),
    "unfold: patches": Sample((2, 4, 6), lambda x: x.unfold(2, 2, 2).unfold(3, 3, 3)),
    "unfold: aten": Sample((7,), lambda x: aten.unfold(x, 1, 3, 1)),
    "take": Sample((5,), lambda x: x.take(torch.arange(x.shape[0])[:, None] * 5 + at(0, 3, 3))),
    "take: from the end": Sample(
        (5,), lambda x: torch.take(x, torch.arange(x.shape[0])[:, None] * 5 - 5 * x.shape[0] + at(0, 3))
    ),
    "put": Sample((5,), lambda x: x.put(torch.arange(x.shape[0]) * 5, x[:, 1])),
    "put: accumulate": Sample((5,), lambda x: x.put(torch.arange(x.shape[0]) * 5, x[:, 1], accumulate=True)),
    "put: in place": Sample((5,), lambda x: x.clone().put_(torch.arange(x.shape[0]) * 5, x[:, 1])),
    "masked_scatter": Sample((5,), lambda x: x.masked_scatter(mask(5), 2 * x[:, : int(mask(5).sum())])),
    "masked_scatter: in place": Sample(
        (5, 2), lambda x: written(x, lambda y: y.masked_scatter_(mask(5, 1), x[:, mask(5, 1)[:, 0]].flip(1)))
    ),
    "scatter_reduce: sum": Sample((5,), lambda x: x.scatter_reduce(1, _index(x, 0, 0, 3), x[:, 2:], "sum")),
    "scatter_reduce: mean": Sample((5,), lambda x: x.scatter_reduce(1, _index(x, 0, 0, 3), x[:, 2:], "mean")),
    "scatter_reduce: without self": Sample(
        (5,), lambda x: x.scatter_reduce(1, _index(x, 0, 0, 3), x[:, 2:], "mean", include_self=False)
    ),
    "scatter_reduce: in place": Sample((5,), lambda x: x.clone().scatter_reduce_(1, _index(x, 0, 0), x[:, :2], "sum")),
    "conj_physical": Sample((3, 2), lambda x: _real(torch.conj_physical(torch.view_as_complex(x)))),
    "conj_physical: in place": Sample((3, 2), lambda x: _real(torch.view_as_complex(x.clone()).conj_physical_())),
    "_upsample_nearest_exact1d": Sample((2, 4), lambda x: aten._upsample_nearest_exact1d(x, [7])),
    "_upsample_nearest_exact2d": Sample((2, 3, 4), lambda x: aten._upsample_nearest_exact2d.vec(x, None, [1.7, 2.0])),
    "_upsample_nearest_exact3d": Sample(
        (1, 2, 3, 4), lambda x: aten._upsample_nearest_exact3d(x, [3, 2, 5], 1.5, 0.7, None)
    ),
    "affine_grid_generator": Sample((2, 3), lambda x: torch.affine_grid_generator(x, [x.shape[0], 1, 3, 2], False)),
    "affine_grid: 3d": Sample((3, 4), lambda x: F.affine_grid(x, [x.shape[0], 1, 3, 2, 2], True)),
    "fft_ihfft2": Sample((3, 4), lambda x: _real(torch.fft.ihfft2(x, dim=(1, 2)).resolve_conj())),
    "fft_ihfft2: sizes": Sample((3, 4), lambda x: _real(torch.fft.ihfft2(x, (2, 5), norm="ortho").resolve_conj())),
    "fft_ihfftn": Sample((3, 4, 2), lambda x: _real(torch.fft.ihfftn(x, dim=(1, 3), norm="forward").resolve_conj())),
    "fft_ihfftn: one": Sample((3, 4), lambda x: _real(torch.fft.ihfftn(x, (3,)).resolve_conj())),
    "conv_tbc": Sample((5, 3), lambda x: _conv_tbc(x.transpose(0, 1)), _first),
    "linalg_vecdot": Sample((3, 4), lambda x: torch.linalg.vecdot(x, const(3, 1), dim=1)),
    "linalg_cross": Sample((3, 4), lambda x: torch.linalg.cross(x, const(1, 3, 1), dim=1)),
    "cross": Sample((4, 3), lambda x: torch.cross(x, const(1, 1, 3), dim=-1)),
    "linalg_multi_dot": Sample((4,), lambda x: torch.linalg.multi_dot([x, const(4, 3), const(3, 2)])),
    "chain_matmul": Sample((4,), lambda x: _chain_matmul(x, const(4, 3), const(3, 2))),
    "ldexp": Sample((4,), lambda x: torch.ldexp(x, at(0, 1, 3, 2))),
    "nan_to_num": Sample((4,), lambda x: torch.nan_to_num(x.masked_fill(mask(4), torch.inf), posinf=2)),
    "nan_to_num: in place": Sample((4,), lambda x: x.masked_fill(mask(4), torch.nan).nan_to_num_()),
    "nanmean": Sample((3, 4), lambda x: x.masked_fill(mask(3, 4), torch.nan).nanmean(2)),
    "frac": Sample((4,), lambda x: torch.frac(x / 4 + 1.5)),
    "fmod": Sample((4,), lambda x: torch.fmod(x - 10, 4)),
    "remainder": Sample((4,), lambda x: (x / 4 - 10) % 0.75),
}


def _chain_matmul(*matrices: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # It is deprecated.
        warnings.simplefilter("ignore")
        return torch.chain_matmul(*matrices)


def _conv_tbc(x: Tensor) -> Tensor:
    return torch.conv_tbc(x.contiguous(), const(2, 3, 4), const(4), 1)


def _index(x: Tensor, *places: int) -> Tensor:
    return at(*places).expand(x.shape[0], len(places))


SAMPLES = {**VIEWS, **REARRANGEMENTS, **SUMS, **CONVERSIONS, **FOURIER, **PRODUCTS, **DECOMPOSED}
