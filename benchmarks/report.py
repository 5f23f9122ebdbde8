"""The measurements under benchmarks/results as a page with pictures: docs/benchmarks.md.

    python benchmarks/report.py [--results benchmarks/results] [--page docs/benchmarks.md]

Every folder of results is a device. The pictures lie beside the page, in a folder of its name.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from results import RESULTS

COLORS = {
    "deepshap_ext": "#1b6ca8",
    "deepshap_ext, compile=True": "#7fb2d9",
    "captum": "#e07b39",
    "captum, one input a call": "#f0b48f",
    "shap": "#8a8a8a",
    "tangermeme": "#5a9e6f",
    "tangermeme, one input a call": "#a9cfb4",
}
PAIRING_COLORS = {"grid": "#1b6ca8", "aligned": "#e07b39", "per_sample": "#5a9e6f"}
INTRODUCTION = """# Benchmarks

Written by `python benchmarks/report.py` from what the benchmarks measured; `make bench` measures anew and writes this page. Times are
medians of rounds in which all contenders take their turns, ratios are medians of each round's ratio.
"""
NO_GPU = """
Nothing on this page was measured on a GPU. The CUDA kernels compile for sm_80, sm_90, sm_100 and sm_120 and, on the host, pass the tests of
the operations, and the package runs on a CUDA device that is the host (`tests/test_emulation.py`); `scripts/check_gpu.sh` tests and
measures them on a GPU.
"""
Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="a folder of folders, one a device")
    parser.add_argument("--page", type=Path, default=RESULTS.parents[1] / "docs" / "benchmarks.md")
    arguments = parser.parse_args()
    devices = {
        folder.name: {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
        for folder in sorted(arguments.results.iterdir())
        if folder.is_dir()
    }
    pictures = arguments.page.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    parts = [INTRODUCTION]
    if not any(found["machine"]["type"] == "cuda" for answers in devices.values() for found in answers.values()):
        parts.append(NO_GPU)
    for device, answers in devices.items():
        for question, (title, write) in QUESTIONS.items():
            if question in answers:
                found = answers[question]
                picture = Picture(pictures / f"{device}-{question}.png", arguments.page.parent)
                parts.append(f"\n## {title}: {found['machine']['device']}\n\n{where(found['machine'])}\n")
                parts.append("\n" + write(found["measured"], picture) + "\n")
    arguments.page.write_text("".join(parts))
    print(f"wrote {arguments.page}")


class Picture:
    """Where a figure goes, and how the page refers to it."""

    def __init__(self, path: Path, page: Path) -> None:
        self.path, self.page = path, page

    def save(self, figure: Any, caption: str) -> str:
        figure.savefig(self.path, dpi=100, bbox_inches="tight")
        plt.close(figure)
        return f"![{caption}]({self.path.relative_to(self.page)})"


def where(machine: Record) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items() if number)
    return (
        f"{machine['threads']} threads of {machine['cpus']} CPUs; {versions}; commit {machine['commit'] or 'unknown'}."
    )


# --- one a question: the measurements as markdown ------------------------------------------------------------------------------


def peers(measured: Sequence[Record], picture: Picture) -> str:
    explainers = list(dict.fromkeys(row["name"] for one in measured for row in one["rows"]))
    lines = []
    for one in measured:
        ours = one["rows"][0]
        lines.append([f"**{one['job']}**", "", "", "", "", ""])
        for row in one["rows"]:
            if row["crash"]:
                lines.append([row["name"], f"`{row['crash']}`", "", "", "", ""])
                continue
            both = isinstance(row["memory"], int) and isinstance(ours["memory"], int)
            lines.append(
                [
                    row["name"],
                    seconds(row["median"]),
                    number(over(row, ours)),
                    mebibytes(row["memory"]) if isinstance(row["memory"], int) else f"`{row['memory']}`",
                    number(row["memory"] / ours["memory"]) if both else "",
                    f"{row['error']:.0e}",
                ]
            )
    figure, (times, memory) = plt.subplots(
        1, 2, figsize=(13, 0.16 * len(measured) * len(explainers) + 1.6), sharey=True
    )
    step = 0.8 / (len(explainers) - 1)
    names = [one["job"].split(":")[0] for one in measured]
    for panel, quantity in ((times, over), (memory, memory_over)):
        for place, explainer in enumerate(explainers[1:]):
            label: str | None = explainer
            for line, one in enumerate(measured):
                for row in (row for row in one["rows"] if row["name"] == explainer):
                    value = quantity(row, one["rows"][0])
                    height = line + step * (place - len(explainers) / 2 + 1)
                    panel.barh(height, (value or 1) - 1, 0.9 * step, left=1, color=COLORS[explainer], label=label)
                    panel.text(max(value or 1, 1), height, f" {number(value) or excuse(row)}", va="center", fontsize=7)
                    label = None
        panel.axvline(1, color=COLORS["deepshap_ext"], linewidth=1.5, label="deepshap_ext")
        panel.set_xscale("log")
        panel.spines[["top", "right"]].set_visible(False)
    times.set_yticks(range(len(names)), names)
    times.invert_yaxis()
    times.set_xlabel("time / deepshap_ext's")
    memory.set_xlabel("peak memory / deepshap_ext's")
    figure.legend(*times.get_legend_handles_labels(), loc="upper center", ncols=4, frameon=False)
    head = ["", "time", "/ ours", "peak memory", "/ ours", "additivity error"]
    return picture.save(figure, "Time and memory of the peers") + "\n\n" + markdown(head, lines)


def floor(measured: Sequence[Record], picture: Picture) -> str:
    floors = [row["name"] for row in measured[0]["rows"][:-1]]
    lines = []
    figure, panel = plt.subplots(figsize=(9, 0.5 * len(measured) + 1.4))
    for line, one in enumerate(measured):
        *rows, ours = one["rows"]
        ratios = [over(ours, row) for row in rows]
        lines.append(
            [one["job"], *[row["crash"] or seconds(row["median"]) for row in one["rows"]], *map(number, ratios)]
        )
        for place, (name, ratio, color) in enumerate(
            zip(floors, ratios, ("#8a8a8a", "#1b6ca8", "#7fb2d9"), strict=True)
        ):
            height = line + 0.27 * (place - 1)
            panel.barh(height, ratio or 0, 0.25, color=color, label=name if line == 0 else None)
            panel.text(ratio or 0, height, f" {number(ratio)}", va="center", fontsize=8)
    panel.axvline(1, color="black", linewidth=0.8)
    panel.set_yticks(range(len(measured)), [one["job"].split(":")[0] for one in measured])
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlabel("deepshap_ext's time / the floor's")
    panel.legend(frameon=False, fontsize=8)
    head = ["", "pairs' floor", "grid's", "kept", "deepshap_ext", "/ pairs'", "/ grid's", "/ kept"]
    return picture.save(figure, "Time over the floors") + "\n\n" + markdown(head, lines)


def kernels(measured: Sequence[Record], picture: Picture) -> str:
    lines = [
        [
            one["op"], one["pairing"], one["dtype"], str(one["outputs"]), mebibytes(one["grad"]), seconds(one["median"]),
            f"{one['bandwidth'] / 1e9:.0f} GB/s", f"{one['copy'] / 1e9:.0f} GB/s", number(one["of_copy"]), f"{one['error']:.0e}",
        ]
        for one in measured
    ]  # fmt: skip
    operations = list(dict.fromkeys(one["op"] for one in measured))
    dtypes = list(dict.fromkeys(one["dtype"] for one in measured))
    figure, panels = plt.subplots(1, len(dtypes), figsize=(3.3 * len(dtypes) + 1, 3.2), sharey=True, squeeze=False)
    for dtype, panel in zip(dtypes, panels[0], strict=True):
        # The largest of the sizes, which no cache holds, with the most outputs.
        for place, (pairing, color) in enumerate(PAIRING_COLORS.items()):
            rows = [one for one in measured if one["dtype"] == dtype and one["pairing"] == pairing]
            largest = {one["op"]: one for one in sorted(rows, key=lambda one: (one["grad"], one["outputs"]))}
            heights = [operations.index(name) + 0.27 * (place - 1) for name in largest]
            panel.barh(heights, [one["of_copy"] for one in largest.values()], 0.25, color=color, label=pairing)
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_title(dtype, fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0][0].set_yticks(range(len(operations)), operations)
    panels[0][0].invert_yaxis()
    panels[0][-1].legend(frameon=False, fontsize=8)
    figure.supxlabel("bandwidth / a copy's, at the largest size", fontsize=10, y=-0.04)
    head = ["", "pairing", "dtype", "outputs", "grad", "time", "bandwidth", "a copy's", "of a copy", "error"]
    return picture.save(figure, "Bandwidth of the kernels") + "\n\n" + markdown(head, lines)


def scaling(measured: Sequence[Record], picture: Picture) -> str:
    lines = [
        [one["what"], str(one[one["what"]]), seconds(one["median"]), number(one["linear"]), mebibytes(one["memory"])]
        for one in measured
    ]
    figure, (times, memory) = plt.subplots(1, 2, figsize=(11, 3.6))
    for what in dict.fromkeys(one["what"] for one in measured):
        series = [one for one in measured if one["what"] == what]
        growth = [one[what] / series[0][what] for one in series]
        times.plot(growth, [one["linear"] for one in series], marker="o", label=what)
        memory.plot(growth, [one["memory"] / 2**20 for one in series], marker="o", label=what)
    for panel, label in ((times, "time per unit / the first's"), (memory, "peak memory, MiB")):
        panel.set_xscale("log", base=2)
        panel.set_xlabel("times as many")
        panel.set_ylabel(label)
        panel.set_ylim(bottom=0)
        panel.spines[["top", "right"]].set_visible(False)
    times.axhline(1, color="black", linewidth=0.8)
    times.legend(frameon=False)
    head = ["growing", "", "time", "x linear", "peak memory"]
    return picture.save(figure, "Time and memory as a job grows") + "\n\n" + markdown(head, lines)


def startup(measured: Sequence[Record], picture: Picture) -> str:
    return markdown(["", "median"], [[one["name"], seconds(one["median"])] for one in measured])


def replay(measured: Sequence[Record], picture: Picture) -> str:
    lines = [
        [
            one["job"], row["name"], row["crash"] or seconds(row["median"]), number(over(one["rows"][0], row)),
            "" if row is one["rows"][0] else seconds(one["first"][row["name"]]), f"{row['error']:.0e}",
        ]
        for one in measured
        for row in one["rows"]
    ]  # fmt: skip
    head = ["", "", "a call", "eager / it", "first calls", "apart from eager"]
    return markdown(head, lines)


def calls(measured: Sequence[Record], picture: Picture) -> str:
    rows = [[one["name"], seconds(one["fastest"]), number(one["eager over it"])] for one in measured]
    return markdown(["", "fastest", "eager / it"], rows)


def precision(measured: Sequence[Record], picture: Picture) -> str:
    head = ["", "precision", "distance to float64", "additivity error"]
    rows = [[one["name"], one["precision"], f"{one['distance']:.0e}", f"{one['error']:.0e}"] for one in measured]
    return markdown(head, rows)


QUESTIONS: dict[str, tuple[str, Callable[[Sequence[Record], Picture], str]]] = {
    "peers": ("Against the peers", peers),
    "floor": ("Against the floors", floor),
    "kernels": ("The kernels", kernels),
    "scaling": ("Scaling", scaling),
    "startup": ("Start-up", startup),
    "replay": ("Replay", replay),
    "calls": ("Small calls", calls),
    "precision": ("Precision", precision),
}


# --- numbers -------------------------------------------------------------------------------------------------------------------


def over(row: Record, other: Record) -> float | None:
    """The median of the rounds' ratios of time; None where one of the two crashed."""
    ratios = [mine / theirs for mine, theirs in zip(row["seconds"], other["seconds"], strict=False)]
    return statistics.median(ratios) if ratios else None


def excuse(row: Record) -> str:
    """What a row's cell says where there is no number."""
    crash = row["crash"] or ""
    return "not installed" if crash.startswith("ModuleNotFoundError") else "crashes" if crash else ""


def memory_over(row: Record, other: Record) -> float | None:
    both = isinstance(row["memory"], int) and isinstance(other["memory"], int)
    return row["memory"] / other["memory"] if both else None


def seconds(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f} s" if value >= 1 else f"{1e3 * value:.1f} ms" if value >= 1e-3 else f"{1e6 * value:.1f} us"


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}" if value < 10 else f"{value:.0f}"


def mebibytes(value: int) -> str:
    return f"{value / 2**20:.{0 if value >= 10 * 2**20 else 1}f} MiB"


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
