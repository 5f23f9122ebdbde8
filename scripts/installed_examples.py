"""Runs the examples of a page and compares what they print with what the page says, where no compiler can help the installed package.

    python installed_examples.py PAGE [FIRST]

FIRST: how many examples to run, from the first on; all if not given.
"""

import contextlib
import io
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import deepshap_ext

if not Path(deepshap_ext.__file__).is_relative_to(sys.prefix):
    sys.exit(f"deepshap_ext must come from {sys.prefix}, got {deepshap_ext.__file__}")
if deepshap_ext.__version__ != version("deepshap_ext"):
    sys.exit(f"__version__ must be the distribution's, {version('deepshap_ext')}, got {deepshap_ext.__version__}")
for tool in ("c++", "g++", "cc", "cmake", "nvcc"):
    if shutil.which(tool):
        sys.exit(f"there must be no compiler, got {shutil.which(tool)}")

page = sys.argv[1]
examples = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", Path(page).read_text(), re.DOTALL)
if len(sys.argv) > 2:
    examples = examples[: int(sys.argv[2])]
if not examples:
    sys.exit(f"{page} must have examples, got none")
for code, expected in examples:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, page, "exec"), {"__name__": "example"})
    if printed.getvalue() != expected:
        sys.exit(f"{page} says that this prints\n{expected}\n{code}\nbut it prints\n{printed.getvalue()}")
print(f"{page}: {len(examples)} example(s) print what it says")
