"""What does a compiled explanation make an H100 do? Kernels, and the bytes that they read and write, found out without a GPU.

    pip install triton
    python benchmarks/inductor.py [NETWORK ...] [--kernels]

The explanation runs on the emulated device of tests/emulation, and Inductor writes its code as for an H100. That code is run, but for
Triton's kernels: of each the tensors are counted that it is given. (Values are then wrong, and nothing looks at them; layouts are those
that the code asserts.) Bytes are ``a + b inputs + c rows of baselines + d pairs``; four small jobs give the numbers, and these the bytes
of the benchmark's job on a GPU. Prints launches, MiB a pair, by what moves them, GiB of the job, and the seconds that these take at 85 %
of an H100's 3.35 TB/s (NVIDIA's data sheet of the SXM5 module): what the job takes at least, unless what it computes takes longer.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from emulation.build import build_device

_folder = tempfile.TemporaryDirectory()
os.environ["EMULATED_GPU"] = str(build_device(Path(_folder.name)))
import emulation.gpu as emulated  # noqa: E402  # comes before torch
import networks  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.runtime import driver  # noqa: E402

from deepshap_ext import Explainer, tracing  # noqa: E402

BYTES_A_SECOND = 0.85 * 3.35e12
DEVICE = torch.device("cuda")
#: Inputs and baselines of the jobs that are counted.
COUNTED = [(2, 2), (2, 4), (4, 2), (4, 4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=["bpnet", "chrombpnet", "resnet50", "vit", "bert"])
    parser.add_argument(
        "--kernels", action="store_true", help="also list the kernels of the largest job that is counted"
    )
    arguments = parser.parse_args()
    pretend_h100()
    warnings.filterwarnings("ignore", module="torch")
    print("| | launches | MiB a pair | of these | GiB of the job | seconds |\n|---|---|---|---|---|---|")
    for name in arguments.networks:
        jobs = [counted(name, inputs, baselines) for inputs, baselines in COUNTED]
        own = networks.NETWORKS[name].sequences
        terms = [terms_of(inputs, baselines, own) for inputs, baselines in COUNTED]
        shares = {what: fitted([by_kind(job)[what] for job in jobs], terms)[-1] for what in by_kind(jobs[-1])}
        full = networks.NETWORKS[name].full
        of_all = fitted([sum(by_kind(job).values()) for job in jobs], terms)
        total = float(of_all @ terms_of(full.inputs, full.baselines, own))
        text = ", ".join(f"{what} {size / 2**20:.1f}" for what, size in sorted(shares.items(), key=lambda one: -one[1]))
        print(
            f"| {name}, {full.inputs} x {full.baselines} | {len(jobs[-1])} | {sum(shares.values()) / 2**20:.1f} | {text} "
            f"| {total / 2**30:.0f} | {total / BYTES_A_SECOND:.3f} |",
            flush=True,
        )
        if arguments.kernels:
            for kernel, tensors in jobs[-1]:
                shown = "; ".join(f"{list(one.shape)} {one.stride()}" for one in tensors if one.dim() > 2)
                print(f"    {sum(map(size_of, tensors)) / 2**20:8.2f} MiB  {kernel[:60]:60} {shown}")


def terms_of(inputs: int, baselines: int, own: bool) -> list[float]:
    """1, inputs, rows of baselines, pairs; where each input has its own baselines, rows and pairs are as many."""
    return [1, inputs, 0 if own else baselines, inputs * baselines]


def fitted(sizes: list[int], terms: list[list[float]]) -> Any:
    """The factors of the terms; the last one is the bytes a pair."""
    return np.linalg.lstsq(np.array(terms), sizes, rcond=None)[0]


Job = list[tuple[str, list[Tensor]]]


def counted(name: str, inputs: int, baselines: int) -> Job:
    """The kernels of a call of the compiled explanation, each with the tensors that it reads and writes."""
    from torch._inductor import codecache

    job = networks.job(name, full=True, device=DEVICE, inputs=inputs, baselines=baselines)
    launched: Job = []
    codecache.PyCodeCache.load_by_key_path = lambda key, path, *_, **__: generated(Path(path), launched)  # type: ignore[method-assign]
    explainer = Explainer(job.model, compile=True)
    for _ in range(3):  # traces, compiles, and runs
        launched.clear()
        explainer.attribute(job.X, job.target, baselines=job.baselines, check_additivity="ignore")
    return launched


def generated(path: Path, launched: Job) -> ModuleType:
    """The module of Inductor's code, with what notes what it is given in place of what launches on a GPU."""

    def note(name: str, *values: Any) -> Any:
        tensors = [one for value in values for one in (value if isinstance(value, (tuple, list)) else (value,))]
        launched.append((name, [one for one in tensors if isinstance(one, Tensor)]))
        return values[-1]

    class Kernels:
        def triton(self, name: str, body: str, *_: Any, **__: Any) -> Any:
            parameters = re.findall(r"\w+", body[body.index(f"def {name}(") + len(f"def {name}(") :].split(")")[0])

            def run(*given: Any, **_: Any) -> None:
                both = [one for name, one in zip(parameters, given, strict=False) if name.startswith("in_out")]
                note(name, *given, both)

            return SimpleNamespace(run=run)

        def wait(self, scope: Any) -> None:
            pass

    def convolution(x: Tensor, weight: Tensor, **more: Any) -> Tensor:
        order = ("bias", "stride", "padding", "dilation", "transposed", "output_padding", "groups")
        found = torch.ops.aten.convolution(x, weight, *(more[one] for one in order))
        laid_out: Tensor = note("convolution", x, weight, found.contiguous(memory_format=layout_of_cudnn(x, weight)))
        return laid_out

    class Libraries:
        """Of matrix products and convolutions, by name."""

        def __getattr__(self, name: str) -> Callable[..., Any]:
            if name == "convolution":
                return convolution
            return lambda *given, out, **_: note(name, *given, out)

    class Ours:
        def __getattr__(self, name: str) -> Any:
            operation = getattr(torch.ops.deepshap_ext, name).default
            return SimpleNamespace(default=lambda *given: note(f"deepshap_ext.{name}", *given, operation(*given)))

    stands_in = {
        "extern_kernels": Libraries(),
        "empty_strided_cuda": lambda *shape: torch.empty_strided(*shape[:2], dtype=shape[2], device=DEVICE).zero_(),
        "reinterpret_tensor": lambda one, size, stride, offset=0: one.as_strided(
            size, stride, one.storage_offset() + offset
        ),
        "get_raw_stream": lambda device: 0,
    }
    code = path.read_text()
    replaced = {
        "async_compile = AsyncCompile()": "async_compile = KERNELS",
        "torch.ops.deepshap_ext.": "OURS.",
        "with torch.cuda._DeviceGuard(0):": "if True:",
        "torch.cuda.set_device(0)": "pass",
        "class Runner": "globals().update(STANDS_IN)\nclass Runner",
    }
    for before, after in replaced.items():
        code = code.replace(before, after)
    module = ModuleType(path.stem)
    vars(module).update(KERNELS=Kernels(), OURS=Ours(), STANDS_IN=stands_in, __file__=str(path))
    exec(compile(code, str(path), "exec"), vars(module))
    return module


def by_kind(job: Job) -> Counter[str]:
    """Bytes that are moved by Triton's kernels, by this package's operations and by each of the libraries'."""
    found: Counter[str] = Counter()
    for name, tensors in job:
        found["triton" if name.startswith("triton") else name] += sum(map(size_of, tensors))
    return found


def size_of(tensor: Tensor) -> int:
    """Bytes of the elements that lie in memory: those along a stride of 0 are one."""
    lengths = [n for n, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride]
    return int(np.prod(lengths)) * tensor.element_size()


def pretend_h100() -> None:
    """Have torch and Triton say of the emulated device what they say of an H100, as far as Inductor asks."""
    properties = SimpleNamespace(
        name="NVIDIA H100",
        major=9,
        minor=0,
        total_memory=80 << 30,
        multi_processor_count=132,
        warp_size=32,
        max_threads_per_multi_processor=2048,
        max_threads_per_block=1024,
        regs_per_multiprocessor=65536,
        shared_memory_per_block=48 << 10,
        shared_memory_per_block_optin=227 << 10,
        L2_cache_size=50 << 20,
        gcnArchName="",
    )
    cuda: Any = torch.cuda
    cuda.get_device_properties = cuda._get_device_properties = lambda *_: properties
    cuda.get_device_capability = lambda *_: (9, 0)
    cuda.get_device_name = lambda *_: properties.name
    cuda.get_rng_state, cuda.set_rng_state = lambda *_: torch.zeros(16, dtype=torch.uint8), lambda *_: None
    core: Any = torch._C
    core._cuda_getCurrentRawStream = lambda device: 0
    core._conv_determine_backend_memory_format = lambda x, weight, _: layout_of_cudnn(x, weight)
    driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: GPUTarget("cuda", 90, 32),
            get_current_device=lambda: 0,
            get_current_stream=lambda *_: 0,
            get_active_torch_device=lambda: DEVICE,
        )
    )
    torch.compile = emulated.compile_with
    # Imported here, since Inductor keeps the functions that were replaced above.
    from torch._inductor import config as inductor

    inductor.compile_threads = 1
    # Both run operations of the device, and neither finds anything in these graphs.
    inductor.pattern_matcher = inductor.joint_graph_constant_folding = False
    # CUDA graphs launch the same kernels.
    tracing.MOST_BYTES = 0


def layout_of_cudnn(x: Tensor, weight: Tensor) -> torch.memory_format:
    """As torch decides it for cuDNN."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    if last and (x.is_contiguous(memory_format=last) or weight.is_contiguous(memory_format=last)):
        return last
    return torch.contiguous_format


if __name__ == "__main__":
    main()
