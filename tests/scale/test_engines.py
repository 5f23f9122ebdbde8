"""Several processes, of which one is killed, leave the store of an undisturbed run, bit for bit."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import command_models
import numpy as np
import pytest
import torch
import zarr

from deepshap_ext import Explainer
from deepshap_ext.scale import Store, StoreError, explain_to, verify
from deepshap_ext.scale.engines.todo import Todo

pytestmark = pytest.mark.slow
N, SHARDS = 80, 20


def inputs() -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(N, command_models.FEATURES)).astype(np.float32)
    # Where command_models.dies_once dies.
    x[N // 2, 0] = 7
    return x


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A store that one process has made, beside the inputs."""
    np.save(tmp_path / "x.npy", inputs())
    (tmp_path / "mark").touch()
    process = subprocess.run(command("whole"), cwd=tmp_path, env=environment(tmp_path), check=False)
    assert process.returncode == 0
    (tmp_path / "mark").unlink()
    return tmp_path / "whole"


def environment(folder: Path, **variables: str) -> dict[str, str]:
    return command_models.environment(DEEPSHAP_TEST_MARK=str(folder / "mark"), **variables)


def command(
    store: str, *words: str, launcher: tuple[str, ...] = (), baselines: str = "command_models:dies_once"
) -> list[str]:
    options = f"--inputs x.npy --model command_models:make --baselines {baselines} --target 0 --summary".split()
    size = ["--shard-size", str(N // SHARDS)]
    return [sys.executable, "-m", *launcher, "deepshap_ext", "explain", store, "-v", *options, *size, *words]


def same(store: Path, whole: Path) -> None:
    assert Store(store).missing() == [] and verify(store) == []
    found, wanted = (zarr.open_group(path, mode="r") for path in (store, whole))
    names = [name for name, item in wanted.members(None) if isinstance(item, zarr.Array)]
    assert "summary/values/mean" in names
    for name in names:
        np.testing.assert_array_equal(found[name][...], wanted[name][...], err_msg=name)
    assert not list(store.rglob("*.partial"))


def test_torchrun_starts_its_ranks_anew(whole: Path) -> None:
    folder = whole.parent
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2", "-m")
    words = command("store", launcher=launcher, baselines="command_models:dies_once_among_others")
    process = subprocess.run(words, cwd=folder, env=environment(folder), stderr=subprocess.PIPE, text=True)
    assert process.returncode == 0, process.stderr
    assert (folder / "mark").exists()
    assert "rank 0 on " in process.stderr and "rank 1 on " in process.stderr
    assert process.stderr.count("shards warned, shard 10 so: somebody died here") == 1
    same(folder / "store", whole)


def test_tasks_of_a_slurm_array_do_what_one_that_was_killed_has_left(whole: Path) -> None:
    folder = whole.parent
    array = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    processes = [
        subprocess.Popen(command("store"), cwd=folder, env=environment(folder, **array, SLURM_ARRAY_TASK_ID=str(task)))
        for task in (1, 2)
    ]
    assert sorted(process.wait() for process in processes) == [-9, 0]
    same(folder / "store", whole)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    found = pytest.importorskip("ray")
    # Its workers find what this process finds.
    monkeypatch.setenv("PYTHONPATH", command_models.environment()["PYTHONPATH"])
    return found


@pytest.mark.filterwarnings("ignore")
def test_ray_gives_others_what_a_worker_that_died_was_at(whole: Path, ray: Any) -> None:
    folder = whole.parent
    process = subprocess.run(
        command("store", "--engine", "ray"), cwd=folder, env=environment(folder), stderr=subprocess.PIPE, text=True
    )
    assert process.returncode == 0, process.stderr
    assert re.search(r"worker \d on \S+ is lost at shard 10, which another does", process.stderr), process.stderr
    same(folder / "store", whole)


@pytest.mark.filterwarnings("ignore")
def test_ray_from_python(tmp_path: Path, ray: Any) -> None:
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        x, baselines = inputs(), inputs()[:3]
        explainer = Explainer(command_models.make())
        explainer.attribute(x[:1], 0, baselines=baselines)
        group = explain_to(tmp_path / "store", explainer, x, 0, baselines=baselines, shard_size=16, engine="ray")
        alone = explain_to(tmp_path / "alone", explainer, x, 0, baselines=baselines, shard_size=16)
        np.testing.assert_array_equal(group["values"][:], alone["values"][:])
        with pytest.raises(StoreError, match=r"is the store of another explanation, which differs in baselines$"):
            explain_to(tmp_path / "store", explainer, x, 0, baselines=baselines + 1, engine="ray")
        assert ray.is_initialized()
    finally:
        ray.shutdown()


@pytest.mark.parametrize(("shard", "what"), [(3, "shard 3"), (None, "opening the store")])
def test_a_job_is_given_up_where_workers_keep_dying(
    shard: int | None, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    todo = Todo()
    for number in range(18):
        todo.again(shard, f"worker {number}", RuntimeError("killed"))
        if number == 8:
            todo.done(shard)
    assert list(todo) == ([] if shard is None else [3] * 18)
    assert caplog.messages[0] == f"worker 0 is lost at {what}, which another does: killed"
    with pytest.raises(
        StoreError, match=f"^10 workers died at {what}: what was done stays, and the same call continues$"
    ):
        todo.again(shard, "worker 18", RuntimeError("killed"))


def test_ray_is_asked_for_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    explainer = Explainer(torch.nn.Linear(command_models.FEATURES, 1))
    with pytest.raises(ImportError, match=r"engine 'ray' needs Ray: pip install 'deepshap_ext\[ray\]'"):
        explain_to(tmp_path / "store", explainer, inputs(), 0, baselines=inputs()[:2], engine="ray")


def test_engines_that_cannot_be(tmp_path: Path) -> None:
    explainer = Explainer(torch.nn.Linear(command_models.FEATURES, 1))
    for options, message in (
        ({"engine": "dask"}, "engine must be one of 'alone', 'ranks', 'ray', got 'dask'"),
        ({"cores": 0, "engine": "ray"}, "cores must be None or a positive integer, got 0"),
        ({"cores": 2}, "cores must be None with engine 'alone'"),
        ({"engine": "ranks"}, "engine 'ranks' must be in processes that torchrun"),
    ):
        with pytest.raises(ValueError, match=message):
            explain_to(tmp_path / "store", explainer, inputs(), 0, baselines=inputs()[:2], **options)
    assert not list(tmp_path.iterdir())
