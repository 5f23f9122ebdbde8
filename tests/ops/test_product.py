"""The rule of products: each factor is multiplied by the mean of the other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ops as oracle
from torch.library import opcheck

from deepshap_ext.ops import product


def operands(case, dtype, device, layout=None, outputs=2):
    def make(*shape):
        return torch.randn(*shape, dtype=torch.float64).to(device, dtype)

    sides = [make(*case.shape(n)) for n in (case.batch, case.reference_rows, case.batch, case.reference_rows)]
    rows = case.rows(outputs).to(device)
    grad = make(len(rows), *sides[0].shape)
    if layout is not None:
        grad, sides = layout[0](grad, 1), [layout[1](side, 0) for side in sides]
    return grad, *sides, rows


def check(arguments, case, dtype, assert_close):
    expected = oracle.product(*[tensor.cpu() for tensor in arguments], *case.geometry)
    for out, one in zip(product(*arguments, *case.geometry), expected, strict=True):
        assert out.dtype == dtype
        assert_close(out, one, dtype)


def test_oracle(case, dtype, device, assert_close):
    check(operands(case, dtype, device), case, dtype, assert_close)


def test_layouts(case, layout, device, assert_close):
    check(operands(case, torch.float32, device, layout), case, torch.float32, assert_close)


def test_expanded_factors(device, assert_close):
    """A broadcast factor comes with strides of 0."""
    grad = torch.randn(4, 3, 5, 7, device=device)
    a_x, a_r = torch.randn(3, 5, 7, device=device), torch.randn(2, 5, 7, device=device)
    b_x, b_r = torch.randn(3, 5, 1, device=device).expand(3, 5, 7), torch.randn(5, 1, device=device).expand(2, 5, 7)
    arguments = (grad, a_x, a_r, b_x, b_r, torch.tensor([0, 0, 1, 1], device=device), 1, 3, "grid")
    expected = oracle.product(*[a.cpu() if isinstance(a, torch.Tensor) else a for a in arguments])
    for out, one in zip(product(*arguments), expected, strict=True):
        assert_close(out, one, torch.float32)


@given(st.floats(allow_nan=False, width=32), st.floats(allow_nan=False, width=32))
@settings(max_examples=200, deadline=None)
def test_the_mean_does_not_overflow(one, other):
    x, r = torch.tensor([[one]]), torch.tensor([[other]])
    m_a, _ = product(torch.ones(1, 1, 1), x, r, x, r, torch.tensor([0]), 1, 1, "grid")
    expected = (x.double() + r.double()) / 2
    torch.testing.assert_close(m_a[0].double(), expected, rtol=1e-6, atol=1e-44, equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty(shape, dtype, device):
    cotangents, batch, inner = shape
    x = torch.randn(batch, inner, device=device, dtype=dtype)
    r = torch.randn(2, inner, device=device, dtype=dtype)
    rows = torch.zeros(cotangents, dtype=torch.int64, device=device)
    grad = torch.randn(shape, device=device, dtype=dtype)
    assert [out.shape for out in product(grad, x, r, x, r, rows, 1, max(batch, 1), "grid")] == [shape, shape]


def test_vmap_is_the_loop(case, device):
    grad, *sides, rows = operands(case, torch.float32, device)

    def op(g, row):
        outs = product(g.unsqueeze(0), *sides, row.unsqueeze(0), *case.geometry)
        return tuple(out.squeeze(0) for out in outs)

    expected = [op(g, row) for g, row in zip(grad, rows, strict=True)]
    for out, ones in zip(torch.func.vmap(op)(grad, rows), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(out, torch.stack(ones), rtol=0, atol=0)


def test_vmap_over_an_operand_is_refused():
    grad, a, rows = torch.randn(1, 3, 4), torch.randn(3, 4), torch.tensor([0])
    with pytest.raises(
        ValueError, match="product: vmap goes over grad and rows only, but b_r is batched in dimension 0"
    ):
        torch.func.vmap(lambda b_r: product(grad, a, a, a, b_r, rows, 1, 3, "grid"))(torch.randn(2, 3, 4))


def test_opcheck(case, layout, device):
    arguments = (*operands(case, torch.float32, device, layout), *case.geometry)
    opcheck(torch.ops.deepshap_ext.product.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_opcheck_compiled():
    grad, x, r = torch.randn(2, 3, 4), torch.randn(3, 4), torch.randn(2, 4)
    opcheck(torch.ops.deepshap_ext.product.default, (grad, x, r, x, r, torch.tensor([0, 1]), 1, 3, "grid"))


GOOD = {
    "grad": torch.zeros(2, 3, 4),
    "a_x": torch.zeros(3, 4),
    "a_r": torch.zeros(2, 4),
    "b_x": torch.zeros(3, 4),
    "b_r": torch.zeros(2, 4),
    "rows": torch.tensor([0, 1]),
    "outer": 1,
    "batch": 3,
    "pairing": "grid",
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"grad": torch.zeros(3, 4)},
            r"product: grad must have shape \[V, \*a_x.shape\], got \[3, 4\] for a_x of shape \[3, 4\]",
        ),
        ({"b_x": torch.zeros(3, 1)}, r"product: b_x must have the shape of a_x, \[3, 4\], got \[3, 1\]"),
        ({"b_r": torch.zeros(1, 4)}, r"product: b_r must have the shape of a_r, \[2, 4\], got \[1, 4\]"),
        (
            {"a_r": torch.zeros(2, 3), "b_r": torch.zeros(2, 3)},
            "product: a_r must have the shape of a_x but for the batch",
        ),
        ({"b_x": torch.zeros(3, 4).double()}, "product: b_x must have the type of grad, Float, got Double"),
        ({"rows": torch.tensor([0, 2])}, r"product: rows must lie in \[0, 2\), got 2 at 1"),
        ({"pairing": "aligned"}, "product: a_r must have the 3 rows of a_x in pairing 'aligned', got 2"),
    ],
)
def test_errors(changed, message):
    product(**GOOD)
    with pytest.raises(ValueError, match=message):
        product(**(GOOD | changed))
