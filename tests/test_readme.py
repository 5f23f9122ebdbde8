"""The README's examples print what it says, and what it calls supported is."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from deepshap_ext.rules.linear import LINEAR
from deepshap_ext.rules.registry import DECOMPOSITIONS, RULES

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
FAMILIES = (
    "elementwise",
    "two arguments",
    "products",
    "matrices",
    "pooling, maxima",
    "normalisation",
    "softmax, attention",
    "recurrent",
    "linear",
)


@pytest.mark.parametrize(("code", "printed"), EXAMPLES, ids=range(len(EXAMPLES)))
def test_example_prints_what_the_readme_says(code: str, printed: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert out.getvalue() == printed


def test_every_python_block_is_such_an_example() -> None:
    assert len(EXAMPLES) == README.count("```python") > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_called_supported_are_known(family: str) -> None:
    row = re.search(rf"^\| {family} \| (.*) \|$", README, re.MULTILINE)
    assert row is not None
    names = set(re.findall(r"`([a-z0-9_]+)`", row.group(1)))
    assert names and names <= RULES.keys() | DECOMPOSITIONS.keys() | LINEAR
