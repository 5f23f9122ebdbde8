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


def lstm(
    grad: Tensor,
    x: Tensor,
    r: Tensor,
    x_values: Tensor,
    r_values: Tensor,
    rows: Tensor,
    outer: int,
    batch: int,
    pairing: str,
) -> Tensor:
    """Gate by gate: products at the mean of the other factor, sigmoids and tanhs by their divided differences."""
    grad, x, r, x_values, r_values = (tensor.double() for tensor in (grad, x, r, x_values, r_values))
    out = grad.new_empty((len(rows), *x.shape))
    sigmoid, tanh = divided_difference(torch.sigmoid), divided_difference(torch.tanh)
    for v, row in enumerate(rows.tolist()):
        other = paired(x, r, row, outer, batch, pairing).chunk(5, -1)
        ours = x.chunk(5, -1)
        at_x, at_r = x_values.chunk(6, -1), paired(x_values, r_values, row, outer, batch, pairing).chunk(6, -1)
        at_i, at_f, at_g, at_o, _, squashed = ((a + b) / 2 for a, b in zip(at_x, at_r, strict=True))
        hidden, following = grad[v].chunk(2, -1)
        following = following + hidden * at_o * tanh(at_x[4], at_r[4])
        i, f, g, o = (d(a, b) for d, a, b in zip((sigmoid, sigmoid, tanh, sigmoid), ours, other, strict=False))
        cell = (ours[4] + other[4]) / 2
        parts = [following * at_g * i, following * cell * f, following * at_i * g, hidden * squashed * o]
        out[v] = torch.cat([*parts, following * at_f], -1)
    return out


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
