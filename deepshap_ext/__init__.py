"""DeepSHAP and DeepLIFT attributions for PyTorch models, with a C++/CUDA core.

Public is what ``__all__`` says, here and in ``captum``, ``players``, ``scale`` and ``tangermeme``; everything else is internal.
"""

__version__ = "0.2.0"

from . import players as players
from . import rules as rules
from .attribution import Attribution
from .build_info import build_info
from .errors import (
    AdditivityError,
    ControlFlowError,
    ExplanationError,
    MixedSamplesError,
    OutOfMemoryError,
    UnsupportedOperationError,
)
from .explainer import Explainer
from .pairs import Sides
from .rules.registry import Application, Context, Roundoff
from .rules.user import Registration, register_rule
from .shap import DeepExplainer

__all__ = [
    "AdditivityError",
    "Application",
    "Attribution",
    "Context",
    "ControlFlowError",
    "DeepExplainer",
    "Explainer",
    "ExplanationError",
    "MixedSamplesError",
    "OutOfMemoryError",
    "Registration",
    "Roundoff",
    "Sides",
    "UnsupportedOperationError",
    "build_info",
    "players",
    "register_rule",
]
