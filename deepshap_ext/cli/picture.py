"""A picture of the features that count most."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .files import optional

if TYPE_CHECKING:
    from .show import Feature


def draw(path: str, title: str, tops: dict[str, list[Feature]]) -> None:
    """Bars of mean absolute values, with their standard errors, red where the mean is positive and blue where it is negative."""
    figure = optional("matplotlib.figure", "--picture").Figure(
        figsize=(7, sum(1 + 0.28 * len(features) for features in tops.values())), layout="constrained"
    )
    figure.suptitle(title)
    panels = figure.subplots(len(tops), 1, squeeze=False)[:, 0]
    for panel, (name, features) in zip(panels, tops.items(), strict=True):
        panel.barh(
            [one.name for one in features],
            [one.mean_absolute for one in features],
            xerr=[one.error for one in features],
            color=["#c1121f" if one.mean > 0 else "#1f6fb2" for one in features],
        )
        panel.invert_yaxis()
        panel.set_xlabel(f"mean |{name}| ± standard error; red: raises the output on average, blue: lowers it")
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
