"""Every layer of a few architectures, by its inputs and by its outputs: its values add up, or the explainer says that it is no cut."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
import transformers
from architectures import ARCHITECTURES, TOKENS, VOCABULARY, hidden
from models import spread
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from deepshap_ext import DeepExplainer, ExplanationError

Outcome = Literal["adds up", "no cut", "not on the way"]


class Residual(nn.Module):
    """A residual block of a ResNet, written in place."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, 4, 3, stride, 1), nn.Conv2d(4, 4, 3, 1, 1)
        self.norm1, self.norm2, self.relu = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(channels, 4, 1, stride) if stride > 1 or channels != 4 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        y += self.shortcut(x)
        return self.relu(y)


class UNet(nn.Module):
    """Skips from each level of the way down to that of the way up."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv1d(2, 3, 3, padding=1), nn.Conv1d(3, 4, 3, padding=1)
        self.pool, self.middle = nn.MaxPool1d(2), nn.Conv1d(4, 4, 1)
        self.up2, self.up1 = nn.ConvTranspose1d(4, 3, 2, 2), nn.Conv1d(6, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x).relu()
        second = self.middle(self.down2(self.pool(first)).tanh())
        return self.up1(torch.cat([first, self.up2(second)], 1)).sum(2)


class Dense(nn.Module):
    """Each layer is given what all before it gave."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(3 + 2 * number, 2) for number in range(3))
        self.head = nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x).sigmoid()], 1)
        return self.head(x)


class Sentences(nn.Module):
    """Token ids, positions and a mask made from the ids, a transformer's encoder and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(7, 4, padding_idx=0), nn.Embedding(5, 4)
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, nn.LayerNorm(4), enable_nested_tensor=False)
        self.lstm, self.head = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, ids: Tensor) -> Tensor:
        embedded = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        encoded = self.encoder(embedded, src_key_padding_mask=ids == 0)
        return self.head(self.lstm(encoded)[0][:, -1])


class Hugging(nn.Module):
    """A few elements of the last hidden state of a model of the transformers package."""

    def __init__(self, name: str) -> None:
        super().__init__()
        layers = {"n_layer": 1} if name == "GPT2" else {"num_hidden_layers": 1}
        config = getattr(transformers, f"{name}Config")(**{**ARCHITECTURES[name], **layers})
        self.model = transformers.AutoModel.from_config(config, attn_implementation="eager")

    def forward(self, given: Tensor) -> Tensor:
        return hidden(self.model(given), 2)


def residual_net() -> nn.Module:
    blocks = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2), Residual(4, 1), Residual(4, 2)
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def ids(samples: int, length: int, number: int) -> Tensor:
    """Token ids, the last of which are padding."""
    found = torch.randint(1, number, (samples, length))
    found[:, -1] = 0
    return found


def outcome(model: nn.Module, layer: nn.Module, at: str, x: Tensor, background: Tensor) -> Outcome:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            explainer = DeepExplainer((model, layer), background, at=at, call=0 if isinstance(layer, nn.ReLU) else None)
            found = explainer.attribute(x)
        except ExplanationError as error:
            reasons = "did not run in the model's forward pass", "has no floating-point", "or does not depend on it"
            assert any(reason in str(error) for reason in reasons)
            return "not on the way"
    messages = [str(warning.message) for warning in warned]
    if messages:
        assert len(messages) == 1 and "past the explained layer" in messages[0]
        return "no cut"
    gap = float(found.convergence_delta.abs().max() / (found.output - found.expected_value).abs().max())
    assert gap < 1e-11, f"off by {gap:.3g}"
    return "adds up"


#: Nets of real inputs, and the layers of which they are told to be no cut by their inputs or by their outputs.
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], set[str], set[str]]] = {
    "residual net": (
        residual_net,
        (2, 8, 8),
        {f"{block}.{name}" for block in (3, 4) for name in ("conv2", "norm1", "norm2", "relu")},
        {f"{block}.{name}" for block in (3, 4) for name in ("conv1", "conv2", "norm1", "norm2", "relu")}
        | {"4.shortcut"},
    ),
    "U-net": (UNet, (2, 6), {"down2", "middle", "up2"}, {"down2", "pool", "middle", "up2"}),
    "dense net": (Dense, (3,), set(), {"layers.0", "layers.1", "layers.2"}),
}


@pytest.mark.parametrize("at", ["input", "output"])
@pytest.mark.parametrize("name", NETS)
def test_every_layer_of_a_net(name: str, at: str) -> None:
    make, shape, *past = NETS[name]
    model = spread(make()).double()
    x, background = (torch.randn(samples, *shape).double() for samples in (2, 3))
    found = {
        path: outcome(model, layer, at, x, background)
        for path, layer in model.named_modules()
        if path and not isinstance(layer, nn.ModuleList)
    }
    expected = past[at == "output"]
    assert found == {path: "no cut" if path in expected else "adds up" for path in found}


class Overwritten:
    """Keeps the tensors of a layer in one pass and puts them in the place of those of the next: what the output still tells of the next
    pass's input has run past the layer."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []
        self.ran = False

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._see((args, kwargs))

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        self._see(output)

    def _see(self, value: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        if not self.ran:
            self.kept = [tensor.clone() for tensor in tensors]
        for tensor, kept in zip(tensors, self.kept, strict=True):
            if not torch.equal(tensor, kept):
                tensor.copy_(kept)
        self.ran = True


def is_cut(model: nn.Module, layer: nn.Module, at: str, x: Tensor, background: Tensor) -> bool:
    """Without the explainer: whether the output is a function of the layer's tensors alone."""
    seen = Overwritten()
    handle = (
        layer.register_forward_pre_hook(seen.before, with_kwargs=True)
        if at == "input"
        else layer.register_forward_hook(seen.after)
    )
    with handle, torch.no_grad():
        expected, found = model(background[:1]), model(x[:1])
    with torch.no_grad():
        far = (model(x[:1]) - expected).abs().max()
    return bool((found - expected).abs().max() < 1e-9 * far)


#: Models of token ids.
LANGUAGE: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "sentences": (Sentences, 5, 7),
    "Bert": (lambda: Hugging("Bert"), TOKENS, VOCABULARY),
    "GPT2": (lambda: Hugging("GPT2"), TOKENS, VOCABULARY),
}


@pytest.mark.parametrize("at", ["input", "output"])
@pytest.mark.parametrize("name", LANGUAGE)
def test_every_layer_of_a_language_model(name: str, at: str) -> None:
    make, length, number = LANGUAGE[name]
    model = spread(make()).double()
    x, background = (ids(samples, length, number) for samples in (2, 3))
    reached = 0
    for path, layer in model.named_modules():
        if not path:
            continue
        found = outcome(model, layer, at, x, background)
        if found != "not on the way":
            reached += 1
            assert (found == "adds up") == is_cut(model, layer, at, x, background), f"{path}: {found}"
    assert reached > 9
