"""The walk over the autograd graph: what the function mode cannot see must not change a multiplier in silence.

User-written ``autograd.Function``s, TorchScript and work on other threads leave nodes in the graph that no rule has made.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from ..errors import ExplanationError, UnsupportedOperationError
from .applied import is_rule
from .forward import Pass
from .nodes import around, depth_first, following
from .tape import Entry

_LINEAR_NODES = frozenset(
    """
    AccumulateGrad Add Sub Rsub Neg Sum Nansum Mean Cumsum Alias AsStrided CopySlices Copy ToCopy Clone Contiguous Complex
    View UnsafeView ReshapeAlias Reshape Expand Squeeze Unsqueeze T Transpose Permute Swapaxes Diagonal DiagonalScatter Slice
    SliceScatter Select SelectScatter Split SplitWithSizes Unbind Unfold UnfoldBackward Narrow Flatten Unflatten ViewAsReal
    ViewAsComplex Real Imag Conj ConjPhysical Cat Stack Repeat RepeatInterleave Flip Roll Rot90 Tril Triu Trace Diag DiagEmbed
    Index IndexSelect IndexAdd IndexCopy IndexFill IndexPut Gather Scatter ScatterAdd Take TakeAlongDim Put MaskedFill
    MaskedScatter MaskedSelect Where Fill Zero ConstantPadNd PixelShuffle PixelUnshuffle ChannelShuffle NativeChannelShuffle
    ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D ReplicationPad2D ReplicationPad3D Im2Col Col2Im
    AvgPool1D AvgPool2D AvgPool3D AdaptiveAvgPool1D AdaptiveAvgPool2D AdaptiveAvgPool3D MkldnnAdaptiveAvgPool2D
    UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleLinear1D UpsampleBilinear2D UpsampleBilinear2DAa
    UpsampleBicubic2D UpsampleBicubic2DAa UpsampleTrilinear3D UpsampleNearestExact1D UpsampleNearestExact2D
    UpsampleNearestExact3D FftR2C FftC2R FftC2C NativeDropout Detach Lift BlockDiag MaxUnpool2D MaxUnpool3D
    Deg2Rad Rad2Deg NegView NarrowCopy UnsafeSplit UnsafeSplitWithSizes LiftFresh
    """.split()
)

#: Bilinear nodes: which of their edges are the factors, at most one of which may lead to what is explained.
_FACTOR_EDGES = {
    **dict.fromkeys(
        "Mul Bmm Mm Mv Dot Vdot Convolution ConvolutionOverrideable MkldnnConvolution Linear".split(), (0, 1)
    ),
    **dict.fromkeys("CudnnConvolution CudnnConvolutionTranspose MkldnnLinear".split(), (0, 1)),
    **dict.fromkeys("Addmm Addmv Addr Addbmm Baddbmm Addcmul".split(), (1, 2)),
}
#: Linear in what their first edge leads to, and in nothing else.
_LINEAR_IN_FIRST = frozenset({"Div", "GridSampler2D", "GridSampler3D", "CudnnGridSampler"})


@dataclass(frozen=True)
class Cut:
    """Layers, by number, whose attributions add up together; not ``whole`` where something leads past them, so that they do not.

    ``past``: where in the model that meets what is explained, for a message; None if it is whole, or never does.
    """

    layers: list[int]
    whole: bool
    past: str | None = None


def audit(graph: Pass) -> None:
    """Refuse any node between the explained tensors and the output that is neither linear nor a rule's."""
    record, targets = graph.record, {edge.node for edge in graph.edges}
    reaching = set(targets)
    refused: list[str] = []
    for node in depth_first([_root(graph).node]):
        leading = [position for position, (following, _) in enumerate(node.next_functions) if following in reaching]
        if not leading:
            continue
        reaching.add(node)
        if node in record.without_rule:
            # Named as the model calls it; its inner nodes, met before, say less.
            refused = [record.without_rule[node]]
            break
        if is_rule(node):
            continue
        name = _stem(node)
        factors = _FACTOR_EDGES.get(name)
        if factors is not None and sum(position in factors for position in leading) <= 1:
            continue
        if name in _LINEAR_IN_FIRST and leading == [0]:
            continue
        if factors is not None or name not in _LINEAR_NODES:
            refused.append(
                f"the model runs {node.name()} where its operations cannot be followed (a hand-written autograd.Function, TorchScript or "
                f"another thread): write it with torch functions, or explain a layer behind it with (model, layer)"
            )
    if refused and record.options.on_unsupported == "gradient":
        warnings.warn(f"{refused[0]}. Its gradient at the input is used, which does not add up", stacklevel=2)
    elif refused:
        raise UnsupportedOperationError(refused[0])
    for node in around(_root(graph), graph.edges):
        variable = getattr(node, "variable", None)
        if node in targets or variable is None or any(variable is leaf for leaf in graph.inputs):
            continue
        if variable in record.dependence:
            raise UnsupportedOperationError(
                f"a tensor of shape {list(variable.shape)} that depends on the explained input was detached from it and made to require a "
                f"gradient of its own: what it adds to the output cannot be explained"
            )


def cuts(graph: Pass) -> list[Cut]:
    """Which layers' attributions add up: those of each layer that nothing leads past, and those of all others together if nothing leads
    past all of them and none is made from another. Nothing leads past a model's own inputs."""
    if all(any(getattr(edge.node, "variable", None) is leaf for leaf in graph.inputs) for edge in graph.edges):
        return [Cut([*range(len(graph.layers))], True)]
    alone = [_cut(graph, [number]) for number in range(len(graph.layers))]
    whole, rest = [cut for cut in alone if cut.whole], [cut for cut in alone if not cut.whole]
    if len(rest) > 1:
        numbers = [number for cut in rest for number in cut.layers]
        together = {edge.node for number in numbers for edge in graph.edges[graph.layers[number]]}
        behind = depth_first(found for node in together for found in following(node))
        if together.isdisjoint(behind) and (both := _cut(graph, numbers)).whole:
            return [*whole, both]
    return [*whole, *rest]


def _cut(graph: Pass, numbers: list[int]) -> Cut:
    """These layers as a cut."""
    reached = _around_layers(graph, numbers)
    variables = [getattr(node, "variable", None) for node in reached]
    if not any(variable in graph.record.dependence for variable in variables if variable is not None):
        return Cut(numbers, True)
    return Cut(numbers, False, next(filter(None, map(graph.record.meetings.get, reached)), None))


def _around_layers(graph: Pass, numbers: list[int]) -> list[Node]:
    """The nodes that the output is made from other than through these layers."""
    return around(_root(graph), [edge for number in numbers for edge in graph.edges[graph.layers[number]]])


def beside_cuts(graph: Pass) -> set[Node]:
    """The nodes that the output is made from other than through one of the cuts: what happens elsewhere changes no attribution."""
    return {node for cut in cuts(graph) for node in _around_layers(graph, cut.layers)}


def led_past(graph: Pass, found: list[Cut], entry: Entry) -> list[Cut]:
    """The cuts, given that the operands of an operation lead to it past what is explained and differ between the sides."""

    def led(cut: Cut) -> Cut:
        if cut.past or set(_around_layers(graph, cut.layers)).isdisjoint(entry.nodes):
            return cut
        return replace(cut, whole=False, past=str(entry))

    return [led(cut) for cut in found]


def ahead_of(graph: Pass, explained: Sequence[int]) -> set[Node]:
    """The nodes that the output is made from without these of the explained tensors."""
    return set(around(_root(graph), [graph.edges[position] for position in explained]))


def _stem(node: Node) -> str:
    """`Add` for `AddBackward0`, `Copy` for `torch::autograd::CopyBackwards`."""
    if hasattr(node, "_forward_cls"):
        # Of a Function written in Python, which may have any name.
        return ""
    return _stem_of(node.name())


@cache
def _stem_of(name: str) -> str:
    return name.split("::")[-1].partition("Backward")[0]


def separate(graph: Pass) -> None:
    """Where of the tensors that a layer has one is made from another, let each keep what it does not give through the other."""
    for layer in graph.layers:
        edges = graph.edges[layer]
        nodes = {edge.node for edge in edges}
        if nodes.isdisjoint(depth_first(found for node in nodes for found in following(node))):
            continue
        if len(graph.layers) > 1:
            raise ExplanationError(
                "a layer of the list has several tensors, one made from another, which are told apart only for a layer alone: explain "
                "(model, layer) for each"
            )
        for edge in edges:
            edge.node.register_prehook(partial(_stop, edge.output_nr))


def _stop(number: int, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Nothing flows on from this output of a node. Autograd has taken the explained tensor's own gradient before."""
    return tuple(
        torch.zeros_like(grad) if position == number and grad is not None else grad
        for position, grad in enumerate(grads)
    )


def _root(graph: Pass) -> GradientEdge:
    return get_gradient_edge(graph.output)
