"""The rule of layer, rms and group norms."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ops as oracle
from torch.library import opcheck

from deepshap_ext.ops import norm

EPS = 1e-5


def sizes(case):
    """(groups, elements of a line): every number of a row's trailing dimensions, and lines of which several share a row's channels."""
    one, two = case.shape(case.batch), case.shape(case.batch + 1)
    behind = one[1 + next(d for d, (a, b) in enumerate(zip(one, two, strict=True)) if a != b) :]
    found = [(1, int(torch.tensor(behind[d:]).prod())) for d in range(len(behind))]
    return [*found, (behind[0], found[0][1] // behind[0])] if behind else [(1, 1)]


def operands(case, dtype, device, groups, size, layout=None, outputs=2):
    x = torch.randn(case.shape(case.batch), dtype=torch.float64) * 2 + 0.5
    r = torch.randn(case.shape(case.reference_rows), dtype=torch.float64) - 0.5
    rows = case.rows(outputs)
    grad = torch.randn(len(rows), *x.shape, dtype=torch.float64)
    scale = torch.rand(groups, size, dtype=torch.float64) + 0.5
    grad, x, r = (t.to(device, dtype) for t in (grad, x, r))
    scale, rows = scale.to(device, wide(dtype)), rows.to(device)
    if layout is not None:
        grad, x, r = layout[0](grad, 1), layout[1](x, 0), layout[1](r, 0)
    return grad, x, r, scale, rows


def wide(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def check(arguments, rest, dtype, assert_close):
    out = norm(*arguments, *rest)
    assert out.dtype == dtype
    assert_close(out, oracle.norm(*[t.cpu() for t in arguments], *rest), dtype, factor=32)


@pytest.mark.parametrize("centre", [False, True], ids=["rms", "centred"])
def test_oracle(centre, case, dtype, device, assert_close):
    for groups, size in sizes(case):
        check(operands(case, dtype, device, groups, size), (EPS, centre, *case.geometry), dtype, assert_close)


@pytest.mark.parametrize("centre", [False, True], ids=["rms", "centred"])
def test_layouts(centre, case, layout, device, assert_close):
    for groups, size in sizes(case):
        arguments = operands(case, torch.float32, device, groups, size, layout)
        check(arguments, (EPS, centre, *case.geometry), torch.float32, assert_close)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 1023, 5000, 70_000])
@pytest.mark.parametrize("centre", [False, True], ids=["rms", "centred"])
def test_long_lines(size, centre, dtype, device, assert_close):
    grad, x, r = (torch.randn(*shape, size, dtype=torch.float64).to(device, dtype) for shape in ((3, 2), (2,), (2,)))
    scale, rows = torch.rand(1, size).to(device, wide(dtype)), torch.tensor([0, 1, 1], device=device)
    check((grad, x, r, scale, rows), (EPS, centre, 1, 2, "grid"), dtype, assert_close)


def test_few_of_many_baselines(device, assert_close):
    grad, x, r = (torch.randn(*shape, 3, 8, device=device) for shape in ((4, 2), (2,), (50,)))
    rows = torch.tensor([49, 7, 7, 49], device=device)
    check((grad, x, r, torch.rand(1, 8, device=device), rows), (EPS, True, 1, 2, "grid"), torch.float32, assert_close)


@pytest.mark.parametrize("magnitude", [1e-30, 1e30])
@pytest.mark.parametrize("centre", [False, True], ids=["rms", "centred"])
def test_squares_out_of_range(magnitude, centre, device, assert_close):
    """A norm does not depend on its input's magnitude, so its multipliers go with the inverse."""
    for dtype, power in ((torch.float32, 1), (torch.float64, 10)):
        grad, x, r = (torch.randn(*shape, 40, dtype=dtype, device=device) for shape in ((2, 3), (3,), (2,)))
        scale, rows = torch.ones(1, 40, dtype=dtype, device=device), torch.tensor([0, 1], device=device)
        geometry = (0.0, centre, 1, 3, "grid")
        by = magnitude**power
        out = norm(grad, x * by, r * by, scale, rows, *geometry)
        assert_close(out * by, norm(grad, x, r, scale, rows, *geometry).double().cpu(), dtype, factor=32)


def test_a_large_mean_costs_no_accuracy(device):
    """The multipliers of a centred norm sum to 0, to rounding in them and not in the mean."""
    grad, x, r = (torch.randn(*shape, 333, device=device) for shape in ((2, 3), (3,), (2,)))
    scale, rows = torch.ones(1, 333, device=device), torch.tensor([0, 1], device=device)
    out = norm(grad, x + 1e4, r - 1e4, scale, rows, EPS, True, 1, 3, "grid").double()
    assert (out.sum(-1).abs() <= 1e-6 * out.abs().sum(-1)).all()


@given(st.integers(1, 9), st.floats(0.01, 100), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_completeness(size, spread, centre, seed):
    generator = torch.Generator().manual_seed(seed)
    grad, x, r = (torch.randn(1, size, dtype=torch.float64, generator=generator) for _ in range(3))
    r, scale = r * spread, torch.rand(1, size, dtype=torch.float64, generator=generator)
    m = norm(grad.unsqueeze(0), x, r, scale, torch.tensor([0]), EPS, centre, 1, 1, "grid")[0]
    function = F.layer_norm if centre else F.rms_norm
    terms = grad * scale * (function(x, [size], eps=EPS) - function(r, [size], eps=EPS))
    assert abs((m * (x - r)).sum() - terms.sum()) < 1e-11 * (1 + terms.abs().sum() + (m * (x - r)).abs().sum())


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty(shape, dtype, device):
    cotangents, batch, inner = shape
    x, r = torch.randn(batch, inner, device=device, dtype=dtype), torch.randn(2, inner, device=device, dtype=dtype)
    rows = torch.zeros(cotangents, dtype=torch.int64, device=device)
    grad, scale = torch.randn(shape, device=device, dtype=dtype), torch.ones(1, 4, device=device, dtype=wide(dtype))
    assert norm(grad, x, r, scale, rows, EPS, True, 1, max(batch, 1), "grid").shape == shape


def test_vmap_is_the_loop(case, device):
    for groups, size in sizes(case):
        grad, x, r, scale, rows = operands(case, torch.float32, device, groups, size)

        def op(g, row, x=x, r=r, scale=scale):
            return norm(g.unsqueeze(0), x, r, scale, row.unsqueeze(0), EPS, True, *case.geometry).squeeze(0)

        expected = torch.stack([op(g, row) for g, row in zip(grad, rows, strict=True)])
        torch.testing.assert_close(torch.func.vmap(op)(grad, rows), expected, rtol=0, atol=0)


def test_opcheck(case, device):
    groups, size = sizes(case)[0]
    arguments = (*operands(case, torch.float32, device, groups, size), EPS, True, *case.geometry)
    opcheck(torch.ops.deepshap_ext.norm.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_opcheck_compiled():
    grad, x, r = (torch.randn(*shape, 4, dtype=torch.float64) for shape in ((2, 3), (3,), (2,)))
    scale, rows = torch.rand(1, 4, dtype=torch.float64), torch.tensor([0, 1])
    opcheck(torch.ops.deepshap_ext.norm.default, (grad, x, r, scale, rows, EPS, False, 1, 3, "grid"))


GOOD = {
    "grad": torch.zeros(2, 3, 4),
    "x": torch.zeros(3, 4),
    "r": torch.zeros(2, 4),
    "scale": torch.ones(1, 4),
    "rows": torch.tensor([0, 1]),
    "eps": EPS,
    "centre": True,
    "outer": 1,
    "batch": 3,
    "pairing": "grid",
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"grad": torch.zeros(3, 4)},
            r"norm: grad must have shape \[V, \*x.shape\], got \[3, 4\] for x of shape \[3, 4\]",
        ),
        ({"x": torch.zeros(3, 4).double()}, "norm: x must have the type of grad, Float, got Double"),
        ({"scale": torch.ones(1, 4).double()}, "norm: scale must be Float for grad of type Float, got Double"),
        ({"scale": torch.ones(4)}, r"norm: scale must have shape \[groups, elements of a line\], got \[4\]"),
        (
            {"scale": torch.ones(1, 12)},
            r"norm: lines of 12 elements must not run across rows of the batch, got x of shape \[3, 4\] with "
            "outer = 1 and batch = 3",
        ),
        ({"scale": torch.ones(2, 4)}, "norm: the 3 lines of x must be a multiple of scale's 2 groups"),
        ({"rows": torch.tensor([0, 2])}, r"norm: rows must lie in \[0, 2\), got 2 at 1"),
        ({"pairing": "aligned"}, "norm: r must have the 3 rows of x in pairing 'aligned', got 2"),
    ],
)
def test_errors(changed, message):
    norm(**GOOD)
    with pytest.raises(ValueError, match=message):
        norm(**(GOOD | changed))
