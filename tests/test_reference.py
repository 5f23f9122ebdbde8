"""The pages of the reference have every public name, every argument and every option of the command, and no other."""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import deepshap_ext
import deepshap_ext.captum
import deepshap_ext.players
import deepshap_ext.scale
import deepshap_ext.tangermeme

ROOT = Path(__file__).resolve().parents[1]
PUBLIC = (deepshap_ext, deepshap_ext.captum, deepshap_ext.players, deepshap_ext.scale, deepshap_ext.tangermeme)
_MODULE = re.compile(r"\.\. (?:currentmodule|automodule):: (\S+)")
#: ``.. autoclass:: Name()`` is one that users are given, and do not make.
_ENTRY = re.compile(r"\.\. auto(?:class|function|exception):: (\w+)(\(\))?(?:\n   :members: ([\w, ]+))?")


def _entries() -> Iterator[tuple[str, Any, list[str]]]:
    """Of every entry of the pages its name, what it documents, and the members that it describes."""
    for page in sorted((ROOT / "docs" / "api").glob("*.md")):
        for block in re.findall(r"```{eval-rst}\n(.*?)```", page.read_text(), re.DOTALL):
            module = _MODULE.search(block)
            assert module is not None, page
            for name, given, members in _ENTRY.findall(block):
                documented = getattr(importlib.import_module(module[1]), name)
                called = ["__init__"] if isinstance(documented, type) and not given else []
                yield f"{module[1]}.{name}", documented, called + members.split(", ") if members else called


ENTRIES = {name: (documented, members) for name, documented, members in _entries()}
NAMES = {f"{module.__name__}.{name}" for module in PUBLIC for name in module.__all__}


def test_every_public_name_has_an_entry_and_nothing_else_has() -> None:
    modules = {module.__name__ for module in PUBLIC}
    assert NAMES - modules == ENTRIES.keys()


def _described() -> Iterator[Any]:
    """Every function and method, with all that is said of it: a method's classes say it of those above them, too."""
    for name, (documented, members) in ENTRIES.items():
        if not isinstance(documented, type):
            yield pytest.param(documented, [documented], id=name)
        for member in members:
            kinds = [kind for kind in documented.__mro__ if member in vars(kind) and "deepshap_ext" in kind.__module__]
            if kinds and inspect.isfunction(getattr(documented, member)):
                said = kinds if member == "__init__" else [vars(kind)[member] for kind in kinds]
                yield pytest.param(getattr(documented, member), said, id=f"{name}.{member}")


@pytest.mark.parametrize(("documented", "said"), [*_described()])
def test_every_argument_is_described(documented: Any, said: list[Any]) -> None:
    text = "\n".join(inspect.getdoc(one) or "" for one in said)
    described = {name for names in re.findall(r"(?m)^ +([\w, ]+):", text) for name in names.split(", ")}
    described |= set(re.findall(r"``(\w+)``", text))
    arguments = inspect.signature(documented).parameters.keys() - {"self"}
    assert arguments <= described


def test_the_page_of_the_command_is_what_its_help_says() -> None:
    spec = importlib.util.spec_from_file_location("command_line", ROOT / "scripts" / "command_line.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.PAGE.read_text() == script.page(), "python scripts/command_line.py writes it"
