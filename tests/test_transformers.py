"""Models of the transformers package as they are, with random weights."""

from __future__ import annotations

import pytest
import torch
import transformers
from architectures import (
    ARCHITECTURES,
    EMBEDDINGS,
    OTHERS,
    TOKENS,
    VOCABULARY,
    WIDTH,
    Called,
    Embedded,
    explainable,
    hidden,
    plain,
)
from checks import assert_same, explain
from torch import Tensor, nn

from deepshap_ext import DeepExplainer

#: The others of ARCHITECTURES are nearly the same as one of these.
MODELS = [
    *("ResNet", "ConvNext", "EfficientNet", "MobileNetV2", "ViT", "Beit", "Dinov2", "Swin", "Segformer"),
    *("Bert", "DistilBert", "Albert", "DebertaV2", "MPNet", "FNet", "ModernBert", "T5"),
    *("GPT2", "GPTNeoX", "OPT", "Llama", "Qwen3", "Phi", "Gemma2", "Mamba"),
    *("Wav2Vec2", "Hubert"),
]
#: Their own code casts to float32, whatever the dtype of the weights.
CASTING = {"T5", "Llama", "Qwen3", "Gemma2", "Mamba", "Gemma3Text", "Longformer", "Deberta", "Mamba2"}
LLAMAS = ["Llama", "Mistral", "Qwen2", "Qwen3", "Phi", "Gemma2", "T5", "Mamba"]
#: Where the baseline is zero so are the scales of their norms, one after the other: values of 40 times the output difference.
AMPLIFYING = {"Segformer": 1e-3, "Hubert": 1e-4}


def tolerance(name: str, dtype: torch.dtype) -> float:
    return 1e-11 if dtype == torch.float64 and name not in CASTING else 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_values_add_up(name: str, dtype: torch.dtype) -> None:
    model, shape = explainable(name)
    x, background = torch.randn(3, *shape, dtype=dtype), torch.randn(4, *shape, dtype=dtype)
    explain(model.to(dtype), x, background, select=hidden, output=hidden, tolerance=tolerance(name, dtype))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, torch.float32) for name in MODELS),
        *((name, torch.float64) for name in ("ResNet", "ConvNext", "EfficientNet", "ViT", "Swin")),
        *((name, torch.float64) for name in ("Bert", "DebertaV2", "GPT2", "Wav2Vec2")),
    ],
    ids=lambda value: str(value).removeprefix("torch."),
)
def test_values_add_up_against_zero(name: str, dtype: torch.dtype) -> None:
    model, shape = explainable(name)
    allowed = AMPLIFYING.get(name, 1e-5) if dtype == torch.float32 else 1e-11
    explain(
        model.to(dtype),
        torch.randn(2, *shape, dtype=dtype),
        torch.zeros(1, *shape, dtype=dtype),
        select=hidden,
        output=hidden,
        tolerance=allowed,
        additivity_tolerance=allowed,
    )


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_add_up(name: str) -> None:
    """A model adds up in float64 against a background, and in float32 against zeros."""
    model = Called(name).eval()
    for dtype in (torch.float64, torch.float32):
        x = [torch.randn(2, *shape, dtype=dtype) for shape in OTHERS[name].shapes]
        background = [torch.randn(3, *shape, dtype=dtype) for shape in OTHERS[name].shapes]
        background = background if dtype == torch.float64 else [torch.zeros_like(rows[:1]) for rows in background]
        explain(model.to(dtype), x, background, tolerance=tolerance(name, dtype))


@pytest.mark.parametrize("name", LLAMAS)
def test_norms_written_by_hand_stay_bounded_against_zero(name: str) -> None:
    """x * rsqrt(mean(x^2) + eps) with eps 1e-6: its own divided difference is a thousand times too large."""
    model, shape = explainable(name)
    found = explain(model, torch.randn(3, *shape), torch.zeros(1, *shape), select=hidden, output=hidden)
    largest = (found.output - found.expected_value).abs().max()
    assert found.values.abs().max() <= 10 * largest


@pytest.mark.parametrize("name", ["ResNet", "ViT", "Swin", "Bert", "DebertaV2", "Llama", "Mamba", "Wav2Vec2"])
def test_every_pair_forward_gives_the_same(name: str) -> None:
    model, shape = explainable(name)
    x, background = torch.randn(3, *shape).double(), torch.randn(2, *shape).double()
    explainer = DeepExplainer(model.double(), background, output=hidden)
    grid, aligned = (explainer.attribute(x, pairing=pairing).values for pairing in ("grid", "aligned"))
    assert_same(grid, aligned, 1e-5 if name in CASTING else 1e-11)


@pytest.mark.parametrize(
    ("name", "layer"), [("Bert", "embeddings.LayerNorm"), ("GPT2", "drop"), ("Llama", "layers.0")], ids=lambda v: v
)
def test_token_ids_give_the_values_of_their_embeddings(name: str, layer: str) -> None:
    model = plain(name)
    ids, background = torch.randint(VOCABULARY, (3, TOKENS)), torch.randint(VOCABULARY, (4, TOKENS))
    from_ids = explain(model, ids, background, layer=model.get_submodule(layer), select=hidden, output=hidden)
    words = model.get_input_embeddings()
    with torch.no_grad():
        embedded = [words(tokens) for tokens in (ids, background)]
    from_embeddings = explain(Embedded(model), *embedded, select=hidden, output=hidden)
    assert from_ids.values.shape == (3, TOKENS, WIDTH, 5)
    assert_same(from_ids.values, from_embeddings.values, 1e-5)


def test_logits_are_explained_where_a_model_has_them() -> None:
    arguments = ARCHITECTURES["ViT"]
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**arguments, num_labels=6)).eval()
    images, background = torch.randn(2, 3, 32, 32), torch.randn(3, 3, 32, 32)
    assert explain(model, images, background, select=lambda y: y.logits).values.shape == (2, 3, 32, 32, 6)


def test_bloom_is_taken_apart_where_it_has_an_autograd_function_of_its_own() -> None:
    model, shape = explainable("Bloom")
    x, background = torch.randn(3, *shape), torch.randn(4, *shape)
    found = explain(model, x, background, select=hidden, output=hidden)
    for block in model.model.h:
        block.mlp.gelu_impl = nn.GELU(approximate="tanh")
    torch.testing.assert_close(found.values, explain(model, x, background, select=hidden, output=hidden).values)


class Padded(nn.Module):
    """A classifier of sentences of which the last two places are padding."""

    def __init__(self) -> None:
        super().__init__()
        config = transformers.BertConfig(**EMBEDDINGS["Bert"], num_labels=3)
        self.bert = transformers.BertForSequenceClassification(config)
        self.register_buffer("mask", torch.tensor([[1] * (TOKENS - 2) + [0] * 2]))

    def forward(self, embeddings: Tensor) -> object:
        return self.bert(inputs_embeds=embeddings, attention_mask=self.mask.expand(len(embeddings), -1))


def test_padding_gets_nothing() -> None:
    x, background = torch.randn(2, TOKENS, WIDTH), torch.randn(3, TOKENS, WIDTH)
    values = explain(Padded().eval(), x, background, select=lambda y: y.logits).values
    assert values[:, -2:].abs().max() == 0 < values[:, :-2].abs().amin()


def test_next_token_of_a_causal_model_ignores_what_follows() -> None:
    model = Embedded(plain("GPT2")).eval()
    x, background = torch.randn(2, TOKENS, WIDTH), torch.randn(3, TOKENS, WIDTH)

    def third(result: object) -> Tensor:
        state = result if isinstance(result, Tensor) else result.last_hidden_state
        return state[:, 2, :4]

    values = explain(model, x, background, select=third, output=third).values
    assert values[:, 3:].abs().max() == 0 < values[:, :3].abs().amax()


def test_sentences_of_any_length_by_their_masks() -> None:
    """Token ids and attention masks as a tokenizer makes them: each sentence as if it were alone, without its padding."""
    config = transformers.BertConfig(**EMBEDDINGS["Bert"], num_labels=3)
    model = transformers.BertForSequenceClassification(config).double().eval()
    words = model.bert.embeddings.word_embeddings
    ids, pad = torch.randint(1, VOCABULARY, (3, TOKENS)), torch.zeros(2, TOKENS, dtype=torch.int64)
    lengths = [TOKENS, TOKENS - 1, 2]
    mask = torch.arange(TOKENS) < torch.tensor(lengths).unsqueeze(1)
    rows = {"attention_mask": mask.long()}
    options = {"at": "output", "kwargs": {"return_dict": False}, "output": 0}
    explainer = DeepExplainer((model, words), pad, **options, sample_kwargs={"attention_mask": torch.ones_like(pad)})
    values = explainer.attribute(ids, sample_kwargs=rows).values
    for row, length in enumerate(lengths):
        alone = DeepExplainer((model, words), pad[:, :length], **options).attribute(ids[row : row + 1, :length]).values
        assert_same(values[row, :length], alone[0], 1e-9)
        assert not values[row, length:].any()
