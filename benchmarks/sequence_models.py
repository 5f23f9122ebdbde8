"""Sequence models as people write them, explained by ``deepshap_ext.tangermeme`` and by tangermeme: do the contributions add up?

    python benchmarks/sequence_models.py

Prints the largest |sum of contributions - (output - mean output of the references)| over sequences, relative to the largest such
difference, in float64: about 1e-15 is rounding, 0.1 is a tenth of what was to be explained.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
import torch.nn.functional as F
from tangermeme.deep_lift_shap import deep_lift_shap as theirs
from timing import additivity_error
from torch import Tensor, nn

from deepshap_ext.tangermeme import deep_lift_shap as ours

LENGTH, SEQUENCES, REFERENCES = 50, 8, 10


class Middle(nn.Module):
    """A function of a convolution's output, with modules of its own."""

    def __init__(self, function: Callable[..., Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv1d(4, 8, 7, padding=3), function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, self.conv(x))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "`nn.ReLU`, used once": lambda: Middle(lambda self, h: self.relu(h), relu=nn.ReLU()),
    "one `nn.ReLU` used twice": lambda: Middle(
        lambda self, h: self.relu(self.next(self.relu(h))), relu=nn.ReLU(), next=nn.Conv1d(8, 8, 3)
    ),
    "overlapping `nn.MaxPool1d(5, 2)`": lambda: Middle(lambda self, h: self.pool(h), pool=nn.MaxPool1d(5, 2)),
    "`F.relu`": lambda: Middle(lambda self, h: F.relu(h)),
    "`nn.ReLU(inplace=True)`": lambda: Middle(lambda self, h: self.relu(h), relu=nn.ReLU(inplace=True)),
    "gate: `a(x) * torch.sigmoid(b(x))`": lambda: Middle(
        lambda self, h: h * torch.sigmoid(self.gate(h)), gate=nn.Conv1d(8, 8, 1)
    ),
    "`nn.AdaptiveMaxPool1d`, `amax`": lambda: Middle(
        lambda self, h: self.pool(h).amax(2), pool=nn.AdaptiveMaxPool1d(9)
    ),
    "`nn.GroupNorm`": lambda: Middle(lambda self, h: self.norm(h), norm=nn.GroupNorm(2, 8)),
    "`nn.LSTM`": lambda: Middle(
        lambda self, h: self.lstm(h.transpose(1, 2))[0][:, -1], lstm=nn.LSTM(8, 16, batch_first=True)
    ),
    "`nn.TransformerEncoderLayer`": lambda: Middle(
        lambda self, h: self.layer(h.transpose(1, 2)).mean(1),
        layer=nn.TransformerEncoderLayer(8, 2, 16, 0, batch_first=True),
    ),
}


def main() -> None:
    print("| | ours | tangermeme |\n|---|---|---|")
    for name, make in MODELS.items():
        torch.manual_seed(0)
        x, references = one_hot(SEQUENCES), one_hot(SEQUENCES, REFERENCES)
        model = nn.Sequential(make(), nn.Flatten(), nn.LazyLinear(1)).double().eval()
        with torch.no_grad():
            expected = model(references.flatten(0, 1)).view(SEQUENCES, REFERENCES).mean(1)
            difference = model(x)[:, 0] - expected
        cells = [measured(explain, model, x, references, difference) for explain in (ours, theirs)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def measured(
    explain: Callable[..., Tensor], model: nn.Module, x: Tensor, references: Tensor, difference: Tensor
) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            values = explain(model, x, references=references, device="cpu")
        except RuntimeError as error:
            return f"{type(error).__name__}: {str(error)[:60]}..."
    return f"{additivity_error(values.sum((1, 2)), difference):.0e}"


def one_hot(*shape: int) -> Tensor:
    return F.one_hot(torch.randint(4, (*shape, LENGTH)), 4).transpose(-1, -2).double()


if __name__ == "__main__":
    main()
