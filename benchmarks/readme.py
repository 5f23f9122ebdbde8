"""The README's table of times, from what `benchmarks/peers.py` measured: `make bench` writes it, a test holds the README to it.

    python benchmarks/readme.py

A row a network and device: deepshap_ext's time, and how many times as long each peer took, by its faster way to be called.
"""

from __future__ import annotations

import json
from typing import Any

from report import markdown, number, over, seconds
from results import RESULTS

README = RESULTS.parents[1] / "README.md"
BEGIN, END = "<!-- benchmarks/readme.py writes this table -->\n\n", "\n\n<!-- to here -->"
PEERS = ("captum", "shap", "tangermeme")
#: Relative errors of additivity up to here are rounding.
ROUNDING = 1e-3


def table() -> str:
    lines = []
    for path in sorted(RESULTS.glob("*/peers.json")):
        found = json.loads(path.read_text())
        where = " on a GPU" if found["machine"]["type"] == "cuda" else ""
        for one in found["measured"]:
            ours = one["rows"][0]
            others = [
                times_as_long([row for row in one["rows"] if row["name"].startswith(peer)], ours) for peer in PEERS
            ]
            lines.append([one["job"] + where, seconds(ours["median"]), *others])
    return markdown(["", "deepshap_ext", *PEERS], lines)


def times_as_long(rows: list[dict[str, Any]], ours: dict[str, Any]) -> str:
    """The shortest of a peer's times over ours, and how far its values are from adding up where that is more than rounding."""
    ran = [(ratio, row["error"]) for row in rows if (ratio := over(row, ours)) is not None]
    if not ran:
        return ""
    ratio, error = min(ran)
    return f"{number(ratio)} x" + (f", **off by {float(f'{error:.1g}'):g}**" if error > ROUNDING else "")


def main() -> None:
    before, rest = README.read_text().split(BEGIN)
    README.write_text(before + BEGIN + table() + END + rest.split(END)[1])
    print(f"wrote the table of {README}")


if __name__ == "__main__":
    main()
