"""Where and with what something was measured, and the JSON files that say so."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import deepshap_ext

RESULTS = Path(__file__).resolve().parent / "results"
PEERS = ("torch", "shap", "captum", "tangermeme")


def machine(device: torch.device) -> str:
    """The machine in one line: torch, the device and the processor's threads."""
    threads = f"{torch.get_num_threads()} threads of {os.cpu_count()} CPUs"
    return f"torch {torch.__version__}, {device_name(device)}, {threads}"


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"deepshap_ext": deepshap_ext.__version__}
    for name in PEERS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def commit() -> str | None:
    """The commit that is checked out, with a ``+`` where files of the package differ from it; None outside of a repository."""
    folder = RESULTS.parents[1]
    try:
        name = git(folder, "rev-parse", "--short=12", "HEAD")
        return name + ("+" if git(folder, "status", "--porcelain", "deepshap_ext", "csrc") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def save(folder: Path, question: str, device: torch.device, measured: Any) -> Path:
    """Write ``folder/question.json``: what was measured, and where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{question}.json"
    where = {
        "device": device_name(device),
        "type": device.type,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "versions": versions(),
        "commit": commit(),
    }
    path.write_text(json.dumps({"question": question, "machine": where, "measured": measured}, indent=1) + "\n")
    return path
