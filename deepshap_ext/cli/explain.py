"""``deepshap-ext explain``: from files of inputs to a store of attributions."""

from __future__ import annotations

import argparse
import os
import re
import sys
from functools import partial
from typing import Any

import numpy as np
import torch

from ..additivity import Check
from ..scale import Job, Keep, Store, StoreError, open_store
from ..scale.engines import Engine, local_rank, speaks, started_as_rank
from ..scale.engines import run as run_on
from ..scale.run import what_warned
from .errors import CommandError
from .files import names_file, read_array
from .models import explainer_of, imported

#: Options of the explainer, by the command's names for them.
_EXPLAINER = ("layer", "output", "rules", "softmax", "on_unsupported", "max_memory", "batch_size")
_CHECKS: dict[str, Check] = {"raise": True, "warn": False, "ignore": "ignore"}


def run(arguments: argparse.Namespace) -> int:
    engine: Engine = arguments.engine or ("ranks" if started_as_rank() else "alone")
    store = run_on(engine, partial(opened, arguments), not arguments.quiet, arguments.cores)
    if speaks(engine) and (warned := what_warned(store)) is not None:
        print(f"deepshap-ext: warning: {warned}", file=sys.stderr)
    return 0


def interrupted(arguments: argparse.Namespace) -> str:
    try:
        store = Store(arguments.store)
    except StoreError:
        return "interrupted before a shard was done"
    return f"interrupted: {store.shards - len(store.missing())} of {store.shards} shards are done, and the same command continues"


def opened(arguments: argparse.Namespace) -> tuple[Store, Job]:
    """The store of a command, in whatever process, and what is explained into it.

    Raises:
        CommandError, StoreError, ValueError, TypeError: the command cannot be done as it is given.
    """
    # A worker may have been started in another folder than the command, whose relative paths count.
    os.chdir(arguments.directory)
    if arguments.directory not in sys.path:
        sys.path.insert(0, arguments.directory)
    job = _job(arguments)
    return open_store(arguments.store, job, arguments.shard_size), job


def _job(arguments: argparse.Namespace) -> Job:
    options = {name: value for name in _EXPLAINER if (value := getattr(arguments, name)) is not None}
    if re.fullmatch(r"-?\d+", options.get("output", "")):
        options["output"] = int(options["output"])
    given: dict[str, Any] = {
        name: True for name in ("standard_error", "multipliers", "per_baseline") if getattr(arguments, name)
    }
    if arguments.combine is not None:
        given["combine"] = imported("--combine", arguments.combine)
    if arguments.baseline_weights is not None:
        given["weights"] = np.asarray(read_array("--baseline-weights", arguments.baseline_weights)[:])
    return Job(
        explainer_of(arguments.model, arguments.weights, _device(arguments.device), options),
        _arrays("--inputs", arguments.inputs),
        _target(arguments.target),
        baselines=_baselines(arguments.baselines),
        args=[read_array("--args", text) for text in arguments.args],
        sample_kwargs=dict(map(_named, arguments.kwargs)),
        check_additivity=_CHECKS[arguments.check_additivity],
        seed=arguments.seed,
        keep=Keep(arguments.dtype, arguments.axes, arguments.sum_over, arguments.summary),
        **given,
    )


def _device(name: str | None) -> torch.device:
    if name is None:
        return (
            torch.device("cuda", local_rank() % torch.cuda.device_count())
            if torch.cuda.is_available()
            else torch.device("cpu")
        )
    try:
        device = torch.device(name)
        # Fails where there is no such device, and on "meta", whose tensors have no numbers.
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"--device: {error}") from error
    return device


def _arrays(option: str, texts: list[str]) -> Any:
    arrays = [read_array(option, text) for text in texts]
    return arrays if len(arrays) > 1 else arrays[0]


def _baselines(texts: list[str] | None) -> Any:
    if texts is None:
        return None
    if len(texts) == 1 and not names_file(texts[0]):
        return imported("--baselines", texts[0])
    return _arrays("--baselines", texts)


def _target(text: str | None) -> Any:
    if text is None:
        return None
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    if re.fullmatch(r"-?\d+(,-?\d+)+", text):
        return tuple(map(int, text.split(",")))
    return read_array("--target", text) if names_file(text) else imported("--target", text)


def _named(text: str) -> tuple[str, Any]:
    name, _, array = text.partition("=")
    if not name.isidentifier() or not array:
        raise CommandError(f"--kwargs must be NAME=FILE[:KEY], got {text}")
    return name, read_array("--kwargs", array)
