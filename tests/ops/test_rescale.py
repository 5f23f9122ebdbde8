"""The rescale operation: multipliers times the divided difference of an elementwise function."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ops as oracle
from reference.divided_differences import ORACLES, adversarial_pairs, divided_difference, error_in_ulp
from torch import Tensor
from torch.library import opcheck

from deepshap_ext import _C
from deepshap_ext.ops import rescale

FUNCTIONS: dict[str, tuple[list[float], Callable[[Tensor], Tensor]]] = {
    "relu": ([], torch.relu),
    "leaky_relu": ([0.125], lambda x: torch.nn.functional.leaky_relu(x, 0.125)),
    "tanh": ([], torch.tanh),
}

# Parameters for the functions that take some, and where the arguments of those with a restricted domain lie.
PARAMETERS = {1: [0.5], 2: [-0.5, 0.75], 3: [1.0, 1.0, 1.0]}


def operands(case, dtype, device, layout=None, outputs=2):
    x = torch.randn(case.shape(case.batch), dtype=torch.float64).to(device, dtype)
    r = torch.randn(case.shape(case.reference_rows), dtype=torch.float64).to(device, dtype)
    if r.numel() == x.numel():
        r.flatten()[::3] = x.flatten()[::3]  # equal sides: the derivative
    rows = case.rows(outputs).to(device)
    grad = torch.randn(len(rows), *x.shape, dtype=torch.float64).to(device, dtype)
    if layout is not None:
        grad, x, r = layout[0](grad, 1), layout[1](x, 0), layout[1](r, 0)
    return grad, x, r, rows


@pytest.mark.parametrize("function", FUNCTIONS)
def test_oracle(function, case, dtype, device, assert_close):
    parameters, f = FUNCTIONS[function]
    grad, x, r, rows = operands(case, dtype, device)
    expected = oracle.rescale(grad.cpu(), x.cpu(), r.cpu(), rows, oracle.divided_difference(f), *case.geometry)
    out = rescale(grad, x, r, rows, function, parameters, *case.geometry)
    assert out.dtype == dtype
    assert_close(out, expected, dtype, factor=16 if function == "tanh" else 4)


def test_layouts(case, layout, device, assert_close):
    grad, x, r, rows = operands(case, torch.float32, device, layout)
    expected = oracle.rescale(grad.cpu(), x.cpu(), r.cpu(), rows, oracle.divided_difference(torch.relu), *case.geometry)
    out = rescale(grad, x, r, rows, "relu", [], *case.geometry)
    assert_close(out, expected, torch.float32)


def test_channels_last_stays(device):
    grad = torch.randn(5, 2, 3, 4, 6, device=device).movedim(2, -1).contiguous().movedim(-1, 2)
    x = torch.randn(2, 3, 4, 6, device=device).contiguous(memory_format=torch.channels_last)
    rows = torch.zeros(5, dtype=torch.int64, device=device)
    assert rescale(grad, x, x, rows, "relu", [], 1, 2, "aligned").stride() == grad.stride()


def test_expanded_grad(device, assert_close):
    grad = torch.randn(4, 1, 1, device=device).expand(4, 3, 7)
    x, r = torch.randn(3, 7, device=device), torch.randn(2, 7, device=device)
    rows = torch.tensor([0, 0, 1, 1], device=device)
    expected = oracle.rescale(grad.cpu(), x.cpu(), r.cpu(), rows, oracle.divided_difference(torch.relu), 1, 3, "grid")
    assert_close(rescale(grad, x, r, rows, "relu", [], 1, 3, "grid"), expected, torch.float32)


# In float32 these are evaluated a side, which rounds otherwise than the formula for pairs.
BY_SIDES = set("gelu gelu_tanh silu mish sigmoid tanh softplus logsigmoid elu exp expm1".split())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("function", sorted(_C.elementwise_functions()))
def test_every_function_is_the_formula_of_math(function, dtype):
    parameters = PARAMETERS.get(_C.elementwise_functions()[function], [])
    x = torch.rand(3, 100, dtype=dtype) * 4 + 0.01
    r = torch.rand(3, 100, dtype=dtype) * 4 + 0.01
    if function not in {"log", "sqrt", "rsqrt", "reciprocal", "pow", "log1p"}:
        x, r = x - 2, r - 2
    r[:, ::4] = x[:, ::4]
    out = rescale(torch.ones(1, 3, 100, dtype=dtype), x, r, torch.tensor([0]), function, parameters, 1, 3, "aligned")
    expected = _C.divided_difference(function, x.numpy(), r.numpy(), parameters)
    if dtype == torch.float32 and function in BY_SIDES:
        np.testing.assert_allclose(out[0].numpy(), expected, rtol=1e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(out[0].numpy(), expected)


@pytest.mark.parametrize("function", sorted(_C.elementwise_functions()))
def test_float32_against_mpmath(function, device):
    # Floats have shorter ways to the same numbers: by themselves, beside pairs that need the long one, and next to each other.
    for parameters in ORACLES[function].parameters:
        pairs = adversarial_pairs(function, parameters, np.float32, 300, seed=3)
        x, r = torch.from_numpy(pairs.T.copy()).to(device)
        rows = torch.tensor([0], device=device)
        found = rescale(torch.ones(1, len(x), device=device), x, r, rows, function, parameters, 1, 1, "aligned")[0]
        for (one, other), m in zip(pairs.tolist(), found.tolist(), strict=True):
            exact, size = divided_difference(function, one, other, parameters, np.float32)
            error = error_in_ulp(m, exact, size, np.float32)
            assert error <= ORACLES[function].float32_bar, (
                f"{function}{parameters}[{one!r}, {other!r}] = {m!r}: {error} ulp"
            )
        close = x.abs() < 1e3
        apart = torch.nextafter(x[close] * 1.0001, x.new_tensor(torch.inf))
        ones = torch.ones(1, len(apart), device=device)
        near = rescale(ones, x[close], apart, rows, function, parameters, 1, 1, "aligned")[0]
        for one, other, m in zip(x[close].tolist(), apart.tolist(), near.tolist(), strict=True):
            if ORACLES[function].domain(other, *ORACLES[function].rounded(parameters, np.float32)):
                exact, size = divided_difference(function, one, other, parameters, np.float32)
                assert error_in_ulp(m, exact, size, np.float32) <= ORACLES[function].float32_bar, (one, other)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty(shape, dtype, device):
    cotangents, batch, inner = shape
    x = torch.randn(batch, inner, device=device, dtype=dtype)
    r = torch.randn(2, inner, device=device, dtype=dtype)
    rows = torch.zeros(cotangents, dtype=torch.int64, device=device)
    grad = torch.randn(shape, device=device, dtype=dtype)
    assert rescale(grad, x, r, rows, "relu", [], 1, max(batch, 1), "grid").shape == shape


def test_scalar(device):
    x, r = torch.tensor(2.0, device=device), torch.tensor(-2.0, device=device)
    rows = torch.zeros(1, dtype=torch.int64, device=device)
    out = rescale(torch.ones(1, device=device), x, r, rows, "relu", [], 1, 1, "aligned")
    assert out.tolist() == [0.5]


@pytest.mark.parametrize("dims", [(0, 0), (2, 0), (None, 0), (1, None)])
def test_vmap_is_the_loop(dims, case, device):
    grad, x, r, rows = operands(case, torch.float32, device)
    n = len(rows)
    grad = grad.unsqueeze(1) if dims[0] is not None else grad[:1]
    rows = rows.unsqueeze(1) if dims[1] is not None else rows[:1]

    def op(g, row):
        return rescale(g, x, r, row, "relu", [], *case.geometry)

    expected = torch.stack(
        [op(grad[i] if dims[0] is not None else grad, rows[i] if dims[1] is not None else rows) for i in range(n)]
    )
    moved = grad.movedim(0, min(dims[0], grad.dim() - 1)) if dims[0] is not None else grad
    in_dims = (None if dims[0] is None else min(dims[0], grad.dim() - 1), dims[1])
    torch.testing.assert_close(torch.func.vmap(op, in_dims)(moved, rows), expected, rtol=0, atol=0)


def test_nested_vmap(device):
    grad, rows = torch.randn(2, 3, 4, 7, device=device), torch.tensor([1, 0], device=device)
    x, r = torch.randn(4, 7, device=device), torch.randn(2, 7, device=device)

    def op(g, row):
        return rescale(g.unsqueeze(0), x, r, row.unsqueeze(0), "relu", [], 1, 4, "grid").squeeze(0)

    out = torch.func.vmap(torch.func.vmap(op, (0, None)), (0, 0))(grad, rows)
    expected = torch.stack([torch.stack([op(g, row) for g in part]) for part, row in zip(grad, rows, strict=True)])
    torch.testing.assert_close(out, expected, rtol=0, atol=0)


def test_vmap_over_an_operand_is_refused():
    x, r = torch.randn(5, 4, 7), torch.randn(2, 7)
    grad, rows = torch.randn(1, 4, 7), torch.tensor([0])
    with pytest.raises(ValueError, match="rescale: vmap goes over grad and rows only, but x is batched in dimension 0"):
        torch.func.vmap(lambda one: rescale(grad, one, r, rows, "relu", [], 1, 4, "grid"))(x)


def test_opcheck(case, layout, device):
    grad, x, r, rows = operands(case, torch.float32, device, layout)
    arguments = (grad, x, r, rows, "relu", [], *case.geometry)
    opcheck(torch.ops.deepshap_ext.rescale.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_opcheck_compiled():
    grad, x, r = torch.randn(2, 3, 4), torch.randn(3, 4), torch.randn(2, 4)
    opcheck(torch.ops.deepshap_ext.rescale.default, (grad, x, r, torch.tensor([0, 1]), "relu", [], 1, 3, "grid"))


GOOD = {
    "grad": torch.zeros(2, 3, 4),
    "x": torch.zeros(3, 4),
    "r": torch.zeros(2, 4),
    "rows": torch.tensor([0, 1]),
    "function": "relu",
    "parameters": [],
    "outer": 1,
    "batch": 3,
    "pairing": "grid",
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"grad": torch.zeros(3, 4)},
            r"rescale: grad must have shape \[V, \*x.shape\], got \[3, 4\] for x of shape \[3, 4\]",
        ),
        ({"grad": torch.zeros(2, 4, 3)}, r"rescale: grad must have shape .*, got \[2, 4, 3\] for x of shape \[3, 4\]"),
        ({"grad": torch.zeros(2, 3, 4, dtype=torch.int32)}, "rescale: grad must be float32, .* got Int"),
        ({"x": torch.zeros(3, 4, dtype=torch.float64)}, "rescale: x must have the type of grad, Float, got Double"),
        ({"r": torch.zeros(2, 4).half()}, "rescale: r must have the type of grad, Float, got Half"),
        ({"r": torch.zeros(2, 5)}, r"rescale: r must have the shape of x but for the batch dimension, got \[2, 5\]"),
        ({"r": torch.zeros(4)}, r"rescale: r must have the shape of x but for the batch dimension, got \[4\]"),
        ({"rows": torch.tensor([0, 1, 1])}, r"rescale: rows must have shape \[V\] = \[2\], got \[3\]"),
        ({"rows": torch.tensor([0, 1], dtype=torch.int32)}, "rescale: rows must be int64, got Int"),
        ({"rows": torch.tensor([0, 2])}, r"rescale: rows must lie in \[0, 2\), got 2 at 1"),
        ({"rows": torch.tensor([-1, 0])}, r"rescale: rows must lie in \[0, 2\), got -1 at 0"),
        ({"function": "rely"}, "rescale: function must be one of relu, .*, got 'rely'"),
        ({"parameters": [1.0]}, "rescale: function 'relu' takes 0 parameters, got 1"),
        ({"outer": 5}, r"rescale: x must have outer \* batch \* inner elements for outer = 5 and batch = 3, got shape"),
        ({"batch": 0}, "rescale: outer and batch must be at least 1, got 1 and 0"),
        ({"pairing": "each"}, "rescale: pairing must be 'grid', 'aligned' or 'per_sample', got 'each'"),
        ({"pairing": "aligned"}, "rescale: r must have the 3 rows of x in pairing 'aligned', got 2"),
        (
            {"pairing": "per_sample"},
            "rescale: r must have the same number of rows for each of the 3 rows of x .*, got 2",
        ),
    ],
)
def test_errors(changed, message):
    rescale(**GOOD)
    with pytest.raises(ValueError, match=message):
        rescale(**(GOOD | changed))


def test_row_values_are_not_read_when_aligned():
    x = torch.randn(3, 4)
    rescale(torch.randn(1, 3, 4), x, x, torch.tensor([7]), "relu", [], 1, 3, "aligned")


@given(
    outer=st.integers(1, 3),
    batch=st.integers(1, 4),
    inner=st.integers(1, 40),
    baselines=st.integers(1, 3),
    outputs=st.integers(1, 3),
    pairing=st.sampled_from(["grid", "aligned", "per_sample"]),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_any_geometry_in_any_order(outer, batch, inner, baselines, outputs, pairing, data):
    count = {"grid": baselines, "aligned": batch, "per_sample": batch * baselines}[pairing]
    order = data.draw(st.permutations([1, 2, 3]))
    back = [0, *(1 + order.index(d) for d in (1, 2, 3))]

    def permuted(tensor):
        return tensor.permute(0, *order).contiguous().permute(back)

    x, r = permuted(torch.randn(1, outer, batch, inner))[0], permuted(torch.randn(1, outer, count, inner))[0]
    rows = torch.arange(1 if pairing == "aligned" else baselines).repeat_interleave(outputs)
    grad = permuted(torch.randn(len(rows), outer, batch, inner))
    expected = oracle.rescale(grad, x, r, rows, oracle.divided_difference(torch.relu), outer, batch, pairing)
    out = rescale(grad, x, r, rows, "relu", [], outer, batch, pairing)
    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
