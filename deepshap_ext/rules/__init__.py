"""The rules, one file a family; importing a family registers its rules."""

from . import (
    attention,
    convolution,
    decompositions,
    elementwise,
    linear,
    normalization,
    order,
    pooling,
    products,
    recurrent,
    softmax,
)

__all__ = [
    "attention",
    "convolution",
    "decompositions",
    "elementwise",
    "linear",
    "normalization",
    "order",
    "pooling",
    "products",
    "recurrent",
    "softmax",
]
