"""Random programs: models written as source, one operation a line, over several inputs, with the batch anywhere in a tensor.

A program is drafted line by line: every line is run as it is written, on random rows, so that the next one knows the shapes and that no
value grows large. The batch's place in every value is known (and none of the explainer's business): a dimension of ``before * B * after``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

#: Per-sample shapes of inputs.
SHAPES = ((3,), (2, 3), (3, 3), (4, 2), (2, 3, 4), (1, 4, 3), (2, 2, 3, 2), (3, 4))
GLOBALS = {"torch": torch, "F": F, "nn": nn, "checkpoint": torch.utils.checkpoint.checkpoint}
#: Calls whose result is a view for some strides and else a copy. The strides may depend on whether the batch has one row or more, so a
#: program that wrote into such a result would be another function for one row.
MAYBE_VIEW = re.compile(r"(reshape|flatten|contiguous|ravel)\([^()]*\)$")
#: The largest size of a number that the result of a line may have; a larger result is scaled down.
LARGEST = 3.0
_ROWS = 5


@dataclass(frozen=True)
class Place:
    """Where the batch is: dimension ``dim`` is ``before * B * after`` long."""

    dim: int = 0
    before: int = 1
    after: int = 1

    @property
    def folded(self) -> bool:
        return self.before * self.after > 1

    @property
    def size(self) -> str:
        return f"B * {self.before * self.after}" if self.folded else "B"


@dataclass(frozen=True)
class Value:
    """A variable of a program; ``shape`` is its shape while drafted."""

    name: str
    place: Place
    shape: tuple[int, ...]

    @property
    def others(self) -> list[int]:
        """The dimensions without the batch."""
        return [dim for dim in range(len(self.shape)) if dim != self.place.dim]

    @property
    def sizes(self) -> list[str]:
        return [self.place.size if dim == self.place.dim else str(n) for dim, n in enumerate(self.shape)]

    @property
    def rows(self) -> str:
        """An expression for this value as ``[B, features]``."""
        place, name = self.place, self.name
        if place.folded:
            name = f"{name}.unflatten({place.dim}, ({place.before}, B, {place.after}))"
        dim = place.dim + place.folded
        return f"{name}.movedim({dim}, 0).reshape(B, -1)" if dim else f"{name}.reshape(B, -1)"


class Program:
    """Source of a ``torch.nn.Module`` and the shapes of its inputs; prints as what it takes to run it."""

    def __init__(self, source: str, shapes: Sequence[tuple[int, ...]]) -> None:
        self.source = source
        self.shapes = list(shapes)

    def __repr__(self) -> str:
        return f"{self.source}\n# inputs: {', '.join(f'[B, {str(shape)[1:-1]}]' for shape in self.shapes)}"

    def model(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        scope: dict[str, Any] = dict(GLOBALS)
        exec(self.source, scope)
        return scope["Program"]().eval().to(dtype)

    def inputs(self, rows: int, seed: int) -> list[Tensor]:
        """Random rows for the model; the features of the second one are in part those of the first."""
        generator = torch.Generator().manual_seed(seed)
        found = []
        for shape in self.shapes:
            tensor = torch.randn(rows, *shape, generator=generator, dtype=torch.float64)
            if rows > 1:
                tensor[1] = torch.where(torch.rand(shape, generator=generator) < 0.3, tensor[0], tensor[1])
            found.append(tensor)
        return found


class Draft:
    """A program being written, and run on a few random rows."""

    def __init__(self, shapes: Sequence[tuple[int, ...]], seed: int) -> None:
        self.code = 0  # of the current step: its choices as digits, see `pick`
        self.shapes = list(shapes)
        self.setup: list[str] = []
        self.lines: list[str] = []
        self.values: list[Value] = []
        self.unread: set[str] = set()  # variables that no later line has read
        self.unclear: set[int] = set()  # memory that may be shared or not, see MAYBE_VIEW
        self._modules: dict[str, str] = {}
        self._seed = seed
        torch.manual_seed(seed)
        module = nn.Module()
        self.scope: dict[str, Any] = {**GLOBALS, "self": module, "B": _ROWS}
        probe = Program("", shapes)
        for number, rows in enumerate(probe.inputs(_ROWS, seed)):
            name = f"x{number}"
            self.scope[name] = rows
            self.values.append(Value(name, Place(), tuple(rows.shape)))

    def pick(self, n: int) -> int:
        """A number from 0 to ``n - 1``: the last digit of the step's code in base ``n``, which is taken off; 0 once it is used up."""
        self.code, digit = divmod(self.code, n)
        return digit

    def choose(self, items: Sequence[Any]) -> Any:
        return items[self.pick(len(items))]

    def constant(self, expression: str) -> str:
        """A buffer made by an expression."""
        name = f"c{len(self.setup)}"
        self._prepare(f'self.register_buffer("{name}", {expression})')
        return f"self.{name}"

    def weight(self, *shape: int, scale: float = 1.0) -> str:
        """A random parameter of this shape, with standard deviation ``scale``."""
        name = f"w{len(self.setup)}"
        self._prepare(f"self.{name} = nn.Parameter({scale:.2g} * torch.randn({', '.join(map(str, shape))}))")
        return f"self.{name}"

    def module(self, expression: str) -> str:
        """A module made by an expression, maybe one that the program has already."""
        if expression in self._modules and self.pick(2):
            return self._modules[expression]
        name = self._modules[expression] = f"self.m{len(self.setup)}"
        self._prepare(f"{name} = {expression}")
        return name

    def any(self, fits: Callable[[Value], bool] = lambda value: True, shape: tuple[int, ...] = (2, 3)) -> Value:
        """A value that fits. If there is none, one of shape ``[B, *shape]`` is computed from another, which must then fit."""
        fitting = [value for value in self.values if fits(value)]
        if fitting:
            # Often the newest, so that programs get deep.
            return self._read(fitting[-1] if self.pick(2) else self.choose(fitting))
        x = self.any()
        features = self.scope[x.name].numel() // _ROWS
        size = torch.Size(shape).numel()
        weight = self.weight(size, features, scale=features**-0.5)
        view = f".view(B, {', '.join(map(str, shape))})"
        return self._read(self.let(f"F.linear({x.rows}, {weight}){view}", Place()))

    def like(self, x: Value) -> Value:
        """A value of the same shape with the batch in the same place, maybe this one."""
        return self.any(lambda value: value.shape == x.shape and value.place == x.place)

    def let(self, expression: str, place: Place) -> Value:
        """A new variable; scaled down if it is large."""
        name = f"v{len(self.lines)}"
        self._run(f"{name} = {expression}")
        if MAYBE_VIEW.search(expression):
            names = {name, *re.findall(r"\w+", expression)}
            self.unclear |= {self.scope[v.name].untyped_storage().data_ptr() for v in self.values if v.name in names}
            self.unclear.add(self.scope[name].untyped_storage().data_ptr())
        value = Value(name, place, tuple(self.scope[name].shape))
        assert value.shape[place.dim] == place.before * _ROWS * place.after, (expression, place, value.shape)
        self._add(value)
        if (largest := self._largest(name)) > LARGEST:
            return self.let(f"{self._read(value).name} * {LARGEST / largest / 2:.1g}", place)
        return value

    def do(self, statement: str, written: Value) -> None:
        """A statement that writes into a value, and into whatever shares its memory."""
        self._run(statement)
        self.unread.add(written.name)
        if (largest := self._largest(written.name)) > LARGEST:
            self._run(f"{written.name}.mul_({LARGEST / largest / 2:.1g})")

    def finish(self, outputs: int) -> Program:
        """The program that returns a mixture of its inputs and of everything that no line has read."""
        # The program computes these first, before a line may write into its inputs.
        given = [
            f"F.linear(x{number}.reshape(B, -1), {self.weight(outputs, torch.Size(shape).numel(), scale=0.1)})"
            for number, shape in enumerate(self.shapes)
        ]
        parts = ["given"]
        for value in [value for value in self.values if value.name in self.unread]:
            features = self.scope[value.name].numel() // _ROWS
            parts.append(f"F.linear({value.rows}, {self.weight(outputs, features, scale=features**-0.5)})")
        head = " + ".join(parts)
        tail = self.choose(("", "", "", ".softmax(1)", ".view(B, 1, -1)", ".sum(1)", ".tanh()"))
        self.lines.append(f"return ({head}){tail}")
        names = ", ".join(f"x{number}" for number in range(len(self.shapes)))
        setup = ["super().__init__()", f"torch.manual_seed({self._seed})", *self.setup]
        body = ["B = len(x0)", f"given = {' + '.join(given)}", *self.lines]
        source = ["class Program(nn.Module):", "    def __init__(self):", *[f"        {line}" for line in setup]]
        source += [f"    def forward(self, {names}):", *[f"        {line}" for line in body]]
        return Program("\n".join(source), self.shapes)

    def _add(self, value: Value) -> None:
        self.values.append(value)
        self.unread.add(value.name)

    def _read(self, value: Value) -> Value:
        self.unread.discard(value.name)
        return value

    def _prepare(self, line: str) -> None:
        self.setup.append(line)
        exec(line, self.scope)
        self.scope["self"].eval().double()

    def _run(self, line: str) -> None:
        self.lines.append(line)
        try:
            with torch.no_grad():
                exec(line, self.scope)
        except Exception as error:
            raise AssertionError(
                f"torch itself cannot run this program: {error!r}\n" + "\n".join(self.lines)
            ) from error

    def _largest(self, name: str) -> float:
        largest = float(self.scope[name].abs().max())
        assert largest < float("inf"), "\n".join(self.lines)
        return largest


def write(
    steps: Sequence[tuple[Callable[[Draft], None], int]], shapes: Sequence[tuple[int, ...]], seed: int, end: int
) -> Program:
    """The program of these steps, an operation each with the code of its choices; ``end`` is the code of the outputs."""
    draft = Draft(shapes, seed)
    for operation, draft.code in steps:
        operation(draft)
    draft.code = end
    return draft.finish(1 + draft.pick(3))
