"""A block of an explanation: inputs and baselines whose passes have run, eagerly or replayed, and what their pairs give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .arrays import wide
from .capture.graph import Cut
from .explained import Activations, Explained
from .found import Found, by_input, of_all_outputs
from .moments import OverBaselines, over_baselines
from .planner import Chunks

if TYPE_CHECKING:
    from .explanation import Explanation


@dataclass(frozen=True)
class Block:
    """The inputs ``here`` of an explanation and, of the baselines of each, ``count`` from number ``first`` on.

    ``repeats``: how many consecutive rows of the input pass are one input: ``count`` in aligned pairs, where each of these rows has
    another baseline, otherwise 1.
    """

    here: slice
    first: int
    count: int
    repeats: int = 1

    @property
    def inputs(self) -> int:
        """How many inputs there are."""
        return self.here.stop - self.here.start


@dataclass
class BlockPasses:
    """What the input pass and the reference pass over a block gave.

    ``output`` and ``reference_output`` ``[rows, ...]``; ``explained`` and ``reference_explained``: the explained tensors on both sides.
    ``baselines``: how many rows of the reference pass belong to one input, where each input has its own. ``layers``, ``cuts``, ``inexact``
    and ``gaps`` (there ``integrals``): as in :class:`deepshap_ext.explained.Explained`. ``found(targets, baselines, weights)`` runs the
    pair pass: it gives the contributions of every explained tensor to the flattened outputs ``targets`` ``[K, rows]``, against the
    baselines in rows ``baselines`` ``[J]`` with ``weights`` ``[J]``.
    """

    output: Tensor
    reference_output: Tensor
    explained: Sequence[Tensor]
    reference_explained: Sequence[Tensor]
    baselines: int
    layers: list[slice]
    cuts: list[Cut]
    inexact: dict[str, set[int]]
    gaps: dict[str, float]
    found: Callable[[Tensor, Tensor, Tensor], list[Found]]


def explained_block(explanation: Explanation, passes: BlockPasses, block: Block, chunks: Chunks) -> Explained:
    """The ``block`` explained: the pair pass for every output and baseline, a chunk of them at a time."""
    outputs = wide(passes.output).reshape(len(passes.output), -1)[:: block.repeats][: block.inputs]
    targets = explanation.choose(outputs, block.here)
    weights = explanation.baselines.weights[block.first : block.first + block.count]
    own = explanation.baselines.own or explanation.pairing != "grid"
    rows = targets.repeat_interleave(block.repeats, 0) if block.repeats > 1 else targets
    if len(rows) < len(passes.output):
        # The batch repeats some inputs, because the model needs two rows or a trace the number that it was made with.
        rows = cycled(rows, len(passes.output))
    return Explained(
        found=_found(explanation, passes, block, rows.t(), weights, chunks),
        layers=passes.layers,
        outputs=outputs.gather(1, targets),
        baseline_outputs=expected_outputs(
            passes.reference_output, targets, weights, explanation.wanted.each, passes.baselines if own else None
        ),
        weights=explanation.baselines.weights,
        targets=targets,
        inexact=passes.inexact,
        cuts=passes.cuts,
        precision=least_precise([passes.reference_output, *passes.reference_explained]),
        integrals=passes.gaps,
        activations=_activations(explanation, passes, block) if explanation.wanted.activations else [],
    )


def expected_outputs(
    reference_output: Tensor, targets: Tensor, weights: Tensor, each: bool, baselines: int | None
) -> OverBaselines:
    """``[K, B]`` float64: the flattened outputs ``targets`` ``[B, K]`` for the baselines, averaged with ``weights`` ``[R]`` or of ``each``.

    ``baselines``: how many rows of the reference pass belong to each input, of which the first ``R`` count; None: all inputs share them.
    """
    outputs = reference_output.reshape(len(reference_output), -1).double()
    by_input = outputs[None] if baselines is None else outputs.unflatten(0, (-1, baselines))[: len(targets)]
    # Averaged first: every output of every baseline of every input may be more than fits into memory.
    averaged = over_baselines(by_input[:, : len(weights)].movedim(2, 0), weights, each)
    chosen = targets.t()

    def of(tensor: Tensor) -> Tensor:
        behind = tensor.shape[2:]
        of_all = tensor if baselines is not None else tensor.expand(-1, len(targets), *behind)
        places = chosen.view(*chosen.shape, *[1] * len(behind)).expand(-1, -1, *behind) if behind else chosen
        return of_all.gather(0, places)

    return averaged.map(of)


def cycled(tensor: Tensor, rows: int, dim: int = 0) -> Tensor:
    """The tensor with so many ``rows`` in dimension ``dim``: its own, repeated from the first on where it has fewer."""
    number = tensor.shape[dim]
    return tensor if number == rows else tensor.index_select(dim, torch.arange(rows, device=tensor.device) % number)


def trimmed(tensor: Tensor, rows: int, dim: int = 0) -> Tensor:
    """The first ``rows`` of the tensor in dimension ``dim``: what :func:`cycled` repeated is left out again."""
    return tensor if tensor.shape[dim] == rows else tensor.narrow(dim, 0, rows)


def least_precise(tensors: Sequence[Tensor]) -> torch.dtype:
    """The dtype with the largest rounding error among those of floating-point tensors."""
    return max((tensor.dtype for tensor in tensors), key=lambda dtype: torch.finfo(dtype).eps)


def _found(
    explanation: Explanation, passes: BlockPasses, block: Block, targets: Tensor, weights: Tensor, chunks: Chunks
) -> list[Found]:
    """What is wanted of every explained tensor for the flattened outputs ``targets`` ``[K, rows]``, over baselines with ``weights``."""
    aligned = explanation.pairing in ("aligned", "alone")
    baselines = torch.arange(1 if aligned else len(weights), device=targets.device)
    by_output: list[list[Found]] = []
    for chosen in targets.split(chunks.outputs):
        total: list[Found] | None = None
        for first in range(0, len(baselines), chunks.baselines):
            rows = baselines[first : first + chunks.baselines]
            part = passes.found(chosen, rows, weights if aligned else weights[first : first + len(rows)])
            total = part if total is None else [one + more for one, more in zip(total, part, strict=True)]
            explanation.advance(block.inputs * block.repeats * len(rows) * len(chosen))
        assert total is not None
        by_output.append(total)
    return [of_all_outputs(parts) for parts in zip(*by_output, strict=True)]


def _activations(explanation: Explanation, passes: BlockPasses, block: Block) -> list[Activations]:
    """The explained tensors of the block's inputs and baselines."""
    own = explanation.baselines.own
    shared = not own and explanation.pairing == "grid"
    found = []
    layouts = explanation.engine.probed.layouts.explained
    for x, r, layout in zip(passes.explained, passes.reference_explained, layouts, strict=True):
        theirs = by_input(r[None], layout, passes.baselines, 1 if shared else block.inputs)[0, :, : block.count]
        inputs = by_input(x[None], layout, block.repeats, block.inputs)[0, :, 0]
        found.append(Activations(inputs, theirs if own else theirs[0], own))
    return found
