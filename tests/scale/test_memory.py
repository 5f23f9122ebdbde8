"""The memory that a run takes does not depend on how many samples there are."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
import numpy as np, torch, zarr
from pathlib import Path
from torch import nn
from deepshap_ext import Explainer
from deepshap_ext.scale import explain_to

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

folder = Path(sys.argv[1])
model = nn.Sequential(nn.Linear(2000, 4), nn.SiLU(), nn.Linear(4, 1))
explainer, baselines = Explainer(model), np.zeros((1, 2000), np.float32)
for rows in (2000, 20000):
    x = zarr.create_array(folder / f"{rows}.zarr", shape=(rows, 2000), chunks=(500, 2000), dtype="float32")
    for first in range(0, rows, 500):
        x[first : first + 500] = np.random.default_rng(first).random((500, 2000), np.float32)
    explain_to(folder / str(rows), explainer, x, 0, baselines=baselines, shard_size=500)
    print(peak())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_samples(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CODE, tmp_path]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    few, many = map(float, lines)
    # The values of the larger run are 153 MiB.
    assert many - few < 50, lines
