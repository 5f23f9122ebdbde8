"""The CUDA kernels compute what the CPU's do: compiled for the host, they pass the operations' tests in place of the CPU's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from emulation.build import build

import deepshap_ext

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_cuda_kernels_on_the_host(tmp_path: Path) -> None:
    package = tmp_path / "site" / "deepshap_ext"
    shutil.copytree(Path(deepshap_ext.__file__).parent, package, ignore=shutil.ignore_patterns("_c*.so", "__pycache__"))
    shutil.copy(build(tmp_path), package / "_cpu.so")

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(package.parent)}
        return subprocess.run(
            [sys.executable, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True
        )

    assert python("-c", "import deepshap_ext; print(deepshap_ext.__file__)").stdout.strip() == str(
        package / "__init__.py"
    )
    done = python(
        *("-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), "-p", "no:cacheprovider"),
        # Not the tests of errors: rows that name no baseline end a kernel, and with it this process.
        *("-k", "(oracle and (float32 or bfloat16) or long_lines and float32 or layouts or mpmath) and not cuda"),
        str(ROOT / "tests" / "ops"),
    )
    if done.returncode:
        pytest.fail(done.stdout[-4000:] + done.stderr[-2000:])
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 200
