"""Runs the first example of the installed package's README, and compares what it prints with what the README says."""

import contextlib
import io
import re
import shutil
import sys
from importlib.metadata import metadata, version
from pathlib import Path

import deepshap_ext

if not Path(deepshap_ext.__file__).is_relative_to(sys.prefix):
    sys.exit(f"deepshap_ext must come from {sys.prefix}, got {deepshap_ext.__file__}")
if deepshap_ext.__version__ != version("deepshap_ext"):
    sys.exit(f"__version__ must be the distribution's, {version('deepshap_ext')}, got {deepshap_ext.__version__}")
for tool in ("c++", "g++", "cc", "cmake", "nvcc"):
    if shutil.which(tool):
        sys.exit(f"a user has no compiler, got {shutil.which(tool)}")

readme = metadata("deepshap_ext").json["description"]
found = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", readme, re.DOTALL)
if found is None:
    sys.exit("the README must have an example, got none")
code, expected = found.groups()
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    exec(compile(code, "README.md", "exec"), {"__name__": "example"})
if printed.getvalue() != expected:
    sys.exit(f"the README's first example must print\n{expected}\ngot\n{printed.getvalue()}")
print(
    f"deepshap_ext {deepshap_ext.__version__} from {deepshap_ext.__file__}: the README's first example prints what it says"
)
