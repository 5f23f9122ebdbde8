"""The rules of LSTM, GRU and RNN layers over all their steps."""

import pytest
import torch
from reference import ops as oracle
from torch.library import opcheck

from deepshap_ext.ops import recurrence

#: By cell, how many numbers of a unit are kept of a step, and how many gates it has.
CELLS = {"lstm": (6, 4), "gru": (5, 3), "rnn_tanh": (1, 1), "rnn_relu": (1, 1)}
UNITS, STEPS = 3, 2


@pytest.fixture(params=CELLS)
def cell(request):
    return request.param


def operands(cell, case, dtype, device, layout=None, outputs=2, units=UNITS, steps=STEPS):
    kept, gates = CELLS[cell]
    rows = case.rows(outputs)
    shapes = [
        (len(rows), steps, *case.shape(case.batch), units),
        (len(rows), *case.shape(case.batch), units),
        (steps, *case.shape(case.batch), kept * units),
        (steps, *case.shape(case.reference_rows), kept * units),
        (gates * units, units),
    ]
    found = [torch.randn(shape, dtype=torch.float64).to(device, dtype) for shape in shapes]
    found[4] /= 4
    if layout is not None:
        found = [layout[0](found[0], 1), layout[0](found[1], 1), *[layout[1](t, 0) for t in found[2:]]]
    return *found, rows.to(device)


def check(arguments, cell, geometry, dtype, assert_close):
    expected = oracle.recurrence(*[t.cpu() for t in arguments], cell, *geometry)
    for actual, right in zip(recurrence(*arguments, cell, *geometry), expected, strict=True):
        assert actual.dtype == dtype
        assert_close(actual, right, dtype, factor=16)


def test_oracle(cell, case, dtype, device, assert_close):
    check(operands(cell, case, dtype, device), cell, case.geometry, dtype, assert_close)


def test_layouts(case, layout, device, assert_close):
    check(operands("gru", case, torch.float32, device, layout), "gru", case.geometry, torch.float32, assert_close)


@pytest.mark.parametrize("units", [1, 15, 64, 65, 700])
def test_oracle_of_many_units(cell, units, dtype, device, assert_close):
    kept, gates = CELLS[cell]
    x, r = (torch.randn(3, n, kept * units, device=device, dtype=dtype) for n in (2, 3))
    grad, state = (torch.randn(4, *shape, 2, units, device=device, dtype=dtype) for shape in ((3,), ()))
    weight = torch.randn(gates * units, units, device=device, dtype=dtype) / (2 * units**0.5)
    rows = torch.tensor([2, 0, 0, 1], device=device)
    check((grad, state, x, r, weight, rows), cell, (1, 2, "grid"), dtype, assert_close)


def test_oracle_of_sides_far_out_and_close(cell, dtype, device, assert_close):
    """Saturated gates, and sides that are the same or nearly so."""
    kept, gates = CELLS[cell]
    at = torch.tensor([-1e4, -90.0, -20.0, -3.0, 0.0, 1e-3, 1.0, 5.0, 60.0, 3e3])
    x, r = (
        side.to(device, dtype).repeat(1, 1, kept) for side in (at[None], torch.cat([at, at * 1.01, -at]).view(3, -1))
    )
    grad, state = torch.ones(3, 1, 1, 10, device=device, dtype=dtype), torch.ones(3, 1, 10, device=device, dtype=dtype)
    weight = torch.ones(gates * 10, 10, device=device, dtype=dtype) / 64
    rows = torch.arange(3, device=device)
    arguments = grad, state, x, r, weight, rows
    # The quotients of the oracle are exact to float64's rounding over the distance of two close sides.
    expected = oracle.recurrence(*[t.cpu() for t in arguments], cell, 1, 1, "grid")
    tolerance = max(1e-9, 16 * torch.finfo(dtype).eps)
    for actual, right in zip(recurrence(*arguments, cell, 1, 1, "grid"), expected, strict=True):
        torch.testing.assert_close(actual.double().cpu(), right, rtol=tolerance, atol=tolerance)


def step_forward(cell, projected, product, hidden, state):
    """The kept numbers, hidden state and state of the next step."""
    if cell == "lstm":
        gates = projected + product
        i, f, g, o = gates.chunk(4, -1)
        following = f.sigmoid() * state + i.sigmoid() * g.tanh()
        return [gates, state, following], o.sigmoid() * following.tanh(), following
    if cell == "gru":
        new_x, new_h = projected.chunk(3, -1)[2], product.chunk(3, -1)[2]
        gates = (projected + product)[..., : 2 * UNITS]
        reset, update = gates.sigmoid().chunk(2, -1)
        before = new_x + reset * new_h
        new = before.tanh()
        return [gates, before, new_h, hidden - new], new + update * (hidden - new), state
    gate = projected + product
    return [gate], getattr(torch, cell[4:])(gate), state


def forward(cell, projected, weight, hidden, state):
    kept, outputs = [], []
    for step in projected:
        parts, hidden, state = step_forward(cell, step, hidden @ weight.T, hidden, state)
        kept.append(torch.cat(parts, -1))
        outputs.append(hidden)
    return torch.stack(kept), torch.stack(outputs), state


def test_completeness(cell, case):
    """Multipliers times differences of all that goes in add up to the differences of the hidden states, and of an lstm's last cell."""
    steps, gates = 4, CELLS[cell][1]
    weight = torch.randn(gates * UNITS, UNITS, dtype=torch.float64)
    inside, sides = [], []
    for rows in (case.batch, case.reference_rows):
        shapes = (steps, *case.shape(rows), gates * UNITS), *[(*case.shape(rows), UNITS)] * 2
        projected, hidden, state = (torch.randn(shape, dtype=torch.float64) for shape in shapes)
        state = state if cell == "lstm" else torch.zeros_like(state)
        inside.append((*projected, hidden, state))
        kept, outputs, last = forward(cell, projected, weight, hidden, state)
        sides.append((kept, (*outputs, last)))
    (x, x_out), (r, r_out) = sides
    rows = case.rows()
    grad = torch.randn(len(rows), *x_out[0].unsqueeze(0).expand(steps, *x_out[0].shape).shape, dtype=torch.float64)
    state = torch.randn(len(rows), *x_out[0].shape, dtype=torch.float64) * (cell == "lstm")
    of_input, of_hidden, handed_on = recurrence(grad, state, x, r, weight, rows, cell, *case.geometry)
    if cell == "gru":
        of_hidden = of_hidden + handed_on
    for v, row in enumerate(rows.tolist()):
        changes = [a - oracle.paired(a, b, row, *case.geometry) for a, b in zip(*inside, strict=True)]
        effects = [a - oracle.paired(a, b, row, *case.geometry) for a, b in zip(x_out, r_out, strict=True)]
        found = zip((*of_input[v], of_hidden[v], handed_on[v]), changes, strict=True)
        expected = zip((*grad[v], state[v]), effects, strict=True)
        torch.testing.assert_close(*(sum((m * d).sum() for m, d in pairs) for pairs in (found, expected)))


@pytest.mark.parametrize("shape", [(0, 3), (2, 0)])
def test_empty(cell, shape, dtype, device):
    kept, gates = CELLS[cell]
    cotangents, batch = shape
    x, r = (torch.randn(STEPS, n, kept * UNITS, device=device, dtype=dtype) for n in (batch, 2))
    rows = torch.zeros(cotangents, dtype=torch.int64, device=device)
    grad = torch.randn(cotangents, STEPS, batch, UNITS, device=device, dtype=dtype)
    weight = torch.randn(gates * UNITS, UNITS, device=device, dtype=dtype)
    outs = recurrence(grad, grad[:, 0], x, r, weight, rows, cell, 1, max(batch, 1), "grid")
    assert [out.shape for out in outs] == [(cotangents, STEPS, batch, gates * UNITS), *[(*shape, UNITS)] * 2]


def test_vmap_is_the_loop(case, device):
    grad, state, x, r, weight, rows = operands("lstm", case, torch.float32, device)

    def op(g, s, row):
        outs = recurrence(g.unsqueeze(0), s.unsqueeze(0), x, r, weight, row.unsqueeze(0), "lstm", *case.geometry)
        return tuple(out.squeeze(0) for out in outs)

    each = [op(*one) for one in zip(grad, state, rows, strict=True)]
    for actual, parts in zip(torch.func.vmap(op)(grad, state, rows), zip(*each, strict=True), strict=True):
        torch.testing.assert_close(actual, torch.stack(parts), rtol=1e-6, atol=1e-6)
    # The state is one for all where nothing comes to it.
    found = torch.func.vmap(lambda g, row: op(g, state[0], row))(grad, rows)
    alike = torch.func.vmap(op)(grad, state[:1].expand_as(state), rows)
    torch.testing.assert_close(found, alike, rtol=0, atol=0)


def test_opcheck(cell, case, device):
    arguments = (*operands(cell, case, torch.float32, device), cell, *case.geometry)
    opcheck(torch.ops.deepshap_ext.recurrence.default, arguments, test_utils=("test_schema", "test_faketensor"))


GOOD = {
    "grad": torch.zeros(2, 5, 3, 2),
    "state": torch.zeros(2, 3, 2),
    "x": torch.zeros(5, 3, 12),
    "r": torch.zeros(5, 2, 12),
    "weight": torch.zeros(8, 2),
    "rows": torch.tensor([0, 1]),
    "cell": "lstm",
    "outer": 1,
    "batch": 3,
    "pairing": "grid",
}


def test_opcheck_compiled():
    opcheck(torch.ops.deepshap_ext.recurrence.default, tuple(GOOD.values()))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"grad": torch.zeros(2, 5, 3, 4)},
            r"recurrence: grad must have shape \[V, \*output.shape\], got \[2, 5, 3, 4\] for an output of shape \[5, 3, 2\]",
        ),
        (
            {"state": torch.zeros(2, 5, 3, 2)},
            r"recurrence: state must have shape \[V, \*step.shape\], got \[2, 5, 3, 2\] for a step of shape \[3, 2\]",
        ),
        ({"state": torch.zeros(1, 3, 2)}, "recurrence: state must have the 2 cotangents of grad, got 1"),
        ({"weight": torch.zeros(8, 2).double()}, "recurrence: weight must have the type of grad, Float, got Double"),
        (
            {"weight": torch.zeros(2, 8)},
            r"recurrence: weight must have shape \[4 \* units, units\] for 2 units, got \[2, 8\]",
        ),
        ({"x": torch.zeros(5, 3, 10)}, r"recurrence: x must have shape \[steps, ..., 6 \* units\], got \[5, 3, 10\]"),
        ({"x": torch.zeros(0, 3, 12)}, r"recurrence: x must have shape \[steps, ..., 6 \* units\], got \[0, 3, 12\]"),
        ({"r": torch.zeros(4, 3, 12)}, r"recurrence: r must have the 5 steps of x, got \[4, 3, 12\]"),
        (
            {"outer": 3, "batch": 2, "r": torch.zeros(5, 3, 12)},
            r"recurrence: the batch must lie outside of the last dimension, got outer = 3 and batch = 2 for x of shape \[5, 3, 12\]",
        ),
        ({"outer": 0}, "recurrence: outer and batch must be at least 1, got 0 and 3"),
        ({"rows": torch.tensor([0, 2])}, r"recurrence: rows must lie in \[0, 2\), got 2 at 1"),
        ({"pairing": "aligned"}, "recurrence: r must have the 3 rows of x in pairing 'aligned', got 2"),
        ({"cell": "elman"}, "recurrence: cell must be one of lstm, gru, rnn_tanh, rnn_relu, got 'elman'"),
    ],
)
def test_errors(changed, message):
    recurrence(**GOOD)
    with pytest.raises(ValueError, match=message):
        recurrence(**(GOOD | changed))
