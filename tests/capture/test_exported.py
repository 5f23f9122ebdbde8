"""Exported models call aten's operations, and those that were decomposed only its core: they are explained as the model is."""

import pytest
import torch
import torch.nn.functional as F
from checks import assert_same, explain
from models import spread
from torch import Tensor, nn


class Net(nn.Module):
    """Convolutions, paddings, norms, pooling, attention and gates."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(2, 4, 3, padding=1), nn.ConvTranspose2d(4, 4, 2, 2)
        self.batch_norm, self.group_norm, self.layer_norm = nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.max_pool2d(F.relu(self.batch_norm(self.conv(x))), 2)
        h = F.channel_shuffle(F.pad(h, (1, 0, 0, 1), "reflect") + F.pad(h, (1, 0, 0, 1), "replicate"), 2)
        h = F.gelu(F.interpolate(self.group_norm(self.up(h)), scale_factor=0.5, mode="bilinear"))
        t = h.flatten(2).transpose(1, 2)
        t = self.layer_norm(t + self.attention(t, t, t, need_weights=False)[0])
        t = F.rms_norm(t + F.scaled_dot_product_attention(t, t, t, is_causal=True), (4,))
        t = F.silu(t) * torch.sigmoid(t[..., [1, 0, 2, 3]])
        return self.head(F.dropout(t.mean(1), 0.1, self.training))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_exported_model_is_explained_as_the_model() -> None:
    model = spread(Net()).double()
    x, background = (torch.randn(n, 2, 8, 8, dtype=torch.float64) for n in (2, 2))
    values = explain(model, x, background).values
    program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    for exported in (program.module(), program.run_decompositions().module()):
        assert_same(explain(exported, x, background).values, values, 1e-11)
