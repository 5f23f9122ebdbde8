"""What the templates of random programs may ask for: ``{x}``, a value of the program, and what is made for it."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any

from programs import Draft, Value


class Fields:
    """The fields of one template, made when they are first named; a field named twice is the same both times."""

    def __init__(self, draft: Draft, x: Value) -> None:
        self.draft, self.value = draft, x
        self._made: dict[str, Any] = {"x": x.name}

    def __getitem__(self, key: str) -> Any:
        if key not in self._made:
            self._made[key] = getattr(self, key)()
        return self._made[key]

    # --- other values, and guards that keep an argument in a function's domain

    def y(self) -> str:
        """A value like ``x``."""
        return self.draft.like(self.value).name

    z = y

    def positive(self) -> str:
        return f"(F.softplus({self['x']}) + 0.1)"

    def positive_y(self) -> str:
        return f"(F.softplus({self['y']}) + 0.1)"

    def signed(self) -> str:
        """Away from 0, of both signs along a dimension: the same ones for every row."""
        return f"({self['positive']} * torch.where({self['mask']}, 1, -1))"

    def bounded(self) -> str:
        return f"(0.9 * torch.tanh({self['x']}))"

    def above_one(self) -> str:
        return f"(F.softplus({self['x']}) + 1.1)"

    def near_one(self) -> str:
        return f"(1 + 0.5 * torch.tanh({self['x']}))"

    def ordered(self) -> str:
        """Ascending along the dimension for every row, the values within 0.4 of whole numbers."""
        return f"(torch.arange({self['n']}).{self['along']} + 0.4 * torch.tanh({self['x']}))"

    # --- a dimension without the batch, and constants along it

    def axis(self) -> int:
        return int(self.draft.choose(self.value.others))

    def d(self) -> int:
        """The dimension, from either end."""
        return int(self["axis"]) - self.draft.choose((0, len(self.value.shape)))

    def n(self) -> int:
        return int(self.value.shape[self["axis"]])

    def along(self) -> str:
        """Views a vector along the dimension."""
        ones = ["1"] * len(self.value.shape)
        ones[self["axis"]] = "-1"
        return f"view({', '.join(ones)})"

    def slice(self) -> str:
        """Indices up to the dimension: ``x[{slice}]`` is of its first element."""
        return ", ".join([":"] * self["axis"] + ["0"])

    def rest(self) -> str:
        """Indices up to the dimension: ``x[{rest}]`` is of its last element."""
        return ", ".join([":"] * self["axis"] + ["-1"])

    def even(self) -> str:
        return ", ".join([":"] * self["axis"] + ["::2"])

    def k(self) -> int:
        return self.draft.pick(self["n"])

    def w(self) -> str:
        return f"{self.draft.weight(self['n'])}.{self['along']}"

    def vector(self) -> str:
        return self.draft.weight(self["n"])

    def matrix(self) -> str:
        return self.draft.weight(self["n"], self["n"], scale=self["n"] ** -0.5)

    def i(self) -> str:
        """Indices into the dimension, with repetitions."""
        return self.draft.constant(f"torch.randint({self['n']}, ({self['n']},))")

    def index(self) -> str:
        """Indices into the dimension, with repetitions, in ``x``'s shape."""
        return f"{self['i']}.{self['along']}.expand_as({self['x']})"

    def order(self) -> str:
        return self.draft.constant(f"torch.randperm({self['n']})")

    def flags(self) -> str:
        return self.draft.constant(f"torch.rand({self['n']}) < 0.5")

    def mask(self) -> str:
        return f"{self['flags']}.{self['along']}"

    # --- the last dimensions

    def last(self) -> int:
        return int(self.value.shape[-1])

    def channels(self) -> int:
        return int(self.value.shape[1])

    def batch_size(self) -> str:
        return self.value.sizes[0]

    def sizes(self) -> str:
        return ", ".join(self.value.sizes)

    def weights(self) -> str:
        """``[3, last]``."""
        return self.draft.weight(3, self["last"], scale=self["last"] ** -0.5)

    def bias(self) -> str:
        return self.draft.weight(3)

    def scale(self) -> str:
        """``[last]``."""
        return self.draft.weight(self["last"])

    def per_channel(self) -> str:
        return self.draft.weight(self["channels"])

    def kernel1(self) -> str:
        return self._kernel(1)

    def kernel2(self) -> str:
        return self._kernel(2)

    def kernel3(self) -> str:
        return self._kernel(3)

    def transposed1(self) -> str:
        return self._kernel(1, transposed=True)

    def transposed2(self) -> str:
        return self._kernel(2, transposed=True)

    def transposed3(self) -> str:
        return self._kernel(3, transposed=True)

    def _kernel(self, dims: int, transposed: bool = False) -> str:
        c = self["channels"]
        channels = (c, 2) if transposed else (2, c)
        return self.draft.weight(*channels, *[3] * dims, scale=(c * 3**dims) ** -0.5)

    def running(self) -> str:
        """Means and variances of channels."""
        mean, variance = (self.draft.constant(f"torch.rand({self['channels']}) + 0.5") for _ in range(2))
        return f"{mean}, {variance}"

    # --- expressions that would make a template too long

    def grid2(self) -> str:
        return (
            f"torch.linspace(-0.9, 0.8, 12).view(1, 3, 2, 2).expand({self['x']}.shape[0], -1, -1, -1).to({self['x']})"
        )

    def grid3(self) -> str:
        return f"torch.linspace(-0.9, 0.8, 12).view(1, 2, 2, 1, 3).expand({self['x']}.shape[0], -1, -1, -1, -1).to({self['x']})"

    def affine(self) -> str:
        theta = f"torch.tensor([[[0.8, 0.1, 0.0], [0.2, 0.7, 0.1]]]).to({self['x']})"
        return f"F.affine_grid({theta}, (1, 1, 3, 3), False).expand({self['x']}.shape[0], -1, -1, -1)"

    def samples2(self) -> str:
        return self._samples(2)

    def samples3(self) -> str:
        return self._samples(3)

    def _samples(self, dims: int) -> str:
        return f"torch.full((1, {self['channels']}, {dims}), 0.6).to({self['x']}).expand({self['x']}.shape[0], -1, -1)"

    def places(self) -> str:
        """Each element's own place in its channel."""
        x = self["x"]
        return f"torch.arange({x}[0, 0].numel()).view(1, 1, *{x}.shape[2:]).expand({x}.shape)"

    def as_channels(self) -> str:
        """All rows as the channels of one."""
        return f"{self['x']}.reshape(1, -1, *{self['x']}.shape[2:])"

    def as_kernels(self) -> str:
        return f"{self['y']}.reshape(-1, 1, *{self['x']}.shape[2:])"

    def three(self) -> str:
        """Three numbers along the dimension."""
        return f"torch.arange(1, 4).{self['along']}"

    def rows2(self) -> str:
        """Rows along the dimension, one element longer."""
        return f"F.pad({self['x']}.movedim({self['axis']}, -1), (0, 1), value=0.2).reshape(-1, {self['n'] + 1})"

    def moved(self) -> str:
        return f"*{self['x']}.movedim({self['axis']}, -1).shape[:-1], -1"

    def spectrum(self) -> str:
        x = self["x"]
        window = f'pad_mode="constant", window={x}.new_ones(4), return_complex=True'
        return f"torch.stft({x}.flatten(0, 1), 4, 1, {window})"

    def module(self) -> _Module:
        return _Module(self.draft)


@dataclass(frozen=True)
class _Module:
    """``{module:nn.ReLU()}``: a module of the program, a new one or one that it has already."""

    draft: Draft

    def __format__(self, expression: str) -> str:
        return self.draft.module(expression)


def fill(template: str, fields: Fields) -> str:
    """The template with its fields put in; only those that it names are made."""
    return string.Formatter().vformat(template, (), fields)  # type: ignore[arg-type]
