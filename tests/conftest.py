"""What all tests share."""

import random
import warnings
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_test() -> Iterator[None]:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    yield


@pytest.fixture(scope="session")
def shap() -> ModuleType:
    """The module, imported without the warnings of what it imports itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap
    return shap
