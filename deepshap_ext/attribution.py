"""The result of an explanation, in the shapes that its user gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .additivity import Balance, gaps_of_pairs
from .found import Found
from .structure import Structure


@dataclass(frozen=True, repr=False)
class Attribution:
    """Attributions of ``N`` samples, tensors on the model's device.

    ``values``: ``[N, *features]`` for one target a sample, ``[N, *features, *outputs]`` for all outputs; a tuple for several inputs; what
    ``combine`` made, ``[N, ..., *outputs]``, where it was given. ``output`` and ``expected_value``: the explained outputs for the inputs
    and their mean over the baselines, ``[N]`` or ``[N, *outputs]``. ``convergence_delta``: how far the contributions are from adding up,
    ``sum(contributions) - (output - expected_value)``, of the same shape. Of a half or bfloat16 model all are float32, but
    for ``activations``.

    Where they were asked for, else None: ``standard_error`` of each value, over the baselines, and ``multipliers``, averaged over
    them, shaped like the contributions; ``activations`` ``[N, *features]`` and ``baseline_activations`` ``[R, *features]`` (``[N, R,
    *features]`` where each sample has its own baselines), the explained tensors themselves. ``target``: which of the flattened outputs
    are explained, ``[N]`` or ``[N, K]``; None for all of them.

    With ``passes`` of 4 or more, standard errors estimate the distance to the exact Shapley values for these baselines. With ``players``,
    values are those of the players, ``[N, players]`` or ``[N, players, *outputs]``.

    With ``per_baseline`` values, multipliers, expected value and convergence delta are those of every single baseline, in a dimension
    ``R`` behind ``N``.

    For a list of layers all but ``output``, ``expected_value`` and ``target`` are tuples, one item a layer. Layers that add up only
    together, such as two embeddings whose outputs are added, have the same ``convergence_delta``.
    """

    values: Any
    output: Tensor
    expected_value: Tensor
    convergence_delta: Any
    standard_error: Any = None
    multipliers: Any = None
    activations: Any = None
    baseline_activations: Any = None
    target: Tensor | None = None

    def __repr__(self) -> str:
        given = {name: value for name, value in vars(self).items() if value is not None}
        return f"Attribution({', '.join(f'{name}={_shapes(value)}' for name, value in given.items())})"


def attribution(
    balance: Balance,
    structure: Structure,
    degrees_of_freedom: float | None,
    outputs: tuple[int, ...],
    all_outputs: bool,
) -> Attribution:
    """The attribution of the explanation in ``balance``; a sample's explained outputs have the shape ``outputs``.

    ``degrees_of_freedom``: what variances are divided by to give squared standard errors; None where none are wanted.
    """
    explained = balance.explained
    samples, dtype = explained.outputs.shape[0], explained.outputs.dtype
    each = explained.baseline_outputs.value.dim() == 3
    shape = (samples, *outputs)
    output = explained.outputs.reshape(shape)
    expected = _outputs_last(explained.baseline_outputs.value, outputs).to(dtype)
    deltas: dict[int, Tensor] = {}
    for cut in explained.cuts:
        gap = gaps_of_pairs(explained, cut) if each else balance.gaps(cut)
        deltas.update(dict.fromkeys(cut.layers, gap.to(dtype).reshape(expected.shape)))

    def of(what: Callable[[Found], Tensor | None]) -> Any:
        """``what`` of every explained tensor, as the user gets it; None where one has none."""
        tensors = [what(found) for found in explained.found]
        if any(tensor is None for tensor in tensors):
            return None
        return structure.of(
            [_outputs_last(tensor, outputs) for tensor in tensors if tensor is not None], explained.layers
        )

    def standard_error(found: Found) -> Tensor | None:
        variance = found.values.variance
        return None if variance is None or degrees_of_freedom is None else (variance / degrees_of_freedom).sqrt()

    def on_one_side(tensors: list[Tensor]) -> Any:
        return structure.of(tensors, explained.layers) if tensors else None

    return Attribution(
        values=of(lambda found: found.values.value),
        output=output,
        expected_value=expected,
        convergence_delta=tuple(deltas[layer] for layer in sorted(deltas)) if structure.several else deltas[0],
        standard_error=of(standard_error),
        multipliers=of(lambda found: None if found.multipliers is None else found.multipliers.value),
        activations=on_one_side([one.inputs for one in explained.activations]),
        baseline_activations=on_one_side([one.baselines for one in explained.activations]),
        target=None if all_outputs else explained.targets.reshape(shape),
    )


def _shapes(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shapes, value))}{',' if len(value) == 1 else ''})"
    return f"{str(value.dtype)[6:]} {list(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _outputs_last(values: Tensor, outputs: tuple[int, ...]) -> Tensor:
    """``[N, ..., *outputs]`` from ``[K, N, ...]``."""
    if values.shape[0] == 1:
        return values.reshape(*values.shape[1:], *outputs)
    last = values.movedim(0, -1)
    return last.reshape(*last.shape[:-1], *outputs)
