"""Pieces of transformers and recurrent nets, as far as there are rules for them."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from checks import additivity_gap, assert_same, explain, run, unchanged, values_of
from models import spread
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, UnsupportedOperationError


class Pieces(nn.Module):
    """Tokens ``[N, S, 6]`` through a linear layer, the piece under test and a mean over tokens."""

    def __init__(self, piece: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.piece, self.head = nn.Linear(6, 6), piece, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.piece(self.before(x)).mean(1))


class ByHand(nn.Module):
    """Attention from matrix products and a softmax."""

    def __init__(self, causal: bool = False, fused: bool = False) -> None:
        super().__init__()
        self.qkv, self.out, self.causal, self.fused = nn.Linear(6, 18), nn.Linear(6, 6), causal, fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(2, (2, 3)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        if self.fused:
            h = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            scores = q @ k.transpose(2, 3) / math.sqrt(3)
            if self.causal:
                mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
                scores = scores.masked_fill(mask, torch.finfo(scores.dtype).min)
            h = scores.softmax(3) @ v
        return self.out(h.transpose(1, 2).flatten(2))


def _bmm(x: Tensor) -> Tensor:
    return torch.bmm(torch.bmm(x, x.transpose(1, 2)).softmax(2), x)


def _einsum(x: Tensor) -> Tensor:
    return torch.einsum("bst,bte->bse", torch.einsum("bse,bte->bst", x, x).softmax(2), x)


def _norm_by_hand(x: Tensor) -> Tensor:
    centred = x - x.mean(2, keepdim=True)
    return centred / (centred.pow(2).mean(2, keepdim=True) + 1e-5).sqrt()


def _first(module: nn.Module) -> Callable[[Tensor], Tensor]:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)[0]

    return First()


class SelfAttention(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=batch_first)
        self.batch_first = batch_first

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        y, _ = self.attention(x, x, x, need_weights=False)
        return y if self.batch_first else y.transpose(0, 1)


PIECES: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
    "attention_by_hand": ByHand,
    "causal_attention_by_hand": lambda: ByHand(causal=True),
    "scaled_dot_product": lambda: ByHand(fused=True),
    "causal_scaled_dot_product": lambda: ByHand(causal=True, fused=True),
    "bmm": lambda: _bmm,
    "einsum": lambda: _einsum,
    "outer_product": lambda: lambda x: (x.unsqueeze(3) * x.unsqueeze(2)).mean(3),
    "matmul_of_rows": lambda: lambda x: x @ (x.transpose(1, 2) @ x),
    "division": lambda: lambda x: x / (x.abs().sum(2, keepdim=True) + 1),
    "softmax_by_hand": lambda: lambda x: x.exp() / x.exp().sum(2, keepdim=True),
    "layer_norm": lambda: nn.LayerNorm(6),
    "layer_norm_function": lambda: lambda x: F.layer_norm(x, (6,)),
    "layer_norm_of_both": lambda: lambda x: F.layer_norm(x, x.shape[1:]),
    "layer_norm_by_hand": lambda: _norm_by_hand,
    "rms_norm": lambda: nn.RMSNorm(6),
    "rms_norm_by_hand": lambda: lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6),
    "group_norm": lambda: lambda x: F.group_norm(x.transpose(1, 2), 2).transpose(1, 2),
    "instance_norm": lambda: lambda x: F.instance_norm(x.transpose(1, 2)).transpose(1, 2).sigmoid(),
    "normalize": lambda: lambda x: F.normalize(x, dim=2),
    "cosine": lambda: lambda x: x * F.cosine_similarity(x, x.flip(2), dim=2).unsqueeze(2),
    "self_attention": lambda: SelfAttention(True),
    "self_attention_sequence_first": lambda: SelfAttention(False),
    "encoder_layer": lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True),
    "encoder_layer_norm_first": lambda: nn.TransformerEncoderLayer(
        6, 2, 8, batch_first=True, norm_first=True, activation="gelu"
    ),
    "encoder": lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), 2, enable_nested_tensor=False
    ),
    "lstm": lambda: _first(nn.LSTM(6, 6, batch_first=True)),
    "gru": lambda: _first(nn.GRU(6, 6, batch_first=True)),
    "rnn": lambda: _first(nn.RNN(6, 6, batch_first=True)),
    "glu": lambda: lambda x: F.glu(torch.cat([x, x.flip(2)], 2), 2),
    "swiglu": lambda: lambda x: F.silu(x) * x.flip(2),
    "bilinear": lambda: lambda x: F.bilinear(x, x, torch.ones(6, 6, 6).to(x).tril()),
    "max": lambda: lambda x: x - x.amax(2, keepdim=True) + x.max(1, keepdim=True).values,
    "min": lambda: lambda x: x + x.amin(2, keepdim=True) + x.min(1, keepdim=True)[0],
    "maximum": lambda: lambda x: torch.maximum(x, x.flip(2)) + torch.minimum(x, x.roll(1, 2)),
    "adaptive_max_pool": lambda: lambda x: x + F.adaptive_max_pool1d(x, 2).repeat(1, 1, 3),
    "logsumexp": lambda: lambda x: x + x.logsumexp(2, keepdim=True),
    "variance": lambda: lambda x: x + x.var(2, keepdim=True),
    "norm": lambda: lambda x: x + x.norm(dim=2, keepdim=True),
    "trigonometry": lambda: lambda x: x.sin() * x.cos() + x.atan(),
    "erf": lambda: lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "logarithms": lambda: lambda x: torch.log1p(x.square()) + torch.expm1(x * 0.1),
    "rotary": lambda: (
        lambda x: (
            x * torch.arange(6).to(x).cos() + torch.cat([-x[..., 3:], x[..., :3]], 2) * torch.arange(6).to(x).sin()
        )
    ),
}

#: Those whose functions may still be without a rule: an error that names the operation will do.
WITHOUT_RULE = {"trigonometry", "erf", "logarithms"}


@pytest.mark.parametrize("name", PIECES)
def test_a_piece_of_attention_adds_up_or_is_named(name: str) -> None:
    model = spread(Pieces(PIECES[name]()), 1.5).double()
    x, background = torch.randn(3, 4, 6).double(), torch.randn(4, 4, 6).double()
    outputs, baseline_outputs = run(model, x), run(model, background)
    with unchanged(model, x, background):
        try:
            found = DeepExplainer(model, background, additivity_tolerance=1e-10).attribute(x)
        except UnsupportedOperationError as error:
            assert name in WITHOUT_RULE and "has no rule" in str(error)
            return
    assert additivity_gap(found.values, outputs, baseline_outputs) <= 1e-10
    aligned = DeepExplainer(model, background, additivity_tolerance=1e-10).attribute(x, pairing="aligned")
    assert_same(aligned.values, found.values, 1e-11)


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "normalize", "division", "layer_norm_by_hand"])
def test_norms_against_a_zero_baseline_stay_bounded(name: str) -> None:
    """A row of zeros has no direction: the attributions must not blow up."""
    model = spread(Pieces(PIECES[name]()), 1.5).double()
    nn.init.zeros_(model.before.bias)
    x, background = torch.randn(3, 4, 6).double(), torch.zeros(1, 4, 6).double()
    found = explain(model, x, background, tolerance=1e-9, additivity_tolerance=1e-9)
    difference = (found.output - found.expected_value).abs().max()
    assert found.values.abs().max() <= 30 * difference


def test_attention_by_hand_and_fused_agree() -> None:
    by_hand, fused = spread(Pieces(ByHand())).double(), spread(Pieces(ByHand(fused=True))).double()
    fused.load_state_dict(by_hand.state_dict())
    x, background = torch.randn(2, 4, 6).double(), torch.randn(3, 4, 6).double()
    assert_same(values_of(fused, x, background), values_of(by_hand, x, background), 1e-10)


def test_a_causal_model_gives_the_future_no_part() -> None:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.head = ByHand(causal=True), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.attention(x)[:, 1])

    model = spread(Causal()).double()
    found = explain(model, torch.randn(2, 4, 6).double(), torch.randn(3, 4, 6).double(), tolerance=1e-11)
    assert found.values[:, :2].any() and not found.values[:, 2:].any()


class Viewed(nn.Module):
    """Attention whose result is viewed in the layout that torch's fused kernels give it, the query's."""

    def __init__(self, heads_first: bool, causal: bool) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 6)
        self.heads_first, self.causal = heads_first, causal

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, _ = x.shape
        q, k, v = (part.unflatten(2, (2, 3)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        if self.heads_first:
            q = q.contiguous()
        h = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        if self.heads_first:
            return self.out(h.view(rows, 2, tokens * 3).view(rows, tokens, 6))
        return self.out(h.transpose(1, 2).view(rows, tokens, 6))


@pytest.mark.parametrize("heads_first", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_a_model_may_view_what_attention_gives(heads_first: bool, causal: bool) -> None:
    x, background = (torch.randn(n, 4, 6, dtype=torch.float64) for n in (3, 2))
    explain(spread(Pieces(Viewed(heads_first, causal))).double(), x, background)
