"""The documents' examples print what they say, and what the README calls supported is."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from deepshap_ext.rules.linear import LINEAR
from deepshap_ext.rules.registry import DECOMPOSITIONS, RULES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = README, (ROOT / "docs" / "captum.md").read_text()
EXAMPLES = [re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", one, re.DOTALL) for one in DOCUMENTS]
PRINTING = [example for examples in EXAMPLES for example in examples]
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


@pytest.mark.parametrize(("code", "printed"), PRINTING, ids=range(len(PRINTING)))
def test_example_prints_what_its_document_says(code: str, printed: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "example", "exec"), {"__name__": "example"})
    assert out.getvalue() == printed


def test_every_python_block_is_such_an_example() -> None:
    for document, examples in zip(DOCUMENTS, EXAMPLES, strict=True):
        assert len(examples) == document.count("```python") > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_called_supported_are_known(family: str) -> None:
    row = re.search(rf"^\| {family} \| (.*) \|$", README, re.MULTILINE)
    assert row is not None
    names = set(re.findall(r"`([a-z0-9_]+)`", row.group(1)))
    assert names and names <= RULES.keys() | DECOMPOSITIONS.keys() | LINEAR
