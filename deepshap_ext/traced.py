"""A function of tensors traced into plain graphs of operations, in stages each of which can run again without the others."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import Graph, GraphModule, Node
from torch.fx.experimental.proxy_tensor import get_proxy_mode, get_proxy_slot, make_fx

from .lowered import function_of

#: Values by the names of the nodes that made them.
Values = dict[str, Tensor]
_aten = torch.ops.aten


class NotTraceableError(Exception):
    """A function cannot be traced: what it does depends on more than a graph of its operations can say."""


@dataclass
class Stage:
    """A part of a traced function: the names of the values that it takes and gives, and its ``graph``; ``run`` computes what that does."""

    takes: list[str]
    gives: list[str]
    graph: GraphModule
    run: Callable[..., Sequence[Tensor]]

    @property
    def operations(self) -> list[Node]:
        """The calls in its graph; none where it only passes on what it is given."""
        return [node for node in self.graph.graph.nodes if node.op == "call_function"]

    def __call__(self, values: Values) -> Values:
        return dict(zip(self.gives, self.run(*[values[name] for name in self.takes]), strict=True))


@dataclass
class Traced:
    """The stages of a function of several groups of tensors. ``given``: the names of each group's tensors; ``results``: the names of those
    that the function returns.
    """

    given: list[list[str]]
    stages: list[Stage]
    results: dict[str, list[str]]


@dataclass(frozen=True)
class Part:
    """What a stage computes: operations that depend on no other ``groups``, and were not computed before; where one of the function's
    ``results`` is named, only what that takes."""

    groups: frozenset[int]
    result: str | None = None


def trace(
    function: Callable[..., Mapping[str, Sequence[Tensor]]],
    groups: Sequence[Sequence[Tensor]],
    parts: Sequence[Part],
    read: Sequence[Node],
) -> Traced:
    """Trace ``function``, which takes the tensors of all groups and returns tensors by name.

    ``parts``: of each stage; that of the last one is the rest. ``read``: a list to which the function adds the nodes of those tensors
    whose values it reads in Python.

    The graph's operations are ATen's and this package's own, none in place. Parameters and buffers are its attributes: the tensors
    themselves, so that it sees what is written into them. Raises :class:`NotTraceableError` where an operation is random, gives tensors
    whose shapes depend on values, or writes into a tensor that it was not given; and where a value that it reads depends on what it is
    given.
    """
    numbers: dict[str, int] = {}

    def flat(*tensors: Tensor) -> list[Tensor]:
        results = function(*tensors)
        numbers.update({name: len(each) for name, each in results.items()})
        return [tensor.detach() for each in results.values() for tensor in each]

    given = [tensor for group in groups for tensor in group]
    traced = make_fx(flat)(*given)
    _check(traced.graph)
    _check_constant(read)
    if any(_writes(node) for node in traced.graph.nodes):
        _check_writes(traced.graph)
        traced = make_fx(torch.func.functionalize(traced))(*given)
        if any(_writes(node) for node in traced.graph.nodes):
            raise NotTraceableError("it writes into tensors in a way that cannot be followed")
    _without_detours(traced.graph)
    _collapse(traced.graph)
    _fold(traced)
    traced.graph.eliminate_dead_code()
    placeholders = [node for node in traced.graph.nodes if node.op == "placeholder"]
    each = iter(placeholders)
    of_group = [[next(each) for _ in group] for group in groups]
    following = iter(cast(Sequence[Node], traced.graph.output_node().args[0]))
    results = {name: [next(following) for _ in range(number)] for name, number in numbers.items()}
    return Traced(
        [_names(group) for group in of_group],
        _stages(traced, of_group, parts, results),
        {name: _names(each) for name, each in results.items()},
    )


def _names(nodes: Sequence[Node]) -> list[str]:
    return [node.name for node in nodes]


def _operations(graph: Graph) -> Iterator[tuple[Node, OpOverload]]:
    for node in graph.nodes:
        if node.op == "call_function" and isinstance(node.target, OpOverload):
            yield node, node.target


def _check(graph: Graph) -> None:
    """Refuse operations that are random, or give tensors whose shapes depend on values."""
    for node, operation in _operations(graph):
        if torch.Tag.dynamic_output_shape in operation.tags and not _is_by_integers(node):
            raise NotTraceableError(f"the shape of what {operation} returns depends on values")
        if torch.Tag.nondeterministic_seeded in operation.tags:
            raise NotTraceableError(f"{operation} is random")


def _check_constant(read: Sequence[Node]) -> None:
    """Refuse values read in Python that depend on what the function is given: the graph has those of this one call."""
    if any(node.op == "placeholder" for node in _leading_to(read)):
        raise NotTraceableError("it reads values of tensors in Python")


def _leading_to(nodes: Sequence[Node]) -> set[Node]:
    """The nodes, and all that they are computed from."""
    found, waiting = set(nodes), list(nodes)
    while waiting:
        before = [one for one in waiting.pop().all_input_nodes if one not in found]
        found.update(before)
        waiting += before
    return found


def node_of(tensor: Tensor) -> list[Node]:
    """The node that made a tensor in the graph that is being traced, alone in a list; an empty list if the tensor comes from elsewhere."""
    mode = get_proxy_mode()
    slot: Any = None if mode is None else get_proxy_slot(tensor, mode.tracer, None)
    return [] if slot is None else [slot.proxy.node]


def _is_by_integers(node: Node) -> bool:
    """Whether a node indexes by integers alone. An index that is a mask takes as many elements as the mask has true ones."""
    dtypes = {one.meta["val"].dtype for one in node.all_input_nodes[1:]}
    return node.target is _aten.index.Tensor and dtypes.isdisjoint({torch.bool, torch.uint8})


def _writes(node: Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _check_writes(graph: Graph) -> None:
    """Refuse what writes into the memory of the graph's attributes or arguments."""
    outside: set[Node] = set()
    for node in graph.nodes:
        if node.op in ("get_attr", "placeholder"):
            outside.add(node)
        if not isinstance(node.target, OpOverload):
            if node.target is operator.getitem and node.args[0] in outside:
                outside.add(node)
            continue
        arguments = node.target._schema.arguments
        given = [*zip(arguments, node.args, strict=False)]
        given += [(one, node.kwargs[one.name]) for one in arguments if one.name in node.kwargs]
        for argument, value in given:
            if argument.alias_info is None or value not in outside:
                continue
            if argument.alias_info.is_write:
                raise NotTraceableError(f"{node.target} writes into a tensor that the model holds or is given")
            outside.add(node)


def _without_detours(graph: Graph) -> None:
    """Take out operations that return their operand unchanged, which is the same since nothing is written in place.

    A clone that is a result stays: results must not share memory with what the function is given.
    """
    for node, operation in _operations(graph):
        same = operation is _aten.expand.default and node.meta["val"].shape == _source(node).meta["val"].shape
        if same or operation in (_aten.detach.default, _aten.alias.default, _aten.lift_fresh.default):
            node.replace_all_uses_with(_source(node))
    results = set(graph.output_node().all_input_nodes)
    for node, operation in _operations(graph):
        if operation is _aten.clone.default and node not in results:
            source = _source(node)
            if source.meta["val"].stride() == node.meta["val"].stride():
                node.replace_all_uses_with(source)


def _collapse(graph: Graph) -> None:
    """Replace several views in a row between contiguous tensors by one, or by none where the shapes are the same.

    Nothing is written in place, so nothing depends on which tensors share memory.
    """
    for node, operation in _operations(graph):
        if operation not in RESHAPING or not _is_contiguous(node):
            continue
        source = _source(node)
        while source.target in RESHAPING and _is_contiguous(source) and _is_contiguous(_source(source)):
            source = _source(source)
        if not _is_contiguous(source):
            continue
        shape = node.meta["val"].shape
        if source.meta["val"].shape == shape:
            node.replace_all_uses_with(source)
        else:
            node.target, node.args, node.kwargs = _aten.view.default, (source, list(shape)), {}


def _source(node: Node) -> Node:
    """The operand of a view or of a copy."""
    return node.all_input_nodes[0]


def _is_contiguous(node: Node) -> bool:
    return bool(node.meta["val"].is_contiguous())


#: Views that keep the order of the elements in memory wherever both the operand and the result are contiguous.
RESHAPING = frozenset(
    (
        *(_aten.view.default, _aten._unsafe_view.default, _aten.unsqueeze.default),
        *(_aten.squeeze.default, _aten.squeeze.dim, _aten.squeeze.dims),
        *(_aten.permute.default, _aten.transpose.int, _aten.t.default),
    )
)


#: A tensor that operations make from no other tensor, as torch.zeros does, is made once and kept if it has at most so many elements.
_SMALL = 4096


def _fold(traced: GraphModule) -> None:
    """Compute small constants, and views of attributes, which share their memory, now, and make them attributes themselves."""
    constants: set[Node] = set()
    for node, operation in list(_operations(traced.graph)):
        operands = node.all_input_nodes
        constant = constants.issuperset(operands)
        views = any(argument.alias_info is not None for argument in operation._schema.arguments)
        if not constant and not (views and all(one.op == "get_attr" for one in operands)):
            continue
        given = torch.fx.map_arg((node.args, node.kwargs), lambda one: getattr(traced, str(one.target)))
        with torch.no_grad():
            value = operation(*given[0], **given[1])
        if not isinstance(value, Tensor) or (not views and value.numel() > _SMALL):
            continue
        name = f"_folded_{node.name}"
        setattr(traced, name, value.detach())
        node.op, node.target, node.args, node.kwargs = "get_attr", name, (), {}
        if constant:
            constants.add(node)


def _stages(
    traced: GraphModule, groups: Sequence[Sequence[Node]], parts: Sequence[Part], results: Mapping[str, Sequence[Node]]
) -> list[Stage]:
    """The graph divided into stages: each operation is in the first whose part it is."""
    depends: dict[Node, frozenset[int]] = {
        node: frozenset({number}) for number, group in enumerate(groups) for node in group
    }
    nodes: list[Node] = [node for node in traced.graph.nodes if node.op not in ("placeholder", "output")]
    for node in nodes:
        depends[node] = frozenset().union(*(depends[one] for one in node.all_input_nodes))
    # What depends on no group, most of it views of weights, is copied into every stage that reads it.
    constant = [node for node in nodes if not depends[node]]
    left = [node for node in nodes if depends[node]]
    kept = {node for each in results.values() for node in each}
    found: list[Stage] = []
    for part in parts:
        wanted = None if part.result is None else _leading_to(results[part.result])
        mine = [node for node in left if depends[node] <= part.groups and (wanted is None or node in wanted)]
        inside = set(mine)
        left = [node for node in left if node not in inside]
        if not found:
            # Results that depend on no group are given by one stage only, the first.
            inside |= kept.intersection(constant)
        found.append(_stage(traced, constant, mine, inside, kept))
    return found


def _stage(
    traced: nn.Module, constant: Sequence[Node], mine: Sequence[Node], inside: set[Node], kept: set[Node]
) -> Stage:
    """The stage of the nodes that are ``mine``.

    ``constant``: nodes that depend on no group; ``inside``: ``mine`` and the constants that this stage gives; ``kept``: the results of the
    whole function.
    """
    graph, new, takes = Graph(), dict[Node, Node](), list[Node]()
    fixed = set(constant)
    for node in mine:
        for one in node.all_input_nodes:
            if one not in inside and one not in fixed and one not in new:
                new[one] = graph.placeholder(one.name)
                new[one].meta = dict(one.meta)
                takes.append(one)
    wanted = {node for node in constant if node in inside}
    reading: set[Node] = {one for node in mine for one in node.all_input_nodes if one in fixed} | wanted
    for node in reversed(constant):
        if node in reading:
            reading.update(node.all_input_nodes)
    for node in (*(node for node in constant if node in reading), *mine):
        new[node] = graph.node_copy(node, lambda one: new[one])
    gives = [
        node
        for node in (*constant, *mine)
        if node in inside and (node in kept or any(user not in inside and user.op != "output" for user in node.users))
    ]
    graph.output(tuple(new[node] for node in gives))
    module = GraphModule(traced, graph)
    return Stage([node.name for node in takes], [node.name for node in gives], module, function_of(module))
