"""A shard counts as done only once its data are on the disk: what is called in which order."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deepshap_ext import Explainer
from deepshap_ext.scale import explain_to


def test_the_marker_comes_after_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, str]] = []
    synchronize, replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        synchronize(descriptor)
        events.append(("synchronized", os.readlink(f"/proc/self/fd/{descriptor}")))

    def renamed(path: Path, target: Path) -> Path:
        events.append(("renamed", f"{path} {target}"))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", renamed)
    store = tmp_path / "store"
    explain_to(store, Explainer(nn.Linear(3, 1)), torch.randn(5, 3), 0, baselines=np.zeros((1, 3)), shard_size=3)
    for shard in range(2):
        names = ["values", "output", "expected_value", "convergence_delta", "target"]
        chunks = [store / name / (f"c.{shard}.0" if name == "values" else f"c.{shard}") for name in names]
        marker = store / "checksums" / f"c.{shard}.0"
        (done,) = (
            place for place, (what, path) in enumerate(events) if what == "renamed" and path.endswith(f" {marker}")
        )
        for chunk in (*chunks, marker):
            (place,) = (k for k, (what, path) in enumerate(events) if what == "renamed" and path.endswith(f" {chunk}"))
            assert ("synchronized", events[place][1].split()[0]) in events[:place]
            assert chunk == marker or ("synchronized", str(chunk.parent)) in events[place:done]
        assert ("synchronized", str(marker.parent)) in events[done:]
