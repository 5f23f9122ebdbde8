"""The rules, one file a family; importing a family registers its rules."""

from . import elementwise, linear, normalization, pooling, products, softmax

__all__ = ["elementwise", "linear", "normalization", "pooling", "products", "softmax"]
