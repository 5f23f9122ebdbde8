"""What goes wrong in native code arrives in Python as an exception with its text, whatever the libraries were linked with."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deepshap_ext.ops import midpoint

ROOT = Path(__file__).parents[2]


def python(code: str, *arguments: object) -> str:
    """What a process of its own prints, which must end well."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_no_streams_and_no_locales():
    header = re.compile(r"#include <(\w*streams?|iomanip|ios|iosfwd|streambuf|syncstream|locale|regex|format|print)>")
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    assert len(sources) > 40
    assert {path.name: found[0] for path in sources if (found := header.search(path.read_text()))} == {}


BAD_CALLS = """
import sys, torch

torch.ops.load_library(sys.argv[1])
midpoint, rows = torch.ops.deepshap_ext.midpoint, torch.tensor([0, 1])
for x, r, rows, batch in [
    (torch.zeros(3, 4), torch.zeros(2, 5), rows, 3),
    (torch.zeros(3, 4), torch.zeros(2, 4), rows + 7, 3),
    (torch.zeros(1).expand(2**50, 4), torch.zeros(2, 4), rows, 2**50),
]:
    try:
        midpoint(x, r, rows, 1, batch, "grid")
    except Exception as error:
        print(type(error).__name__, error)
"""


def build(folder: Path, flags: str) -> Path:
    """The library with midpoint alone, linked with ``flags``: by CMake's own commands, but without optimization."""
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}

    def run(command: str) -> str:
        return subprocess.run(
            command, shell=True, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
        ).stdout

    settings = f"-DDEEPSHAP_CUDA=OFF '-DCMAKE_MODULE_LINKER_FLAGS={flags}'"
    run(f"cmake -G Ninja -S '{ROOT}' -B . -DPython_EXECUTABLE='{sys.executable}' {settings}")
    *compilers, linker = run("ninja -t commands _cpu.so").splitlines()
    for command in compilers:
        if command.endswith(("/library.cpp", "/midpoint.cpp")):
            run(command.replace(" -O3", " -O0"))
    run(re.sub(r"\S+/(?!library|midpoint)\w+\.cpp\.o", "", linker))
    return folder / "_cpu.so"


@pytest.mark.parametrize("flags", ["-static-libstdc++", "-static-libstdc++ -static-libgcc"])
def test_errors_of_a_library_with_its_own_libstdcxx(flags, tmp_path):
    """As some compilers link by themselves. Its locales are not the process's: a stream would end it, or drop the numbers."""
    assert python(BAD_CALLS, build(tmp_path, flags)).splitlines() == [
        "ValueError midpoint: r must have the shape of x but for the batch dimension, got [2, 5] for x of shape [3, 4], "
        "outer = 1, batch = 3",
        "ValueError midpoint: rows must lie in [0, 2), got 7 at 0",
        "MemoryError deepshap_ext: there is no memory for a tensor of 9007199254740992 elements",
    ]


OUT_OF_MEMORY = """
import resource, torch
from deepshap_ext.ops import softmax

torch.set_num_threads(2)
x = torch.randn(2, 4_000_000).log_softmax(1)
grad, rows = x.unsqueeze(0), torch.tensor([0])
softmax(grad[..., :50_000], x[:, :50_000], x[:, :50_000], rows, 1, False, 1, 2, "aligned")  # threads have started
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 40_000_000, -1))  # room for the output alone
try:
    softmax(grad, x, x, rows, 1, False, 1, 2, "aligned")
except Exception as error:
    print(type(error).__name__, error)
"""


def test_out_of_memory_in_a_thread():
    assert python(OUT_OF_MEMORY).strip() == "MemoryError std::bad_alloc"


def test_numbers_whose_product_overflows():
    with pytest.raises(
        ValueError, match=r"x must have outer \* batch \* inner elements for outer = 4294967296 and batch = 4294967296"
    ):
        midpoint(torch.zeros(3, 4), torch.zeros(2, 4), torch.tensor([0]), 2**32, 2**32, "grid")
