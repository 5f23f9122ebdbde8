"""How large should the tensors be that come and go? Time against the planner's limit on the CPU, relative to the one it has.

python benchmarks/chunks.py [names ...] [--repeats 5]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import torch
from networks import NETWORKS, Job, job
from results import machine
from timing import Contender, compare

import deepshap_ext.engine as engine
from deepshap_ext import DeepExplainer
from deepshap_ext.memory import WARM

MEBIBYTES = (1, 4, 8, 16, 24, 1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="networks; all by default")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    device = torch.device("cpu")
    print(f"{machine(device)}\n\n| | {' | '.join(f'{size} MiB' for size in MEBIBYTES[:-1])} | no limit |")
    print(f"|---|{'---|' * len(MEBIBYTES)}")
    for name in arguments.names or NETWORKS:
        it = job(name, False, device)
        explainer = DeepExplainer(it.model, it.baselines[0] if it.per_sample else it.baselines)
        contenders = [Contender(str(size), explaining(explainer, it, size << 20)) for size in (WARM >> 20, *MEBIBYTES)]
        now, *rows = compare(contenders, arguments.repeats, device)
        print(f"| {it} | {' | '.join(f'{row.ratio(now):.2f}' for row in rows)} |", flush=True)


def explaining(explainer: DeepExplainer, it: Job, limit: int) -> Callable[[], Any]:
    def work() -> Any:
        engine.WARM = limit
        own = it.baselines if it.per_sample else None
        return explainer.attribute(it.X, it.target, baselines=own, check_additivity=False)

    return work


if __name__ == "__main__":
    main()
