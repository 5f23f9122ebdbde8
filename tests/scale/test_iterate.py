"""Attributions some samples at a time, for those who want no store."""

import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deepshap_ext import DeepExplainer, Explainer

N = 11
X, BASELINES = np.random.default_rng(0).normal(size=(N, 4)), np.random.default_rng(1).normal(size=(3, 4))


class Sum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(self.a(x) * self.b(y))


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 5), nn.SiLU(), nn.Linear(5, 2)).double()


def test_iterate(tmp_path: Path) -> None:
    explainer = Explainer(network())
    plain = explainer.attribute(X, baselines=BASELINES)
    dataset = h5py.File(tmp_path / "x.h5", "w").create_dataset("x", data=X)
    parts = list(explainer.iterate(dataset, baselines=BASELINES, rows=4))
    assert [rows for rows, _ in parts] == [slice(0, 4), slice(4, 8), slice(8, 11)]
    torch.testing.assert_close(torch.cat([part.values for _, part in parts]), plain.values, rtol=1e-12, atol=1e-14)
    ((rows, whole),) = explainer.iterate(dataset, baselines=BASELINES)
    assert rows == slice(0, N)
    torch.testing.assert_close(whole.values, plain.values, rtol=0, atol=0)


def test_iterate_with_a_background() -> None:
    model = network()
    plain = Explainer(model).attribute(X, 1, baselines=BASELINES)
    parts = [part.values for _, part in DeepExplainer(model, BASELINES).iterate(X, 1, rows=3)]
    torch.testing.assert_close(torch.cat(parts), plain.values, rtol=1e-12, atol=1e-14)


def test_iterate_reads_as_it_goes() -> None:
    read: list[int] = []

    class Rows(torch.utils.data.Dataset[Tensor]):
        def __len__(self) -> int:
            return N

        def __getitem__(self, row: int) -> Tensor:
            read.append(row)
            return torch.from_numpy(X[row])

    parts = Explainer(network()).iterate(Rows(), 0, baselines=BASELINES, rows=2)
    next(parts)
    assert max(read) == 1


@pytest.mark.parametrize(
    "explainer", [Explainer(network()), DeepExplainer(network(), BASELINES)], ids=["native", "shap"]
)
def test_out(explainer: Explainer, tmp_path: Path) -> None:
    plain = explainer.attribute(X, baselines=BASELINES, standard_error=True)
    arrays = [
        np.empty((N, 4, 2)),
        np.lib.format.open_memmap(tmp_path / "values.npy", "w+", np.float32, (N, 4, 2)),
        torch.empty(N, 4, 2, dtype=torch.float64),
    ]
    for out in arrays:
        found = explainer.attribute(X, baselines=BASELINES, standard_error=True, out=out)
        assert found.values is out
        np.testing.assert_allclose(np.asarray(out), plain.values, rtol=1e-6)
        for name in ("output", "expected_value", "convergence_delta", "standard_error"):
            torch.testing.assert_close(getattr(found, name), getattr(plain, name), rtol=0, atol=0)
    np.testing.assert_allclose(np.load(tmp_path / "values.npy"), plain.values, rtol=1e-6)


def test_out_of_several_inputs() -> None:
    explainer, both = Explainer(Sum()), [X, X[::-1].copy()]
    plain = explainer.attribute(both, 1, baselines=[BASELINES, BASELINES])
    out = [np.empty((N, 4)), np.empty((N, 4))]
    explainer.attribute(both, 1, baselines=[BASELINES, BASELINES], out=out)
    for one, values in zip(out, plain.values, strict=True):
        np.testing.assert_array_equal(one, values)


READ_ONLY, LEAF = np.empty((N, 4, 2)), torch.empty(N, 4, 2, requires_grad=True)
READ_ONLY.setflags(write=False)


def test_out_that_is_too_narrow() -> None:
    out = np.zeros((3, 2), np.float16)
    with pytest.raises(ValueError, match="out must be wide enough for the values: float16 holds no"):
        Explainer(nn.Linear(2, 1)).attribute(np.full((3, 2), 1e7), 0, baselines=np.zeros((1, 2)), out=out)
    assert not out.any()


def test_files_that_are_closed_or_read_only(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["out"] = np.zeros((3, 2)), np.zeros((3, 2))
    explainer, given = Explainer(nn.Linear(2, 1)), {"target": 0, "baselines": np.zeros((1, 2))}
    with h5py.File(tmp_path / "a.h5", "r") as file:
        x, read = file["x"], file["x"]
        with pytest.raises(ValueError, match="out must be open for writing, got <HDF5 dataset"):
            explainer.attribute(read, out=file["out"], **given)
    with pytest.raises(TypeError, match=r"X must have a shape \[samples, ...\] and slices, got <Closed HDF5"):
        explainer.iterate(x, **given)
    with pytest.raises(ValueError, match="X must be open for reading, got <Closed HDF5 dataset>"):
        explainer.iterate(read, **given)


class Uneven(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 3

    def __getitem__(self, row: int) -> Tensor:
        return torch.zeros(2 + row // 2)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self) -> Iterator[Tensor]:
        return iter(torch.zeros(3, 2))


def test_data_sets_without_rows_of_one_shape() -> None:
    explainer = Explainer(nn.Linear(2, 1))
    with pytest.raises(ValueError, match=r"X must have items of one shape, got \(2,\) and \(3,\)"):
        list(explainer.iterate(Uneven(), 0, baselines=torch.zeros(1, 2)))
    with pytest.raises(TypeError, match="X must be a dataset with a length and items by index, got"):
        explainer.iterate(Stream(), 0, baselines=torch.zeros(1, 2))


def test_arguments() -> None:
    explainer = Explainer(network())
    with pytest.raises(ValueError, match="rows must be None or a positive integer, got 0"):
        explainer.iterate(X, baselines=BASELINES, rows=0)
    for message, out, more in (
        ("out must have shape [11, 4, 2], got array of dtype float64 and shape [11, 4]", np.empty((N, 4)), {}),
        ("out must be an array that can be written to, got a read-only one", READ_ONLY, {}),
        ("out must be a tensor that requires no gradient: pass out.detach()", LEAF, {}),
        ("out must have memory of its own for each element, got", torch.empty(1, 4, 2).expand(N, 4, 2), {}),
        ("out must have memory of its own for each element, got", torch.empty(N, 4, 2, device="meta"), {}),
        ("activations must be False with out", np.empty((N, 4, 2)), {"activations": True}),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            explainer.attribute(X, baselines=BASELINES, out=out, **more)
    for integers in (np.zeros((N, 4, 2), int), torch.zeros(N, 4, 2, dtype=torch.int32)):
        with pytest.raises(TypeError, match=r"out must hold floating-point numbers, got dtype (torch\.)?int"):
            explainer.attribute(X, baselines=BASELINES, out=integers)
        assert not integers.any()
    with pytest.raises(ValueError, match="out must be a list of 2 arrays, got array"):
        Explainer(Sum()).attribute([X, X], 0, baselines=[BASELINES, BASELINES], out=np.empty((N, 4)))
