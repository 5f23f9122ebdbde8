"""Loading the native libraries: what is missing or from another build is an error that says how to build it."""

import sys

import pytest
import torch

import deepshap_ext
from deepshap_ext.ops import loading
from deepshap_ext.ops.batching import checked_rule, joined_rule, public_rule


def test_build_info_names_the_libraries_that_are_loaded():
    info = deepshap_ext.build_info()
    assert info["torch_target"] == "2.11"
    assert info["libraries"]["_cpu"].endswith("_cpu.so")
    assert ("_cuda" in info["libraries"]) <= (torch.version.cuda is not None)
    assert bool(info["cuda_architectures"]) == bool(info["cuda_version"])


@pytest.mark.parametrize("op", loading.OPS)
def test_every_op_has_what_it_needs(op):
    name = f"deepshap_ext::{op}"
    for key in ("CPU", "FuncTorchBatched"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


def test_a_library_that_was_not_built(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    with pytest.raises(
        ImportError,
        match=r"_cpu.so was not built; build it with `pip install --no-build-isolation -e .`, or, .* outside of its source",
    ):
        loading.load_libraries()


def test_a_library_that_does_not_load(monkeypatch, tmp_path):
    (tmp_path / "_cpu.so").write_text("not a library")
    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    with pytest.raises(ImportError, match=r"_cpu.so does not load into torch .*; rebuild it with `pip install"):
        loading.load_libraries()


def test_a_library_of_other_sources(monkeypatch, tmp_path):
    (tmp_path / "_cpu.so").touch()
    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    monkeypatch.setattr(loading, "_load", lambda name: None)
    monkeypatch.setattr(loading, "OPS", (*loading.OPS, "an_op_of_tomorrow"))
    with pytest.raises(
        ImportError,
        match=r"_cpu.so was built from other sources, which have no an_op_of_tomorrow; rebuild it with `pip",
    ):
        loading.load_libraries()


def test_facts_of_a_build_for_another_python(monkeypatch):
    monkeypatch.delattr(deepshap_ext, "_C", raising=False)
    monkeypatch.setitem(sys.modules, "deepshap_ext._C", None)
    with pytest.raises(ImportError, match=r"_C was not built for Python 3\.\d+\.\d+; rebuild it with `pip install"):
        deepshap_ext.build_info()


def test_cuda_tensors_without_cuda_kernels(monkeypatch, tmp_path):
    refused = {}
    monkeypatch.setattr(loading, "FOLDER", tmp_path)
    monkeypatch.setattr(loading, "_load", lambda name: None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.library, "impl", lambda name, key: lambda kernel: refused.setdefault((name, key), kernel))
    (tmp_path / "_cpu.so").touch()
    loading.load_libraries()
    assert set(refused) == {(f"deepshap_ext::{op}", "cuda") for op in loading.OPS}
    with pytest.raises(
        RuntimeError, match="rescale: deepshap_ext was built without CUDA kernels; with nvcc on PATH, rebuild"
    ):
        refused["deepshap_ext::rescale", "cuda"](torch.zeros(1))


def test_the_public_batching_rule_gives_the_same():
    """What is registered where torch lacks the private names that the direct one takes."""
    op = torch.ops.deepshap_ext.rescale.default
    x, r = torch.randn(4, 7), torch.randn(2, 7)
    grad = torch.randn(2, 3, 4, 7)  # V, the vmapped dimension, x
    rows = torch.tensor([[0, 0], [0, 1], [1, 1]])
    vmap = public_rule(checked_rule("rescale", ("grad", "x", "r", "rows"), joined_rule(op, 4)))
    rest = ("relu", [], 1, 4, "grid")
    out, out_dim = vmap(None, (1, None, None, 0), grad, x, r, rows, *rest)
    assert out_dim == 0
    expected = torch.func.vmap(lambda g, row: op(g, x, r, row, *rest), (1, 0))(grad, rows)
    torch.testing.assert_close(out, expected, rtol=0, atol=0)
