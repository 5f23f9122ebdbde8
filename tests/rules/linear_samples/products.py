"""Products with constants: matrices, convolutions, interpolation at given places."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .sample import Sample, at, batch_first, const, each_row, real, written


def _grid(x: Tensor, *sizes: int) -> Tensor:
    return const(1, *sizes, len(sizes)).expand(x.shape[0], *sizes, len(sizes))


PRODUCTS = {
    "mul": Sample((4,), lambda x: x * const(4)),
    "mul: number": Sample((4,), lambda x: torch.mul(x, 3)),
    "mul: in place on a view": Sample((4,), lambda x: written(x, lambda y: y[:, 1:].mul_(const(3)))),
    "mul: complex": Sample((4, 2), lambda x: real(torch.view_as_complex(x) * torch.view_as_complex(const(4, 2)))),
    "mul: broadcast": Sample((1, 4), lambda x: const(3, 1) * x),
    "mul: reflected": Sample((4,), lambda x: 3 * x),
    "div": Sample((4,), lambda x: x / (const(4).abs() + 1)),
    "div: in place": Sample((4,), lambda x: x.clone().div_(3)),
    "div: true_divide": Sample((4,), lambda x: torch.true_divide(x, 3)),
    "matmul": Sample((4,), lambda x: x @ const(4, 3)),
    "matmul: constant first": Sample((4, 3), lambda x: const(2, 4) @ x),
    "matmul: vector": Sample((3, 4), lambda x: torch.matmul(x, const(4))),
    "matmul: heads": Sample((3, 2, 4), lambda x: x.transpose(1, 2) @ const(2, 4, 5)),
    "matmul: sequence first": Sample((3, 4), lambda x: x.transpose(0, 1) @ const(4, 4), batch_first),
    "rmatmul": Sample((4, 3), lambda x: x.__rmatmul__(const(2, 4))),
    "mm": Sample((4,), lambda x: x.mm(const(4, 3))),
    "mm: constant first": Sample((4,), lambda x: torch.mm(const(3, 4), x.T), batch_first),
    "mv": Sample((4,), lambda x: x.mv(const(4))),
    "bmm": Sample((3, 4), lambda x: x.bmm(const(1, 4, 5).expand(x.shape[0], 4, 5))),
    "bmm: constant first": Sample((3, 4), lambda x: torch.bmm(const(1, 2, 3).expand(x.shape[0], 2, 3), x)),
    "bmm: batch inside": Sample((3, 4), lambda x: torch.bmm(x.transpose(0, 1), const(3, 4, 5)), batch_first),
    "dot": Sample((4,), each_row(lambda row: torch.dot(row, const(4)))),
    "inner": Sample((3, 4), lambda x: torch.inner(x, const(2, 4))),
    "inner: constant first": Sample((4,), lambda x: torch.inner(const(2, 4), x), batch_first),
    "outer": Sample((4,), lambda x: torch.outer(x[:, 0], const(3))),
    "ger": Sample((4,), lambda x: torch.ger(const(3), x[:, 1]), batch_first),
    "vdot": Sample((4,), each_row(lambda row: torch.vdot(const(4), row))),
    "einsum": Sample((3, 4), lambda x: torch.einsum("bij,jk->bik", x, const(4, 5))),
    "einsum: constant first": Sample((3, 4), lambda x: torch.einsum("ki,bij->kbj", const(2, 3), x), batch_first),
    "einsum: one operand": Sample((3, 3), lambda x: torch.einsum("bii->bi", x)),
    "einsum: several constants": Sample((3, 4), lambda x: torch.einsum("bij,i,jk->bk", [x, const(3), const(4, 5)])),
    "tensordot": Sample((3, 4), lambda x: torch.tensordot(x, const(4, 3, 2), dims=([2, 1], [0, 1]))),
    "tensordot: constant first": Sample(
        (3, 4), lambda x: torch.tensordot(const(2, 4), x, dims=([1], [2])), batch_first
    ),
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
