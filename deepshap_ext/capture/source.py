"""Where in the model's source an operation is called."""

from __future__ import annotations

import os
import sys
from types import FrameType

import torch

#: Folders of code that runs a model and is none.
_NOT_THE_MODEL = tuple(os.path.dirname(path) + os.sep for path in (torch.__file__, os.path.dirname(__file__)))


def line() -> str:
    """``model.py:31``: the innermost line that runs outside of torch and of this package; empty where there is none."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_NOT_THE_MODEL):
        frame = frame.f_back
    return "" if frame is None else f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
