"""Write docs/command_line.md from the parser of the command: ``python scripts/command_line.py``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from deepshap_ext.cli.arguments import parser

PAGE = Path(__file__).resolve().parents[1] / "docs" / "command_line.md"


def page() -> str:
    """The page's text."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    found = parser()
    yield "# The command line"
    yield ""
    yield f"`{found.prog} COMMAND`, or `python -m deepshap_ext COMMAND`: {found.description}"
    yield "[Many samples](guides/scale.md) says what goes in and what comes out. `python scripts/command_line.py` writes this page from"
    yield "what `--help` says. In brackets: what holds where an option is not given."
    for name, command in _commands(found).items():
        yield from ("", f"## {found.prog} {name}", "", command.description or "", "", "```bash")
        yield (command.epilog or "").removeprefix("example:\n").replace("\n  ", "\n").strip()
        yield from ("```", "", "| | |", "|---|---|")
        for action in command._actions:
            if not isinstance(action, argparse._HelpAction):
                yield f"| {_called(action)} | {_said(action)} |"
    yield ""


def _commands(found: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (commands,) = (action.choices for action in found._actions if isinstance(action, argparse._SubParsersAction))
    return dict(commands)


def _called(action: argparse.Action) -> str:
    """An argument, as it is written in a command."""
    value = str(action.metavar or action.dest.upper())
    if action.choices is not None:
        value = ", ".join(map(str, action.choices))
    several = " ..." if action.nargs == "+" else ""
    if not action.option_strings:
        return f"`{value}`"
    names = ", ".join(f"`{option}`" for option in action.option_strings)
    return names if action.nargs == 0 else f"{names} `{value}{several}`"


def _said(action: argparse.Action) -> str:
    """An argument's help as Markdown, with its default value in brackets."""
    text = re.sub(r"([*\[\]])", r"\\\1", action.help or "")
    if action.required and action.option_strings:
        return f"{text} (needed)"
    if action.default in (None, False, []) or f"({action.default})" in text:
        return text
    return f"{text} ({action.default})"


if __name__ == "__main__":
    PAGE.write_text(page())
