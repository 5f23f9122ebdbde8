"""One name for every spelling of an operation."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from deepshap_ext.capture.names import _ALIASES, Operation, operation
from deepshap_ext.rules.linear import LINEAR, METADATA, RANDOM, REFUSED, STEPS
from deepshap_ext.rules.registry import DECOMPOSITIONS, RULES

aten = torch.ops.aten


class _Seen(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations.append(operation(function))
        return function(*args, **(kwargs or {}))


def _iadd(x: Tensor) -> None:
    x += 1


def _imul(x: Tensor) -> None:
    x *= 2


def _idiv(x: Tensor) -> None:
    x /= 2


def _ipow(x: Tensor) -> None:
    x **= 2


def _setitem(x: Tensor) -> None:
    x[0] = 1


def _set_grad(x: Tensor) -> None:
    x.grad = None


def _set_data(x: Tensor) -> None:
    x.data = x.clone().data


#: Calls on a float matrix of shape [3, 3], their name, and whether they write their first argument.
SPELLINGS = {
    "relu": [
        (F.relu, False),
        (torch.relu, False),
        (lambda x: x.relu(), False),
        (aten.relu, False),
        (aten.relu.default, False),
        (torch.relu_, True),
        (F.relu_, True),
        (lambda x: x.relu_(), True),
        (aten.relu_, True),
        (aten.relu_.default, True),
    ],
    "add": [
        (lambda x: x + 1, False),
        (lambda x: 1 + x, False),
        (lambda x: torch.add(x, x), False),
        (_iadd, True),
        (lambda x: x.add_(1), True),
        (lambda x: aten.add.Tensor(x, x), False),
        (lambda x: aten.add_.Scalar(x, 1), True),
        (lambda x: x.__radd__(1), False),
    ],
    "sub": [(lambda x: x - 1, False), (lambda x: torch.subtract(x, x), False), (lambda x: x.subtract_(1), True)],
    "rsub": [(lambda x: 1 - x, False), (lambda x: torch.rsub(x, 1), False)],
    "mul": [
        (lambda x: x * 2, False),
        (lambda x: 2 * x, False),
        (torch.tensor(2.0).__mul__, False),
        (lambda x: torch.multiply(x, x), False),
        (_imul, True),
        (lambda x: x.__rmul__(2), False),
    ],
    "div": [
        (lambda x: x / 2, False),
        (lambda x: torch.true_divide(x, 2), False),
        (lambda x: torch.divide(x, 2), False),
        (_idiv, True),
        (lambda x: aten.div.Tensor(x, x), False),
    ],
    "rtruediv": [(lambda x: 2 / x, False)],
    "pow": [(lambda x: x**2, False), (_ipow, True), (lambda x: aten.pow.Tensor_Scalar(x, 2), False)],
    "rpow": [(lambda x: 2**x, False)],
    "remainder": [(lambda x: x % 2, False), (lambda x: torch.remainder(x, 2), False)],
    "neg": [(lambda x: -x, False), (torch.negative, False), (lambda x: x.negative_(), True)],
    "abs": [(abs, False), (torch.absolute, False), (lambda x: x.abs_(), True)],
    "mm": [(lambda x: torch.mm(x, x), False), (lambda x: torch.spmm(x, x), False)],
    "matmul": [(lambda x: x @ x, False), (lambda x: torch.linalg.matmul(x, x), False)],
    "sigmoid": [(torch.special.expit, False), (F.sigmoid, False), (torch.sigmoid_, True)],
    "softmax": [
        (lambda x: x.softmax(0), False),
        (lambda x: torch.special.softmax(x, 0), False),
        (lambda x: F.softmax(x, 0), False),
        (lambda x: aten._softmax(x, 0, False), False),
    ],
    "log_softmax": [
        (lambda x: torch.special.log_softmax(x, 0), False),
        (lambda x: aten._log_softmax(x, 0, False), False),
    ],
    "clamp": [(lambda x: torch.clip(x, 0), False), (lambda x: x.clip_(0), True)],
    "cat": [(lambda x: torch.concat([x]), False), (lambda x: torch.concatenate([x]), False)],
    "getitem": [(lambda x: x[0], False), (lambda x: aten.index.Tensor(x, [torch.tensor(0)]), False)],
    "setitem": [(_setitem, True)],
    "view": [
        (lambda x: x.view(9), False),
        (lambda x: aten._unsafe_view(x, [9]), False),
        (lambda x: torch.view_copy(x, [9]), False),
    ],
    "to": [(lambda x: x.to(torch.float64), False), (lambda x: aten._to_copy(x), False)],
    "im2col": [
        (lambda x: F.unfold(x[None], 2), False),
        (lambda x: aten.im2col(x[None], [2, 2], [1, 1], [0, 0], [1, 1]), False),
    ],
    "unfold": [(lambda x: x.unfold(0, 2, 1), False), (lambda x: aten.unfold(x, 0, 2, 1), False)],
    "index_copy": [(lambda x: x.index_copy_(0, torch.tensor([0]), x[1:2].clone()), True)],
    "T": [(lambda x: x.T, False)],
    "t": [(torch.t, False), (lambda x: x.t_(), True), (torch.t_copy, False)],
    "shape": [(lambda x: x.shape, False)],
    "data": [(lambda x: x.data, False)],
    "set_data": [(_set_data, False)],
    "grad": [(lambda x: x.grad, False)],
    "set_grad": [(_set_grad, False)],
    "detach": [(lambda x: x.detach(), False), (lambda x: x.detach_(), True), (torch.detach_copy, False)],
    "bitwise_and": [(lambda x: (x > 0) & True, False), (lambda x: (x > 0).__rand__(True), False)],
    "bitwise_or": [(lambda x: (x > 0) | (x > 1), False), (lambda x: (x > 0).__ror__(True), False)],
    "bitwise_xor": [(lambda x: (x > 0) ^ (x > 1), False), (lambda x: (x > 0).__rxor__(True), False)],
    "floor_divide": [(lambda x: x // 2, False), (lambda x: torch.floor_divide(x, 2), False)],
    "bitwise_not": [(lambda x: ~(x > 0), False)],
    "gt": [(lambda x: x > 0, False), (lambda x: torch.greater(x, 0), False), (lambda x: x.gt_(0), True)],
    "ne": [(lambda x: x != 0, False), (lambda x: torch.not_equal(x, 0), False)],
    "float": [(lambda x: float(x[0, 0]), False), (lambda x: x.float(), False)],
    "bool": [(lambda x: bool(x[0, 0]), False)],
    "rand": [(lambda x: torch.rand(2), False)],
    "dropout": [(lambda x: F.dropout(x), False), (lambda x: torch.dropout(x, 0.5, True), False)],
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, n) for name, calls in SPELLINGS.items() for n in range(len(calls))]
)
def test_every_spelling_has_one_name(name: str, number: int) -> None:
    call, in_place = SPELLINGS[name][number]
    x = torch.rand(3, 3)
    with _Seen() as seen:
        call(x)
    assert (name, in_place) in {(one.name, one.in_place) for one in seen.operations}


def test_properties_have_names_and_titles() -> None:
    x = torch.rand(3, 3)
    with _Seen() as seen:
        x.mT, x.is_cuda, x.grad_dtype  # noqa: B018
    assert {one.title for one in seen.operations} >= {"torch.Tensor.mT", "torch.Tensor.is_cuda"}


def test_custom_operators_keep_their_namespace() -> None:
    function = torch.ops.prims.mul.default
    assert operation(function).name == "prims::mul"
    assert operation(function).title == "torch.ops.prims.mul"


def test_aliases_lead_to_names_and_not_to_aliases() -> None:
    assert not set(_ALIASES) & set(_ALIASES.values())


def test_no_table_has_an_alias() -> None:
    tables = (LINEAR, METADATA, RANDOM, REFUSED, STEPS, RULES, DECOMPOSITIONS)
    assert [name for table in tables for name in table if name in _ALIASES] == []
