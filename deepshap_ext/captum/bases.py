"""captum's base classes; where captum is not installed, classes of these names with what is used of them."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["GradientAttribution", "LayerAttribution", "NeuronAttribution"]

try:
    from captum.attr import GradientAttribution, LayerAttribution, NeuronAttribution
except ImportError:

    class GradientAttribution:  # type: ignore[no-redef]
        """In place of captum's."""

        def __init__(self, forward_func: nn.Module) -> None:
            self.forward_func = forward_func

        def has_convergence_delta(self) -> bool:
            return False

    class NeuronAttribution(GradientAttribution):  # type: ignore[no-redef]
        """In place of captum's."""

    class LayerAttribution(GradientAttribution):  # type: ignore[no-redef]
        """In place of captum's."""

        @staticmethod
        def interpolate(layer_attribution: Tensor, interpolate_dims: Any, interpolate_mode: str = "nearest") -> Tensor:
            """A layer's values in the size of the images that they are shown over."""
            return F.interpolate(layer_attribution, interpolate_dims, mode=interpolate_mode)
