"""A store that cannot be written says why and what to do, whatever of it is written, and is continued once it can be."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from deepshap_ext import Explainer
from deepshap_ext.scale import StoreError, explain_to


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full: once there is room, the same call continues"),
        (errno.EDQUOT, "the quota is used up: once there is room, the same call continues"),
        (errno.EROFS, "the file system is read-only: once it can be written to, the same call continues"),
        (errno.EACCES, "this user has no permission: once it is given, the same call continues"),
    ],
)
@pytest.mark.parametrize("where", ["mkdir", "fsync"])
def test_a_store_that_cannot_be_made(
    number: int, message: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    store = tmp_path / "folder" / "store"
    with monkeypatch.context() as patched:
        patched.setattr(os if where == "fsync" else Path, where, fails)
        with pytest.raises(StoreError) as raised:
            explain_to(store, Explainer(nn.Linear(3, 1)), np.ones((4, 3)), 0, baselines=np.zeros((1, 3)))
    assert str(raised.value) == f"{store} cannot be written, {message}"
    assert not store.exists()


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("file/store", "cannot be written: (File exists|Not a directory)"),
        ("link", "cannot be written: Not a directory"),
    ],
)
def test_a_path_on_which_no_folder_can_be_made(name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(StoreError, match=f"{name} {why}"):
        explain_to(tmp_path / name, Explainer(nn.Linear(3, 1)), np.ones((4, 3)), 0, baselines=np.zeros((1, 3)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_folder_without_a_name_is_no_place_for_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"store must be a path that ends in a name, got '\.'"):
        explain_to(".", Explainer(nn.Linear(3, 1)), np.ones((4, 3)), 0, baselines=np.zeros((1, 3)))
    assert not list(tmp_path.iterdir())


#: Prints what is wrong under three limits of files' sizes: the second is one that a store's descriptions keep, and its values do not.
UNDER_LIMITS = """
import resource
import sys

import numpy as np
import torch
from torch import nn

from deepshap_ext import Explainer
from deepshap_ext.scale import Store, StoreError, explain_to

torch.manual_seed(0)
explainer = Explainer(nn.Linear(10_000, 1))
x = np.ones((4, 10_000), np.float32)
_, most = resource.getrlimit(resource.RLIMIT_FSIZE)
for limit in (100, 1 << 14, most):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
    try:
        explain_to(sys.argv[1], explainer, x, 0, baselines=x[:1] - 1)
    except StoreError as error:
        print(error, flush=True)
print(Store(sys.argv[1]).missing())
"""


def test_files_that_must_not_become_so_large(tmp_path: Path) -> None:
    command = [sys.executable, "-c", UNDER_LIMITS, str(tmp_path / "store")]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    why = r"cannot be written, a file must not become so large: once the limit \(ulimit -f\) is raised, the same call continues"
    assert re.fullmatch(rf".*/store {why}", lines[0]), lines
    assert re.fullmatch(rf"shard 0 of .*/store, \d+ bytes, {why}; 0 of 1 shards are done and stay", lines[1]), lines
    assert lines[2:] == ["[]"]
