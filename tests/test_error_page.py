"""docs/errors.md has every message of the package, word for word, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import deepshap_ext
from deepshap_ext import errors
from deepshap_ext.scale import StoreError

PACKAGE = Path(deepshap_ext.__file__).parent
PAGE = (Path(__file__).resolve().parents[1] / "docs" / "errors.md").read_text()

#: What a command prints where nothing is wrong, and what its options are.
NO_MESSAGES = {PACKAGE / "cli" / name for name in ("arguments.py", "picture.py", "show.py", "verify.py")}
#: A sentence has one of these words; what has none is a name, or a table of names.
_VERB = re.compile(r"\b(are|calls|cannot|depends|does|gives|has|is|needs|runs|takes|was|writes)\b")
#: "x must be ..., got ...": the page has this form once for all arguments.
_CONTRACT = re.compile(r"\bmust\b")
#: How the ends of messages begin, and lines of a log.
_NO_BEGINNING = re.compile(r"[:;( %]|(it|its|one|they) ")


def _text(node: ast.expr) -> str:
    """A string of the source, with … for each value in it."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
    return re.sub("…+", "…", text)


def _strings(tree: ast.Module) -> Iterator[str]:
    """The strings of a file that are no docstrings."""
    left_out = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            left_out |= {id(part) for part in node.values}
    for node in ast.walk(tree):
        if id(node) not in left_out and (isinstance(node, ast.JoinedStr) or _is_string(node)):
            yield _text(node)


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _source() -> set[str]:
    files = set(PACKAGE.rglob("*.py")) - NO_MESSAGES
    return {text for file in files for text in _strings(ast.parse(file.read_text()))}


SOURCE = _source()
#: What stands in quotes, each in backquotes.
DOCUMENTED = {
    re.sub(r"^(`+) ?(.*?) ?\1$", r"\2", " ".join(message.split()))
    for quoted in re.findall(r"(?:^>.*\n)+", PAGE, re.MULTILINE)
    for message in re.sub("^> ?", "", quoted, flags=re.MULTILINE).split("\n\n")
}


def _is_message(text: str) -> bool:
    sentence = len(text.split()) > 3 and "\n" not in text and _VERB.search(text) is not None
    return sentence and not _CONTRACT.search(text) and not _NO_BEGINNING.match(text)


def test_every_message_is_on_the_page() -> None:
    missing = {text for text in SOURCE - DOCUMENTED if _is_message(text) and text not in PAGE}
    assert not missing, "\n".join(sorted(missing))


def test_every_message_on_the_page_is_in_the_source() -> None:
    gone = DOCUMENTED - SOURCE
    assert len(DOCUMENTED) > 100 and not gone, "\n".join(sorted(gone))


def test_every_class_of_errors_is_on_the_page() -> None:
    classes = [kind.__name__ for kind in vars(errors).values() if isinstance(kind, type)] + [StoreError.__name__]
    assert len(classes) > 6 and all(f"| `{name}` |" in PAGE for name in classes)
