"""Norms, variances and distances."""

from __future__ import annotations

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from reference import rules as slow
from reference.units import elementwise as rescaled
from rules.linear_samples import const
from torch import Tensor

from .sample import Sample, aten, by_sample, linear, of_rows, one


def samples() -> dict[str, Sample]:
    found: dict[str, Sample] = {}
    weight, bias = const(6), const(6).flip(0)

    def by_hand(x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)

    def layer_norm(a: np.ndarray) -> np.ndarray:
        return slow.normalize(a, 1e-5, True) * weight.numpy() + bias.numpy()

    def group_norm(a: np.ndarray) -> np.ndarray:
        channels = of_rows(lambda row: slow.normalize(row, 1e-5, True), 2)(a).reshape(4, 2)
        return channels * weight.numpy()[:4, None] + bias.numpy()[:4, None]

    def group_norm_of(x: Tensor) -> Tensor:
        return F.group_norm(x.unflatten(1, (4, 2)), 2, weight[:4], bias[:4])

    def layer_norm_of(x: Tensor) -> Tensor:
        return F.layer_norm(x, (6,), weight, bias)

    def rms_norm(a: np.ndarray) -> np.ndarray:
        return slow.normalize(a, 1e-6, False) * weight.numpy()

    def uneven(x: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        return 3 * x, 0.3 * r

    def vectors(x: Tensor) -> tuple[Tensor, Tensor]:
        """Two and two of width 2."""
        a, b = x.unflatten(1, (2, 2, 2)).unbind(1)
        return a, b

    def apart(a: np.ndarray) -> list[np.ndarray]:
        return [p - q for p in a[:4].reshape(2, 2) for q in a[4:].reshape(2, 2)]

    channels = {"running_mean": const(3), "running_var": const(3) ** 2, "weight": const(3), "bias": const(3)}
    statistics = (channels["weight"], channels["bias"], channels["running_mean"], channels["running_var"])
    aten_statistics = aten._native_batch_norm_legit_no_training
    found.update(
        {
            "batch_norm": linear((3, 2), lambda x: F.batch_norm(x, **channels)),
            "_native_batch_norm_legit_no_training": linear(
                (3, 2), lambda x: aten_statistics(x, *statistics, 0.1, 1e-5)[0]
            ),
            "layer_norm": Sample((6,), layer_norm_of, layer_norm, 0.1),
            "layer_norm: of another scale": Sample((6,), layer_norm_of, layer_norm, 0.3, uneven),
            "native_layer_norm": Sample(
                (6,), lambda x: torch.native_layer_norm(x, (6,), weight, bias, 1e-5)[0], layer_norm, 0.1
            ),
            "rms_norm": Sample((6,), lambda x: F.rms_norm(x, (6,), weight, 1e-6), rms_norm, 0.07),
            "_fused_rms_norm": Sample((6,), lambda x: aten._fused_rms_norm(x, [6], weight, 1e-6)[0], rms_norm, 0.07),
            "mul: with an rsqrt": Sample(
                (6,), by_hand, lambda a: slow.rsqrt_product(a, (a**2).sum() * (1 / 6) + 1e-6), 0.07
            ),
            "group_norm": Sample((8,), group_norm_of, group_norm, 0.18),
            "native_group_norm": Sample(
                (8,),
                lambda x: torch.native_group_norm(x.unflatten(1, (4, 2)), weight[:4], bias[:4], len(x), 4, 2, 2, 1e-5)[
                    0
                ],
                group_norm,
                0.18,
            ),
            "instance_norm": Sample(
                (8,),
                lambda x: F.instance_norm(x.unflatten(1, (2, 4))),
                of_rows(lambda row: slow.normalize(row, 1e-5, True), 2),
                0.18,
            ),
            "norm": Sample((6,), lambda x: x.norm(dim=1, keepdim=True), lambda a: one(slow.length(a)), 0.03),
            "norm: p=1": Sample(
                (6,), lambda x: x.norm(p=1, dim=1, keepdim=True), lambda a: one(rescaled("abs", a).sum())
            ),
            "linalg_norm": Sample(
                (6,),
                lambda x: torch.linalg.norm(x.unflatten(1, (2, 3)), dim=(1, 2))[:, None],
                lambda a: one(slow.length(a)),
                0.03,
            ),
            "linalg_vector_norm": Sample(
                (6,),
                lambda x: torch.linalg.vector_norm(x, dim=1, keepdim=True),
                lambda a: one(slow.length(a)),
                0.03,
            ),
            "linalg_vector_norm: largest": Sample(
                (4,),
                lambda x: torch.linalg.vector_norm(x, np.inf, 1, keepdim=True),
                lambda a: one(slow.largest(rescaled("abs", a))),
                0.4,
            ),
            "linalg_matrix_norm": Sample(
                (6,),
                lambda x: torch.linalg.matrix_norm(x.unflatten(1, (2, 3)))[:, None],
                lambda a: one(slow.length(a)),
                0.03,
            ),
            "linalg_matrix_norm: of sums": Sample(
                (4,),
                lambda x: torch.linalg.matrix_norm(x.unflatten(1, (2, 2)), 1)[:, None],
                lambda a: one(slow.largest(rescaled("abs", a).reshape(2, 2).sum(0))),
                0.1,
            ),
            "norm_except_dim": Sample(
                (6,), lambda x: torch.norm_except_dim(x, 2, 0), lambda a: one(slow.length(a)), 0.03
            ),
            "frobenius_norm": Sample(
                (6,), lambda x: aten.frobenius_norm(x, [1], True), lambda a: one(slow.length(a)), 0.03
            ),
            "dist": Sample(
                (8,),
                by_sample(lambda x: torch.dist(x[:4], x[4:])),
                lambda a: one(slow.length(a[:4] - a[4:])),
                0.12,
            ),
            "pdist": Sample(
                (6,),
                by_sample(lambda x: torch.pdist(x.view(3, 2))),
                lambda a: [slow.length(p - q) for p, q in itertools.combinations(a.reshape(3, 2), 2)],
                0.2,
            ),
            "var": Sample((6,), lambda x: x.var(1, keepdim=True), lambda a: one(slow.variance(a))),
            "std": Sample(
                (6,), lambda x: x.std(1, keepdim=True), lambda a: one(rescaled("sqrt", slow.variance(a))), 0.07
            ),
            "var_mean": Sample(
                (6,),
                lambda x: torch.var_mean(x, 1, keepdim=True),
                lambda a: [slow.variance(a), a.sum() / len(a)],
            ),
            "std_mean": Sample(
                (6,),
                lambda x: torch.std_mean(x, 1, keepdim=True),
                lambda a: [rescaled("sqrt", slow.variance(a)), a.sum() / len(a)],
                0.05,
            ),
            "cosine_similarity": Sample(
                (8,),
                lambda x: F.cosine_similarity(x[:, :4], x[:, 4:])[:, None],
                lambda a: one((a[:4] / slow.length(a[:4])) @ (a[4:] / slow.length(a[4:]))),
                0.2,
            ),
            "cdist": Sample(
                (8,), lambda x: torch.cdist(*vectors(x)), lambda a: [slow.length(d) for d in apart(a)], 0.2
            ),
            "cdist: p=1": Sample(
                (8,),
                lambda x: torch.cdist(*vectors(x), p=1),
                lambda a: [rescaled("abs", d).sum() for d in apart(a)],
                0.4,
            ),
            "pairwise_distance": Sample(
                (8,),
                lambda x: F.pairwise_distance(x[:, :4], x[:, 4:], keepdim=True),
                lambda a: one(slow.length(a[:4] - a[4:] + 1e-6)),
                0.12,
            ),
        }
    )
    return found
