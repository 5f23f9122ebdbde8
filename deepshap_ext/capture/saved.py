"""What the autograd graph saves for the pair pass, under models that write in place."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import ExplanationError, UnsupportedOperationError
from .dependence import Dependence
from .tape import Factor, Tape


@contextmanager
def saved_tensors(dependence: Dependence, tape: Tape, shapes_only: bool) -> Iterator[None]:
    """In this context the model may write into what autograd saves, as models that are not trained do.

    Nodes that are not a rule's are linear: one that saves its input, as gather does, wants no more than its shape (``shapes_only``). Of
    a factor that is written into, the value at the multiplication is kept.
    """
    # The graph holds on to what packs its tensors.
    dependence, tape = weakref.proxy(dependence), weakref.proxy(tape)

    def pack(tensor: Tensor) -> Tensor | Factor:
        # Masks and indices made from the input carry no gradient; the pair pass reads their values.
        shape_only = shapes_only and tensor.requires_grad and tensor in dependence
        return tensor.detach() if shape_only else tape.factor(tensor)

    def unpack(packed: Tensor | Factor) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        if packed.kept[0]._version != packed.versions[0]:
            raise ExplanationError(
                f"a tensor of shape {list(packed.kept[0].shape)} that the model multiplies by is modified in place where the "
                f"modification cannot be followed"
            )
        return packed.kept[0]

    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            yield
    except RuntimeError as error:
        if "yet support saved tensor hooks" not in str(error):
            raise
        raise UnsupportedOperationError(
            "the model runs grad, vjp, jacrev or hessian, transforms of torch.func, which cannot be followed"
        ) from error
