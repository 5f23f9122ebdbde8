"""Models of tokens and of categories: a code has the sum of the values of what was looked up for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

_SMALL: dict[str, Any] = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_GPT: dict[str, Any] = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}

CLASSIFIERS: dict[str, Callable[[], nn.Module]] = {
    "BERT": lambda: transformers.BertForSequenceClassification(transformers.BertConfig(intermediate_size=64, **_SMALL)),
    "DistilBERT": lambda: transformers.DistilBertForSequenceClassification(
        transformers.DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=2, hidden_dim=64)
    ),
    # Positions are counted from comparisons with the padding token.
    "RoBERTa": lambda: transformers.RobertaForSequenceClassification(
        transformers.RobertaConfig(intermediate_size=64, pad_token_id=1, **_SMALL)
    ),
    # The last token that is no padding is found by comparisons.
    "LLaMA": lambda: transformers.LlamaForSequenceClassification(
        transformers.LlamaConfig(intermediate_size=64, pad_token_id=49, **_SMALL)
    ),
}
CAUSAL: dict[str, Callable[[], nn.Module]] = {
    "GPT-2": lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**_GPT)),
    "LLaMA": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(intermediate_size=64, **_SMALL)),
}
TOKENS, BLANK = torch.randint(2, 49, (3, 7), generator=torch.Generator().manual_seed(0)), torch.full((2, 7), 5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_tokens_have_the_sum_of_their_embeddings_values(name: str) -> None:
    model = CLASSIFIERS[name]().double().eval()
    tokens = TOKENS.clone()
    tokens[:, 3] = 5
    embedding = model.get_input_embeddings()
    by_vector = DeepExplainer((model, embedding), BLANK, at="output").shap_values(tokens)
    by_token = DeepExplainer(model, BLANK).shap_values(tokens)
    assert by_token.shape == (3, 7, 2)
    torch.testing.assert_close(by_token, by_vector.sum(2), rtol=1e-9, atol=1e-14)
    assert not by_token[:, 3].any()


def next_token(result: Any) -> Tensor:
    return result.logits[:, -1]


@pytest.mark.parametrize("name", CAUSAL)
def test_the_next_tokens_logit_by_the_prompts_tokens(name: str) -> None:
    model = CAUSAL[name]().double().eval()
    by_vector = DeepExplainer((model, model.get_input_embeddings()), BLANK, at="output", output=next_token)
    expected = by_vector.attribute(TOKENS, target=7).values.sum(2)
    # As a user calls a large one: neither the other places' logits nor a cache are computed.
    options = {"kwargs": {"logits_to_keep": 1, "use_cache": False}, "output": next_token}
    double = DeepExplainer(model, BLANK, **options).attribute(TOKENS, target=7).values
    torch.testing.assert_close(double, expected, rtol=1e-9, atol=1e-14)

    # The check of additivity takes what bfloat16 rounds.
    found = DeepExplainer(model.bfloat16(), BLANK, **options).attribute(TOKENS, target=7)
    assert found.values.shape == (3, 7) and found.values.dtype == torch.float32
    assert (found.values - expected).abs().max() < 0.1 * expected.abs().max()
    assert found.convergence_delta.abs().max() < 0.05 * (found.output - found.expected_value).abs().max()


SIZES = (5, 3, 8)
OFFSETS = torch.tensor([0, 5, 8])
DIMENSION = 6


class EntityEmbeddings(nn.Module):
    """arXiv 1604.06737: an embedding a category, all of them and the numbers into dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleList(nn.Embedding(size, DIMENSION) for size in SIZES)
        self.dense = nn.Sequential(nn.Linear(3 * DIMENSION + 2, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        embedded = [embed(category) for embed, category in zip(self.embeddings, categories.unbind(1), strict=True)]
        return self.dense(torch.cat([*embedded, numbers], 1))


class DeepFM(nn.Module):
    """arXiv 1703.04247: linear terms, products of pairs of embeddings, and dense layers, of codes that offsets are added to."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offsets", OFFSETS)
        self.linear, self.embeddings = nn.Embedding(sum(SIZES), 2), nn.Embedding(sum(SIZES), DIMENSION)
        self.numbers = nn.Linear(2, 2)
        self.deep = nn.Sequential(nn.Linear(3 * DIMENSION + 2, 8), nn.ReLU(), nn.Linear(8, 2))

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        codes = categories + self.offsets.unsqueeze(0)
        e = self.embeddings(codes)
        pairs = (e.sum(1).square() - e.square().sum(1)).sum(1, keepdim=True) / 2
        deep = self.deep(torch.cat([e.flatten(1), numbers], 1))
        return self.linear(codes).sum(1) + self.numbers(numbers) + pairs + deep


def _transformer(dimension: int) -> nn.Module:
    return nn.TransformerEncoderLayer(dimension, 2, 16, dropout=0.1, batch_first=True, norm_first=True)


class FTTransformer(nn.Module):
    """arXiv 2106.11959: numbers and categories are tokens alike, beside one that is read out."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offsets", OFFSETS)
        self.weight = nn.Parameter(torch.randn(2, DIMENSION))
        self.bias = nn.Parameter(torch.randn(5, DIMENSION))
        self.embeddings = nn.Embedding(sum(SIZES), DIMENSION)
        self.cls = nn.Parameter(torch.randn(DIMENSION))
        self.transformer = _transformer(DIMENSION)
        self.head = nn.Sequential(nn.LayerNorm(DIMENSION), nn.ReLU(), nn.Linear(DIMENSION, 2))

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        tokens = [self.weight * numbers.unsqueeze(2), self.embeddings(categories + self.offsets)]
        cls = self.cls.expand(len(numbers), 1, -1)
        return self.head(self.transformer(torch.cat([torch.cat(tokens, 1) + self.bias, cls], 1))[:, -1])


class TabTransformer(nn.Module):
    """arXiv 2012.06678: attention among the categories, whose embeddings have a part that is the column's; numbers join behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offsets", OFFSETS)
        self.column, self.embeddings = nn.Parameter(torch.randn(3, 2)), nn.Embedding(sum(SIZES), DIMENSION)
        self.transformer, self.norm = _transformer(DIMENSION + 2), nn.LayerNorm(2)
        self.dense = nn.Sequential(nn.Linear(3 * (DIMENSION + 2) + 2, 8), nn.SELU(), nn.Linear(8, 2))

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        shared = self.column.unsqueeze(0).repeat(len(categories), 1, 1)
        tokens = torch.cat([shared, self.embeddings(categories + self.offsets)], 2)
        return self.dense(torch.cat([self.transformer(tokens).flatten(1), self.norm(numbers)], 1))


class Columns(nn.Module):
    """Categories as columns of a table of numbers, which are taken out as TabNet takes them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, table: Tensor) -> Tensor:
        categories = [table[:, column].long() for column in range(3)]
        return self.model(torch.stack(categories, 1), table[:, 3:])


TABULAR: dict[type[nn.Module], Callable[[Any], Sequence[nn.Module]]] = {
    EntityEmbeddings: lambda model: [*model.embeddings],
    DeepFM: lambda model: [model.linear, model.embeddings],
    FTTransformer: lambda model: [model.embeddings],
    TabTransformer: lambda model: [model.embeddings],
}


def table(rows: int) -> tuple[Tensor, Tensor]:
    categories = torch.stack([torch.randint(size, (rows,)) for size in SIZES], 1)
    return categories, torch.randn(rows, 2, dtype=torch.float64)


@pytest.mark.parametrize("kind", TABULAR)
def test_categories_have_the_sum_of_their_embeddings_values(kind: type[nn.Module]) -> None:
    model = kind().double().eval()
    (categories, numbers), background = table(4), table(6)
    found = DeepExplainer(model, [*background]).attribute([categories, numbers])
    assert [tuple(values.shape) for values in found.values] == [(4, 3, 2), (4, 2, 2)]

    layers = DeepExplainer((model, TABULAR[kind](model)), [*background], at="output")
    # Numbers go past the embeddings, whose values are right all the same.
    by_vector = layers.attribute([categories, numbers], check_additivity="ignore").values
    by_category = [vectors.sum(2 if vectors.dim() == 4 else 1) for (vectors,) in by_vector]
    apart = kind is EntityEmbeddings
    expected = torch.stack(by_category, 1) if apart else torch.stack(by_category).sum(0)
    torch.testing.assert_close(found.values[0], expected, rtol=1e-9, atol=1e-13)

    columns = DeepExplainer(Columns(model), torch.cat(background, 1)).attribute(torch.cat([categories, numbers], 1))
    torch.testing.assert_close(columns.values, torch.cat(found.values, 1), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", TABULAR)
def test_the_same_category_has_nothing(kind: type[nn.Module]) -> None:
    model = kind().double().eval()
    (categories, numbers), (baseline, others) = table(4), table(1)
    categories[:, 1] = baseline[0, 1]
    values, _ = DeepExplainer(model, [baseline, others]).attribute([categories, numbers]).values
    assert not values[:, 1].any() and values[:, 0].any()
