"""The examples of the README and of the pages beside it print what they say, and what the README calls supported is."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from deepshap_ext.rules.linear import LINEAR
from deepshap_ext.rules.registry import DECOMPOSITIONS, RULES

ROOT = Path(__file__).resolve().parents[1]
PAGES = {page: (ROOT / page).read_text() for page in ("README.md", "docs/inputs.md")}
README = PAGES["README.md"]
EXAMPLES = [
    pytest.param(page, *example, id=f"{page} {number}")
    for page, text in PAGES.items()
    for number, example in enumerate(re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL))
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


@pytest.mark.parametrize(("page", "code", "printed"), EXAMPLES)
def test_example_prints_what_the_page_says(page: str, code: str, printed: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, page, "exec"), {"__name__": "readme"})
    assert out.getvalue() == printed


@pytest.mark.parametrize("page", PAGES)
def test_every_python_block_is_such_an_example(page: str) -> None:
    assert sum(example.values[0] == page for example in EXAMPLES) == PAGES[page].count("```python") > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_called_supported_are_known(family: str) -> None:
    row = re.search(rf"^\| {family} \| (.*) \|$", README, re.MULTILINE)
    assert row is not None
    names = set(re.findall(r"`([a-z0-9_]+)`", row.group(1)))
    assert names and names <= RULES.keys() | DECOMPOSITIONS.keys() | LINEAR
