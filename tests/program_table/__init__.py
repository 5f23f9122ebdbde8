"""The operations that random programs are made of, in families: what a family takes, and where it leaves the batch."""

# In this order: the number of an operation decides the shapes and the choices of its test alone.
from . import elementwise, along, together, last_dimensions, images, vectors, batches, writes  # noqa: F401, I001
from .along import DECISIONS
from .operation import FAMILIES, Operation

__all__ = ["DECISIONS", "FAMILIES", "OPERATIONS", "Operation"]

OPERATIONS: list[Operation] = [operation for operations in FAMILIES.values() for operation in operations]
