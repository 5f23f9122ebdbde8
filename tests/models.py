"""Models that the tests of the public explainer share; weights are scaled up so that outputs spread."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def spread(model: nn.Module, scale: float = 2.0) -> nn.Module:
    """The model in eval mode with its weights scaled up and its batch norms' statistics made uneven."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(scale if "weight" in name and parameter.dim() > 1 else 1)
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                if module.affine:
                    module.weight.normal_()
                    module.bias.normal_()
    return model.eval()


class ModuleNet(nn.Module):
    """conv, max-pool, relu, dropout, linear, softmax: each a module."""

    def __init__(self, softmax: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3)
        self.conv2 = nn.Conv2d(4, 6, 2)
        self.pool1, self.pool2 = nn.MaxPool2d(2), nn.MaxPool2d(2)
        self.relu1, self.relu2, self.relu3 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.dropout1, self.dropout2 = nn.Dropout2d(), nn.Dropout(0.3)
        self.fc1 = nn.Linear(6, 8)
        self.fc2 = nn.Linear(8, 5)
        self.softmax = nn.Softmax(dim=1) if softmax else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.pool1(self.conv1(x)))
        x = self.relu2(self.pool2(self.dropout1(self.conv2(x))))
        x = self.dropout2(self.relu3(self.fc1(x.flatten(1))))
        return self.softmax(self.fc2(x))


class FunctionNet(ModuleNet):
    """The same net, written with functions."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(F.dropout2d(self.conv2(x), training=self.training), 2))
        x = x.view(-1, 6)
        x = F.dropout(F.relu(self.fc1(x)), 0.3, training=self.training)
        return F.softmax(self.fc2(x), dim=1)


def digits(number: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Images for the two nets."""
    return torch.randn(number, 1, 9, 9, dtype=dtype)


class TwoInputs(nn.Module):
    """An image and a vector."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.conv, self.relu1, self.relu2 = nn.Conv1d(2, 3, 3), nn.ReLU(), nn.Tanh()
        self.fc = nn.Linear(4, 5)
        self.head = nn.Linear(3 * 6 + 5, outputs)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.cat([self.relu1(self.conv(a)).flatten(1), self.relu2(self.fc(b))], dim=1))


class Skip(nn.Module):
    """``layer``'s input feeds a skip connection too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu1 = nn.Linear(6, 5), nn.ReLU()
        self.layer, self.relu2 = nn.Sequential(nn.Linear(5, 5)), nn.ReLU()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.first(x))
        return self.head(self.relu2(self.layer(h)) + h)


class Tokens(nn.Module):
    """Integer inputs: an embedding whose output feeds an encoder and, if asked to, a skip past it."""

    def __init__(self, skip: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.encoder = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 6))
        self.head = nn.Linear(6, 4)
        self.skip = skip

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.embedding(tokens)
        encoded = self.encoder(embedded)
        return self.head(torch.tanh(encoded + embedded if self.skip else encoded).mean(1))


class Body(nn.Module):
    """linear, the function under test, linear: from 6 features to 4 outputs."""

    def __init__(
        self, function: Callable[..., Any], features: int = 6, hidden: int = 8, width: int | None = None
    ) -> None:
        super().__init__()
        self.before = nn.Linear(features, hidden)
        self.after = nn.Linear(hidden if width is None else width, 4)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self.before(x)))


class Function(nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs) if self._modules else self.function(*inputs)
