"""Integers as inputs: token ids, categories beside numbers, and columns of codes among numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepshap_ext import AdditivityError, DeepExplainer, ExplanationError, UnsupportedOperationError

TABLE = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PAIRS = torch.randn(900, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
X, BACKGROUND = (torch.randint(30, (n, 5), generator=torch.Generator().manual_seed(n)) for n in (3, 6))
GRID = PAIRS[:900].view(2, 5, 30, 9)[..., :3]
BOTH = PAIRS.view(30, 30, 3)


def _shifted(t: Tensor) -> Tensor:
    """Tokens shifted by one place, as BART shifts them."""
    shifted = t.new_zeros(t.shape)
    first = shifted[:, :2]
    shifted[:, 1:].copy_(t[:, :-1])
    shifted[:, 0].fill_(2)
    shifted.masked_fill_(shifted == -100, 1)
    return torch.cat([first, shifted[:, 2:]], 1)


def _buffer(t: Tensor) -> Tensor:
    buffer = torch.zeros(len(t), 8, dtype=torch.int64)
    buffer[:, : t.shape[1]] = t
    return buffer


LOOKUPS: dict[str, Callable[[Tensor], Tensor]] = {
    "getitem": lambda t: TABLE[t].sum(1),
    "getitem of a column": lambda t: TABLE[:, 1][t],
    "embedding": lambda t: nn.functional.embedding(t, TABLE).sum(1),
    "index_select": lambda t: TABLE.index_select(0, t.flatten()).view(*t.shape, 3).sum(1),
    "index_select of columns": lambda t: TABLE.mT.index_select(1, t.flatten()).view(3, *t.shape).sum(2).mT,
    "gather": lambda t: TABLE[:, :1].expand(30, 5).gather(0, t),
    "take": lambda t: TABLE.take(t),
    "one_hot": lambda t: nn.functional.one_hot(t, 30).double().mean(1),
    "a table of integers": lambda t: TABLE[torch.arange(29, -1, -1)[t]].sum(1),
    "concatenated": lambda t: TABLE[torch.cat([torch.zeros(len(t), 1, dtype=torch.int64), t], 1)].sum(1),
    "clamped": lambda t: TABLE[t.clamp(max=20)].sum(1),
    "shifted": lambda t: TABLE[(t + 3).clamp(max=29)].sum(1),
    "two in one code": lambda t: PAIRS[t[:, :1] * 30 + t[:, 1:2]].sum(1),
    "hashed": lambda t: TABLE[t % 7].sum(1) + TABLE[t // 3].sum(1) + TABLE[t & 5].sum(1),
    "written into a buffer": lambda t: TABLE[_buffer(t)[:, :6].flip(1)].cumsum(1)[:, 4],
    "flattened, sequence first": lambda t: TABLE[t.mT.flatten()].view(5, -1, 3).tanh().sum(0),
    "where": lambda t: TABLE[torch.where(t > 100, 0, t)].sum(1),
    "sorted": lambda t: (TABLE[t.sort(1).values] * torch.arange(5)[:, None]).sum(1),
    "largest": lambda t: TABLE[t.max(1).values],
    "as numbers": lambda t: t.double() * t.double().mean(1, keepdim=True) / 100,
    "other integers": lambda t: TABLE[t.int().long()].sum(1),
    "along a dimension": lambda t: TABLE.mT[:, t, None].sum((2, 3)).mT,
    "beside numbers and ellipses": lambda t: GRID[0, ..., t, :].sum((0, 2)),
    "at each position": lambda t: GRID[1, torch.arange(5), t].tanh().sum(1),
    "in dimensions that are apart": lambda t: GRID[torch.arange(2), :, t[:, :2]].sum((1, 2)),
    "bag of words": lambda t: torch.zeros(len(t), 30).double().scatter_add(1, t, torch.ones(t.shape).double()) @ TABLE,
    "counted from the end": lambda t: torch.zeros(len(t), 30).double().scatter_add_(-1, t, TABLE[t].sum(2)) @ TABLE,
    "set of words": lambda t: torch.zeros(len(t), 30).double().scatter_(1, t % 4, 1.0) @ TABLE,
    "one_hot by scatter": lambda t: torch.zeros(len(t), 30, 5).double().scatter_(1, t[:, None], 1.0).mT[:, 2] @ TABLE,
    "one by one": lambda t: torch.stack([TABLE[row[0]] * GRID[0, 1, row[2]] for row in t]),
    "bits": lambda t: (t[..., None] >> torch.arange(3) & 1).double().mean(1),
    "rounded quotients": lambda t: TABLE[torch.div(t, 3, rounding_mode="floor")].sum(1),
    "rounded numbers": lambda t: TABLE[(t.double() / 3).round().long()].sum(1),
    "two in one subscript": lambda t: BOTH[t[:, 1:], t[:, :-1]].sum(1),
    "three in one subscript": lambda t: BOTH[t[:, 0], t[:, 1], t[:, 2] % 3],
    "one twice in a subscript": lambda t: BOTH[t, t].sum(1),
    "at positions and another": lambda t: PAIRS.view(5, 30, 6, 3)[torch.arange(5), t, t.flip(1) % 6].sum(1),
    "hashed together": lambda t: TABLE[(t[:, 1:] * 31 ^ t[:, :-1]) % 30].sum(1),
    "remainders by others": lambda t: TABLE[t[:, 1:] % (t[:, :-1] + 1)].sum(1),
    "put at other places": lambda t: TABLE[torch.zeros(len(t), 9).long().scatter(1, PLACES.expand_as(t), t)].sum(1),
    "copied to other places": lambda t: TABLE[torch.zeros(len(t), 9).long().index_copy(1, PLACES, t)].sum(1),
    "put by subscripts": lambda t: TABLE[_put(t)].sum(1),
    "by integers": lambda t: (t @ torch.arange(10).view(5, 2)).double() / 100,
    "take_along_dim": lambda t: torch.take_along_dim(TABLE.expand(len(t), -1, -1), t[:, :, None], 1).sum(1),
    "aten's index": lambda t: torch.ops.aten.index(BOTH, [None, t]).sum((0, 2)),
    "by keyword": lambda t: TABLE.gather(dim=0, sparse_grad=False, index=t[:, :3]),
    "of bytes that wrap around": lambda t: (t.to(torch.uint8) * 20 - 30).double().sin(),
    "added to numbers in place": lambda t: torch.ones(len(t), 5).double().add_(t) / 30,
    "written into views": lambda t: TABLE[_shifted(t)].cumsum(1)[:, 3],
    "times numbers": lambda t: (TABLE[t] * t.double().mean(1)[:, None, None]).sum(1) / 10,
}


PLACES = torch.tensor([0, 2, 3, 7, 8])


def _put(t: Tensor) -> Tensor:
    rows = torch.arange(len(t))[:, None]
    return torch.zeros(len(t), 9).long().index_put((rows, PLACES), t)


class Function(nn.Module):
    def __init__(self, function: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Any) -> Tensor:
        return torch.tanh(self.function(x))


@pytest.mark.parametrize("name", LOOKUPS)
@pytest.mark.parametrize("how", [{}, {"pairing": "aligned"}, {"baselines": BACKGROUND.expand(3, 6, 5)}])
def test_what_is_done_with_codes(name: str, how: dict[str, Any]) -> None:
    found = DeepExplainer(Function(LOOKUPS[name]), BACKGROUND).attribute(X, **how)
    assert found.values.dtype == torch.float64
    assert found.convergence_delta.abs().max() < 1e-14


def test_a_code_has_what_was_looked_up_for_it() -> None:
    """In a sum over places each place has exactly its own term's difference; a place with the same code on both sides has 0."""
    weights = torch.tensor([1.0, -2, 3, 0, 5]).double()[:, None]

    class Sum(nn.Module):
        def forward(self, t: Tensor) -> Tensor:
            return (TABLE[t] * weights).sum(1)

    x, r = X.clone(), BACKGROUND[:1]
    x[:, 2] = r[0, 2]
    values = DeepExplainer(Sum(), r).attribute(x).values
    torch.testing.assert_close(values, (TABLE[x] - TABLE[r]) * weights, rtol=1e-12, atol=1e-14)
    assert not values[:, 2].any()


def test_a_code_has_what_its_one_hot_columns_have_in_all() -> None:
    class Shared(nn.Module):
        def forward(self, t: Tensor) -> Tensor:
            vectors = TABLE[t] if t.dim() == 2 else t @ TABLE
            return (vectors.tanh().cumsum(1) * vectors.softmax(2)).sum(1)

    by_code = DeepExplainer(Shared(), BACKGROUND).attribute(X).values
    x, background = (nn.functional.one_hot(t, 30).double() for t in (X, BACKGROUND))
    by_column = DeepExplainer(Shared(), background).attribute(x).values
    torch.testing.assert_close(by_code, by_column.sum(2), rtol=1e-12, atol=1e-14)


def test_codes_of_one_lookup_have_its_shapley_values() -> None:
    """The values of two players: for each, the mean of what it adds to the baselines and of what it adds to the other player."""

    class Pairs(nn.Module):
        def forward(self, t: Tensor) -> Tensor:
            return BOTH[t[:, 0], t[:, 1]]

    x, r = X[:, :2], BACKGROUND[:1, :2]
    (a, b), (c, d) = x.unbind(1), r.unbind(1)
    first = (BOTH[a, b] - BOTH[c, b] + BOTH[a, d] - BOTH[c, d]) / 2
    second = (BOTH[a, b] - BOTH[a, d] + BOTH[c, b] - BOTH[c, d]) / 2
    values = DeepExplainer(Pairs(), r).attribute(x).values
    torch.testing.assert_close(values, torch.stack([first, second], 1), rtol=1e-12, atol=1e-14)


class Hashed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 3), nn.Linear(3, 2)

    def forward(self, t: Tensor) -> Tensor:
        return self.head(self.embed(t % 7).sum(1)).tanh()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_codes_wider_than_the_models_floats(dtype: torch.dtype) -> None:
    """Hashes that are equal in float32 are different codes; values have the model's dtype, as for numbers."""
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    found = DeepExplainer(Hashed().to(dtype), BACKGROUND + 2**40).attribute(X + 2**40)
    assert found.values.dtype == torch.promote_types(dtype, torch.float32)
    assert found.convergence_delta.abs().max() < tolerance * (found.output - found.expected_value).abs().max()


def test_codes_that_no_number_tells_apart_are_refused() -> None:
    with pytest.raises(ExplanationError, match=r"must lie between -2\*\*53 and 2\*\*53, got \d{19}: pass remainders"):
        DeepExplainer(Hashed(), BACKGROUND + 2**60)


class Mixed(nn.Module):
    """Categories first, as TabTransformer takes them, and numbers that meet no layer of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.linear = nn.Embedding(12, 4), nn.Linear(3, 1)
        self.deep = nn.Sequential(nn.Linear(11, 8), nn.GELU(), nn.Linear(8, 1))

    def forward(self, category: Tensor, numbers: Tensor) -> Tensor:
        e = self.embed(category + torch.tensor([0, 6]))
        return self.linear(numbers) + e.sum((1, 2))[:, None] + self.deep(torch.cat([e.flatten(1), numbers], 1))


def test_categories_and_numbers() -> None:
    model = Mixed().double()
    category, numbers = torch.randint(6, (20, 2)), torch.randn(20, 3).double()
    both = DeepExplainer(model, [category, numbers]).attribute([category[:4], numbers[:4]])
    assert [tuple(values.shape) for values in both.values] == [(4, 2, 1), (4, 3, 1)]
    assert both.convergence_delta.abs().max() < 1e-13
    # By name, where what is explained comes behind it.
    explainer = DeepExplainer(model, numbers, sample_kwargs={"category": category})
    alone = explainer.attribute(numbers[:4], sample_kwargs={"category": category[:4]})
    assert alone.convergence_delta.abs().max() < 1e-13


def test_keywords_that_leave_no_place_are_named() -> None:
    numbers = torch.randn(4, 3)
    with pytest.raises(ValueError, match="leave no argument for the inputs: the model takes category, numbers"):
        DeepExplainer(Mixed(), numbers, kwargs={"category": numbers, "numbers": numbers})


def test_a_column_of_codes_among_numbers() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.rest = nn.Embedding(12, 3), nn.Sequential(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 2))

        def forward(self, x: Tensor) -> Tensor:
            codes = x[:, :2].long() + torch.tensor([0, 6])
            return self.rest(torch.cat([self.embed(codes).flatten(1), x[:, 2:]], 1))

    model = Table().double()
    data = torch.cat([torch.randint(6, (40, 2)).double(), torch.randn(40, 3).double()], 1)
    found = DeepExplainer(model, data[:20]).attribute(data[20:])
    assert found.convergence_delta.abs().max() < 1e-13
    # The same as categories of their own.
    pair = DeepExplainer(Pair(model), [data[:20, :2].long(), data[:20, 2:]])
    apart = pair.attribute([data[20:, :2].long(), data[20:, 2:]])
    torch.testing.assert_close(found.values, torch.cat(apart.values, 1), rtol=1e-9, atol=1e-14)


class Pair(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        return self.inner(torch.cat([codes.double(), numbers], 1))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_an_embedding_bag_adds_up(mode: str) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(30, 4, mode=mode), nn.Linear(4, 2)

        def forward(self, t: Tensor) -> Tensor:
            return self.head(self.bag(t)).tanh()

    assert DeepExplainer(Bag().double(), BACKGROUND).attribute(X).convergence_delta.abs().max() < 1e-13


COLUMNS: dict[str, Callable[[Tensor], Tensor]] = {
    "rounded": lambda x: x[:, 0].round().long(),
    "rounded down": lambda x: torch.floor(x[:, 0] + 0.5).to(torch.int32),
    "truncated": lambda x: x[:, 0].trunc().type(torch.int64),
    "by type": lambda x: x[:, 0].type(torch.LongTensor),
    "as tensor": lambda x: torch.as_tensor(x[:, 0], dtype=torch.int64),
    "detached": lambda x: x.detach()[:, 0].long(),
    "clamped": lambda x: x[:, 0].clamp(0, 8).long(),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_how_a_column_becomes_codes(name: str) -> None:
    class Table(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (TABLE[COLUMNS[name](x)] * x[:, 1:]).tanh()

    data = torch.cat([torch.randint(9, (8, 1)), torch.randn(8, 3)], 1).double()
    data[4:6, 0] = data[0, 0]
    found = DeepExplainer(Table(), data[:1]).attribute(data[4:])
    assert found.convergence_delta.abs().max() < 1e-14
    assert not found.values[:2, 0].any() and found.values[2:, 0].any()


class OneHot(nn.Module):
    """Reads a sequence as numbers of its own dtype, or as they are."""

    def __init__(self, cast: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.cast, self.conv = cast, nn.Conv1d(4, 3, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.cast(x)).relu().mean(2)


CASTS: dict[str, Callable[[Tensor], Tensor]] = {
    "by the model": lambda x: x.float(),
    "by arithmetic": lambda x: x * 2.0 - 1,
    "for the model": lambda x: x,
}


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.uint8, torch.int64])
@pytest.mark.parametrize("cast", CASTS)
def test_integers_that_are_taken_as_numbers(cast: str, dtype: torch.dtype) -> None:
    """The same values as of numbers, whoever converts them."""
    model = OneHot(CASTS[cast])
    rows = nn.functional.one_hot(torch.randint(4, (8, 20)), 4).mT.to(dtype)
    explainer, expected = DeepExplainer(model, rows[:5]), DeepExplainer(model, rows[:5].float())
    torch.testing.assert_close(explainer.attribute(rows[5:]).values, expected.attribute(rows[5:].float()).values)
    own = explainer.attribute(rows[5:], baselines=rows[:5].expand(3, 5, 4, 20)).values
    torch.testing.assert_close(own, expected.attribute(rows[5:].float()).values)


def test_codes_beside_one_hot_rows_of_bytes() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.conv = nn.Embedding(30, 3), nn.Conv1d(4, 3, 5)

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return self.embed(t).sum(1) * self.conv(x).relu().mean(2)

    rows = nn.functional.one_hot(torch.randint(4, (9, 20)), 4).mT.to(torch.int8)
    found = DeepExplainer(Both(), [BACKGROUND, rows[:6]]).attribute([X, rows[6:]])
    assert [tuple(values.shape) for values in found.values] == [(3, 5, 3), (3, 4, 20, 3)]
    assert [values.dtype for values in found.values] == [torch.float32, torch.float32]


def test_counts_for_a_model_of_numbers() -> None:
    counts = torch.randint(5, (8, 4))
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2))
    expected = DeepExplainer(model, counts[:5].float()).shap_values(counts[5:].float())
    explainer = DeepExplainer(model, counts[:5])
    for rows in (counts[5:], counts[5:].int(), counts[5:].double(), counts[5:].numpy()):
        torch.testing.assert_close(explainer.shap_values(rows), expected)
    # They have what numbers have and codes do not.
    assert explainer.attribute(counts[5:], multipliers=True).multipliers.shape == (3, 4, 2)


def test_later_codes_come_in_the_backgrounds_dtype() -> None:
    explainer = DeepExplainer(Hashed(), BACKGROUND)
    for rows in (X.int(), X.float()):
        with pytest.raises(TypeError, match=r"X must be of the background's dtype torch\.int64, got .* pass X\.to"):
            explainer.attribute(rows)


def test_a_comparison_decides() -> None:
    class Padded(nn.Module):
        def forward(self, t: Tensor) -> Tensor:
            return (TABLE[t] * (t != 7).unsqueeze(-1)).sum(1)

    x = X.clone()
    x[x == 7] = 8
    background = BACKGROUND.clone()
    background[background == 7] = 8
    assert DeepExplainer(Padded(), background).attribute(x).convergence_delta.abs().max() < 1e-14
    x[1, 2] = 7
    with pytest.raises(
        AdditivityError,
        match=r"torch\.Tensor\.ne of explained integers in Padded .* takes different decisions for sample\(s\) 1 .* sample_kwargs",
    ):
        DeepExplainer(Padded(), background).attribute(x)


class Chosen(nn.Module):
    """``choice``: what the second input's integers or truth values decide."""

    def __init__(self, choice: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.choice = choice

    def forward(self, t: Tensor, by: Tensor) -> Tensor:
        return self.choice(TABLE[t].tanh().cumsum(1), by)


CHOICES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "index": lambda e, by: e[torch.arange(len(e)), by],
    "gather": lambda e, by: e.gather(1, by[:, None, None].expand(-1, 1, 3)),
    "mask": lambda e, by: e.masked_fill(~by.to(torch.bool)[:, None, None], 0).sum(1),
    "where": lambda e, by: torch.where((by == 1)[:, None, None], e, TABLE[:5]).sum(1),
    "classes": lambda e, by: nn.functional.cross_entropy(e[:, 0, :2], by, reduction="none"),
}


@pytest.mark.parametrize("name", CHOICES)
def test_integers_that_choose_decide(name: str) -> None:
    explainer = DeepExplainer(Chosen(CHOICES[name]), [BACKGROUND, torch.ones(6, dtype=torch.int64)])
    by = torch.ones(3, dtype=torch.int64)
    found = explainer.attribute([X, by])
    assert found.convergence_delta.abs().max() < 1e-14 and not found.values[1].any()
    by[2] = 0
    with pytest.raises(ExplanationError, match=r"takes different decisions for sample\(s\) 2"):
        explainer.attribute([X, by])


def _subscribed(t: Tensor) -> Tensor:
    one_hot = torch.zeros(len(t), 30).double()
    one_hot[torch.arange(len(t)), t[:, 0]] = 1
    return one_hot @ TABLE


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "scatter": (
        lambda t: torch.zeros(len(t), 30).double().scatter(1, t, torch.ones(t.shape).double()) @ TABLE,
        r"scatter .* for one number that it writes: write torch.scatter_add",
    ),
    "comparison": (
        lambda t: (t[..., None] == torch.arange(30)).double().mean(1) @ TABLE,
        r"torch\.Tensor\.\S+ of explained integers in Function .* decides\. .* one_hot: write it as one of these, or explain the numbers",
    ),
    "written by subscript": (_subscribed, r"__setitem__ of explained integers in Function .* decides"),
    "in place": (lambda t: TABLE[t.clone().remainder_(7)].sum(1), r"remainder_ in Function .* new ones, not in place"),
    "wide hashes": (
        lambda t: TABLE[(t * 0x5851F42D4C957F2D).sum(1) % 30],
        r"torch\.Tensor\.mul in Function makes integers beyond 2\*\*53 of explained ones: take remainders before it",
    ),
    "transforms": (
        lambda t: torch.vmap(lambda row: TABLE[row].sum(0))(t),
        r"runs inside a transform of torch\.func \(vmap, grad, \.\.\.\), where explained integers cannot be followed",
    ),
    "lists of codes": (
        lambda t: TABLE[torch.stack([torch.as_tensor([row[0], row[1]]) for row in t])].sum(1),
        r"made from what is explained by decisions only",
    ),
    "offsets of bags": (
        lambda t: nn.functional.embedding_bag(t.flatten(), TABLE, torch.arange(len(t)) * 5),
        r"embedding_bag has a rule for bags of shape \[batch, length\]",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused(name: str) -> None:
    function, message = REFUSED[name]
    with pytest.raises(UnsupportedOperationError, match=message):
        DeepExplainer(Function(function), BACKGROUND)


def test_truth_values_that_choose_decide() -> None:
    model = Chosen(lambda e, by: torch.where(~by[:, None, None], e, -e).sum(1))
    explainer = DeepExplainer(model, [BACKGROUND, torch.ones(6, dtype=torch.bool)])
    assert explainer.attribute([X, torch.ones(3, dtype=torch.bool)]).convergence_delta.abs().max() < 1e-14
