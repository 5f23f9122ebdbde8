"""What the package's files say about it is the same in all of them."""

import re
from pathlib import Path

import pytest

import deepshap_ext

ROOT = Path(__file__).resolve().parents[1]


def found(pattern: str, file: str) -> str:
    match = re.search(pattern, (ROOT / file).read_text(), re.MULTILINE)
    assert match is not None
    return match[1]


def test_version_is_the_same_everywhere():
    assert re.fullmatch(r"\d+\.\d+\.\d+", deepshap_ext.__version__)
    assert found(r"^version: (\S+)$", "CITATION.cff") == deepshap_ext.__version__
    assert found(r"^## \[(\d\S*)\]", "CHANGELOG.md") == deepshap_ext.__version__


def test_date_of_the_release():
    dated = found(rf"^## \[{re.escape(deepshap_ext.__version__)}\] - (\d{{4}}-\d\d-\d\d)$", "CHANGELOG.md")
    assert found(r"^date-released: (\S+)$", "CITATION.cff") == dated


# --- CUDA architectures -------------------------------------------------------------------------------------------------------

ARCHITECTURES = found(r'set\(DEEPSHAP_CUDA_ARCHITECTURES "(.*?)"', "CMakeLists.txt").split(";")
ROWS = re.findall(r"^\| .* \| (\d+)\.(\d) \| (.*) \|$", (ROOT / "docs/gpu_architectures.md").read_text(), re.MULTILINE)


def what_runs(major: int, minor: int) -> str:
    """By CUDA's rules: machine code within a major version, PTX from its own version on."""
    capability = 10 * major + minor
    compiled = sorted((int(architecture.removesuffix("-real")), architecture) for architecture in ARCHITECTURES)
    for number, architecture in reversed(compiled):
        if number // 10 == major and number <= capability:
            return f"machine code of `{architecture}`"
    for number, architecture in reversed(compiled):
        if not architecture.endswith("-real") and number <= capability:
            return f"PTX of `{architecture}`"
    return f"not in this build: `{capability}-real`"


@pytest.mark.parametrize(("major", "minor", "runs"), ROWS)
def test_table_of_gpus(major: str, minor: str, runs: str):
    assert runs == what_runs(int(major), int(minor))


def test_every_architecture_is_in_the_table():
    assert set(re.findall(r"(?:code|PTX) of `(.*?)`", " ".join(runs for *_, runs in ROWS))) == set(ARCHITECTURES)
    text = (ROOT / "docs/gpu_architectures.md").read_text()
    assert f"`{';'.join(a for a in ARCHITECTURES if a.endswith('-real'))}`" in text
