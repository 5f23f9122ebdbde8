"""Fingerprints: short hashes by which two runs tell whether they explain the same thing."""

from __future__ import annotations

import hashlib
import re
import types
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..arrays import as_array

#: Where an object lies, in how it prints.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

#: Bytes of a tensor that are hashed at once.
_BLOCK = 64 << 20


def fingerprint(*values: Any) -> str:
    """16 hexadecimal digits, the same for equal values in every process.

    Tensors and arrays count by dtype, shape and content, on whatever device; functions by their name, their code and what they have bound;
    modules by their structure, their code, parameters and buffers; other objects by their class and attributes.
    """
    digest = _Digest()
    for value in values:
        digest.add(value)
    return digest.text()


def fingerprint_of_weights(model: nn.Module) -> str:
    """Of a model's parameters and buffers, by name."""
    return fingerprint(_weights(model))


def fingerprint_of_structure(model: nn.Module) -> str:
    """Of what a model is but for its weights: how it prints, and the code of those modules that are not torch's own."""
    return fingerprint(_structure(model))


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def _structure(model: nn.Module) -> list[Any]:
    kinds = {type(module) for module in model.modules() if not type(module).__module__.startswith("torch.")}
    code = sorted((kind.__qualname__, fingerprint(kind.forward)) for kind in kinds)
    return [type(model).__qualname__, _ADDRESS.sub("", repr(model)), code]


class _Digest:
    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=8)
        #: The objects that are being looked into: one that holds itself is not followed again.
        self._inside: set[int] = set()

    def text(self) -> str:
        return self._hash.hexdigest()

    def add(self, value: Any) -> None:
        if isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            self._array(np.asarray(value))
        elif isinstance(value, (bool, int, float, complex, str, bytes, type(None), torch.dtype, np.generic)):
            self._text(type(value).__name__, repr(value))
        elif id(value) in self._inside:
            self._text("inside")
        else:
            self._inside.add(id(value))
            self._object(value)
            self._inside.discard(id(value))

    def _object(self, value: Any) -> None:
        if isinstance(value, Mapping):
            self._parts("mapping", sorted(((str(key), each) for key, each in value.items()), key=lambda item: item[0]))
        elif isinstance(value, (list, tuple)):
            self._parts("list", value)
        elif isinstance(value, (set, frozenset)):
            self._parts("set", sorted(map(str, value)))
        elif isinstance(value, types.MethodType):
            self._parts("method", [value.__func__, value.__self__])
        elif isinstance(value, types.FunctionType):
            self._parts(
                "function",
                [
                    value.__qualname__,
                    value.__code__,
                    value.__defaults__,
                    value.__kwdefaults__,
                    [cell.cell_contents for cell in value.__closure__ or () if not _is_empty(cell)],
                ],
            )
        elif isinstance(value, types.CodeType):
            # Neither the file nor the lines: a comment more is no other function.
            self._parts("code", [value.co_code, value.co_names, value.co_consts])
        elif isinstance(value, partial):
            self._parts("partial", [value.func, value.args, value.keywords])
        elif isinstance(value, nn.Module):
            self._parts("module", [_structure(value), _weights(value)])
        elif type(value).__module__.startswith("torch."):
            self._text(_ADDRESS.sub("", str(value)))
        elif isinstance(value, (type, types.ModuleType)) or not hasattr(value, "__dict__"):
            self._text(getattr(value, "__module__", ""), getattr(value, "__qualname__", type(value).__qualname__))
        else:
            self._parts(type(value).__qualname__, [vars(value)])

    def _parts(self, kind: str, parts: Any) -> None:
        parts = list(parts)
        self._text(kind, str(len(parts)))
        for part in parts:
            self.add(part)

    def _tensor(self, tensor: Tensor) -> None:
        if tensor.layout != torch.strided or tensor.is_quantized:
            self._text(str(tensor.layout), repr(tensor))
            return
        self._text("numbers", str(tensor.dtype)[6:], str(list(tensor.shape)))
        flat = tensor.detach().reshape(-1)
        step = max(1, _BLOCK // max(1, tensor.element_size()))
        for first in range(0, len(flat), step):
            block = flat[first : first + step].cpu().contiguous()
            self._hash.update(as_array(block.view(torch.uint8)).data)

    def _array(self, array: np.ndarray[Any, Any]) -> None:
        self._text("numbers", str(array.dtype), str(list(array.shape)))
        self._hash.update(np.ascontiguousarray(array, array.dtype.newbyteorder("=")).data)

    def _text(self, *words: str) -> None:
        for word in words:
            self._hash.update(word.encode() + b"\0")


def _is_empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False
