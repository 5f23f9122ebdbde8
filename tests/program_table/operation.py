"""An operation of random programs: a template of a line, and the function of its family that writes the line.

In a template ``{x}`` is a value of the program; ``program_fields.py`` has the other fields, which are made for ``x`` when a template names
them. A function of a family is called with a draft and one template: it chooses ``x`` and says where the result has its batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from program_fields import Fields, fill
from programs import Draft, Value

Emit = Callable[[Draft, str], None]


@dataclass(frozen=True)
class Operation:
    """One template of a family; called with a draft it writes its line."""

    family: str
    template: str
    emit: Emit

    def __call__(self, draft: Draft) -> None:
        self.emit(draft, self.template)


#: The operations of every family, by the name of the function that writes them; filled when the modules of this package are imported.
FAMILIES: dict[str, list[Operation]] = {}


def family(*templates: str) -> Callable[[Emit], Emit]:
    """Register a family of templates, one a line, with the function that writes one of them; a line that begins with ``#`` is a heading."""

    def register(emit: Emit) -> Emit:
        assert emit.__name__ not in FAMILIES
        FAMILIES[emit.__name__] = operations(emit, *templates)
        return emit

    return register


def operations(emit: Emit, *templates: str) -> list[Operation]:
    lines = [line.strip() for text in templates for line in text.strip().splitlines()]
    return [Operation(emit.__name__, line, emit) for line in lines if not line.startswith("#")]


def let(draft: Draft, template: str, x: Value) -> None:
    """A new value made of ``x``, with the batch where ``x`` has it."""
    draft.let(fill(template, Fields(draft, x)), x.place)


def has_others(x: Value) -> bool:
    """Whether there is a dimension without the batch."""
    return bool(x.others)
