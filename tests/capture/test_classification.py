"""Every function that torch lets a mode see is known: it has a rule, needs none, or is refused by name."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import get_overridable_functions

from deepshap_ext import DeepExplainer
from deepshap_ext.capture import calls
from deepshap_ext.capture.names import operation
from deepshap_ext.errors import ExplanationError, UnsupportedOperationError
from deepshap_ext.rules.linear import DIVISIONS, FACTORS, LINEAR, METADATA, RANDOM, REFUSED, SHAPED_LIKE, STEPS
from deepshap_ext.rules.registry import DECOMPOSITIONS, RULES

TABLES = {
    "linear": LINEAR,
    "rule": RULES,
    "decomposition": DECOMPOSITIONS,
    "step": STEPS,
    "metadata": METADATA,
    "random": RANDOM,
    "refused": REFUSED,
}


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Canonical name and function of all that torch lets a mode see."""
    for group in get_overridable_functions().values():
        for function in group:
            yield operation(function).name, function


def kinds(name: str, function: Callable[..., Any]) -> list[str]:
    found = [kind for kind, table in TABLES.items() if name in table]
    # A composite Python function is taken apart.
    return found or (["composite"] if calls.body_of(function) is not None else [])


def test_every_function_is_known() -> None:
    unknown = {name for name, function in functions() if not kinds(name, function)}
    assert unknown == set(), "put them into a table of rules/linear.py, or give them a rule"


def _allowed(names: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether an operation may be in two tables."""
    return {
        # Linear while at most one of its factors carries multipliers, by a rule or taken apart where two do.
        ("linear", "rule"): lambda name: name in FACTORS or name == "einsum",
        ("linear", "decomposition"): lambda name: name in FACTORS,
        # In eval mode these do nothing, or are deterministic.
        ("linear", "random"): lambda name: "dropout" in name,
        ("rule", "random"): lambda name: name == "rrelu",
    }.get(names, lambda name: False)


def test_no_two_tables_contradict_each_other() -> None:
    memberships: dict[str, tuple[str, ...]] = {}
    for name in set().union(*TABLES.values()):
        memberships[name] = tuple(kind for kind, table in TABLES.items() if name in table)
    contradictions = defaultdict(list)
    for name, found in memberships.items():
        if len(found) > 1 and not _allowed(found)(name):
            contradictions[found].append(name)
    assert contradictions == {}


def test_factors_are_of_linear_operations() -> None:
    assert FACTORS.keys() <= LINEAR
    assert FACTORS.keys() >= DIVISIONS
    assert LINEAR >= SHAPED_LIKE


#: What a mode sees though torch does not list it: operations of aten, functions that are methods of no override, newer or older names,
#: and the package's own.
_UNLISTED = """
    can_cast dir hash new_empty new_empty_strided new_full new_ones new_tensor new_zeros result_type stride sym_numel sym_size
    sym_storage_offset sym_stride rand rand_like randint randint_like randn randn_like randperm rrelu_with_noise
    _upsample_bicubic2d_aa _upsample_bilinear2d_aa upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d upsample_trilinear3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d col2im slice alias rmul vecdot logsigmoid as_tensor asarray flex_attention
    order_statistics reflected running_maxima recurrent_layer
    kaiming_uniform names has_names align_as const_data_ptr set_requires_grad deepcopy _unique
""".split()


def test_no_table_has_a_name_that_torch_does_not_have() -> None:
    listed = {name for name, _ in functions()}
    # Some exist in some versions of torch only, under the same name in aten.
    exists = {name for name in set().union(*TABLES.values()) - listed if hasattr(torch.ops.aten, name)}
    assert set().union(*TABLES.values()) - listed - exists - set(_UNLISTED) == set()


class Apply(nn.Module):
    """A function between two nonlinear layers."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.function(torch.tanh(x)))


def explain(function: Callable[[Tensor], Tensor]) -> None:
    x, background = torch.randn(3, 4, 4, dtype=torch.float64), torch.randn(2, 4, 4, dtype=torch.float64)
    DeepExplainer(Apply(function), background).attribute(x)


REFUSALS = {
    "torch.linalg.svdvals": lambda x: torch.linalg.svdvals(x),
    "torch.polygamma": lambda x: torch.polygamma(2, x.exp()),
    "torch.linalg.matrix_norm": lambda x: torch.linalg.matrix_norm(x, "nuc"),
    "torch.as_strided_scatter": lambda x: torch.as_strided_scatter(x, x[:, 0], (len(x), 4), (16, 1)),
}


@pytest.mark.parametrize("title", REFUSALS)
def test_what_has_no_rule_is_refused_by_name(title: str) -> None:
    with pytest.raises(UnsupportedOperationError, match=title.strip()):
        explain(REFUSALS[title])


def _named(name: str, slope: float) -> type[torch.autograd.Function]:
    """A Function of the user's under a name that torch's own nodes have."""

    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.polygamma(2, slope * x.exp())

    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad

    return type(
        name, (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    )


@pytest.mark.parametrize("name", ["Add", "Clone", "Gather", "Copy", "Div"])
def test_a_hand_written_function_does_not_pass_for_one_of_torch(name: str) -> None:
    with pytest.raises(ExplanationError, match=rf"autograd\.Function {name} in Apply calls torch\.polygamma"):
        explain(_named(name, 2.0).apply)
