"""The command explains what lies in files as Python does what lies in memory, and says in a line what is wrong."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import command_models
import h5py
import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import save_file

from deepshap_ext import Explainer
from deepshap_ext.cli import main
from deepshap_ext.scale import Store

pandas = pytest.importorskip("pandas")

N, R, F = 23, 4, command_models.FEATURES
COLUMNS = [f"c{number}" for number in range(F)]
X = np.random.default_rng(0).normal(size=(N, F)).astype(np.float32)
BASELINES = np.random.default_rng(1).normal(size=(R, F)).astype(np.float32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where commands are given: with x.npy and baselines.npy."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    np.save("x.npy", X)
    np.save("baselines.npy", BASELINES)
    return tmp_path


def explain(*words: str, store: str = "store") -> int:
    return main(["explain", store, "--quiet", *words])


def given(**options: str) -> list[str]:
    """The usual command, with some options otherwise."""
    usual = {
        "model": "command_models:make",
        "inputs": "x.npy",
        "baselines": "baselines.npy",
        "target": "1",
        "shard_size": "5",
    } | options
    return [word for name, value in usual.items() for word in (f"--{name.replace('_', '-')}", *value.split())]


def stored(store: str = "store", name: str = "values") -> np.ndarray:
    return zarr.open_group(store, mode="r")[name][:]


def expected(target: Any = 1, x: Any = X, baselines: Any = BASELINES) -> np.ndarray:
    return Explainer(command_models.make()).attribute(x, target, baselines=baselines).values.numpy()


def same(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def in_hdf5(file: str) -> None:
    with h5py.File(file, "w") as group:
        group["a/x"], group["other"] = X, BASELINES


def in_zarr(file: str) -> None:
    group = zarr.create_group(file)
    group.create_array("x", data=X)
    group.create_array("other", data=BASELINES)


PLACES: dict[str, Callable[[str], Any]] = {
    "one.npy": lambda file: np.save(file, X),
    "one.npz": lambda file: np.savez(file, x=X),
    "two.npz:x": lambda file: np.savez(file, x=X, other=BASELINES),
    "two.h5:a/x": in_hdf5,
    "one.zarr": lambda file: zarr.create_array(file, data=X),
    "two.zarr:x": in_zarr,
    "one.safetensors": lambda file: save_file({"x": torch.from_numpy(X)}, file),
    "two.safetensors:x": lambda file: save_file({"x": torch.from_numpy(X), "y": torch.zeros(2)}, file),
    "all.csv": lambda file: pandas.DataFrame(X, columns=COLUMNS).to_csv(file, index=False),
    f"some.csv:{','.join(COLUMNS)}": lambda file: pandas.DataFrame(X, columns=COLUMNS).assign(name="a").to_csv(file),
    f"some.parquet:{','.join(COLUMNS)}": lambda file: pandas.DataFrame(X, columns=COLUMNS).assign(y=1).to_parquet(file),
}


@pytest.mark.parametrize("place", PLACES)
def test_inputs_lie_in_files(place: str) -> None:
    if ".parquet" in place:
        pytest.importorskip("pyarrow")
    PLACES[place](place.split(":")[0])
    assert explain(*given(inputs=place)) == 0
    same(stored(), expected())


def weights(file: str) -> None:
    torch.manual_seed(5)
    state = {name: torch.randn_like(tensor) for name, tensor in command_models.make().state_dict().items()}
    if file.endswith(".safetensors"):
        save_file(state, file)
    else:
        torch.save({"epoch": 3, "net": state} if file == "part.pt" else state, file)


@pytest.mark.parametrize("spelled", ["w.safetensors", "w.pt", "part.pt:net"])
def test_weights_lie_in_a_file(spelled: str) -> None:
    weights(spelled.split(":")[0])
    weights("again.pt")
    model = command_models.make()
    model.load_state_dict(torch.load("again.pt", weights_only=True))
    assert explain(*given(weights=spelled)) == 0
    same(stored(), Explainer(model).attribute(X, 1, baselines=BASELINES).values)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:The given buffer is not writable")  # torch 2.11's own reading
def test_model_is_an_exported_program() -> None:
    shapes = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(
        torch.export.export(command_models.make(), (torch.from_numpy(X),), dynamic_shapes=shapes), "m.pt2"
    )
    assert explain(*given(model="m.pt2")) == 0
    same(stored(), expected())


def test_model_is_an_explainer() -> None:
    assert explain(*given(model="command_models:explainer")) == 0
    same(stored(), expected())


@pytest.mark.parametrize("text", ["0", "-1", "targets.npy", "table.csv:label", "command_models:predicted"])
def test_every_spelling_of_a_target_explains_that_output(text: str) -> None:
    labels = np.arange(N) % 2
    np.save("targets.npy", labels)
    pandas.DataFrame({"label": labels, "other": 0}).to_csv("table.csv")
    target = {"0": 0, "-1": -1, "command_models:predicted": command_models.predicted}.get(text, labels)
    assert explain(*given(target=text)) == 0
    same(stored(), expected(target))


def test_baselines_are_made_by_a_function() -> None:
    assert explain(*given(baselines="command_models:permuted", seed="3")) == 0
    assert explain(*given(baselines="command_models:permuted", seed="4"), store="other") == 0
    assert not np.array_equal(stored(), stored("other"))
    assert stored(name="expected_value").shape == (N,)


def test_several_inputs_with_an_argument() -> None:
    y, scale = X[:, :3], np.abs(X[:, :1])
    np.savez("all.npz", y=y, scale=scale, base=BASELINES[:, :3])
    words = given(
        model="command_models:two",
        inputs="x.npy all.npz:y",
        baselines="baselines.npy all.npz:base",
        kwargs="scale=all.npz:scale",
    )
    assert explain(*words, "--output", "scores", "--standard-error", "--axes", "a", "--dtype", "float16") == 0
    found = Explainer(command_models.two(), output="scores").attribute(
        [X, y], 1, baselines=[BASELINES, BASELINES[:, :3]], sample_kwargs={"scale": scale}, standard_error=True
    )
    for number in range(2):
        np.testing.assert_allclose(stored(name=f"values/{number}"), found.values[number], rtol=1e-3, atol=1e-4)
    assert stored(name="standard_error/1").shape == (N, 3)


def test_a_run_continues_and_another_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(*given()) == 0
    first = stored()
    store = Store("store")
    store.forget(2)
    before = {path: path.stat().st_mtime_ns for path in Path("store/values").iterdir()}
    assert explain(*given()) == 0
    changed = [path.name for path, time in before.items() if path.stat().st_mtime_ns != time]
    assert changed == ["c.2.0"]
    np.testing.assert_array_equal(stored(), first)
    assert explain(*given(model="command_models:wider")) == 1
    assert "store is the store of another explanation, which differs in model and weights" in capsys.readouterr().err


MESSAGES = {
    "no such module": (given(model="nothing_like_it:make"), r"--model: there is no module nothing_like_it in "),
    "no such function": (
        given(model="command_models:nothing"),
        r"--model: module 'command_models' has no attribute 'nothing'",
    ),
    "no function": (given(model="command_models:not_a_function"), r"--model must name a function, got a int"),
    "no name": (given(model="command_models"), r"--model must be package\.module:name, got command_models"),
    "function fails": (
        given(model="command_models:fails"),
        r"--model: the function raised KeyError: 'no such layer' \(-v shows where\)",
    ),
    "no model": (
        given(model="builtins:dict"),
        r"builtins:dict must return a torch\.nn\.Module or an Explainer, got dict",
    ),
    "no exported file": (given(model="nothing.pt2"), r"--model: there is no file nothing\.pt2"),
    "options twice": (
        [*given(model="command_models:explainer"), "--softmax", "rescale"],
        r"--softmax: command_models:explainer returned",
    ),
    "no inputs": (given(inputs="nothing.npy"), r"--inputs: there is no file nothing\.npy"),
    "no format": (given(inputs="x.txt"), r"--inputs must name a file that ends in one of \.npy, \.npz, .*, got x\.txt"),
    "no key": (
        given(inputs="keys.npz"),
        r"--inputs: keys\.npz: keys\.npz holds a, b: give one of them as keys\.npz:KEY",
    ),
    "no column": (given(inputs="table.csv:a,z"), r"there is no column z among a, b, name"),
    "no numbers": (given(inputs="table.csv:a,name"), r"columns must hold numbers, got name \("),
    "objects": (given(inputs="objects.npy"), r"--inputs: objects\.npy: .*[Oo]bject"),
    "wrong weights": (
        given(weights="other.safetensors"),
        r"--weights: other\.safetensors are not the model's: .*Missing key",
    ),
    "no part": (given(weights="state.pt:net"), r"--weights: state\.pt has no net"),
    "no weights": (given(weights="x.npy"), r"--weights must be a \.safetensors or a \.pt file, got x\.npy"),
    "no weights in it": (
        given(weights="broken.safetensors"),
        r"--weights: broken\.safetensors .*is no such file: .*header",
    ),
    "pickled weights": (
        given(weights="module.pt"),
        r"--weights: module\.pt holds more than weights, or is no such file: torch\.load\(weights_only=True\) refuses it$",
    ),
    "baselines fail": (
        given(baselines="command_models:fails_for"),
        r"error: KeyError: 'no such rows' \(-v shows where\)$",
    ),
    "no part of flat weights": (given(weights="other.safetensors:net"), r"--weights: other\.safetensors has no net"),
    "no device": (given(device="gpu"), r"--device: "),
    "no such GPU": (given(device="cuda:99"), r"--device: "),
    "a device without numbers": (given(device="meta"), r"--device: "),
    "broken file": (given(inputs="broken.safetensors"), r"--inputs: broken\.safetensors: .*header"),
    "no keyword": (given(kwargs="x.npy"), r"--kwargs must be NAME=FILE\[:KEY\], got x\.npy"),
    "wrong shape": (given(baselines="wide.npy"), r"baselines must have shape"),
    "no ranks": (
        given(engine="ranks"),
        r"engine 'ranks' must be in processes that torchrun, srun or a SLURM array has started",
    ),
    "cores": (given(cores="2"), r"cores must be None with engine 'alone'"),
}


@pytest.mark.parametrize("case", MESSAGES)
def test_what_is_wrong_is_said(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("keys.npz", a=X, b=X)
    np.save("objects.npy", np.array([None, 1]))
    np.save("wide.npy", np.zeros((R, F + 1)))
    pandas.DataFrame({"a": [1.0], "b": [2.0], "name": ["x"]}).to_csv("table.csv", index=False)
    save_file({"x": torch.zeros(2)}, "other.safetensors")
    torch.save({"state": {}}, "state.pt")
    torch.save(torch.nn.Linear(1, 1), "module.pt")
    Path("broken.safetensors").write_bytes(b"text")
    words, message = MESSAGES[case]
    assert explain(*words) == 1
    error = capsys.readouterr().err
    assert error.startswith("deepshap-ext: error: ") and "Traceback" not in error
    assert len(error.splitlines()) == 1
    assert re.search(message, error, re.DOTALL), error


def test_ray_is_asked_for_where_it_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert explain(*given(engine="ray")) == 1
    assert "error: engine 'ray' needs Ray: pip install 'deepshap_ext[ray]'" in capsys.readouterr().err


def test_verbose_shows_where_an_error_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(*given(model="command_models:fails"), "-v") == 1
    assert 'raise KeyError("no such layer")' in capsys.readouterr().err


class Touches:
    """Unpickled, this makes a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("unpickled"),)


@pytest.mark.parametrize("file", ["evil.pt", "evil.npy", "evil.npz", "evil.pt2"])
def test_nothing_is_unpickled(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    evil = np.array([Touches()], dtype=object)
    if file == "evil.pt":
        torch.save(Touches(), file)
        words = given(weights=file)
    elif file == "evil.pt2":
        _exported_with_pickled_inputs(file)
        words = given(model=file)
    else:
        (np.save if file.endswith("npy") else np.savez)(file, evil)
        words = given(inputs=file)
    assert explain(*words) == 1
    assert f"{file}" in capsys.readouterr().err
    assert not Path("unpickled").exists()


def _exported_with_pickled_inputs(file: str) -> None:
    """A file of torch.export.save whose example inputs are something else."""
    import zipfile

    torch.export.save(torch.export.export(command_models.make(), (torch.from_numpy(X),)), "good.pt2")
    torch.save(Touches(), "pickled")
    with zipfile.ZipFile("good.pt2") as old, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as new:
        names = [name for name in old.namelist() if "sample_inputs" in name]
        assert names
        for name in old.namelist():
            new.writestr(name, Path("pickled").read_bytes() if name in names else old.read(name))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["nothing"],
        ["explain"],
        ["explain", "store", "--model", "a:b"],
        ["show"],
        ["show", "a", "--top", "0"],
        ["verify", "a", "--no"],
    ],
)
def test_a_command_that_is_not_understood_prints_the_usage(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        main(words)
    assert error.value.code == 2
    assert capsys.readouterr().err.startswith("usage: deepshap-ext")


@pytest.mark.parametrize("command", ["explain", "verify", "show", "info"])
def test_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main([command, "--help"])
    assert error.value.code == 0
    assert f"example:\n  deepshap-ext {command}" in capsys.readouterr().out


def test_verify_names_what_is_corrupt(capsys: pytest.CaptureFixture[str]) -> None:
    explain(*given())
    whole = stored()
    assert main(["verify", "store"]) == 0
    assert "store: 5 of 5 shards are done, no file(s) damaged" in capsys.readouterr().out
    chunk = Path("store/values/c.1.0")
    chunk.write_bytes(bytes([chunk.read_bytes()[0] ^ 1]) + chunk.read_bytes()[1:])
    assert main(["verify", "store"]) == 1
    assert "values/c.1.0 is corrupt\nstore: 5 of 5 shards are done, 1 file(s) damaged" in capsys.readouterr().out
    assert main(["verify", "store", "--forget"]) == 1
    assert "4 of 5 shards are done" in capsys.readouterr().out
    assert explain(*given()) == 0 and main(["verify", "store"]) == 0
    np.testing.assert_array_equal(stored(), whole)
    assert main(["verify", "nothing"]) == 1
    assert "nothing is no store of attributions" in capsys.readouterr().err


@pytest.mark.parametrize("kept", ["", "--summary", "--per-baseline"])
def test_show_says_what_counts_most_and_draws_it(kept: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert explain(*given(), "--axes", "gene", *kept.split()) == 0
    assert main(["show", "store", "--top", "2", "--picture", "picture.png"]) == 0
    text = capsys.readouterr().out
    mean = np.abs(expected()).mean(0)
    most = int(mean.argmax())
    assert f"{N} samples in 5 shards of 5, all done" in text
    assert "values miss an output's difference by " in text
    assert "target       1\n" in text and "inputs       shape [[23, 6]], dtype float32" in text
    if kept != "--per-baseline":
        ranked = re.findall(r"^  gene (\d) +(\S+) ±", text, re.MULTILINE)
        assert len(ranked) == 2 and int(ranked[0][0]) == most
        assert float(ranked[0][1]) == pytest.approx(mean[most], rel=1e-3)
    assert Path("picture.png").stat().st_size > 1000


def test_show_of_a_store_that_is_not_done(capsys: pytest.CaptureFixture[str]) -> None:
    explain(*given())
    store = Store("store")
    store.forget(0)
    assert main(["show", "store"]) == 0
    assert "4 done" in (text := capsys.readouterr().out) and f"over {N - 5} samples" in text
    for shard in range(1, 5):
        store.forget(shard)
    assert main(["show", "store"]) == 0
    assert "count most" not in capsys.readouterr().out


def test_info_says_versions_and_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    text = capsys.readouterr().out
    assert re.search(rf"^torch +{re.escape(torch.__version__)}", text, re.MULTILINE)
    assert "_cpu.so" in text


@pytest.mark.slow
def test_interrupted_it_leaves_a_store_to_continue(folder: Path) -> None:
    np.save("many.npy", np.random.default_rng(0).normal(size=(900, F)).astype(np.float32))
    words = given(inputs="many.npy", shard_size="3")
    command = [sys.executable, "-m", "deepshap_ext", "explain", "store", *words]
    # Where a shell runs the tests in the background, it has them ignore Ctrl-C, and with them what they start.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, env=command_models.environment(), stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, handler)
    while process.poll() is None and not Path("store/checksums/c.2.0").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    error = process.communicate()[1]
    assert process.returncode == 130, error
    said = re.search(r"interrupted: (\d+) of 300 shards are done, and the same command continues", error)
    assert said is not None and "Traceback" not in error
    assert len(Store("store").missing()) == 300 - int(said[1]) > 0
    assert explain(*words) == 0
    assert explain(*words, store="whole") == 0
    np.testing.assert_array_equal(stored(), stored("whole"))
