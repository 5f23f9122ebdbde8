"""How far each rule, and what else could have been chosen, is from the operation's exact Shapley values, as markdown tables.

    python benchmarks/rule_distances.py [--pairs 200]

Operands are random pairs (x, r); the players are the operation's operands, the values those of all of its outputs. A cell is the median
over pairs, and in brackets the 90th percentile, of |phi - exact| / |exact|, the exact values by brute force over all coalitions
(tests/reference/shapley.py). "ours" is what DeepExplainer says of a module of that operation.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from reference.shapley import distances, of_pairs

#: (operation on [pairs, players, *features] to [pairs, outputs], x, r) to the players' values [pairs, players, outputs].
Method = Callable[[nn.Module, Tensor, Tensor], Tensor]
#: A batch ``[pairs, ...]`` to its outputs ``[pairs, outputs]``.
Function = Callable[[Tensor], Tensor]
#: An operation and random operands of it.
Case = tuple[nn.Module, Tensor, Tensor]


class Operation(nn.Module):
    """A function as a module."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def explained(**options: Any) -> Method:
    """What DeepExplainer says, each sample against a baseline of its own."""

    def method(operation: nn.Module, x: Tensor, r: Tensor) -> Tensor:
        explainer = DeepExplainer(operation, r[:1], **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values that do not add up: "rescale" is here to be measured
            values = explainer.attribute(x, baselines=r.unsqueeze(1), check_additivity=False).values
        assert isinstance(values, Tensor)
        return per_player(values, x)

    return method


def per_player(values: Tensor, x: Tensor) -> Tensor:
    """A vector's value is the sum of its elements'."""
    features = tuple(range(2, x.dim()))
    return values.sum(features) if features else values


def jacobians(operation: nn.Module, x: Tensor) -> Tensor:
    """Gradients ``[pairs, *operands, outputs]``, by one backward pass for each output."""
    x = x.detach().requires_grad_()
    each = [torch.autograd.grad(output.sum(), x, retain_graph=True)[0] for output in operation(x).unbind(1)]
    return torch.stack(each, -1)


def path_integral(operation: nn.Module, x: Tensor, r: Tensor, nodes: int = 200) -> Tensor:
    """Integrated gradients (arXiv 1703.01365) along the segment from r to x, by Gauss-Legendre."""
    places, weights = np.polynomial.legendre.leggauss(nodes)
    mean = torch.zeros(())
    for t, weight in zip((places + 1) / 2, weights / 2, strict=True):
        mean = mean + weight * jacobians(operation, r + t * (x - r))
    return per_player(mean * (x - r).unsqueeze(-1), x)


def gradient(operation: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    return per_player(jacobians(operation, x) * (x - r).unsqueeze(-1), x)


def own_output(operation: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    """The rescale rule element by element: each output's difference goes to the operand in its own place."""
    return torch.diag_embed(operation(x) - operation(r))


def exp_then_divide(_: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    """Softmax as exp times the reciprocal of a sum, each by its own rule."""
    e_x, e_r = x.exp(), r.exp()
    s_x, s_r = e_x.sum(1), e_r.sum(1)
    direct = torch.diag_embed(((1 / s_x + 1 / s_r) / 2).unsqueeze(1).expand_as(x))
    through_sum = ((e_x + e_r) / 2).unsqueeze(1) / (s_x * s_r).reshape(-1, 1, 1)
    return (e_x - e_r).unsqueeze(2) * (direct - through_sum)


def exp_sum_log(_: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    """Logsumexp as three operations, each by its own rule."""
    e_x, e_r = x.exp(), r.exp()
    s_x, s_r = e_x.sum(1, keepdim=True), e_r.sum(1, keepdim=True)
    return ((e_x - e_r) * (s_x.log() - s_r.log()) / (s_x - s_r)).unsqueeze(2)


def softmax_with_chained_logsumexp(_: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    """p = exp(a - logsumexp(a)) by logarithmic means, but logsumexp as exp, sum and log: multipliers that add up to less than 1."""
    p_x, p_r = torch.softmax(x, 1), torch.softmax(r, 1)
    mean = (p_x - p_r) / (torch.log_softmax(x, 1) - torch.log_softmax(r, 1))
    return torch.diag_embed(mean * (x - r)) - exp_sum_log(_, x, r) * mean.unsqueeze(1)


def product_with_rsqrt(_: nn.Module, x: Tensor, r: Tensor, centre: bool = False) -> Tensor:
    """u / sqrt(mean(u^2)) as a square, a mean, an rsqrt and a product, each by its own rule; u the input, or centred."""
    u_x, u_r = (side - side.mean(1, keepdim=True) if centre else side for side in (x, r))
    v_x, v_r = u_x.square().mean(1, keepdim=True), u_r.square().mean(1, keepdim=True)
    slope = (v_x.rsqrt() - v_r.rsqrt()) / (v_x - v_r)
    direct = torch.diag_embed(((v_x.rsqrt() + v_r.rsqrt()) / 2).expand_as(x))
    through_scale = (u_x + u_r).unsqueeze(2) * (u_x + u_r).unsqueeze(1) / 2 * (slope / x.shape[1]).unsqueeze(2)
    multipliers = direct + through_scale
    if centre:
        multipliers = multipliers - multipliers.mean(1, keepdim=True)
    return (x - r).unsqueeze(2) * multipliers


def at_logarithmic_mean(_: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    """u / sigma with 1 / sigma's mean along the way from one scale to the other in front of u, and what is left to sigma."""
    s_x, s_r = (side.square().mean(1, keepdim=True).sqrt() for side in (x, r))
    inverse = (s_x.log() - s_r.log()) / (s_x - s_r)
    to_scale = (x / s_x - r / s_r - (x - r) * inverse) / (s_x - s_r)
    of_scale = (x + r) / (s_x + s_r) / x.shape[1]
    direct = torch.diag_embed(inverse.expand_as(x))
    return (x - r).unsqueeze(2) * (direct + of_scale.unsqueeze(2) * to_scale.unsqueeze(1))


def product_with_reciprocal(_: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    """a / b as the product of a and 1 / b."""
    (a_x, b_x), (a_r, b_r) = x.unbind(1), r.unbind(1)
    to_a = (a_x - a_r) * (1 / b_x + 1 / b_r) / 2
    to_b = (1 / b_x - 1 / b_r) * (a_x + a_r) / 2
    return torch.stack([to_a, to_b], 1).unsqueeze(2)


def to_all_past(_: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    """The difference of each element of a sort in equal parts to all elements that go past it, in its direction."""
    x, r, o_x, o_r = x.unsqueeze(2), r.unsqueeze(2), x.sort(1).values.unsqueeze(1), r.sort(1).values.unsqueeze(1)
    past = torch.where(o_x >= o_r, (x >= o_x) & (r <= o_r), (x <= o_x) & (r >= o_r))
    return past * (o_x - o_r) / past.sum(1, keepdim=True)


def table(title: str, columns: Mapping[str, Case], methods: Mapping[str, Method | Sequence[Method]]) -> None:
    """A table with the operands beside each other; a method may be several, one a column."""
    print(f"| {title} | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    exactly = [of_pairs(*case) for case in columns.values()]
    for name, method in methods.items():
        each = method if isinstance(method, Sequence) else [method] * len(columns)
        found = (one(*case) for one, case in zip(each, columns.values(), strict=True))
        cells = [_cell(*both) for both in zip(found, exactly, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print()


def overview(title: str, rows: Mapping[str, Case], methods: Mapping[str, Method]) -> None:
    """A table with the operations below each other."""
    print(f"| {title} | {' | '.join(methods)} |\n|---|{'---|' * len(methods)}")
    for name, case in rows.items():
        expected = of_pairs(*case)
        cells = [_cell(method(*case), expected) for method in methods.values()]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print()


def _cell(found: Tensor, expected: Tensor) -> str:
    far = distances(found, expected)
    return f"{_short(far.median())} ({_short(far.quantile(0.9))})"


def _short(value: Tensor) -> str:
    return "0" if value < 1e-10 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def normal(pairs: int, *shape: int, scales: Sequence[float] = (1, 1)) -> tuple[Tensor, Tensor]:
    return torch.randn(pairs, *shape) * scales[0], torch.randn(pairs, *shape) * scales[1]


def attention(tokens: int, width: int, spread: float, by_hand: bool = False) -> Function:
    """Self-attention with one head; ``spread``: the scores'. ``by_hand``: its softmax as a quotient."""
    query, key, value = torch.randn(3, width, width, generator=torch.Generator().manual_seed(width)) / width**0.5

    def function(x: Tensor) -> Tensor:
        scores = (x @ query) @ (x @ key).mT * (spread / width**0.5)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True) if by_hand else torch.softmax(scores, -1)
        return (weights @ (x @ value)).flatten(1)

    return function


def network(features: int, classes: int, gain: float, end: Function) -> Function:
    """One hidden layer, and ``end`` of its logits."""
    generator = torch.Generator().manual_seed(classes)
    first = torch.randn(features, 32, generator=generator) * gain / features**0.5
    last = torch.randn(32, classes, generator=generator) * gain / 4
    return lambda x: end(torch.relu(x @ first) @ last)


def one_after_another(x: Tensor) -> Tensor:
    product, *rest = x.unbind(1)
    for factor in rest:
        product = product * factor
    return product.unsqueeze(1)


def instead(function: Function) -> Method:
    """What DeepExplainer says of the same operation written in another way."""
    return lambda _, x, r: explained()(Operation(function), x, r)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=200, help="pairs of operands a column")
    pairs = parser.parse_args().pairs
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)

    spreads, six = (0.5, 2, 5, 10), [normal(pairs, 6) for _ in range(4)]
    logits = {f"spread {s}": (x * s, r * s) for s, (x, r) in zip(spreads, six, strict=True)}
    softmax = Operation(lambda x: torch.softmax(x, 1))
    table(
        "softmax of 6 logits",
        {name: (softmax, *sides) for name, sides in logits.items()},
        {
            "ours: logarithmic mean": explained(),
            'elementwise rescale (`softmax="rescale"`)': explained(softmax="rescale"),
            "logarithmic mean, logsumexp as exp, sum, log": softmax_with_chained_logsumexp,
            "ours, written by hand: `e / e.sum()`": instead(lambda x: x.exp() / x.exp().sum(1, keepdim=True)),
            "exp, then product with 1 / sum": exp_then_divide,
            "path integral": path_integral,
        },
    )
    logsumexp = Operation(lambda x: torch.logsumexp(x, 1, keepdim=True))
    table(
        "logsumexp of 6",
        {name: (logsumexp, *sides) for name, sides in logits.items()},
        {"ours: logarithmic mean": explained(), "exp, sum, log": exp_sum_log, "path integral": path_integral},
    )

    def log_probabilities(y: Tensor) -> Tensor:
        return torch.log_softmax(y, 1)

    def taken_apart(y: Tensor) -> Tensor:
        return y - y.exp().sum(1, keepdim=True).log()

    gains, inputs = (1, 2, 4), normal(pairs, 8)
    table(
        "log-probabilities of a network of 8 features",
        {f"weights x {gain}": (Operation(network(8, 10, gain, log_probabilities)), *inputs) for gain in gains},
        {
            "ours: logarithmic mean": explained(),
            "exp, sum, log": [instead(network(8, 10, gain, taken_apart)) for gain in gains],
            "path integral": path_integral,
        },
    )
    scales = ((1, 1), (1, 2), (3, 1), (3, 0.3))
    norms: dict[str, tuple[Function, dict[str, Method]]] = {
        "root-mean-square norm": (
            lambda x: nn.functional.rms_norm(x, x.shape[-1:], eps=1e-12),
            {"product with rsqrt": product_with_rsqrt, "`u = sigma z` at the logarithmic mean": at_logarithmic_mean},
        ),
        "layer norm": (
            lambda x: nn.functional.layer_norm(x, x.shape[-1:], eps=1e-12),
            {"product with rsqrt": partial(product_with_rsqrt, centre=True)},
        ),
    }
    for title, (function, others) in norms.items():
        norm = Operation(function)
        table(
            f"{title} of 7, scale of x / of r",
            {f"{a} / {b}": (norm, *normal(pairs, 7, scales=(a, b))) for a, b in scales},
            {
                "ours: `u = sigma z` at the midpoints": explained(),
                **others,
                "elementwise rescale": own_output,
                "path integral": path_integral,
            },
        )

    norm = Operation(norms["root-mean-square norm"][0])
    table(
        "root-mean-square norm, scale of x / of r 3 / 0.3",
        {f"{n} units": (norm, *normal(pairs, n, scales=(3, 0.3))) for n in (3, 6, 12)},
        {"ours: `u = sigma z` at the midpoints": explained(), "path integral": path_integral},
    )

    def operations(functions: Mapping[str, tuple[Function, int]], *scales: Any) -> dict[str, Case]:
        return {
            f"{name}, {a} / {b}" if len(scales) > 1 else name: (
                Operation(function),
                *normal(pairs, size, scales=(a, b)),
            )
            for name, (function, size) in functions.items()
            for a, b in scales
        }

    gradients: dict[str, Method] = {"ours": explained(), "gradient at x": gradient, "path integral": path_integral}
    others = {
        "group norm, 2 groups": (lambda x: nn.functional.group_norm(x, 2), 8),
        "instance norm, 2 channels": (lambda x: nn.functional.instance_norm(x.unflatten(1, (2, 4))).flatten(1), 8),
        "local response norm of 3": (lambda x: nn.functional.local_response_norm(x[..., None], 3, 1).flatten(1), 7),
        "L2 normalize": (lambda x: nn.functional.normalize(x), 7),
        "`x * rsqrt(mean(x^2))`": (lambda x: x * torch.rsqrt(x.square().mean(1, keepdim=True)), 7),
        "`(x - mean) / std`": (lambda x: (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True), 7),
    }
    overview("other norms, scale of x / of r", operations(others, (1, 1), (3, 0.3)), gradients)
    lengths = {
        "norm of 7": (lambda x: x.norm(dim=1, keepdim=True), 7),
        "variance of 7": (lambda x: x.var(1, keepdim=True), 7),
        "standard deviation of 7": (lambda x: x.std(1, keepdim=True), 7),
        "distance of two vectors of 4": (
            lambda x: nn.functional.pairwise_distance(x[:, :4], x[:, 4:], keepdim=True),
            8,
        ),
        "cdist of 2 and 2 vectors": (lambda x: torch.cdist(*x.unflatten(1, (4, 2)).split(2, 1)).flatten(1), 8),
        "cosine similarity of 4": (lambda x: nn.functional.cosine_similarity(x[:, :4], x[:, 4:])[:, None], 8),
    }
    overview("lengths and distances, scale of x / of r", operations(lengths, (1, 1), (3, 0.3)), gradients)
    largest = Operation(lambda x: nn.functional.max_pool2d(x.reshape(-1, 1, 3, 3), 3).flatten(1))
    falling = torch.rand(pairs, 9) < 0.5
    ups, downs = torch.rand(2, pairs, 9)
    table(
        "max of 3 x 3",
        {
            "independent": (largest, *normal(pairs, 9)),
            "x = r + 0.3 noise": (largest, *(lambda x, r: (r + 0.3 * x, r))(*normal(pairs, 9))),
            "all of them move past the other side": (
                largest,
                torch.where(falling, -downs, ups),
                torch.where(falling, ups, -downs),
            ),
        },
        {
            'ours: routing (`rules="deeplift"`)': explained(),
            'ours: Shapley (`rules="shapley"`)': explained(rules="shapley"),
            "path integral": path_integral,
        },
    )
    orders = {
        "median of 5": (lambda x: x.median(1, keepdim=True).values, 5),
        "sort of 5": (lambda x: x.sort(1).values, 5),
        "2 largest of 5": (lambda x: x.topk(2, 1).values, 5),
    }
    overview("order statistics, scale of x / of r", operations(orders, (1, 1), (3, 0.3)), gradients)
    product = Operation(lambda x: (x[:, 0] * x[:, 1]).unsqueeze(1))
    table(
        "a * b",
        {f"{a} / {b}": (product, *normal(pairs, 2, scales=(a, b))) for a, b in ((1, 1), (3, 0.3))},
        {"ours: mean of the other factor": explained(), "gradient at x": gradient, "path integral": path_integral},
    )
    several = Operation(lambda x: x.prod(1, keepdim=True))
    table(
        "product of several",
        {f"{n} factors": (several, *normal(pairs, n)) for n in (3, 5, 8)},
        {
            "ours: mean derivative along the way": explained(),
            "one after another": instead(one_after_another),
            "gradient at x": gradient,
        },
    )
    division = Operation(lambda x: (x[:, 0] / x[:, 1]).unsqueeze(1))

    def quotients(low: float, high: float) -> tuple[nn.Module, Tensor, Tensor]:
        tops, bottoms = torch.randn(2, pairs), (torch.rand(2, pairs) * (high / low - 1) + 1) * low
        x, r = torch.stack([tops, bottoms], 2)
        return division, x, r

    table(
        "a / b, b uniform in",
        {f"[{low}, {high}]": quotients(low, high) for low, high in ((1, 2), (0.1, 2), (0.01, 2))},
        {
            "ours: `a = z b` at the midpoints": explained(),
            "product with 1 / b": product_with_reciprocal,
            "gradient at x": gradient,
            "path integral": path_integral,
        },
    )
    spreads_of_scores = (0.5, 2, 5)
    tokens = [normal(pairs, 5, 4) for _ in spreads_of_scores]
    columns = {
        f"score spread {s}": (Operation(attention(5, 4, s)), *sides)
        for s, sides in zip(spreads_of_scores, tokens, strict=True)
    }
    table(
        "self-attention of 5 tokens",
        columns,
        {
            "ours": explained(),
            "ours, its softmax written by hand": [instead(attention(5, 4, s, by_hand=True)) for s in spreads_of_scores],
            'softmax elementwise (`softmax="rescale"`)': explained(softmax="rescale"),
            "gradient at x": gradient,
            "path integral": path_integral,
        },
    )
    lstm, gru = (cell(4, 2).requires_grad_(False) for cell in (nn.LSTMCell, nn.GRUCell))
    layer = nn.LSTM(2, 3, batch_first=True).requires_grad_(False)
    gates = {
        "gated linear unit": (lambda x: nn.functional.glu(x), 6),
        "LSTM cell: input 4, hidden 2, cell 2": (lambda x: torch.cat(lstm(x[:, :4], (x[:, 4:6], x[:, 6:])), 1), 8),
        "GRU cell: input 4, hidden 2": (lambda x: gru(x[:, :4], x[:, 4:]), 6),
        "LSTM over 4 steps of 2": (lambda x: layer(x.unflatten(1, (4, 2)))[0].flatten(1), 8),
    }
    overview("gates, scale of x / of r", operations(gates, (1, 1), (3, 0.3)), gradients)
    matrices = {
        "inverse of 3 x 3": (
            lambda x: torch.linalg.inv(2 * torch.eye(3) + x.tanh().unflatten(1, (3, 3)) / 2).flatten(1),
            9,
        ),
        "log of its determinant": (
            lambda x: torch.logdet(2 * torch.eye(3) + x.tanh().unflatten(1, (3, 3)) / 2).unsqueeze(1),
            9,
        ),
    }
    overview("matrices `2 + tanh(x) / 2`", operations(matrices, (1, 1)), gradients)
    sorted_values = Operation(lambda x: x.sort(1).values)
    table(
        "sort, scale of x / of r",
        {
            f"{n} elements, {a} / {b}": (sorted_values, *normal(pairs, n, scales=(a, b)))
            for n in (5, 11)
            for a, b in ((1, 1), (3, 0.3))
        },
        {"ours": explained(), "equal parts to all that go past": to_all_past, "path integral": path_integral},
    )


if __name__ == "__main__":
    main()
