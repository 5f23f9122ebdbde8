"""DeepSHAP and DeepLIFT attributions for PyTorch models, with a C++/CUDA core."""

from . import rules as rules
from .build_info import build_info
from .errors import (
    AdditivityError,
    ControlFlowError,
    ExplanationError,
    MixedSamplesError,
    OutOfMemoryError,
    UnsupportedOperationError,
)
from .explainer import Attribution, DeepExplainer
from .rules.registry import Application
from .rules.user import Registration, register_rule

__all__ = [
    "AdditivityError",
    "Application",
    "Attribution",
    "ControlFlowError",
    "DeepExplainer",
    "ExplanationError",
    "MixedSamplesError",
    "OutOfMemoryError",
    "Registration",
    "UnsupportedOperationError",
    "build_info",
    "register_rule",
]
