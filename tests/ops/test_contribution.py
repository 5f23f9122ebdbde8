import pytest
import torch
from reference import ops as oracle
from torch.library import opcheck

from deepshap_ext.ops import contribution


def operands(case, dtype, device, layout=None, outputs=2):
    def make(*shape):
        return torch.randn(*shape, dtype=torch.float64).to(device, dtype)

    x, r = make(*case.shape(case.batch)), make(*case.shape(case.reference_rows))
    rows = case.rows(1).to(device)
    multipliers = make(len(rows), outputs, *x.shape)
    if layout is not None:
        multipliers, x, r = layout[0](multipliers, 2), layout[1](x, 0), layout[1](r, 0)
    return multipliers, x, r, rows


def check(arguments, geometry, dtype, assert_close):
    expected = oracle.contribution(*[tensor.cpu() for tensor in arguments], *geometry)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    for out, one in zip(contribution(*arguments, *geometry), expected, strict=True):
        assert out.dtype == kept
        assert_close(out, one, kept, factor=16)  # half types are only read


def test_oracle(case, dtype, device, assert_close):
    check(operands(case, dtype, device), case.geometry, dtype, assert_close)


def test_layouts(case, layout, device, assert_close):
    check(operands(case, torch.float32, device, layout), case.geometry, torch.float32, assert_close)


def test_rows_in_any_order(device, assert_close):
    multipliers, x, r = (torch.randn(*s, device=device) for s in ((5, 3, 4, 7), (4, 7), (2, 7)))
    check(
        (multipliers, x, r, torch.tensor([1, 0, 1, 1, 0], device=device)), (1, 4, "grid"), torch.float32, assert_close
    )


def test_a_small_spread_around_a_large_mean(device):
    """The sum of squares minus the square of the sum would lose it."""
    spread = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64, device=device)
    multipliers = (1e6 + spread).view(3, 1, 1, 1)
    x, r = torch.ones(1, 1, dtype=torch.float64, device=device), torch.zeros(1, 1, dtype=torch.float64, device=device)
    rows = torch.zeros(3, dtype=torch.int64, device=device)
    mean, m2 = contribution(multipliers, x, r, rows, 1, 1, "grid")
    torch.testing.assert_close(mean.item(), 1e6)
    torch.testing.assert_close(m2.item(), 2.0, rtol=1e-9, atol=0)
    _, m2 = contribution(multipliers.float(), x.float(), r.float(), rows, 1, 1, "grid")
    torch.testing.assert_close(m2.item(), 2.0, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(2, 0, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0)])
def test_empty(shape, dtype, device):
    multipliers = torch.randn(shape, device=device, dtype=dtype)
    x, r = torch.randn(shape[2:], device=device, dtype=dtype), torch.randn(2, shape[3], device=device, dtype=dtype)
    rows = torch.zeros(2, dtype=torch.int64, device=device)
    assert [o.shape for o in contribution(multipliers, x, r, rows, 1, max(shape[2], 1), "grid")] == [
        shape[1:],
        shape[1:],
    ]


@pytest.mark.parametrize("in_dims", [(0, 0), (1, 0), (0, None), (2, None), (None, 0)])
def test_vmap_is_the_loop(in_dims, device):
    n = 3
    multipliers = torch.randn(*([n] if in_dims[0] is not None else []), 2, 2, 4, 5, device=device)
    rows = torch.tensor([[0, 1], [1, 0], [1, 1]] if in_dims[1] is not None else [1, 0], device=device)
    x, r = torch.randn(4, 5, device=device), torch.randn(2, 5, device=device)

    def op(m, row):
        return contribution(m, x, r, row, 1, 4, "grid")

    expected = [
        op(multipliers[i] if in_dims[0] is not None else multipliers, rows[i] if in_dims[1] is not None else rows)
        for i in range(n)
    ]
    moved = multipliers if in_dims[0] is None else multipliers.movedim(0, in_dims[0])
    for out, ones in zip(torch.func.vmap(op, in_dims)(moved, rows), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(out, torch.stack(ones), rtol=0, atol=0)


def test_opcheck(case, layout, device):
    arguments = (*operands(case, torch.float32, device, layout), *case.geometry)
    opcheck(torch.ops.deepshap_ext.contribution.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_opcheck_compiled():
    arguments = (torch.randn(2, 2, 3, 4), torch.randn(3, 4), torch.randn(2, 4), torch.tensor([0, 1]), 1, 3, "grid")
    opcheck(torch.ops.deepshap_ext.contribution.default, arguments)


GOOD = {
    "multipliers": torch.zeros(2, 5, 3, 4),
    "x": torch.zeros(3, 4),
    "r": torch.zeros(2, 4),
    "rows": torch.tensor([0, 1]),
    "outer": 1,
    "batch": 3,
    "pairing": "grid",
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"multipliers": torch.zeros(2, 3, 4)},
            r"contribution: multipliers must have shape \[J, K, \*x.shape\], got \[2, 3, 4\] for x of shape \[3, 4\]",
        ),
        (
            {"multipliers": torch.zeros(0, 5, 3, 4)},
            "contribution: multipliers must hold at least one baseline, got shape",
        ),
        ({"x": torch.zeros(3, 4).double()}, "contribution: x must have the type of multipliers, Float, got Double"),
        ({"rows": torch.tensor([0])}, r"contribution: rows must have shape \[J\] = \[2\], got \[1\]"),
        ({"rows": torch.tensor([0, 2])}, r"contribution: rows must lie in \[0, 2\), got 2 at 1"),
        ({"pairing": "aligned"}, "contribution: r must have the 3 rows of x in pairing 'aligned', got 2"),
    ],
)
def test_errors(changed, message):
    contribution(**GOOD)
    with pytest.raises(ValueError, match=message):
        contribution(**(GOOD | changed))
