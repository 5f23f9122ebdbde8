"""Killed at any time, a run is continued, and the store is that of a run that was left alone."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from deepshap_ext.scale import Store, verify

JOB = Path(__file__).with_name("small_job.py")
SHARDS = 300


def run(store: Path, kills: int) -> list[int]:
    """How many shards were missing after each kill."""
    command = [sys.executable, JOB, store, str(SHARDS), str(kills), "0.6"]
    return [int(word) for word in subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.split()]


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    missing = run(tmp_path / "killed", 8)
    run(tmp_path / "whole", 0)
    begun = [number for number in missing if number >= 0]
    assert begun == sorted(begun, reverse=True) and begun[-1] < SHARDS and max(begun) > 0, missing
    assert Store(tmp_path / "killed").missing() == [] and verify(tmp_path / "killed") == []
    killed, whole = (zarr.open_group(tmp_path / name, mode="r") for name in ("killed", "whole"))
    for name, array in whole.arrays():
        assert np.array_equal(killed[name][:], array[:]), name
    assert not list(tmp_path.rglob("*.partial"))
