"""What a model remembers in Python: attributes, containers and objects that it reaches, as they were."""

from __future__ import annotations

import argparse
import enum
import functools
import operator
import random
import sys
import types
from collections import OrderedDict, UserDict, UserList, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Content = Sequence[Any]


@dataclass(frozen=True)
class _Kind:
    """How one kind of object is read and written: ``read`` gives its items, ``write`` puts them back into the same object.

    ``leads_on``: the items are objects of the model's own, and not a copy.
    """

    read: Callable[[Any], Content]
    write: Callable[[Any, Content], object]
    leads_on: bool = True


class State:
    """The contents of everything that is reached from ``roots`` through attributes, containers, bound methods and partials.

    Walked into are modules, tensors, builtin containers and instances of classes that are not the standard library's. Not classes,
    functions and what they close over, nor threads, locks, loggers and files.
    """

    def __init__(self, roots: Iterable[Any]) -> None:
        self._filled: list[tuple[Any, _Kind, Content]] = []
        #: Containers that were empty, as most of a module's are: they are for hooks that nobody has registered.
        self._empty: list[Any] = []
        self.tensors: list[Tensor] = []
        seen: dict[int, Any] = {}
        waiting = list(roots)
        while waiting:
            value = waiting.pop()
            if id(value) in seen:
                continue
            seen[id(value)] = value
            kind: type = type(value)
            how = _KINDS.get(kind)
            if how is not None:
                waiting += self._keep(value, how)
                continue
            container, has_attributes, slots = _kinds(kind)
            if issubclass(kind, Tensor):
                self.tensors.append(value)
            if container is not None:
                waiting += self._keep(value, container)
            if has_attributes and not _is_shared(value, kind):
                waiting += self._keep(value.__dict__, _DICT)
            if slots is not None:
                waiting += self._keep(value, slots)
            if issubclass(kind, (tuple, frozenset)):
                waiting += value
            elif kind in _LEADING:
                waiting += _LEADING[kind](value)

    def _keep(self, held: Any, how: _Kind) -> list[Any]:
        """Keep the contents of an object; returns those of them that are to be looked into."""
        content = how.read(held)
        self._filled.append((held, how, content))
        if not how.leads_on:
            return []
        parts = [item for item in content if type(item) not in _ATOMS]
        self._empty += [part for part in parts if type(part) in _KINDS and not part]
        return [part for part in parts if type(part) not in _KINDS or part]

    def again(self) -> State:
        """The contents of the same objects as they are now."""
        found = State(())
        found._filled = [(held, how, how.read(held)) for held, how, _ in self._filled]
        for held in filter(None, self._empty):
            found._keep(held, _KINDS[type(held)])
        found._empty = [held for held in self._empty if not held]
        return found

    def replace(self, others: Mapping[int, Any]) -> None:
        """Put other objects in the place of those with these identities, wherever these are held."""
        for held, how, content in self._filled:
            if how.leads_on and any(id(item) in others for item in content):
                how.write(held, [others.get(id(item), item) for item in content])

    def holds(self, ignoring: Sequence[str]) -> bool:
        """Whether all is as it was, but for attributes of these names."""
        if any(self._empty):
            return False
        for held, how, before in self._filled:
            after = how.read(held)
            same = len(after) == len(before) and all(map(operator.is_, after, before))
            if not same and not _equal(after, before, how, ignoring):
                return False
        return True

    def restore(self) -> None:
        """Write back what has changed."""
        for held, how, before in self._filled:
            after = how.read(held)
            if len(after) != len(before) or not all(map(operator.is_, after, before)):
                how.write(held, before)
        for held in filter(None, self._empty):
            _KINDS[type(held)].write(held, ())


def _equal(after: Content, before: Content, how: _Kind, ignoring: Sequence[str]) -> bool:
    """Whether contents that are not the same objects are equal where they are copies or have no parts."""
    if len(after) != len(before):
        return False
    if not how.leads_on:
        return all(map(_equal_copies, after, before))
    half = len(before) // 2
    return all(
        one is other
        or (type(one) is type(other) and type(one) in _ATOMS and one == other)
        or (how is _DICT and place >= half and before[place - half] in ignoring)
        for place, (one, other) in enumerate(zip(after, before, strict=True))
    )


def _equal_copies(one: Any, other: Any) -> bool:
    """Whether copies of contents are equal. Random generators, whose copies are their states, count as equal wherever they are."""
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return not isinstance(one, bytes) or one == other


def _is_shared(value: Any, kind: type) -> bool:
    """Whether an object is made to be used by several threads at once: it holds a lock, a thread or a queue."""
    if issubclass(kind, (nn.Module, Tensor)):
        return False
    return any(type(item).__module__ in _SHARING for item in value.__dict__.values())


@functools.lru_cache(maxsize=4096)
def _kinds(kind: type) -> tuple[_Kind | None, bool, _Kind | None]:
    """Of a class's instances: the kind of container that they are, whether they have attributes to keep, and how to read their slots."""
    container = next((how for base, how in (*_KINDS.items(), *_OTHERS.items()) if issubclass(kind, base)), None)
    if not issubclass(kind, (nn.Module, Tensor, UserDict, UserList, types.SimpleNamespace, argparse.Namespace)):
        library = kind.__module__.partition(".")[0] in sys.stdlib_module_names
        if library or issubclass(kind, (type, enum.Enum, types.ModuleType)):
            return container, False, None
    return container, kind.__dictoffset__ != 0, _slots(kind)


def _slots(kind: type) -> _Kind | None:
    if issubclass(kind, Tensor):
        return None
    members = [
        member
        for base in kind.__mro__
        if base.__module__.partition(".")[0] not in sys.stdlib_module_names and "__slots__" in vars(base)
        for member in vars(base).values()
        if isinstance(member, types.MemberDescriptorType)
    ]

    def read(value: Any) -> Content:
        return [_slot(member, value) for member in members]

    def write(value: Any, content: Content) -> None:
        for member, item in zip(members, content, strict=True):
            if item is not _NOTHING:
                member.__set__(value, item)
            elif _slot(member, value) is not _NOTHING:
                member.__delete__(value)

    return _Kind(read, write) if members else None


def _slot(member: types.MemberDescriptorType, value: Any) -> Any:
    try:
        return member.__get__(value)
    except AttributeError:
        return _NOTHING


#: Stands for the content of a slot that is not set.
_NOTHING = object()


def _write_dict(base: type[dict[Any, Any]], value: dict[Any, Any], content: Content) -> None:
    """``content``: the keys in their order, then as many values. Only what differs is touched: other threads may read the rest."""
    if not content:
        base.clear(value)
        return
    half = len(content) // 2
    keys, items = content[:half], content[half:]
    before = dict(zip(keys, items, strict=True))
    for key in [key for key in base.keys(value) if key not in before]:
        base.__delitem__(value, key)
    for key, item in before.items():
        if base.get(value, key, _NOTHING) is not item:
            base.__setitem__(value, key, item)
    if not all(map(operator.is_, base.keys(value), keys)):
        base.clear(value)
        for key, item in before.items():
            base.__setitem__(value, key, item)


def _write_set(value: set[Any], content: Content) -> None:
    set.clear(value)
    set.update(value, content)


def _write_deque(value: deque[Any], content: Content) -> None:
    deque.clear(value)
    deque.extend(value, content)


def _write_array(value: np.ndarray[Any, Any], content: Content) -> None:
    if value.flags.writeable and not np.array_equal(value, content[0]):
        np.copyto(value, content[0])


# These call the base classes' own methods, because a subclass's may do more.
_DICT = _Kind(lambda value: (*dict.keys(value), *dict.values(value)), functools.partial(_write_dict, dict))
_KINDS: dict[type, _Kind] = {
    OrderedDict: _Kind(
        lambda value: (*OrderedDict.keys(value), *OrderedDict.values(value)),
        functools.partial(_write_dict, OrderedDict),
    ),
    dict: _DICT,
    list: _Kind(list.copy, lambda value, content: list.__setitem__(value, slice(None), content)),
    deque: _Kind(lambda value: tuple(deque.__iter__(value)), _write_deque),
    set: _Kind(lambda value: tuple(set.__iter__(value)), _write_set),
}
_OTHERS: dict[type, _Kind] = {
    bytearray: _Kind(
        lambda value: (bytes(value),), lambda value, content: value.__setitem__(slice(None), content[0]), False
    ),
    np.ndarray: _Kind(lambda value: (value.copy(),), _write_array, False),
    random.Random: _Kind(lambda value: (value.getstate(),), lambda value, content: value.setstate(content[0]), False),
    np.random.Generator: _Kind(
        lambda value: (value.bit_generator.state,),
        lambda value, content: setattr(value.bit_generator, "state", content[0]),
        False,
    ),
    np.random.RandomState: _Kind(
        lambda value: (value.get_state(),), lambda value, content: value.set_state(content[0]), False
    ),
}
#: What is not kept itself but leads on to what is.
_LEADING: dict[type, Callable[[Any], Sequence[Any]]] = {
    functools.partial: lambda value: (value.func, value.args, value.keywords),
    types.MethodType: lambda value: (value.__self__,),
}
#: Modules whose classes are made for several threads or processes at once.
_SHARING = frozenset(
    "_thread threading queue _queue multiprocessing.queues multiprocessing.connection multiprocessing.synchronize".split()
)
#: What has no parts: most of what a model's attributes are.
_ATOMS = frozenset(
    (
        *(
            bool,
            int,
            float,
            complex,
            str,
            bytes,
            range,
            type,
            type(None),
            types.FunctionType,
            types.BuiltinFunctionType,
        ),
        *(torch.Size, torch.dtype, torch.device, torch.memory_format, torch.layout),
    )
)
