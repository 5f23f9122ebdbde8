"""What a store costs: time beside plain ``attribute``, and memory by the number of samples.

    python benchmarks/scale.py [--rows 1000000] [--sequences 12] [--shards 5000] [--repeats 5] [--folder FOLDER] [--device cpu]

Time: an MLP 30-128-128-1 on ROWS rows against 10 baselines, and BPNet with 64 filters on SEQUENCES sequences of 2,114 base pairs against 20
shuffles each, whose plain ``attribute`` has everything in memory. ``explain_to`` reads the same arrays and writes a store in FOLDER, a
new one each time. Both take turns, and a ratio is the median of the rounds' own ratios. ``explain_to`` explains one sample more than there
are, to know what shapes the store's arrays have, against two baselines if it has its own.

Shards: what one costs in itself, written, asked for, listed and cleaned up behind, of SHARDS shards of a row each.

Memory: how far the resident memory of a process of its own grows beyond what it was before ``explain_to``, with rows that lie in a zarr
array, from a tenth of ROWS to ROWS: where the explainer's passes have 64 MiB (``max_memory``), and with the memory that they take by
default; and so from ROWS to ten times as many. Each process has explained a few rows before.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import zarr
from networks import BPNet, mlp, one_hot, shuffled
from results import machine
from timing import Contender, compare, peak_memory, seconds
from torch import Tensor

from deepshap_ext import Explainer
from deepshap_ext.scale import Job, explain_to, finish, open_store

BASELINES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sequences", type=int, default=12)
    parser.add_argument("--shards", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the stores are; a temporary folder by default")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    arguments = parser.parse_args()
    print(machine(arguments.device))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        place = Path(folder)
        torch.manual_seed(0)
        table = torch.randn(arguments.rows, 30)
        time(f"MLP, {arguments.rows} rows x {BASELINES}", mlp(), table, table[:BASELINES].clone(), place, arguments)
        sequences = one_hot(arguments.sequences, 4, 2114)
        shuffles = torch.stack([shuffled(sequence, 20) for sequence in sequences])
        time(f"BPNet, {arguments.sequences} sequences x 20", BPNet(64, 9), sequences, shuffles, place, arguments)
        shards(table, place / "shards", arguments.shards)
        for max_memory, few in ((64 << 20, arguments.rows // 10), (None, arguments.rows // 10), (None, arguments.rows)):
            numbers = []
            for rows in (few, 10 * few):
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    numbers.append(process.submit(memory, place, rows, max_memory).result() >> 20)
            print(
                f"memory, max_memory={max_memory}: {few} rows {numbers[0]} MiB, {10 * few} rows {numbers[1]} MiB, growth "
                f"{numbers[1] - numbers[0]} MiB"
            )


def time(name: str, model: Any, X: Tensor, baselines: Tensor, place: Path, arguments: argparse.Namespace) -> None:
    """Print how long plain ``attribute`` and ``explain_to`` take."""
    explainer = Explainer(model.to(arguments.device))

    def store() -> None:
        shutil.rmtree(place / "store", ignore_errors=True)
        explain_to(place / "store", explainer, X, 0, baselines=baselines)

    contenders = [Contender("plain", lambda: explainer.attribute(X, 0, baselines=baselines)), Contender("store", store)]
    plain, stored = compare(contenders, arguments.repeats, arguments.device)
    print(f"{name}: plain {plain.median:.2f} s, store {stored.median:.2f} s, ratio {stored.ratio(plain):.3f}")


def shards(table: Tensor, store: Path, number: int) -> None:
    """Print what a shard costs beside its explanation."""
    job = Job(Explainer(mlp()), table[:number], 0, baselines=table[:BASELINES].clone())
    made = open_store(store, job, shard_size=1)
    arrays = job.keep.arrays(job.explain(slice(0, 1)))

    def write() -> None:
        for shard in range(number):
            made.write(shard, arrays)

    works = {
        "written": write,
        "asked for": lambda: [made.is_done(shard) for shard in range(number)],
        "listed": made.missing,
        "cleaned up behind": lambda: finish(made),
    }
    costs = (f"{what} {1e6 * seconds(work, torch.device('cpu')) / number:.0f} us" for what, work in works.items())
    print(f"a shard, of {number}: {', '.join(costs)}")


def memory(place: Path, rows: int, max_memory: int | None) -> int:
    """Bytes that ``explain_to`` takes at most."""
    torch.manual_seed(0)
    explainer, baselines = Explainer(mlp(), max_memory=max_memory), torch.randn(BASELINES, 30)
    explainer.attribute(baselines, 0, baselines=baselines)
    shutil.rmtree(place / "x", ignore_errors=True)
    shutil.rmtree(place / "store", ignore_errors=True)
    X = zarr.create_array(place / "x", shape=(rows, 30), chunks=(10_000, 30), dtype="float32")
    for first in range(0, rows, 10_000):
        X[first : first + 10_000] = torch.randn(min(10_000, rows - first), 30).numpy()
    return peak_memory(lambda: explain_to(place / "store", explainer, X, 0, baselines=baselines), torch.device("cpu"))


if __name__ == "__main__":
    main()
