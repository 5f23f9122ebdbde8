"""The arguments ``rules``, ``softmax`` and ``on_unsupported`` of an explainer, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..arguments import one_of, shown
from .registry import Options, Registered, name_of
from .user import entry_of

_MAXIMA = ("deeplift", "shapley")


def options(rules: Any, softmax: Any, on_unsupported: Any) -> Options:
    """The choices that these arguments of :class:`deepshap_ext.Explainer` stand for; an error names the one that breaks its contract."""
    if isinstance(rules, Mapping):
        maxima = rules.get("maxima", "deeplift")
        one_of("rules['maxima']", maxima, _MAXIMA)
    elif isinstance(rules, str) and rules in _MAXIMA:
        maxima, rules = rules, {}
    else:
        raise ValueError(
            f"rules must be one of {', '.join(map(repr, _MAXIMA))}, or a mapping of functions and classes to rules, got {shown(rules)}"
        )
    one_of("softmax", softmax, ("logmean", "rescale", "centered"))
    one_of("on_unsupported", on_unsupported, ("error", "gradient", "integrate"))
    return Options(maxima, softmax, on_unsupported, _own(rules))


def _own(rules: Mapping[Any, Any]) -> tuple[Registered, ...]:
    """The explainer's own rules: the entries of the mapping ``rules`` besides ``"maxima"``."""
    entries: dict[Any, Registered] = {}
    for target, rule in rules.items():
        if isinstance(target, str) and target == "maxima":
            continue
        entry = entry_of(target, rule, "a key of rules other than 'maxima'", f"rules[{name_of(target)}]")
        if entry.key in entries:
            raise ValueError(f"rules must have one rule an operation, got {name_of(target)} twice, in two spellings")
        entries[entry.key] = entry
    return tuple(entries.values())
