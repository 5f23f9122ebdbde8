"""A store holds what plain ``attribute`` gives, whatever the inputs lie in, and is continued, refused or repaired as it should."""

import errno
import os
import re
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import zarr
from torch import Tensor, nn

from deepshap_ext import AdditivityError, Application, DeepExplainer, Explainer, ExplanationError
from deepshap_ext.scale import Store, StoreError, explain_to, summarize, verify
from deepshap_ext.scale.durable import PARTIAL

N, R = 23, 3


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv1d(4, 5, 3), nn.GELU(), nn.Flatten(), nn.Linear(30, 2)).double()


def sequences(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 4, 8))


X, BASELINES = sequences(N), sequences(R, 1)


class Two(nn.Module):
    """Of two inputs, and an argument with a row a sample."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4).double(), nn.Linear(5, 4).double()

    def forward(self, x: Tensor, y: Tensor, *, scale: Tensor) -> Tensor:
        return torch.tanh(self.a(x) + self.b(y)) * scale


def in_hdf5(array: np.ndarray, folder: Path) -> Any:
    return h5py.File(folder / "x.h5", "w").create_dataset("x", data=array)


def in_zarr(array: np.ndarray, folder: Path) -> Any:
    return zarr.create_array(folder / "x.zarr", data=array, chunks=(5, *array.shape[1:]))


def in_memory_map(array: np.ndarray, folder: Path) -> Any:
    np.save(folder / "x.npy", array)
    return np.load(folder / "x.npy", mmap_mode="r")


def in_object_store(array: np.ndarray, folder: Path) -> Any:
    return zarr.create_array(f"memory://{folder.name}/x.zarr", data=array, chunks=(5, *array.shape[1:]))


def in_dataset(array: np.ndarray, folder: Path) -> Any:
    return torch.utils.data.TensorDataset(torch.from_numpy(array))


PLACES: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "numpy": lambda array, folder: array,
    "tensor": lambda array, folder: torch.from_numpy(array),
    "memory map": in_memory_map,
    "hdf5": in_hdf5,
    "zarr": in_zarr,
    "zarr in an object store": in_object_store,
    "dataset": in_dataset,
}


@pytest.mark.parametrize("place", PLACES)
def test_store_holds_what_attribute_gives(place: str, tmp_path: Path) -> None:
    explainer = Explainer(network())
    x = PLACES[place](X, tmp_path)
    group = explain_to(
        tmp_path / "store", explainer, x, baselines=BASELINES, shard_size=7, standard_error=True, multipliers=True
    )
    plain = explainer.attribute(X, baselines=BASELINES, standard_error=True, multipliers=True)
    for name in ("values", "output", "expected_value", "convergence_delta", "standard_error", "multipliers"):
        expected = getattr(plain, name).numpy()
        assert group[name].shape == expected.shape and group[name].dtype == expected.dtype
        np.testing.assert_allclose(group[name][:], expected, rtol=1e-12, atol=1e-13)
    assert "target" not in group
    assert group["values"].metadata.dimension_names == ("sample", "feature_1", "feature_2", "output")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert {name for name, _ in group.members(max_depth=None)} >= {"values", "output"}


def test_several_inputs_targets_and_arguments_by_row(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y, scale = rng.normal(size=(N, 3)), rng.normal(size=(N, 5)), rng.normal(size=(N, 1))
    own = [rng.normal(size=(N, R, 3)), rng.normal(size=(N, R, 5))]
    target = rng.integers(4, size=N)
    explainer = Explainer(Two())
    store = tmp_path / "store"
    group = explain_to(store, explainer, [x, y], target, baselines=own, sample_kwargs={"scale": scale}, shard_size=5)
    plain = explainer.attribute([x, y], target, baselines=own, sample_kwargs={"scale": torch.from_numpy(scale)})
    for number in range(2):
        np.testing.assert_allclose(group[f"values/{number}"][:], plain.values[number], rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(group["target"][:], target)
    listed = explain_to(store, explainer, [x, y], target.tolist(), baselines=own, sample_kwargs={"scale": scale})
    assert listed["values/0"].shape == (N, 3)
    with pytest.raises(StoreError, match=r"differs in sample_kwargs$"):
        explain_to(store, explainer, [x, y], target, baselines=own, sample_kwargs={"scale": 2 * scale})


def shuffles(x: np.ndarray, seeds: list[int]) -> np.ndarray:
    return np.stack(
        [np.stack([np.random.default_rng(s).permuted(one, axis=1)] * 2) for one, s in zip(x, seeds, strict=True)]
    )


def test_made_baselines_depend_on_the_sample_alone(tmp_path: Path) -> None:
    explainer, drawn = Explainer(network()), []

    def made(x: np.ndarray, seeds: list[int]) -> np.ndarray:
        drawn.append(seeds)
        return shuffles(x, seeds)

    by_seven, by_ten = (
        explain_to(tmp_path / str(size), explainer, X, 0, baselines=made, shard_size=size) for size in (7, 10)
    )
    np.testing.assert_allclose(by_seven["values"][:], by_ten["values"][:], rtol=1e-12, atol=1e-14)
    whole = explain_to(tmp_path / "whole", explainer, X, 0, baselines=made)
    seeds = drawn[-1]
    assert len(set(seeds)) == N and all(0 <= seed < 2**31 for seed in seeds)
    plain = explainer.attribute(X, 0, baselines=shuffles(X, seeds))
    np.testing.assert_allclose(whole["values"][:], plain.values, rtol=1e-12, atol=1e-14)
    with pytest.raises(StoreError, match=r"differs in baselines$"):
        explain_to(tmp_path / "whole", explainer, X, 0, baselines=made, seed=1)


def test_baselines_that_do_not_depend_on_the_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="baselines must return the same for the same samples and seeds"):
        explain_to(
            tmp_path / "store",
            Explainer(network()),
            X,
            0,
            baselines=lambda x, seeds: np.random.normal(size=(len(x), 2, 4, 8)),
        )
    assert not list(tmp_path.iterdir())


def test_a_deep_explainer_brings_its_background(tmp_path: Path) -> None:
    group = explain_to(tmp_path / "store", DeepExplainer(network(), BASELINES), X, 1, shard_size=9)
    plain = Explainer(network()).attribute(X, 1, baselines=BASELINES)
    np.testing.assert_allclose(group["values"][:], plain.values, rtol=1e-12, atol=1e-14)
    with pytest.raises(StoreError, match=r"differs in baselines$"):
        explain_to(tmp_path / "store", DeepExplainer(network(), BASELINES[:2]), X, 1)
    with pytest.raises(TypeError, match="baselines must be given for an Explainer"):
        explain_to(tmp_path / "other", Explainer(network()), X, 1)


def test_layers_and_values_for_every_baseline(tmp_path: Path) -> None:
    model = network()
    explainer = Explainer((model, [model[1], model[3]]))
    group = explain_to(tmp_path / "store", explainer, X, 0, baselines=BASELINES, per_baseline=True, shard_size=6)
    plain = explainer.attribute(X, 0, baselines=BASELINES, per_baseline=True)
    for layer in range(2):
        np.testing.assert_allclose(group[f"values/{layer}"][:], plain.values[layer], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(group[f"convergence_delta/{layer}"][:], plain.convergence_delta[layer], atol=1e-14)
    assert group["values/0"].metadata.dimension_names == ("sample", "baseline", "feature_1", "feature_2")


@pytest.mark.parametrize(
    "options",
    [{"per_baseline": True}, {"weights": [1, 2, 3]}, {"standard_error": True}],
    ids=lambda options: next(iter(options)),
)
def test_baselines_of_each_samples_own(options: dict[str, Any], tmp_path: Path) -> None:
    explainer, own = Explainer(network()), sequences(N * R, 2).reshape(N, R, 4, 8)
    group = explain_to(tmp_path / "store", explainer, X, 0, baselines=own, shard_size=6, **options)
    plain = explainer.attribute(X, 0, baselines=own, **options)
    np.testing.assert_allclose(group["values"][:], plain.values, rtol=1e-12, atol=1e-14)
    if plain.standard_error is not None:
        np.testing.assert_allclose(group["standard_error"][:], plain.standard_error, rtol=1e-9, atol=1e-14)


def test_dtypes_and_sums_over_axes(tmp_path: Path) -> None:
    explainer, axes = Explainer(network()), ["channel", "position"]
    plain = explainer.attribute(X, baselines=BASELINES).values.numpy()
    half = explain_to(tmp_path / "half", explainer, X, baselines=BASELINES, dtype="float16", shard_size=9)
    assert half["values"].dtype == np.float16 and half["output"].dtype == np.float64
    np.testing.assert_array_equal(half["values"][:], plain.astype(np.float16))
    summed = explain_to(
        tmp_path / "sum", explainer, X, baselines=BASELINES, axes=axes, sum_over="channel", shard_size=9
    )
    assert summed["values"].metadata.dimension_names == ("sample", "position", "output")
    np.testing.assert_allclose(summed["values"][:], plain.sum(1), rtol=1e-11, atol=1e-13)
    with pytest.raises(
        ValueError, match=re.escape("sum_over must name axes of the features, ['channel', 'position'], got ['chanel']")
    ):
        explain_to(tmp_path / "no", explainer, X, baselines=BASELINES, axes=axes, sum_over="chanel")
    with pytest.raises(
        ValueError, match=re.escape("axes must name the 2 dimension(s) of a sample's values, got ['channel']")
    ):
        explain_to(tmp_path / "no", explainer, X, baselines=BASELINES, axes=["channel"])
    with pytest.raises(ValueError, match="standard_error must be False with sum_over"):
        explain_to(tmp_path / "no", explainer, X, baselines=BASELINES, sum_over="feature_1", standard_error=True)


def test_values_too_large_for_half_precision_are_refused(tmp_path: Path) -> None:
    model = nn.Linear(2, 1).double()
    with pytest.raises(ValueError, match="dtype must be wide enough for values: float16 holds no"):
        explain_to(
            tmp_path / "s", Explainer(model), np.full((3, 2), 1e7), 0, baselines=np.zeros((1, 2)), dtype="float16"
        )


@pytest.mark.parametrize("summary", [True, False])
def test_summaries_are_numpys(summary: bool, tmp_path: Path) -> None:
    explainer = Explainer(network())
    store = tmp_path / "store"
    group = explain_to(store, explainer, X, 1, baselines=BASELINES, summary=summary, shard_size=4)
    plain = explainer.attribute(X, 1, baselines=BASELINES).values.numpy()
    found = summarize(store)["values"]
    expected = {
        "mean": plain.mean(0),
        "mean_absolute": np.abs(plain).mean(0),
        "mean_error": plain.std(0, ddof=1) / N**0.5,
        "mean_absolute_error": np.abs(plain).std(0, ddof=1) / N**0.5,
    }
    assert found.number == N
    for name, array in expected.items():
        np.testing.assert_allclose(getattr(found, name), array, rtol=1e-9, atol=1e-15)
        if summary:
            np.testing.assert_array_equal(group[f"summary/values/{name}"][:], getattr(found, name))
    assert ("values" in group) == (not summary)


def test_summary_does_not_depend_on_the_order_of_shards(tmp_path: Path) -> None:
    explainer = Explainer(network())
    first, again = tmp_path / "first", tmp_path / "again"
    explain_to(first, explainer, X, 1, baselines=BASELINES, summary=True, shard_size=4)
    explain_to(again, explainer, X, 1, baselines=BASELINES, summary=True, shard_size=4)
    for shard in (0, 3):
        Store(again).forget(shard)
    assert summarize(again)["values"].number == N - 8
    explain_to(again, explainer, X, 1, baselines=BASELINES, summary=True)
    np.testing.assert_array_equal(summarize(first)["values"].mean_error, summarize(again)["values"].mean_error)


def test_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    explainer, store = Explainer(network()), tmp_path / "store"
    explain_to(store, explainer, X, 1, baselines=BASELINES, shard_size=5)
    before = {path: path.stat().st_mtime_ns for path in store.rglob("c.*")}
    Store(store).forget(2)
    explain_to(store, explainer, X, 1, baselines=BASELINES)
    changed = {
        path.relative_to(store).as_posix() for path in store.rglob("c.*") if before[path] != path.stat().st_mtime_ns
    }
    assert changed == {f"{name}/c.2" for name in ("output", "expected_value", "convergence_delta", "target")} | {
        "values/c.2.0.0",
        "checksums/c.2.0",
    }


def test_a_shard_larger_than_all_samples_is_all_of_them(tmp_path: Path) -> None:
    for _ in range(2):
        explain_to(tmp_path / "store", Explainer(network()), X, 0, baselines=BASELINES, shard_size=N + 1)
    assert Store(tmp_path / "store").shards == 1


def other_weights() -> nn.Module:
    model = network()
    with torch.no_grad():
        model[0].bias[0] += 1e-9
    return model


def other_structure() -> nn.Module:
    model = network()
    model[1] = nn.GELU("tanh")
    return model


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("weights", {"explainer": Explainer(other_weights())}),
        ("model", {"explainer": Explainer(other_structure())}),
        ("rules", {"explainer": Explainer(network(), softmax="rescale")}),
        ("output", {"explainer": Explainer(network(), output=lambda output: output * 2)}),
        ("baselines", {"baselines": BASELINES + 1e-9}),
        ("baselines' weights", {"weights": [1, 2, 3]}),
        ("target", {"target": 1}),
        ("target", {"target": lambda outputs: outputs.argmin(1)}),
        ("inputs", {"X": X[:-1]}),
        ("inputs", {"X": X.astype(np.float32)}),
        ("kept", {"dtype": "float32"}),
        ("options", {"standard_error": True}),
        ("shard_size", {"shard_size": 7}),
        ("weights and target", {"explainer": Explainer(other_weights()), "target": 1}),
    ],
)
def test_another_explanation_is_refused_by_name(what: str, change: dict[str, Any], tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"X": X, "target": lambda outputs: outputs.argmax(1), "baselines": BASELINES}
    explain_to(tmp_path / "store", Explainer(network()), **arguments, shard_size=10)
    explain_to(tmp_path / "store", Explainer(network()), **arguments)
    arguments |= {"explainer": Explainer(network()), **change}
    with pytest.raises(StoreError, match=f"which differs in {what}$"):
        explain_to(tmp_path / "store", **arguments)


class Calling(nn.Module):
    """Prints where its function lies."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def extra_repr(self) -> str:
        return repr(self.function)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_the_same_explanation_made_anew_is_no_other(tmp_path: Path) -> None:
    kept = []
    for _ in range(2):
        model = nn.Sequential(network(), Calling(lambda x: x * 2))
        explainer = Explainer(model, output=lambda y: y[:, :1], rules={torch.erf: "integrate", nn.GELU: "rescale"})
        explain_to(tmp_path / "store", explainer, X, lambda y: y.argmax(1), baselines=torch.from_numpy(BASELINES))
        kept.append(model)


def test_without_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(ImportError, match=re.escape("a store needs zarr 3: pip install 'deepshap_ext[scale]'")):
        explain_to(tmp_path / "store", Explainer(network()), X, 0, baselines=BASELINES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"args": None}, "args must be a tuple of the model's arguments behind its inputs, got None"),
        ({"args": "ab"}, "args must be a tuple of the model's arguments behind its inputs, got 'ab'"),
        ({"sample_kwargs": [1]}, r"sample_kwargs must be a dict of the model's keyword arguments by name, got \[1\]"),
        (
            {"sample_kwargs": {"mask": [1]}},
            r"sample_kwargs\['mask'\] must be a tensor or a numpy array, got \[1\]: pass",
        ),
        ({"baselines": np.float64(0)}, "baselines must be a torch tensor or a numpy array, got float64"),
        ({"passes": "8"}, "passes must be a positive integer, got '8'"),
        ({"standard_error": "yes"}, "standard_error must be True or False, got 'yes'"),
        ({"axes": 3}, "axes must be a name or a list of names, got 3"),
        ({"sum_over": None}, "sum_over must be a name or a list of names, got None"),
        ({"progress": "bar"}, "progress must be True or False, got 'bar'"),
    ],
)
def test_arguments_of_another_kind_are_named(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        explain_to(tmp_path / "store", Explainer(network()), **{"X": X, "target": 0, "baselines": BASELINES, **wrong})
    assert not list(tmp_path.iterdir())


def test_numpys_integers_are_integers(tmp_path: Path) -> None:
    numbers = {"target": np.int64(1), "shard_size": np.int64(9), "seed": np.int64(3), "passes": np.int64(2)}
    explain_to(tmp_path / "store", Explainer(network()), X, baselines=BASELINES, **numbers)
    assert Store(tmp_path / "store").shard_size == 9
    explain_to(tmp_path / "store", Explainer(network()), X, 1, baselines=BASELINES, shard_size=9, seed=3, passes=2)


@pytest.mark.parametrize("lost", ["values", "values/zarr.json", "checksums", "output/zarr.json"])
def test_an_array_that_lost_its_description_gets_it_back(tmp_path: Path, lost: str) -> None:
    store, given = tmp_path / "store", {"X": X, "target": 1, "baselines": BASELINES, "shard_size": 9}
    whole = explain_to(store, Explainer(network()), **given)["values"][:]
    if (store / lost).is_dir():
        shutil.rmtree(store / lost)
    else:
        (store / lost).write_text("{")
    name = f"{lost.partition('/')[0]}/zarr.json"
    with pytest.raises(StoreError, match=rf"{name} is (missing|corrupt): verify\(.*, forget=True\)"):
        explain_to(store, Explainer(network()), **given)
    assert verify(store)[0] in (f"{name} is missing", f"{name} is corrupt")
    verify(store, forget=True)
    assert verify(store) == []
    np.testing.assert_array_equal(explain_to(store, Explainer(network()), **given)["values"][:], whole)


@pytest.mark.parametrize("text", ["[]", '{"attributes": {"deepshap_ext": {"format": 1}}}'])
def test_a_group_that_says_too_little_is_no_store(tmp_path: Path, text: str) -> None:
    (tmp_path / "zarr.json").write_text(text)
    with pytest.raises(StoreError, match="is no store of attributions"):
        Store(tmp_path)


def test_what_is_no_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is no store of attributions"):
        explain_to(tmp_path, Explainer(network()), X, 1, baselines=BASELINES)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(StoreError, match="is no store of attributions"):
        verify(tmp_path / "nothing")


def test_what_was_left_by_a_process_killed_as_it_made_the_store_is_removed(tmp_path: Path) -> None:
    left, others = tmp_path / f"store.{'0f' * 16}{PARTIAL}", tmp_path / f"store.notes{PARTIAL}"
    (left / "values").mkdir(parents=True)
    others.write_text("mine")
    explain_to(tmp_path / "store", Explainer(network()), X, 1, baselines=BASELINES)
    assert {path.name for path in tmp_path.iterdir()} == {"store", others.name}


@pytest.mark.parametrize("place", ["s3://bucket/values.zarr", "memory://values.zarr", zarr.storage.MemoryStore()])
def test_a_store_lies_on_a_file_system(place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (lambda: explain_to(place, Explainer(network()), X, 1, baselines=BASELINES), lambda: verify(place)):
        with pytest.raises((ValueError, TypeError), match="store must be a path"):
            use()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_found_named_and_repaired(damage: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    explain_to(store, Explainer(network()), X, 1, baselines=BASELINES, shard_size=5)
    whole = zarr.open_group(store, mode="r")["values"][:]
    chunk, marker = store / "values" / "c.1.0.0", store / "checksums" / "c.3.0"
    for path in (chunk, marker):
        data = bytearray(path.read_bytes())
        data[3] ^= 16
        path.write_bytes(data if damage == "flip" else data[:7])
    if damage == "remove":
        chunk.unlink()
    named = f"values/c.1.0.0 is {'missing' if damage == 'remove' else 'corrupt'}"
    assert verify(store) == [named, "checksums/c.3.0 is corrupt"]
    assert verify(store, forget=True) == [named, "checksums/c.3.0 is corrupt"]
    assert verify(store) == [] and Store(store).missing() == [1, 3]
    group = explain_to(store, Explainer(network()), X, 1, baselines=BASELINES)
    np.testing.assert_array_equal(group["values"][:], whole)


def test_a_chunk_of_another_run_is_found(tmp_path: Path) -> None:
    """Whole in itself, but not the one that was written here."""
    for name, target in (("a", 0), ("b", 1)):
        explain_to(tmp_path / name, Explainer(network()), X, target, baselines=BASELINES, shard_size=5)
    (tmp_path / "a/values/c.1.0.0").write_bytes((tmp_path / "b/values/c.1.0.0").read_bytes())
    assert verify(tmp_path / "a") == ["values/c.1.0.0 is corrupt"]


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, synchronize, left = tmp_path / "store", os.fsync, 12

    def full(descriptor: int) -> None:
        nonlocal left
        left -= Store(store).path.exists() if store.exists() else 0
        if left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synchronize(descriptor)

    explainer = Explainer(network())
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StoreError,
        match=r"^shard \d of .*store, \d+ bytes, cannot be written, the disk is full: once there is room, the same call continues; "
        r"\d of 5 shards are done and stay$",
    ):
        explain_to(store, explainer, X, 1, baselines=BASELINES, shard_size=5)
    assert verify(store) == [] and 0 < len(Store(store).missing()) < 5
    assert not list(tmp_path.rglob(f"*{PARTIAL}"))
    monkeypatch.undo()
    group = explain_to(store, explainer, X, 1, baselines=BASELINES)
    plain = explainer.attribute(X, 1, baselines=BASELINES)
    np.testing.assert_allclose(group["values"][:], plain.values, rtol=1e-12, atol=1e-14)


def test_ctrl_c_leaves_a_store_that_is_continued(tmp_path: Path) -> None:
    class Interrupting(torch.utils.data.Dataset[Tensor]):
        interrupted = False

        def __len__(self) -> int:
            return N

        def __getitem__(self, row: int) -> Tensor:
            if (
                row == 11
                and not self.interrupted
                and (tmp_path / "store").exists()
                and len(Store(tmp_path / "store").missing()) < 5
            ):
                self.interrupted = True
                raise KeyboardInterrupt
            return torch.from_numpy(X[row])

    x, explainer = Interrupting(), Explainer(network())
    Interrupting.interrupted = False
    with pytest.raises(KeyboardInterrupt):
        for _ in range(2):
            explain_to(tmp_path / "store", explainer, x, 1, baselines=BASELINES, shard_size=2)
            Store(tmp_path / "store").forget(5)
    group = explain_to(tmp_path / "store", explainer, x, 1, baselines=BASELINES)
    assert Store(tmp_path / "store").missing() == [] and np.isfinite(group["values"][:]).all()


class Step(nn.Module):
    """Jumps at 1, which the rule below knows nothing of."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 5 * (x > 1)


def straight(context: Any, module: Step, x: Tensor) -> Application:
    return Application([x], lambda x: (module.forward(x), ()), lambda grad, sides: [grad])


def test_a_sample_that_does_not_add_up_is_named_by_its_index_in_the_whole(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(0, 0.9, size=(N, 4))
    x[17, 2] = 1.7
    explainer = Explainer(nn.Sequential(Step(), nn.Linear(4, 1).double()), rules={Step: straight})
    with pytest.raises(AdditivityError, match=r"X\[15:20\]: .*sample 17, output 0 is off by"):
        explain_to(tmp_path / "store", explainer, x, 0, baselines=np.zeros((1, 4)), shard_size=5)
    assert Store(tmp_path / "store").missing() == [3, 4]
    with pytest.warns(UserWarning, match=r"explanations of 1 of 5 shards warned, shard 3 so: "):
        group = explain_to(
            tmp_path / "recorded", explainer, x, 0, baselines=np.zeros((1, 4)), shard_size=5, check_additivity=False
        )
    assert "sample 17, output 0 is off by" in Store(tmp_path / "recorded").warnings()[3][0]
    assert np.isfinite(group["values"][:]).all()


def test_players_are_told_apart_and_those_of_each_sample_refused(tmp_path: Path) -> None:
    explainer, labels = Explainer(nn.Sequential(nn.Flatten(), nn.Linear(32, 2)).double()), torch.arange(32).view(4, 8)
    swapped = labels.clone()
    swapped[3, 6:] = swapped[3, 6:].flip(0)
    group = explain_to(tmp_path / "store", explainer, X, 0, baselines=BASELINES, players=labels, shard_size=5)
    plain = explainer.attribute(X, 0, baselines=BASELINES, players=labels)
    np.testing.assert_allclose(group["values"][:], plain.values, rtol=1e-12, atol=1e-14)
    with pytest.raises(StoreError, match=r"differs in options$"):
        explain_to(tmp_path / "store", explainer, X, 0, baselines=BASELINES, players=swapped)
    message = re.escape(
        "players must have the features' shape, the same for all samples, where these are explained some at a time"
    )
    for players in (labels.expand(N, 4, 8), labels.expand(N, 4, 8).numpy()):
        with pytest.raises(ValueError, match=message):
            explain_to(tmp_path / "other", explainer, X, 0, baselines=BASELINES, players=players)


def test_errors_say_in_which_samples_they_are(tmp_path: Path) -> None:
    x = X.copy()
    x[13, 0, 0] = np.nan
    with pytest.raises(ValueError, match=re.escape("X[10:15]: X must be finite, got nan at index [3, 0, 0]")):
        explain_to(tmp_path / "store", Explainer(network()), x, 0, baselines=BASELINES, shard_size=5)


def test_arguments(tmp_path: Path) -> None:
    store, explainer = tmp_path / "store", Explainer(network())
    for error, message, arguments in (
        (TypeError, "explainer must be an Explainer or a DeepExplainer, got Linear", {"explainer": nn.Linear(2, 2)}),
        (TypeError, "X must have a shape [samples, ...] and slices, got 3", {"X": 3}),
        (ValueError, "X must have at least one sample", {"X": X[:0]}),
        (ValueError, "seed must be a non-negative integer, got -1", {"seed": -1}),
        (ValueError, "shard_size must be None or a positive integer, got 0", {"shard_size": 0}),
        (ValueError, "dtype must be None, 'float32' or 'float16', got 'int8'", {"dtype": "int8"}),
        (ValueError, "target must be one index, or a list of one a sample for 23 samples, got 2", {"target": [0, 1]}),
        (ValueError, "baselines must have shape [23, baselines, ...]", {"baselines": X[:, None][:5]}),
        (TypeError, "summary must be True or False, got 'yes'", {"summary": "yes"}),
        (ValueError, "activations must be False: a store keeps attributions", {"activations": True}),
        (ExplanationError, "X[0:1]: ", {"X": X[:, :3], "baselines": BASELINES[:, :3]}),
    ):
        given = {"explainer": explainer, "X": X, "baselines": BASELINES, **arguments}
        with pytest.raises(error, match=re.escape(message)):
            explain_to(store, **given)
        assert not store.exists()
