"""The examples of the README and of docs print what stands below them, and what the README calls supported is."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from deepshap_ext.rules.linear import LINEAR
from deepshap_ext.rules.registry import DECOMPOSITIONS, RULES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {page.name: page.read_text() for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
EXAMPLES = [
    pytest.param(name, code, printed, id=f"{name}-{number}")
    for name, page in PAGES.items()
    for number, (code, printed) in enumerate(re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", page, re.DOTALL))
]
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


@pytest.mark.parametrize(("name", "code", "printed"), EXAMPLES)
def test_example_prints_what_stands_below_it(name: str, code: str, printed: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, name, "exec"), {"__name__": "example"})
    assert out.getvalue() == printed


def test_every_python_block_is_such_an_example() -> None:
    assert len(EXAMPLES) == sum(page.count("```python") for page in PAGES.values()) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_called_supported_are_known(family: str) -> None:
    row = re.search(rf"^\| {family} \| (.*) \|$", README, re.MULTILINE)
    assert row is not None
    names = set(re.findall(r"`([a-z0-9_]+)`", row.group(1)))
    assert names and names <= RULES.keys() | DECOMPOSITIONS.keys() | LINEAR
