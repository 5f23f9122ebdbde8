"""Prints the tests to run after a change, the nearest first; `make check` runs them.

    python scripts/changed_tests.py [BASE]

Changed is what differs from BASE: where this branch left main, or on main the last commit. Near to a changed file are the test files
that changed themselves, those named after it, those that import it, and then those of its folder.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = {
    path: (ROOT / path).read_text()
    for path in sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/**/test_*.py"))
}
#: Tests by the beginning of a changed file's path; where several beginnings fit, the longest counts.
FOLDERS = {
    "README.md": "tests/test_readme.py",
    "docs/": "tests/test_readme.py tests/test_packaging.py",
    "csrc/math/": "tests/math/ tests/ops/",
    "csrc/": "tests/ops/",
    "deepshap_ext/": "tests/test_explainer_values.py tests/test_explainer_additivity.py tests/test_native.py",
    "deepshap_ext/capture/": "tests/capture/ tests/test_explainer_models.py tests/test_explainer_unchanged.py",
    "deepshap_ext/captum/": "tests/test_captum.py",
    "deepshap_ext/cli/": "tests/test_cli.py",
    "deepshap_ext/ops/": "tests/ops/",
    "deepshap_ext/rules/": "tests/rules/ tests/test_options.py",
    "deepshap_ext/scale/": "tests/scale/",
    "tests/program_table/": "tests/test_programs.py",
    "tests/reference/": "tests/rules/ tests/ops/ tests/math/",
    "tests/rules/": "tests/rules/",
}


def git(*arguments: str) -> list[str]:
    """The lines that a git command prints."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def base() -> str:
    """The commit to compare with, as this file's first lines say."""
    if len(sys.argv) > 1:
        return sys.argv[1]
    return git("merge-base", "HEAD", "main")[0] if git("branch", "--list", "main") else "HEAD"


def near(changed: str) -> Iterator[str]:
    """The test files near to a changed file, the nearest first; some more than once."""
    path = Path(changed)
    yield from (test for test in TESTS if test == changed)
    yield from (test for test in TESTS if re.fullmatch(rf"test_(\w+_)?{path.stem}", Path(test).stem))
    if path.suffix == ".py":
        folder = ".".join(path.parent.parts).removeprefix("tests").strip(".")
        module = (
            rf"from {folder}\.{path.stem} import|from {folder} import .*\b{path.stem}\b"
            if folder
            else rf"from {path.stem} import"
        )
        yield from (test for test, text in TESTS.items() if re.search(rf"^\s*({module})", text, re.MULTILINE))
    beginnings = [beginning for beginning in FOLDERS if changed.startswith(beginning)]
    for tests in FOLDERS[max(beginnings, key=len)].split() if beginnings else []:
        yield from (test for test in TESTS if test.startswith(tests))


def main() -> None:
    changed = git("diff", "--name-only", base()) + git("ls-files", "--others", "--exclude-standard")
    # First the nearest test of each changed file, then the second nearest of each, and so on.
    ranked = [(place, test) for file in changed for place, test in enumerate(near(file))]
    print(*dict.fromkeys(test for _, test in sorted(ranked)), sep="\n")


if __name__ == "__main__":
    main()
