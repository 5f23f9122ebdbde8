"""Sample calls of every operation that is linear: ``"name"`` or ``"name: variant"`` to :class:`Sample`."""

from .conversions import CONVERSIONS
from .decomposed import DECOMPOSED
from .fourier import FOURIER
from .products import PRODUCTS
from .rearrangements import REARRANGEMENTS
from .sample import Sample, const, written
from .sums import SUMS
from .views import VIEWS

__all__ = ["SAMPLES", "Sample", "const", "written"]

SAMPLES = {**VIEWS, **REARRANGEMENTS, **SUMS, **CONVERSIONS, **FOURIER, **PRODUCTS, **DECOMPOSED}
