import pytest
import torch
from reference import ops as oracle
from torch.library import opcheck

from deepshap_ext.ops import lstm

UNITS = 3


def side(*shape, units=UNITS):
    """Inputs of a cell, and what it makes of them."""
    x = torch.randn(*shape, 5 * units, dtype=torch.float64)
    i, f, g, o, cell = x.chunk(5, -1)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    following = f * cell + i * g
    return x, torch.cat([i, f, g, o, following, following.tanh()], -1)


def operands(case, dtype, device, layout=None, outputs=2, units=UNITS):
    x, x_values = side(*case.shape(case.batch), units=units)
    r, r_values = side(*case.shape(case.reference_rows), units=units)
    rows = case.rows(outputs)
    grad = torch.randn(len(rows), *x.shape[:-1], 2 * units, dtype=torch.float64)
    found = [t.to(device, dtype) for t in (grad, x, r, x_values, r_values)]
    if layout is not None:
        found = [layout[0](found[0], 1), *[layout[1](t, 0) for t in found[1:]]]
    return *found, rows.to(device)


def check(arguments, geometry, dtype, assert_close):
    out = lstm(*arguments, *geometry)
    assert out.dtype == dtype
    assert_close(out, oracle.lstm(*[t.cpu() for t in arguments], *geometry), dtype, factor=16)


def test_oracle(case, dtype, device, assert_close):
    check(operands(case, dtype, device), case.geometry, dtype, assert_close)


def test_layouts(case, layout, device, assert_close):
    check(operands(case, torch.float32, device, layout), case.geometry, torch.float32, assert_close)


@pytest.mark.parametrize("units", [1, 15, 64, 65, 700])
def test_many_units(units, dtype, device, assert_close):
    x, x_values = side(2, units=units)
    r, r_values = side(3, units=units)
    grad, rows = torch.randn(4, 2, 2 * units), torch.tensor([2, 0, 0, 1], device=device)
    arguments = (*[t.to(device, dtype) for t in (grad, x, r, x_values, r_values)], rows)
    check(arguments, (1, 2, "grid"), dtype, assert_close)


def test_completeness(case):
    grad, x, r, x_values, r_values, rows = operands(case, torch.float64, "cpu")
    m = lstm(grad, x, r, x_values, r_values, rows, *case.geometry)
    for v, row in enumerate(rows.tolist()):
        other, at = (oracle.paired(a, b, row, *case.geometry) for a, b in ((x, r), (x_values, r_values)))
        ours, theirs = ([part[k] for k in (3, 4, 5)] for part in (x_values.chunk(6, -1), at.chunk(6, -1)))
        outputs = [torch.cat([gate * squashed, following], -1) for gate, following, squashed in (ours, theirs)]
        expected = (grad[v] * (outputs[0] - outputs[1])).sum()
        torch.testing.assert_close((m[v] * (x - other)).sum(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_empty(shape, dtype, device):
    cotangents, batch = shape
    x, r = (torch.randn(n, 5 * UNITS, device=device, dtype=dtype) for n in (batch, 2))
    x_values, r_values = (torch.randn(n, 6 * UNITS, device=device, dtype=dtype) for n in (batch, 2))
    rows = torch.zeros(cotangents, dtype=torch.int64, device=device)
    grad = torch.randn(*shape, 2 * UNITS, device=device, dtype=dtype)
    out = lstm(grad, x, r, x_values, r_values, rows, 1, max(batch, 1), "grid")
    assert out.shape == (*shape, 5 * UNITS)


def test_vmap_is_the_loop(case, device):
    grad, x, r, x_values, r_values, rows = operands(case, torch.float32, device)

    def op(g, row):
        return lstm(g.unsqueeze(0), x, r, x_values, r_values, row.unsqueeze(0), *case.geometry).squeeze(0)

    expected = torch.stack([op(g, row) for g, row in zip(grad, rows, strict=True)])
    torch.testing.assert_close(torch.func.vmap(op)(grad, rows), expected, rtol=0, atol=0)


def test_opcheck(case, device):
    arguments = (*operands(case, torch.float32, device), *case.geometry)
    opcheck(torch.ops.deepshap_ext.lstm.default, arguments, test_utils=("test_schema", "test_faketensor"))


GOOD = {
    "grad": torch.zeros(2, 3, 4),
    "x": torch.zeros(3, 10),
    "r": torch.zeros(2, 10),
    "x_values": torch.zeros(3, 12),
    "r_values": torch.zeros(2, 12),
    "rows": torch.tensor([0, 1]),
    "outer": 1,
    "batch": 3,
    "pairing": "grid",
}


def test_opcheck_compiled():
    opcheck(torch.ops.deepshap_ext.lstm.default, tuple(GOOD.values()))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"grad": torch.zeros(2, 3, 10)},
            r"lstm: grad must have shape \[V, \*output.shape\], got \[2, 3, 10\] for an output of shape \[3, 4\]",
        ),
        ({"x_values": torch.zeros(3, 12).double()}, "lstm: x_values must have the type of grad, Float, got Double"),
        ({"x": torch.zeros(3, 12)}, r"lstm: x must have shape \[..., 5 \* units\], got \[3, 12\]"),
        (
            {"r_values": torch.zeros(2, 10)},
            r"lstm: r_values must have shape \[..., 6 \* units\], got \[2, 10\] for a side of shape \[2, 10\]",
        ),
        (
            {"outer": 3, "batch": 2, "r": torch.zeros(3, 10), "r_values": torch.zeros(3, 12)},
            r"lstm: the batch must lie outside of the last dimension, got outer = 3 and batch = 2 for x of shape \[3, 10\]",
        ),
        ({"rows": torch.tensor([0, 2])}, r"lstm: rows must lie in \[0, 2\), got 2 at 1"),
        ({"pairing": "aligned"}, "lstm: r must have the 3 rows of x in pairing 'aligned', got 2"),
    ],
)
def test_errors(changed, message):
    lstm(**GOOD)
    with pytest.raises(ValueError, match=message):
        lstm(**(GOOD | changed))
