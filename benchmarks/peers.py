"""deepshap_ext, captum, shap and tangermeme on the same networks, inputs, baselines and outputs: time, memory, additivity.

    python benchmarks/peers.py [names ...] [--full] [--inputs B] [--baselines R] [--explainers deepshap_ext shap ...] [--compile]
                               [--max-memory MIB] [--precision ieee] [--repeats 3] [--seconds 60] [--device cpu]
                               [--results benchmarks/results]

The explainers of those who have one are made before the clock starts. Peers get what suits them best: captum's ``DeepLiftShap`` for shared
baselines and its ``DeepLift`` on pairs where each input has its own, which ``DeepLiftShap`` cannot, in calls of as many inputs as fit
into a GPU, on a CPU of all and of one at a time; shap an explainer for each input there; tangermeme the same pairs a batch as captum, and
raw multipliers, which cost it less than its default. The additivity error is the largest |sum of values - output difference|, relative
to the largest difference.

Peak memory is what one call, explainer included, takes above what was there before: on a GPU what torch allocates, on a CPU the resident
memory of a process of its own. Who crashes or is not installed gets a row that says so.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from networks import NETWORKS, PRECISIONS, Job, in_precision, job
from results import machine, save
from timing import Contender, Row, additivity_error, compare, peak_memory
from torch import Tensor, nn

Work = Callable[[], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; all by default")
    parser.add_argument("--full", action="store_true", help="the sizes for a GPU")
    parser.add_argument("--inputs", type=int, help="as many as this, not as the table has")
    parser.add_argument("--baselines", type=int, help="likewise")
    parser.add_argument("--explainers", nargs="+", choices=list(EXPLAINERS), metavar="NAME", help="all by default")
    parser.add_argument("--compile", action="store_true", help="deepshap_ext also with compile=True")
    parser.add_argument("--max-memory", type=int, help="MiB that deepshap_ext may take, where times are measured")
    parser.add_argument("--precision", choices=PRECISIONS, default="ieee", help="of a GPU's float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60, help="start no new round of a network after that long")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--results", type=Path, help="also write peers.json into this folder")
    parser.add_argument("--peak", choices=list(EXPLAINERS), help="print the peak memory of this one, and nothing else")
    arguments = parser.parse_args()
    device = arguments.device
    size = {key: value for key in ("inputs", "baselines") if (value := getattr(arguments, key)) is not None}
    max_memory = arguments.max_memory and arguments.max_memory * 2**20
    if arguments.peak:
        print(peak(arguments.peak, arguments.names[0], arguments.full, device, size))
        return

    in_precision(arguments.precision)
    print(machine(device))
    chosen = arguments.explainers or [name for name in EXPLAINERS if name != COMPILED]
    if arguments.compile:
        chosen.insert(1, COMPILED)
    measured = []
    for name in arguments.names or NETWORKS:
        it = replace(job(name, arguments.full, device, **size), max_memory=max_memory)
        peaks: dict[str, int] = {}
        some = contenders(it, chosen, peaks)
        rows = compare(some, arguments.repeats, device, seconds_at_most=arguments.seconds)
        rows = [row for row in rows if not (row.crash and row.name.endswith(ALONE))]  # it crashes in one call, too
        if device.type != "cuda":
            peaks = {row.name: peak_bytes(row.name, name, arguments.full, size) for row in rows if not row.crash}
        memory = [peaks.get(row.name) for row in rows]
        print(f"\n{it}\n\n{table(rows, memory)}", flush=True)
        measured.append(
            {
                "name": name,
                "job": str(it),
                "rows": [{**row.record(), "memory": size} for row, size in zip(rows, memory, strict=True)],
            }
        )
        if arguments.results:
            save(arguments.results, "peers", device, measured)


def contenders(it: Job, names: Iterable[str], peaks: dict[str, int]) -> list[Contender]:
    """Each explainer; on a GPU ``peaks`` receives the memory that its first call took."""
    difference = it.difference()

    def gap(values: Tensor) -> float:
        return additivity_error(it.sums(values), difference.to(values.device))

    names = [name for name in names if not (it.X.is_cuda and name.endswith(ALONE))]
    for name in names:
        with suppress(ModuleNotFoundError):  # a row will say so
            import_module(name.partition(",")[0])  # no part of the first call
    made = {name: Lazy(name, it, peaks) for name in names}
    if COMPILED in made:
        with suppress(Exception):  # a row will say so
            made[COMPILED]()  # seconds of compiling, which are no part of a call
    return [Contender(name, work, gap) for name, work in made.items()]


class Lazy:
    """Explains the job with an explainer made at the first call, on a copy of the model: shap leaves its hooks behind when it raises."""

    def __init__(self, name: str, it: Job, peaks: dict[str, int]) -> None:
        self.name, self.it, self.peaks = name, it, peaks
        self.work: Work | None = None

    def __call__(self) -> Tensor:
        if self.work is None:
            own = replace(self.it, model=copy.deepcopy(self.it.model))
            found: list[Tensor] = []

            def first() -> None:
                self.work = EXPLAINERS[self.name](own)
                found.append(self.work())

            if self.it.X.is_cuda:
                self.peaks[self.name] = peak_memory(first, self.it.X.device)
            else:
                first()
            return found[0]
        return self.work()


# --- the explainers: each returns a call that gives values [B, *features], or [B, *features, K] for all outputs ---------------


def deepshap_ext(it: Job, compile: bool = False) -> Work:
    from deepshap_ext import Explainer

    explainer = Explainer(it.model, max_memory=it.max_memory, compile=compile)
    return lambda: explainer.attribute(it.X, it.target, baselines=it.baselines).values


def compiled(it: Job) -> Work:
    """With ``compile=True``, which the first call traces for and the second one compiles."""
    work = deepshap_ext(it, compile=True)
    work()
    return work


def captum(it: Job) -> Work:
    from captum.attr import DeepLift, DeepLiftShap

    shared, pairwise = DeepLiftShap(it.model), DeepLift(it.model)

    def some(here: slice, target: int) -> Tensor:
        if it.per_sample:
            found = pairwise.attribute(*it.pairs(here), target=target)
            return found.detach().unflatten(0, (-1, it.size.baselines)).mean(1)
        return shared.attribute(it.X[here], it.baselines, target=target).detach()

    return lambda: each_output(lambda target: torch.cat([some(here, target) for here in it.steps()]), it)


def shap(it: Job) -> Work:
    from shap import DeepExplainer

    # shap explains all outputs, or those that rank first: a model of one output is the same job.
    model = it.model if it.target is None else Output(it.model, it.target)

    def values(explainer: Any, X: Tensor) -> Tensor:
        found = torch.from_numpy(explainer.shap_values(X, check_additivity=False))
        return found if it.target is None else found[..., 0]

    if it.per_sample:
        return lambda: torch.cat(
            [values(DeepExplainer(model, own), x[None]) for x, own in zip(it.X, it.baselines, strict=True)]
        )
    explainer = DeepExplainer(model, it.baselines)
    return lambda: values(explainer, it.X)


def tangermeme(it: Job) -> Work:
    from tangermeme.deep_lift_shap import deep_lift_shap

    references = it.baselines if it.per_sample else it.baselines.expand(len(it.X), *it.baselines.shape)

    def one(target: int) -> Tensor:
        multipliers = deep_lift_shap(
            it.model,
            it.X,
            target=target,
            references=references,
            batch_size=it.size.step * it.size.baselines,
            raw_outputs=True,
            only_warn=it.X.dim() == 3,  # it takes sequences, and may take embeddings for one-hot ones
            device=it.X.device,
        )
        return (multipliers.to(it.X.device) * (it.X.unsqueeze(1) - references)).mean(1)

    return lambda: each_output(one, it)


def one_input_a_call(explainer: Callable[[Job], Work]) -> Callable[[Job], Work]:
    return lambda it: explainer(replace(it, size=replace(it.size, step=1)))


ALONE, COMPILED = ", one input a call", "deepshap_ext, compile=True"

EXPLAINERS = {
    "deepshap_ext": deepshap_ext,
    COMPILED: compiled,
    "captum": captum,
    f"captum{ALONE}": one_input_a_call(captum),
    "shap": shap,
    "tangermeme": tangermeme,
    f"tangermeme{ALONE}": one_input_a_call(tangermeme),
}


def each_output(one: Callable[[int], Tensor], it: Job) -> Tensor:
    """Values of all outputs of the job, or of its target, by a function that explains one output a call."""
    if it.target is not None:
        return one(it.target)
    with torch.no_grad():
        outputs = it.model(it.X[:1]).shape[1]
    return torch.stack([one(target) for target in range(outputs)], -1)


class Output(nn.Module):
    """One output of a model."""

    def __init__(self, model: nn.Module, target: int) -> None:
        super().__init__()
        self.model, self.target = model, target

    def forward(self, X: Tensor) -> Tensor:
        return self.model(X)[:, self.target : self.target + 1]


# --- memory ------------------------------------------------------------------------------------------------------------


def peak(explainer: str, name: str, full: bool, device: torch.device, size: dict[str, int]) -> int:
    """Bytes that one call takes at most, after a small job that loads what is loaded once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        EXPLAINERS[explainer](job(name, full, device, inputs=2, baselines=2))()
        it = job(name, full, device, **size)
        return peak_memory(lambda: EXPLAINERS[explainer](it)(), device)


def peak_bytes(explainer: str, name: str, full: bool, size: dict[str, int]) -> int:
    """Bytes that one call takes at most on a CPU, measured in a process of its own: memory that other jobs have freed would not count."""
    options = [*(["--full"] if full else []), *(f"--{key}={value}" for key, value in size.items())]
    command = [sys.executable, __file__, name, "--peak", explainer, *options]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def table(rows: list[Row], memory: list[int | None]) -> str:
    """The rows as markdown; ours is the first, and the others' times are divided by it."""
    ours = memory[0]
    lines = ["| | time | / ours | peak memory | / ours | additivity error |", "|---|---|---|---|---|---|"]
    for row, size in zip(rows, memory, strict=True):
        if row.crash:
            lines.append(f"| {row.name} | {row.crash} | | | | |")
            continue
        megabytes = "" if size is None else f"{size / 2**20:.0f} MiB"
        times = f"{size / ours:.1f}" if size is not None and ours else ""
        lines.append(
            f"| {row.name} | {row.time_text} | {row.ratio(rows[0]):.2f} | {megabytes} | {times} | {row.error_text} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
