"""Compiles what stands in for a GPU.

That is the CUDA kernels for the host, against cuda_runtime.h beside this file, as a library with the name and the dispatch key of the
CPU's; and device.cpp, a CUDA device for torch.
"""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
_LAUNCH = re.compile(r"([\w:]+(?:<[\w, ]+>)?)<<<")


def translate(text: str) -> str:
    """A .cu file as C++: kernel launches become calls, and the operations are registered for the CPU."""
    text = text.replace(
        "STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CUDA, m)", "STABLE_TORCH_LIBRARY_IMPL(deepshap_ext, CPU, m)"
    )
    text = text.replace(
        "extern __shared__ unsigned char shared[];", "unsigned char* const shared = emulation::dynamic_shared;"
    )
    while found := _LAUNCH.search(text):
        settings_end = text.index(">>>", found.end())
        close = _closing(text, settings_end + len(">>>"))
        grid, block, shared, _ = _split(text[found.end() : settings_end])
        call = found[1] + text[settings_end + len(">>>") : close + 1]
        launch = f"emulation::launch({grid}, {block}, {shared}, [=] {{ {call}; }})"
        text = text[: found.start()] + launch + text[close + 1 :]
    return text


def _closing(text: str, start: int) -> int:
    """Where the parenthesis that opens at ``start`` closes."""
    depth = 0
    for position in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position
    raise ValueError(f"no end of the call at {text[start : start + 40]!r}")


def _split(arguments: str) -> list[str]:
    """Arguments at their commas, but for those within parentheses."""
    parts, depth = [""], 0
    for character in arguments:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def build_device(folder: Path) -> Path:
    """The library of the device, built in ``folder``."""
    torch, library = _torch(), folder / "device.so"
    headers = [
        part for folder in ("include", "include/torch/csrc/api/include") for part in ("-isystem", torch / folder)
    ]
    flags = ["-std=c++20", "-O1", "-fPIC", "-shared", "-w", *headers]
    link = [f"-L{torch / 'lib'}", f"-Wl,-rpath,{torch / 'lib'}", "-ltorch_cpu", "-lc10"]
    subprocess.run(["c++", *flags, HERE / "device.cpp", "-o", library, *link], check=True)
    return library


def _torch() -> Path:
    """Torch's folder, found without importing torch."""
    spec = find_spec("torch")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def build(folder: Path) -> Path:
    """The library of the kernels, built in ``folder``."""
    torch = _torch()
    sources = [CSRC / "library.cpp"]
    # The kernels include each other's headers by relative paths, so the copies are in folders as in csrc.
    for header in (CSRC / "ops" / "cuda").glob("*.cuh"):
        text = header.read_text().replace("#include <torch/csrc/stable/macros.h>\n", "")
        text = text.replace("torch::stable::accelerator::DeviceGuard", "emulation::DeviceGuard")
        _write(folder / "ops" / "cuda" / header.name, text)
    for kernel in (CSRC / "ops" / "cuda").glob("*.cu"):
        sources.append(_write(folder / "ops" / "cuda" / f"{kernel.stem}.cpp", translate(kernel.read_text())))
    for shared in ("math", "ops"):
        for header in (CSRC / shared).glob("*.h"):
            _write(folder / shared / header.name, header.read_text())
    flags = [
        *("-std=c++20", "-O1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-w"),
        *("-DTORCH_TARGET_VERSION=0x020b000000000000ULL", f"-I{HERE}", "-isystem", str(torch / "include")),
    ]

    def compiled(source: Path) -> str:
        target = folder / f"{source.stem}.o"
        subprocess.run(["c++", *flags, "-c", str(source), "-o", str(target)], check=True)
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, sources))
    library = folder / "_cpu.so"
    link = ["-Wl,--no-as-needed", "-ltorch", "-ltorch_cpu"]
    subprocess.run(["c++", "-shared", "-o", str(library), *objects, f"-L{torch / 'lib'}", *link], check=True)
    return library


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


if __name__ == "__main__":
    print(build(Path(sys.argv[1])))
