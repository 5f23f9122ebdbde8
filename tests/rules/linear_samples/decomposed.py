"""Operations that are taken apart into linear ones."""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .sample import Sample, at, batch_first, const, mask, real, written

aten = torch.ops.aten


def _chain_matmul(*matrices: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.chain_matmul is deprecated
        return torch.chain_matmul(*matrices)


def _conv_tbc(x: Tensor) -> Tensor:
    return torch.conv_tbc(x.contiguous(), const(2, 3, 4), const(4), 1)


def _index(x: Tensor, *places: int) -> Tensor:
    return at(*places).expand(x.shape[0], len(places))


def _pads() -> dict[str, Sample]:
    shapes = {1: (2, 4), 2: (2, 3, 4), 3: (1, 3, 2, 3)}
    return {
        f"{kind}_pad{dims}d": Sample(
            shape, lambda x, kind=kind, n=dims: getattr(aten, f"{kind}_pad{n}d")(x, [1, 0] * n)
        )
        for kind in ("reflection", "replication")
        for dims, shape in shapes.items()
    }


DECOMPOSED = {
    **_pads(),
    "pad_sequence": Sample(
        (3, 2), lambda x: torch.stack([pad_sequence([row[:1], row], True, 0.5, padding_side="left") for row in x])
    ),
    "combinations": Sample((4,), lambda x: torch.stack([torch.combinations(row, 2) for row in x])),
    "cartesian_prod": Sample((4,), lambda x: torch.stack([torch.cartesian_prod(row[:2], row[1:]) for row in x])),
    "native_channel_shuffle": Sample((4, 3), lambda x: aten.native_channel_shuffle(x.unsqueeze(-1), 2)),
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
    "conj_physical": Sample((3, 2), lambda x: real(torch.conj_physical(torch.view_as_complex(x)))),
    "conj_physical: in place": Sample((3, 2), lambda x: real(torch.view_as_complex(x.clone()).conj_physical_())),
    "_upsample_nearest_exact1d": Sample((2, 4), lambda x: aten._upsample_nearest_exact1d(x, [7])),
    "_upsample_nearest_exact2d": Sample((2, 3, 4), lambda x: aten._upsample_nearest_exact2d.vec(x, None, [1.7, 2.0])),
    "_upsample_nearest_exact3d": Sample(
        (1, 2, 3, 4), lambda x: aten._upsample_nearest_exact3d(x, [3, 2, 5], 1.5, 0.7, None)
    ),
    "affine_grid_generator": Sample((2, 3), lambda x: torch.affine_grid_generator(x, [x.shape[0], 1, 3, 2], False)),
    "affine_grid: 3d": Sample((3, 4), lambda x: F.affine_grid(x, [x.shape[0], 1, 3, 2, 2], True)),
    "fft_ihfft2": Sample((3, 4), lambda x: real(torch.fft.ihfft2(x, dim=(1, 2)).resolve_conj())),
    "fft_ihfft2: sizes": Sample((3, 4), lambda x: real(torch.fft.ihfft2(x, (2, 5), norm="ortho").resolve_conj())),
    "fft_ihfftn": Sample((3, 4, 2), lambda x: real(torch.fft.ihfftn(x, dim=(1, 3), norm="forward").resolve_conj())),
    "fft_ihfftn: one": Sample((3, 4), lambda x: real(torch.fft.ihfftn(x, (3,)).resolve_conj())),
    "conv_tbc": Sample((5, 3), lambda x: _conv_tbc(x.transpose(0, 1)), batch_first),
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
