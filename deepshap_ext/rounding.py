"""How far rounding alone may keep the values of a sample from adding up: a first-order running error analysis of its own passes.

To first order, an error ``e`` in a result ``z`` of a pass's operation adds ``m_z * e`` to what the values miss the output difference by;
``m_z`` is the multiplier that arrives at ``z`` (Higham, Accuracy and Stability of Numerical Algorithms, sections 3.3 and 15.6). Rounding
errors act as if they were independent and centred, so that their squares add: the root is a standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_map_only

from .arrays import wide
from .baselines import Baselines
from .capture.dependence import plain, storage_key, tensors_in
from .capture.graph import ahead_of, separate
from .capture.hooks import ModelHooks, Pass
from .capture.probe import Layouts
from .capture.step import Step
from .comparison import differing_operands
from .engine import Engine
from .memory import within_memory
from .pairs import Pairs
from .rules.registry import Roundoff

#: How many of a sample's baselines its rounding is estimated from, chosen evenly.
_BASELINES = 4
#: Matrix products, which a GPU may compute in TensorFloat-32 as it may convolutions.
_MATRIX_PRODUCTS = frozenset(
    "linear matmul rmatmul mm mv bmm addmm addmv addbmm baddbmm einsum tensordot inner dot".split()
)
#: By how many units of their dtype's eps operands are changed to see how much of them cancels: enough to stand out from their rounding.
_NUDGE = 8


@dataclass(frozen=True)
class Rounding:
    """Standard errors of rounding in the gaps of additivity, for ``inputs`` that an ``engine`` explained against ``baselines``."""

    engine: Engine
    inputs: Sequence[Tensor]
    baselines: Baselines

    def standard_errors(self, samples: Tensor, targets: Tensor, wanted: Tensor, layers: Sequence[int]) -> Tensor:
        """``[n, K]`` float64: for the inputs ``samples`` ``[n]`` and those of their flattened outputs ``targets`` ``[n, K]`` that are
        ``wanted`` ``[n, K]``, the standard error in the gap of ``layers``; 0 for other outputs.

        Each input runs alone: once forward, and backward against at most four of its baselines.
        """
        engine, number, own = self.engine, self.baselines.number, self.baselines.own
        rows = sorted({number * place // _BASELINES for place in range(_BASELINES)})
        step = max(1, engine.budget() // 3 // engine.probed.costs.row)
        found = torch.zeros(targets.shape, dtype=torch.float64, device=targets.device)
        with within_memory("what one input against one baseline rounds"), engine.hooks() as hooks:

            def run(row: Sequence[Tensor]) -> Rounded:
                copies = engine.copies(hooks, row)
                return rounded(hooks, [tensor.expand(copies, *tensor.shape[1:]) for tensor in row])

            def references(tensors: Sequence[Tensor]) -> list[Rounded]:
                return [run([tensor[row : row + 1] for tensor in tensors]).without_graph() for row in rows]

            shared = [] if own else references(self.baselines.tensors)
            for place, (row, outputs) in enumerate(zip(samples.tolist(), targets, strict=True)):
                sample = run([tensor[row : row + 1] for tensor in self.inputs])
                theirs = references([tensor[row] for tensor in self.baselines.tensors]) if own else shared
                chosen = outputs[wanted[place]]
                layouts = engine.probed.layouts
                found[place, wanted[place]] = standard_error(sample, theirs, layouts, chosen, layers, step)
        return found


@dataclass
class Rounded:
    """A pass over one row, with what its operations round.

    ``edges``: the place in the graph of each result that carries multipliers; ``errors``: its rounding errors, in absolute size, the first
    of them one number an element of the result.
    """

    graph: Pass
    edges: list[GradientEdge]
    errors: list[list[Roundoff]]

    def without_graph(self) -> Rounded:
        return replace(self, graph=self.graph.without_graph(), edges=[])


def rounded(hooks: ModelHooks, inputs: Sequence[Tensor]) -> Rounded:
    """The pass over one row ``[1, ...]``, or copies of it, with what its operations round."""
    edges: list[GradientEdge] = []
    errors: list[list[Roundoff]] = []
    # The same noise in every pass, so that whether a sample passes the check depends on nothing but its own numbers.
    noise = torch.Generator(inputs[0].device).manual_seed(0)

    def watch(step: Step) -> None:
        given = [tensor for tensor in tensors_in((step.args, step.kwargs)) if tensor.layout == torch.strided]
        storages = set(map(storage_key, given))
        made = list(map(plain, step.made))
        if not step.in_place and all(storage_key(tensor) in storages for tensor in made if tensor.requires_grad):
            return  # Views round nothing.
        wrapped = any(plain(tensor) is not tensor for tensor in (*given, *step.made))
        spread = None if step.in_place or wrapped else _spread(step, noise)
        for position, tensor in enumerate(made):
            if not tensor.requires_grad:
                continue
            unit = _unit(step.name, tensor)
            size = wide(tensor.detach()).abs()
            found = [Roundoff(size if spread is None else torch.hypot(size, spread[position]))]
            if step.roundoffs is not None and not step.in_place:
                with torch.no_grad():
                    found += step.roundoffs(*step.args)
            edges.append(get_gradient_edge(tensor))
            # Infinities, as those of an additive mask, are exact.
            errors.append([Roundoff(wide(one.size.detach()).nan_to_num(0, 0, 0) * unit, one.shared) for one in found])

    return Rounded(hooks.run(inputs, watch), edges, errors)


def standard_error(
    sample: Rounded, baselines: Sequence[Rounded], layouts: Layouts, outputs: Tensor, layers: Sequence[int], step: int
) -> Tensor:
    """``[K]``: the standard error of rounding in the gap of ``layers``, for the flattened outputs ``outputs`` ``[K]``, ``step`` at a time.

    The squares are averaged over the baselines and not divided by their number: what the sample's own pass rounds is the same for all.
    """
    graph = sample.graph
    separate(graph)
    explained = [position for layer in layers for position in range(*graph.layers[layer].indices(len(graph.edges)))]
    inside = ahead_of(graph, explained)
    watched = [position for position, edge in enumerate(sample.edges) if edge.node in inside]
    edges = [sample.edges[position] for position in watched] + [graph.edges[position] for position in explained]
    total = torch.zeros(len(outputs), dtype=torch.float64, device=outputs.device)
    for baseline in baselines:
        errors = [[*sample.errors[position], *baseline.errors[position]] for position in watched]
        for position in explained:
            # Each contribution is a rounded product.
            x, r = graph.explained[position], baseline.graph.explained[position]
            errors.append([Roundoff((wide(x) - wide(r)).abs() * _unit("", x))])
        like = [each[0].size for each in errors]
        pairs = Pairs(replace(graph, edges=edges, explained=like), baseline.graph, layouts, "alone")
        differing_operands(pairs)  # raises where the passes ran different operations
        for chosen, squares in zip(outputs.split(step), total.split(step), strict=True):
            # A model that needs two rows has its one row twice, so that every square is counted twice.
            copies = len(graph.output)
            found = pairs.multipliers(chosen.unsqueeze(1).expand(-1, copies), torch.zeros_like(chosen))
            for multipliers, each in zip(found, errors, strict=True):
                for error in each:
                    squares += _squared(multipliers.detach(), error) / copies
    return (total / len(baselines)).sqrt()


def _squared(multipliers: Tensor, error: Roundoff) -> Tensor:
    """``[V]``: the square of the output's error that the rounding ``error`` of a result causes, for its multipliers ``[V, ...]``."""
    # Squares of float32 numbers may be too small for float32.
    effect = (multipliers.abs() if multipliers.is_complex() else multipliers).double()
    effect = effect.reshape(-1, *error.size.shape) * error.size.double()
    effect = effect if error.shared is None else effect.sum(error.shared, keepdim=True)
    return effect.reshape(len(multipliers), -1).square().sum(1)


def tf32(products: Any) -> bool:
    """Whether a backend of torch (``torch.backends.cuda.matmul``, say) may compute float32 ``products`` in TensorFloat-32."""
    return bool(products.fp32_precision == "tf32")


def _unit(name: str, result: Tensor) -> float:
    """The unit roundoff that the operation ``name`` computes its result with."""
    if result.device.type == "cuda" and result.dtype == torch.float32 and _in_tf32(name):
        # TensorFloat-32 has a mantissa of 10 bits, as half precision.
        return 2.0**-11
    return torch.finfo(result.dtype).eps / 2


def _in_tf32(name: str) -> bool:
    backends: Any = torch.backends
    if str(name).startswith("conv"):
        return tf32(backends.cudnn.conv)
    return name in _MATRIX_PRODUCTS and tf32(backends.cuda.matmul)


def _spread(step: Step, noise: torch.Generator) -> list[Tensor]:
    """By how much each result changes with a small random change of the operands that carry multipliers, over their relative change.

    This is the size of the terms that the operation adds up; in the result they may have cancelled.
    """
    change = _NUDGE * max(torch.finfo(tensor.dtype).eps for tensor in step.made if tensor.requires_grad)

    def nudged(tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:
            return tensor
        real = tensor.real if tensor.is_complex() else tensor
        return tensor.detach() * (
            1 + change * torch.randn(real.shape, generator=noise, dtype=real.dtype, device=real.device)
        )

    args, kwargs = tree_map_only(Tensor, nudged, (tuple(step.args), dict(step.kwargs)))
    with torch.no_grad():
        again = tensors_in(step.run(*args, **kwargs))
        return [(wide(one) - wide(tensor)).abs() / change for one, tensor in zip(again, step.made, strict=True)]
