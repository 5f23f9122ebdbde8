"""A small job that is killed again and again: python small_job.py STORE ROWS KILLS SECONDS.

Each run is a fork that SIGKILL ends after a random time of up to SECONDS; after KILLS of them one is left alone. Before the forks
all is imported and a sample explained, so that they begin at once, but no zarr group is opened, which would start threads. Prints how
many shards were missing after each kill, -1 while there was no store.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
import zarr.codecs  # noqa: F401
from torch import nn

from deepshap_ext import Explainer
from deepshap_ext.scale import Store, explain_to

SHARD_SIZE = 8


torch.manual_seed(0)
EXPLAINER = Explainer(nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 2)).double())


def run(store: str, rows: int, seconds: float | None) -> int:
    """The exit status of a run in a fork, which is killed after ``seconds``."""
    if (child := os.fork()) == 0:
        try:
            generator = np.random.default_rng(0)
            x, baselines = generator.normal(size=(rows, 6)), generator.normal(size=(3, 6))
            explain_to(store, EXPLAINER, x, 1, baselines=baselines, shard_size=SHARD_SIZE)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


if __name__ == "__main__":
    torch.set_num_threads(1)
    place, number, kills, longest = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    EXPLAINER.attribute(np.ones((1, 6)), 1, baselines=np.zeros((1, 6)))
    missing = []
    for _ in range(kills):
        status = run(place, number, random.uniform(0, longest))
        assert status in (0, signal.SIGKILL), status
        missing.append(len(Store(place).missing()) if Path(place).exists() else -1)
    assert run(place, number, None) == 0
    print(*missing)
