"""A small job that is killed again and again: python small_job.py STORE SHARDS KILLS SECONDS.

Each run is a fork that SIGKILL ends after a random time of up to SECONDS; after KILLS of them one is left alone. Before the forks
all is imported and a sample explained, so that they begin at once, but no zarr group is opened, which would start threads. Prints how
many shards were missing after each kill, -1 while there was no store. While none is done, each run has half as long again as the one
before, so that slow machines get there, too.
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

torch.set_num_threads(1)
torch.manual_seed(0)
EXPLAINER = Explainer(nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 2)).double())
EXPLAINER.attribute(np.ones((1, 6)), 1, baselines=np.zeros((1, 6)))


def run(store: Path, shards: int, seconds: float | None) -> int:
    """The exit status of a run in a fork, which is killed after ``seconds``."""
    if (child := os.fork()) == 0:
        try:
            generator = np.random.default_rng(0)
            x, baselines = generator.normal(size=(SHARD_SIZE * shards - 3, 6)), generator.normal(size=(3, 6))
            explain_to(store, EXPLAINER, x, 1, baselines=baselines, shard_size=SHARD_SIZE)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def missing_after_kill(store: Path, shards: int, longest: float) -> int:
    """How many shards are missing once a run was killed within ``longest`` seconds, -1 where there is no store."""
    status = run(store, shards, random.uniform(0, longest))
    assert status in (0, signal.SIGKILL), status
    return len(Store(store).missing()) if store.exists() else -1


if __name__ == "__main__":
    place, number, kills, seconds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    for _ in range(kills):
        missing = missing_after_kill(place, number, seconds)
        if missing in (-1, number):
            seconds *= 1.5
        print(missing)
    assert run(place, number, None) == 0
