"""What more processes give, and whether killing them changes anything.

    python benchmarks/scale_engines.py [--sequences 96] [--rounds 3] [--kills 20] [--engines torchrun ray] [--folder FOLDER]

Throughput: BPNet with 32 filters on SEQUENCES sequences of 1,000 base pairs against 20 shuffles each, by ``deepshap-ext explain`` in one
process, in two ranks of torchrun, and in two workers of Ray, a thread each. The rate is that of the second half of the shards, so that it
has no start-up in it. A ratio is the median of the rounds' own, in which all take turns.

Kills: two workers explain rows with a small network, and whichever process runs is killed at a random moment, KILLS times. Afterwards the
store must be complete, pass ``verify``, and be that of a run that was left alone, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import zarr
from networks import BPNet, mlp, one_hot, shuffled
from results import machine
from torch import nn

from deepshap_ext.scale import Store, verify

SHARD_SIZE = 2
ROWS, ROWS_A_SHARD = 20_000, 20
#: Seconds that a process lives before it is killed, at most.
LIFE = 1.0
LAUNCHERS = {
    "one process": ([], []),
    "torchrun": (["torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1000", "-m"], []),
    "ray": ([], ["--engine", "ray"]),
}


def bpnet() -> nn.Module:
    torch.manual_seed(0)
    return BPNet(32, 5)


def shuffles(x: np.ndarray, seeds: list[int]) -> np.ndarray:
    """Twenty baselines for each sequence, drawn from its seed."""
    found = []
    for sequence, seed in zip(x, seeds, strict=True):
        torch.manual_seed(seed)
        found.append(shuffled(torch.from_numpy(sequence), 20).numpy())
    return np.stack(found)


def doomed() -> nn.Module:
    """A network whose process is killed at some moment, if there are kills left in the folder named by KILLS."""
    threading.Thread(target=_kill, daemon=True).start()
    torch.manual_seed(0)
    return mlp()


def _kill() -> None:
    time.sleep(random.SystemRandom().uniform(0, LIFE))
    left = sorted(Path(os.environ["KILLS"]).iterdir())
    if left:
        left[0].unlink(missing_ok=True)
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sequences", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--engines", nargs="+", choices=["torchrun", "ray"], default=["torchrun", "ray"])
    parser.add_argument("--folder", type=Path, help="where the stores are; a temporary folder by default")
    arguments = parser.parse_args()
    print(machine(torch.device("cpu")))
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.rounds:
            throughput(Path(folder), arguments.engines, arguments.sequences, arguments.rounds)
        for engine in arguments.engines if arguments.kills else []:
            kills(Path(folder), engine, arguments.kills)


def throughput(folder: Path, engines: list[str], sequences: int, rounds: int) -> None:
    np.save(folder / "x.npy", one_hot(sequences, 4, 1000).numpy())
    options = ["--inputs", folder / "x.npy", "--model", "scale_engines:bpnet", "--baselines", "scale_engines:shuffles"]
    rates: dict[str, list[float]] = {name: [] for name in ("one process", *engines)}
    for number in range(rounds):
        for name, found in rates.items():
            store = folder / f"{name} {number}"
            run(name, store, *options, "--target", "0", "--shard-size", SHARD_SIZE)
            done = sorted(path.stat().st_mtime for path in (store / "checksums").glob("c.*"))
            half = len(done) // 2
            found.append(SHARD_SIZE * (len(done) - half) / (done[-1] - done[half - 1]))
    for name, found in rates.items():
        ratios = [rate / alone for rate, alone in zip(found, rates["one process"], strict=True)]
        print(f"{name}: {statistics.median(found):.2f} sequences/s, {statistics.median(ratios):.2f} times one process")


def kills(folder: Path, engine: str, number: int) -> None:
    np.save(folder / "rows.npy", np.random.default_rng(0).normal(size=(ROWS, 30)).astype(np.float32))
    np.save(folder / "baselines.npy", np.load(folder / "rows.npy")[:1000])
    options = [
        "--inputs",
        folder / "rows.npy",
        "--baselines",
        folder / "baselines.npy",
        "--model",
        "scale_engines:doomed",
    ]
    options += ["--shard-size", ROWS_A_SHARD]
    marks = folder / f"kills under {engine}"
    marks.mkdir()
    whole, store = folder / f"left alone by {engine}", folder / f"killed under {engine}"
    run("one process", whole, *options, KILLS=str(marks))
    for mark in range(number):
        (marks / f"{mark:04d}").touch()
    begun = time.perf_counter()
    run(engine, store, *options, KILLS=str(marks))
    seconds = time.perf_counter() - begun
    left = len(list(marks.iterdir()))
    wrong = [
        name
        for name, array in zarr.open_group(whole, mode="r").arrays()
        if not np.array_equal(array[...], zarr.open_group(store, mode="r")[name][...])
    ]
    damaged = verify(store)
    print(
        f"{engine}: {number - left} kills in {seconds:.0f} s, {len(Store(store).missing())} shards missing, {len(damaged)} files damaged, "
        f"{'all arrays the same' if not wrong else f'other values in {wrong}'}"
    )


def run(engine: str, store: Path, *options: object, **variables: str) -> None:
    launcher, more = LAUNCHERS[engine]
    words = [sys.executable, "-m", *launcher, "deepshap_ext", "explain", store, "--quiet", *options, *more]
    environment = {**os.environ, **variables}
    here = Path(__file__).parent
    ended = subprocess.run(
        list(map(str, words)),
        cwd=here,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if ended.returncode:
        sys.exit(ended.stderr)


if __name__ == "__main__":
    main()
