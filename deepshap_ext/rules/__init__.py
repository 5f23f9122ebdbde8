"""The rules, one file a family; importing a family registers its rules."""

from . import (
    attention,
    convolution,
    decompositions,
    elementwise,
    linear,
    losses,
    matrices,
    normalization,
    order,
    pooling,
    products,
    recurrent,
    softmax,
    sparse,
    special,
    two_arguments,
)

__all__ = [
    "attention",
    "convolution",
    "decompositions",
    "elementwise",
    "linear",
    "losses",
    "matrices",
    "normalization",
    "order",
    "pooling",
    "products",
    "recurrent",
    "softmax",
    "sparse",
    "special",
    "two_arguments",
]
