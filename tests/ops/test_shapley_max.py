"""The exact Shapley multipliers of a maximum."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.ops import paired
from reference.shapley import shapley_of_max, shapley_values
from torch.library import opcheck

from deepshap_ext.ops import shapley_max

INF = float("inf")


@pytest.fixture
def windows(case):
    """The geometries that have something to take a maximum over."""
    if len(case.shape(1)) == 1:
        pytest.skip("the batch is the only dimension")
    return case


def operands(case, dtype, device, layout=None, outputs=2):
    x, r = (torch.randn(*case.shape(n), dtype=torch.float64).to(dtype) for n in (case.batch, case.reference_rows))
    rows = case.rows(outputs)
    grad = torch.randn(len(rows), *x.shape[:-1], dtype=torch.float64).to(dtype)
    grad, x, r, rows = (t.to(device) for t in (grad, x, r, rows))
    if layout is not None:
        grad, x, r = layout[0](grad, 1), layout[1](x, 0), layout[1](r, 0)
    return grad, x, r, rows


def exact(x, r):
    """The Shapley values by brute force where the coalitions can be counted, otherwise by thresholds."""
    if x.shape[-1] > 8:
        return shapley_of_max(x, r)
    worth = shapley_values(lambda players: players.amax(1), x.movedim(-1, 0), r.movedim(-1, 0))
    return worth.movedim(0, -1)


def expected_of(grad, x, r, rows, outer, batch, pairing):
    grad, x, r, rows = grad.double().cpu(), x.double().cpu(), r.double().cpu(), rows.cpu()
    out = []
    for g, row in zip(grad, rows.tolist(), strict=True):
        other = paired(x, r, row, outer, batch, pairing)
        distance = torch.where(x == other, torch.ones_like(x), x - other)
        out.append(g.unsqueeze(-1) * exact(x, other) / distance)
    return torch.stack(out)


def multipliers(x, r, dtype=torch.float64, device="cpu"):
    """Of one window, or of windows [..., n], with grad = 1."""
    x, r = (torch.as_tensor(side, dtype=torch.float64).to(device, dtype) for side in (x, r))
    x, r = x.reshape(-1, x.shape[-1]), r.reshape(-1, r.shape[-1])
    grad, rows = torch.ones(1, len(x), dtype=dtype, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    return shapley_max(grad, x, r, rows, 1, len(x), "aligned")[0]


def test_oracle(windows, dtype, device, assert_close):
    arguments = operands(windows, dtype, device)
    out = shapley_max(*arguments, *windows.geometry)
    assert out.dtype == dtype
    assert_close(out, expected_of(*arguments, *windows.geometry), dtype)


def test_layouts(windows, layout, device, assert_close):
    arguments = operands(windows, torch.float32, device, layout)
    out = shapley_max(*arguments, *windows.geometry)
    assert_close(out, expected_of(*arguments, *windows.geometry), torch.float32)


@pytest.mark.parametrize("size", [1, 2, 31, 32, 33, 64, 65, 200])
@pytest.mark.parametrize("kind", ["random", "apart", "ties", "rising"])
def test_sizes(size, kind, dtype, device, assert_close):
    """`apart`: all entries above the floor, as many as can be, so that each has its part; `rising`: all in one direction."""
    x, r = torch.randn(2, 5, size, dtype=torch.float64)
    if kind == "apart":
        x, r = (torch.rand(5, size, dtype=torch.float64) for _ in range(2))
        flip = torch.rand(5, size) < 0.5
        x, r = torch.where(flip, x, -r), torch.where(flip, -r, x)
    elif kind == "ties":
        x, r = (torch.randint(-2, 3, (5, size)) for _ in range(2))
    elif kind == "rising":
        r = x - torch.rand(5, size)
    x, r = x.to(dtype), r.to(dtype)
    distance = torch.where(x == r, torch.ones(5, size), x - r).double()
    assert_close(multipliers(x, r, dtype, device), shapley_of_max(x, r) / distance, dtype)


def test_the_two_oracles_agree():
    x, r = torch.randn(2, 20, 7, dtype=torch.float64)
    x[:, 3] = r[:, 5]
    brute = shapley_values(lambda players: players.amax(1), x.T, r.T).T
    torch.testing.assert_close(shapley_of_max(x, r), brute, rtol=0, atol=1e-14)


@given(st.integers(1, 3000), st.sampled_from([1e-300, 1e-3, 1.0, 1e300]), st.booleans(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_complete_bounded_antisymmetric(size, scale, apart, seed):
    generator = torch.Generator().manual_seed(seed)
    x, r = torch.rand(2, 3, size, dtype=torch.float64, generator=generator)
    if apart:  # all entries above the floor: the weights underflow
        r = -r
        flip = torch.rand(3, size, generator=generator) < 0.5
        x, r = torch.where(flip, x, r), torch.where(flip, r, x)
    x, r = x * scale, r * scale
    m = multipliers(x, r)
    assert ((m >= 0) & (m <= 1)).all()
    phi = m * (x - r)
    gap = phi.sum(-1) - (x.amax(-1) - r.amax(-1))
    assert (gap.abs() <= 1e-12 * phi.abs().sum(-1) + 1e-15 * scale).all()
    assert torch.equal(multipliers(r, x), m)
    order = torch.randperm(size, generator=generator)
    torch.testing.assert_close(multipliers(x[:, order], r[:, order]), m[:, order], rtol=1e-13, atol=0)


def test_the_weights_of_thousands_do_not_overflow(dtype, device):
    """One that falls among 3999 that rise, all by 1: C(4000, 1) shares; and 2000 among 2000, whose C is no double."""
    for falling in (1, 2000):
        x, r = torch.ones(4000), torch.zeros(4000)
        x[:falling], r[:falling] = 0, 1
        m = multipliers(x, r, dtype, device)[0].double().cpu()
        up, down = m[falling:], m[:falling]
        assert m.isfinite().all()
        if falling == 1:
            rounding, smallest = max(torch.finfo(dtype).eps, 1e-12), torch.finfo(dtype).tiny
            torch.testing.assert_close(up, torch.full_like(up, 1 / 4000 / 3999), rtol=rounding, atol=smallest)
            torch.testing.assert_close(down, torch.full_like(down, 1 / 4000), rtol=rounding, atol=smallest)
        else:
            assert (m == 0).all()


@pytest.mark.parametrize(
    ("x", "r", "expected"),
    [
        ([1.0, -INF], [0.0, -INF], [1, 0]),  # padding
        ([-INF, -INF], [-INF, -INF], [0, 0]),
        ([3.0, 2.0], [2.0, 2.0], [1, 0]),  # no change: no part
        ([2.0, 2.0], [2.0, 2.0], [0, 0]),
        ([1.0, 2.0], [0.0, -INF], [0.5, 0]),  # its finite share over an infinite distance
        ([1.0], [-INF], [1]),
        ([1.0, -INF], [-INF, 5.0], [0.5, 0.5]),
        ([INF, 1.0], [0.0, 0.0], [1, 0.5]),
        ([INF, INF], [0.0, 1.0], [0.5, 0.5]),
        ([INF, INF], [INF, 1.0], [0, 0]),
        ([INF, 0.0], [-INF, 0.0], [0.5, 0]),
        ([INF, 0.0], [-INF, INF], [0.25, 0.5]),
        ([INF, 3.0], [-INF, -INF], [0.75, 0.5]),
    ],
)
def test_infinities(x, r, expected, dtype, device):
    for left, right in ((x, r), (r, x)):
        m = multipliers(left, right, dtype, device)
        assert m.tolist() == [expected]
    # The limit of a number that grows.
    big = torch.tensor([x, r], dtype=torch.float64).clamp(-1e12, 1e12)
    if all(a != b or abs(a) < INF for a, b in zip(x, r, strict=True)):
        torch.testing.assert_close(multipliers(*big), torch.tensor([expected]).double(), rtol=0, atol=1e-9)


def test_the_ends_of_the_range(dtype, device):
    largest, smallest = torch.finfo(dtype).max, torch.finfo(dtype).smallest_normal
    assert multipliers([largest, 0], [-largest, 0], dtype, device).tolist() == [[0.5, 0]]
    assert multipliers([largest, -largest], [-largest, largest], dtype, device).tolist() == [[0.5, 0.5]]
    assert multipliers([smallest, 0], [0, smallest], dtype, device).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("size", [3, 40, 100])
def test_nan_is_the_windows_own(size, dtype, device):
    x, r = torch.randn(2, 4, size)
    x[1, 1], r[2, 0] = float("nan"), float("nan")
    m = multipliers(x, r, dtype, device)
    assert m[1:3].isnan().all()
    assert m[[0, 3]].isfinite().all()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty(shape, dtype, device):
    cotangents, batch, inner = shape
    x, r = torch.randn(batch, inner, device=device, dtype=dtype), torch.randn(2, inner, device=device, dtype=dtype)
    rows = torch.zeros(cotangents, dtype=torch.int64, device=device)
    grad = torch.randn(shape[:2], device=device, dtype=dtype)
    assert shapley_max(grad, x, r, rows, 1, max(batch, 1), "grid").shape == shape


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_cuda_refuses_what_its_memory_cannot_hold():
    with pytest.raises(ValueError, match="shapley_max: on CUDA x must have at most 4096 entries in its last dimension"):
        multipliers(torch.randn(1, 4097), torch.randn(1, 4097), device="cuda")


def test_vmap_is_the_loop(windows, device):
    grad, x, r, rows = operands(windows, torch.float32, device)

    def op(g, row):
        return shapley_max(g.unsqueeze(0), x, r, row.unsqueeze(0), *windows.geometry).squeeze(0)

    expected = torch.stack([op(g, row) for g, row in zip(grad, rows, strict=True)])
    torch.testing.assert_close(torch.func.vmap(op)(grad, rows), expected, rtol=0, atol=0)


def test_opcheck(windows, device):
    arguments = (*operands(windows, torch.float32, device), *windows.geometry)
    opcheck(torch.ops.deepshap_ext.shapley_max.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_opcheck_compiled():
    x, r = torch.randn(3, 4), torch.randn(2, 4)
    grad, rows = torch.randn(2, 3), torch.tensor([0, 1])
    opcheck(torch.ops.deepshap_ext.shapley_max.default, (grad, x, r, rows, 1, 3, "grid"))


GOOD = {
    "grad": torch.zeros(2, 3),
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
            {"grad": torch.zeros(2, 3, 4)},
            r"shapley_max: grad must have shape \[V, \*x.shape\[:-1\]\], got \[2, 3, 4\] for windows of shape \[3\]",
        ),
        ({"r": torch.zeros(2, 4).double()}, "shapley_max: r must have the type of grad, Float, got Double"),
        (
            {"x": torch.zeros(()), "grad": torch.zeros(2)},
            r"shapley_max: x must have a dimension to take the maximum over, got shape \[\]",
        ),
        (
            {"outer": 3, "batch": 4, "r": torch.zeros(3, 2)},
            r"shapley_max: the batch must lie outside of the last dimension of x, got outer = 3 and batch = 4 for x of shape",
        ),
        ({"rows": torch.tensor([0, 2])}, r"shapley_max: rows must lie in \[0, 2\), got 2 at 1"),
        ({"pairing": "aligned"}, "shapley_max: r must have the 3 rows of x in pairing 'aligned', got 2"),
    ],
)
def test_errors(changed, message):
    shapley_max(**GOOD)
    with pytest.raises(ValueError, match=message):
        shapley_max(**(GOOD | changed))
