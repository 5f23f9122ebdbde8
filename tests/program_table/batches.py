"""Operations that move the batch, fold it with a neighbour, repeat or split it."""

from __future__ import annotations

from programs import Draft, Place, Value

from .operation import family


def _moved(x: Value, order: list[int]) -> Place:
    """The batch's place once the dimensions are in this order."""
    return Place(order.index(x.place.dim), x.place.before, x.place.after)


@family("""
    {x}.permute({order})
    torch.permute({x}, ({order}))
    {x}.permute({order}).contiguous()
    {x}.permute({order}).relu() * 1.1
    torch.movedim({x}, ({order}), tuple(range({x}.dim())))
    {x}.permute({order}).sigmoid()
""")
def permuted(draft: Draft, template: str) -> None:
    """Dimensions in another order, the batch's too."""
    x = draft.any(lambda x: len(x.shape) > 1)
    left, order = list(range(len(x.shape))), []
    while left:
        order.append(left.pop(draft.pick(len(left))))
    draft.let(template.format(x=x.name, order=", ".join(map(str, order))), _moved(x, order))


@family("""
    {x}.transpose({a}, {b})
    torch.transpose({x}, {a}, {b})
    torch.swapaxes({x}, {a}, {b}) * 1.2
    {x}.swapdims({a}, {b}).tanh()
    {x}.transpose({a}, {b}).clone()
""")
def transposed(draft: Draft, template: str) -> None:
    x = draft.any(lambda x: len(x.shape) > 1)
    a, b = draft.pick(len(x.shape)), draft.pick(len(x.shape))
    order = list(range(len(x.shape)))
    order[a], order[b] = order[b], order[a]
    draft.let(template.format(x=x.name, a=a, b=b), _moved(x, order))


@family("""
    {x}.flatten({first}, {second})
    torch.flatten({x}, {first}, {second})
    {x}.reshape({sizes})
    {x}.contiguous().view({sizes})
    {x}.flatten({first}, {second}).relu()
""")
def folded(draft: Draft, template: str) -> None:
    """The batch's dimension and a neighbour as one."""
    x = draft.any(lambda x: len(x.shape) > 1)
    at = x.place
    neighbours = [dim for dim in (at.dim - 1, at.dim + 1) if 0 <= dim < len(x.shape)]
    other = draft.choose(neighbours)
    first = min(at.dim, other)
    before, after = (x.shape[other], 1) if other < at.dim else (1, x.shape[other])
    place = Place(first, at.before * before, at.after * after)
    sizes = x.sizes
    sizes[first : first + 2] = [place.size]
    fields = {"x": x.name, "first": first, "second": first + 1, "sizes": ", ".join(sizes)}
    draft.let(template.format(**fields), place)


@family("""
    {x}.unflatten({dim}, ({before}, B, {after}))
    {x}.unflatten({dim}, ({before}, B, {after})).sin()
    {x}.reshape({sizes})
""")
def unfolded(draft: Draft, template: str) -> None:
    """A dimension for what the batch was folded with on either side, and one of its own."""
    x = draft.any(lambda x: x.place.folded)
    at = x.place
    sizes = x.sizes
    sizes[at.dim : at.dim + 1] = [str(at.before), "B", str(at.after)]
    fields = {"x": x.name, "dim": at.dim, "before": at.before, "after": at.after, "sizes": ", ".join(sizes)}
    draft.let(template.format(**fields), Place(at.dim + 1))


@family("""
    torch.cat([{x}, {y}], {dim})
    torch.cat([{x}, torch.tanh({x})], {dim})
    {x}.repeat({repeats})
    torch.tile({x}, ({repeats},))
""")
def batches_joined(draft: Draft, template: str) -> None:
    """Two batches, one after the other."""
    x = draft.any()
    at = x.place
    repeats = ", ".join("2" if dim == at.dim else "1" for dim in range(len(x.shape)))
    expression = template.format(x=x.name, y=draft.like(x).name, dim=at.dim, repeats=repeats)
    draft.let(expression, Place(at.dim, 2 * at.before, at.after))


@family("""
    {x}.repeat_interleave(2, {dim})
    torch.stack([{x}, {x} * 2], {dim} + 1).flatten({dim}, {dim} + 1)
""")
def rows_repeated(draft: Draft, template: str) -> None:
    """Each row twice, side by side."""
    x = draft.any()
    draft.let(template.format(x=x.name, dim=x.place.dim), Place(x.place.dim, x.place.before, 2 * x.place.after))


@family("""
    {x}.chunk(2, {dim})[0] - {x}.chunk(2, {dim})[1]
    {x}.narrow({dim}, 0, {x}.shape[{dim}] // 2) * 1.1
    torch.maximum(*{x}.chunk(2, {dim}))
    {x}.unflatten({dim}, (2, -1)).prod({dim}) * 0.7
""")
def batches_split(draft: Draft, template: str) -> None:
    """One half of a batch with the other, where they are of the same rows."""
    x = draft.any(lambda x: x.place.before % 2 == 0)
    if x.place.before % 2:
        x = draft.let(f"torch.cat([{x.name}, {x.name}.sigmoid()], {x.place.dim})", Place(x.place.dim, 2, 1))
    at = x.place
    draft.let(template.format(x=x.name, dim=at.dim), Place(at.dim, at.before // 2, at.after))


@family("""
    {x}.unsqueeze(0)
    {x}[None] * 1.2
    {x}.unsqueeze(0).expand(2, {ones})
    {x}.expand(3, {ones}).relu()
    torch.stack([{x}, {y}])
    torch.stack([{x}, {y}, {x}.sin()], 0)
    torch.ops.aten.stack([{x}, {y}])
    torch.broadcast_to({x}, (2, {sizes}))
    torch.vstack([{x}[None], {y}[None]])
    {x}.unfold({dim}, 1, 1).movedim(-1, 0)
""")
def dimension_before(draft: Draft, template: str) -> None:
    """A new first dimension."""
    x = draft.any(lambda x: len(x.shape) < 5)
    at, minus = x.place, ", ".join(["-1"] * len(x.shape))
    fields = {"x": x.name, "y": draft.like(x).name, "ones": minus, "sizes": ", ".join(x.sizes), "dim": at.dim}
    draft.let(template.format(**fields), Place(at.dim + 1, at.before, at.after))


@family("""
    {x}.unsqueeze(-1)
    {x}[..., None]
    {x}.unsqueeze(-1).expand({ones}, 2)
    torch.stack([{x}, {y}], -1)
    torch.stack([{x}.sin(), {y}.cos()], dim=-1)
    torch.view_as_real(torch.complex({x}, {y}))
    {x}.unsqueeze(-1) * torch.linspace(-1, 2, 3).to({x})
    {x}.unsqueeze(-1).repeat({repeats}, 2)
    F.linear({x}.unsqueeze(-1), {x}.new_ones(2, 1), torch.arange(2).to({x}))
""")
def dimension_behind(draft: Draft, template: str) -> None:
    """A new last dimension."""
    x = draft.any(lambda x: len(x.shape) < 5)
    ones = ", ".join(["-1"] * len(x.shape))
    repeats = ", ".join(["1"] * len(x.shape))
    draft.let(template.format(x=x.name, y=draft.like(x).name, ones=ones, repeats=repeats), x.place)


@family("""
    torch.einsum("{equation}", {x}, {y})
    torch.einsum("{equation}", [{x}, {y}])
    torch.einsum("{equation}", {x}, {y}).tanh()
""")
def einsums(draft: Draft, template: str) -> None:
    """Two values with the batch anywhere in each, any of the other dimensions contracted, and the result in any order."""
    x = draft.any(lambda x: len(x.shape) < 5)

    def fits(y: Value) -> bool:
        return len(y.shape) < 5 and (y.place.before, y.place.after) == (x.place.before, x.place.after)

    y = draft.any(fits)
    letters, sizes = iter("acdefghij"), {"b": x.shape[x.place.dim]}
    names = []
    for value in (x, y):
        own = ""
        for dim, size in enumerate(value.shape):
            shared = [letter for letter in sizes if letter not in own + "b" and sizes[letter] == size]
            letter = "b" if dim == value.place.dim else draft.choose([*shared, None])
            if letter is None:
                letter = next(letters)
                sizes[letter] = size
            own += letter
        names.append(own)
    left, result = [letter for letter in sizes if letter == "b" or draft.pick(3)], ""
    while left:
        result += left.pop(draft.pick(len(left)))
    equation = f"{names[0]},{names[1]}->{result}"
    place = Place(result.index("b"), x.place.before, x.place.after)
    draft.let(template.format(x=x.name, y=y.name, equation=equation), place)
