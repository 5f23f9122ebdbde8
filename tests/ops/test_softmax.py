"""The rules of softmax and log-softmax."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ops as oracle
from torch.library import opcheck

from deepshap_ext.ops import softmax


def log_probabilities(dim, *shape, dtype=torch.float64):
    return torch.log_softmax(torch.randn(*shape, dtype=torch.float64) * 2, dim).to(dtype)


def batch_dimension(case):
    one, two = case.shape(case.batch), case.shape(case.batch + 1)
    return next(d for d, (a, b) in enumerate(zip(one, two, strict=True)) if a != b)


def dims(case):
    """Every dimension but the batch; a vector without one is left out."""
    return [d for d in range(len(case.shape(1))) if d != batch_dimension(case)]


def operands(case, dtype, device, dim, layout=None, outputs=2):
    x = log_probabilities(dim, *case.shape(case.batch), dtype=dtype)
    r = log_probabilities(dim, *case.shape(case.reference_rows), dtype=dtype)
    rows = case.rows(outputs)
    grad = torch.randn(len(rows), *x.shape, dtype=torch.float64).to(dtype)
    grad, x, r, rows = (t.to(device) for t in (grad, x, r, rows))
    if layout is not None:
        grad, x, r = layout[0](grad, 1), layout[1](x, 0), layout[1](r, 0)
    return grad, x, r, rows


@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])
def test_oracle(log, case, dtype, device, assert_close):
    for dim in dims(case):
        grad, x, r, rows = operands(case, dtype, device, dim)
        expected = oracle.softmax(grad.cpu(), x.cpu(), r.cpu(), rows.cpu(), dim, log, *case.geometry)
        out = softmax(grad, x, r, rows, dim, log, *case.geometry)
        assert out.dtype == dtype
        assert_close(out, expected, dtype, factor=16)


@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])
def test_layouts(log, case, layout, device, assert_close):
    for dim in dims(case):
        grad, x, r, rows = operands(case, torch.float32, device, dim, layout)
        expected = oracle.softmax(grad.cpu(), x.cpu(), r.cpu(), rows.cpu(), dim, log, *case.geometry)
        assert_close(softmax(grad, x, r, rows, dim - x.dim(), log, *case.geometry), expected, torch.float32, factor=16)


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1023, 5000])
@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])
def test_long_lines(size, log, dtype, device, assert_close):
    for shape, dim in (((2, size), 1), ((2, size, 3), 1)):
        x, r = (log_probabilities(dim, *shape, dtype=dtype).to(device) for _ in range(2))
        grad, rows = torch.randn(3, *shape, device=device).to(dtype), torch.tensor([0, 1, 1], device=device)
        expected = oracle.softmax(grad.cpu(), x.cpu(), r.cpu(), rows.cpu(), dim, log, 1, 2, "grid")
        assert_close(softmax(grad, x, r, rows, dim, log, 1, 2, "grid"), expected, dtype, factor=16)


def test_long_lines_of_float_lose_nothing(device):
    """grad = 1: softmax's sums cancel completely, log-softmax's add up 200,000 ones."""
    x, r = (log_probabilities(1, 1, 200_000, dtype=torch.float32).to(device) for _ in range(2))
    grad, rows = torch.ones(1, 1, 200_000, device=device), torch.tensor([0], device=device)
    assert softmax(grad, x, r, rows, 1, False, 1, 1, "grid").abs().max() <= 1e-6 * x.exp().max()
    out = softmax(grad, x, r, rows, 1, True, 1, 1, "grid")
    assert abs(out.double().sum()) < 1e-6 * 200_000


@given(st.integers(2, 9), st.floats(0.01, 50), st.integers(0, 2**31))
@settings(max_examples=100, deadline=None)
def test_completeness(size, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(1, size, dtype=torch.float64, generator=generator) * spread for _ in range(2))
    grad = torch.randn(1, 1, size, dtype=torch.float64, generator=generator)
    x, r, rows = torch.log_softmax(a, 1), torch.log_softmax(b, 1), torch.tensor([0])
    for log, values in ((False, (x.exp(), r.exp())), (True, (x, r))):
        m = softmax(grad, x, r, rows, 1, log, 1, 1, "grid")[0]
        expected = (grad[0] * (values[0] - values[1])).sum()
        scale = 1 + (grad[0] * (values[0] - values[1])).abs().sum() + (m * (a - b)).abs().sum()
        assert abs((m * (a - b)).sum() - expected) < 1e-12 * scale
        assert abs((m * (a - b + 1e3)).sum() - (m * (a - b)).sum()) < 1e-10 * scale  # blind to a shift


@pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])
@pytest.mark.parametrize("dim", [1, 2])
def test_disjoint_supports_and_masks(log, dim, dtype, device):
    masked = -float("inf")
    x = torch.tensor([[0.0, masked, masked, masked], [-0.6875, -0.6875, masked, masked]])
    r = torch.tensor([[masked, 0.0, masked, masked]])
    x, r = (t.unsqueeze(2 if dim == 1 else 1).expand(-1, *((4, 3) if dim == 1 else (3, 4))) for t in (x, r))
    x, r = x.to(device, dtype), r.to(device, dtype)
    rows = torch.tensor([0], device=device)
    out = softmax(torch.ones(1, *x.shape, device=device, dtype=dtype), x, r, rows, dim, log, 1, 2, "grid")
    assert out.isfinite().all()
    assert (out[0, 0] == 0).all()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty(shape, dtype, device):
    cotangents, batch, inner = shape
    x, r = torch.randn(batch, inner, device=device, dtype=dtype), torch.randn(2, inner, device=device, dtype=dtype)
    rows = torch.zeros(cotangents, dtype=torch.int64, device=device)
    grad = torch.randn(shape, device=device, dtype=dtype)
    assert softmax(grad, x, r, rows, 1, False, 1, max(batch, 1), "grid").shape == shape


def test_vmap_is_the_loop(case, device):
    for dim in dims(case):
        grad, x, r, rows = operands(case, torch.float32, device, dim)

        def op(g, row, x=x, r=r, dim=dim):
            return softmax(g.unsqueeze(0), x, r, row.unsqueeze(0), dim, False, *case.geometry).squeeze(0)

        expected = torch.stack([op(g, row) for g, row in zip(grad, rows, strict=True)])
        torch.testing.assert_close(torch.func.vmap(op)(grad, rows), expected, rtol=0, atol=0)


def test_opcheck(case, device):
    for dim in dims(case)[:1]:
        arguments = (*operands(case, torch.float32, device, dim), dim, False, *case.geometry)
        opcheck(torch.ops.deepshap_ext.softmax.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_opcheck_compiled():
    x, r = log_probabilities(1, 3, 4), log_probabilities(1, 2, 4)
    grad, rows = torch.randn(2, 3, 4, dtype=torch.float64), torch.tensor([0, 1])
    opcheck(torch.ops.deepshap_ext.softmax.default, (grad, x, r, rows, 1, True, 1, 3, "grid"))


GOOD = {
    "grad": torch.zeros(2, 3, 4),
    "x": torch.zeros(3, 4),
    "r": torch.zeros(2, 4),
    "rows": torch.tensor([0, 1]),
    "dim": 1,
    "log": False,
    "outer": 1,
    "batch": 3,
    "pairing": "grid",
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"grad": torch.zeros(3, 4)},
            r"softmax: grad must have shape \[V, \*x.shape\], got \[3, 4\] for x of shape \[3, 4\]",
        ),
        ({"r": torch.zeros(2, 4).double()}, "softmax: r must have the type of grad, Float, got Double"),
        ({"dim": 2}, r"softmax: dim must lie in \[-2, 2\), got 2"),
        ({"dim": 0}, r"softmax: dim must not be the batch dimension, got dim = 0 for x of shape \[3, 4\]"),
        ({"rows": torch.tensor([0, 2])}, r"softmax: rows must lie in \[0, 2\), got 2 at 1"),
        ({"pairing": "aligned"}, "softmax: r must have the 3 rows of x in pairing 'aligned', got 2"),
    ],
)
def test_errors(changed, message):
    softmax(**GOOD)
    with pytest.raises(ValueError, match=message):
        softmax(**(GOOD | changed))
