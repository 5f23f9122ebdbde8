"""Run the script of docs/start/tour.md and save the picture that it shows.

    python examples/tour.py [--picture out/tour.png]

The page is the only place where the script is written.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt

PAGE = Path(__file__).resolve().parents[1] / "docs" / "start" / "tour.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", type=Path, default=Path("out/tour.png"))
    picture = parser.parse_args().picture
    picture.parent.mkdir(parents=True, exist_ok=True)

    script = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert script is not None
    plt.show = lambda: plt.savefig(picture, dpi=80)
    exec(compile(script.group(1), str(PAGE), "exec"), {"__name__": "tour"})
    print(f"wrote {picture}")


if __name__ == "__main__":
    main()
