"""One forward pass: what it explains, and what is left of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from ..errors import ExplanationError, UnsupportedOperationError, decided_by
from ..rules.lookup import TWIN
from .record import Record
from .tape import Tape


@dataclass
class Pass:
    """One forward pass: its record, its output ``[rows, ...]`` and the tensors to explain with their places in the autograd graph.

    ``returned``: what the model returned, of which ``output`` is made. ``layers``: which of the explained tensors are each layer's; a
    model's own inputs count as one layer. ``integers``: whether each explained tensor has integers, in floating point.
    """

    record: Record
    output: Tensor
    returned: Tensor
    explained: list[Tensor]
    edges: list[GradientEdge]
    layers: list[slice]
    integers: list[bool]
    inputs: list[Tensor]

    @property
    def tape(self) -> Tape:
        return self.record.tape

    def without_graph(self) -> Pass:
        """The pass without its autograd graph: what is only read from its tape."""
        self.record.release()
        explained = [tensor.detach() for tensor in self.explained]
        output, returned = self.output.detach(), self.returned.detach()
        return replace(self, output=output, returned=returned, explained=explained, edges=[], inputs=[])


def leaf_of(tensor: Tensor, model: nn.Module, is_explained: bool) -> Tensor:
    """A copy of an input that multipliers are taken with respect to; of integers that are explained themselves it is floating-point."""
    as_it_is = tensor.is_floating_point() or not is_explained
    leaf = tensor.detach().clone() if as_it_is else _floating(tensor, model)
    return leaf.requires_grad_(leaf.is_floating_point())


def _floating(integers: Tensor, model: nn.Module) -> Tensor:
    """Explained integers in a dtype that tells them apart: float32 those of two bytes, unless the model is float64."""
    dtypes = [parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()]
    if integers.element_size() <= 2 and dtypes and dtypes[0] != torch.float64:
        return integers.to(torch.float32)
    most = 2**53
    if integers.element_size() == 8 and (beyond := integers[(integers > most) | (integers < -most)]).numel():
        raise ExplanationError(
            f"explained integers must lie between -2**53 and 2**53, got {int(beyond[0])}: pass remainders of hashes, or explain the "
            f"numbers that are looked up for them with (model, layer)"
        )
    return integers.to(TWIN)


def centred_logits(output: Any, record: Record) -> Tensor:
    """In place of a final softmax its logits, less their mean over the classes (DeepLIFT, arXiv 1704.02685, section 3.6)."""
    origin = record.origins.of(output) if isinstance(output, Tensor) else None
    if origin is None or origin.name != "softmax":
        raise ExplanationError(
            "softmax='centered' explains a model whose output is a softmax, as it returns it; this one's is not, or was written into, or "
            "its logits were"
        )
    (dim,) = origin.parameters
    return origin.operand - origin.operand.mean(dim, keepdim=True)


def check_output(output: Any, record: Record, rows: int) -> None:
    """Refuse what is no output ``[rows, ...]`` of numbers that multipliers reach."""
    if not isinstance(output, Tensor):
        raise TypeError(f"output must select a tensor from what the model returns, got {type(output).__name__}")
    if output.dim() == 0 or output.shape[0] != rows:
        raise ExplanationError(
            f"the model's output must have shape [{rows}, ...] for {rows} samples, got {list(output.shape)}"
        )
    if output.numel() == 0:
        raise ExplanationError(f"the model's output must have a number for each sample, got shape {list(output.shape)}")
    if not output.is_floating_point():
        raise ExplanationError(f"the model's output must be of a floating-point dtype, got {output.dtype}")
    depends = output in record.dependence
    if depends and (random := record.dependence[output].random):
        raise UnsupportedOperationError(
            f"{random}, and reaches the output: pass training=self.training where it has that argument, or explain a model without it"
        )
    if not output.requires_grad:
        decision = record.dependence[output].decision if depends else None
        raise UnsupportedOperationError(
            "the model's output is made from what is explained by decisions only (comparisons, rounding, integers), or does not "
            "depend on it" + decided_by(decision)
        )
