"""When did it happen? Explain a recurrent classifier of time series, step by step and channel by channel.

    python examples/series.py [--picture out/series.png]

Simulated recordings of three sensors: noise that drifts, and in two of the three classes an event, a bump of the first sensor that the
second follows (class 1) or that it does not follow (class 2). A bidirectional GRU learns to tell them apart.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import torch
from matplotlib import pyplot as plt
from torch import Tensor, nn

from deepshap_ext import Explainer

STEPS, SENSORS, LENGTH = 60, ("pressure", "flow", "temperature"), 8
CLASSES = ("nothing", "a surge", "a blockage")


class Net(nn.Module):
    """Logits ``[N, 3]`` of recordings ``[N, 60, 3]``, and the states they are read from."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(len(SENSORS), 24, batch_first=True, bidirectional=True), nn.Linear(48, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        states = self.gru(x)[0]
        return self.head(states.mean(1)), states


def recordings(number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Recordings ``[number, 60, 3]``, their classes, and the steps at which the events begin."""
    x = 0.3 * torch.randn(number, STEPS, len(SENSORS)) + 0.08 * torch.randn(number, STEPS, len(SENSORS)).cumsum(1)
    classes, starts = torch.randint(3, (number,)), torch.randint(5, STEPS - LENGTH - 10, (number,))
    bump = 1.8 * torch.hann_window(LENGTH)
    for one, kind, start in zip(x, classes.tolist(), starts.tolist(), strict=True):
        if kind:
            one[start : start + LENGTH, 0] += bump
        if kind == 1:
            one[start + 3 : start + 3 + LENGTH, 1] += bump
    return x, classes, starts


def train(x: Tensor, classes: Tensor) -> nn.Module:
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(12):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows])[0], classes[rows]).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1)
            optimizer.step()
    return model.eval()


def draw(picture: Path, x: Tensor, classes: Tensor, starts: Tensor, values: Tensor) -> None:
    """A column a recording: what the sensors said, and below it the value of every step of every sensor."""
    figure, axes = plt.subplots(2, len(x), figsize=(12, 4.6), layout="constrained", sharex=True, height_ratios=[3, 2])
    largest = float(values.abs().max())
    for (above, below), one, kind, start, value in zip(
        axes.T, x, classes.tolist(), starts.tolist(), values, strict=True
    ):
        for sensor, (name, line) in enumerate(zip(SENSORS, one.T, strict=True)):
            above.plot(line + 2.5 * (2 - sensor), linewidth=1.3, label=name)
        above.axvspan(start, start + LENGTH + 3, color="0.92", zorder=0)
        above.set(title=f"{CLASSES[kind]}: the values add up to {value.sum():+.1f}", yticks=[])
        shades = below.imshow(value.T, cmap="RdBu_r", vmin=-largest, vmax=largest, aspect="auto", interpolation="none")
        below.set(yticks=range(3), yticklabels=SENSORS if below is axes[1, 0] else [], xlabel="step")
    axes[0, 0].legend(loc="upper left", fontsize=8, ncols=3, frameon=False)
    figure.colorbar(shades, ax=axes[1], label="value")
    figure.savefig(picture, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=Path("out/series.png"))
    picture = parser.parse_args().picture
    picture.parent.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)
    torch.manual_seed(0)
    x, classes, _ = recordings(2000)
    model = train(x, classes)
    test, test_classes, starts = recordings(500)
    with torch.no_grad():
        right = model(test)[0].argmax(1) == test_classes
    print(f"accuracy on test recordings {right.float().mean():.2f}")

    shown = [int((right & (test_classes == kind)).nonzero()[0]) for kind in (1, 2)]
    nothing = x[classes == 0][:100]  # the baselines: recordings in which nothing happened
    found = Explainer(model, output=0).attribute(test[shown], target=[1, 2], baselines=nothing)
    during = torch.stack(
        [one[start : start + LENGTH + 3].sum() for one, start in zip(found.values, starts[shown], strict=True)]
    )
    print(f"share of the steps of the event: {(during / found.values.sum((1, 2))).tolist()}")
    draw(picture, test[shown], test_classes[shown], starts[shown], found.values)
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
