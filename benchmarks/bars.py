"""What the measurements under a folder of results say of the bars that the project has set itself.

    python benchmarks/bars.py [--results benchmarks/results/cpu]

Kernels: the share of a device copy's bandwidth that they are to reach, at the largest size of float32, with one output a baseline and with
three. Jobs, of one H100 at full size with TF32: the seconds that the faster of an eager and a compiled explanation may take, and how many
times as long captum and tangermeme must take. Recurrent layers, everywhere: the share of the pairs' floor. Replay, on a CPU: how many times
as long an eager call must take. Bars without a measurement are listed as unjudged. Exit status: 0 where nothing that was judged is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from report import markdown, number, over
from results import RESULTS

Record = dict[str, Any]
#: A line of the table: what is judged, the bar, what was measured (None: unjudged), and whether that reaches the bar.
Judged = tuple[str, str, "float | None", bool]

KERNELS = {
    **dict.fromkeys(
        ["rescale", *(f"rescale ({name})" for name in ("gelu", "silu", "tanh", "sigmoid", "softplus"))], 0.85
    ),
    **dict.fromkeys(["product", "midpoint", "contribution"], 0.85),
    **dict.fromkeys(["softmax", "norm"], 0.7),
    **dict.fromkeys(["maxpool", "recurrence (lstm)"], 0.6),
}
#: The seconds that ours may take (None: any), and the least ratio of a peer's time to ours.
JOBS = {
    "bpnet": (0.55, 6),
    "chrombpnet": (0.6, 6),
    "resnet50": (0.24, 10),
    "vit": (0.24, 6),
    "bert": (0.035, 6),
    "resnet18": (None, 6),
    "mlp": (None, 6),
    "digits": (None, 6),
}
#: The largest time that is allowed, as a multiple of the pairs' floor.
RECURRENT = {"lstm": 1.0, "gru": 1.0, "rnn": 1.0, "lstm-bidirectional": 1.0, "gru-2": 1.0}
#: The least ratio of eager to replayed time.
REPLAY = {"digits": 1.0, "bert": 1.0, "bpnet": 1.0, "resnet18": 1.0}
#: Of small calls the seconds that they may take, and the least ratio of the eager call's time to theirs.
SMALL_CALLS = {
    "1 x 1, eager": (2e-3, None),
    "1 x 1, replayed": (0.5e-3, None),
    "10 x 20, replayed": (None, 5.0),
    "an explainer of a new model": (8e-3, None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS / "cpu", help="the results of one device")
    folder = parser.parse_args().results
    answers = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    measured = {question: found["measured"] for question, found in answers.items()}
    on_gpu = any(found["machine"]["type"] == "cuda" for found in answers.values())
    judged = [*recurrent(measured.get("floor", []))]
    judged += (
        [*kernels(measured.get("kernels", [])), *jobs(measured.get("peers", []))]
        if on_gpu
        else [*replay(measured.get("replay", [])), *small_calls(measured.get("calls", []))]
    )
    lines = [
        [what, bar, number(found) or "unjudged", "" if found is None else "yes" if met else "NO"]
        for what, bar, found, met in judged
    ]
    print(markdown(["", "bar", "measured", "met"], lines))
    sys.exit(any(found is not None and not met for _, _, found, met in judged))


def kernels(measured: Sequence[Record]) -> Iterator[Judged]:
    for name, bar in KERNELS.items():
        of_it = [one for one in measured if one["op"] == name and one["dtype"] == "float32"]
        largest = max((one["grad"] for one in of_it), default=0)
        for pairing in ("grid", "per_sample"):
            for outputs in (1, 3):
                share = [
                    one["of_copy"]
                    for one in of_it
                    if one["pairing"] == pairing and one["outputs"] == outputs and one["grad"] > 0.9 * largest
                ]
                found = share[0] if share else None
                yield (
                    f"{name}, {pairing}, outputs: {outputs}",
                    f"{bar} of a copy",
                    found,
                    bool(share) and share[0] >= bar,
                )


def jobs(measured: Sequence[Record]) -> Iterator[Judged]:
    by_name = {one["name"]: {row["name"]: row for row in one["rows"]} for one in measured}
    for name, (seconds, ratio) in JOBS.items():
        rows = by_name.get(name, {})
        ours = [row for key, row in rows.items() if key.startswith("deepshap_ext") and row["median"]]
        best = min(ours, key=lambda row: row["median"], default=None)
        found = best and best["median"]
        if seconds is not None:
            yield f"{name}, seconds", f"at most {seconds}", found, best is not None and found <= seconds
        for peer in ("captum", "tangermeme"):
            row = rows.get(peer)
            if row and row["crash"]:
                continue  # it cannot explain this one
            found = over(row, best) if best and row else None
            yield f"{name}, {peer} over it", f"at least {ratio}", found, found is not None and found >= ratio


def recurrent(measured: Sequence[Record]) -> Iterator[Judged]:
    rows = {one["name"]: one["rows"] for one in measured}
    for name, bar in RECURRENT.items():
        found = over(rows[name][-1], rows[name][0]) if name in rows else None
        yield f"{name}, of the pairs' floor", f"at most {bar}", found, found is not None and found <= bar


def replay(measured: Sequence[Record]) -> Iterator[Judged]:
    rows = {one["name"]: one["rows"] for one in measured}
    for name, bar in REPLAY.items():
        found = over(rows[name][0], rows[name][1]) if name in rows else None
        yield f"{name}, eager over replayed", f"at least {bar}", found, found is not None and found >= bar


def small_calls(measured: Sequence[Record]) -> Iterator[Judged]:
    by_name = {one["name"]: one for one in measured}
    for name, (most, least) in SMALL_CALLS.items():
        one = by_name.get(name)
        if most is not None:
            found = one and 1e3 * one["fastest"]
            yield f"{name}, milliseconds", f"at most {1e3 * most:g}", found, found is not None and found <= 1e3 * most
        if least is not None:
            found = one and one["eager over it"]
            yield f"{name}, eager over it", f"at least {least:g}", found, found is not None and found >= least


if __name__ == "__main__":
    main()
