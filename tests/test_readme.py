"""The examples in the documents print what they say, times are those measured, and what is called supported is."""

import contextlib
import io
import re
import runpy
from pathlib import Path
from types import ModuleType

import matplotlib
import pytest

from deepshap_ext.rules.linear import LINEAR
from deepshap_ext.rules.registry import DECOMPOSITIONS, RULES

matplotlib.use("Agg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
DOCUMENTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
EXAMPLES = {
    f"{name}-{number}": example
    for name, text in DOCUMENTS.items()
    for number, example in enumerate(re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL))
}
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning:shap")
@pytest.mark.parametrize(("code", "printed"), EXAMPLES.values(), ids=EXAMPLES.keys())
def test_example_prints_what_the_document_says(
    code: str, printed: str, shap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plt, "show", lambda: None)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "example", "exec"), {"__name__": "example"})
    plt.close("all")
    assert out.getvalue() == printed


def test_every_python_block_is_such_an_example() -> None:
    for name, text in DOCUMENTS.items():
        assert sum(key.startswith(f"{name}-") for key in EXAMPLES) == text.count("```python")
    assert len(EXAMPLES) > 10


def test_times_are_those_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    measured = runpy.run_path(str(ROOT / "benchmarks" / "readme.py"))
    assert measured["BEGIN"] + measured["table"]() + measured["END"] in DOCUMENTS["README.md"]


def test_links_lead_to_files() -> None:
    # Those of the pages are checked by sphinx, as they are made into a site.
    links = re.findall(r"\]\(([^)#]+)\)", DOCUMENTS["README.md"])
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).is_file()] == []


@pytest.mark.parametrize("family", FAMILIES)
def test_operations_called_supported_are_known(family: str) -> None:
    row = re.search(rf"^\| {family} \| (.*) \|$", DOCUMENTS["docs/supported.md"], re.MULTILINE)
    assert row is not None
    names = set(re.findall(r"`([a-z0-9_]+)`", row.group(1)))
    assert names and names <= RULES.keys() | DECOMPOSITIONS.keys() | LINEAR
