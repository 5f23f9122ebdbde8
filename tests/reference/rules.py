"""The rules of docs/rules.md for one pair, from their formulas, over arrays of units (units.py)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from .shapley import shapley_of_max
from .units import Unit, elementwise, multipliers, values


def combined(x: np.ndarray, r: np.ndarray, by: np.ndarray, operands: np.ndarray) -> np.ndarray:
    """An array of units with values ``x`` and ``r`` and multipliers ``by [*shape, operands]`` over flat ``operands``."""
    m = by @ multipliers(operands)
    found = np.empty(x.size, dtype=object)
    found[:] = [Unit(*one) for one in zip(x.flat, r.flat, m.reshape(x.size, -1), strict=True)]
    return found.reshape(x.shape)


def by_rows(function: Callable[[np.ndarray], np.ndarray], a: np.ndarray) -> np.ndarray:
    """``function`` of each row, the last dimension, of ``a``."""
    rows = [np.asarray(function(row), dtype=object) for row in a.reshape(-1, a.shape[-1])]
    return np.stack(rows).reshape(*a.shape[:-1], *rows[0].shape)


def _logarithmic_means(a: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The log-probabilities of both sides and the logarithmic means of their probabilities."""
    log_x, log_r = (side - side.max() - math.log(np.exp(side - side.max()).sum()) for side in values(a))
    same = log_x == log_r
    apart = np.where(same, 1, log_x - log_r)
    return log_x, log_r, np.where(same, np.exp(log_x), (np.exp(log_x) - np.exp(log_r)) / apart)


def softmax(a: np.ndarray) -> np.ndarray:
    """Of one row: ``m_k = L_k (m_zk - sum_i m_zi L_i / sum_i L_i)``."""
    log_x, log_r, mean = _logarithmic_means(a)
    by = np.diag(mean) - np.outer(mean, mean) / mean.sum()
    return combined(np.exp(log_x), np.exp(log_r), by, a)


def softmax_by_element(a: np.ndarray) -> np.ndarray:
    """Of one row: each probability's difference over its own logit's."""
    log_x, log_r, _ = _logarithmic_means(a)
    x, r = values(a)
    return combined(np.exp(log_x), np.exp(log_r), np.diag((np.exp(log_x) - np.exp(log_r)) / (x - r)), a)


def log_softmax(a: np.ndarray) -> np.ndarray:
    """Of one row: ``m_k = m_zk - q_k sum_i m_zi``, ``q_k = L_k / sum_i L_i``."""
    log_x, log_r, mean = _logarithmic_means(a)
    return combined(log_x, log_r, np.eye(len(a)) - mean / mean.sum(), a)


def logsumexp(a: np.ndarray) -> np.ndarray:
    """Of all of them: ``m_k = m_z q_k``."""
    mean = _logarithmic_means(a.ravel())[2]
    total = np.array([[np.logaddexp.reduce(side.ravel()) for side in values(a)]])
    return combined(total[:, 0], total[:, 1], (mean / mean.sum())[None], a.ravel())


def attention(query: np.ndarray, key: np.ndarray, value: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Of ``[tokens, width]``; ``mask``: True where a query may look."""
    scores = (query @ key.T) * (1 / math.sqrt(query.shape[1]))
    rows = []
    for number, row in enumerate(scores):
        seen = np.ones(len(row), dtype=bool) if mask is None else mask[number]
        rows.append(softmax(row[seen]) @ value[seen])
    return np.stack(rows)


def normalize(a: np.ndarray, eps: float, centre: bool) -> np.ndarray:
    """Of one row: ``m_u = (g - ubar / (n sigmabar) sum_i g_i zbar_i) / sigmabar``, then centred."""
    u = a - a.sum() * (1 / len(a)) if centre else a
    (u_x, u_r), n = values(u), len(u)
    s_x, s_r = (math.sqrt((side * side).sum() / n + eps) for side in (u_x, u_r))
    z_x, z_r, sigma = u_x / s_x, u_r / s_r, (s_x + s_r) / 2
    by = (np.eye(n) - np.outer((z_x + z_r) / 2, (u_x + u_r) / 2) / (n * sigma)) / sigma
    return combined(z_x, z_r, by, u)


def rsqrt_product(a: np.ndarray, v: Unit) -> np.ndarray:
    """A norm by hand, ``a * rsqrt(v)``, as the quotient of ``a`` and ``sqrt(v)``."""
    return a / elementwise("sqrt", v)


def length(a: np.ndarray) -> Unit:
    return elementwise("sqrt", (a**2).sum())


def variance(a: np.ndarray) -> Unit:
    """The variance with Bessel's correction."""
    return ((a - a.sum() * (1 / len(a))) ** 2).sum() * (1 / (len(a) - 1))


def product(factors: Sequence[Unit]) -> Unit:
    """Of any number of factors, by their Shapley values: for each factor the mean, over the orders in which they go from one side to the
    other, of the product of the others."""
    x, r = values(np.array(factors, dtype=object))
    n = len(factors)
    m = np.zeros_like(factors[0].m)
    for i, factor in enumerate(factors):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            for chosen in itertools.combinations(others, size):
                rest = np.prod([x[j] if j in chosen else r[j] for j in others])
                m = m + rest / (n * math.comb(n - 1, size)) * factor.m
    return Unit(x.prod(), r.prod(), m)


def largest(a: Sequence[Unit], shapley: bool = False) -> Unit:
    """Of one window: its whole difference to the larger side's maximum; or to all entries by their Shapley values."""
    a = np.array(a, dtype=object)
    x, r = values(a)
    if shapley:
        shares = shapley_of_max(torch.tensor(x), torch.tensor(r)).numpy() / np.where(x == r, 1, x - r)
        return combined(x.max(keepdims=True), r.max(keepdims=True), shares[None], a)[0]
    p, q = int(x.argmax()), int(r.argmax())
    to = p if x[p] >= r[q] else q
    share = 1.0 if p == q or x[to] == r[to] else (x[p] - r[q]) / (x[to] - r[to])
    return Unit(x[p], r[q], share * a[to].m)


def smallest(a: Sequence[Unit], shapley: bool = False) -> Unit:
    return -largest([-one for one in a], shapley)


def windows(
    kernel: Sequence[int], count: Sequence[int], stride: int = 1, padding: int = 0, dilation: int = 1
) -> Iterator[tuple[tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...]]]]]:
    """Of each of ``count`` outputs, the places in the kernel and in the input that meet there; those in the input may lie outside."""
    for out in np.ndindex(*count):
        pairs = []
        for tap in np.ndindex(*kernel):
            pairs.append((tap, tuple(o * stride - padding + t * dilation for o, t in zip(out, tap, strict=True))))
        yield out, pairs


def _inside(place: Sequence[int], shape: Sequence[int]) -> bool:
    return all(0 <= p < n for p, n in zip(place, shape, strict=True))


def _sizes(shape: Sequence[int], kernel: Sequence[int], stride: int, padding: int, dilation: int) -> list[int]:
    return [(n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(shape, kernel, strict=True)]


def convolve(
    a: np.ndarray, weight: np.ndarray, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> np.ndarray:
    """``a [channels, *sizes]``, ``weight [outputs, channels / groups, *kernel]``; either may be of units."""
    sizes, kernel = a.shape[1:], weight.shape[2:]
    found = np.zeros((len(weight), *_sizes(sizes, kernel, stride, padding, dilation)), dtype=object)
    for o, c in np.ndindex(*weight.shape[:2]):
        channel = a[o // (len(weight) // groups) * weight.shape[1] + c]
        for out, pairs in windows(kernel, found.shape[1:], stride, padding, dilation):
            for tap, place in pairs:
                if _inside(place, sizes):
                    found[o][out] = found[o][out] + weight[o, c][tap] * channel[place]
    return found


def convolve_transposed(a: np.ndarray, weight: np.ndarray, stride: int = 1, padding: int = 0) -> np.ndarray:
    """``a [channels, *sizes]``, ``weight [channels, outputs, *kernel]``; either may be of units."""
    kernel = weight.shape[2:]
    sizes = [(n - 1) * stride - 2 * padding + k for n, k in zip(a.shape[1:], kernel, strict=True)]
    found = np.zeros((weight.shape[1], *sizes), dtype=object)
    for c, o in np.ndindex(*weight.shape[:2]):
        for place, pairs in windows(kernel, a.shape[1:], stride, padding):
            for tap, out in pairs:
                if _inside(out, sizes):
                    found[o][out] = found[o][out] + weight[c, o][tap] * a[c][place]
    return found


def max_pool(
    a: np.ndarray, kernel: int, stride: int, padding: int = 0, dilation: int = 1, shapley: bool = False
) -> np.ndarray:
    """Over all dimensions."""
    found = np.empty(_sizes(a.shape, [kernel] * a.ndim, stride, padding, dilation), dtype=object)
    for out, pairs in windows([kernel] * a.ndim, found.shape, stride, padding, dilation):
        found[out] = largest([a[place] for _, place in pairs if _inside(place, a.shape)], shapley)
    return found


def adaptive_max_pool(a: np.ndarray, count: int, shapley: bool = False) -> np.ndarray:
    """Over all dimensions, to ``count`` each: output ``o`` from ``floor(o n / count)`` to ``ceil((o + 1) n / count)``."""
    found = np.empty([count] * a.ndim, dtype=object)
    for out in np.ndindex(*found.shape):
        ranges = [slice(o * n // count, -(-(o + 1) * n // count)) for o, n in zip(out, a.shape, strict=True)]
        found[out] = largest(a[tuple(ranges)].ravel(), shapley)
    return found


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return elementwise("sigmoid", a)


def _tanh(a: np.ndarray) -> np.ndarray:
    return elementwise("tanh", a)


def lstm_step(a: np.ndarray, state: Sequence[np.ndarray], w_ih: np.ndarray, w_hh: np.ndarray) -> tuple[np.ndarray, ...]:
    """Hidden state and cell; the equations of torch.nn.LSTM without biases."""
    hidden, cell = state
    i, f, g, o = np.split(w_ih @ a + w_hh @ hidden, 4)
    cell = _sigmoid(f) * cell + _sigmoid(i) * _tanh(g)
    return _sigmoid(o) * _tanh(cell), cell


def gru_step(a: np.ndarray, state: Sequence[np.ndarray], w_ih: np.ndarray, w_hh: np.ndarray) -> tuple[np.ndarray, ...]:
    """The equations of torch.nn.GRU, with ``h' = n + z (h - n)``."""
    (hidden,) = state
    (r_a, z_a, n_a), (r_h, z_h, n_h) = np.split(w_ih @ a, 3), np.split(w_hh @ hidden, 3)
    new = _tanh(n_a + _sigmoid(r_a + r_h) * n_h)
    return (new + _sigmoid(z_a + z_h) * (hidden - new),)


def rnn_tanh_step(a: np.ndarray, state: Sequence[np.ndarray], w_ih: np.ndarray, w_hh: np.ndarray) -> tuple:
    return (_tanh(w_ih @ a + w_hh @ state[0]),)


def rnn_relu_step(a: np.ndarray, state: Sequence[np.ndarray], w_ih: np.ndarray, w_hh: np.ndarray) -> tuple:
    return (elementwise("relu", w_ih @ a + w_hh @ state[0]),)


def of_several(function: Callable[..., float], *operands: Unit) -> Unit:
    """A function of numbers, by the Shapley values of its arguments; of one, its divided difference."""
    n, sides = len(operands), [(operand.r, operand.x) for operand in operands]

    def at(coalition: Sequence[int]) -> float:
        return function(*(side[i in coalition] for i, side in enumerate(sides)))

    m = np.zeros_like(operands[0].m)
    for i, operand in enumerate(operands):
        others = [j for j in range(n) if j != i]
        for size in range(n):
            for chosen in itertools.combinations(others, size):
                gain = at((*chosen, i)) - at(chosen)
                m = m + float(gain) / operand.difference / (n * math.comb(n - 1, size)) * operand.m
    return Unit(at(range(n)), at(()), m)


def order_statistic(a: Sequence[Unit], rank: int) -> Unit:
    """Threshold by threshold. Of the elements that cross one, the ``many`` in one direction and the ``few`` in the other:

    each of the few has the share of this rank in ``sqrt((many - few)^2 + 4 many)`` ranks about the middle of the two sides' numbers above
    the threshold, and the many share equally what is left of the whole change.
    """
    a = np.array(a, dtype=object)
    x, r = values(a)
    place = len(a) - 1 - rank  # from the largest down
    shares = np.zeros(len(a))

    def within(low: float, high: float) -> float:
        return max(0.0, min(high, place + 1) - max(low, place))

    for low, high in itertools.pairwise(sorted({*x, *r})):
        both = ((x > low) & (r > low)).sum()
        (few, downward), (many, upward) = sorted(
            [(((r > low) & (x <= low)), -1), ((x > low) & (r <= low), 1)], key=lambda group: group[0].sum()
        )
        if not many.any():
            continue
        k, m = few.sum(), many.sum()
        width, middle = math.sqrt((m - k) ** 2 + 4 * m), both + (m + k) / 2
        of_few = within(middle - width / 2, middle + width / 2) / width
        shares[few] += downward * of_few * (high - low)
        shares[many] += upward * (within(both + k, both + m) + k * of_few) / m * (high - low)
    return Unit(np.sort(x)[rank], np.sort(r)[rank], shares / (x - r) @ multipliers(a))


def inverse(a: np.ndarray) -> np.ndarray:
    """``-(Z(x) dA Z(r) + Z(r) dA Z(x)) / 2`` of a matrix, whose entries may be numbers where they are constant."""
    zero = np.zeros_like(next(entry for entry in a.flat if isinstance(entry, Unit)).m)
    a = np.array([entry if isinstance(entry, Unit) else Unit(entry, entry, zero) for entry in a.flat]).reshape(a.shape)
    x, r = (np.linalg.inv(side) for side in values(a))
    by = -(np.einsum("ik,lj->ijkl", x, r) + np.einsum("ik,lj->ijkl", r, x)) / 2
    return combined(x, r, by.reshape(*a.shape, a.size), a.ravel())


def cholesky(a: np.ndarray) -> np.ndarray:
    """The lower triangle ``dL`` that solves ``dL M' + M dL' = dA``, where ``M`` is the mean of the two sides' factors."""
    x, r = (np.linalg.cholesky(side) for side in values(a))
    mean, n = (x + r) / 2, len(a)
    places = [(i, j) for i in range(n) for j in range(i + 1)]
    units = [np.outer(np.eye(n)[i], np.eye(n)[j]) for i, j in places]
    of_factor = np.stack([(unit @ mean.T + mean @ unit.T).ravel() for unit in units], 1)
    symmetric = np.stack([(np.eye(n * n)[k] + np.eye(n * n)[k].reshape(n, n).T.ravel()) / 2 for k in range(n * n)], 1)
    by = np.zeros((n, n, n * n))
    for place, row in zip(places, np.linalg.lstsq(of_factor, symmetric, rcond=None)[0], strict=True):
        by[place] = row
    return combined(x, r, by, a.ravel())


def determinant(a: np.ndarray) -> Unit:
    """The sum, over all permutations, of the products of an entry a row, each by its Shapley values."""
    total = 0
    for order in itertools.permutations(range(len(a))):
        sign = round(np.linalg.det(np.eye(len(a))[list(order)]))
        total = total + product([a[row, column] for row, column in enumerate(order)]) * sign
    return total


def matrix_product(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Of three matrices, each sum of products of three by their Shapley values."""
    found = np.empty((len(a), c.shape[1]), dtype=object)
    for i, j in np.ndindex(*found.shape):
        found[i, j] = sum(product([a[i, k], b[k, m], c[m, j]]) for k, m in np.ndindex(*b.shape))
    return found
