"""The midpoint operation: the means of both sides, without overflow."""

import pytest
import torch
from reference import ops as oracle
from torch.library import opcheck

from deepshap_ext.ops import midpoint


def operands(case, dtype, device, layout=None):
    x, r = (torch.randn(case.shape(n), dtype=torch.float64) for n in (case.batch, case.reference_rows))
    x, r = x.to(device, dtype), r.to(device, dtype)
    if layout is not None:
        x, r = layout[0](x, 0), layout[1](r, 0)
    return x, r, case.rows().to(device)


def check(arguments, geometry, dtype, assert_close):
    out = midpoint(*arguments, *geometry)
    assert out.dtype == dtype and out.is_contiguous()
    assert_close(out, oracle.midpoint(*[t.cpu() for t in arguments], *geometry), dtype, factor=1)


def test_oracle(case, dtype, device, assert_close):
    check(operands(case, dtype, device), case.geometry, dtype, assert_close)


def test_layouts(case, layout, device, assert_close):
    check(operands(case, torch.float32, device, layout), case.geometry, torch.float32, assert_close)


def test_large_values_do_not_overflow(dtype, device):
    largest = torch.finfo(dtype).max
    x, rows = torch.full((1, 20), largest, dtype=dtype, device=device), torch.tensor([0], device=device)
    assert (midpoint(x, x, rows, 1, 1, "grid") == largest).all()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty(shape, dtype, device):
    cotangents, batch, inner = shape
    x, r = torch.randn(batch, inner, device=device, dtype=dtype), torch.randn(2, inner, device=device, dtype=dtype)
    rows = torch.zeros(cotangents, dtype=torch.int64, device=device)
    assert midpoint(x, r, rows, 1, max(batch, 1), "grid").shape == shape


def test_vmap_is_the_loop(case, device):
    x, r, rows = operands(case, torch.float32, device)

    def op(row):
        return midpoint(x, r, row.unsqueeze(0), *case.geometry).squeeze(0)

    expected = torch.stack([op(row) for row in rows])
    torch.testing.assert_close(torch.func.vmap(op)(rows), expected, rtol=0, atol=0)


@pytest.mark.parametrize("batched", [0, 1])
def test_vmap_over_sides_is_refused(batched):
    sides = [torch.zeros(3, 4), torch.zeros(2, 4)]
    rows = torch.zeros(5, 1, dtype=torch.int64)

    def op(side, row):
        return midpoint(*[side if at == batched else sides[at] for at in range(2)], row, 1, 3, "grid")

    with pytest.raises(ValueError, match=f"midpoint: vmap goes over .*rows only, but {'xr'[batched]} is batched"):
        torch.func.vmap(op)(sides[batched].expand(5, -1, -1), rows)


def test_opcheck(case, device):
    arguments = (*operands(case, torch.float32, device), *case.geometry)
    opcheck(torch.ops.deepshap_ext.midpoint.default, arguments, test_utils=("test_schema", "test_faketensor"))


GOOD = {
    "x": torch.zeros(3, 4),
    "r": torch.zeros(2, 4),
    "rows": torch.tensor([0, 1]),
    "outer": 1,
    "batch": 3,
    "pairing": "grid",
}


def test_opcheck_compiled():
    opcheck(torch.ops.deepshap_ext.midpoint.default, tuple(GOOD.values()))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": torch.zeros(3, 4).int()}, "midpoint: x must be float32, float64, float16 or bfloat16, got Int"),
        ({"r": torch.zeros(2, 4).double()}, "midpoint: r must have the type of x, Float, got Double"),
        ({"rows": torch.tensor([[0]])}, r"midpoint: rows must have shape \[V\] = \[1\], got \[1, 1\]"),
        ({"rows": torch.tensor([0, 2])}, r"midpoint: rows must lie in \[0, 2\), got 2 at 1"),
        ({"pairing": "aligned"}, "midpoint: r must have the 3 rows of x in pairing 'aligned', got 2"),
    ],
)
def test_errors(changed, message):
    midpoint(**GOOD)
    with pytest.raises(ValueError, match=message):
        midpoint(**(GOOD | changed))
