"""What a capture shows those who watch it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..rules.registry import Roundoff


@dataclass(frozen=True)
class Step:
    """An operation on a tensor that carries multipliers, as it has run.

    ``made``: the tensors that ``run(*args, **kwargs)`` returned or wrote into; ``in_place``: it wrote into its arguments. ``roundoffs``:
    those of the operation's rule, a function of ``args``; None without one.
    """

    name: str
    run: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    made: Sequence[Tensor]
    in_place: bool
    roundoffs: Callable[..., Sequence[Roundoff]] | None = None


Watch = Callable[[Step], None]
