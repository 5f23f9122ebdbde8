"""The model of a command: what an importable factory makes, with weights from a file, or an exported program. Nothing is unpickled."""

from __future__ import annotations

import importlib
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..explainer import Explainer
from .errors import CommandError
from .files import optional

_WEIGHTS = re.compile(r"(?P<path>.+?\.(?:safetensors|pt|pth))(?::(?P<key>.+))?", re.DOTALL)


def explainer_of(model: str, weights: str | None, device: torch.device, options: dict[str, Any]) -> Explainer:
    """An explainer of the model, on a device.

    Args:
        model: ``package.module:name`` of a function that takes no arguments and returns a module, or an explainer; or the path of a
            ``.pt2`` file.
        weights: the path of a ``.safetensors`` or ``.pt`` file of the module's state, for the latter with ``:KEY`` if it is a part.
        device: what the model is moved to.
        options: of :class:`deepshap_ext.Explainer`; none where the function returns one.

    Raises:
        CommandError: there is no such model, or the weights are not its.
    """
    if model.endswith(".pt2"):
        if weights is not None:
            raise CommandError("--weights: a .pt2 file has weights of its own")
        return _explainer(_exported(Path(model), device), options)
    made = called("--model", imported("--model", model))
    if isinstance(made, Explainer):
        if options:
            raise CommandError(
                f"--{next(iter(options)).replace('_', '-')}: {model} returned an explainer, which has options of its own"
            )
    elif not isinstance(made, nn.Module):
        raise CommandError(f"--model: {model} must return a torch.nn.Module or an Explainer, got {type(made).__name__}")
    module = made._model if isinstance(made, Explainer) else made
    if weights is not None:
        _load(module, weights)
    module.to(device)
    return made if isinstance(made, Explainer) else _explainer(module, options)


def imported(option: str, name: str) -> Any:
    """What ``package.module:name`` is.

    Raises:
        CommandError: there is none.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise CommandError(f"{option} must be package.module:name, got {name}")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise CommandError(f"{option}: importing {module} raised {type(error).__name__}: {error}") from error
        raise CommandError(
            f"{option}: there is no module {error.name} in {os.getcwd()} nor among those installed"
        ) from error
    except Exception as error:
        raise CommandError(f"{option}: importing {module} raised {type(error).__name__}: {error}") from error
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise CommandError(f"{option}: {error}") from error
    return found


def called(option: str, function: Any) -> Any:
    """What a user's function without arguments returns.

    Raises:
        CommandError: it is no function, or it raised.
    """
    if not callable(function):
        raise CommandError(f"{option} must name a function, got a {type(function).__name__}")
    try:
        return function()
    except Exception as error:
        raise CommandError(f"{option}: the function raised {type(error).__name__}: {error} (-v shows where)") from error


def _explainer(module: nn.Module, options: dict[str, Any]) -> Explainer:
    layer = options.pop("layer", None)
    return Explainer(module if layer is None else (module, layer), **options)


def _load(module: nn.Module, weights: str) -> None:
    match = _WEIGHTS.fullmatch(weights)
    if match is None:
        raise CommandError(f"--weights must be a .safetensors or a .pt file, got {weights}")
    file, key = Path(match["path"]), match["key"]
    if not file.exists():
        raise CommandError(f"--weights: there is no file {file}")
    try:
        if file.suffix == ".safetensors":
            state: Any = optional("safetensors.torch", "reading .safetensors").load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except CommandError:
        raise
    except Exception as error:
        # torch's message is about arguments of torch.load, which the command has none of.
        why = "torch.load(weights_only=True) refuses it" if isinstance(error, pickle.UnpicklingError) else error
        raise CommandError(f"--weights: {file} holds more than weights, or is no such file: {why}") from error
    for part in key.split(".") if key else []:
        if not isinstance(state, dict) or part not in state:
            raise CommandError(f"--weights: {file} has no {key}")
        state = state[part]
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        raise CommandError(f"--weights: {weights} are not the model's: {error}") from error


def _exported(path: Path, device: torch.device) -> nn.Module:
    if not path.exists():
        raise CommandError(f"--model: there is no file {path}")
    _refuse_pickles(path)
    with _weights_only():
        try:
            program = torch.export.load(path)
        except Exception as error:
            raise CommandError(f"--model: {path} cannot be read: {type(error).__name__}: {error}") from error
    if device.type != "cpu":
        from torch.export.passes import move_to_device_pass

        program = move_to_device_pass(program, device)
    return program.module()


def _refuse_pickles(path: Path) -> None:
    """Refuse what torch would unpickle: objects that are no tensors, and archives of its older format."""
    from torch.export.pt2_archive import constants

    try:
        with zipfile.ZipFile(path) as archive:
            # torch finds files whatever their case.
            names = [name.lower() for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise CommandError(f"--model: {path} is no file of torch.export.save") from error
    # torch 2.11 has no opaque objects.
    prefixes = [getattr(constants, f"{kind}_OBJ_FILENAME_PREFIX", None) for kind in ("CUSTOM", "OPAQUE")]
    objects = [f"{constants.CONSTANTS_DIR}{prefix}".lower() for prefix in prefixes if prefix is not None]
    if any(name.endswith("serialized_exported_program.json") for name in names):
        raise CommandError(f"--model: {path} has torch.export's older format, which is pickled: save it anew")
    if any(part in name for name in names for part in objects):
        raise CommandError(
            f"--model: {path} holds pickled objects, which are not read: export a model of tensors alone"
        )


@contextmanager
def _weights_only() -> Iterator[None]:
    """Have torch.load read tensors and nothing else, whoever calls it and however."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
