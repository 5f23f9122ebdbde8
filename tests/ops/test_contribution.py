"""The contribution operation: means over the baselines of multipliers times differences, weighted or not."""

import pytest
import torch
from reference import ops as oracle
from torch.library import opcheck

from deepshap_ext.ops import contribution


def equal_weights(count, device="cpu"):
    return torch.ones(count, dtype=torch.float64, device=device)


def operands(case, dtype, device, layout=None, outputs=2):
    def make(*shape):
        return torch.randn(*shape, dtype=torch.float64).to(device, dtype)

    x, r = make(*case.shape(case.batch)), make(*case.shape(case.reference_rows))
    rows = case.rows(1).to(device)
    multipliers = make(len(rows), outputs, *x.shape)
    if layout is not None:
        multipliers, x, r = layout[0](multipliers, 2), layout[1](x, 0), layout[1](r, 0)
    weights = torch.rand(len(rows), dtype=torch.float64).mul(6).exp().to(device)  # 1 to 400
    return multipliers, x, r, rows, weights


def check(arguments, geometry, dtype, assert_close):
    expected = oracle.contribution(*[tensor.cpu() for tensor in arguments], *geometry)
    kept = torch.float64 if dtype == torch.float64 else torch.float32
    found = contribution(*arguments, *geometry, with_multipliers=True)
    for out, one in zip(found, expected, strict=True):
        assert out.dtype == kept
        assert_close(out, one, kept, factor=16)  # half types are only read
    mean, variance, mean_multipliers = contribution(*arguments, *geometry)
    assert torch.equal(mean, found[0]) and torch.equal(variance, found[1]) and mean_multipliers is None


def test_oracle(case, dtype, device, assert_close):
    check(operands(case, dtype, device), case.geometry, dtype, assert_close)


def test_layouts(case, layout, device, assert_close):
    check(operands(case, torch.float32, device, layout), case.geometry, torch.float32, assert_close)


@pytest.mark.parametrize("baselines", [1, 4, 5, 11])
def test_oracle_of_many_baselines(baselines, dtype, device, assert_close):
    """Kernels take several at a time, and what is left one by one; rows may come in any order."""
    multipliers, x, r = (
        torch.randn(*s, dtype=torch.float64).to(device, dtype) for s in ((baselines, 3, 4, 7), (4, 7), (2, 7))
    )
    rows = torch.randint(2, (baselines,), device=device)
    weights = torch.linspace(0.1, 3, baselines, dtype=torch.float64, device=device)
    check((multipliers, x, r, rows, weights), (1, 4, "grid"), dtype, assert_close)


@pytest.mark.parametrize("scale", [0.25, 3.0, 1e200])
def test_weights_count_relative_to_each_other(scale, device):
    multipliers, x, r = (torch.randn(*s, device=device) for s in ((5, 3, 4, 7), (4, 7), (2, 7)))
    rows, weights = torch.tensor([1, 0, 1, 1, 0], device=device), torch.rand(5, device=device).double() + 0.1
    expected = contribution(multipliers, x, r, rows, weights, 1, 4, "grid", with_multipliers=True)
    found = contribution(multipliers, x, r, rows, scale * weights, 1, 4, "grid", with_multipliers=True)
    torch.testing.assert_close(found, expected)


def test_a_weight_is_so_many_baselines(device):
    multipliers, x, r = (torch.randn(*s, dtype=torch.float64, device=device) for s in ((2, 3, 4, 7), (4, 7), (2, 7)))
    times = torch.tensor([2, 5], device=device)
    rows = torch.arange(2, device=device)
    repeated = (multipliers.repeat_interleave(times, 0), x, r, rows.repeat_interleave(times), equal_weights(7, device))
    torch.testing.assert_close(
        contribution(multipliers, x, r, rows, times.double(), 1, 4, "grid", with_multipliers=True),
        contribution(*repeated, 1, 4, "grid", with_multipliers=True),
    )


@pytest.mark.parametrize("heavy", [0, 1, 2])
def test_a_weight_beside_which_the_others_vanish(heavy, device):
    """Its values are the mean, to the last bit, and the variance is not negative."""
    multipliers = torch.randn(3, 2, 4, 7, dtype=torch.float64, device=device)
    x, r = torch.ones(4, 7, dtype=torch.float64, device=device), torch.zeros(1, 7, dtype=torch.float64, device=device)
    weights = equal_weights(3, device)
    weights[heavy] = 1e40
    rows = torch.zeros(3, dtype=torch.int64, device=device)
    mean, variance, mean_multipliers = contribution(multipliers, x, r, rows, weights, 1, 4, "grid", True)
    torch.testing.assert_close(mean, multipliers[heavy], rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(mean_multipliers, multipliers[heavy], rtol=1e-15, atol=1e-15)
    assert bool((variance >= 0).all()) and float(variance.max()) < 1e-30


def test_a_baseline_whose_square_overflows(device):
    multipliers = torch.full((1, 1, 1, 1), 1e200, dtype=torch.float64, device=device)
    x, r = torch.ones(1, 1, dtype=torch.float64, device=device), torch.zeros(1, 1, dtype=torch.float64, device=device)
    rows = torch.zeros(1, dtype=torch.int64, device=device)
    mean, variance, _ = contribution(multipliers, x, r, rows, equal_weights(1, device), 1, 1, "grid")
    assert mean.item() == 1e200 and variance.item() == 0


def test_a_small_spread_around_a_large_mean(device):
    """The sum of squares minus the square of the sum would lose it."""
    spread = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64, device=device)
    multipliers = (1e6 + spread).view(3, 1, 1, 1)
    x, r = torch.ones(1, 1, dtype=torch.float64, device=device), torch.zeros(1, 1, dtype=torch.float64, device=device)
    rows = torch.zeros(3, dtype=torch.int64, device=device)
    weights = equal_weights(3, device)
    mean, variance, _ = contribution(multipliers, x, r, rows, weights, 1, 1, "grid")
    torch.testing.assert_close(mean.item(), 1e6)
    torch.testing.assert_close(variance.item(), 2 / 3, rtol=1e-9, atol=0)
    _, variance, _ = contribution(multipliers.float(), x.float(), r.float(), rows, weights, 1, 1, "grid")
    torch.testing.assert_close(variance.item(), 2 / 3, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(2, 0, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0)])
def test_empty(shape, dtype, device):
    multipliers = torch.randn(shape, device=device, dtype=dtype)
    x, r = torch.randn(shape[2:], device=device, dtype=dtype), torch.randn(2, shape[3], device=device, dtype=dtype)
    rows = torch.zeros(2, dtype=torch.int64, device=device)
    outs = contribution(multipliers, x, r, rows, equal_weights(2, device), 1, max(shape[2], 1), "grid", True)
    assert [out.shape for out in outs if out is not None] == [shape[1:]] * 3


@pytest.mark.parametrize("with_multipliers", [False, True])
@pytest.mark.parametrize("in_dims", [(0, 0), (1, 0), (0, None), (2, None), (None, 0)])
def test_vmap_is_the_loop(in_dims, with_multipliers, device):
    n = 3
    multipliers = torch.randn(*([n] if in_dims[0] is not None else []), 2, 2, 4, 5, device=device)
    rows = torch.tensor([[0, 1], [1, 0], [1, 1]] if in_dims[1] is not None else [1, 0], device=device)
    x, r = torch.randn(4, 5, device=device), torch.randn(2, 5, device=device)

    weights = torch.tensor([1.0, 3.0], dtype=torch.float64, device=device)

    def op(m, row):
        outs = contribution(m, x, r, row, weights, 1, 4, "grid", with_multipliers)
        return tuple(out for out in outs if out is not None)

    expected = [
        op(multipliers[i] if in_dims[0] is not None else multipliers, rows[i] if in_dims[1] is not None else rows)
        for i in range(n)
    ]
    moved = multipliers if in_dims[0] is None else multipliers.movedim(0, in_dims[0])
    for out, ones in zip(torch.func.vmap(op, in_dims)(moved, rows), zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(out, torch.stack(ones), rtol=0, atol=0)


def test_vmap_over_weights_is_refused():
    def op(weights):
        return contribution(**(GOOD | {"weights": weights}))[0]

    with pytest.raises(
        ValueError, match="contribution: vmap goes over multipliers and rows only, but shares is batched in dimension 0"
    ):
        torch.func.vmap(op)(torch.ones(3, 2, dtype=torch.float64))


@pytest.mark.parametrize("with_multipliers", [False, True])
def test_opcheck(case, layout, with_multipliers, device):
    multipliers, x, r, rows, weights = operands(case, torch.float32, device, layout)
    arguments = (multipliers, x, r, weights / weights.cumsum(0), rows, *case.geometry, with_multipliers)
    opcheck(torch.ops.deepshap_ext.contribution.default, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("with_multipliers", [False, True])
def test_opcheck_compiled(with_multipliers):
    operands = (torch.randn(2, 2, 3, 4), torch.randn(3, 4), torch.randn(2, 4))
    shares, rows = torch.tensor([1.0, 0.5], dtype=torch.float64), torch.tensor([0, 1])
    opcheck(torch.ops.deepshap_ext.contribution.default, (*operands, shares, rows, 1, 3, "grid", with_multipliers))


GOOD = {
    "multipliers": torch.zeros(2, 5, 3, 4),
    "x": torch.zeros(3, 4),
    "r": torch.zeros(2, 4),
    "rows": torch.tensor([0, 1]),
    "weights": equal_weights(2),
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
        ({"weights": torch.ones(2)}, "contribution: shares must be float64, got Float"),
        ({"weights": equal_weights(1)}, r"contribution: shares must have shape \[J\] = \[2\], got \[1\]"),
        ({"weights": equal_weights(2).view(1, 2)}, r"contribution: shares must have shape \[J\] = \[2\], got \[1, 2\]"),
        ({"rows": torch.tensor([0.0, 1.0])}, "contribution: rows must be int64, got Float"),
        ({"rows": torch.tensor([0])}, r"contribution: rows must have shape \[J\] = \[2\], got \[1\]"),
        ({"rows": torch.tensor([0, 2])}, r"contribution: rows must lie in \[0, 2\), got 2 at 1"),
        ({"pairing": "aligned"}, "contribution: r must have the 3 rows of x in pairing 'aligned', got 2"),
    ],
)
def test_errors(changed, message):
    contribution(**GOOD)
    with pytest.raises(ValueError, match=message):
        contribution(**(GOOD | changed))
