"""One name for every spelling of an operation: ``F.relu``, ``torch.relu_``, ``Tensor.relu``, ``torch.ops.aten.relu.default``."""

from __future__ import annotations

import types
from dataclasses import dataclass
from functools import cache
from typing import Any

from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import resolve_name

_ALIASES = {
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "divide": "div",
    "expit": "sigmoid",
    "greater": "gt",
    "greater_equal": "ge",
    "idiv": "div",
    "inverse": "linalg_inv",
    "less": "lt",
    "less_equal": "le",
    "linalg_matmul": "matmul",
    "multiply": "mul",
    "negative": "neg",
    "not_equal": "ne",
    "rdiv": "rtruediv",
    "row_stack": "vstack",
    "subtract": "sub",
    "true_divide": "div",
    "truediv": "div",
    "_log_softmax": "log_softmax",
    "_softmax": "softmax",
    "_threshold": "threshold",
    "_unsafe_view": "view",
}
_IN_PLACE_OPERATORS = {
    "iadd", "isub", "imul", "idiv", "itruediv", "imatmul", "ipow", "imod", "ifloordiv", "iand", "ior", "ixor", "ilshift",
    "irshift",
}  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """``name``: the canonical key of the rule tables; ``title``: what a message calls it; ``in_place``: it writes its first argument."""

    name: str
    title: str
    in_place: bool


@cache
def operation(function: Any) -> Operation:
    """The :class:`Operation` that a function seen by ``__torch_function__`` stands for."""
    if isinstance(function, (OpOverload, OpOverloadPacket)):
        qualified = function._schema.name if isinstance(function, OpOverload) else function._qualified_op_name
        namespace, raw = qualified.split("::")
        if namespace != "aten":
            return Operation(qualified, f"torch.ops.{namespace}.{raw}", False)
        title = f"torch.ops.aten.{raw}"
    elif isinstance(function, types.MethodWrapperType):
        # A property of Tensor: the mode sees `Tensor.T.__get__`. Those written in Python have no name of their own before Python 3.13.
        prefix = "" if function.__name__ == "__get__" else "set_"
        descriptor: Any = function.__self__
        attribute = getattr(descriptor, "fget", descriptor).__name__
        raw, title = prefix + attribute, f"torch.Tensor.{attribute}"
    else:
        raw = getattr(function, "__name__", type(function).__name__)
        title = resolve_name(function) or f"{getattr(function, '__module__', '')}.{raw}"
    name = raw
    in_place = False
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
        in_place = name in _IN_PLACE_OPERATORS or name == "setitem"
        if name in _IN_PLACE_OPERATORS:
            name = name[1:]
    elif name.endswith("_") and not name.startswith("__"):
        name, in_place = name[:-1], True
    name = name.removeprefix("special_")
    return Operation(_ALIASES.get(name, name), title, in_place)
