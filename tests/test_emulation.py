"""A GPU without one: the CUDA kernels compiled for the host, and a CUDA device for torch that is the host."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from emulation.build import build, build_device

import deepshap_ext

TESTS = Path(__file__).parent

pytestmark = pytest.mark.slow


class Emulated:
    """A copy of the package in ``folder``, with the CUDA kernels, compiled for the host, in place of the CPU's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        package = folder / "site" / "deepshap_ext"
        ignored = shutil.ignore_patterns("_c*.so", "__pycache__")
        shutil.copytree(Path(deepshap_ext.__file__).parent, package, ignore=ignored)
        shutil.copy(build(folder), package / "_cpu.so")
        self._site = package.parent
        found = self.python("-c", "import deepshap_ext; print(deepshap_ext.__file__)").stdout.strip()
        assert found == str(package / "__init__.py")

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": f"{self._site}{os.pathsep}{TESTS}", **environment}
        return subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=self.folder, capture_output=True, text=True
        )

    def passed(self, *arguments: str, **environment: str) -> int:
        """How many tests pass; none may fail."""
        options = ("-q", "-c", str(TESTS.parent / "pyproject.toml"), "--rootdir", str(TESTS.parent))
        done = self.python("-m", "pytest", *options, "-p", "no:cacheprovider", *arguments, **environment)
        if done.returncode:
            pytest.fail(done.stdout[-4000:] + done.stderr[-2000:])
        return int(done.stdout.split(" passed")[0].split()[-1])


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Emulated:
    return Emulated(tmp_path_factory.mktemp("emulated"))


def test_cuda_kernels_compute_what_the_cpus_do(emulated: Emulated) -> None:
    # Tests of errors are left out: a row that names no baseline may end the kernel, and with it this process.
    kept = "(oracle and (float32 or bfloat16) or long_lines and float32 or layouts or mpmath) and not cuda"
    assert emulated.passed("-k", kept, str(TESTS / "ops")) > 200


def test_the_package_on_a_cuda_device(emulated: Emulated) -> None:
    """Tensors are where they should be, autograd's backward runs in the device's own thread, and replays are CUDA graphs."""
    device = {"EMULATED_GPU": str(build_device(emulated.folder))}
    # Parts of the names of tests that need a real GPU: its limited memory, several streams, or its own kernels of hard gates.
    left_out = " and ".join(f"not {name}" for name in ("memory_halves", "stream", "hard_gates"))
    plugin = ("-p", "emulation.gpu", "-k", left_out)
    assert emulated.passed(*plugin, str(TESTS / "test_cuda.py"), **device) > 40
    files = (str(TESTS / f"test_{name}.py") for name in ("replay", "layers", "options"))
    assert emulated.passed(*plugin, "--device", "cuda", *files, **device) > 150
