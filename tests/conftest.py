"""What all tests share."""

import random
import warnings
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("default", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=3000, deadline=None, print_blob=True)
settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", help="the device of tensors that tests make without naming one")


def pytest_configure(config: pytest.Config) -> None:
    if device := config.getoption("--device"):
        torch.set_default_device(device)
        # TF32, torch's default on a GPU, would miss the tests' tolerances, which are those of float32.
        for backend in (torch.backends.cudnn.conv, torch.backends.cudnn.rnn, torch.backends.cuda.matmul):
            backend.fp32_precision = "ieee"


@pytest.fixture(autouse=True)
def _same_random_numbers_in_every_test() -> Iterator[None]:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
    yield


@pytest.fixture
def in_float64() -> Iterator[None]:
    """What a test makes without naming a type is of float64: ``pytestmark = pytest.mark.usefixtures("in_float64")``."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def shap() -> ModuleType:
    """The module, imported without the warnings of what it imports itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap
    return shap
