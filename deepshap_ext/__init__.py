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

__all__ = [
    "AdditivityError",
    "Attribution",
    "ControlFlowError",
    "DeepExplainer",
    "ExplanationError",
    "MixedSamplesError",
    "OutOfMemoryError",
    "UnsupportedOperationError",
    "build_info",
]
