"""Hypothetical contributions behind max-pools, by ``deepshap_ext.tangermeme`` and by tangermeme, on networks that have learnt a motif.

    python benchmarks/hypothetical.py

Where an entry of a pool is the same for a sequence and its reference, any multiplier adds up. tangermeme takes the gradient there, we the
limit of the multiplier as the two come together. Contributions are not concerned. Hypothetical ones are: they take the multipliers of
characters that are not there. Which are closer to what the network does is told by the correlation of
``hypothetical[c] - hypothetical[own]`` with the change of the output when the character is replaced by ``c``.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from tangermeme.deep_lift_shap import deep_lift_shap as theirs
from torch import Tensor, nn

from deepshap_ext.tangermeme import deep_lift_shap as ours

LENGTH, MOTIF = 80, torch.tensor([0, 3, 2, 0, 1, 3, 1, 0])  # ATGACTCA


def main() -> None:
    torch.manual_seed(0)
    x, has_motif = sequences(2000)
    some = x[has_motif][:20]
    references = torch.stack([some[:, :, torch.randperm(LENGTH)] for _ in range(20)], 1)
    for pools in range(3):
        model = trained(network(pools), x, has_motif)
        effects = of_replacing(model, some)

        def explained(function: Callable[..., Tensor], hypothetical: bool) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return function(model, some, references=references, hypothetical=hypothetical, device="cpu")  # noqa: B023

        contributions, hypothetical = ([explained(f, which) for f in (ours, theirs)] for which in (False, True))
        print(
            f"{pools} max-pools: contributions differ by {apart(*contributions):.1e} of the largest, hypothetical ones by "
            f"{apart(*hypothetical):.1e}; correlation with replacing characters: "
            + ", ".join(
                f"{name} {correlation(values, some, effects):.3f}"
                for name, values in zip(("ours", "tangermeme"), hypothetical, strict=True)
            )
        )


def sequences(number: int) -> tuple[Tensor, Tensor]:
    """One-hot sequences, and which have the motif: every other one."""
    codes, has_motif = torch.randint(4, (number, LENGTH)), torch.arange(number) % 2 == 1
    for row in has_motif.nonzero():
        first = int(torch.randint(LENGTH - len(MOTIF), ()))
        codes[row, first : first + len(MOTIF)] = MOTIF
    return nn.functional.one_hot(codes, 4).movedim(2, 1).double(), has_motif


def network(pools: int) -> nn.Module:
    layers: list[nn.Module] = []
    width = LENGTH
    for number in range(2):
        layers += [nn.Conv1d(16 if number else 4, 16, 9, padding=4), nn.ReLU()]
        if number < pools:
            layers.append(nn.MaxPool1d(4))
            width //= 4
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * width, 1)).double()


def trained(model: nn.Module, x: Tensor, has_motif: Tensor) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(10):
        for rows in torch.randperm(len(x)).split(100):
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(model(x[rows])[:, 0], has_motif[rows].double())
            loss.backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def of_replacing(model: nn.Module, x: Tensor) -> Tensor:
    """``[N, 4, length]``: how much the output changes when a position gets a character."""
    effects = torch.zeros_like(x)
    for character in range(4):
        for position in range(LENGTH):
            replaced = x.clone()
            replaced[:, :, position] = nn.functional.one_hot(torch.tensor(character), 4)
            effects[:, character, position] = (model(replaced) - model(x))[:, 0]
    return effects


def apart(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def correlation(hypothetical: Tensor, x: Tensor, effects: Tensor) -> float:
    differences = hypothetical - (hypothetical * x).sum(1, keepdim=True)
    other = x == 0
    return float(torch.corrcoef(torch.stack([differences[other], effects[other]]))[0, 1])


if __name__ == "__main__":
    main()
