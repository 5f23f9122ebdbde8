"""The rule of max-pooling: each window's difference goes to the larger side's maximum, and windows that overlap add."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from ops.layouts import channels_last, contiguous, leading_last, sliced
from reference import ops as oracle
from torch.library import opcheck

from deepshap_ext.ops import maxpool

# Every way to lay windows that gives indices.
POOLS = {
    "plain": (2, lambda t: F.max_pool2d(t, 2, return_indices=True)),
    "overlapping": (2, lambda t: F.max_pool2d(t, 3, stride=1, padding=1, return_indices=True)),
    "dilated_ceil": (2, lambda t: F.max_pool2d(t, 2, stride=2, dilation=2, ceil_mode=True, return_indices=True)),
    "adaptive": (2, lambda t: F.adaptive_max_pool2d(t, (3, 2), return_indices=True)),
    "fractional": (
        2,
        lambda t: F.fractional_max_pool2d(
            t,
            2,
            output_size=(3, 3),
            return_indices=True,
            _random_samples=torch.full((*t.shape[:2], 2), 0.4, dtype=t.dtype),
        ),
    ),
    "one_dimension": (1, lambda t: F.max_pool1d(t.flatten(0, 1), 3, stride=2, return_indices=True)),
    "three_dimensions": (3, lambda t: F.max_pool3d(t.unsqueeze(1), 2, stride=1, return_indices=True)),
}


# Of three inputs: rows of r, and baselines.
REFERENCE = {"grid": (2, 2), "aligned": (3, 1), "per_sample": (6, 2)}


def by_pool(pool, t):
    """Pool [N, C, H, W]; 1-d pooling sees [N * C, H, W], 3-d sees [N, 1, C, H, W]."""
    dims, function = POOLS[pool]
    _, indices = function(t)
    side = {1: t.flatten(0, 1), 2: t, 3: t.unsqueeze(1)}[dims]
    return side, indices


def operands(dtype, device, pool="overlapping", batch=3, reference_rows=2, outputs=2, baselines=2):
    # Pooled in float64, of values that the type holds exactly: ties and indices are then those of the type.
    x, r = (torch.randn(n, 2, 6, 5).to(dtype).double() for n in (batch, reference_rows))
    (x, x_indices), (r, r_indices) = by_pool(pool, x), by_pool(pool, r)
    rows = torch.arange(baselines).repeat_interleave(outputs)
    grad = torch.randn(len(rows), *x_indices.shape, dtype=torch.float64)
    grad, x, r = (t.to(device, dtype) for t in (grad, x, r))
    return grad, x, r, x_indices.to(device), r_indices.to(device), rows.to(device)


def check(arguments, dims, geometry, dtype, assert_close):
    expected = oracle.maxpool(*[tensor.cpu().contiguous() for tensor in arguments], dims, *geometry)
    out = maxpool(*arguments, dims, *geometry)
    assert out.dtype == dtype
    assert_close(out, expected, dtype, factor=8)
    return out


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("pairing", ["grid", "aligned", "per_sample"])
def test_oracle(pool, pairing, dtype, device, assert_close):
    dims = POOLS[pool][0]
    reference_rows, baselines = REFERENCE[pairing]
    arguments = operands(dtype, device, pool, reference_rows=reference_rows, baselines=baselines)
    check(arguments, dims, (1, 3, pairing), dtype, assert_close)


# Of tensors [N, *size], channels first: the size, and how windows are laid. The large ones have several parts on the CPU; a GPU's block
# takes some of the many channels only, and none of two bytes each.
CHANNELS_LAST = {
    "side_by_side": ((6, 6, 4), lambda t: F.max_pool2d(t, 2, return_indices=True)),
    "overlapping": ((6, 5, 6), lambda t: F.max_pool2d(t, 3, stride=2, padding=1, return_indices=True)),
    "dilated_ceil": ((6, 7, 6), lambda t: F.max_pool2d(t, 2, 3, dilation=2, ceil_mode=True, return_indices=True)),
    "one_window": ((6, 4, 3), lambda t: F.adaptive_max_pool2d(t, 1, return_indices=True)),
    "many_channels": ((16, 20, 14), lambda t: F.max_pool2d(t, 3, stride=2, padding=1, return_indices=True)),
    "last_window_first": ((8, 30, 24), lambda t: (None, F.max_pool2d(t, 3, 2, return_indices=True)[1].flip(-1, -2))),
    "one_dimension": ((6, 11), lambda t: F.max_pool1d(t, 3, stride=2, return_indices=True)),
    "three_dimensions": ((6, 3, 4, 5), lambda t: F.max_pool3d(t, 2, stride=1, return_indices=True)),
}


def with_channels(dtype, device, pool, rows_of_r=2, baselines=2):
    """Contiguous operands of three inputs, and the number of dimensions that windows have."""
    size, function = CHANNELS_LAST[pool]
    sides = [torch.randn(n, *size).to(dtype).double() for n in (3, rows_of_r)]
    indices = [function(side)[1] for side in sides]
    rows = torch.arange(baselines).repeat_interleave(2)
    grad = torch.randn(len(rows), *indices[0].shape)
    arguments = [*(t.to(device, dtype) for t in (grad, *sides)), *(t.to(device) for t in (*indices, rows))]
    return arguments, len(size) - 1


def is_channels_last(out):
    return out.movedim(2, -1).is_contiguous() and not out.is_contiguous()


@pytest.mark.parametrize("pool", CHANNELS_LAST)
@pytest.mark.parametrize("pairing", ["grid", "aligned", "per_sample"])
def test_oracle_in_channels_last(pool, pairing, dtype, device, assert_close):
    (grad, *operands, rows), dims = with_channels(dtype, device, pool, *REFERENCE[pairing])
    arguments = [channels_last(grad, 1), *[channels_last(operand, 0) for operand in operands], rows]
    assert is_channels_last(check(arguments, dims, (1, 3, pairing), dtype, assert_close))


@pytest.mark.slow
@pytest.mark.parametrize("size", [8, 70, 250])
def test_oracle_over_planes_of_any_size(size, dtype, device, assert_close):
    """Small ones share a block's memory, larger ones have one's, the largest none."""
    x, r = (torch.randn(n, 3, size, size).to(dtype).double() for n in (2, 1))
    (_, x_indices), (_, r_indices) = (F.max_pool2d(t, 3, stride=2, padding=1, return_indices=True) for t in (x, r))
    grad = torch.randn(2, *x_indices.shape)
    arguments = [t.to(device, dtype) for t in (grad, x, r)]
    indices = [t.to(device) for t in (x_indices, r_indices, torch.tensor([0, 0]))]
    check([*arguments, *indices], 2, (1, 2, "grid"), dtype, assert_close)


def test_sequence_first(device, assert_close):
    """[S, B, L]: the batch behind another dimension."""
    x, r = torch.randn(4, 3, 8), torch.randn(4, 2, 8)
    (_, x_indices), (_, r_indices) = (F.max_pool1d(t, 3, stride=2, return_indices=True) for t in (x, r))
    rows = torch.tensor([0, 1, 1])
    arguments = (torch.randn(3, *x_indices.shape), x, r, x_indices, r_indices, rows)
    check([tensor.to(device) for tensor in arguments], 1, (4, 3, "grid"), torch.float32, assert_close)


@pytest.mark.parametrize("pool", ["overlapping", "three_dimensions"])
def test_completeness(pool, device):
    """sum m * (x - r) = sum grad * (o(x) - o(r)) for each pair."""
    grad, x, r, x_indices, r_indices, rows = operands(torch.float64, device, pool)
    dims = POOLS[pool][0]
    multipliers = maxpool(grad, x, r, x_indices, r_indices, rows, dims, 1, 3, "grid")
    o_x, o_r = (t.flatten(-dims).gather(-1, i.flatten(-dims)) for t, i in ((x, x_indices), (r, r_indices)))
    for v, row in enumerate(rows.tolist()):
        explained = (multipliers[v] * (x - r[row])).flatten(1).sum(1)
        difference = (grad[v].flatten(-dims) * (o_x - o_r[row])).flatten(1).sum(1)
        torch.testing.assert_close(explained, difference, rtol=1e-12, atol=1e-12)


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=4, max_size=4))
@settings(max_examples=300, deadline=None)
def test_weights_lie_in_0_to_1(values):
    x, r = torch.tensor([values[:2]]), torch.tensor([values[2:]])
    indices = [t.argmax(-1, keepdim=True) for t in (x, r)]
    weights = maxpool(torch.ones(1, 1, 1), x, r, *indices, torch.tensor([0]), 1, 1, 1, "grid")[0, 0]
    assert weights.min() >= 0
    assert weights.max() <= 1
    assert (weights > 0).sum() <= 1


@pytest.mark.parametrize(
    ("of_grad", "of_operands", "last"),
    [
        (channels_last, contiguous, True),
        (contiguous, channels_last, False),
        (leading_last, channels_last, True),
        (leading_last, contiguous, False),
        (sliced, sliced, False),
    ],
)
def test_mixed_layouts(of_grad, of_operands, last, device, assert_close):
    """The result lies as the gradient does, and as the sides do where that is in neither format."""
    (grad, *operands, rows), dims = with_channels(torch.float32, device, "overlapping")
    arguments = [of_grad(grad, 1), *[of_operands(operand, 0) for operand in operands], rows]
    assert is_channels_last(check(arguments, dims, (1, 3, "grid"), torch.float32, assert_close)) == last


def test_layouts_with_the_batch_behind_another_dimension(device, assert_close):
    """The batch must not run fastest: what lies so is copied."""
    x, r = torch.randn(4, 3, 8), torch.randn(4, 2, 8)
    indices = [F.max_pool1d(t, 3, stride=2, return_indices=True)[1] for t in (x, r)]
    rows = torch.tensor([0, 1, 1])
    grad, *operands = torch.randn(3, *indices[0].shape), x, r, *indices
    arguments = [channels_last(grad, 1), *[channels_last(operand, 0) for operand in operands], rows]
    out = check([tensor.to(device) for tensor in arguments], 1, (4, 3, "grid"), torch.float32, assert_close)
    assert out.is_contiguous()


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 4), (2, 3, 0)])
def test_empty(shape, dtype, device):
    cotangents, batch, inner = shape
    x, r = torch.randn(batch, inner, device=device, dtype=dtype), torch.randn(2, inner, device=device, dtype=dtype)
    windows = min(inner, 1)
    indices = [torch.zeros(n, windows, dtype=torch.int64, device=device) for n in (batch, 2)]
    grad = torch.randn(cotangents, batch, windows, device=device, dtype=dtype)
    rows = torch.zeros(cotangents, dtype=torch.int64, device=device)
    assert maxpool(grad, x, r, *indices, rows, 1, 1, max(batch, 1), "grid").shape == shape


def test_no_windows(device):
    x = torch.randn(3, 4, device=device)
    none = torch.zeros(3, 0, dtype=torch.int64, device=device)
    rows = torch.zeros(2, dtype=torch.int64, device=device)
    assert maxpool(torch.randn(2, 3, 0, device=device), x, x, none, none, rows, 1, 1, 3, "aligned").abs().sum() == 0


@pytest.mark.parametrize("layout", [contiguous, channels_last])
def test_vmap_is_the_loop(layout, device):
    (grad, *operands, rows), dims = with_channels(torch.float32, device, "overlapping")
    grad, operands = layout(grad, 1), [layout(operand, 0) for operand in operands]

    def op(g, row):
        return maxpool(g.unsqueeze(0), *operands, row.unsqueeze(0), dims, 1, 3, "grid").squeeze(0)

    expected = torch.stack([op(g, row) for g, row in zip(grad, rows, strict=True)])
    out = torch.func.vmap(op)(grad, rows)
    assert is_channels_last(out) == (layout is channels_last)
    tolerance = 0 if device == "cpu" else 1e-6  # atomics add in any order
    torch.testing.assert_close(out, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layout", [contiguous, channels_last, leading_last, sliced])
@pytest.mark.parametrize("pool", ["overlapping", "one_window"])
def test_opcheck(pool, layout, device):
    (grad, *operands, rows), dims = with_channels(torch.float32, device, pool)
    arguments = [layout(grad, 1), *[layout(operand, 0) for operand in operands], rows]
    utils = ("test_schema", "test_faketensor", "test_autograd_registration")
    opcheck(torch.ops.deepshap_ext.maxpool.default, (*arguments, dims, 1, 3, "grid"), test_utils=utils)


def test_opcheck_compiled():
    opcheck(torch.ops.deepshap_ext.maxpool.default, (*operands(torch.float32, "cpu"), 2, 1, 3, "grid"))


GOOD = {
    "grad": torch.zeros(2, 3, 2),
    "x": torch.zeros(3, 4),
    "r": torch.zeros(2, 4),
    "x_indices": torch.zeros(3, 2, dtype=torch.int64),
    "r_indices": torch.zeros(2, 2, dtype=torch.int64),
    "rows": torch.tensor([0, 1]),
    "dims": 1,
    "outer": 1,
    "batch": 3,
    "pairing": "grid",
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"grad": torch.zeros(2, 3, 4)}, r"maxpool: grad must have shape \[V, \*x_indices.shape\], got \[2, 3, 4\]"),
        ({"r": torch.zeros(2, 4).half()}, "maxpool: r must have the type of grad, Float, got Half"),
        ({"x_indices": torch.zeros(3, 2)}, "maxpool: x_indices must be int64, got Float"),
        ({"x_indices": torch.full((3, 2), 4)}, r"maxpool: x_indices must lie in \[0, 4\), got 4"),
        ({"r_indices": torch.full((2, 2), -1)}, r"maxpool: r_indices must lie in \[0, 4\), got -1"),
        (
            {"r_indices": torch.zeros(3, 2, dtype=torch.int64)},
            r"maxpool: r_indices must have the shape of r but for the last 1",
        ),
        (
            {"r_indices": torch.zeros(2, 1, dtype=torch.int64)},
            r"maxpool: r_indices must .* that of x_indices, got \[2, 1\]",
        ),
        ({"dims": 3}, r"maxpool: dims must lie in \[1, 2\], got 3"),
        ({"dims": 2}, r"maxpool: the batch must lie outside of the last 2 dimensions of x"),
        ({"rows": torch.tensor([0, 2])}, r"maxpool: rows must lie in \[0, 2\), got 2 at 1"),
        ({"pairing": "aligned"}, "maxpool: r must have the 3 rows of x in pairing 'aligned', got 2"),
    ],
)
def test_errors(changed, message):
    maxpool(**GOOD)
    with pytest.raises(ValueError, match=message):
        maxpool(**(GOOD | changed))
