"""Faults in rules, one at a time, that the check of additivity must find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from torch import Tensor

from deepshap_ext import DeepExplainer
from deepshap_ext.rules.registry import RULES


@contextmanager
def broken(name: str, factor: float) -> Iterator[list[str]]:
    """The multipliers of a rule are multiplied by ``factor``; yields the list of its calls."""
    right = RULES[name]
    calls: list[str] = []

    def rule(*args: Any, **kwargs: Any) -> Any:
        application = right(*args, **kwargs)
        if application is None:
            return None

        def multipliers(*args: Any) -> list[Tensor | None]:
            calls.append(name)
            return [None if m is None else m * factor for m in application.multipliers(*args)]

        if application.scale is None:
            return replace(application, multipliers=multipliers)
        calls.append(name)  # whether this or another rule multiplies by the scale
        return replace(application, multipliers=multipliers, scale=application.scale * factor)

    with patch.dict(RULES, {name: rule}):
        yield calls


def rules_of(explainer: DeepExplainer, X: Any) -> list[str]:
    """The rules that explaining the samples applies."""
    used: set[str] = set()

    def seen(name: str, right: Any) -> Any:
        def rule(*args: Any, **kwargs: Any) -> Any:
            application = right(*args, **kwargs)
            if application is not None:
                used.add(name)
            return application

        return rule

    with patch.dict(RULES, {name: seen(name, right) for name, right in RULES.items()}):
        explainer.attribute(X, check_additivity="ignore")
    return sorted(used)
