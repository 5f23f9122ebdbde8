"""Conversions between types and devices."""

import torch

from .sample import Sample, const, real

aten = torch.ops.aten

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
    "complex": Sample((4,), lambda x: real(torch.complex(x, x.flip(1)) * (1 + 2j))),
    "cdouble": Sample((4,), lambda x: real(x.cdouble())),
    "cfloat": Sample((4,), lambda x: real(x.cfloat()), tolerance=1e-5),
    "to: aten": Sample((4,), lambda x: aten._to_copy(x, dtype=torch.float64)),
}
