"""Integers as inputs: token ids, categories beside numbers, and columns of codes among numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, ExplanationError, UnsupportedOperationError

TABLE = torch.randn(30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
PAIRS = torch.randn(900, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
X, BACKGROUND = (torch.randint(30, (n, 5), generator=torch.Generator().manual_seed(n)) for n in (3, 6))
GRID = PAIRS[:900].view(2, 5, 30, 9)[..., :3]


def _shifted(t: Tensor) -> Tensor:
    """As BART shifts its tokens."""
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
    "of bytes that wrap around": lambda t: (t.to(torch.uint8) * 20 - 30).double().sin(),
    "added to numbers in place": lambda t: torch.ones(len(t), 5).double().add_(t) / 30,
    "written into views": lambda t: TABLE[_shifted(t)].cumsum(1)[:, 3],
    "times numbers": lambda t: (TABLE[t] * t.double().mean(1)[:, None, None]).sum(1) / 10,
}


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
    """Of a sum over places each place has its own term's difference, exactly; the same code has nothing."""
    weights = torch.tensor([1.0, -2, 3, 0, 5]).double()[:, None]

    class Sum(nn.Module):
        def forward(self, t: Tensor) -> Tensor:
            return (TABLE[t] * weights).sum(1)

    x, r = X.clone(), BACKGROUND[:1]
    x[:, 2] = r[0, 2]
    values = DeepExplainer(Sum(), r).attribute(x).values
    torch.testing.assert_close(values, (TABLE[x] - TABLE[r]) * weights, rtol=1e-12, atol=1e-14)
    assert not values[:, 2].any()


_SMALL: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LANGUAGE_MODELS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(intermediate_size=64, **_SMALL)),
    "roberta": lambda: transformers.RobertaForSequenceClassification(
        transformers.RobertaConfig(intermediate_size=64, pad_token_id=1, **_SMALL)
    ),
    "llama": lambda: transformers.LlamaForSequenceClassification(
        transformers.LlamaConfig(intermediate_size=64, pad_token_id=49, **_SMALL)
    ),
}


@pytest.mark.parametrize("name", LANGUAGE_MODELS)
def test_tokens_have_the_sum_of_their_embeddings_values(name: str) -> None:
    model = LANGUAGE_MODELS[name]().double().eval()
    tokens, blank = torch.randint(2, 49, (3, 7)), torch.full((2, 7), 5)
    embeddings = model.get_input_embeddings()
    by_layer = DeepExplainer((model, embeddings), blank, at="output").attribute(tokens)
    by_token = DeepExplainer(model, blank).attribute(tokens)
    torch.testing.assert_close(by_token.values, by_layer.values.sum(2), rtol=1e-9, atol=1e-14)


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
def test_bags(mode: str) -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(30, 4, mode=mode), nn.Linear(4, 2)

        def forward(self, t: Tensor) -> Tensor:
            return self.head(self.bag(t)).tanh()

    assert DeepExplainer(Bag().double(), BACKGROUND).attribute(X).convergence_delta.abs().max() < 1e-13


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool, torch.uint8])
def test_one_hot_integers_for_a_model_of_numbers(dtype: torch.dtype) -> None:
    one_hot = nn.functional.one_hot(torch.randint(4, (5, 20)), 4).mT.to(dtype)
    with pytest.raises(ExplanationError, match=r"it runs on data as numbers: pass floating-point ones, by \.float\(\)"):
        DeepExplainer(nn.Sequential(nn.Conv1d(4, 1, 20), nn.Flatten()), one_hot)
    DeepExplainer(nn.Sequential(nn.Conv1d(4, 1, 20), nn.Flatten()), one_hot.float())


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
    with pytest.raises(ExplanationError, match=r"torch\.Tensor\.ne in Padded .* takes different decisions"):
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


def test_what_scatter_cannot_tell_is_refused() -> None:
    class Scatter(nn.Module):
        def forward(self, t: Tensor) -> Tensor:
            return torch.zeros(len(t), 30).double().scatter(1, t, torch.ones(t.shape).double()) @ TABLE

    with pytest.raises(
        UnsupportedOperationError, match=r"scatter .* for one number that it writes: write torch.scatter_add"
    ):
        DeepExplainer(Scatter(), BACKGROUND).attribute(X)


def test_truth_values_that_choose_decide() -> None:
    model = Chosen(lambda e, by: torch.where(~by[:, None, None], e, -e).sum(1))
    explainer = DeepExplainer(model, [BACKGROUND, torch.ones(6, dtype=torch.bool)])
    assert explainer.attribute([X, torch.ones(3, dtype=torch.bool)]).convergence_delta.abs().max() < 1e-14
