"""The promise held: whether the values of an explanation add up to what the model's output differs by."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from .capture.graph import Cut
from .errors import additivity_error, integrals_at_fault, integrate_instead
from .explained import Explained

#: The largest gap of additivity, relative to the largest output difference of the batch.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 1e-2}


def check_additivity(explained: Explained, tolerance: float | None, several_layers: bool, raises: bool) -> None:
    """Raise or warn where values do not add up, and say where they cannot.

    ``tolerance``: as the user gave it. ``several_layers``: whether layers were given as a list.
    """
    problems = [
        f"{title} takes different decisions for sample(s) {_listing(rows)} and for their baselines, and what these add to the output "
        f"belongs to no input: {integrate_instead(title)}"
        for title, rows in explained.inexact.items()
    ]
    partial = [cut for cut in explained.cuts if not cut.whole]
    if partial:
        numbers = ", ".join(str(layer) for cut in partial for layer in cut.layers)
        which = f"layer(s) {numbers} of the list" if several_layers else "the explained layer"
        past = "; ".join(dict.fromkeys(cut.past for cut in partial if cut.past))
        named = (
            f" ({past} brings in what does not go through it; sample_kwargs hold a mask, say, constant)" if past else ""
        )
        warnings.warn(
            f"something leads from the model's inputs past {which} to the output{named}: the attributions there are right, but they "
            f"are not all there is and do not add up to the output difference",
            stacklevel=4,
        )
    if not problems:
        problems = [gap for cut in explained.cuts if cut.whole for gap in _gap(explained, cut, tolerance)]
        problems += integrals_at_fault(explained.integrals) if problems else []
    if not problems:
        return
    message = "; ".join(problems)
    if raises:
        raise additivity_error(
            f"the attributions do not add up: {message}. check_additivity=False returns them all the same"
        )
    warnings.warn(f"the attributions do not add up: {message}", stacklevel=4)


def gaps(explained: Explained, cut: Cut) -> Tensor:
    """``[N, K]``: the values of a cut's layers summed, less what they should add up to; float64."""
    parts = [one for layer in cut.layers for one in explained.sums[explained.layers[layer]]]
    return torch.stack(parts).sum(0) - (explained.outputs.double() - explained.expected.double())


def _gap(explained: Explained, cut: Cut, tolerance: float | None) -> list[str]:
    """The largest gap of additivity, if it is beyond the tolerance."""
    # Of the least precise dtype: some float64 models compute parts in float32.
    dtype = explained.precision
    if dtype == torch.float32 and explained.outputs.device.type == "cuda" and _tf32():
        # Its mantissa has as many bits as half precision's.
        dtype = torch.float16
    tolerance = TOLERANCES[dtype] if tolerance is None else tolerance
    outputs, expected = explained.outputs.double(), explained.expected.double()
    infinite = ~(outputs - expected).isfinite()
    if infinite.any():
        rows = set(infinite.any(1).nonzero()[:, 0].tolist())
        return [f"the model's output is not finite for sample(s) {_listing(rows)} or for the baselines"]
    found = gaps(explained, cut).abs()
    scale = float((outputs - expected).abs().max())
    # The model's own rounding of its outputs is no error of the attributions.
    rounding = 4 * torch.finfo(dtype).eps * float(torch.maximum(outputs.abs(), expected.abs()).max())
    worst = float(found.max())
    if worst <= tolerance * scale + rounding:
        return []
    sample, column = divmod(int(found.argmax()), found.shape[1])
    output, relative = int(explained.targets[sample, column]), worst / max(scale, 1e-300)
    return [
        f"sample {sample}, output {output} is off by {worst:.3g}, {relative:.3g} of the largest output difference {scale:.3g}, "
        f"where {tolerance:.3g} is allowed (additivity_tolerance=)"
    ]


def _tf32() -> bool:
    """Whether float32 products may be computed in TensorFloat-32 on the GPU, as convolutions are by default."""
    backends: Any = torch.backends
    return "tf32" in (backends.cudnn.conv.fp32_precision, backends.cuda.matmul.fp32_precision)


def _listing(rows: set[int]) -> str:
    shown = sorted(rows)
    return ", ".join(map(str, shown[:5])) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")
