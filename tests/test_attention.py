"""Attention as torch has it, with all its options: modules, the scaled dot product, and the flexible one."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import as_list, assert_same, explain, values_of
from models import Function, spread
from torch import Tensor, nn
from torch.nn.attention import flex_attention as flex

from deepshap_ext import DeepExplainer, MixedSamplesError, UnsupportedOperationError

WIDTH, HEADS, LENGTH = 4, 2, 3
PADDED = torch.tensor([False, False, True])
#: True where a key is masked.
FUTURE = torch.ones(LENGTH, LENGTH).triu(1).bool()
#: True where a key takes part; the second query has none.
NO_KEY = torch.tensor([[1, 1, 1], [0, 0, 0], [0, 1, 1]]).bool()

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*nested tensors is in prototype:UserWarning", "ignore:.*mismatched .*mask is deprecated:UserWarning"
)


def numbers(samples: int, *shape: int) -> Tensor:
    return torch.randn(samples, *shape, dtype=torch.float64)


def tokens(samples: int) -> Tensor:
    return numbers(samples, LENGTH, WIDTH)


def floats(mask: Tensor) -> Tensor:
    """A mask to add to scores."""
    return torch.zeros(mask.shape, dtype=torch.float64).masked_fill(mask, -math.inf)


def explained(
    function: Callable[..., Tensor], *shapes: tuple[int, ...], pairings: bool = False, **modules: nn.Module
) -> Any:
    """The values of the flattened result, checked, with ``pairings`` against those of every pair run forward."""
    model = spread(Function(lambda *args: function(*args).flatten(1), **modules)).double()
    x, background = ([numbers(n, *shape) for shape in shapes or [(LENGTH, WIDTH)]] for n in (3, 2))
    values = explain(model, x, background, tolerance=1e-11).values
    if pairings:
        aligned = DeepExplainer(model, background).attribute(x, pairing="aligned").values
        assert_same(as_list(aligned), as_list(values), 1e-10)
    return values


def turned(batch_first: bool) -> Callable[[Tensor], Tensor]:
    return (lambda x: x) if batch_first else (lambda x: x.transpose(0, 1))


@pytest.mark.parametrize(("weights", "average"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize("zero_key", [False, True])
@pytest.mark.parametrize("learned_key", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_multihead_self_attention(
    batch_first: bool, bias: bool, learned_key: bool, zero_key: bool, weights: bool, average: bool
) -> None:
    turn = turned(batch_first)
    options = {"add_bias_kv": learned_key, "add_zero_attn": zero_key}

    def attend(self: Any, x: Tensor) -> Tensor:
        x = turn(x)
        y, of = self.attention(x, x, x, need_weights=weights, average_attn_weights=average)
        return turn(y).flatten(1) if of is None else torch.cat([turn(y).flatten(1), of.flatten(1)], 1)

    explained(attend, attention=nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first, bias=bias, **options))


@pytest.mark.parametrize("batch_first", [False, True])
def test_multihead_attention_between_sequences_of_different_widths(batch_first: bool) -> None:
    turn = turned(batch_first)
    explained(
        lambda self, q, k, v: turn(self.attention(turn(q), turn(k), turn(v))[0]),
        (LENGTH, WIDTH),
        (4, 5),
        (4, 6),
        pairings=True,
        attention=nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first, kdim=5, vdim=6),
    )


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize(
    ("padding", "mask", "causal"),
    [
        (padding, mask, causal)
        for padding, mask, causal in product(
            ["", "bool", "float"], ["", "bool", "float", "bool a head", "float a head"], [False, True]
        )
        if mask or not causal
    ],
)
def test_masks_of_multihead_attention(padding: str, mask: str, causal: bool, weights: bool) -> None:
    def attend(self: Any, x: Tensor) -> Tensor:
        rows = len(x)
        keys = (PADDED if padding == "bool" else floats(PADDED)).expand(rows, -1) if padding else None
        scores = (FUTURE if "bool" in mask else floats(FUTURE)) if mask else None
        if "head" in mask:
            scores = scores.expand(rows * HEADS, -1, -1)
        options = {"key_padding_mask": keys, "attn_mask": scores, "is_causal": causal}
        return self.attention(x, x, x, need_weights=weights, **options)[0]

    values = explained(attend, attention=nn.MultiheadAttention(WIDTH, HEADS, batch_first=True))[0]
    if mask:
        # The first query sees the first key alone.
        assert not values[:, 1:, :, :WIDTH].any()


def test_attention_of_samples_that_are_taken_for_a_sequence_is_refused() -> None:
    model = Function(lambda self, x: self.attention(x, x, x)[0], attention=nn.MultiheadAttention(WIDTH, HEADS))
    with pytest.raises(MixedSamplesError, match=r"softmax in attention: .* the model combines the samples of a batch"):
        DeepExplainer(model, torch.randn(3, WIDTH))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gelu", F.silu], ids=["relu", "gelu", "silu"])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_transformer_layers(batch_first: bool, norm_first: bool, activation: Any, bias: bool) -> None:
    turn = turned(batch_first)
    options = {"batch_first": batch_first, "norm_first": norm_first, "activation": activation, "bias": bias}
    explained(lambda self, x: turn(self.layer(turn(x))), layer=nn.TransformerEncoderLayer(WIDTH, HEADS, 6, **options))
    explained(
        lambda self, x, memory: turn(self.layer(turn(x), turn(memory))),
        (LENGTH, WIDTH),
        (2, WIDTH),
        layer=nn.TransformerDecoderLayer(WIDTH, HEADS, 6, **options),
    )


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("mask", ["", "causal", "padding", "padding from the input"])
def test_transformer_encoder(mask: str, nested: bool) -> None:
    """Without gradients torch takes the padded places out, and gives zeros for them: these are not looked at here."""

    def encode(self: Any, x: Tensor) -> Tensor:
        if mask == "causal":
            return self.encoder(x, mask=floats(FUTURE), is_causal=True)
        if not mask:
            return self.encoder(x)
        padding = PADDED.expand(len(x), -1) if mask == "padding" else x.sum(2) == 0
        return self.encoder(x, src_key_padding_mask=padding)[:, :2]

    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 6, batch_first=True)
    values = explained(
        encode, encoder=nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH), enable_nested_tensor=nested)
    )
    if mask == "padding":
        assert not values[0][:, 2].any()


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True:UserWarning")
def test_transformer(batch_first: bool) -> None:
    turn = turned(batch_first)

    def translate(self: Any, x: Tensor, y: Tensor) -> Tensor:
        padding = PADDED.expand(len(x), -1)
        options = {"src_key_padding_mask": padding, "memory_key_padding_mask": padding, "tgt_mask": floats(FUTURE)}
        return turn(self.transformer(turn(x), turn(y), **options))

    transformer = nn.Transformer(WIDTH, HEADS, 1, 1, 6, batch_first=batch_first)
    explained(translate, (LENGTH, WIDTH), (LENGTH, WIDTH), transformer=transformer)


def heads(x: Tensor) -> Tensor:
    """``[N, heads, S, width of a head]``."""
    return x.unflatten(2, (HEADS, -1)).transpose(1, 2)


SCALED_DOT_PRODUCTS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "bool mask": lambda _, x: F.scaled_dot_product_attention(x, x, x, attn_mask=~FUTURE),
    "float mask": lambda _, x: F.scaled_dot_product_attention(x, x, x, attn_mask=floats(FUTURE)),
    "largest numbers as mask": lambda _, x: F.scaled_dot_product_attention(
        x, x, x, attn_mask=floats(FUTURE).clamp(min=torch.finfo(x.dtype).min)
    ),
    "query without a key": lambda _, x: F.scaled_dot_product_attention(x, x, x, attn_mask=NO_KEY),
    "query without a key, float": lambda _, x: F.scaled_dot_product_attention(x, x, x, attn_mask=floats(~NO_KEY)),
    "mask made from the input": lambda _, x: F.scaled_dot_product_attention(x, x, x, attn_mask=x @ x.mT / 2),
    "causal": lambda _, x: F.scaled_dot_product_attention(x, x[:, :2], x[:, :2], is_causal=True),
    "scale": lambda _, x: F.scaled_dot_product_attention(x, x, x, scale=0.3),
    "fewer heads of keys": lambda _, x: F.scaled_dot_product_attention(
        heads(x), x[..., :2].unsqueeze(1), x[..., 2:].unsqueeze(1), enable_gqa=True
    ),
    "aten": lambda _, x: torch.ops.aten.scaled_dot_product_attention.default(x, x, x),
}


@pytest.mark.parametrize("function", SCALED_DOT_PRODUCTS.values(), ids=SCALED_DOT_PRODUCTS.keys())
def test_scaled_dot_product(function: Callable[[Any, Tensor], Tensor]) -> None:
    explained(function, pairings=True, identity=nn.Identity())


def test_dropout_of_attention_is_refused() -> None:
    model = Function(lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1))
    with pytest.raises(UnsupportedOperationError, match=r"scaled_dot_product_attention.* is random"):
        DeepExplainer(model, tokens(2))


@pytest.mark.filterwarnings("ignore:.*nested tensor:UserWarning")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_are_refused(layout: torch.layout) -> None:
    model = Function(lambda x: torch.nested.as_nested_tensor(list(x), layout=layout).to_padded_tensor(0.0))
    with pytest.raises(UnsupportedOperationError, match=r"nested_tensor_from_tensor_list|layout torch.jagged"):
        DeepExplainer(model, tokens(2))


@pytest.mark.parametrize("name", ["_transformer_encoder_layer_fwd", "_native_multi_head_attention"])
def test_the_kernels_of_attention_without_gradients_are_refused_where_they_are_called(name: str) -> None:
    """The modules do not call them while they are explained."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 6, batch_first=True).double()
    attention, norm = layer.self_attn, (layer.norm1.weight, layer.norm1.bias)
    weights = (attention.in_proj_weight, attention.in_proj_bias, attention.out_proj.weight, attention.out_proj.bias)
    feed = (layer.linear1.weight, layer.linear1.bias, layer.linear2.weight, layer.linear2.bias)

    def fast(_: Any, x: Tensor) -> Tensor:
        if name == "_native_multi_head_attention":
            return torch._native_multi_head_attention(x, x, x, WIDTH, HEADS, *weights)[0]
        return torch._transformer_encoder_layer_fwd(x, WIDTH, HEADS, *weights, False, False, 1e-5, *norm, *norm, *feed)

    with pytest.raises(UnsupportedOperationError, match=f"torch.{name} in .* has no rule"):
        DeepExplainer(Function(fast, layer=layer), tokens(2))


SLOPES, DOCUMENTS, BIAS = (
    torch.tensor([0.3, 0.7]).double(),
    torch.tensor([0, 0, 1]),
    torch.randn(LENGTH, LENGTH).double(),
)


def _mask(keep: Callable[..., Tensor]) -> Any:
    return flex.create_block_mask(keep, None, None, LENGTH, LENGTH, device="cpu")


#: Options of the flexible attention, and from the scores ``[N, heads, Q, K]`` the same by hand.
FLEXIBLE: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[Tensor], Tensor]]] = {
    "plain": (dict, lambda s: s),
    "scale": (lambda: {"scale": 1.0}, lambda s: s * math.sqrt(WIDTH // HEADS)),
    "causal": (lambda: {"block_mask": _mask(lambda b, h, q, k: q >= k)}, lambda s: s.masked_fill(FUTURE, -math.inf)),
    "causal by score": (
        lambda: {"score_mod": lambda s, b, h, q, k: torch.where(q >= k, s, -math.inf)},
        lambda s: s.masked_fill(FUTURE, -math.inf),
    ),
    "documents": (
        lambda: {"block_mask": _mask(lambda b, h, q, k: DOCUMENTS[q] == DOCUMENTS[k])},
        lambda s: s.masked_fill(DOCUMENTS.unsqueeze(0) != DOCUMENTS.unsqueeze(1), -math.inf),
    ),
    "capped": (lambda: {"score_mod": lambda s, b, h, q, k: 2 * torch.tanh(s / 2)}, lambda s: 2 * torch.tanh(s / 2)),
    "by distance": (
        lambda: {"score_mod": lambda s, b, h, q, k: s + SLOPES[h] * (q - k)},
        lambda s: s + SLOPES.view(-1, 1, 1) * (torch.arange(LENGTH).view(-1, 1) - torch.arange(LENGTH)),
    ),
    "by place": (lambda: {"score_mod": lambda s, b, h, q, k: s + BIAS[q, k]}, lambda s: s + BIAS),
}


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile:UserWarning")
@pytest.mark.parametrize("name", FLEXIBLE)
def test_flexible_attention(name: str) -> None:
    options, by_hand = FLEXIBLE[name]

    class Flexible(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.options = options()

        def forward(self, x: Tensor) -> Tensor:
            return flex.flex_attention(heads(x), heads(x), heads(x), **self.options).flatten(1)

    def attend(x: Tensor) -> Tensor:
        q = heads(x)
        return (by_hand(q @ q.mT / math.sqrt(WIDTH // HEADS)).softmax(3) @ q).flatten(1)

    x, background = tokens(3), tokens(2)
    assert_same(values_of(Flexible(), x, background), values_of(Function(attend), x, background), 1e-11)


@pytest.mark.filterwarnings("ignore:.*flex_attention called without torch.compile:UserWarning")
def test_flexible_attention_of_a_query_without_a_key_and_its_logarithms() -> None:
    mask = _mask(lambda b, h, q, k: (DOCUMENTS[q] == DOCUMENTS[k]) & (q > 0))

    def attend(self: Any, x: Tensor) -> Tensor:
        q, k, v = heads(x), x[..., :2].unsqueeze(1), x[..., 2:].unsqueeze(1)
        found, more = flex.flex_attention(
            q, k, v, block_mask=mask, enable_gqa=True, return_aux=flex.AuxRequest(lse=True)
        )
        return torch.cat([found, more.lse.unsqueeze(3).clamp(min=-9)], 3)

    values = explained(attend, identity=nn.Identity())[0]
    assert not values[:, 0, :, 0].any() and values.any()
