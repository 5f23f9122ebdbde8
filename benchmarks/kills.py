"""A job that is killed at random moments and continued: is a value ever wrong or missing?

    python benchmarks/kills.py [--kills 1000] [--folder FOLDER]

The job of tests/scale/small_job.py, 40 shards, is killed by SIGKILL ten times a store, each time within a random part of a third of what a
run takes that is left alone; then it is left alone. After every kill all shards that count as done are held against their checksums, and at
the end all values against those of a run that was never killed, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "scale"))

import numpy as np
from small_job import missing_after_kill, run

from deepshap_ext.scale import Store, verify

SHARDS, KILLS_A_STORE = 40, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where the stores are; a temporary folder by default")
    arguments = parser.parse_args()
    counts = dict.fromkeys(("before there was a store", "while files were written", "else", "after the end"), 0)
    damaged = wrong = 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        whole = Path(folder) / "whole"
        begun = time.perf_counter()
        assert run(whole, SHARDS, None) == 0
        longest = (time.perf_counter() - begun) / 3
        expected = contents(whole)
        for number in range(-(-arguments.kills // KILLS_A_STORE)):
            store = Path(folder) / str(number)
            for _ in range(KILLS_A_STORE):
                missing = missing_after_kill(store, SHARDS, longest)
                if missing < 0:
                    counts["before there was a store"] += 1
                    continue
                writing = any(store.rglob("*.partial"))
                counts["after the end" if not missing else "while files were written" if writing else "else"] += 1
                damaged += len(verify(store))
            assert run(store, SHARDS, None) == 0
            wrong += not all(np.array_equal(one, other) for one, other in zip(contents(store), expected, strict=True))
    for moment, count in counts.items():
        print(f"killed {moment}: {count}")
    print(f"files of finished shards that were damaged: {damaged}")
    print(f"stores that differ from that of a run left alone: {wrong}")


def contents(path: Path) -> list[np.ndarray]:
    """All arrays of a store; a shard that is missing raises."""
    store = Store(path)
    return [store.read(column.name, shard) for column in store.columns for shard in range(store.shards)]


if __name__ == "__main__":
    main()
