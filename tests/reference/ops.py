"""The ops, slowly and in float64: pair by pair, close to their definitions. Imports nothing of the package."""

from collections.abc import Callable

import torch
from torch import Tensor

DividedDifference = Callable[[Tensor, Tensor], Tensor]


def divided_difference(f: Callable[[Tensor], Tensor]) -> DividedDifference:
    """(f(x) - f(r)) / (x - r), and autograd's derivative where the sides are equal."""

    def quotient(x: Tensor, r: Tensor) -> Tensor:
        point = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(f(point).sum(), point)
        same = x == r
        return torch.where(same, slope, (f(x) - f(r)) / torch.where(same, torch.ones_like(x), x - r))

    return quotient


def paired(x: Tensor, r: Tensor, row: int, outer: int, batch: int, pairing: str) -> Tensor:
    """r as large as x: for each row of x, the row of r that it is paired with."""
    inner = x.numel() // (outer * batch)
    r = r.reshape(outer, -1, inner)
    count = r.shape[1]
    picked = []
    for b in range(batch):
        at = {"grid": row, "aligned": b, "per_sample": b * (count // batch) + row}[pairing]
        picked.append(r[:, at])
    return torch.stack(picked, dim=1).reshape(x.shape)


def rescale(
    grad: Tensor, x: Tensor, r: Tensor, rows: Tensor, quotient: DividedDifference, outer: int, batch: int, pairing: str
) -> Tensor:
    grad, x, r = grad.double(), x.double(), r.double()
    out = torch.empty_like(grad)
    for v, row in enumerate(rows.tolist()):
        out[v] = grad[v] * quotient(x, paired(x, r, row, outer, batch, pairing))
    return out


def product(
    grad: Tensor, a_x: Tensor, a_r: Tensor, b_x: Tensor, b_r: Tensor, rows: Tensor, outer: int, batch: int, pairing: str
) -> tuple[Tensor, Tensor]:
    grad, a_x, a_r, b_x, b_r = (tensor.double() for tensor in (grad, a_x, a_r, b_x, b_r))
    m_a, m_b = torch.empty_like(grad), torch.empty_like(grad)
    for v, row in enumerate(rows.tolist()):
        m_a[v] = grad[v] * (b_x + paired(b_x, b_r, row, outer, batch, pairing)) / 2
        m_b[v] = grad[v] * (a_x + paired(a_x, a_r, row, outer, batch, pairing)) / 2
    return m_a, m_b


def midpoint(x: Tensor, r: Tensor, rows: Tensor, outer: int, batch: int, pairing: str) -> Tensor:
    x, r = x.double(), r.double()
    return torch.stack([(x + paired(x, r, row, outer, batch, pairing)) / 2 for row in rows.tolist()])


def maxpool(
    grad: Tensor,
    x: Tensor,
    r: Tensor,
    x_indices: Tensor,
    r_indices: Tensor,
    rows: Tensor,
    dims: int,
    outer: int,
    batch: int,
    pairing: str,
) -> Tensor:
    grad, x, r = grad.double(), x.double(), r.double()
    out = grad.new_zeros((grad.shape[0], *x.shape))
    plane, windows = x.shape[x.dim() - dims :].numel(), x_indices.shape[x.dim() - dims :].numel()
    flat_out = out.view(len(rows), -1, plane)
    for v, row in enumerate(rows.tolist()):
        other = paired(x, r, row, outer, batch, pairing).reshape(-1, plane)
        places = paired(x_indices, r_indices, row, outer, batch, pairing).reshape(-1, windows)
        for i, (one, p_of, q_of) in enumerate(
            zip(x.reshape(-1, plane), x_indices.reshape(-1, windows), places, strict=True)
        ):
            for w in range(windows):
                p, q = int(p_of[w]), int(q_of[w])
                o_x, o_r = one[p], other[i, q]
                to = p if o_x >= o_r else q
                difference = one[to] - other[i, to]
                weight = 1.0 if p == q or difference == 0 else (o_x - o_r) / difference
                flat_out[v, i, to] += grad[v].reshape(-1, windows)[i, w] * weight
    return out


def softmax(
    grad: Tensor, x: Tensor, r: Tensor, rows: Tensor, dim: int, log: bool, outer: int, batch: int, pairing: str
) -> Tensor:
    """By the definition of the logarithmic mean, (p - q) / (log p - log q); x and r are log-probabilities."""
    grad, x, r = grad.double(), x.double(), r.double()
    out = torch.empty_like(grad)
    for v, row in enumerate(rows.tolist()):
        other = paired(x, r, row, outer, batch, pairing)
        same = x == other
        distance = torch.where(same, torch.ones_like(x), x - other)
        mean = torch.where(same, x.exp(), (x.exp() - other.exp()) / distance)
        total = mean.sum(dim, keepdim=True)
        share = torch.where(total == 0, torch.zeros_like(mean), mean / total)
        if log:
            out[v] = torch.where(total == 0, torch.zeros_like(mean), grad[v] - share * grad[v].sum(dim, keepdim=True))
        else:
            out[v] = mean * (grad[v] - (grad[v] * share).sum(dim, keepdim=True))
    return out


def norm(
    grad: Tensor,
    x: Tensor,
    r: Tensor,
    scale: Tensor,
    rows: Tensor,
    eps: float,
    centre: bool,
    outer: int,
    batch: int,
    pairing: str,
) -> Tensor:
    """u = sigma * z at the midpoints of both factors; x and r are lines of scale.shape[1] elements."""
    grad, x, r, scale = grad.double(), x.double(), r.double(), scale.double()
    out = torch.empty_like(grad)
    for v, row in enumerate(rows.tolist()):
        u, sigma, z = 0, 0, 0
        for side in (x, paired(x, r, row, outer, batch, pairing)):
            line = side.reshape(-1, *scale.shape)
            line = line - line.mean(-1, keepdim=True) if centre else line
            largest = line.abs().amax(-1, keepdim=True).clamp_min(1e-100)
            norm = largest * ((line / largest).square().mean(-1, keepdim=True) + eps / largest / largest).sqrt()
            u, sigma, z = u + line / 2, sigma + norm / 2, z + line / norm / 2
        g = grad[v].reshape(-1, *scale.shape) * scale
        m = (g - u / sigma * (g * z).mean(-1, keepdim=True)) / sigma
        out[v] = (m - m.mean(-1, keepdim=True) if centre else m).reshape(x.shape)
    return out


def recurrence(
    grad: Tensor,
    state: Tensor,
    x: Tensor,
    r: Tensor,
    weight: Tensor,
    rows: Tensor,
    cell: str,
    outer: int,
    batch: int,
    pairing: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Step by step and gate by gate: products at the mean of the other factor, functions by their divided differences."""
    grad, state, x, r, weight = (tensor.double() for tensor in (grad, state, x, r, weight))
    found = []
    for v, row in enumerate(rows.tolist()):
        of_input, hidden, handed_on = [], torch.zeros_like(state[v]), state[v]
        for step in reversed(range(len(x))):
            other = paired(x[step], r[step], row, outer, batch, pairing)
            gates, products, handed_on = _CELLS[cell](grad[v, step] + hidden, handed_on, x[step], other)
            of_input.append(torch.cat(gates, -1))
            hidden = torch.cat(products, -1) @ weight
        found.append((torch.stack(of_input[::-1]), hidden, handed_on))
    return tuple(torch.stack(parts) for parts in zip(*found, strict=True))  # type: ignore[return-value]


#: Of the gates' parts from the input and from the hidden state, and of what the step before handed on beside it.
Passed = tuple[list[Tensor], list[Tensor], Tensor]


def _lstm(hidden: Tensor, of_next: Tensor, x: Tensor, r: Tensor) -> Passed:
    sigmoid, tanh = divided_difference(torch.sigmoid), divided_difference(torch.tanh)
    (i, f, g, o, _, following), (i_r, f_r, g_r, o_r, _, following_r) = x.chunk(6, -1), r.chunk(6, -1)
    at_i, at_f, at_o = ((a.sigmoid() + b.sigmoid()) / 2 for a, b in ((i, i_r), (f, f_r), (o, o_r)))
    at_g, squashed = ((a.tanh() + b.tanh()) / 2 for a, b in ((g, g_r), (following, following_r)))
    cell = (x.chunk(6, -1)[4] + r.chunk(6, -1)[4]) / 2
    of_next = of_next + hidden * at_o * tanh(following, following_r)
    of_i, of_f = of_next * at_g * sigmoid(i, i_r), of_next * cell * sigmoid(f, f_r)
    gates = [of_i, of_f, of_next * at_i * tanh(g, g_r), hidden * squashed * sigmoid(o, o_r)]
    return gates, gates, of_next * at_f


def _gru(of_product: Tensor, directly: Tensor, x: Tensor, r: Tensor) -> Passed:
    sigmoid, tanh = divided_difference(torch.sigmoid), divided_difference(torch.tanh)
    (reset, update, new, *_), (reset_r, update_r, new_r, *_) = x.chunk(5, -1), r.chunk(5, -1)
    *_, new_h, apart = ((a + b) / 2 for a, b in zip(x.chunk(5, -1), r.chunk(5, -1), strict=True))
    at_reset, at_update = ((a.sigmoid() + b.sigmoid()) / 2 for a, b in ((reset, reset_r), (update, update_r)))
    following = of_product + directly
    of_new = following * (1 - at_update) * tanh(new, new_r)
    gates = [of_new * new_h * sigmoid(reset, reset_r), following * apart * sigmoid(update, update_r)]
    return [*gates, of_new], [*gates, of_new * at_reset], following * at_update


def _rnn(function: Callable[[Tensor], Tensor]) -> Callable[..., Passed]:
    def step(hidden: Tensor, nothing: Tensor, x: Tensor, r: Tensor) -> Passed:
        gates = [hidden * divided_difference(function)(x, r)]
        return gates, gates, nothing

    return step


_CELLS = {"lstm": _lstm, "gru": _gru, "rnn_tanh": _rnn(torch.tanh), "rnn_relu": _rnn(torch.relu)}


def contribution(
    multipliers: Tensor, x: Tensor, r: Tensor, rows: Tensor, weights: Tensor, outer: int, batch: int, pairing: str
) -> tuple[Tensor, Tensor, Tensor]:
    multipliers, x, r = multipliers.double(), x.double(), r.double()
    parts = torch.stack(
        [multipliers[j] * (x - paired(x, r, row, outer, batch, pairing)) for j, row in enumerate(rows.tolist())]
    )

    def mean(values: Tensor) -> Tensor:
        return torch.einsum("j,j...->...", weights, values) / weights.sum()

    return mean(parts), mean((parts - mean(parts)).square()), mean(multipliers)
