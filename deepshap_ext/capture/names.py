"""One name for every spelling of an operation: ``F.relu``, ``torch.relu_``, ``Tensor.relu``, ``torch.ops.aten.relu.default``."""

from __future__ import annotations

import types
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import resolve_name

_ALIASES = {
    "absolute": "abs",
    "and": "bitwise_and",
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
    # torch has the sparse products under the dense one's own function.
    "dsmm": "mm",
    "expit": "sigmoid",
    "floordiv": "floor_divide",
    "greater": "gt",
    "greater_equal": "ge",
    # torch has hsmm under hspmm's own function.
    "hsmm": "hspmm",
    "idiv": "div",
    # aten's name for indexing. The operator `__index__` of integers has this name too, and no gradient to lose.
    "index": "getitem",
    "inverse": "linalg_inv",
    "invert": "bitwise_not",
    "less": "lt",
    "less_equal": "le",
    "lift_fresh": "alias",
    "lift_fresh_copy": "clone",
    "linalg_diagonal": "diagonal",
    "linalg_matmul": "matmul",
    "linalg_matrix_exp": "matrix_exp",
    "linalg_matrix_power": "matrix_power",
    "log_sigmoid": "logsigmoid",
    "lshift": "bitwise_left_shift",
    "mod": "remainder",
    "moveaxis": "movedim",
    "multigammaln": "mvlgamma",
    "multiply": "mul",
    "negative": "neg",
    "not_equal": "ne",
    "or": "bitwise_or",
    "rdiv": "rtruediv",
    "row_stack": "vstack",
    "rshift": "bitwise_right_shift",
    "spmm": "mm",
    "subtract": "sub",
    "swapaxes": "transpose",
    "swapdims": "transpose",
    "trapz": "trapezoid",
    "true_divide": "div",
    "truediv": "div",
    "unsafe_chunk": "chunk",
    "unsafe_split": "split",
    "unsafe_split_with_sizes": "split_with_sizes",
    "xor": "bitwise_xor",
    "_adaptive_avg_pool2d": "adaptive_avg_pool2d",
    "_adaptive_avg_pool3d": "adaptive_avg_pool3d",
    "_conj": "conj",
    "_conj_physical": "conj_physical",
    "_convolution": "convolution",
    "_index_put_impl": "index_put",
    "_log_softmax": "log_softmax",
    "_reshape_alias": "reshape",
    "_reshape_copy": "reshape",
    "_softmax": "softmax",
    "_stack": "stack",
    "_threshold": "threshold",
    "_to_copy": "to",
    "_unsafe_index": "getitem",
    "_unsafe_index_put": "index_put",
    "_unsafe_view": "view",
    **{
        f"{name}_copy": name
        for name in """
        alias as_strided detach diagonal expand narrow permute select slice split split_with_sizes squeeze t transpose unbind
        unfold unsqueeze view view_as_complex view_as_real
        """.split()
    },
}
#: Names that torch uses for two operations: Tensor.unfold makes windows, this one columns.
_BY_TITLE = {"torch.nn.functional.unfold": "im2col"}
#: Operators with their operands the other way round; only for dunder names, since `rand` is a function too.
_REFLECTED = {"radd": "add", "rmul": "mul", "rand": "bitwise_and", "ror": "bitwise_or", "rxor": "bitwise_xor"}
_IN_PLACE_OPERATORS = {
    "iadd", "isub", "imul", "idiv", "itruediv", "imatmul", "ipow", "imod", "ifloordiv", "iand", "ior", "ixor", "ilshift",
    "irshift",
}  # fmt: skip


#: The modules whose functions share canonical names.
_OWN = ("torch", "deepshap_ext")


@dataclass(frozen=True)
class Operation:
    """``name``: the key of the rule tables; ``title``: what a message calls it; ``in_place``: it writes its first argument.

    The key of torch's own functions is their canonical name; that of any other function, and of an ``autograd.Function``, is the object
    itself, whatever it is called.
    """

    name: Any
    title: str
    in_place: bool

    @cached_property
    def spelling(self) -> str:
        """The last part of the title."""
        return self.title.rpartition(".")[2]


def operation(function: Any) -> Operation:
    """The :class:`Operation` that a function seen by ``__torch_function__``, or a hand-written ``autograd.Function``, stands for."""
    known = _KNOWN.get(function)
    if known is not None:
        return known
    if isinstance(function, type) and issubclass(function, torch.autograd.Function):
        return Operation(function, f"autograd.Function {function.__name__}", False)
    if is_of_torch(function):
        _KNOWN[function] = _of_torch(function)
        return _KNOWN[function]
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return Operation(function, f"{getattr(function, '__module__', '')}.{name}", False)


def is_of_torch(function: Any) -> bool:
    """Whether torch, or this package, has made the function."""
    if isinstance(function, types.FunctionType):
        # `__module__` is copied by functools.wraps; the globals are those of the module that the function was written in.
        home = function.__globals__.get("__name__")
    elif isinstance(function, (OpOverload, OpOverloadPacket, types.MethodWrapperType)):
        return True
    else:
        home = getattr(getattr(function, "__objclass__", function), "__module__", None)
    return str(home).partition(".")[0] in _OWN


#: Where torch's functions are found by their names; what is in several of these is known as in the first.
_NAMESPACES: dict[str, Any] = {
    "torch.special": torch.special,
    "torch.fft": torch.fft,
    "torch.linalg": torch.linalg,
    "torch.Tensor": torch.Tensor,
    "torch.nn.functional": torch.nn.functional,
    "torch.functional": torch.functional,
    "torch": torch,
}


def _title(function: Any, name: str) -> str | None:
    """What :func:`torch.overrides.resolve_name` says of most functions, without the tenth of a second that its table takes to make."""
    if name.startswith("_") and not name.startswith("__"):
        # It may be public under another name.
        return None
    return next(
        (f"{title}.{name}" for title, space in _NAMESPACES.items() if getattr(space, name, None) is function), None
    )


#: Of torch's own functions that were seen.
_KNOWN: dict[Any, Operation] = {}


def _of_torch(function: Any) -> Operation:
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
        module = getattr(function, "__module__", None) or ""
        # This package's own have names that say what they are.
        title = (
            _title(function, raw)
            or resolve_name(function)
            or (raw if module.startswith("deepshap_ext") else f"{module}.{raw}")
        )
    name = _BY_TITLE.get(title, raw)
    in_place = False
    if name.startswith("__") and name.endswith("__"):
        name = name[2:-2]
        in_place = name in _IN_PLACE_OPERATORS or name == "setitem"
        name = name[1:] if name in _IN_PLACE_OPERATORS else _REFLECTED.get(name, name)
    elif name.endswith("_") and not name.startswith("__"):
        name, in_place = name[:-1], True
    name = name.removeprefix("special_")
    return Operation(_ALIASES.get(name, name), title, in_place)
