"""Builds the native half with CMake (see CMakeLists.txt) and hands its libraries to setuptools.

Environment: DEEPSHAP_CUDA (AUTO, ON, OFF), DEEPSHAP_CUDA_ARCHITECTURES (as CMake writes them, such as "90-real;120"),
CMAKE_BUILD_PARALLEL_LEVEL (how many compilers at once).
"""

import os
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Configure, build and install into the package folder: the source's own in an editable install."""

    def run(self) -> None:
        build = ROOT / "build" / "native"
        target = (ROOT if self.inplace or self.editable_mode else Path(self.build_lib).resolve()) / "deepshap_ext"
        configure = ["cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja", f"-DPython_EXECUTABLE={sys.executable}"]
        for variable in ("DEEPSHAP_CUDA", "DEEPSHAP_CUDA_ARCHITECTURES"):
            # A value of an earlier build must not linger in CMake's cache.
            configure.append(f"-D{variable}={os.environ[variable]}" if variable in os.environ else f"-U{variable}")
        # cmake and ninja may be installed beside this Python without being on PATH.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        for command in (
            configure,
            ["cmake", "--build", str(build)],
            ["cmake", "--install", str(build), "--prefix", str(target)],
        ):
            subprocess.run(command, check=True, env={**os.environ, "PATH": path})

    # CMake has installed the libraries where they belong. If they were named here, an editable install would copy some and lose others.
    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


# An extension without sources: only where there is one does setuptools run build_ext and make a wheel for this platform.
setup(ext_modules=[Extension("deepshap_ext._native", sources=[])], cmdclass={"build_ext": CMakeBuild})
